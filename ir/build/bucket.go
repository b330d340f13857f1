package build

import (
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/lang/syntax"
)

// anyBucket looks for the elements of a map of buckets that have a key: whichever buckets those are. It gives 1 if there
// are some, else 0, and deletes them if asked to.
func (x *fn) anyBucket(m *ir.Map, key syntax.Expr, remove bool) ir.Val {
	k, found := x.u.NewSlot("key", m.KeySize), x.u.NewSlot("found", 8)
	k.Shared, found.Shared, found.Big = true, true, true
	x.keyInto(slotMem(k), m, key)
	x.store(slotMem(found), 8, ir.Imm(0))
	cb := x.callback(4)
	match, end := cb.block(), cb.block()
	at := mem{base: cb.f.Params[1]}
	cb.compareBytes(slotMem(k), at, m.KeySize-8, ir.Eq, match, end)
	cb.at(match)
	cb.store(slotMem(found), 8, ir.Imm(1))
	if !remove {
		cb.ret(ir.Imm(1))
	} else {
		cb.call(ir.FnMapDelete, cb.mapPtr(m), cb.addr(at))
		cb.jump(end)
	}
	cb.at(end)
	cb.endCallback()
	x.call(ir.FnForEachMapElem, x.mapPtr(m), x.funcPtr(cb.f), x.frame(), ir.Imm(0))
	return x.load(slotMem(found), 8, false)
}
