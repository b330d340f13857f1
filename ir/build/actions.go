package build

import (
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/lang/types"
)

// actions are the functions that the printing side carries out.
func actions() map[string]lowering {
	return map[string]lowering{
		"printf": formatted(ir.EvPrintf), "errorf": formatted(ir.EvErrorf), "warnf": formatted(ir.EvWarnf),
		"debugf": debugf, "system": formatted(ir.EvSystem), "cat": formatted(ir.EvCat),
		"print": print_, "clear": wholeMap(ir.EvClear), "zero": wholeMap(ir.EvZero), "time": timeNow, "join": join, "exit": exit,
		"unwatch": unwatch,
	}
}

// send puts a record of the event into the ring; a ring that is full is counted as a loss.
func (x *fn) send(id int, payload []value) {
	e := x.b.prog.Events[id]
	size := 8
	if e.Payload != nil {
		size += e.Payload.Size
	}
	m := slotMem(x.temp(size))
	x.store(m, 8, ir.Imm(int64(id)))
	if e.Payload != nil {
		x.zeroGaps(m.at(8), e.Payload)
		for i, f := range e.Payload.Fields {
			x.put(m.at(8+f.Off), f.Type, payload[i])
		}
	}
	x.output(m, ir.Imm(int64(size)))
}

// sendExprs is send for expressions, which are evaluated into the record.
func (x *fn) sendExprs(id int, args []syntax.Expr) {
	e := x.b.prog.Events[id]
	size := 8 + e.Payload.Size
	m := slotMem(x.temp(size))
	x.store(m, 8, ir.Imm(int64(id)))
	x.zeroGaps(m.at(8), e.Payload)
	for i, f := range e.Payload.Fields {
		mark := len(x.tmp)
		x.loose = true // who prints a string looks no further than its end
		x.into(m.at(8+f.Off), f.Type, args[i])
		x.loose = false
		x.endStmt(mark)
	}
	x.output(m, ir.Imm(int64(size)))
}

func (x *fn) output(m mem, size ir.Val) {
	d := x.f.NewReg()
	n := ir.Ins{Op: ir.Output, Dst: d, Map: x.b.ring, Slot: m.slot, Base: m.base, Off: m.off}
	if size.IsImm() {
		n.Imm = size.Imm
	} else {
		n.B = size
	}
	x.add(n)
	x.orCount(ir.R(d), ir.LostRing)
}

// payload gives the tuple a record of args is.
func (x *fn) payload(args []syntax.Expr) *types.Type {
	ts := make([]*types.Type, len(args))
	for i, a := range args {
		ts[i] = x.sentType(a)
	}
	return types.TupleOf(ts...)
}

// sentType gives the type in which a value travels.
func (x *fn) sentType(a syntax.Expr) *types.Type {
	t := x.typeOf(a)
	if s, ok := x.literalOf(a); ok {
		return types.StringT(len(s) + 1)
	}
	if t.Kind == types.Args {
		var fs []types.Field
		for _, f := range t.Fields {
			fs = append(fs, types.Field{Name: f.Name, Type: f.Type})
		}
		return types.RecordOf(fs)
	}
	return t
}

func formatted(kind ir.EventKind) lowering {
	return func(x *fn, c *syntax.Call, _ *types.Type) value {
		f, _ := x.literalOf(c.Args[0])
		id := x.b.event(&ir.Event{Kind: kind, Fmt: f, Payload: x.payload(c.Args[1:]), Span: c.Span})
		x.sendExprs(id, c.Args[1:])
		return value{t: types.VoidT}
	}
}

// debugf has the kernel write to its trace pipe, which is for everybody to see. The kernel takes three arguments.
func debugf(x *fn, c *syntax.Call, _ *types.Type) value {
	f, _ := x.literalOf(c.Args[0])
	text := x.literal(f)
	args := []ir.Val{x.addr(text.m), ir.Imm(int64(text.t.Size))}
	for _, a := range c.Args[1:] {
		v := x.expr(a)
		if v.t.IsScalar() {
			args = append(args, x.regVal(x.scalarVal(v)))
			continue
		}
		args = append(args, x.addr(x.toMem(v)))
	}
	x.call(ir.FnTracePrintk, args...)
	return value{t: types.VoidT}
}

// print_ is print(value), print(@map [, top [, div]]).
func print_(x *fn, c *syntax.Call, _ *types.Type) value {
	if r, ok := c.Args[0].(*syntax.MapRef); ok && r.Key == nil {
		m := x.b.maps[r.Name]
		top, div := ir.Imm(0), ir.Imm(0)
		if len(c.Args) > 1 {
			top = x.val(c.Args[1])
		}
		if len(c.Args) > 2 {
			div = x.val(c.Args[2])
		}
		id := x.b.event(&ir.Event{Kind: ir.EvPrintMap, Map: m, Span: c.Span, Payload: types.TupleOf(types.Uint64, types.Uint64)})
		x.send(id, []value{scalarOf(types.Uint64, top), scalarOf(types.Uint64, div)})
		return value{t: types.VoidT}
	}
	if r, ok := c.Args[0].(*syntax.MapRef); ok && x.b.maps[r.Name] != nil && x.b.maps[r.Name].Value.IsAgg() {
		return x.printElem(c, r)
	}
	id := x.b.event(&ir.Event{Kind: ir.EvPrint, Payload: x.payload(c.Args[:1]), Span: c.Span})
	x.sendExprs(id, c.Args[:1])
	return value{t: types.VoidT}
}

// printElem prints one element of a map of aggregations: its key is sent, the printing side reads the value.
func (x *fn) printElem(c *syntax.Call, r *syntax.MapRef) value {
	m := x.b.maps[r.Name]
	id := x.b.event(&ir.Event{Kind: ir.EvPrintMapElem, Map: m, Span: c.Span, Payload: types.TupleOf(m.Key)})
	size := 8 + m.Key.Size
	s := slotMem(x.temp(size))
	x.store(s, 8, ir.Imm(int64(id)))
	x.keyInto(s.at(8), m, r.Key)
	x.output(s, ir.Imm(int64(size)))
	return value{t: types.VoidT}
}

func wholeMap(kind ir.EventKind) lowering {
	return func(x *fn, c *syntax.Call, _ *types.Type) value {
		if r, ok := c.Args[0].(*syntax.MapRef); ok && x.b.maps[r.Name] != nil {
			x.send(x.b.event(&ir.Event{Kind: kind, Map: x.b.maps[r.Name], Span: c.Span}), nil)
		}
		return value{t: types.VoidT}
	}
}

func timeNow(x *fn, c *syntax.Call, _ *types.Type) value {
	f := "%H:%M:%S\n"
	if len(c.Args) > 0 {
		f, _ = x.literalOf(c.Args[0])
	}
	x.send(x.b.event(&ir.Event{Kind: ir.EvTime, Fmt: f, Span: c.Span}), nil)
	return value{t: types.VoidT}
}

// exit sends its code and ends this run of the program.
func exit(x *fn, c *syntax.Call, _ *types.Type) value {
	code := ir.Imm(0)
	if len(c.Args) > 0 {
		code = x.val(c.Args[0])
	}
	x.exit(code, c.Span)
	return value{t: types.VoidT}
}

func (x *fn) exit(code ir.Val, at syntax.Span) {
	id := x.b.event(&ir.Event{Kind: ir.EvExit, Span: at, Payload: types.TupleOf(types.Int64)})
	x.send(id, []value{scalarOf(types.Int64, code)})
	x.returnStmt(&syntax.Jump{Span: at, Tok: "return"})
}

func unwatch(x *fn, c *syntax.Call, _ *types.Type) value {
	id := x.b.event(&ir.Event{Kind: ir.EvUnwatch, Span: c.Span, Payload: types.TupleOf(types.Uint64)})
	x.send(id, []value{scalarOf(types.Uint64, x.val(c.Args[0]))})
	return value{t: types.VoidT}
}

// Limits of join: strings taken, and bytes of each.
const (
	joinArgs = 16
	joinSize = 1024
)

// join sends the strings a char *[] points at, up to its NULL.
func join(x *fn, c *syntax.Call, _ *types.Type) value {
	delim := " "
	if len(c.Args) > 1 {
		delim, _ = x.literalOf(c.Args[1])
	}
	id := x.b.event(&ir.Event{Kind: ir.EvJoin, Fmt: delim, Span: c.Span})
	v := x.expr(c.Args[0])
	space := x.space(v.t.Space)
	base := v.v
	if v.form != ref {
		base = x.scalarVal(v)
	}
	m := slotMem(x.temp(8 + joinArgs*joinSize))
	m.slot.Big = true
	x.store(m, 8, ir.Imm(int64(id)))
	ptr := slotMem(x.temp(8))
	i := x.f.NewReg()
	head, body, text, end := x.block(), x.block(), x.block(), x.block()
	x.mov(i, ir.Imm(0))
	x.jump(head)
	x.at(head)
	x.branch(ir.Lt, ir.R(i), ir.Imm(joinArgs), body, end)
	x.at(body)
	x.call(readHelper(space), x.addr(ptr), ir.Imm(8), x.bin(ir.Add, base, x.bin(ir.Mul, ir.R(i), ir.Imm(8))))
	p := x.load(ptr, 8, false)
	x.branch(ir.Eq, p, ir.Imm(0), end, text)
	x.at(text)
	at := x.bin(ir.Add, x.addr(m.at(8)), x.bin(ir.Mul, ir.R(i), ir.Imm(joinSize)))
	x.call(readStrHelper(space), at, ir.Imm(joinSize), p) // what cannot be read is empty
	x.mov(i, x.bin(ir.Add, ir.R(i), ir.Imm(1)))
	x.jump(head)
	x.at(end)
	n := x.bin(ir.Add, x.bin(ir.Mul, ir.R(i), ir.Imm(joinSize)), ir.Imm(8))
	x.output(m, n)
	return value{t: types.VoidT}
}
