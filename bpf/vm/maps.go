package vm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"iter"
	"math/bits"
	"slices"

	"github.com/cilium/ebpf"
)

// Flags of update (include/uapi/linux/bpf.h).
const (
	updateAny     = 0
	updateNoExist = 1
	updateExist   = 2
	updateLock    = 4
)

// maxKey bounds a key; the kernel's bound is that key and value are one allocation of at most 4 MiB (htab_map_alloc_check).
const maxKey = 64 << 10

// maxMapBytes bounds what one map may allocate.
const maxMapBytes = 1 << 32

// Map is a map of the machine. Its methods are the host's side: what the bpf
// system call offers on a real map. Not safe during a run.
type Map struct {
	name     string
	spec     *ebpf.MapSpec
	obj      int // index in Machine.maps
	key      int // bytes of a key
	value    int // bytes of one value
	stride   int // value, rounded up to 8
	shift    int // log2 of the address space of one slot and CPU
	keyShift int // log2 of the address space of one key
	cpus     int // values per slot: 1 unless per-CPU
	max      int

	data  []byte // slot × CPU × stride
	hash  *hashTable
	ring  *ring
	stack *stackTable

	records []Record
}

// Record is what a program put into a ring buffer or a perf event array.
type Record struct {
	CPU  uint32
	Data []byte
}

// newMap makes the map that spec describes, with spec.Contents in it.
func newMap(name string, obj int, spec *ebpf.MapSpec, cpus int) (*Map, error) {
	m := &Map{name: name, spec: spec, obj: obj, key: int(spec.KeySize), value: int(spec.ValueSize), cpus: 1, max: int(spec.MaxEntries)}
	switch spec.Type {
	case ebpf.PerCPUHash, ebpf.PerCPUArray, ebpf.LRUCPUHash:
		m.cpus = cpus
	}
	m.stride = (m.value + 7) &^ 7
	m.keyShift = bits.Len(uint(m.key))
	m.shift = bits.Len(uint(max(m.stride, 8) - 1))
	if err := m.init(); err != nil {
		return nil, fmt.Errorf("map %s: %w", name, err)
	}
	for _, kv := range spec.Contents {
		if err := m.preset(kv); err != nil {
			return nil, fmt.Errorf("map %s: contents: %w", name, err)
		}
	}
	return m, nil
}

func (m *Map) init() error {
	if m.max == 0 && m.spec.Type != ebpf.PerfEventArray {
		return fmt.Errorf("no max_entries: %w", EINVAL)
	}
	if size := uint64(m.stride) * uint64(m.cpus) * uint64(m.max); m.stride != 0 && (size > maxMapBytes || m.shift > 30) {
		return fmt.Errorf("%d bytes: %w", size, E2BIG)
	}
	switch m.spec.Type {
	case ebpf.Array, ebpf.PerCPUArray:
		if m.key != 4 || m.value == 0 {
			return fmt.Errorf("key of %d bytes, value of %d: %w", m.key, m.value, EINVAL)
		}
		m.data = make([]byte, m.max*m.cpus*m.stride)
	case ebpf.Hash, ebpf.PerCPUHash, ebpf.LRUHash, ebpf.LRUCPUHash:
		if m.key == 0 || m.value == 0 {
			return fmt.Errorf("key of %d bytes, value of %d: %w", m.key, m.value, EINVAL)
		}
		if m.key > maxKey || uint64(m.max)<<m.keyShift > offMask {
			return fmt.Errorf("%d keys of %d bytes: %w", m.max, m.key, E2BIG)
		}
		m.hash = newHashTable(m.key, m.max, m.isLRU())
	case ebpf.RingBuf:
		if m.key != 0 || m.value != 0 || bits.OnesCount(uint(m.max)) != 1 || m.max%4096 != 0 {
			return fmt.Errorf("size %d is not a power of two of whole pages: %w", m.max, EINVAL)
		}
		m.ring = &ring{size: uint64(m.max)}
	case ebpf.PerfEventArray:
	case ebpf.StackTrace:
		if m.key != 4 || m.value == 0 || m.value%8 != 0 || m.value/8 > maxStackDepth {
			return fmt.Errorf("key of %d bytes, value of %d: %w", m.key, m.value, EINVAL)
		}
		m.stack = newStackTable(m.max)
	default:
		return fmt.Errorf("the machine has no maps of type %s", m.spec.Type)
	}
	return nil
}

func (m *Map) isLRU() bool { return m.spec.Type == ebpf.LRUHash || m.spec.Type == ebpf.LRUCPUHash }

// preset stores one entry of MapSpec.Contents.
func (m *Map) preset(kv ebpf.MapKV) error {
	k, err := plainBytes(kv.Key)
	if err != nil {
		return err
	}
	v, err := plainBytes(kv.Value)
	if err != nil {
		return err
	}
	return m.Update(k, v, updateAny)
}

func plainBytes(v any) ([]byte, error) {
	switch v := v.(type) {
	case []byte:
		return v, nil
	case string:
		return []byte(v), nil
	case int: // an array's index
		return binary.LittleEndian.AppendUint32(nil, uint32(v)), nil
	}
	return binary.Append(nil, binary.LittleEndian, v)
}

// Name is the name programs reference the map by.
func (m *Map) Name() string { return m.name }

// Spec is the description the map was made from.
func (m *Map) Spec() *ebpf.MapSpec { return m.spec }

// Len is the number of entries: of an array, max_entries.
func (m *Map) Len() int {
	switch {
	case m.hash != nil:
		return m.hash.n
	case m.stack != nil:
		return m.stack.n
	case m.data != nil:
		return m.max
	}
	return 0
}

// Lookup gives a copy of key's value; of a per-CPU map all CPUs' values, each
// rounded up to 8 bytes, as the system call does. Of a stack trace map, the
// addresses, zero-padded. ENOENT if there is none.
func (m *Map) Lookup(key []byte) ([]byte, error) {
	if m.stack != nil {
		return m.stack.value(key, m.value)
	}
	s, err := m.slotOf(key)
	if err != nil {
		return nil, err
	}
	return m.copyOut(s), nil
}

// slotOf is the slot that holds key.
func (m *Map) slotOf(key []byte) (int, error) {
	if len(key) != m.key || m.key == 0 {
		return -1, EINVAL
	}
	if s := m.slot(key); s >= 0 {
		return s, nil
	}
	return -1, ENOENT
}

func (m *Map) copyOut(s int) []byte {
	size := m.cpus * m.stride
	if !m.perCPU() {
		return bytes.Clone(m.data[s*size : s*size+m.value])
	}
	return bytes.Clone(m.data[s*size : (s+1)*size])
}

func (m *Map) perCPU() bool {
	t := m.spec.Type
	return t == ebpf.PerCPUHash || t == ebpf.PerCPUArray || t == ebpf.LRUCPUHash
}

// Update stores value, in the form Lookup gives it. flags are BPF_ANY (0),
// BPF_NOEXIST (1) and BPF_EXIST (2); E2BIG if the map is full.
func (m *Map) Update(key, value []byte, flags uint64) error {
	if m.hash == nil && m.data == nil {
		return EINVAL
	}
	want := m.value
	if m.perCPU() {
		want = m.cpus * m.stride
	}
	if len(key) != m.key || len(value) != want {
		return EINVAL
	}
	s, err := m.reserve(key, flags)
	if err != 0 {
		return err
	}
	copy(m.data[s*m.cpus*m.stride:], value)
	return nil
}

// Delete removes key. Of an array, EINVAL.
func (m *Map) Delete(key []byte) error {
	if m.stack != nil {
		return m.stack.delete(key)
	}
	if m.hash == nil || len(key) != m.key {
		return EINVAL
	}
	if !m.hash.remove(key) {
		return ENOENT
	}
	return nil
}

// Clear removes every entry; an array's become zero.
func (m *Map) Clear() {
	switch {
	case m.hash != nil:
		m.hash = newHashTable(m.key, m.max, m.isLRU())
	case m.stack != nil:
		m.stack = newStackTable(m.max)
	default:
		clear(m.data)
	}
	m.records = nil
}

// All gives every entry, sorted by the bytes of the key (an array's by index).
func (m *Map) All() iter.Seq2[[]byte, []byte] {
	return func(yield func([]byte, []byte) bool) {
		for _, k := range m.keys() {
			if v, err := m.Lookup(k); err == nil && !yield(k, v) {
				return
			}
		}
	}
}

func (m *Map) keys() [][]byte {
	var keys [][]byte
	switch {
	case m.hash != nil:
		for s := range m.hash.used {
			if k := m.hash.keyAt(s); k != nil {
				keys = append(keys, bytes.Clone(k))
			}
		}
		slices.SortFunc(keys, bytes.Compare)
	case m.stack != nil:
		return m.stack.keys()
	case m.data != nil:
		for i := range m.max {
			keys = append(keys, binary.LittleEndian.AppendUint32(nil, uint32(i)))
		}
	}
	return keys
}

// Drain gives the records since the last Drain, in order, and frees their room
// in a ring buffer.
func (m *Map) Drain() []Record {
	if m.ring != nil {
		m.ring.drain(func(b []byte) { m.records = append(m.records, Record{Data: bytes.Clone(b)}) })
	}
	r := m.records
	m.records = nil
	return r
}

// Lost counts the records that did not fit the ring buffer.
func (m *Map) Lost() uint64 {
	if m.ring == nil {
		return 0
	}
	return m.ring.lost
}

// slot is where key's value is, or -1. key has the right length.
func (m *Map) slot(key []byte) int {
	if m.hash != nil {
		return m.hash.find(key)
	}
	if m.data == nil {
		return -1
	}
	if i := binary.LittleEndian.Uint32(key); uint64(i) < uint64(m.max) {
		return int(i)
	}
	return -1
}

// reserve finds the slot that an update of key writes to.
func (m *Map) reserve(key []byte, flags uint64) (int, Errno) {
	if flags&^updateLock > updateExist {
		return -1, EINVAL
	}
	if m.hash == nil {
		return m.reserveIndex(key, flags)
	}
	s := m.hash.find(key)
	switch {
	case s >= 0 && flags&updateNoExist != 0:
		return -1, EEXIST
	case s < 0 && flags&updateExist != 0:
		return -1, ENOENT
	case s >= 0 && m.perCPU():
		return s, 0 // in place, as the kernel
	case s >= 0:
		s = m.hash.replace(s)
	default:
		if s = m.hash.insert(key); s < 0 {
			return -1, E2BIG
		}
	}
	size := m.cpus * m.stride
	for len(m.data) < (s+1)*size {
		m.data = append(m.data, make([]byte, max(size, len(m.data)))...)
	}
	clear(m.data[s*size : (s+1)*size])
	return s, 0
}

func (m *Map) reserveIndex(key []byte, flags uint64) (int, Errno) {
	s := m.slot(key)
	switch {
	case s < 0:
		return -1, E2BIG
	case flags&updateNoExist != 0:
		return -1, EEXIST
	}
	return s, 0
}

// valueAddr is the address of slot s's value for a CPU.
func (m *Map) valueAddr(s, cpu int) uint64 {
	if m.cpus == 1 {
		cpu = 0
	}
	return address(kindValue, m.obj, uint64(s*m.cpus+cpu)<<m.shift)
}

// valueAt is the n bytes at off of the map's value addresses, or nil.
func (m *Map) valueAt(off, n int) []byte {
	s, in := off>>m.shift, off&(1<<m.shift-1)
	if in > m.value || n > m.value-in {
		return nil
	}
	return sub(m.data, s*m.stride+in, n)
}

func (m *Map) keyAt(off, n int) []byte {
	if m.hash == nil || off>>m.keyShift >= m.hash.used {
		return nil
	}
	return sub(m.hash.keyOf(int32(off>>m.keyShift)), off&(1<<m.keyShift-1), n)
}
