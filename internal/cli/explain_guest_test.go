package cli

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/lab/guest"
	"github.com/fathom-trace/fathom/lab/guest/pid1"
)

// TestPstore has a guest with ramoops panic, starts a guest with the same memory, and has pstore explained there.
func TestPstore(t *testing.T) {
	const kernel = "debian-6.12-cloud"
	wanted := os.Getenv(ktest.EnvGuests)
	if wanted != "all" && !slices.Contains(strings.Split(wanted, ","), kernel) {
		t.Skip(ktest.EnvGuests + " does not name " + kernel)
	}
	busybox := ktest.Oracle(t, "busybox")
	cache, err := guest.UserCache()
	if err != nil {
		t.Fatal(err)
	}
	k, err := cache.Kernel(t.Context(), kernel)
	if err != nil {
		t.Fatal(err)
	}
	accel, err := guest.ParseAccel(os.Getenv(ktest.EnvAccel))
	if err != nil {
		t.Fatal(err)
	}
	memory := filepath.Join(t.TempDir(), "memory")
	run := func(command string) (guest.Result, error) {
		return guest.Run(t.Context(), guest.Options{
			Kernel: k, Init: ktest.Fathom(t).Path, Accel: accel, Mem: 512,
			Files:   []guest.File{{Name: "/bin/busybox", Path: busybox}},
			Modules: []string{"ramoops mem_address=0x10000000 mem_size=0x100000 record_size=0x20000 console_size=0 ftrace_size=0 pmsg_size=0"},
			// Far from the end of memory, where QEMU puts the initramfs.
			Append:   []string{"memmap=1M$0x10000000"},
			QEMUArgs: []string{"-object", "memory-backend-file,id=memory,share=on,size=512M,mem-path=" + memory, "-machine", "pc,memory-backend=memory"},
			Commands: []pid1.Command{{Args: []string{"/bin/busybox", "sh", "-c", command}}},
		})
	}
	res, err := run("echo c > /proc/sysrq-trigger")
	var pe *guest.PanicError
	if !errors.As(err, &pe) {
		t.Fatalf("%v\n%v", err, res.Log)
	}
	res, err = run("/bin/busybox mount -t pstore pstore /sys/fs/pstore; /bin/busybox ls /sys/fs/pstore; exec /init explain --pstore")
	if err != nil || len(res.Commands) == 0 {
		t.Fatalf("%v\n%v", err, res.Log)
	}
	out := res.Commands[0]
	for _, want := range []string{"dmesg-ramoops-0", "why    somebody asked for it: sysrq-c", "stack  sysrq_handle_crash+"} {
		if out.Code != 0 || !strings.Contains(out.Stdout, want) {
			t.Errorf("exit %d, without %q:\n%s%s", out.Code, want, out.Stdout, out.Stderr)
		}
	}
}
