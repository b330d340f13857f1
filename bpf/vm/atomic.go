package vm

// The operation of an atomic instruction: its imm field.
const (
	atomAdd      = 0x00
	atomOr       = 0x40
	atomAnd      = 0x50
	atomXor      = 0xa0
	atomFetch    = 0x01
	atomXchg     = 0xe1
	atomCmpXchg  = 0xf1
	atomLoadAcq  = 0x100
	atomStoreRel = 0x110
)

func atomKnown(o uint64) bool {
	switch o &^ atomFetch {
	case atomAdd, atomOr, atomAnd, atomXor:
		return true
	}
	return o == atomXchg || o == atomCmpXchg
}

// atomic executes a read-modify-write of n bytes.
func (m *Machine) atomic(in *insn, n int) bool {
	r := &m.regs
	b, ok := m.mem(r[in.dst&15]+uint64(int64(in.off)), n, true)
	if !ok {
		return false
	}
	src := &r[in.src&15]
	old, v := getUint(b), *src
	put := atomResult(in.imm, old, v)
	if in.imm == atomCmpXchg {
		want := r[0]
		if n == 4 {
			want = uint64(uint32(want))
		}
		r[0] = old
		if old != want {
			return true
		}
		putUint(b, v)
		return true
	}
	putUint(b, put)
	if in.imm&atomFetch != 0 {
		*src = old
	}
	return true
}

func atomResult(o, old, v uint64) uint64 {
	switch o &^ atomFetch {
	case atomAdd:
		return old + v
	case atomOr:
		return old | v
	case atomAnd:
		return old & v
	case atomXor:
		return old ^ v
	}
	return v // exchange
}
