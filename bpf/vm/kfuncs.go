package vm

import "encoding/binary"

type kfunc struct {
	name string
	fn   helperFunc
}

// kfuncs is every kfunc the machine has, called by the name the call refers to.
var kfuncs = []kfunc{
	{"bpf_strlen", strLen},
	{"bpf_strnlen", strNLen},
	{"bpf_strcmp", strCmp},
	{"bpf_rdonly_cast", func(_ *Machine, r *[16]uint64) uint64 { return r[1] }},
	{"bpf_cast_to_kern_ctx", func(_ *Machine, r *[16]uint64) uint64 { return r[1] }},
	{"bpf_session_is_return", sessionIsReturn},
	{"bpf_rcu_read_lock", nothing},
	{"bpf_rcu_read_unlock", nothing},
	{"bpf_preempt_disable", nothing},
	{"bpf_preempt_enable", nothing},
	{"bpf_iter_num_new", iterNumNew},
	{"bpf_iter_num_next", iterNumNext},
	{"bpf_iter_num_destroy", nothing},
}

func sessionIsReturn(m *Machine, _ *[16]uint64) uint64 {
	if m.env.IsReturn {
		return 1
	}
	return 0
}

// maxKstr is XATTR_SIZE_MAX, the kernel's bound on a string.
const maxKstr = 65536

func strLen(m *Machine, r *[16]uint64) uint64 { return m.strLen(r[1], maxKstr, E2BIG.ret()) }

func strNLen(m *Machine, r *[16]uint64) uint64 {
	n := min(r[2], maxKstr)
	return m.strLen(r[1], n, n)
}

func (m *Machine) strLen(a, n, longer uint64) uint64 {
	for i := range n {
		c, ok := m.char(a + i)
		switch {
		case !ok:
			return EFAULT.ret()
		case c == 0:
			return i
		}
	}
	return longer
}

func (m *Machine) char(a uint64) (byte, bool) {
	ok := m.read(m.word[:1], a, false)
	return m.word[0], ok
}

func strCmp(m *Machine, r *[16]uint64) uint64 {
	for i := range uint64(maxKstr) {
		a, ok1 := m.char(r[1] + i)
		b, ok2 := m.char(r[2] + i)
		switch {
		case !ok1 || !ok2:
			return EFAULT.ret()
		case a < b:
			return ^uint64(0)
		case a > b:
			return 1
		case a == 0:
			return 0
		}
	}
	return E2BIG.ret()
}

// iterNumNew makes struct bpf_iter_num: the number before the next, the end.
func iterNumNew(m *Machine, r *[16]uint64) uint64 {
	b, ok := m.mem(r[1], 8, true)
	if !ok {
		return 0
	}
	start, end := int32(r[2]), int32(r[3])
	clear(b)
	switch {
	case start > end:
		return EINVAL.ret()
	case int64(end)-int64(start) > mayGotoMax:
		return E2BIG.ret()
	}
	binary.LittleEndian.PutUint32(b, uint32(start-1))
	binary.LittleEndian.PutUint32(b[4:], uint32(end))
	return 0
}

// iterNumNext gives the address of the next number, in the iterator; 0 at the end.
func iterNumNext(m *Machine, r *[16]uint64) uint64 {
	b, ok := m.mem(r[1], 8, true)
	if !ok {
		return 0
	}
	cur, end := int32(binary.LittleEndian.Uint32(b))+1, int32(binary.LittleEndian.Uint32(b[4:]))
	if cur >= end {
		clear(b)
		return 0
	}
	binary.LittleEndian.PutUint32(b, uint32(cur))
	return r[1]
}
