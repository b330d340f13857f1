package fault

import (
	"fmt"
	"io"
	"strings"

	"github.com/fathom-trace/fathom/lab/fault/expect"
)

// Tally adds scores up.
type Tally struct {
	Ran, Right, Missing         int // scenarios; Right have all four
	Class, Place, Object, Count int
}

// Add counts a score.
func (t *Tally) Add(s expect.Score) {
	t.Ran++
	for _, q := range []struct {
		ok bool
		n  *int
	}{{s.Class, &t.Class}, {s.Place, &t.Place}, {s.Object, &t.Object}, {s.Count, &t.Count}, {s.Points() == 4, &t.Right}} {
		if q.ok {
			*q.n++
		}
	}
}

func (t Tally) String() string {
	s := fmt.Sprintf("%d of %d right: class %d, place %d, object %d, count %d", t.Right, t.Ran, t.Class, t.Place, t.Object, t.Count)
	if t.Missing > 0 {
		s += fmt.Sprintf("; %d cannot be run here", t.Missing)
	}
	return s
}

// PrintScore writes one line of the table, cells parted by tabs; with why, the reasons below it.
func PrintScore(w io.Writer, s expect.Score, why bool) {
	cell := func(ok bool) string {
		if ok {
			return "yes"
		}
		return "NO"
	}
	fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t\n", s.ID, cell(s.Class), cell(s.Place), cell(s.Object), cell(s.Count))
	if !why || s.Points() == 4 {
		return
	}
	fmt.Fprintf(w, "    %s\n", strings.Join(s.Why, "\n    "))
	if v := s.Verdict; v != nil {
		fmt.Fprintf(w, "    said: %s in %s %s %s %s, culprit %v: %s\n", v.Class, v.Netns, v.Dev, v.Function, v.Reason, v.Culprit, v.Cause)
	}
}
