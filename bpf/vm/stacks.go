package vm

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// maxStackDepth is sysctl kernel.perf_event_max_stack's default.
const maxStackDepth = 127

// Flags of get_stackid and get_stack.
const (
	stackSkip    = 0xff
	stackUser    = 1 << 8
	stackFastCmp = 1 << 9
	stackReuse   = 1 << 10
)

// stackTable is a stack trace map: one bucket per hash value, as kernel/bpf/stackmap.c.
type stackTable struct {
	buckets []stackBucket
	max, n  int
}

type stackBucket struct {
	hash uint32
	ips  []uint64
}

func newStackTable(maxEntries int) *stackTable {
	return &stackTable{buckets: make([]stackBucket, 1<<bits.Len(uint(maxEntries-1))), max: maxEntries}
}

// id stores a stack (not empty) and gives its number.
func (t *stackTable) id(ips []uint64, flags uint64) (uint64, Errno) {
	h := jhash2(ips)
	i := h & uint32(len(t.buckets)-1)
	b := &t.buckets[i]
	switch {
	case b.ips == nil:
		if t.n >= t.max {
			return 0, ENOMEM
		}
		t.n++
	case b.hash == h && (flags&stackFastCmp != 0 || slices.Equal(b.ips, ips)):
		return uint64(i), 0
	case flags&stackReuse == 0:
		return 0, EEXIST
	}
	b.hash, b.ips = h, append(b.ips[:0], ips...)
	return uint64(i), 0
}

func (t *stackTable) bucket(key []byte) (*stackBucket, error) {
	if len(key) != 4 {
		return nil, EINVAL
	}
	i := binary.LittleEndian.Uint32(key)
	if uint64(i) >= uint64(len(t.buckets)) || t.buckets[i].ips == nil {
		return nil, ENOENT
	}
	return &t.buckets[i], nil
}

func (t *stackTable) value(key []byte, size int) ([]byte, error) {
	b, err := t.bucket(key)
	if err != nil {
		return nil, err
	}
	v := make([]byte, size)
	for i, ip := range b.ips {
		binary.LittleEndian.PutUint64(v[8*i:], ip)
	}
	return v, nil
}

func (t *stackTable) delete(key []byte) error {
	b, err := t.bucket(key)
	if err == nil {
		*b = stackBucket{}
		t.n--
	}
	return err
}

func (t *stackTable) keys() [][]byte {
	var keys [][]byte
	for i, b := range t.buckets {
		if b.ips != nil {
			keys = append(keys, binary.LittleEndian.AppendUint32(nil, uint32(i)))
		}
	}
	return keys
}

// jhash2 is the kernel's hash of 32-bit words (include/linux/jhash.h), of ips'
// little-endian words.
func jhash2(ips []uint64) uint32 {
	word := func(i int) uint32 { return uint32(ips[i/2] >> (32 * (i & 1))) }
	n, i := 2*len(ips), 0
	a := 0xdeadbeef + uint32(n)<<2
	b, c := a, a
	for ; n > 3; n, i = n-3, i+3 {
		a, b, c = jmix(a+word(i), b+word(i+1), c+word(i+2))
	}
	switch n {
	case 3:
		c += word(i + 2)
		fallthrough
	case 2:
		b += word(i + 1)
		fallthrough
	case 1:
		return jfinal(a+word(i), b, c)
	}
	return c
}

func jmix(a, b, c uint32) (uint32, uint32, uint32) {
	rol := bits.RotateLeft32
	a, c = (a-c)^rol(c, 4), c+b
	b, a = (b-a)^rol(a, 6), a+c
	c, b = (c-b)^rol(b, 8), b+a
	a, c = (a-c)^rol(c, 16), c+b
	b, a = (b-a)^rol(a, 19), a+c
	c, b = (c-b)^rol(b, 4), b+a
	return a, b, c
}

func jfinal(a, b, c uint32) uint32 {
	rol := bits.RotateLeft32
	c = (c ^ b) - rol(b, 14)
	a = (a ^ c) - rol(c, 11)
	b = (b ^ a) - rol(a, 25)
	c = (c ^ b) - rol(b, 16)
	a = (a ^ c) - rol(c, 4)
	b = (b ^ a) - rol(a, 14)
	return (c ^ b) - rol(b, 24)
}
