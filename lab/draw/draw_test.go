package draw

import (
	"slices"
	"testing"
)

// TestDeck: what is drawn is drawn once, and the same for the same seed.
func TestDeck(t *testing.T) {
	draw := func() []string { d := New(7); return append(d.Words(60), d.Net(), d.Net6(), d.MAC().String()) }
	a, b := draw(), draw()
	if !slices.Equal(a, b) {
		t.Errorf("%v\n%v", a, b)
	}
	slices.Sort(a)
	if len(slices.Compact(a)) != 63 {
		t.Error("something was drawn twice")
	}
}
