package live

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/debuginfo/kallsyms"
	"github.com/fathom-trace/fathom/internal/feature"
)

// fake is a kernel of files.
func fake(t *testing.T, files map[string]string) *Live {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l, err := Open(Options{Proc: root + "/proc", Sys: root + "/sys"})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestFiles(t *testing.T) {
	l := fake(t, map[string]string{
		"proc/kallsyms":                   "ffffffff81000000 T _text\nffffffff81000040 t helper\n",
		"proc/modules":                    "veth 40960 0 - Live 0x0000000000000000\ne1000 1 2 veth, Live 0x0 (OE)\n",
		"proc/sys/kernel/osrelease":       "6.1.0-x\n",
		"sys/kernel/btf/vmlinux":          "",
		"sys/kernel/btf/veth":             "",
		"sys/devices/system/cpu/possible": "0-3,8-11\n",
	})
	if name, off, ok := l.Symbolise(0xffffffff81000041); name != "helper" || off != 1 || !ok {
		t.Error(name, off, ok)
	}
	if d := cmp.Diff([]string{"e1000", "veth"}, l.Modules()); d != "" {
		t.Error(d)
	}
	if r, err := l.Release(); r != "6.1.0-x" || err != nil {
		t.Error(r, err)
	}
	if n, err := l.NumCPU(); n != 12 || err != nil {
		t.Error(n, err)
	}
}

func TestNothing(t *testing.T) {
	l := fake(t, map[string]string{"sys/devices/system/cpu/possible": "many\n"})
	if _, err := l.Kallsyms(); !errors.Is(err, feature.ErrUnsupported) {
		t.Error(err)
	}
	if _, _, ok := l.Symbolise(1); ok || len(l.Modules()) > 0 {
		t.Error("finds what is not there")
	}
	if _, err := l.NumCPU(); err == nil {
		t.Error("counts CPUs")
	}
	if _, err := l.Release(); err == nil {
		t.Error("has a release")
	}
	if _, err := l.ModuleBTF("nosuch_module"); !errors.Is(err, feature.ErrUnsupported) {
		t.Error(err)
	}
}

func TestHidden(t *testing.T) {
	l := fake(t, map[string]string{"proc/kallsyms": "0000000000000000 T _text\n"})
	ks, err := l.Kallsyms()
	if err != nil || !errors.Is(ks.Hidden(), kallsyms.ErrHidden) {
		t.Error(err)
	}
	if _, _, ok := l.Symbolise(0); ok {
		t.Error("names address 0")
	}
}

func TestLastCPU(t *testing.T) {
	for list, want := range map[string]int{"0": 0, "0-3": 3, "0,2": 2, "0-1,4-5": 5, "": -1, "x": -1, "0-": -1, "0-99999999": -1} {
		n, ok := lastCPU(list)
		if !ok {
			n = -1
		}
		if n != want {
			t.Errorf("%q: %d, want %d", list, n, want)
		}
	}
}

func TestClocks(t *testing.T) {
	l := fake(t, nil)
	c := l.Clocks()
	now := time.Unix(0, clock(7)+c.BootToReal) // CLOCK_BOOTTIME
	if d := time.Since(now).Abs(); d > time.Minute {
		t.Errorf("%v off: %+v", d, c)
	}
	if suspended := c.MonoToReal - c.BootToReal; suspended < -int64(time.Millisecond) {
		t.Errorf("boot time is behind monotonic time: %+v", c)
	}
}

// TestKernel reads this machine's kernel and says how long that takes.
func TestKernel(t *testing.T) {
	l, err := Open(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if n, err := l.NumCPU(); err != nil || n < 1 {
		t.Error(n, err)
	}
	begin := time.Now()
	ks, err := l.Kallsyms()
	if err != nil {
		t.Skip(err)
	}
	t.Logf("kallsyms: %d symbols, %v", ks.Len(), time.Since(begin))
	if addrs := ks.ByName("vfs_read"); ks.Hidden() == nil && len(addrs) > 0 {
		if name, off, ok := l.Symbolise(addrs[0] + 1); name != "vfs_read" || off != 1 || !ok {
			t.Error(name, off, ok)
		}
	}
	begin = time.Now()
	if _, err := l.BTF(); err != nil {
		t.Skip(err)
	}
	t.Logf("BTF: %v", time.Since(begin))
	begin = time.Now()
	types, err := l.Types()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := types.ByName(ctype.KindStruct, "task_struct"); err != nil {
		t.Error(err)
	}
	t.Logf("struct task_struct: %v", time.Since(begin))
	begin = time.Now()
	tps, err := l.Tracepoints()
	if err != nil || !slices.Contains(tps, "sched_switch") {
		t.Errorf("%d tracepoints, %v", len(tps), err)
	}
	t.Logf("%d tracepoints: %v", len(tps), time.Since(begin))
	for _, m := range l.Modules() {
		if _, err := os.Stat("/sys/kernel/btf/" + m); err != nil {
			continue
		}
		if _, err := l.ModuleBTF(m); err != nil {
			t.Error(err)
		}
	}
}
