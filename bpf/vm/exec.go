package vm

import (
	"encoding/binary"
	"math/bits"
)

// exec runs from code index pc until the frame it starts in exits, and gives
// r0; false with m.err set if it cannot. m.left counts instructions at jumps,
// where the straight piece since start is complete.
func (m *Machine) exec(pc int) (uint64, bool) {
	r, code, base := &m.regs, m.code, m.depth
	start := pc
	for {
		in := &code[pc]
		pc++
		b := r[in.src&15] + in.imm
		d := &r[in.dst&15]
		switch in.op {
		case opMov64:
			*d = b
			continue
		case opAdd64:
			*d += b
			continue
		case opSub64:
			*d -= b
			continue
		case opMul64:
			*d *= b
			continue
		case opDiv64:
			*d = div64(*d, b)
			continue
		case opSDiv64:
			*d = sdiv64(*d, b)
			continue
		case opOr64:
			*d |= b
			continue
		case opAnd64:
			*d &= b
			continue
		case opLsh64:
			*d <<= b & 63
			continue
		case opRsh64:
			*d >>= b & 63
			continue
		case opArsh64:
			*d = uint64(int64(*d) >> (b & 63))
			continue
		case opNeg64:
			*d = -*d
			continue
		case opMod64:
			if b != 0 {
				*d %= b
			}
			continue
		case opSMod64:
			if b != 0 {
				*d = uint64(int64(*d) % int64(b))
			}
			continue
		case opXor64:
			*d ^= b
			continue
		case opMovSX8:
			*d = uint64(int8(b))
			continue
		case opMovSX16:
			*d = uint64(int16(b))
			continue
		case opMovSX32:
			*d = uint64(int32(b))
			continue

		case opMov32:
			*d = uint64(uint32(b))
			continue
		case opAdd32:
			*d = uint64(uint32(*d) + uint32(b))
			continue
		case opSub32:
			*d = uint64(uint32(*d) - uint32(b))
			continue
		case opMul32:
			*d = uint64(uint32(*d) * uint32(b))
			continue
		case opDiv32:
			*d = div64(uint64(uint32(*d)), uint64(uint32(b)))
			continue
		case opSDiv32:
			*d = uint64(uint32(sdiv64(uint64(int32(*d)), uint64(int32(b)))))
			continue
		case opOr32:
			*d = uint64(uint32(*d | b))
			continue
		case opAnd32:
			*d = uint64(uint32(*d & b))
			continue
		case opLsh32:
			*d = uint64(uint32(*d) << (b & 31))
			continue
		case opRsh32:
			*d = uint64(uint32(*d) >> (b & 31))
			continue
		case opArsh32:
			*d = uint64(uint32(int32(*d) >> (b & 31)))
			continue
		case opNeg32:
			*d = uint64(-uint32(*d))
			continue
		case opMod32:
			*d = uint64(uint32(*d))
			if uint32(b) != 0 {
				*d %= uint64(uint32(b))
			}
			continue
		case opSMod32:
			if int32(b) != 0 {
				*d = uint64(int32(*d) % int32(b))
			}
			*d = uint64(uint32(*d))
			continue
		case opXor32:
			*d = uint64(uint32(*d ^ b))
			continue
		case opMovSX8w:
			*d = uint64(uint32(int8(b)))
			continue
		case opMovSX16w:
			*d = uint64(uint32(int16(b)))
			continue
		case opSwap16:
			*d = uint64(bits.ReverseBytes16(uint16(*d)))
			continue
		case opSwap32:
			*d = uint64(bits.ReverseBytes32(uint32(*d)))
			continue
		case opSwap64:
			*d = bits.ReverseBytes64(*d)
			continue
		case opZext16:
			*d = uint64(uint16(*d))
			continue
		case opZext32:
			*d = uint64(uint32(*d))
			continue
		case opNop:
			continue

		case opLd8, opLd16, opLd32, opLd64:
			a, n := b+uint64(int64(in.off)), 1<<(in.op-opLd8)
			if o := a - frameBase(m.depth); o <= uint64(frameSize-n) {
				*d = getUint(m.stack[uint64(m.depth&7)*frameSize+o:][:n])
				continue
			}
			m.pc = pc - 1
			v, ok := m.load(a, n)
			if !ok {
				return m.stop(pc, start)
			}
			*d = v
			continue
		case opLdSX8, opLdSX16, opLdSX32:
			n := 1 << (in.op - opLdSX8)
			m.pc = pc - 1
			v, ok := m.load(b+uint64(int64(in.off)), n)
			if !ok {
				return m.stop(pc, start)
			}
			shift := 64 - 8*n
			*d = uint64(int64(v<<shift) >> shift)
			continue
		case opSt8, opSt16, opSt32, opSt64:
			a, n := *d+uint64(int64(in.off)), 1<<(in.op-opSt8)
			if o := a - frameBase(m.depth); o <= uint64(frameSize-n) {
				putUint(m.stack[uint64(m.depth&7)*frameSize+o:][:n], b)
				continue
			}
			m.pc = pc - 1
			if !m.store(a, n, b) {
				return m.stop(pc, start)
			}
			continue
		case opAtom32, opAtom64:
			m.pc = pc - 1
			if !m.atomic(in, 4<<(in.op-opAtom32)) {
				return m.stop(pc, start)
			}
			continue
		case opPkt8, opPkt16, opPkt32:
			v, ok := m.packetLoad(uint32(b), 1<<(in.op-opPkt8))
			m.clobber(v)
			if ok {
				continue
			}
			m.depth = base // the kernel leaves the whole program with 0
			m.stop(pc, start)
			return 0, true

		case opHelper:
			m.pc = pc - 1
			m.stats.HelperCalls++
			v := m.calls[in.imm](m, r)
			if m.err != nil {
				return m.stop(pc, start)
			}
			m.clobber(v)
			continue

		case opJa:
		case opJEq:
			if *d != b {
				continue
			}
		case opJNe:
			if *d == b {
				continue
			}
		case opJGt:
			if *d <= b {
				continue
			}
		case opJGe:
			if *d < b {
				continue
			}
		case opJLt:
			if *d >= b {
				continue
			}
		case opJLe:
			if *d > b {
				continue
			}
		case opJSGt:
			if int64(*d) <= int64(b) {
				continue
			}
		case opJSGe:
			if int64(*d) < int64(b) {
				continue
			}
		case opJSLt:
			if int64(*d) >= int64(b) {
				continue
			}
		case opJSLe:
			if int64(*d) > int64(b) {
				continue
			}
		case opJSet:
			if *d&b == 0 {
				continue
			}
		case opJEq32:
			if uint32(*d) != uint32(b) {
				continue
			}
		case opJNe32:
			if uint32(*d) == uint32(b) {
				continue
			}
		case opJGt32:
			if uint32(*d) <= uint32(b) {
				continue
			}
		case opJGe32:
			if uint32(*d) < uint32(b) {
				continue
			}
		case opJLt32:
			if uint32(*d) >= uint32(b) {
				continue
			}
		case opJLe32:
			if uint32(*d) > uint32(b) {
				continue
			}
		case opJSGt32:
			if int32(*d) <= int32(b) {
				continue
			}
		case opJSGe32:
			if int32(*d) < int32(b) {
				continue
			}
		case opJSLt32:
			if int32(*d) >= int32(b) {
				continue
			}
		case opJSLe32:
			if int32(*d) > int32(b) {
				continue
			}
		case opJSet32:
			if uint32(*d)&uint32(b) == 0 {
				continue
			}
		case opMayJmp:
			if m.mayJmp++; m.mayJmp <= mayGotoMax {
				continue
			}

		case opCall:
			m.pc = pc - 1
			if !m.enter(int32(pc)) {
				return m.stop(pc, start)
			}
		case opExit:
			if m.depth == base {
				m.stop(pc, start)
				return r[0], true
			}
			m.left -= int64(pc - start)
			pc = m.leave()
			start = pc
			continue

		default:
			m.pc = pc - 1
			m.fail(0, "the program ends without exit")
			return m.stop(pc, start)
		}
		// A jump that is taken.
		if m.left -= int64(pc - start); m.left < 0 {
			m.pc = pc - 1
			m.fail(0, "budget of %d instructions used up", m.budget)
			return 0, false
		}
		pc = int(in.off)
		start = pc
	}
}

// mayGotoMax is how often may_goto does not jump (BPF_MAX_LOOPS).
const mayGotoMax = 8 << 20

// stop accounts for the straight piece of code that ends here.
func (m *Machine) stop(pc, start int) (uint64, bool) {
	m.left -= int64(pc - start)
	return 0, false
}

// clobber sets the registers as they are after a call.
func (m *Machine) clobber(r0 uint64) {
	r := &m.regs
	r[0], r[1], r[2], r[3], r[4], r[5] = r0, poison, poison, poison, poison, poison
}

// enter makes a frame for a bpf-to-bpf call that returns to code index ret.
func (m *Machine) enter(ret int32) bool {
	if m.depth+1 >= maxDepth {
		m.fail(0, "calls nest deeper than %d frames", maxDepth)
		return false
	}
	r := &m.regs
	m.frames[m.depth] = frame{saved: [4]uint64(r[6:10]), ret: ret}
	m.depth++
	m.newFrame()
	return true
}

// newFrame makes the stack and the registers of the frame m.depth new.
func (m *Machine) newFrame() {
	r := &m.regs
	clear(m.stack[m.depth*frameSize:][:frameSize])
	r[0], r[6], r[7], r[8], r[9] = poison, poison, poison, poison, poison
	r[regFP] = framePtr(m.depth)
}

// leave returns from a bpf-to-bpf call and gives the code index to go on at.
func (m *Machine) leave() int {
	m.depth--
	f := &m.frames[m.depth]
	m.clobber(m.regs[0])
	copy(m.regs[6:10], f.saved[:])
	m.regs[regFP] = framePtr(m.depth)
	return int(f.ret)
}

// callback runs the function at fn for a helper, with up to four arguments.
func (m *Machine) callback(fn, a1, a2, a3, a4 uint64) (uint64, bool) {
	if !owned(fn) || kindOf(fn) != kindFunc || offsetOf(fn) >= len(m.code) {
		m.fail(fn, "callback %#x is not a function", fn)
		return 0, false
	}
	if m.depth+1 >= maxDepth {
		m.fail(0, "calls nest deeper than %d frames", maxDepth)
		return 0, false
	}
	saved, pc := m.regs, m.pc
	m.depth++
	m.newFrame()
	m.regs[1], m.regs[2], m.regs[3], m.regs[4], m.regs[5] = a1, a2, a3, a4, poison
	v, ok := m.exec(offsetOf(fn))
	m.depth--
	m.regs, m.pc = saved, pc
	if ok && m.left < 0 {
		m.fail(0, "budget of %d instructions used up", m.budget)
		ok = false
	}
	return v, ok
}

// packetLoad is a load of classic BPF: n bytes of the packet in network order.
func (m *Machine) packetLoad(off uint32, n int) (uint64, bool) {
	b := sub(m.in.Packet, int(off), n)
	if b == nil {
		return 0, false
	}
	switch n {
	case 1:
		return uint64(b[0]), true
	case 2:
		return uint64(binary.BigEndian.Uint16(b)), true
	}
	return uint64(binary.BigEndian.Uint32(b)), true
}

func div64(a, b uint64) uint64 {
	if b == 0 {
		return 0
	}
	return a / b
}

func sdiv64(a, b uint64) uint64 {
	if b == 0 {
		return 0
	}
	return uint64(int64(a) / int64(b))
}
