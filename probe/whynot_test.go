package probe

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/kernel/live"
	"github.com/fathom-trace/fathom/usersym"
)

// symbols is a kernel's list with one of each kind.
const symbols = `ffffffff81000000 T __noinstr_text_start
ffffffff81000010 T exc_page_fault
ffffffff81000100 T __noinstr_text_end
ffffffff81001000 T vfs_read
ffffffff81001100 t do_work.isra.0
ffffffff81001200 t do_work.constprop.1
ffffffff81001300 t do_work.cold
ffffffff81001400 T plain
ffffffff81001500 T native_sched_clock
ffffffff82000000 D jiffies
ffffffffc0000000 t veth_xmit	[veth]
`

// world is a World over a folder that stands for /proc and /sys.
func world(t *testing.T, hooked ...string) *World {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"proc/kallsyms": symbols, "sys/module/veth/refcnt": "0\n", "proc/sys/kernel/osrelease": "0.0.0-none\n"} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, err := live.Open(live.Options{Proc: filepath.Join(dir, "proc"), Sys: filepath.Join(dir, "sys")})
	if err != nil {
		t.Fatal(err)
	}
	w := NewWorld(l, nil, 0)
	for _, h := range hooked {
		name, module, _ := strings.Cut(h, " ")
		w.funcs = append(w.funcs, Function{Name: name, Module: module})
	}
	w.funcsOK, w.ftraceSays = true, true
	return w
}

func TestWhyNot(t *testing.T) {
	w := world(t, "vfs_read", "plain", "do_work.isra.0", "veth_xmit veth")
	tests := []struct {
		module, name string
		cause        Cause // "" if it can be traced
		want         string
	}{
		{"", "vfs_read", "", ""},
		{"vmlinux", "vfs_read", "", ""},
		{"veth", "veth_xmit", "", ""},
		{"", "vfs_raed", NoFunction, "this kernel has no symbol vfs_raed: inlined everywhere, not built in, or misspelt; try vfs_read"},
		{"", "do_work", Variant, "do_work exists only as the compiler changed it (.isra and .constprop: arguments removed or fixed; .part: one piece of it); try do_work.isra.0, do_work.constprop.1"},
		{"", "do_work.cold", Part, "do_work.cold is the part of do_work that the compiler moved out of the way; nothing calls it; try do_work"},
		{"", "jiffies", NotCode, "jiffies is a variable, not a function"},
		{"", "exc_page_fault", Blacklisted, "exc_page_fault is in .noinstr.text (entry and exit of the kernel, before tracing is allowed): neither ftrace nor kprobes may touch it"},
		{"", "native_sched_clock", Notrace, "native_sched_clock has no hook for ftrace: it is marked notrace, or its file is compiled without them; kprobe:native_sched_clock may do"},
		{"nosuch", "f", NotLoaded, "there is no module nosuch, neither loaded nor in /lib/modules/0.0.0-none"},
		{"veth", "vfs_read", NoFunction, "this kernel has no symbol vfs_read: inlined everywhere, not built in, or misspelt; try vfs_read"},
	}
	for _, tt := range tests {
		got := w.WhyNot(tt.module, tt.name)
		switch {
		case tt.cause == "" && got != nil, tt.cause != "" && got == nil:
			t.Errorf("%s:%s: %v", tt.module, tt.name, got)
		case got != nil && (got.Cause != tt.cause || got.Error() != tt.want):
			t.Errorf("%s:%s: %s\n%v\nwant %s\n%s", tt.module, tt.name, got.Cause, got, tt.cause, tt.want)
		}
	}
}

// TestWhyNotKernel asks a real kernel about functions that are the same in all under test.
func TestWhyNotKernel(t *testing.T) {
	ktest.NeedGuest(t, ktest.Kprobe, ktest.Kallsyms, ktest.Tracefs)
	l, err := live.Open(live.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	users := usersym.New(usersym.Options{})
	defer users.Close()
	w := NewWorld(l, users, 0)
	defer w.Close()
	for name, want := range map[string]Cause{"vfs_read": "", "exc_page_fault": Blacklisted, "vfs_raed": NoFunction, "tcp_sendmsg_lokced": NoFunction} {
		got := w.WhyNot("", name)
		if want == "" && got != nil || want != "" && (got == nil || got.Cause != want) {
			t.Errorf("%s: %v, want %s", name, got, want)
		}
		if got != nil {
			t.Log(got)
		}
	}
	ks, err := l.Kallsyms()
	if err != nil {
		t.Fatal(err)
	}
	for s := range ks.Text() { // any function of which there is only a variant
		base, rest, ok := strings.Cut(s.Name, ".")
		if !ok || s.Module != "" || !strings.HasPrefix(rest, "isra") || strings.Contains(rest, "cold") || len(ks.ByName(base)) > 0 {
			continue
		}
		if got := w.WhyNot("", base); got == nil || got.Cause != Variant {
			t.Errorf("%s of %s: %v", base, s.Name, got)
		}
		return
	}
	t.Error("no variant in this kernel")
}
