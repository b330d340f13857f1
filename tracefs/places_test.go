package tracefs_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/tracefs"
)

// envPlaces has this program, in mounts of its own, look for tracefs where only that is mounted which it names, and say where it was.
const envPlaces = "FATHOM_TRACEFS_PLACES"

// places unmounts tracefs and debugfs, mounts what is wanted, and looks.
func places(want string) error {
	for range 100 { // a place may be mounted on several times
		b, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			return err
		}
		at := ""
		for l := range strings.Lines(string(b)) {
			if f := strings.Fields(l); strings.Contains(l, " - tracefs ") || strings.Contains(l, " - debugfs ") {
				at = f[4]
			}
		}
		if at == "" {
			break
		}
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", at, err)
		}
	}
	switch want {
	case "tracefs":
		if err := unix.Mount("none", "/sys/kernel/tracing", "tracefs", 0, ""); err != nil {
			return err
		}
	case "debugfs":
		if err := unix.Mount("none", "/sys/kernel/debug", "debugfs", 0, ""); err != nil {
			return err
		}
	}
	fs, err := tracefs.Find()
	if err != nil {
		return err
	}
	evs, err := fs.Events()
	fmt.Printf("found %s %d\n", fs.Root, len(evs))
	if cerr := fs.Close(); err == nil {
		err = cerr
	}
	return err
}

// TestPlaces: tracefs is found where it alone is mounted, where debugfs alone is, and where neither is.
func TestPlaces(t *testing.T) {
	if want := os.Getenv(envPlaces); want != "" {
		if err := places(want); err != nil {
			t.Fatal(err)
		}
		return
	}
	ktest.Need(t, ktest.Tracefs, ktest.NetNS)
	for _, tt := range []struct{ mounted, at string }{{"tracefs", "/sys/kernel/tracing "}, {"debugfs", "/sys/kernel/debug/tracing "}, {"nothing", "/proc/self/fd/"}} {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestPlaces$")
		cmd.Env = append(os.Environ(), envPlaces+"="+tt.mounted)
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
		out, err := cmd.CombinedOutput()
		_, found, ok := strings.Cut(string(out), "found ")
		var n int
		if _, serr := fmt.Sscan(strings.TrimPrefix(found[strings.IndexByte(found, ' ')+1:], " "), &n); err != nil || !ok || !strings.HasPrefix(found, tt.at) || serr != nil || n < 100 {
			t.Errorf("%s mounted: %v\n%s", tt.mounted, err, out)
		}
	}
}
