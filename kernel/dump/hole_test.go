package dump_test

import (
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"sort"
	"testing"

	"github.com/fathom-trace/fathom/kernel/dump"
	"github.com/fathom-trace/fathom/kernel/unwind"
	"github.com/fathom-trace/fathom/kernel/walk"
	"github.com/fathom-trace/fathom/vmcore"
)

// damaged is a file of which some bytes cannot be read.
type damaged struct {
	*os.File
	from, to int64
}

func (f damaged) ReadAt(b []byte, off int64) (int, error) {
	if off < f.to && off+int64(len(b)) > f.from {
		return 0, fmt.Errorf("bytes %d to %d are not readable", f.from, f.to)
	}
	return f.File.ReadAt(b, off)
}

// without opens an ELF dump of which the page that address addr of the whole one is in cannot be read.
func without(t *testing.T, name string, whole *dump.Dump, addr uint64) *dump.Dump {
	t.Helper()
	phys, err := whole.Translate(addr)
	if err != nil {
		t.Fatal(err)
	}
	phys &^= 4095
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	e, err := elf.NewFile(f)
	if err != nil {
		t.Fatal(err)
	}
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range e.Progs {
		if p.Type != elf.PT_LOAD || phys < p.Paddr || phys >= p.Paddr+p.Filesz {
			continue
		}
		at := int64(p.Off + phys - p.Paddr)
		mem, err := vmcore.Open(vmcore.File{R: damaged{f, at, at + 4096}, Size: st.Size()})
		if err != nil {
			t.Fatal(err)
		}
		d, err := dump.Open(mem)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	t.Fatalf("no segment has %#x", phys)
	return nil
}

// stacks unwinds the tasks that are not running.
func stacks(d *dump.Dump) map[uint64]unwind.Stack {
	out := map[uint64]unwind.Stack{}
	for task, err := range walk.Tasks(d) {
		if err == nil && task.CPU >= 0 && task.Value.Get("on_cpu").Uint() == 0 {
			out[task.Addr] = unwind.Task(d, task.Value)
		}
	}
	return out
}

// TestUnwindHole: without a page of the kernel's unwind table stacks are what they were, all certain, but for those with a frame that the
// page is about; and of these no frame is called certain that the whole dump does not have.
func TestUnwindHole(t *testing.T) {
	for _, k := range kernels {
		t.Run(k, func(t *testing.T) {
			c := killGuest(t, k)
			whole := open(t, c.path("elf"))
			var some uint64 // the frame of the kernel's own that most stacks have
			have := map[uint64]int{}
			for _, s := range stacks(whole) {
				if len(s.Frames) < 5 {
					continue
				}
				pc := s.Frames[2].PC - 1
				if y, ok := whole.Kallsyms().At(pc); ok && y.Module == "" {
					have[pc]++
				}
				if n := have[pc]; n > have[some] || n == have[some] && pc < some {
					some = pc
				}
			}
			tab := whole.Unwind(some)
			if tab == nil {
				t.Fatalf("no unwind table for %#x", some)
			}
			at := sort.Search(tab.N, func(i int) bool {
				var b [4]byte
				if _, err := tab.IPs.ReadAt(b[:], 4*int64(i)); err != nil {
					t.Fatal(err)
				}
				ip := tab.IPAddr + 4*uint64(i)
				return ip+uint64(int64(int32(binary.LittleEndian.Uint32(b[:])))) > some
			})
			for what, i := range map[string]int{"where each search comes by": tab.N / 2, "of a frame": at - 1} {
				t.Run(what, func(t *testing.T) { unwindHole(t, c, whole, tab.IPAddr+4*uint64(i), what == "of a frame") })
			}
		})
	}
}

func unwindHole(t *testing.T, c corpse, whole *dump.Dump, addr uint64, needed bool) {
	holed := without(t, c.path("elf"), whole, addr)
	want, got := stacks(whole), stacks(holed)
	known := func(pc uint64) bool {
		tab := holed.Unwind(pc)
		if tab == nil {
			return true
		}
		_, ok := tab.Lookup(pc)
		return ok
	}
	same, unknown := 0, 0
	for addr, w := range want {
		g := got[addr]
		// Frames up to the first that the page is about; what is behind it may be found by scanning.
		n := slices.IndexFunc(w.Frames, func(f unwind.Frame) bool { return !known(f.PC - 1) })
		if n < 0 {
			same++
			n = len(w.Frames) - 1
			if g.End != w.End || len(g.Frames) != len(w.Frames) {
				t.Errorf("task %#x: %d frames, %s; of the whole dump %d, %s", addr, len(g.Frames), g.End, len(w.Frames), w.End)
			}
		} else {
			unknown++
		}
		for i := range g.Frames {
			switch {
			case i <= n && (g.Frames[i].PC != w.Frames[i].PC || g.Frames[i].Scanned):
				t.Errorf("task %#x: frame %d is %#x, scanned %v, not %#x", addr, i, g.Frames[i].PC, g.Frames[i].Scanned, w.Frames[i].PC)
			case i > n && !g.Frames[i].Scanned:
				t.Errorf("task %#x: frame %d, behind what is not known, is called certain", addr, i)
			}
		}
	}
	if len(got) != len(want) || len(want) < 40 || needed && unknown == 0 || !needed && same < 40 {
		t.Errorf("%d stacks are not touched, %d are, of %d", same, unknown, len(want))
	}
	t.Logf("%d stacks are not touched, %d have a frame that is not known", same, unknown)
}
