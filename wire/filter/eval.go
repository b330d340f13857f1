package filter

import "encoding/binary"

// step is an instruction of the evaluator: jumps go to yes and no.
type step struct {
	op      uint16
	k       uint32
	yes, no int32
}

// layout makes a program for run; its first instruction is that of the first block.
func layout(order []*block) []step {
	at := make(map[*block]int32, len(order))
	pc := int32(0)
	for _, b := range order {
		at[b] = pc
		pc += int32(len(b.code)) + 1
	}
	prog := make([]step, 0, pc)
	for _, b := range order {
		for _, c := range b.code {
			prog = append(prog, step{op: c.op, k: c.k})
		}
		s := step{op: opJump | b.jump, k: b.k}
		switch {
		case b.end():
			s = step{op: opRet}
			if b.verdict {
				s.k = 1
			}
		case b.useX:
			s.op = opJumpX | b.jump
		}
		if !b.end() {
			s.yes, s.no = at[b.yes], at[b.no]
		}
		prog = append(prog, s)
	}
	return prog
}

// Match says if a packet matches. pkt is what was captured of it; wireLen is its whole length, which "len", "less" and
// "greater" are about. It allocates nothing.
func (f *Filter) Match(pkt []byte, wireLen int) bool { return f.MatchMeta(pkt, wireLen, Meta{}) }

// MatchMeta is Match for a packet of which more is known than its bytes.
func (f *Filter) MatchMeta(pkt []byte, wireLen int, m Meta) bool {
	var a, x uint32
	var mem [memWords]uint32
	for pc := 0; ; {
		s := &f.prog[pc]
		pc++
		ok := true
		switch s.op {
		case opLoadW, opLoadH, opLoadB:
			if s.k >= metaBase {
				a = m.value(s.k)
			} else {
				a, ok = load(pkt, uint64(s.k), s.op)
			}
		case opLoadIW, opLoadIH, opLoadIB:
			a, ok = load(pkt, uint64(x)+uint64(s.k), s.op-opLoadIW+opLoadW)
		case opXHeader:
			x, ok = load(pkt, uint64(s.k), opLoadB)
			x = x & 0xf * 4
		case opImm:
			a = s.k
		case opLen:
			a = uint32(wireLen)
		case opMem:
			a = mem[s.k%memWords]
		case opXImm:
			x = s.k
		case opXMem:
			x = mem[s.k%memWords]
		case opStore:
			mem[s.k%memWords] = a
		case opStoreX:
			mem[s.k%memWords] = x
		case opTAX:
			x = a
		case opTXA:
			a = x
		case opRet:
			return s.k != 0
		default:
			if s.op&7 == opJump {
				pc = int(s.target(a, x))
				continue
			}
			k := s.k
			if s.op&8 != 0 {
				k = x
			}
			a, ok = alu(s.op&0xf0, a, k)
		}
		if !ok {
			return false
		}
	}
}

// load reads size bytes as op says.
func load(pkt []byte, at uint64, op uint16) (uint32, bool) {
	n := uint64(len(pkt))
	switch {
	case op == opLoadB && at < n:
		return uint32(pkt[at]), true
	case op == opLoadH && at+1 < n:
		return uint32(binary.BigEndian.Uint16(pkt[at:])), true
	case op == opLoadW && at+3 < n:
		return binary.BigEndian.Uint32(pkt[at:]), true
	}
	return 0, false
}

// target decides a jump.
func (s *step) target(a, x uint32) int32 {
	k := s.k
	if s.op&8 != 0 {
		k = x
	}
	if compare(s.op&0xf0, a, k) {
		return s.yes
	}
	return s.no
}

// compare is what a jump asks.
func compare(jump uint16, a, k uint32) bool {
	switch jump {
	case jEq:
		return a == k
	case jGt:
		return a > k
	case jGe:
		return a >= k
	case jSet:
		return a&k != 0
	}
	return true
}
