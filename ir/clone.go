package ir

// Clone gives a deep copy of u, so that a binding may rewrite it. Maps are shared.
func (u *Unit) Clone() *Unit {
	c := &cloner{slots: map[*Slot]*Slot{}, funcs: map[*Func]*Func{}, blocks: map[*Block]*Block{}}
	n := *u
	n.Slots = nil
	for _, s := range u.Slots {
		d := *s
		c.slots[s] = &d
		n.Slots = append(n.Slots, &d)
	}
	n.Entry = c.fn(u.Entry, &n)
	n.Calls = nil
	for _, f := range u.Calls {
		n.Calls = append(n.Calls, c.fn(f, &n))
	}
	for _, f := range n.Funcs() {
		c.fix(f)
	}
	return &n
}

// Funcs gives the entry and then the callbacks.
func (u *Unit) Funcs() []*Func { return append([]*Func{u.Entry}, u.Calls...) }

type cloner struct {
	slots  map[*Slot]*Slot
	funcs  map[*Func]*Func
	blocks map[*Block]*Block
}

func (c *cloner) fn(f *Func, u *Unit) *Func {
	n := *f
	n.Unit = u
	n.Params = append([]Reg(nil), f.Params...)
	c.funcs[f] = &n
	n.Blocks = make([]*Block, len(f.Blocks))
	for i, b := range f.Blocks {
		n.Blocks[i] = &Block{ID: b.ID, Ins: append([]Ins(nil), b.Ins...)}
		c.blocks[b] = n.Blocks[i]
	}
	return &n
}

func (c *cloner) fix(f *Func) {
	for _, b := range f.Blocks {
		for i := range b.Ins {
			in := &b.Ins[i]
			in.Slot, in.Callee = c.slots[in.Slot], c.funcs[in.Callee]
			in.Then, in.Else = c.blocks[in.Then], c.blocks[in.Else]
			in.Args = append([]Val(nil), in.Args...)
		}
	}
}
