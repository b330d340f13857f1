package cli

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/lab/guest"
	"github.com/fathom-trace/fathom/lab/guest/pid1"
)

// TestPstore has a guest with ramoops and netconsole panic: what it sent is explained here. A guest with the same memory then
// has pstore explained there, and addresses of the kernel that runs.
func TestPstore(t *testing.T) {
	const kernel = "debian-6.12-cloud"
	k := ktest.Bootable(t, kernel)
	busybox := ktest.Oracle(t, "busybox")
	accel, err := guest.ParseAccel(os.Getenv(ktest.EnvAccel))
	if err != nil {
		t.Fatal(err)
	}
	fathom := ktest.Fathom(t).Path
	memory := filepath.Join(t.TempDir(), "memory")
	run := func(command string, modules ...string) (guest.Result, error) {
		return guest.Run(t.Context(), guest.Options{
			Kernel: k, Init: fathom, Accel: accel, Mem: 512,
			Files:   []guest.File{{Name: "/bin/busybox", Path: busybox}},
			Modules: append([]string{"ramoops mem_address=0x10000000 mem_size=0x100000 record_size=0x20000 console_size=0 ftrace_size=0 pmsg_size=0", "virtio_net"}, modules...),
			// Far from the end of memory, where QEMU puts the initramfs.
			Append: []string{"memmap=1M$0x10000000", "nokaslr"},
			QEMUArgs: []string{"-object", "memory-backend-file,id=memory,share=on,size=512M,mem-path=" + memory, "-machine", "pc,memory-backend=memory",
				"-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="},
			Commands: []pid1.Command{{Args: []string{"/bin/busybox", "sh", "-e", "-c", command}}},
		})
	}
	ear := listenFor(t, fathom)
	// The host is 10.0.2.2 in QEMU's user network, and this its card's address there.
	res, err := run("echo c > /proc/sysrq-trigger", fmt.Sprintf("netconsole netconsole=@10.0.2.15/eth0,%d@10.0.2.2/52:55:0a:00:02:02", ear.port))
	var pe *guest.PanicError
	if !errors.As(err, &pe) {
		t.Fatalf("%v\n%v\n%v", err, res.Log, res.Commands)
	}
	ear.heard(t, "why    somebody asked for it: sysrq-c", "stack  sysrq_handle_crash+")
	res, err = run(afterwards + guestText())
	if err != nil || len(res.Commands) == 0 {
		t.Fatalf("%v\n%v", err, res.Log)
	}
	out := res.Commands[0]
	for _, want := range []string{"dmesg-ramoops-0", "why    somebody asked for it: sysrq-c", "stack  sysrq_handle_crash+"} {
		if out.Code != 0 || !strings.Contains(out.Stdout, want) {
			t.Errorf("exit %d, without %q:\n%s%s", out.Code, want, out.Stdout, out.Stderr)
		}
	}
	checkAddresses(t, out.Stdout)
	checkGuestText(t, out.Stdout)
}

// TestGuestText has the oldest of the guests say what its addresses and system calls are, as TestPstore does in another; and, as it is there,
// measure between its RDMA devices.
func TestGuestText(t *testing.T) {
	k := ktest.Bootable(t, "debian-6.1")
	busybox := ktest.Oracle(t, "busybox")
	files, err := guest.Program(ktest.Oracle(t, "rdma"))
	if err != nil {
		t.Fatal(err)
	}
	accel, err := guest.ParseAccel(os.Getenv(ktest.EnvAccel))
	if err != nil {
		t.Fatal(err)
	}
	res, err := guest.Run(t.Context(), guest.Options{
		Kernel: k, Init: ktest.Fathom(t).Path, Accel: accel, Mem: 1024, Append: []string{"nokaslr"},
		Files:    append(files, guest.File{Name: "/bin/busybox", Path: busybox}),
		Modules:  []string{"rdma_rxe", "crc32_generic", "dummy"},
		Commands: []pid1.Command{{Args: []string{"/bin/busybox", "sh", "-e", "-c", guestText()}}, {Args: []string{"/bin/busybox", "sh", "-e", "-c", guestRDMA}}},
	})
	if err != nil || len(res.Commands) != 2 || res.Commands[0].Code != 0 {
		t.Fatalf("%v\n%v\n%+v", err, res.Log, res.Commands)
	}
	checkGuestText(t, res.Commands[0].Stdout)
	t.Run("rdma", func(t *testing.T) {
		if c := res.Commands[1]; c.Code != 0 {
			t.Fatalf("exit code %d:\n%s%s", c.Code, c.Stdout, c.Stderr)
		}
		checkRDMA(t, res.Commands[1].Stdout)
	})
}

// afterwards prints each address that is asked for, and behind "is" what it must be said to be.
const afterwards = `B=/bin/busybox
of() { echo "ASKED $*"; /init explain address "$@"; echo "END"; }
at() { $B awk -v s="$1" '$3 == s { print "0x" $1; exit }' /proc/kallsyms; }
echo "VIRTUAL $(at vfs_read)"; of $(at vfs_read)
of vfs_read+0x10
echo "MODULE $(at virtnet_open)"; of $(at virtnet_open)
BAR=$($B awk '/ : virtio/ || / : 0000:00:/ { split($1, a, "-"); print a[1]; exit }' /proc/iomem)
$B cat /proc/iomem
echo "BAR $BAR"; of --physical 0x$BAR
of --physical 0x200000
echo "ASKED short"; /init explain 0x$BAR; echo "END"
$B mount -t pstore pstore /sys/fs/pstore; $B ls /sys/fs/pstore; /init explain --pstore`

// checkAddresses compares what was said of addresses with where they are from.
func checkAddresses(t *testing.T, out string) {
	t.Helper()
	answers := strings.Split(out, "ASKED ")[1:]
	if len(answers) < 6 {
		t.Fatalf("%d answers:\n%s", len(answers), out)
	}
	for i, want := range [][]string{{"vfs_read+0x0", "the kernel's image"}, {"vfs_read+0x10"}, {"virtnet_open+0x0", "virtio_net"}, {"0000:00:", "window    BAR"}, {"System RAM"}, {"0000:00:", "device    0000:00:", "window    BAR"}} {
		answer, _, _ := strings.Cut(answers[i], "END")
		for _, w := range want {
			if !strings.Contains(answer, w) {
				t.Errorf("%s\nlacks %q; all:\n%s", answer, w, out)
			}
		}
	}
}

// ear is a fathom that listens to netconsole.
type ear struct {
	port int
	cmd  *exec.Cmd
	mu   sync.Mutex
	out  bytes.Buffer
}

func (e *ear) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.out.Write(p)
}

func (e *ear) String() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.out.String()
}

// listenFor starts to listen, on a port of this machine that nobody has.
func listenFor(t *testing.T, fathom string) *ear {
	t.Helper()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &ear{port: c.LocalAddr().(*net.UDPAddr).Port}
	c.Close()
	e.cmd = exec.Command(fathom, "explain", "--netconsole", fmt.Sprintf("127.0.0.1:%d", e.port))
	e.cmd.Stdout, e.cmd.Stderr = e, e
	if err := e.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		e.cmd.Process.Kill()
		e.cmd.Wait()
	})
	return e
}

// heard waits until all that is wanted was said.
func (e *ear) heard(t *testing.T, wants ...string) {
	t.Helper()
	for _, want := range wants {
		for start := time.Now(); !strings.Contains(e.String(), want); time.Sleep(50 * time.Millisecond) {
			if time.Since(start) > 2*time.Minute {
				t.Fatalf("netconsole: no %q in\n%s", want, e.String())
			}
		}
	}
}
