package core

import (
	"fmt"
	"io"
	"strings"

	"github.com/fathom-trace/fathom/kernel/walk"
)

// signalNames are the names of the signals of x86, from 1 on (signal(7)); 32 and 33 are the C library's own.
var signalNames = strings.Fields("HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS")

// numSignals is _NSIG.
const numSignals = 64

func signalName(n int) string {
	switch {
	case n <= len(signalNames):
		return "SIG" + signalNames[n-1]
	case n < 34:
		return fmt.Sprintf("SIG%d", n)
	case n == 34:
		return "SIGRTMIN"
	case n == numSignals:
		return "SIGRTMAX"
	}
	return fmt.Sprintf("SIGRTMIN+%d", n-34)
}

// sig prints what tasks have of signals: -g all threads of their processes, -l the names of signals, -s those in a set.
func (s *Session) sig(w io.Writer, args []string) error {
	o, err := parse(args, "lg", "s")
	switch {
	case err != nil:
		return err
	case len(o.on) > 1:
		return &Usage{"one flag at a time"}
	case o.on['l']:
		for i := 1; i <= numSignals; i++ {
			fmt.Fprintf(w, "[%2d] %s\n", i, signalName(i))
		}
		return nil
	case o.on['s']:
		set, ok := number("0x" + strings.TrimPrefix(o.val['s'], "0x"))
		if !ok {
			return &Usage{"sig -s takes a set of signals in hexadecimal"}
		}
		fmt.Fprintln(w, signalSet(set))
		return nil
	case o.on['g']:
		return s.groupSignals(w, o.rest)
	}
	return s.each(w, o.rest, s.signals)
}

// groupSignals prints the signals of processes, thread by thread.
func (s *Session) groupSignals(w io.Writer, args []string) error {
	tasks, err := s.of(args)
	if err != nil {
		return err
	}
	for _, t := range tasks {
		threads, err := s.threads(t)
		if err != nil {
			return err
		}
		for _, th := range threads {
			s.taskLine(w, th)
			if err := s.signals(w, th); err != nil {
				return err
			}
		}
	}
	return nil
}

// threads are the threads of a task's process.
func (s *Session) threads(t walk.Task) ([]walk.Task, error) {
	all, err := s.allTasks()
	var out []walk.Task
	for _, th := range all {
		if th.TGID == t.TGID && (th.TGID != 0 || th.Addr == t.Addr) {
			out = append(out, th)
		}
	}
	return out, err
}

func signalSet(set uint64) string {
	var names []string
	for i := 1; i <= numSignals; i++ {
		if set>>(i-1)&1 != 0 {
			names = append(names, signalName(i))
		}
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, " ")
}

// signals prints what /proc/PID/status shows of a task's signals, and handlers.
func (s *Session) signals(w io.Writer, t walk.Task) error {
	g, err := walk.ReadSignals(t)
	fmt.Fprintf(w, "  PENDING: %016x  SHARED: %016x  BLOCKED: %016x\n  IGNORED: %016x  CAUGHT: %016x\n", g.Pending, g.Shared, g.Blocked, g.Ignored, g.Caught)
	if g.Pending|g.Shared != 0 {
		fmt.Fprintf(w, "  waiting: %s\n", signalSet(g.Pending|g.Shared))
	}
	for i := 1; i <= numSignals; i++ {
		if at, ok := g.Handlers[i]; ok {
			fmt.Fprintf(w, "  [%2d] %-12s handler %#x\n", i, signalName(i), at)
		}
	}
	return err
}
