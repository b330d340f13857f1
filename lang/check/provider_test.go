package check_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/lang/check"
)

// TestAliases: the short names are bpftrace's, and none means two things.
func TestAliases(t *testing.T) {
	want := map[string]string{
		"BEGIN": "begin", "END": "end", "BENCH": "bench", "k": "kprobe", "kr": "kretprobe", "f": "fentry", "kfunc": "fentry", "fr": "fexit", "kretfunc": "fexit",
		"t": "tracepoint", "rt": "rawtracepoint", "u": "uprobe", "ur": "uretprobe", "U": "usdt", "p": "profile", "i": "interval", "s": "software", "h": "hardware",
		"w": "watchpoint", "it": "iter",
	}
	got, names := map[string]string{}, map[string]bool{}
	for _, p := range check.Providers() {
		for _, n := range append(slices.Clone(p.Aliases), p.Name) {
			if names[n] {
				t.Errorf("%s means two things", n)
			}
			names[n] = true
		}
		for _, a := range p.Aliases {
			got[a] = p.Name
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, a := range slices.Sorted(maps.Keys(want)) {
		if p, ok := check.FindProvider(a); !ok || p.Name != want[a] {
			t.Errorf("%s is %+v", a, p)
		}
	}
	for _, short := range []string{"k:vfs_read", "t:syscalls:sys_enter_read"} {
		if _, ds := run(short+" { @ = count(); }", check.Options{}); len(ds) > 0 {
			t.Errorf("%s: %v", short, ds)
		}
	}
}
