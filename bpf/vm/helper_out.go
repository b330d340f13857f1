package vm

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/cilium/ebpf"
)

// ringArg is the ring buffer that a helper's argument names.
func (m *Machine) ringArg(a uint64) *Map {
	mp := m.mapArg(a)
	if mp != nil && mp.ring == nil {
		m.fail(a, "map %s is not a ring buffer", mp.name)
		return nil
	}
	return mp
}

// wakeupFlags are BPF_RB_NO_WAKEUP and BPF_RB_FORCE_WAKEUP.
const wakeupFlags = 3

func ringReserve(m *Machine, r *[16]uint64) uint64 {
	mp := m.ringArg(r[1])
	if mp == nil || r[3] != 0 || r[2] >= 1<<30 {
		return 0
	}
	off, ok := mp.ring.reserve(int(r[2]))
	if !ok {
		return 0
	}
	return address(kindRing, mp.obj, uint64(off))
}

func ringCommit(discard bool) helperFunc {
	return func(m *Machine, r *[16]uint64) uint64 {
		a := r[1]
		if owned(a) && kindOf(a) == kindRing && objectOf(a) < len(m.maps) && m.maps[objectOf(a)].ring.commit(offsetOf(a), discard) {
			return 0
		}
		m.fail(a, "%#x is not a reserved record", a)
		return 0
	}
}

func ringOutput(m *Machine, r *[16]uint64) uint64 {
	mp := m.ringArg(r[1])
	if mp == nil {
		return 0
	}
	b, ok := m.mem(r[2], size(r[3]), false)
	if !ok {
		return 0
	}
	if r[4]&^wakeupFlags != 0 {
		return EINVAL.ret()
	}
	off, ok := mp.ring.reserve(len(b))
	if !ok {
		return EAGAIN.ret()
	}
	copy(mp.ring.data[off:], b)
	mp.ring.commit(off, false)
	return 0
}

func ringQuery(m *Machine, r *[16]uint64) uint64 {
	mp := m.ringArg(r[1])
	if mp == nil {
		return 0
	}
	switch r[2] {
	case 0:
		return mp.ring.prod - mp.ring.cons
	case 1:
		return mp.ring.size
	case 2:
		return mp.ring.cons
	case 3:
		return mp.ring.prod
	}
	return 0
}

const (
	perfIndexMask  = 1<<32 - 1
	perfCurrentCPU = perfIndexMask
	perfCtxLen     = 0xfffff << 32
)

// perfOutput captures r5 bytes at r4 for the event r3 of the map r2.
func perfOutput(m *Machine, r *[16]uint64) uint64 {
	if r[3]&^perfIndexMask != 0 {
		return EINVAL.ret()
	}
	return m.perfRecord(r, 0)
}

// skbOutput is perfOutput with some bytes of the packet behind the data.
func skbOutput(m *Machine, r *[16]uint64) uint64 {
	n := int(r[3] & perfCtxLen >> 32)
	if r[3]&^(perfCtxLen|perfIndexMask) != 0 || n > len(m.in.Packet) {
		return EFAULT.ret()
	}
	return m.perfRecord(r, n)
}

func (m *Machine) perfRecord(r *[16]uint64, packet int) uint64 {
	mp := m.mapArg(r[2])
	if mp == nil {
		return 0
	}
	if mp.spec.Type != ebpf.PerfEventArray {
		m.fail(r[2], "map %s is not a perf event array", mp.name)
		return 0
	}
	b, ok := m.mem(r[4], size(r[5]), false)
	if !ok {
		return 0
	}
	i := r[3] & perfIndexMask
	if i == perfCurrentCPU {
		i = uint64(m.env.CPU)
	}
	switch {
	case mp.max > 0 && i >= uint64(mp.max):
		return E2BIG.ret()
	case i != uint64(m.env.CPU): // the kernel refuses another CPU's event
		return EOPNOTSUPP.ret()
	}
	mp.records = append(mp.records, Record{CPU: uint32(i), Data: slices.Concat(b, m.in.Packet[:packet])})
	return 0
}

// frames is the stack that flags ask for, without those to skip.
func (m *Machine) framesFor(flags uint64, depth int) []uint64 {
	ips := m.env.KernelStack
	if flags&stackUser != 0 {
		ips = m.env.UserStack
	}
	ips = ips[:min(len(ips), maxStackDepth)]
	ips = ips[min(len(ips), int(flags&stackSkip)):]
	return ips[:min(len(ips), depth)]
}

func getStackID(m *Machine, r *[16]uint64) uint64 {
	mp := m.mapArg(r[2])
	if mp == nil {
		return 0
	}
	if mp.stack == nil {
		m.fail(r[2], "map %s is not a stack trace map", mp.name)
		return 0
	}
	if r[3]&^(stackSkip|stackUser|stackFastCmp|stackReuse) != 0 {
		return EINVAL.ret()
	}
	ips := m.framesFor(r[3], mp.value/8)
	if len(ips) == 0 {
		return EFAULT.ret()
	}
	id, errno := mp.stack.id(ips, r[3])
	if errno != 0 {
		return errno.ret()
	}
	return id
}

func getStack(m *Machine, r *[16]uint64) uint64 {
	b, ok := m.mem(r[2], size(r[3]), true)
	if !ok {
		return 0
	}
	clear(b)
	if r[4]&^(stackSkip|stackUser) != 0 || len(b)%8 != 0 {
		return EINVAL.ret()
	}
	ips := m.framesFor(r[4], len(b)/8)
	if len(ips) == 0 {
		return EFAULT.ret()
	}
	for i, ip := range ips {
		binary.LittleEndian.PutUint64(b[8*i:], ip)
	}
	return uint64(8 * len(ips))
}

// getTaskStack has the stack of the current task; of others nothing is known.
func getTaskStack(m *Machine, r *[16]uint64) uint64 {
	if r[1] != m.env.Task {
		return EOPNOTSUPP.ret()
	}
	return getStack(m, r)
}

// printBuf is how much the kernel prints at most (BPF_TRACE_PRINTK_SIZE).
const printBuf = 1024

// formatArg is a format string, with its NUL inside its n bytes.
func (m *Machine) formatArg(a uint64, n int) (string, bool) {
	b, ok := m.mem(a, n, false)
	if !ok {
		return "", false
	}
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return string(b[:i]), true
	}
	return "", true
}

func tracePrintk(m *Machine, r *[16]uint64) uint64 {
	f, ok := m.formatArg(r[1], size(r[2]))
	if !ok {
		return 0
	}
	return m.print(f, r[3:6])
}

func traceVprintk(m *Machine, r *[16]uint64) uint64 {
	f, ok := m.formatArg(r[1], size(r[2]))
	if !ok {
		return 0
	}
	args, ok := m.words(r[3], size(r[4]))
	if !ok {
		return EINVAL.ret()
	}
	return m.print(f, args)
}

func (m *Machine) print(f string, args []uint64) uint64 {
	out, errno := m.format(f, args, printBuf)
	if errno != 0 {
		return errno.ret()
	}
	m.trace = append(m.trace, string(out))
	return uint64(len(out))
}

// words is an array of 8-byte arguments; at most 12, as in the kernel.
func (m *Machine) words(a uint64, n int) ([]uint64, bool) {
	if n%8 != 0 || n > 96 {
		return nil, false
	}
	if n == 0 {
		return nil, true
	}
	b, ok := m.mem(a, n, false)
	if !ok {
		return nil, false
	}
	var w []uint64
	for ; len(b) > 0; b = b[8:] {
		w = append(w, binary.LittleEndian.Uint64(b))
	}
	return w, true
}

// snprintf(r1, r2, fmt r3, args r4, r5): the length with the NUL, also if cut.
func snprintf(m *Machine, r *[16]uint64) uint64 {
	args, ok := m.words(r[4], size(r[5]))
	if !ok {
		return EINVAL.ret()
	}
	var f [printBuf]byte
	n, ok := m.readString(f[:], r[3], false)
	if !ok || n == 0 {
		return EINVAL.ret()
	}
	out, errno := m.format(string(f[:n-1]), args, 1<<20)
	if errno != 0 {
		return errno.ret()
	}
	if b, ok := m.mem(r[1], size(r[2]), true); ok && len(b) > 0 {
		b[copy(b[:len(b)-1], out)] = 0
	}
	return uint64(len(out) + 1)
}
