package sysno

import (
	"testing"
)

func TestTables(t *testing.T) {
	for _, c := range []struct {
		arch, name string
		nr         int
	}{{"amd64", "read", 0}, {"amd64", "openat", 257}, {"arm64", "openat", 56}, {"arm64", "read", 63}, {"amd64", "clone3", 435}, {"arm64", "clone3", 435}} {
		if got := Name(c.arch, uint64(c.nr)); got != c.name {
			t.Errorf("%s %d: %q, want %s", c.arch, c.nr, got, c.name)
		}
		if n, ok := Number(c.arch, c.name); !ok || n != c.nr {
			t.Errorf("%s %s: %d %v, want %d", c.arch, c.name, n, ok, c.nr)
		}
	}
	if got := Name("amd64", 1<<40); got != "" {
		t.Errorf("beyond the table: %q", got)
	}
	if _, ok := Number("amd64", ""); ok {
		t.Error("a name that is empty has a number")
	}
}
