package vm

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// kind is the sort of object a tagged address points into.
type kind uint8

const (
	kindStack  kind = iota + 1 // object: frame; 1, so that below it is still ours
	kindCtx                    //
	kindPacket                 //
	kindValue                  // object: map; offset: slot<<shift | byte
	kindKey                    // object: map; offset: slot<<keyShift | byte; read-only
	kindRing                   // object: map; offset: position in the ring
	kindIndex                  // object: frame; the u32 key a callback over an array gets; read-only
	kindMap                    // object: map; not memory
	kindFunc                   // offset: entry point; not memory
	kindPoison kind = 15       // never written, or lost over a call
)

var kindNames = map[kind]string{
	kindStack: "stack", kindCtx: "context", kindPacket: "packet", kindValue: "map value", kindKey: "map key",
	kindRing: "ring buffer", kindIndex: "map key", kindMap: "map pointer", kindFunc: "function pointer", kindPoison: "undefined register",
}

const (
	tag       = 0x42
	tagShift  = 56
	kindShift = 52
	objShift  = 40
	offMask   = 1<<objShift - 1
	objMask   = 1<<(kindShift-objShift) - 1

	frameSize = 512
	maxDepth  = 8
	nullPage  = 4096
)

// CtxAddr and PacketAddr are where a program finds its context and its packet.
// A caller may store PacketAddr+n in the context as a pointer.
const (
	CtxAddr    uint64 = tag<<tagShift | uint64(kindCtx)<<kindShift
	PacketAddr uint64 = tag<<tagShift | uint64(kindPacket)<<kindShift
)

const poison = uint64(tag)<<tagShift | uint64(kindPoison)<<kindShift

func address(k kind, obj int, off uint64) uint64 {
	return uint64(tag)<<tagShift | uint64(k)<<kindShift | uint64(obj)<<objShift | off
}

func owned(a uint64) bool    { return a>>tagShift == tag }
func kindOf(a uint64) kind   { return kind(a >> kindShift & 15) }
func objectOf(a uint64) int  { return int(a >> objShift & objMask) }
func offsetOf(a uint64) int  { return int(a & offMask) }
func framePtr(d int) uint64  { return address(kindStack, d, frameSize) }
func frameBase(d int) uint64 { return address(kindStack, d, 0) }

// sub is b[off:off+n], or nil.
func sub(b []byte, off, n int) []byte {
	if off > len(b) || n > len(b)-off {
		return nil
	}
	return b[off : off+n : off+n]
}

// find returns the n bytes at the tagged address a, or nil. It never returns
// nil for what is there: n == 0 gives an empty slice.
func (m *Machine) find(a uint64, n int, write bool) []byte {
	if n < 0 {
		return nil
	}
	obj, off := objectOf(a), offsetOf(a)
	switch kindOf(a) {
	case kindStack:
		if obj > m.depth || off > frameSize || n > frameSize-off {
			return nil
		}
		return sub(m.stack[:], obj*frameSize+off, n)
	case kindCtx:
		if obj == 0 {
			return sub(m.in.Ctx, off, n)
		}
	case kindPacket:
		if obj == 0 {
			return sub(m.in.Packet, off, n)
		}
	case kindValue:
		if obj < len(m.maps) {
			return m.maps[obj].valueAt(off, n)
		}
	case kindKey:
		if obj < len(m.maps) && !write {
			return m.maps[obj].keyAt(off, n)
		}
	case kindRing:
		if obj < len(m.maps) {
			return m.maps[obj].ring.reserved(off, n)
		}
	case kindIndex:
		if obj < maxDepth && !write {
			return sub(m.index[obj][:], off, n)
		}
	}
	return nil
}

// mem is find for a helper's or an instruction's memory operand: failing is the program's fault.
func (m *Machine) mem(a uint64, n int, write bool) ([]byte, bool) {
	if owned(a) {
		if b := m.find(a, n, write); b != nil {
			return b, true
		}
	}
	verb := "read"
	if write {
		verb = "write"
	}
	m.fail(a, "%s of %d bytes at %s", verb, n, m.describe(a))
	return nil, false
}

// describe names an address for an error: "stack fp-520", "map value counts+8".
func (m *Machine) describe(a uint64) string {
	if !owned(a) {
		return fmt.Sprintf("address %#x, which the program does not own", a)
	}
	k, obj, off := kindOf(a), objectOf(a), offsetOf(a)
	if off >= 1<<(objShift-1) { // fell below the object's start into the previous one
		next := a + 1<<objShift
		k, obj, off = kindOf(next), objectOf(next), off-1<<objShift
	}
	switch k {
	case kindStack:
		return fmt.Sprintf("stack fp%+d of frame %d, outside its %d bytes", off-frameSize, obj, frameSize)
	case kindValue, kindKey, kindRing:
		if obj < len(m.maps) {
			return fmt.Sprintf("%s %s%+d, out of bounds", kindNames[k], m.maps[obj].name, off)
		}
	case kindCtx:
		return fmt.Sprintf("context%+d, outside its %d bytes", off, len(m.in.Ctx))
	case kindPacket:
		return fmt.Sprintf("packet%+d, outside its %d bytes", off, len(m.in.Packet))
	case kindPoison:
		return "an address from a register that holds nothing (r1..r5 do not survive a call)"
	}
	return fmt.Sprintf("%s %#x, which is not memory", kindNames[k], a)
}

// load reads n (1, 2, 4 or 8) bytes for a load instruction.
func (m *Machine) load(a uint64, n int) (uint64, bool) {
	if !owned(a) {
		return m.loadTarget(a, n), true
	}
	if m.in.Kind != CtxPlain && n == 4 && kindOf(a) == kindCtx {
		if v, ok := m.packetField(offsetOf(a)); ok {
			return v, true
		}
	}
	b, ok := m.mem(a, n, false)
	if !ok {
		return 0, false
	}
	return getUint(b), true
}

// loadTarget is a PROBE_MEM load: a failed one gives 0 and is counted.
func (m *Machine) loadTarget(a uint64, n int) uint64 {
	m.word = [8]byte{}
	switch {
	case a < nullPage:
		m.stats.Faults[FaultNull]++
	case m.target.ReadKernel(m.word[:n], a) != nil:
		m.stats.Faults[FaultLoad]++
	default:
		return binary.LittleEndian.Uint64(m.word[:])
	}
	return 0
}

func (m *Machine) store(a uint64, n int, v uint64) bool {
	b, ok := m.mem(a, n, true)
	if ok {
		putUint(b, v)
	}
	return ok
}

func getUint(b []byte) uint64 {
	switch len(b) {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(binary.LittleEndian.Uint16(b))
	case 4:
		return uint64(binary.LittleEndian.Uint32(b))
	default:
		return binary.LittleEndian.Uint64(b)
	}
}

func putUint(b []byte, v uint64) {
	switch len(b) {
	case 1:
		b[0] = byte(v)
	case 2:
		binary.LittleEndian.PutUint16(b, uint16(v))
	case 4:
		binary.LittleEndian.PutUint32(b, uint32(v))
	default:
		binary.LittleEndian.PutUint64(b, v)
	}
}

// packetField is a context field that the kernel turns into a packet pointer:
// 32 bits wide in the program's view, 64 bits when loaded.
func (m *Machine) packetField(off int) (uint64, bool) {
	end := PacketAddr + uint64(len(m.in.Packet))
	switch {
	case m.in.Kind == CtxXDP && (off == 0 || off == 8), m.in.Kind == CtxSkb && (off == 76 || off == 140):
		return PacketAddr, true // data, data_meta
	case m.in.Kind == CtxXDP && off == 4, m.in.Kind == CtxSkb && off == 80:
		return end, true // data_end
	}
	return 0, false
}

// read copies memory for a helper: the program's own or the target's. A failed
// read zeroes p, is counted and gives false.
func (m *Machine) read(p []byte, a uint64, user bool) bool {
	if owned(a) {
		if b := m.find(a, len(p), false); b != nil {
			copy(p, b)
			return true
		}
	} else if m.readTarget(p, a, user) == nil {
		return true
	}
	clear(p)
	m.countFault(user)
	return false
}

func (m *Machine) readTarget(p []byte, a uint64, user bool) error {
	if user {
		return m.target.ReadUser(p, a)
	}
	return m.target.ReadKernel(p, a)
}

func (m *Machine) countFault(user bool) {
	if user {
		m.stats.Faults[FaultUser]++
	} else {
		m.stats.Faults[FaultKernel]++
	}
}

// readString copies a string with its NUL into p, cut to fit, and gives the
// length with the NUL. p behind the NUL is left alone, as in the kernel.
func (m *Machine) readString(p []byte, a uint64, user bool) (int, bool) {
	for n := 0; n < len(p); {
		c := m.scratch[:min(len(p)-n, len(m.scratch), int(nullPage-(a+uint64(n))%nullPage))]
		if !m.peek(c, a+uint64(n), user) {
			if c = c[:1]; !m.peek(c, a+uint64(n), user) {
				clear(p)
				m.countFault(user)
				return 0, false
			}
		}
		if i := bytes.IndexByte(c, 0); i >= 0 {
			copy(p[n:], c[:i+1])
			return n + i + 1, true
		}
		n += copy(p[n:], c)
	}
	if len(p) > 0 {
		p[len(p)-1] = 0
	}
	return len(p), true
}

// peek is read without counting.
func (m *Machine) peek(p []byte, a uint64, user bool) bool {
	if owned(a) {
		b := m.find(a, len(p), false)
		copy(p, b)
		return b != nil
	}
	return m.readTarget(p, a, user) == nil
}
