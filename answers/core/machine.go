package core

import (
	"fmt"
	"io"

	"github.com/fathom-trace/fathom/kernel/walk"
)

// mach prints the machine and where its kernel put memory.
func (s *Session) mach(w io.Writer, args []string) error {
	if len(args) > 0 {
		return &Usage{}
	}
	m, err := walk.ReadMachine(s.t)
	y, _ := walk.ReadSystem(s.t)
	mem, _ := walk.ReadMemory(s.t)
	fmt.Fprintf(w, "MACHINE: %s\nPROCESSOR: %s\nCPUS: %d\nSPEED: %d.%03d MHz\nMEMORY: %s\nPAGE SIZE: 4096, tables of %d levels\n",
		y.Machine, m.Model, y.CPUs, m.KHz/1000, m.KHz%1000, pages(mem.Total), m.Levels)
	fmt.Fprintf(w, "DIRECT MAP: %016x\nVMALLOC: %016x\nVMEMMAP: %016x\nTEXT: %016x, moved by %#x\nMODULES: %016x\nTASK STACK: %d bytes\n",
		m.DirectMap, m.Vmalloc, m.Vmemmap, m.Text, m.Text-m.Linked, m.Modules, stackBytes)
	return err
}

// stackBytes is THREAD_SIZE of x86-64 without KASAN.
const stackBytes = 16 << 10

// swap prints the swap areas.
func (s *Session) swap(w io.Writer, args []string) error {
	if len(args) > 0 {
		return &Usage{}
	}
	areas, err := walk.Swaps(s.t)
	fmt.Fprintf(w, "%-16s %-9s %12s %12s %4s  %s\n", "SWAP_INFO", "TYPE", "SIZE KiB", "USED KiB", "PRI", "FILENAME")
	for _, a := range areas {
		kind := "partition"
		if a.File {
			kind = "file"
		}
		fmt.Fprintf(w, "%016x %-9s %12d %12d %4d  %s\n", a.Addr, kind, a.Pages*4, a.Used*4, a.Priority, a.Path)
	}
	return err
}

// wheel prints the timers of the timer wheel.
func (s *Session) wheel(w io.Writer) error {
	timers, err := walk.WheelTimers(s.t)
	fmt.Fprintf(w, "%3s %-10s %20s %12s  %-16s %s\n", "CPU", "WHEEL", "EXPIRES", "IN JIFFIES", "TIMER_LIST", "FUNCTION")
	for _, x := range timers {
		fmt.Fprintf(w, "%3d %-10s %20d %12d  %016x %s\n", x.CPU, x.Base, x.Expires, int64(x.Expires-x.Clock), x.Addr, s.name(x.Function, x.Function))
	}
	return err
}
