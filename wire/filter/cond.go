package filter

// Instructions of classic BPF (include/uapi/linux/bpf_common.h, filter.h): class, size and mode, or operation and source.
const (
	opLoadW   = 0x20 // A = word at k           big-endian, as all loads from the packet
	opLoadH   = 0x28
	opLoadB   = 0x30
	opLoadIW  = 0x40 // A = word at X + k
	opLoadIH  = 0x48
	opLoadIB  = 0x50
	opImm     = 0x00 // A = k
	opLen     = 0x80 // A = length of the packet on the wire
	opMem     = 0x60 // A = M[k]
	opXImm    = 0x01 // X = k
	opXMem    = 0x61 // X = M[k]
	opXHeader = 0xb1 // X = 4 * (byte at k & 15)
	opStore   = 0x02 // M[k] = A
	opStoreX  = 0x03 // M[k] = X
	opAlu     = 0x04 // A = A op k              op in the high bits: opAdd …
	opAluX    = 0x0c // A = A op X
	opJump    = 0x05 // compare A with k
	opJumpX   = 0x0d // compare A with X
	opRet     = 0x06 // verdict k
	opTAX     = 0x07
	opTXA     = 0x87

	opAdd = 0x00
	opSub = 0x10
	opMul = 0x20
	opDiv = 0x30
	opOr  = 0x40
	opAnd = 0x50
	opLsh = 0x60
	opRsh = 0x70
	opMod = 0x90
	opXor = 0xa0

	jAlways = 0x00
	jEq     = 0x10
	jGt     = 0x20
	jGe     = 0x30
	jSet    = 0x40 // A & k != 0
)

// memWords is how many words M has.
const memWords = 16

// ins is an instruction without jump targets.
type ins struct {
	op uint16
	k  uint32
}

// test is a condition on a packet: a leaf computes A (and X) and compares.
type test struct {
	op   testOp
	x, y *test
	// leaf
	code []ins
	jump uint16
	useX bool // compare A with X instead of k
	k    uint32
	// constant
	value bool
	// chain
	chain *chain
}

type testOp uint8

const (
	testLeaf testOp = iota
	testConst
	testAnd
	testOr
	testNot
	testChain
)

// chain is protochain: it follows headers from the one after the IP header at offset net until one is of protocol want.
type chain struct {
	v6   bool
	net  uint32
	want uint32
}

func and(ts ...*test) *test { return fold(testAnd, ts) }
func or(ts ...*test) *test  { return fold(testOr, ts) }
func not(t *test) *test     { return &test{op: testNot, x: t} }
func constant(v bool) *test { return &test{op: testConst, value: v} }

// fold joins tests from the left; nil ones do not count.
func fold(op testOp, ts []*test) *test {
	var all *test
	for _, t := range ts {
		switch {
		case t == nil:
		case all == nil:
			all = t
		default:
			all = &test{op: op, x: all, y: t}
		}
	}
	return all
}

// where is a place in the packet that offsets are relative to.
type where uint8

const (
	atLink   where = iota // the link-layer header
	atType                // its type field
	atLLC                 // what follows it
	atNet                 // the network-layer header
	atISO                 // the same where IEEE 802.2 stands before it without SNAP
	atLabel               // the last MPLS label read
	atTrans4              // behind an IPv4 header
	atTrans6              // behind an IPv6 header without extensions
)

// offset is a place: a constant, with var ≥ 0 plus the word M[var].
type offset struct {
	base uint32
	v    int
}

// sizes: loads from constant and from variable places by size in bytes.
var (
	loads        = map[int]uint16{1: opLoadB, 2: opLoadH, 4: opLoadW}
	loadsIndexed = map[int]uint16{1: opLoadIB, 2: opLoadIH, 4: opLoadIW}
)

// loadAt gives the load of size bytes at off from o.
func loadAt(o offset, off uint32, size int) []ins {
	if o.v >= 0 {
		return []ins{{opXMem, uint32(o.v)}, {loadsIndexed[size], o.base + off}}
	}
	return []ins{{loads[size], o.base + off}}
}

// load gives the instructions that bring size bytes into A.
func (g *gen) load(w where, off uint32, size int) []ins {
	switch w {
	case atLink:
		return loadAt(g.linkHdr, off, size)
	case atType:
		return loadAt(g.linkType, off, size)
	case atLLC:
		return loadAt(g.payload, off, size)
	case atISO:
		return loadAt(g.payload, g.netISO+off, size)
	case atLabel:
		return loadAt(g.payload, g.net-4+off, size)
	case atTrans4:
		return append(g.headerLen(), ins{loadsIndexed[size], g.payload.base + g.net + off})
	case atTrans6:
		return loadAt(g.payload, g.net+40+off, size)
	}
	return loadAt(g.payload, g.net+off, size)
}

// headerLen brings the length of the IPv4 header into X, plus the variable part of its place.
func (g *gen) headerLen() []ins {
	at := g.payload.base + g.net
	if g.payload.v < 0 {
		return []ins{{opXHeader, at}}
	}
	return []ins{{opXMem, uint32(g.payload.v)}, {opLoadIB, at}, {opAlu | opAnd, 0xf}, {opAlu | opLsh, 2}, {opAluX | opAdd, 0}, {opTAX, 0}}
}

// leaf compares what stands at a place.
func (g *gen) leaf(w where, off uint32, size int, jump uint16, k uint32) *test {
	return &test{code: g.load(w, off, size), jump: jump, k: k}
}

func (g *gen) eq(w where, off uint32, size int, k uint32) *test { return g.leaf(w, off, size, jEq, k) }
func (g *gen) ge(w where, off uint32, size int, k uint32) *test { return g.leaf(w, off, size, jGe, k) }
func (g *gen) gt(w where, off uint32, size int, k uint32) *test { return g.leaf(w, off, size, jGt, k) }
func (g *gen) set(w where, off uint32, size int, k uint32) *test {
	return g.leaf(w, off, size, jSet, k)
}

// masked compares some bits; with no bits there is nothing to load, as in what libpcap's optimiser leaves.
func (g *gen) masked(w where, off uint32, size int, k, mask uint32) *test {
	if mask == 0 {
		return constant(k == 0)
	}
	t := g.eq(w, off, size, k)
	if mask != 0xffffffff {
		t.code = append(t.code, ins{opAlu | opAnd, mask})
	}
	return t
}

// bytes compares a string of bytes, from its end as libpcap does.
func (g *gen) bytes(w where, off uint32, b []byte) *test {
	var t *test
	for n := len(b); n > 0; {
		size := 4
		for size > n {
			size /= 2
		}
		n -= size
		v := uint32(0)
		for _, c := range b[n : n+size] {
			v = v<<8 | uint32(c)
		}
		t = and(t, g.eq(w, off+uint32(n), size, v))
	}
	return t
}
