package core

import (
	"fmt"
	"io"
	"strings"

	"github.com/fathom-trace/fathom/kernel/walk"
)

// waits prints who waits for which lock, or for a work, and who holds it.
func (s *Session) waits(w io.Writer, args []string) error {
	if err := none(args); err != nil {
		return err
	}
	tasks, err := s.allTasks()
	waits := walk.Waits(s.t, tasks)
	if len(waits) == 0 {
		fmt.Fprintln(w, "no task waits for a lock")
	}
	s.printWaits(w, waits)
	s.printWaits(w, walk.Sleeps(s.t, tasks))
	return err
}

func (s *Session) printWaits(w io.Writer, waits []walk.Wait) {
	for _, x := range waits {
		verb := "waits for"
		if x.Kind == "spinlock" {
			verb = "spins for"
		}
		fmt.Fprintf(w, "  pid %d %s %s %s%s\n", x.Task.PID, x.Task.Comm, verb, s.lock(x), s.holder(x))
	}
	for _, c := range walk.Cycles(waits) {
		var who []string
		for _, x := range c {
			who = append(who, fmt.Sprintf("%d %s (%s)", x.Task.PID, x.Task.Comm, x.Kind))
		}
		fmt.Fprintf(w, "  DEADLOCK: %s → and round again\n", strings.Join(who, " → "))
	}
}

// lock names what somebody waits for.
func (s *Session) lock(x walk.Wait) string {
	how := ""
	if x.How != "" {
		how = " " + x.How
	}
	return fmt.Sprintf("%s %s%s", x.Kind, s.data(x.Lock), how)
}

// holder says who holds it.
func (s *Session) holder(x walk.Wait) string {
	state := ""
	if x.State != "" {
		state = " by " + x.State
	}
	switch {
	case x.Kind == "completion":
		return ""
	case x.Kind == "pipe" && x.Owner != nil:
		return fmt.Sprintf(" (%s: pid %d %s)", x.State, x.Owner.PID, x.Owner.Comm)
	case x.Kind == "pipe":
		return " (" + x.State + ")"
	case x.Kind == "percpu_rwsem" && x.State != "":
		return ", held" + state + "; who is not stored"
	case x.Kind == "work":
		return fmt.Sprintf(", which pid %d %s is at", x.Owner.PID, x.Owner.Comm)
	case x.Owner != nil && x.Likely:
		return fmt.Sprintf(", held%s; the last that came was pid %d %s", state, x.Owner.PID, x.Owner.Comm)
	case x.Owner != nil && state != "":
		return fmt.Sprintf(", held%s, pid %d %s", state, x.Owner.PID, x.Owner.Comm)
	case x.Owner != nil:
		return fmt.Sprintf(", held by pid %d %s", x.Owner.PID, x.Owner.Comm)
	case state != "":
		return ", held" + state
	case x.Known:
		return ", nobody holds it"
	}
	return "; who holds it is not stored"
}
