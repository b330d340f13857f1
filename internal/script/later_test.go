package script

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/ktest"
)

// TestLater probes a function of a module that comes while the program runs, goes, and comes again.
func TestLater(t *testing.T) {
	if !ktest.InGuest() {
		t.Skip("modules come and go only in a guest")
	}
	ktest.Need(t, ktest.Kprobe, ktest.Modules)
	file := ""
	filepath.WalkDir("/", func(p string, d fs.DirEntry, err error) error {
		if p == "/proc" || p == "/sys" {
			return fs.SkipDir
		}
		if strings.HasPrefix(filepath.Base(p), "dummy.ko") {
			file = p
		}
		return nil
	})
	if file == "" {
		t.Fatal("the guest has no dummy.ko")
	}
	unix.DeleteModule("dummy", 0)
	rounds := 0
	out, errs := runHeard(t, `config = { missing_probes = "warn" }
kprobe:dummy:dummy_nosuch { }
kprobe:dummy:dummy_setup { printf("setup by %s\n", probe); @n++; if (@n == 2) { exit(); } }
interval:s:60 { }`, func(said *syncBuffer) {
		if rounds == 2 || !strings.Contains(said.String(), "Attached ") { // the module comes later than the program
			return
		}
		rounds++
		f, err := os.Open(file)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		flags := 0
		if !strings.HasSuffix(file, ".ko") {
			flags = unix.MODULE_INIT_COMPRESSED_FILE
		}
		if err := unix.FinitModule(int(f.Fd()), "numdummies=0", flags); err != nil {
			t.Error(err)
			return
		}
		await(said, "module dummy is loaded, attached", rounds)
		dev := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "late0"}}
		if err := netlink.LinkAdd(dev); err != nil {
			t.Error(err)
		}
		netlink.LinkDel(dev)
		if err := unix.DeleteModule("dummy", 0); err != nil {
			t.Error(err)
		}
		if rounds == 1 { // the second call ends the program
			await(said, "module dummy is gone", rounds)
		}
	}, regexp.MustCompile(`(?s)setup by.*setup by`))
	if strings.Count(out, "setup by kprobe:dummy:dummy_setup\n") != 2 {
		t.Errorf("%s\n%s", out, errs)
	}
	for _, want := range []string{"specified module dummy in probe kprobe:dummy:dummy_setup is not loaded. The probe waits for it.", "module dummy is loaded, attached", "could not attach kprobe:dummy:dummy_nosuch", "module dummy is gone"} {
		if !strings.Contains(errs, want) {
			t.Errorf("not said: %s\n%s", want, errs)
		}
	}
}

// await waits until something was said n times, and says if it was.
func await(said *syncBuffer, what string, n int) bool {
	for start := time.Now(); strings.Count(said.String(), what) < n; time.Sleep(20 * time.Millisecond) {
		if time.Since(start) > patience {
			return false
		}
	}
	return true
}
