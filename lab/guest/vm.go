package guest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Descriptors QEMU inherits, beside stdin, stdout (the console) and stderr.
const (
	fdPort = 3 + iota
	fdQMP
	fdImage
)

// vm is one QEMU process.
type vm struct {
	cmd    *exec.Cmd
	port   net.Conn // the result port
	qmp    net.Conn
	stderr head
	exited chan struct{}
	exit   error
	once   sync.Once
}

// startVM starts QEMU. It dies with this process: the kernel sends it a signal when the thread that started it ends, which
// is why that thread is locked and waits.
func startVM(o *Options, image *os.File, console io.Writer) (*vm, error) {
	v := &vm{exited: make(chan struct{})}
	port, portPeer, err := socketPair("port")
	if err != nil {
		return nil, fmt.Errorf("start guest: %w", err)
	}
	qmp, qmpPeer, err := socketPair("qmp")
	if err != nil {
		port.Close()
		portPeer.Close()
		return nil, fmt.Errorf("start guest: %w", err)
	}
	defer portPeer.Close()
	defer qmpPeer.Close()
	v.port, v.qmp = port, qmp
	v.cmd = exec.Command(o.QEMU, o.args()...)
	v.cmd.ExtraFiles = []*os.File{portPeer, qmpPeer, image}
	v.cmd.Stdout, v.cmd.Stderr = console, &v.stderr
	v.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := v.cmd.Start()
		started <- err
		if err == nil {
			v.exit = v.cmd.Wait()
			close(v.exited)
		}
	}()
	if err := <-started; err != nil {
		port.Close()
		qmp.Close()
		if errors.Is(err, exec.ErrNotFound) {
			return nil, &SetupError{What: "start guest", Because: err.Error(), Try: []string{"apt-get install qemu-system-x86"}, Err: err}
		}
		return nil, fmt.Errorf("start guest: %w", err)
	}
	return v, nil
}

// kill ends QEMU, and only it.
func (v *vm) kill() { v.once.Do(func() { v.cmd.Process.Kill() }) }

// wait waits for QEMU's end and closes our ends of its sockets.
func (v *vm) wait() error {
	<-v.exited
	v.port.Close()
	v.qmp.Close()
	return v.exit
}

// args is QEMU's command line.
func (o *Options) args() []string {
	fd := func(n int) string { return "fd=" + strconv.Itoa(n) }
	cmdline := append([]string{
		"console=ttyS0", "quiet", "rdinit=/init",
		"panic=-1",       // with -no-reboot: QEMU ends at a panic
		"no_timer_check", // a loaded host makes an emulated guest's timer look dead
		"tsc=reliable",   // nor may the clock be given up for it
	}, o.Append...)
	if o.Accel == TCG {
		if khz := tscKHz(); khz > 0 {
			cmdline = append([]string{fmt.Sprintf("tsc_early_khz=%d", khz)}, cmdline...) // nor may it be taken for another's
		}
	}
	args := []string{
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-net", "none",
		"-accel", string(o.Accel), "-cpu", "max", "-smp", strconv.Itoa(o.CPUs), "-m", strconv.Itoa(o.Mem),
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
		"-chardev", "socket,id=port," + fd(fdPort),
		"-device", "virtio-serial-pci", "-device", "virtserialport,chardev=port,name=fathom",
		"-chardev", "socket,id=qmp," + fd(fdQMP), "-mon", "chardev=qmp,mode=control",
		"-kernel", o.Kernel.Image(), "-initrd", fmt.Sprintf("/proc/self/fd/%d", fdImage),
		"-append", strings.Join(cmdline, " "),
	}
	return append(args, o.QEMUArgs...)
}

// socketPair returns a connected pair without a name in the file system: ours and QEMU's end.
func socketPair(name string) (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	ours, peer := os.NewFile(uintptr(fds[0]), name), os.NewFile(uintptr(fds[1]), name+" peer")
	defer ours.Close()
	conn, err := net.FileConn(ours) // duplicates
	if err != nil {
		peer.Close()
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	return conn, peer, nil
}

// head keeps the first few KiB of what QEMU complains about.
type head struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (t *head) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf.Write(p[:min(len(p), max(0, 8<<10-t.buf.Len()))])
	return len(p), nil
}

func (t *head) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(t.buf.String())
}
