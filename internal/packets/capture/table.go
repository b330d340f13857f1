package capture

import (
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/ir/emit"
)

// table is a set of addresses that programs ask without a call: an array of buckets of a few addresses, of which a bucket
// that is full forgets the one that came first. Programs on several CPUs may write to a bucket at the same time; one of the
// addresses is forgotten then.
type table struct{ m *ir.Map }

const (
	tableBits = 13 // logarithm of the number of buckets
	tableWays = 4  // addresses in a bucket: half a cache line

	bucketBits = 5
	bucketSize = 8 * tableWays
)

func newTable(p *emit.Program) *table {
	return &table{p.Map(ir.Map{Name: ".tracked", Kind: ir.Array, KeySize: 4, ValueSize: bucketSize << tableBits, MaxEntries: 1})}
}

// bucket gives the bucket of an address.
func (t *table) bucket(u *emit.Unit, addr ir.Val) emit.Mem {
	product := u.Bin(ir.Mul, addr, u.Var(ir.Imm(-7046029254386353131))) // 2^64 / the golden ratio (Knuth)
	off := u.Bin(ir.Shl, u.Bin(ir.Shr, product, ir.Imm(64-tableBits)), ir.Imm(bucketBits))
	return u.Place(u.Bin(ir.Add, u.Value(t.m), off))
}

// find sets hit if an address is in the table.
func (t *table) find(u *emit.Unit, addr, hit ir.Val) {
	b := t.bucket(u, addr)
	for i := range tableWays {
		u.If(ir.Eq, u.Load(b.At(8*i), 8, false), addr, func() { u.Set(hit, ir.Imm(1)) }, nil)
	}
}

// add puts an address that is not in the table in front.
func (t *table) add(u *emit.Unit, addr ir.Val) {
	b := t.bucket(u, addr)
	for i := tableWays - 1; i > 0; i-- {
		u.Store(b.At(8*i), 8, u.Load(b.At(8*(i-1)), 8, false))
	}
	u.Store(b, 8, addr)
}

// remove takes an address out.
func (t *table) remove(u *emit.Unit, addr ir.Val) {
	b := t.bucket(u, addr)
	for i := range tableWays {
		at := b.At(8 * i)
		u.If(ir.Eq, u.Load(at, 8, false), addr, func() { u.Store(at, 8, ir.Imm(0)) }, nil)
	}
}
