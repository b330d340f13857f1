package sorting

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestAsSlices: the order is that of package slices.
func TestAsSlices(t *testing.T) {
	type pair struct{ key, at int }
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		s := make([]pair, r.IntN(100))
		for i := range s {
			s[i] = pair{r.IntN(20), i}
		}
		byKey := func(a, b pair) int { return cmp.Compare(a.key, b.key) }
		want := slices.Clone(s)
		slices.SortStableFunc(want, byKey)
		stable := slices.Clone(s)
		if Stable(stable, byKey); !slices.Equal(stable, want) {
			t.Fatalf("%v, want %v", stable, want)
		}
		if By(s, byKey); !slices.IsSortedFunc(s, byKey) {
			t.Fatalf("%v is not sorted", s)
		}
	}
}
