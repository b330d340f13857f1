package dead

import (
	"testing"

	"github.com/fathom-trace/fathom/lang/check"
)

// TestLimits wants every row of the table to be about a function that there is, and to say either what it needs or why not.
func TestLimits(t *testing.T) {
	known := map[string]bool{}
	for f := range check.Funcs() {
		known[f.Name] = true
	}
	for name, l := range limits {
		if !known[name] {
			t.Errorf("%s: no such function", name)
		}
		if (l.needs == never) != (l.why != "") {
			t.Errorf("%s: needs %d, why %q", name, l.needs, l.why)
		}
	}
}

func TestIterators(t *testing.T) {
	for _, k := range Iterators() {
		if got, ok := find(k[0]); !ok || got.walk == nil || k[1] == "" {
			t.Errorf("%v", k)
		}
	}
}
