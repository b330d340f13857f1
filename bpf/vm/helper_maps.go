package vm

import "encoding/binary"

// mapArg is the map that a helper's argument names.
func (m *Machine) mapArg(a uint64) *Map {
	if owned(a) && kindOf(a) == kindMap && offsetOf(a) == 0 && objectOf(a) < len(m.maps) {
		return m.maps[objectOf(a)]
	}
	m.fail(a, "%#x is not a map", a)
	return nil
}

// elem resolves the arguments (map, key) of a lookup.
func (m *Machine) elem(r *[16]uint64) (*Map, int) {
	mp := m.mapArg(r[1])
	if mp == nil {
		return nil, -1
	}
	if mp.hash == nil && mp.data == nil {
		m.fail(0, "map %s (%s) has no elements to look up", mp.name, mp.spec.Type)
		return nil, -1
	}
	key, ok := m.mem(r[2], mp.key, false)
	if !ok {
		return nil, -1
	}
	return mp, mp.slot(key)
}

func (m *Machine) cpu() int { return min(int(m.env.CPU), m.cpus-1) }

func mapLookup(m *Machine, r *[16]uint64) uint64 {
	mp, s := m.elem(r)
	if s < 0 {
		return 0
	}
	return mp.valueAddr(s, m.cpu())
}

func mapLookupPerCPU(m *Machine, r *[16]uint64) uint64 {
	mp, s := m.elem(r)
	if s < 0 || uint64(uint32(r[3])) >= uint64(m.cpus) {
		return 0
	}
	return mp.valueAddr(s, size(r[3]))
}

func mapUpdate(m *Machine, r *[16]uint64) uint64 {
	mp := m.mapArg(r[1])
	if mp == nil {
		return 0
	}
	if mp.hash == nil && mp.data == nil {
		m.fail(0, "map %s (%s) has no elements to update", mp.name, mp.spec.Type)
		return 0
	}
	key, ok := m.mem(r[2], mp.key, false)
	if !ok {
		return 0
	}
	value, ok := m.mem(r[3], mp.value, false)
	if !ok {
		return 0
	}
	s, errno := mp.reserve(key, r[4])
	if errno != 0 {
		return errno.ret()
	}
	cpu := 0
	if mp.cpus > 1 {
		cpu = m.cpu()
	}
	copy(mp.data[(s*mp.cpus+cpu)*mp.stride:], value)
	return 0
}

func mapDelete(m *Machine, r *[16]uint64) uint64 {
	mp := m.mapArg(r[1])
	if mp == nil {
		return 0
	}
	key, ok := m.mem(r[2], mp.key, false)
	if !ok {
		return 0
	}
	switch {
	case mp.hash == nil:
		return EINVAL.ret()
	case !mp.hash.remove(key):
		return ENOENT.ret()
	}
	return 0
}

// forEachMapElem calls r2(map, key, value, r3) for every element, in slot order.
func forEachMapElem(m *Machine, r *[16]uint64) uint64 {
	mp, fn, arg := m.mapArg(r[1]), r[2], r[3]
	switch {
	case mp == nil:
		return 0
	case mp.hash == nil && mp.data == nil:
		m.fail(0, "map %s (%s) has no elements to iterate over", mp.name, mp.spec.Type)
		return 0
	case r[4] != 0:
		return EINVAL.ret()
	}
	var n uint64
	for s := 0; s < mp.slots(); s++ {
		key, ok := m.keyAddr(mp, s)
		if !ok {
			continue
		}
		n++
		stop, ok := m.callback(fn, address(kindMap, mp.obj, 0), key, mp.valueAddr(s, m.cpu()), arg)
		if !ok || stop != 0 {
			break
		}
	}
	return n
}

// slots is how many slots an iteration looks at.
func (m *Map) slots() int {
	if m.hash != nil {
		return m.hash.used
	}
	return m.max
}

// keyAddr is the address of slot s's key, for a callback.
func (m *Machine) keyAddr(mp *Map, s int) (uint64, bool) {
	if mp.hash != nil {
		return address(kindKey, mp.obj, uint64(s)<<mp.keyShift), mp.hash.keyAt(s) != nil
	}
	binary.LittleEndian.PutUint32(m.index[m.depth][:], uint32(s))
	return address(kindIndex, m.depth, 0), true
}

// loop calls r2(i, r3) for i in 0..r1-1 until it returns non-zero.
func loop(m *Machine, r *[16]uint64) uint64 {
	n, fn, arg := uint64(uint32(r[1])), r[2], r[3]
	switch {
	case r[4] != 0:
		return EINVAL.ret()
	case n > mayGotoMax:
		return uint64(uint32(E2BIG.ret())) // 32 bits: the verifier's inlined loop (inline_bpf_loop)
	}
	for i := uint64(0); i < n; i++ {
		stop, ok := m.callback(fn, i, arg, poison, poison)
		if !ok {
			return 0
		}
		if stop != 0 {
			return i + 1
		}
	}
	return n
}
