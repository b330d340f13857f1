package ir

import (
	"errors"
	"fmt"
	"slices"
)

// Check says what is wrong with a unit: it is what passes may rely on and must keep. Every block ends with its only
// terminator and jumps within its function; every register is assigned on each way to where it is read; memory operands
// have a place inside their slot; widths are what BPF has.
func (u *Unit) Check() error {
	var errs []error
	for _, f := range u.Funcs() {
		c := &checker{f: f, u: u}
		c.blocks()
		if len(c.errs) == 0 {
			c.assigned()
		}
		errs = append(errs, c.errs...)
	}
	return errors.Join(errs...)
}

type checker struct {
	u    *Unit
	f    *Func
	errs []error
}

func (c *checker) errorf(b *Block, i int, format string, args ...any) {
	where := fmt.Sprintf("%s b%d.%d", c.f.Name, b.ID, i)
	if i < len(b.Ins) {
		where += " " + b.Ins[i].String()
	}
	c.errs = append(c.errs, fmt.Errorf("%s: %s", where, fmt.Sprintf(format, args...)))
}

func (c *checker) blocks() {
	for id, b := range c.f.Blocks {
		if b.ID != id {
			c.errorf(b, 0, "block %d has number %d", id, b.ID)
		}
		if b.Term() == nil {
			c.errorf(b, len(b.Ins), "no terminator")
		}
		for i := range b.Ins {
			n := &b.Ins[i]
			if term := n.Op == Jump || n.Op == Branch || n.Op == Ret; term != (i == len(b.Ins)-1) && term {
				c.errorf(b, i, "terminator inside a block")
			}
			c.ins(b, i, n)
		}
		for _, s := range b.Succs() {
			if s.ID >= len(c.f.Blocks) || c.f.Blocks[s.ID] != s {
				c.errorf(b, len(b.Ins)-1, "jump out of the function")
			}
		}
	}
}

func (c *checker) ins(b *Block, i int, n *Ins) {
	n.Uses(func(r Reg) {
		if r < 0 || int(r) > c.f.Regs {
			c.errorf(b, i, "no register v%d", r)
		}
	})
	if int(n.Dst) > c.f.Regs {
		c.errorf(b, i, "no register v%d", n.Dst)
	}
	switch n.Op {
	case Load, Store, AtomicAdd, Ext, Bswap:
		if !slices.Contains([]uint8{1, 2, 4, 8}, n.Size) {
			c.errorf(b, i, "width %d", n.Size)
		}
	case Branch:
		if n.A.IsImm() {
			c.errorf(b, i, "a constant on the left")
		}
	case Copy:
		if n.A.IsImm() {
			c.errorf(b, i, "copies from a constant")
		}
	case MapPtr, MapValue:
		if n.Map == nil {
			c.errorf(b, i, "no map")
		}
	case FuncPtr:
		if !slices.Contains(c.u.Calls, n.Callee) {
			c.errorf(b, i, "callback of another unit")
		}
	case Call:
		if len(n.Args) > 5 {
			c.errorf(b, i, "%d arguments", len(n.Args))
		}
	}
	if n.Accesses() || n.Op == Addr {
		c.place(b, i, n)
	}
}

func (c *checker) place(b *Block, i int, n *Ins) {
	switch {
	case n.Slot == nil && n.Base == 0:
		c.errorf(b, i, "no place")
	case n.Slot != nil && n.Base != 0:
		c.errorf(b, i, "two places")
	case n.Slot == nil:
	case !slices.Contains(c.u.Slots, n.Slot):
		c.errorf(b, i, "slot of another unit")
	case n.Off < 0 || int(n.Off)+n.Width() > n.Slot.Size:
		c.errorf(b, i, "beyond the %d bytes of %s", n.Slot.Size, n.Slot.Name)
	}
}

// assigned finds registers read before they are assigned, by forward data flow.
func (c *checker) assigned() {
	f := c.f
	in := make([]RegSet, len(f.Blocks))
	first := NewRegSet(f.Regs)
	for _, p := range f.Params {
		first.Add(p)
	}
	in[0] = first
	step := func(id int, report bool) RegSet {
		have := append(RegSet(nil), in[id]...)
		b := f.Blocks[id]
		for i := range b.Ins {
			n := &b.Ins[i]
			if report {
				n.Uses(func(r Reg) {
					if !have.Has(r) {
						c.errorf(b, i, "v%d is not assigned on every way here", r)
					}
				})
			}
			if n.Dst != 0 {
				have.Add(n.Dst)
			}
		}
		return have
	}
	for work := []int{0}; len(work) > 0; {
		id := work[len(work)-1]
		work = work[:len(work)-1]
		have := step(id, false)
		for _, s := range f.Blocks[id].Succs() {
			if in[s.ID] == nil {
				in[s.ID] = append(RegSet(nil), have...)
				work = append(work, s.ID)
				continue
			}
			shrunk := false
			for w := range have {
				if v := in[s.ID][w] & have[w]; v != in[s.ID][w] {
					in[s.ID][w], shrunk = v, true
				}
			}
			if shrunk {
				work = append(work, s.ID)
			}
		}
	}
	for id := range f.Blocks {
		if in[id] != nil {
			step(id, true)
		}
	}
}
