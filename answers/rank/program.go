package rank

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/ir/emit"
	"github.com/fathom-trace/fathom/traceevent"
	"github.com/fathom-trace/fathom/traceevent/filter"
)

// commSize is TASK_COMM_LEN of include/linux/sched.h; dynText what is kept of a text whose length is in the record
// (STR_VAR_LEN_MAX of kernel/trace/trace.h, so that both engines tell the same texts apart).
const (
	commSize = 16
	dynText  = 256
)

// defaultFrames of a stack.
const defaultFrames = 64

// column is where a key stands in the map's keys.
type column struct {
	key    Key
	off    int
	size   int // bytes; of a stack those of its addresses, behind a word each for their number and, of users, the process
	kind   filter.Kind
	field  *traceevent.Field
	signed bool
}

// layout places the keys; size is a multiple of 8.
func (q *Query) layout() (cols []column, size int) {
	frames := q.Frames
	if frames == 0 {
		frames = defaultFrames
	}
	for _, k := range q.By {
		c := column{key: k, off: size, size: 8}
		switch k.Field {
		case KStack:
			c.size = 8 * frames
			size += 8
		case UStack:
			c.size = 8 * frames
			size += 16
		default:
			c.kind, c.field, _ = filter.KindOf(q.Format, k.Field)
			c.signed = c.field != nil && c.field.Signed
			switch {
			case c.kind == filter.Comm:
				c.size = commSize
			case c.kind == filter.Text:
				c.size = textSize(c.field)
			case k.Form == Execname:
				c.size = 8 + commSize
			}
		}
		cols = append(cols, c)
		size = (size + c.size + 7) &^ 7
	}
	return cols, size
}

// textSize is the room for a field that is a text, a multiple of 8.
func textSize(f *traceevent.Field) int {
	if f.DataLoc || f.RelLoc || f.Size == 0 {
		return dynText
	}
	return (f.Size + 7) &^ 7
}

// program is the BPF side of a query.
type program struct {
	q     *Query
	p     *emit.Program
	u     *emit.Unit
	table *ir.Map
	open  *ir.Map // one word: is the window as it was at the start (0), or not?
}

// write writes a program for the event, and one for each edge of the window, whose targets follow in that order.
func write(q *Query, cpus int) (*program, error) {
	w := &program{q: q, p: emit.New(emit.Options{CPUs: cpus})}
	cols, size := q.layout()
	w.table = w.p.Map(ir.Map{Name: ".table", Kind: ir.PerCPUHash, KeySize: size, ValueSize: 8 * (1 + len(q.Sum)), MaxEntries: q.size()})
	if len(q.From)+len(q.Until) > 0 {
		w.open = w.p.Map(ir.Map{Name: ".open", Kind: ir.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	}
	if err := w.count(cols, size); err != nil {
		return nil, err
	}
	for i, e := range q.edges()[1:] {
		if err := w.edge(e, 1+i, i < len(q.From) != q.opens()); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// edge writes the program that opens the window, or closes it: changed is true if that is not how it was at the start.
func (w *program) edge(e Edge, target int, changed bool) error {
	u := w.p.Unit("tracepoint", target, e.Event.Name)
	w.u = u
	if err := w.condition(e); err != nil {
		return err
	}
	word := ir.Imm(0)
	if changed {
		word = ir.Imm(1)
	}
	zero := u.Slot("zero", 8)
	u.Store(zero, 8, ir.Imm(0))
	u.Lookup(w.open, zero, func(m emit.Mem) { u.Store(m, 8, word) }, nil)
	u.Leave()
	return nil
}

// count writes the program that counts.
func (w *program) count(cols []column, size int) error {
	u := w.p.Unit("tracepoint", 0, w.q.Event.Name)
	w.u = u
	if w.open != nil {
		zero := u.Slot("zero", 8)
		u.Store(zero, 8, ir.Imm(0))
		changed := u.Var(ir.Imm(0))
		u.Lookup(w.open, zero, func(m emit.Mem) { u.Set(changed, u.Load(m, 8, false)) }, nil)
		open := ir.Ne
		if w.q.opens() {
			open = ir.Eq
		}
		u.Unless(open, changed, ir.Imm(0))
	}
	if err := w.condition(w.q.edges()[0]); err != nil {
		return err
	}
	key := u.Slot("key", size)
	u.Zero(key, size)
	for _, c := range cols {
		w.key(c, key)
	}
	sums := make([]ir.Val, len(w.q.Sum))
	for i, name := range w.q.Sum {
		f := w.q.Format.Field(name)
		sums[i] = u.Field(f.Name, f.Offset, f.Size, f.Signed)
	}
	u.Lookup(w.table, key, func(m emit.Mem) { // of this CPU: nobody else writes there
		u.Store(m, 8, u.Add(u.Load(m, 8, false), 1))
		for i, v := range sums {
			at := m.At(8 + 8*i)
			u.Store(at, 8, u.Bin(ir.Add, u.Load(at, 8, false), v))
		}
	}, func() {
		val := u.Slot("value", 8*(1+len(sums)))
		u.Store(val, 8, ir.Imm(1))
		for i, v := range sums {
			u.Store(val.At(8+8*i), 8, v)
		}
		u.Update(w.table, key, val)
	})
	u.Leave()
	return nil
}

// key stores one key's value.
func (w *program) key(c column, key emit.Mem) {
	u, at := w.u, key.At(c.off)
	switch c.key.Field {
	case KStack:
		n := u.Var(u.Stack(at.At(8), c.size))
		// On kernels such as 6.1 the events of system calls hand programs the user's registers, from which no kernel stack can
		// be walked: then from here.
		u.If(ir.SLe, n, ir.Imm(0), func() {
			u.Set(n, u.Call(ir.FnGetTaskStack, u.Call(ir.FnCurrentTaskBTF), u.Addr(at.At(8)), ir.Imm(int64(c.size)), ir.Imm(0)))
		}, nil)
		u.Store(at, 8, n)
		return
	case UStack:
		u.Store(at, 8, u.Bin(ir.Shr, u.Call(ir.FnCurrentPidTgid), ir.Imm(32)))
		u.Store(at.At(8), 8, u.UserStack(at.At(16), c.size))
		return
	}
	switch {
	case c.kind == filter.Comm:
		u.Call(ir.FnCurrentComm, u.Addr(at), ir.Imm(commSize))
	case c.kind == filter.Text:
		w.text(at, c.field)
	default:
		v := w.number(c.kind, c.field)
		switch c.key.Form {
		case Log2:
			v = w.log2(v)
		case Buckets:
			v = u.Bin(ir.Sub, v, u.Bin(ir.Mod, v, w.big(c.key.N)))
		case Execname:
			u.Call(ir.FnCurrentComm, u.Addr(at.At(8)), ir.Imm(commSize))
		}
		u.Store(at, 8, v)
	}
}

func (w *program) number(k filter.Kind, f *traceevent.Field) ir.Val {
	switch {
	case k == filter.CPU:
		return w.u.Bin(ir.And, w.u.Call(ir.FnSmpProcessorID), ir.Imm(1<<32-1))
	case f.Name == PID: // programs find the traced registers where a record has its common fields (perf_trace_buf_submit)
		return w.u.Bin(ir.And, w.u.Call(ir.FnCurrentPidTgid), ir.Imm(1<<32-1))
	}
	return w.u.Field(f.Name, f.Offset, f.Size, f.Signed)
}

// big gives a constant of 64 bits, which not every instruction takes as an operand.
func (w *program) big(n uint64) ir.Val { return w.u.Var(ir.Imm(int64(n))) }

// log2 is the exponent of the least power of two that is not below v, as hist_field_log2 of the kernel has it.
func (w *program) log2(v ir.Val) ir.Val {
	u := w.u
	n, rest := u.Var(ir.Imm(0)), u.Var(u.Bin(ir.Sub, v, ir.Imm(1)))
	u.If(ir.Le, v, ir.Imm(1), nil, func() {
		for s := 32; s > 0; s /= 2 {
			u.If(ir.Ge, rest, w.big(1<<s), func() {
				u.Set(n, u.Add(n, s))
				u.Set(rest, u.Bin(ir.Shr, rest, ir.Imm(int64(s))))
			}, nil)
		}
		u.Set(n, u.Add(n, 1))
	})
	return n
}

// text copies a text up to its first 0 to a place that is zero.
func (w *program) text(at emit.Mem, f *traceevent.Field) {
	u := w.u
	var from ir.Val
	if f.DataLoc || f.RelLoc {
		off := u.Bin(ir.And, u.Field(f.Name, f.Offset, 4, false), ir.Imm(0xffff))
		if f.RelLoc {
			off = u.Add(off, f.Offset+4)
		}
		from = u.Bin(ir.Add, u.Context(), off)
	} else {
		from = u.Add(u.Context(), f.Offset)
	}
	u.Call(ir.FnProbeReadKernelStr, u.Addr(at), ir.Imm(int64(textSize(f))), from)
}

// condition ends the program, counted as filtered, unless the edge's condition holds.
func (w *program) condition(e Edge) error {
	x, err := e.condition()
	if x == nil || err != nil {
		return err
	}
	v := w.u.Var(ir.Imm(0))
	w.eval(x, e.Format, v)
	w.u.Unless(ir.Ne, v, ir.Imm(0))
	return nil
}

// eval sets v to whether x holds.
func (w *program) eval(x filter.Expr, f *traceevent.Format, v ir.Val) {
	u := w.u
	switch x := x.(type) {
	case *filter.Not:
		w.eval(x.X, f, v)
		u.Set(v, u.Bin(ir.Xor, v, ir.Imm(1)))
	case *filter.And:
		w.eval(x.X, f, v)
		u.If(ir.Ne, v, ir.Imm(0), func() { w.eval(x.Y, f, v) }, nil)
	case *filter.Or:
		w.eval(x.X, f, v)
		u.If(ir.Eq, v, ir.Imm(0), func() { w.eval(x.Y, f, v) }, nil)
	case *filter.Cmp:
		w.compare(x, f, v)
	}
}

var unsigned = map[filter.Op]ir.Cond{filter.Eq: ir.Eq, filter.Ne: ir.Ne, filter.Lt: ir.Lt, filter.Le: ir.Le, filter.Gt: ir.Gt, filter.Ge: ir.Ge, filter.Has: ir.Set}
var signed = map[filter.Op]ir.Cond{filter.Lt: ir.SLt, filter.Le: ir.SLe, filter.Gt: ir.SGt, filter.Ge: ir.SGe}

func (w *program) compare(c *filter.Cmp, f *traceevent.Format, v ir.Val) {
	u := w.u
	kind, field, _ := filter.KindOf(f, c.Field)
	if kind == filter.Number || kind == filter.CPU {
		cond, ok := signed[c.Op]
		if !ok || field == nil || !field.Signed {
			cond = unsigned[c.Op]
		}
		n := w.number(kind, field)
		u.Set(v, ir.Imm(0))
		u.If(cond, n, w.big(uint64(c.Num)), func() { u.Set(v, ir.Imm(1)) }, nil)
		return
	}
	size := commSize
	if kind == filter.Text {
		size = textSize(field)
	}
	text := u.Slot("text", size)
	u.Zero(text, size)
	if kind == filter.Comm {
		u.Call(ir.FnCurrentComm, u.Addr(text), ir.Imm(commSize))
	} else {
		w.text(text, field)
	}
	// Word by word, the 0 at the end, too; of a pattern up to its star.
	want := append([]byte(c.Text), 0)
	if start, open := pattern(c); open {
		want = []byte(start)
	}
	u.Set(v, ir.Imm(1))
	if len(want) > size {
		u.Set(v, ir.Imm(0))
	}
	for off := 0; off < min(len(want), size); off += 8 {
		var word, mask [8]byte
		for i := range copy(word[:], want[off:]) {
			mask[i] = 0xff
		}
		have := u.Load(text.At(off), 8, false)
		if off+8 > len(want) {
			have = u.Bin(ir.And, have, w.big(binary.LittleEndian.Uint64(mask[:])))
		}
		u.If(ir.Ne, have, w.big(binary.LittleEndian.Uint64(word[:])), func() { u.Set(v, ir.Imm(0)) }, nil)
	}
	if c.Op == filter.Ne {
		u.Set(v, u.Bin(ir.Xor, v, ir.Imm(1)))
	}
}

// pattern gives the beginning that a text must have, and whether more may follow.
func pattern(c *filter.Cmp) (start string, open bool) {
	if c.Op != filter.Like {
		return c.Text, false
	}
	return strings.CutSuffix(c.Text, "*")
}

// bpfRefuses names what the program of an expression cannot do; "" if it can, as without one.
func bpfRefuses(x filter.Expr, f *traceevent.Format) string {
	switch x := x.(type) {
	case *filter.Not:
		return bpfRefuses(x.X, f)
	case *filter.And:
		return cmp.Or(bpfRefuses(x.X, f), bpfRefuses(x.Y, f))
	case *filter.Or:
		return cmp.Or(bpfRefuses(x.X, f), bpfRefuses(x.Y, f))
	}
	c, ok := x.(*filter.Cmp)
	if !ok {
		return ""
	}
	if start, _ := pattern(c); c.Op == filter.Like && strings.ContainsAny(start, "*?[") {
		return fmt.Sprintf("%s: BPF programs compare texts from their beginning: only %q can be asked", c, "text*")
	}
	if field := f.Field(c.Field); field != nil && field.Common && field.Name != PID {
		return c.Field + " is not given to BPF programs"
	}
	return ""
}
