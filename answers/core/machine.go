package core

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/fathom-trace/fathom/kernel"
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

// search finds where memory holds a word, or a text (-c). It goes over all physical memory and gives the addresses at which
// the kernel sees it: those of its image, or of the map of all memory.
func (s *Session) search(w io.Writer, args []string) error {
	text, mask := false, uint64(0)
	for len(args) > 1 && args[0][0] == '-' {
		switch args[0] {
		case "-c":
			text = true
			args = args[1:]
		case "-m":
			n, ok := number(args[1])
			if !ok {
				return &Usage{}
			}
			mask, args = n, args[2:]
		default:
			return &Usage{}
		}
	}
	phys, ok := s.t.(kernel.PhysicalMemory)
	switch {
	case len(args) != 1 || text && mask != 0 || args[0] == "":
		return &Usage{}
	case !ok:
		return errors.New("this kernel's memory cannot be read by physical address")
	case text:
		return s.scan(w, phys, func(b []byte, _ int) int { return bytes.Index(b, []byte(args[0])) }, 1, len(args[0]))
	}
	want, err := s.address(args[0])
	if err != nil {
		return err
	}
	return s.scan(w, phys, func(b []byte, from int) int {
		for i := -from & 7; i+8 <= len(b); i += 8 {
			if binary.LittleEndian.Uint64(b[i:])|mask == want|mask {
				return i
			}
		}
		return -1
	}, 8, 8)
}

// shown is how many bytes of a hit are printed.
const shown = 48

// searchChunk is how much is read at once. What is missing of it is left out page by page.
const searchChunk = 1 << 20

// scan looks through all memory. find gives the index of the next hit in b, which begins so far from an aligned address; step
// is how far behind a hit the next may be, size what a hit has. A hit that begins in one page and ends in the next is found if
// both are there.
func (s *Session) scan(w io.Writer, phys kernel.PhysicalMemory, find func(b []byte, from int) int, step, size int) error {
	m, err := walk.ReadMachine(s.t)
	if err != nil {
		return err
	}
	image := s.image(phys)
	n := 0
	report := func(b []byte, at uint64, end int) {
		for i := 0; i < end; {
			k := find(b[i:], i)
			if k < 0 || i+k >= end {
				return
			}
			i += k
			addr := at + uint64(i) + m.DirectMap
			name := ""
			if virt, ok := image(at + uint64(i)); ok {
				addr, name = virt, "  "+s.name(virt, virt)
			}
			fmt.Fprintf(w, "%016x: %s%s\n", addr, printable(b[i:min(len(b), i+shown)]), name)
			n++
			i += step
		}
	}
	buf := make([]byte, searchChunk+max(size, shown))
	for _, r := range phys.Memory() {
		for at := r.Start; at < r.End; at += searchChunk {
			b := buf[:min(uint64(len(buf)), r.End-at)]
			if phys.ReadPhys(b, at) == nil {
				report(b, at, min(len(b), searchChunk))
				continue
			}
			for p := at; p < min(at+searchChunk, r.End); p += 4096 {
				b := buf[:min(4096, r.End-p)]
				if phys.ReadPhys(b, p) == nil {
					report(b, p, len(b))
				}
			}
		}
	}
	if n == 0 {
		return errors.New("nowhere in the memory that is there")
	}
	return nil
}

// image says which virtual address of the kernel's image a physical one is.
func (s *Session) image(phys kernel.PhysicalMemory) func(uint64) (uint64, bool) {
	start, end := s.t.Symbols().ByName("_text"), s.t.Symbols().ByName("_end")
	if len(start) == 0 || len(end) == 0 {
		return func(uint64) (uint64, bool) { return 0, false }
	}
	base, err := phys.Translate(start[0])
	return func(at uint64) (uint64, bool) {
		return at - base + start[0], err == nil && at >= base && at-base < end[0]-start[0]
	}
}
