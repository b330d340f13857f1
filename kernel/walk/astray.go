package walk

import (
	"errors"

	"github.com/fathom-trace/fathom/kernel"
)

// maxAstray is how many reads may fail in the walk over an array, of objects that a dump has not.
const maxAstray = 1 << 14

var errAstray = errors.New("most of an array leads nowhere: its length in memory must be wrong, and the rest of it was left out")

// astray watches a walk over an array whose length stands in memory too: if that is spoiled, behind the array's end comes all
// other memory.
type astray struct {
	errs           *kernel.Errors
	n, bad, entire int
}

func newAstray(errs *kernel.Errors) *astray { return &astray{errs: errs, n: errs.N} }

// far is asked after each entry, and says when to end: many reads have failed, beside the entries that were good. Of those that are
// empty there may be any number.
func (a *astray) far(empty bool) bool {
	if a.errs.N == a.n {
		if !empty {
			a.entire++
		}
		return false
	}
	a.bad, a.n = a.bad+a.errs.N-a.n, a.errs.N
	if a.bad < maxAstray || a.bad < a.entire/2 {
		return false
	}
	a.errs.Add(errAstray)
	return true
}
