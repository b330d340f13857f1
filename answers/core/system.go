package core

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/fathom-trace/fathom/kernel/walk"
	"github.com/fathom-trace/fathom/oops/cause"
)

// log prints the messages: -m with their levels, -t without times, -T with the time of day.
func (s *Session) log(w io.Writer, args []string) error {
	o, err := parse(args, "mtT", "")
	if err != nil {
		return err
	}
	if len(o.rest) > 0 || o.on['t'] && o.on['T'] {
		return &Usage{}
	}
	var boot time.Time
	if o.on['T'] {
		sys, err := walk.ReadSystem(s.t)
		if err != nil {
			return err
		}
		boot = sys.Time.Add(-sys.Uptime)
	}
	for m, err := range walk.Log(s.t) {
		if err != nil {
			return err
		}
		head := fmt.Sprintf("[%5d.%06d] ", m.Time/time.Second, m.Time%time.Second/time.Microsecond)
		switch {
		case o.on['t']:
			head = ""
		case o.on['T']:
			head = "[" + boot.Add(m.Time).UTC().Format("Mon Jan _2 15:04:05 2006") + "] "
		}
		if o.on['m'] {
			head += fmt.Sprintf("<%d>", m.Level)
		}
		for line := range strings.SplitSeq(m.Text, "\n") {
			fmt.Fprintf(w, "%s%s\n", head, line)
		}
	}
	return nil
}

func (s *Session) mod(w io.Writer, args []string) error {
	if err := none(args); err != nil {
		return err
	}
	fmt.Fprintf(w, "%-16s %-24s %9s %5s %s\n", "MODULE", "NAME", "SIZE", "REFS", "STATE")
	for _, m := range s.t.Modules() {
		fmt.Fprintf(w, "%016x %-24s %9d %5d %s %s\n", m.Addr, m.Name, m.Size, m.Refs, m.State, m.Taints)
	}
	return nil
}

func (s *Session) sys(w io.Writer, args []string) error {
	o, err := parse(args, "c", "")
	if err != nil {
		return err
	}
	if o.on['c'] {
		return s.systemCalls(w, o.rest)
	}
	if len(o.rest) > 0 {
		return &Usage{}
	}
	y, err := walk.ReadSystem(s.t)
	fmt.Fprintf(w, "  DUMP: %s\n  CPUS: %d\n  DATE: %s\nUPTIME: %s\nNODENAME: %s\nRELEASE: %s\nVERSION: %s\nMACHINE: %s\nCMDLINE: %s\n",
		s.source, y.CPUs, y.Time.UTC().Format(time.DateTime+" UTC"), y.Uptime, y.Node, y.Release, y.Version, y.Machine, y.Command)
	fmt.Fprintf(w, "TAINT: %d %s\n", y.Taint, walk.TaintLetters(y.Taint))
	for _, t := range cause.Taint(walk.TaintLetters(y.Taint)) {
		fmt.Fprintf(w, "       %s\n", t)
	}
	for _, m := range s.t.Caps().Missing {
		fmt.Fprintf(w, "MISSING: %s: %v\n", m.What, m.Why)
	}
	return err
}

// memory prints memory in figures.
func (s *Session) memory(w io.Writer, args []string) error {
	if len(args) > 0 {
		return &Usage{}
	}
	m, err := walk.ReadMemory(s.t)
	fmt.Fprintf(w, "%-16s %10s  %s\n", "", "PAGES", "TOTAL")
	for _, l := range []struct {
		name string
		n    uint64
	}{
		{"TOTAL MEM", m.Total}, {"FREE", m.Free}, {"USED", m.Total - min(m.Free, m.Total)}, {"ACTIVE(ANON)", m.ActiveAnon}, {"INACTIVE(ANON)", m.InactiveAnon},
		{"ACTIVE(FILE)", m.ActiveFile}, {"INACTIVE(FILE)", m.InactiveFile}, {"SHARED", m.Shmem}, {"MAPPED", m.Mapped},
		{"SLAB(RECLAIM)", m.SlabReclaimable}, {"SLAB(UNRECLAIM)", m.SlabUnreclaimable}, {"DIRTY", m.Dirty}, {"WRITEBACK", m.Writeback},
		{"KERNEL STACKS", m.KernelStackKiB / 4}, {"TOTAL SWAP", m.SwapTotal}, {"SWAP FREE", m.SwapFree},
	} {
		fmt.Fprintf(w, "%-16s %10d  %s\n", l.name, l.n, pages(l.n))
	}
	return err
}

func (s *Session) mount(w io.Writer, args []string) error {
	if err := none(args); err != nil {
		return err
	}
	mounts, err := walk.Mounts(s.t)
	fmt.Fprintf(w, "%-16s %-12s %-16s %s\n", "MOUNT", "TYPE", "DEVNAME", "DIRNAME")
	for _, m := range mounts {
		fmt.Fprintf(w, "%016x %-12s %-16s %s\n", m.Addr, m.Type, m.Device, m.Dir)
	}
	return err
}
