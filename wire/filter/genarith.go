package filter

// value is an arithmetic expression compiled: code leaves it in A; guard says that the packet has what it reads.
type value struct {
	code  []ins
	guard *test
	depth int    // words of M it uses
	num   uint32 // its value, if isNum
	isNum bool
}

func number32(v uint32) value { return value{code: []ins{{opImm, v}}, num: v, isNum: true} }

// relation compares two arithmetic expressions.
func (g *gen) relation(n *relNode) *test {
	x, y := g.arith(n.x), g.arith(n.y)
	t := &test{}
	if y.isNum {
		t.code, t.k = x.code, y.num
	} else {
		t.code, t.useX = g.operands(n.op, x, y).code, true
	}
	negate := false
	switch n.op.text {
	case "=":
		t.jump = jEq
	case "!=":
		t.jump, negate = jEq, true
	case ">":
		t.jump = jGt
	case "<=":
		t.jump, negate = jGt, true
	case ">=":
		t.jump = jGe
	case "<":
		t.jump, negate = jGe, true
	}
	if negate {
		t = not(t)
	}
	return and(x.guard, y.guard, t)
}

// operands brings x into A and y into X. Intermediate results go to M from its end; offsets of tunnels are at its start.
func (g *gen) operands(at token, x, y value) value {
	if x.isNum {
		return value{code: cat(y.code, []ins{{opTAX, 0}}, x.code), depth: y.depth}
	}
	m := g.intermediate(at, x.depth)
	return value{code: cat(y.code, []ins{{opStore, m}}, x.code, []ins{{opXMem, m}}), depth: max(y.depth, x.depth+1)}
}

// intermediate gives the word of M for a result that is needed while code with depth intermediate results runs.
func (g *gen) intermediate(at token, depth int) uint32 {
	if depth+1+g.vars > memWords {
		g.fail(at, "the expression is too deep: it needs more than 16 intermediate results", "")
		return 0
	}
	return uint32(memWords - 1 - depth)
}

func cat(parts ...[]ins) []ins {
	var all []ins
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// operators of arithmetic.
var operators = map[string]uint16{
	"+": opAdd, "-": opSub, "*": opMul, "/": opDiv, "%": opMod, "&": opAnd, "|": opOr, "^": opXor, "<<": opLsh, ">>": opRsh,
}

func (g *gen) arith(a arith) value {
	switch a := a.(type) {
	case *numArith:
		return number32(a.num.num)
	case *lenArith:
		return value{code: []ins{{opLen, 0}}}
	case *negArith:
		x := g.arith(a.x)
		if x.isNum {
			return number32(-x.num)
		}
		// Not BPF_NEG: the machine of x/net/bpf does not have it.
		return value{code: append(x.code, ins{opAlu | opXor, 0xffffffff}, ins{opAlu | opAdd, 1}), guard: x.guard, depth: x.depth}
	case *loadArith:
		return g.loadValue(a)
	}
	o := a.(*opArith)
	x, y := g.arith(o.x), g.arith(o.y)
	op := operators[o.op.text]
	_, written := o.y.(*numArith)
	if y.isNum && !g.constantOK(o, op, y.num, written) {
		return number32(0)
	}
	if x.isNum && y.isNum {
		if v, ok := alu(op, x.num, y.num); ok {
			return number32(v)
		}
	}
	// As in libpcap, the protocol of the left operand is tested and that of the right is not.
	if y.isNum && (op == opLsh || op == opRsh) && y.num > 31 { // nothing is left
		return value{code: append(x.code, ins{opImm, 0}), guard: x.guard, depth: x.depth}
	}
	if y.isNum {
		return value{code: append(x.code, ins{opAlu | op, y.num}), guard: x.guard, depth: x.depth}
	}
	v := g.operands(o.op, x, y)
	v.code, v.guard = append(v.code, ins{opAluX | op, 0}), x.guard
	return v
}

// constantOK refuses constants on the right that make no sense.
func (g *gen) constantOK(o *opArith, op uint16, v uint32, written bool) bool {
	switch {
	case (op == opDiv || op == opMod) && v == 0:
		g.fail(o.y.first(), "division by zero", "")
	case (op == opLsh || op == opRsh) && v > 31 && written:
		g.fail(o.y.first(), "a shift by more than 31 bits", "")
	default:
		return true
	}
	return false
}

// alu computes as the machine does; ok is false for a division by zero.
func alu(op uint16, a, b uint32) (v uint32, ok bool) {
	switch op {
	case opAdd:
		return a + b, true
	case opSub:
		return a - b, true
	case opMul:
		return a * b, true
	case opDiv:
		if b == 0 {
			return 0, false
		}
		return a / b, true
	case opMod:
		if b == 0 {
			return 0, false
		}
		return a % b, true
	case opAnd:
		return a & b, true
	case opOr:
		return a | b, true
	case opXor:
		return a ^ b, true
	case opLsh:
		return a << b, true
	case opRsh:
		return a >> b, true
	}
	return 0, false
}

// loadValue reads bytes of a header.
func (g *gen) loadValue(a *loadArith) value {
	at := g.arith(a.at)
	size := int(a.size.num)
	if loads[size] == 0 {
		g.fail(a.size, "bytes are read by 1, 2 or 4", "")
		return number32(0)
	}
	name, p := a.name, a.name.proto
	switch p {
	case pLink:
		return value{code: g.indexed(g.linkHdr, at, size), guard: at.guard, depth: at.depth}
	case pIP, pARP, pRARP, pATalk, pDECnet, pSCA, pLAT, pMOPRC, pMOPDL, pIP6:
		net := offset{base: g.payload.base + g.net, v: g.payload.v}
		return value{code: g.indexed(net, at, size), guard: and(at.guard, g.protocol(name)), depth: at.depth}
	case pSCTP, pTCP, pUDP, pICMP, pIGMP, pIGRP, pPIM, pVRRP, pCARP:
		proto, frag := g.protocol(name), g.firstFragment()
		guard := and(g.linkProto(name, etIP), and(at.guard, and(proto, frag)))
		return value{code: g.transportLoad(at, size, name), guard: guard, depth: max(at.depth, 1)}
	case pICMP6:
		ip6 := g.linkProto(name, etIP6)
		behind := offset{base: g.payload.base + g.net + 40, v: g.payload.v}
		guard := and(and(at.guard, ip6), g.eq(atNet, 6, 1, ipICMP6))
		return value{code: g.indexed(behind, at, size), guard: guard, depth: at.depth}
	}
	g.fail(name, "bytes of "+quote(name.text)+" cannot be read", "ether, ip, ip6, arp, tcp, udp, icmp and others can")
	return number32(0)
}

// nowhere is an offset behind the end of every packet.
const nowhere = 0x7fffffff

// indexed loads from o + at.
func (g *gen) indexed(o offset, at value, size int) []ins {
	switch {
	case at.isNum && at.num < nowhere/2 && o.base < nowhere/2:
		return loadAt(o, at.num, size)
	case o.v >= 0:
		return cat(at.code, []ins{{opXMem, uint32(o.v)}, {opAluX | opAdd, 0}, {opTAX, 0}, {loadsIndexed[size], o.base}})
	case at.isNum:
		return []ins{{loads[size], nowhere}}
	}
	return append(at.code, ins{opTAX, 0}, ins{loadsIndexed[size], o.base})
}

// transportLoad loads from at behind the IPv4 header.
func (g *gen) transportLoad(at value, size int, name token) []ins {
	net := g.payload.base + g.net
	if at.isNum && at.num < nowhere/2 {
		return append(g.headerLen(), ins{loadsIndexed[size], net + at.num})
	}
	add := []ins{{opAluX | opAdd, 0}, {opTAX, 0}, {loadsIndexed[size], net}}
	if g.payload.v < 0 {
		return cat(at.code, g.headerLen(), add)
	}
	m := g.intermediate(name, 0)
	return cat(at.code, []ins{{opStore, m}}, g.headerLen(), []ins{{opMem, m}}, add)
}
