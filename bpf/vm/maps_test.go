package vm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/google/go-cmp/cmp"
)

func u32(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }
func u64(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }

// newTestMap is a map with keys of 4 and values of 8 bytes.
func newTestMap(t *testing.T, typ ebpf.MapType, entries uint32, cpus int) *Map {
	t.Helper()
	m, err := newMap("m", 0, &ebpf.MapSpec{Type: typ, KeySize: 4, ValueSize: 8, MaxEntries: entries}, cpus)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestHashErrors(t *testing.T) {
	m := newTestMap(t, ebpf.Hash, 2, 1)
	tests := []struct {
		what string
		err  error
		want error
	}{
		{"exist, absent", m.Update(u32(1), u64(1), updateExist), ENOENT},
		{"any", m.Update(u32(1), u64(1), updateAny), nil},
		{"noexist, present", m.Update(u32(1), u64(2), updateNoExist), EEXIST},
		{"exist, present", m.Update(u32(1), u64(3), updateExist), nil},
		{"second", m.Update(u32(2), u64(4), updateNoExist), nil},
		{"full", m.Update(u32(3), u64(5), updateAny), E2BIG},
		{"flags", m.Update(u32(1), u64(5), 8), EINVAL},
		{"value size", m.Update(u32(1), u32(5), 0), EINVAL},
		{"delete", m.Delete(u32(2)), nil},
		{"delete again", m.Delete(u32(2)), ENOENT},
		{"room again", m.Update(u32(3), u64(5), updateAny), nil},
	}
	for _, tt := range tests {
		if !errors.Is(tt.err, tt.want) {
			t.Errorf("%s: %v; want %v", tt.what, tt.err, tt.want)
		}
	}
	if v, err := m.Lookup(u32(1)); err != nil || !bytes.Equal(v, u64(3)) {
		t.Errorf("value %x, %v; want 3", v, err)
	}
}

func TestArrayErrors(t *testing.T) {
	m := newTestMap(t, ebpf.Array, 2, 1)
	for _, tt := range []struct {
		err, want error
	}{
		{m.Update(u32(2), u64(1), updateAny), E2BIG},
		{m.Update(u32(1), u64(1), updateNoExist), EEXIST},
		{m.Update(u32(1), u64(1), updateExist), nil},
		{m.Delete(u32(1)), EINVAL},
	} {
		if !errors.Is(tt.err, tt.want) {
			t.Errorf("%v; want %v", tt.err, tt.want)
		}
	}
}

// TestLRU: the entry not used for longest makes room.
func TestLRU(t *testing.T) {
	m := newTestMap(t, ebpf.LRUHash, 3, 1)
	for _, k := range []uint32{1, 2, 3} {
		_ = m.Update(u32(k), u64(0), 0)
	}
	_, _ = m.Lookup(u32(1))
	_ = m.Update(u32(2), u64(7), 0)
	_ = m.Update(u32(4), u64(0), 0)
	var got []uint32
	for k := range m.All() {
		got = append(got, binary.LittleEndian.Uint32(k))
	}
	if diff := cmp.Diff([]uint32{1, 2, 4}, got); diff != "" {
		t.Error(diff)
	}
}

// TestManyKeys exercises growth and chains against a Go map.
func TestManyKeys(t *testing.T) {
	m := newTestMap(t, ebpf.Hash, 5000, 1)
	want := map[uint32]uint64{}
	x := uint32(1)
	for range 40000 {
		x = x*1664525 + 1013904223
		k := x >> 19
		switch {
		case x>>8&3 == 0:
			err := m.Delete(u32(k))
			if _, ok := want[k]; ok != (err == nil) {
				t.Fatalf("delete %d: %v", k, err)
			}
			delete(want, k)
		default:
			err := m.Update(u32(k), u64(uint64(x)), 0)
			if _, ok := want[k]; err != nil && (ok || len(want) < 5000) {
				t.Fatalf("update %d of %d: %v", k, len(want), err)
			}
			if err == nil {
				want[k] = uint64(x)
			}
		}
	}
	got, last := map[uint32]uint64{}, []byte(nil)
	for k, v := range m.All() {
		if bytes.Compare(last, k) > 0 {
			t.Fatalf("key %x after %x", k, last)
		}
		got[binary.LittleEndian.Uint32(k)], last = binary.LittleEndian.Uint64(v), k
	}
	if diff := cmp.Diff(want, got); diff != "" || m.Len() != len(want) {
		t.Errorf("%d entries: %s", m.Len(), diff)
	}
}

// TestPerCPU: a program sees its CPU's value, the host all of them.
func TestPerCPU(t *testing.T) {
	m, err := New(Config{
		CPUs: 3,
		Maps: map[string]*ebpf.MapSpec{
			"a": {Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 4, MaxEntries: 1},
			"h": {Type: ebpf.PerCPUHash, KeySize: 4, ValueSize: 4, MaxEntries: 8},
		},
		Programs: map[string]asm.Instructions{"p": append(append(
			addOne("a", "x"), addOne("h", "y")...), asm.Mov.Imm(asm.R0, 0), asm.Return())},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Map("h").Update(u32(0), make([]byte, 24), 0); err != nil {
		t.Fatal(err)
	}
	for _, cpu := range []uint32{2, 0, 2} {
		m.Env().CPU = cpu
		if _, err := m.Run("p", nil); err != nil {
			t.Fatal(err)
		}
	}
	want := bytes.Join([][]byte{u64(1), u64(0), u64(2)}, nil)
	for _, name := range []string{"a", "h"} {
		if v, err := m.Map(name).Lookup(u32(0)); err != nil || !bytes.Equal(v, want) {
			t.Errorf("map %s: %x, %v; want %x", name, v, err, want)
		}
	}
}

// addOne increments the value of key 0.
func addOne(mapName, label string) asm.Instructions {
	return asm.Instructions{
		asm.StoreImm(asm.RFP, -4, 0, asm.Word), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, 0).WithReference(mapName), asm.FnMapLookupElem.Call(), asm.JEq.Imm(asm.R0, 0, label),
		asm.Mov.Imm(asm.R1, 1), asm.AddAtomic.Mem(asm.R0, asm.R1, asm.Word, 0), asm.Mov.Imm(asm.R0, 0).WithSymbol(label),
	}
}

func TestRingAccounting(t *testing.T) {
	m, err := newMap("rb", 0, &ebpf.MapSpec{Type: ebpf.RingBuf, MaxEntries: 4096}, 1)
	if err != nil {
		t.Fatal(err)
	}
	stored := 0
	for range 300 {
		off, ok := m.ring.reserve(24) // 32 with its header; one byte of the ring stays free
		if !ok {
			break
		}
		stored++
		m.ring.commit(off, stored%10 == 0)
	}
	if stored != 127 || m.Lost() != 1 {
		t.Errorf("stored %d, lost %d; want 127, 1", stored, m.Lost())
	}
	if got := len(m.Drain()); got != 127-12 {
		t.Errorf("drained %d; want %d", got, 127-12)
	}
	if _, ok := m.ring.reserve(4080); !ok {
		t.Error("no room after drain")
	}
	if _, ok := m.ring.reserve(4096); ok {
		t.Error("a record larger than the ring")
	}
	if r := m.Drain(); len(r) != 0 {
		t.Errorf("an open record was drained: %v", r)
	}
}

func TestContents(t *testing.T) {
	spec := &ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 2, Contents: []ebpf.MapKV{
		{Key: uint32(0), Value: u64(5)}, {Key: 1, Value: uint64(6)},
	}}
	m, err := newMap("m", 0, spec, 1)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []uint64{5, 6} {
		if v, err := m.Lookup(u32(uint32(i))); err != nil || !bytes.Equal(v, u64(want)) {
			t.Errorf("value %d: %x, %v", i, v, err)
		}
	}
}

func TestBadSpecs(t *testing.T) {
	for _, spec := range []*ebpf.MapSpec{
		{Type: ebpf.Array, KeySize: 8, ValueSize: 8, MaxEntries: 1},
		{Type: ebpf.Hash, KeySize: 8, ValueSize: 8},
		{Type: ebpf.RingBuf, MaxEntries: 4095},
		{Type: ebpf.StackTrace, KeySize: 4, ValueSize: 12, MaxEntries: 1},
		{Type: ebpf.Hash, KeySize: 8, ValueSize: 1 << 20, MaxEntries: 1 << 20},
		{Type: ebpf.LPMTrie, KeySize: 8, ValueSize: 8, MaxEntries: 1},
	} {
		if _, err := newMap("m", 0, spec, 1); err == nil {
			t.Errorf("%v was made", spec)
		}
	}
}

// TestLongKeys: a stack is a key of more than a BPF stack; keys that no address is left for are refused.
func TestLongKeys(t *testing.T) {
	m, err := newMap("m", 0, &ebpf.MapSpec{Type: ebpf.Hash, KeySize: 1032, ValueSize: 8, MaxEntries: 4}, 1)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		k := make([]byte, 1032)
		k[1031] = byte(i)
		if err := m.Update(k, []byte{byte(i), 0, 0, 0, 0, 0, 0, 0}, 0); err != nil {
			t.Error(err)
		}
		if b := m.keyAt(i<<m.keyShift|1031, 1); len(b) != 1 || b[0] != byte(i) {
			t.Errorf("the last byte of key %d is %v", i, b)
		}
	}
	if _, err := newMap("m", 0, &ebpf.MapSpec{Type: ebpf.Hash, KeySize: maxKey + 1, ValueSize: 8, MaxEntries: 4}, 1); !errors.Is(err, E2BIG) {
		t.Error(err)
	}
}
