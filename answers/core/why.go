package core

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/fathom-trace/fathom/kernel/walk"
	"github.com/fathom-trace/fathom/oops"
	"github.com/fathom-trace/fathom/oops/cause"
)

// laterIncidents is how many incidents behind the first are shown in a line each.
const laterIncidents = 5

// cause explains the first incident of the log that can kill, or else what state the tasks are in, or the first incident.
func (s *Session) cause(w io.Writer, text string) {
	reports := oops.Parse([]byte(text))
	pick := serious(reports, 0)
	deadlock := s.deadlock()
	switch {
	case deadlock != "" && (pick < 0 || reports[pick].Kind == oops.HungTask): // that a task hangs is what comes of it
		fmt.Fprintf(w, "\nwhy      %s\n", deadlock)
		if pick >= 0 {
			fmt.Fprintf(w, "         %s\n", reports[pick].Title)
		}
	case len(reports) == 0:
		fmt.Fprintf(w, "\nwhy      the log has no oops and no panic: the machine ran when it was read\n")
		return
	default:
		s.explain(w, cause.Explain(reports[max(pick, 0)], nil))
	}
	for shown := 0; pick >= 0 && shown < laterIncidents; shown++ {
		if pick = serious(reports, pick+1); pick >= 0 {
			fmt.Fprintf(w, "then     %s\n", cause.Explain(reports[pick], nil).Cause)
		}
	}
	if len(reports) > 1 {
		fmt.Fprintf(w, "         %d incidents in the log; the first that can kill is explained\n", len(reports))
	}
}

// serious is the first report from one on that is more than a warning; −1 if there is none.
func serious(reports []oops.Report, from int) int {
	for i := from; i < len(reports); i++ {
		if k := reports[i].Kind; k != oops.Warning && k != oops.OOM {
			return i
		}
	}
	return -1
}

func (s *Session) explain(w io.Writer, o cause.Oops) {
	fmt.Fprintf(w, "\nwhy      %s\n", o.Cause)
	if o.Kind != oops.Panic && o.Panic != "" {
		fmt.Fprintf(w, "         panic: %s\n", o.Panic)
	}
	fmt.Fprintf(w, "         %s\n", o.Title)
	if o.Comm != "" {
		fmt.Fprintf(w, "who      %s, pid %d, on CPU %d, in %s context\n", o.Comm, o.PID, o.CPU, o.Context)
	}
	for _, l := range o.Code {
		if l.Fault {
			fmt.Fprintf(w, "at       %s+%#x  %s", o.RIP.Symbol, o.RIP.Off, l.Text)
			if o.Operand != "" {
				fmt.Fprintf(w, "    (%s)", o.Operand)
			}
			fmt.Fprintln(w)
		}
	}
	if f := s.field(o.Report); f != "" {
		fmt.Fprintf(w, "field    %s\n", f)
	}
}

// deadlock says which tasks wait for each other for ever; "" if none do.
func (s *Session) deadlock() string {
	tasks, _ := s.allTasks()
	cycles := walk.Cycles(walk.Waits(s.t, tasks))
	if len(cycles) == 0 {
		return ""
	}
	var who []string
	for _, x := range cycles[0] {
		who = append(who, fmt.Sprintf("pid %d %s waits for %s in %s", x.Task.PID, x.Task.Comm, s.cycleLock(x), s.waiter(x.Task)))
	}
	more := ""
	if n := len(cycles) - 1; n > 0 {
		more = fmt.Sprintf(" (and %d more such cycles: waitq)", n)
	}
	what := "deadlock"
	if slices.ContainsFunc(cycles[0], func(x walk.Wait) bool { return x.Likely }) { // a reader that may have gone
		what = "probably a deadlock"
	}
	return fmt.Sprintf("%s of %s, each of which holds what another waits for: %s%s", what, plural(len(who), "task"), strings.Join(who, "; "), more)
}

// cycleLock names what a task in a deadlock waits for; that it is a mutex goes without saying.
func (s *Session) cycleLock(x walk.Wait) string {
	switch {
	case x.Kind == "mutex":
		return s.data(x.Lock)
	case x.Kind == "work":
		return fmt.Sprintf("work %s, which pid %d %s is at,", s.data(x.Lock), x.Owner.PID, x.Owner.Comm)
	}
	return s.lock(x)
}

// waiter is the function that asked for the lock that a task waits for.
func (s *Session) waiter(t walk.Task) string {
	for _, f := range s.stack(t).Frames {
		if y, ok := s.t.Symbols().At(f.PC - 1); ok && !oops.Waits(y.Name) {
			return y.Name
		}
	}
	return "the kernel"
}
