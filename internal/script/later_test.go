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
	out, errs := runProgram(t, `config = { missing_probes = "warn" }
kprobe:dummy:dummy_nosuch { }
kprobe:dummy:dummy_setup { printf("setup by %s\n", probe); @n++; if (@n == 2) { exit(); } }
interval:s:60 { }`, func() {
		if rounds == 2 {
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
		time.Sleep(time.Second) // it is looked for ten times a second
		dev := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "late0"}}
		if err := netlink.LinkAdd(dev); err != nil {
			t.Error(err)
		}
		netlink.LinkDel(dev)
		if err := unix.DeleteModule("dummy", 0); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
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
