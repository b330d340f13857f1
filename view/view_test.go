package view

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/lang/types"
)

// names is a Resolver that shows what it was asked.
type names struct{}

func (names) KernelStack(a []uint64, _ types.StackMode) []string {
	var s []string
	for _, x := range a {
		s = append(s, fmt.Sprintf("f%d+1", x))
	}
	return s
}
func (n names) UserStack(_ int, a []uint64, m types.StackMode) []string { return n.KernelStack(a, m) }
func (names) KernelSym(a uint64) string                                 { return fmt.Sprintf("ksym%d", a) }
func (names) UserSym(pid int, a uint64) string                          { return fmt.Sprintf("usym%d/%d", pid, a) }
func (names) Username(u uint64) string                                  { return fmt.Sprintf("user%d", u) }
func (names) CgroupPath(_, id uint64) string                            { return fmt.Sprintf("/cg%d", id) }
func (names) Strftime(f string, ns uint64, c int) string                { return fmt.Sprintf("%s@%d", f, ns) }

func u64(ns ...uint64) []byte {
	var b []byte
	for _, n := range ns {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	return b
}

func str(s string, size int) []byte { return append([]byte(s), make([]byte, size-len(s))...) }

func TestFormat(t *testing.T) {
	o := New(Options{Program: &ir.Program{}, Resolver: names{}})
	i64, i32 := types.Int64, types.Int32
	neg := u64(^uint64(4)) // -5
	tests := []struct {
		f    string
		t    *types.Type
		b    []byte
		want string
	}{
		{"%d", types.TupleOf(i64), neg, "-5"},
		{"%5d|%-5d|%05d", types.TupleOf(i64, i64, i64), bytes.Repeat(neg, 3), "   -5|-5   |-0005"},
		{"%+d % d", types.TupleOf(i64, i64), u64(3, 3), "+3  3"},
		{"%x %#x %X", types.TupleOf(i64, i64, i64), u64(255, 255, 255), "ff 0xff FF"},
		{"%hhx %hx %x %lx", types.TupleOf(i64, i64, i64, i64), bytes.Repeat(u64(0x12345678abcdef), 4), "ef cdef 78abcdef 12345678abcdef"},
		{"%u", types.TupleOf(i32), []byte{0xff, 0xff, 0xff, 0xff}, "4294967295"},
		{"%o %c%c", types.TupleOf(i64, i64, i64), u64(8, 'A', 'B'), "10 AB"},
		{"[%s] [%6s] [%-6s] [%.2s]", types.TupleOf(types.StringT(8), types.StringT(8), types.StringT(8), types.StringT(8)),
			bytes.Repeat(str("abc", 8), 4), "[abc] [   abc] [abc   ] [ab]"},
		{"%p", types.TupleOf(i64), u64(0xff), "0xff"},
		{"%s", types.TupleOf(types.KSymT), u64(7), "ksym7"},
		{"%s", types.TupleOf(types.BoolT), []byte{1}, "true"},
		{"100%%", types.TupleOf(), nil, "100%"},
	}
	for _, tt := range tests {
		if got := o.Format(tt.f, tt.t, tt.b); got != tt.want {
			t.Errorf("%q of % x: %q, want %q", tt.f, tt.b, got, tt.want)
		}
	}
}

func TestValue(t *testing.T) {
	o := New(Options{Program: &ir.Program{}, Resolver: names{}})
	inet := types.InetT
	tests := []struct {
		t    *types.Type
		b    []byte
		want string
	}{
		{types.TupleOf(types.Int8, types.StringT(4)), []byte{1, 'a', 'b', 0, 0}, "(1, ab)"},
		{types.RecordOf([]types.Field{{Name: "a", Type: types.Int8}, {Name: "b", Type: types.Int8}}), []byte{1, 2}, "{ .a = 1, .b = 2 }"},
		{types.ArrayOf(types.Uint8, 3), []byte{1, 2, 3}, "[1,2,3]"},
		{inet, append([]byte{2, 0, 0, 0, 127, 0, 0, 1}, make([]byte, 12)...), "127.0.0.1"},
		{inet, append([]byte{10, 0, 0, 0}, append(make([]byte, 15), 1)...), "::1"},
		{types.MACT, []byte{2, 0x4f, 0, 0, 0, 0xab, 0, 0}, "02:4F:00:00:00:AB"},
		{types.StackT(types.KStack, types.StackBpftrace, 3), u64(16, 0, 1, 2, 0), "\n        f1+1\n        f2+1\n"},
		{types.PtrTo(nil, types.Kernel), u64(0xffff), "0xffff"},
	}
	for _, tt := range tests {
		if got := o.Value(tt.t, tt.b); got != tt.want {
			t.Errorf("%v of % x: %q, want %q", tt.t, tt.b, got, tt.want)
		}
	}
}

// one is an entry of a map that is not per CPU.
func one(key, val []byte) Entry { return Entry{key, [][]byte{val}} }

func TestMap(t *testing.T) {
	key := types.TupleOf(types.Int64, types.StringT(8))
	tests := []struct {
		name     string
		m        *ir.Map
		entries  []Entry
		top, div uint64
		want     string
		json     string
	}{
		{"scalar", &ir.Map{Name: "@x", Value: types.Int64}, []Entry{one(nil, u64(5))}, 0, 0,
			"@x: 5\n", `{"type": "map", "data": {"@x": 5}}` + "\n"},
		{"sorted by value", &ir.Map{Name: "@", Key: key, Value: types.Int64},
			[]Entry{one(append(u64(1), str("b", 8)...), u64(9)), one(append(u64(2), str("a", 8)...), u64(3))}, 0, 0,
			"@[2, a]: 3\n@[1, b]: 9\n", `{"type": "map", "data": {"@": {"2,a": 3, "1,b": 9}}}` + "\n"},
		{"top and div", &ir.Map{Name: "@", Key: types.Int64, Value: types.Int64},
			[]Entry{one(u64(1), u64(10)), one(u64(2), u64(20)), one(u64(3), u64(30))}, 2, 10, "@[2]: 2\n@[3]: 3\n",
			`{"type": "map", "data": {"@": {"2": 20, "3": 30}}}` + "\n"},
		{"count of two CPUs", &ir.Map{Name: "@", Value: &types.Type{Kind: types.Count, Size: 8}, Kind: ir.PerCPUArray},
			[]Entry{{nil, [][]byte{u64(2), u64(3)}}}, 0, 0, "@: 5\n", `{"type": "map", "data": {"@": 5}}` + "\n"},
		{"stats", &ir.Map{Name: "@", Value: &types.Type{Kind: types.Stats, Size: 16, Signed: true}, Kind: ir.PerCPUArray},
			[]Entry{{nil, [][]byte{u64(5, 2), u64(1, 1)}}}, 0, 0, "@: { .count = 3, .average = 2, .total = 6 }\n",
			`{"type": "stats", "data": {"@": {"count": 3, "average": 2, "total": 6}}}` + "\n"},
		{"min", &ir.Map{Name: "@", Value: &types.Type{Kind: types.Min, Size: 16, Signed: true}, Kind: ir.PerCPUArray},
			[]Entry{{nil, [][]byte{u64(0, 0), u64(^uint64(0), 1)}}}, 0, 0, "@: -1\n", `{"type": "map", "data": {"@": -1}}` + "\n"},
		{"hist", &ir.Map{Name: "@", Value: &types.Type{Kind: types.Hist, Size: 8}, Bucketed: true, Kind: ir.PerCPUHash},
			[]Entry{{u64(0), [][]byte{u64(1)}}, {u64(3), [][]byte{u64(2)}}}, 0, 0, `@:
(..., 0)               1 |@@@@@@@@@@@@@@@@@@@@@@@@@@                          |
[0]                    0 |                                                    |
[1]                    0 |                                                    |
[2, 4)                 2 |@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@|

`, `{"type": "hist", "data": {"@": [{"max": -1, "count": 1},{"min": 0, "max": 0, "count": 0},{"min": 1, "max": 1, "count": 0},{"min": 2, "max": 3, "count": 2}]}}` + "\n"},
		{"lhist", &ir.Map{Name: "@", Value: &types.Type{Kind: types.LHist, Size: 8, Bounds: types.Bounds{Min: 0, Max: 4, Step: 2}}, Bucketed: true, Kind: ir.PerCPUHash},
			[]Entry{{u64(1), [][]byte{u64(1)}}, {u64(3), [][]byte{u64(1)}}}, 0, 0, `@:
[0, 2)                 1 |@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@|
[2, 4)                 0 |                                                    |
[4, ...)               1 |@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@|

`, `{"type": "hist", "data": {"@": [{"min": 0, "max": 1, "count": 1},{"min": 2, "max": 3, "count": 0},{"min": 4, "count": 1}]}}` + "\n"},
	}
	for _, tt := range tests {
		for _, json := range []bool{false, true} {
			var b bytes.Buffer
			o := New(Options{W: &b, Program: &ir.Program{}, Resolver: names{}, JSON: json})
			if err := o.Map(tt.m, tt.entries, tt.top, tt.div); err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
			want := tt.want
			if json {
				want = tt.json
			}
			if d := cmp.Diff(want, b.String()); d != "" && !(json && tt.div > 0) {
				t.Errorf("%s, JSON %v: (-want +got)\n%s", tt.name, json, d)
			}
		}
	}
}

func BenchmarkPrintf(b *testing.B) {
	p := &ir.Program{Events: []*ir.Event{{Kind: ir.EvPrintf, Fmt: "%d %s\n", Payload: types.TupleOf(types.Int64, types.StringT(16))}}}
	var sink bytes.Buffer
	o := New(Options{W: &sink, Program: p, Resolver: names{}})
	rec := append(u64(0, 42), str("fathom", 16)...)
	b.ReportAllocs()
	for b.Loop() {
		sink.Reset()
		if _, err := o.Event(rec); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzEvent(f *testing.F) {
	all := types.TupleOf(types.Int32, types.StringT(5), types.BufferT(9), types.USymT, types.InetT, types.StackT(types.KStack, 0, 2))
	f.Add(append(u64(0), make([]byte, all.Size)...))
	f.Fuzz(func(t *testing.T, rec []byte) {
		p := &ir.Program{Events: []*ir.Event{{Kind: ir.EvPrintf, Fmt: "%d%s%r%s%s%s", Payload: all}, {Kind: ir.EvPrint, Payload: types.TupleOf(all)}, {Kind: ir.EvJoin}}}
		var b bytes.Buffer
		for _, json := range []bool{false, true} {
			_, _ = New(Options{W: &b, Err: &b, Program: p, Resolver: names{}, JSON: json}).Event(rec)
		}
	})
}
