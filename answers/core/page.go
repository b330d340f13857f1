package core

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/fathom-trace/fathom/kernel/walk"
	"github.com/fathom-trace/fathom/oops/cause"
)

// lastMessages is how many lines of the log the first page ends with.
const lastMessages = 12

// Page writes the first page: why the kernel died, and what everybody was doing then.
func (s *Session) Page(w io.Writer) error {
	sys, sysErr := walk.ReadSystem(s.t)
	fmt.Fprintf(w, "%s\n", s.source)
	fmt.Fprintf(w, "kernel   %s %s, %d CPUs\n", sys.Release, sys.Machine, sys.CPUs)
	if !sys.Time.IsZero() {
		fmt.Fprintf(w, "when     %s, %s after boot, on host %s\n", sys.Time.UTC().Format(time.DateTime+" UTC"), sys.Uptime, sys.Node)
	}
	var text strings.Builder
	var last []walk.Message
	logErr := error(nil)
	for m, err := range walk.Log(s.t) {
		if err != nil {
			logErr = err
			break
		}
		text.WriteString(m.Text)
		text.WriteByte('\n')
		if last = append(last, m); len(last) > lastMessages {
			last = last[1:]
		}
	}
	s.cause(w, text.String())
	s.pageStacks(w)
	s.stuck(w)
	s.pageState(w, sys)
	if len(last) > 0 {
		fmt.Fprintf(w, "\nlast messages (all: log)\n")
		for _, m := range last {
			fmt.Fprintf(w, "  %s\n", m)
		}
	}
	missing := s.t.Caps().Missing
	for _, err := range []error{sysErr, logErr, s.tasksErr} {
		if err != nil {
			fmt.Fprintf(w, "\nmissing: %v\n", err)
		}
	}
	for _, m := range missing {
		fmt.Fprintf(w, "\nmissing: %s: %v\n", m.What, m.Why)
	}
	return nil
}

func (s *Session) pageStacks(w io.Writer) {
	dead, st, err := s.crashed()
	if err != nil {
		fmt.Fprintf(w, "\nstack    %v\n", err)
		return
	}
	fmt.Fprintf(w, "\nstack of pid %d %s, CPU %d\n", dead.PID, dead.Comm, dead.CPU)
	s.printStack(w, st)
	fmt.Fprintf(w, "\nCPUs\n")
	for _, cpu := range s.t.CPUs() {
		t, err := walk.Executing(s.t, cpu)
		if err != nil {
			fmt.Fprintf(w, "  %2d  %v\n", cpu, err)
			continue
		}
		var names []string
		st := s.stack(t)
		for _, f := range st.Frames[:min(6, len(st.Frames))] {
			names = append(names, s.function(f))
		}
		where := strings.Join(names, " < ")
		if len(names) == 0 {
			where = "user mode"
		}
		fmt.Fprintf(w, "  %2d  pid %-6d %-16s %s\n", cpu, t.PID, t.Comm, where)
	}
}

// stuck lists the tasks that cannot be interrupted, equal stacks together, and who waits for whom.
func (s *Session) stuck(w io.Writer) {
	tasks, _ := s.allTasks()
	var d []walk.Task
	for _, t := range tasks {
		if t.State == "D" {
			d = append(d, t)
		}
	}
	if len(d) > 0 {
		fmt.Fprintf(w, "\nwaiting uninterruptibly: %s\n", plural(len(d), "task"))
		s.groups(w, d)
	}
	if waits := walk.Waits(s.t, tasks); len(waits) > 0 {
		fmt.Fprintf(w, "\nlocks\n")
		s.printWaits(w, waits)
	}
}

func (s *Session) pageState(w io.Writer, sys walk.System) {
	if m, err := walk.ReadMemory(s.t); err == nil && m.Total > 0 {
		fmt.Fprintf(w, "\nmemory   %s of %s free, %s anonymous, %s files, %s slab\n", pages(m.Free), pages(m.Total),
			pages(m.ActiveAnon+m.InactiveAnon), pages(m.ActiveFile+m.InactiveFile), pages(m.SlabReclaimable+m.SlabUnreclaimable))
	}
	if sys.Taint != 0 {
		letters := walk.TaintLetters(sys.Taint)
		fmt.Fprintf(w, "taint    %s\n", letters)
		for _, t := range cause.Taint(letters) {
			fmt.Fprintf(w, "         %s\n", t)
		}
	}
	var names []string
	for _, m := range s.t.Modules() {
		n := m.Name
		if m.Taints != "" {
			n += "(" + m.Taints + ")"
		}
		names = append(names, n)
	}
	fmt.Fprintf(w, "modules  %s\n", strings.Join(names, " "))
}

func pages(n uint64) string {
	kib := n * 4
	switch {
	case kib >= 10<<20:
		return fmt.Sprintf("%.1f GiB", float64(kib)/(1<<20))
	case kib >= 10<<10:
		return fmt.Sprintf("%.0f MiB", float64(kib)/(1<<10))
	}
	return fmt.Sprintf("%d KiB", kib)
}
