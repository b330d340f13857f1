package kallsyms

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/fathom-trace/fathom/internal/hostile"

	"github.com/google/go-cmp/cmp"
)

// longToken is a token that is longer than most.
const longToken = "_of_more_than_eight"

// embed makes a kernel's tables: tokens are the single characters, 0x01 for "sys_" and 0x02 for longToken.
func embed(percpu bool, base uint64, syms []Sym) Embedded {
	e := Embedded{N: len(syms), Base: base, TokenIndex: make([]byte, 512), Check: "_stext"}
	for i := range 256 {
		binary.LittleEndian.PutUint16(e.TokenIndex[2*i:], uint16(len(e.TokenTable)))
		tok := string(rune(i))
		switch {
		case i == 1:
			tok = "sys_"
		case i == 2:
			tok = longToken
		case i >= 0x80 || i == 0:
			tok = ""
		}
		e.TokenTable = append(append(e.TokenTable, tok...), 0)
	}
	var names []byte
	for _, s := range syms {
		packed := strings.NewReplacer("sys_", "\x01", longToken, "\x02").Replace(string(s.Type) + s.Name)
		if n := len(packed); n >= 0x80 {
			names = append(names, byte(n)|0x80, byte(n>>7))
		} else {
			names = append(names, byte(n))
		}
		names = append(names, packed...)
		off := uint32(s.Addr - base)
		if percpu {
			off = uint32(base - 1 - s.Addr)
			if s.Addr < 1<<31 {
				off = uint32(s.Addr)
			}
		}
		e.Offsets = binary.LittleEndian.AppendUint32(e.Offsets, off)
		if s.Name == e.Check {
			e.CheckAddr = s.Addr
		}
	}
	e.Names = bytes.NewReader(names)
	return e
}

func TestDecode(t *testing.T) {
	const base = 0xffffffff81000000
	long := strings.Repeat("x", 245) + longToken + strings.Repeat("y", 300) + "sys_read"
	kernel := []Sym{{base, "_stext", "", 'T'}, {base + 0x10, "__x64_sys_read", "", 't'}, {base + 0x20, long, "", 't'}, {base + 0x40, "_end", "", 'B'}}
	for _, percpu := range []bool{false, true} {
		want := kernel
		if percpu {
			want = append([]Sym{{0, "fixed_percpu_data", "", 'A'}, {0x1000, "cpu_tss_rw", "", 'D'}}, kernel...)
		}
		var b Builder
		if err := b.Decode(embed(percpu, base, want)); err != nil {
			t.Fatal(err)
		}
		var got []Sym
		tab := b.Table()
		for s := range tab.All() {
			got = append(got, s)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("percpu %v: %s", percpu, d)
		}
		if name, _, off, ok := tab.ByAddr(base + 0x15); !ok || name != "__x64_sys_read" || off != 5 {
			t.Errorf("%s+%#x, %v", name, off, ok)
		}
		if _, _, _, ok := tab.ByAddr(base + 0x50); ok {
			t.Error("an address behind _end has no symbol")
		}
		var m Builder
		m.Add(Sym{base + 0x40000000 - 0x1000000, "init_module", "veth", 't'})
		m.Add(Sym{1, "evil\nname", "veth", 't'})
		m.Add(Sym{base + 0x40000000, "_stext", "veth", 't'})
		both := tab.With(&m)
		if both.Len() != len(want)+2 || tab.Len() != len(want) {
			t.Errorf("%d symbols with a module's, %d without", both.Len(), tab.Len())
		}
		if s, ok := both.At(base + 0x3f000004); !ok || s.Module != "veth" || s.Name != "init_module" {
			t.Errorf("%+v, %v", s, ok)
		}
		checkNames(t, tab)
		checkNames(t, both)
		if got := both.ByName("_stext"); !slices.Equal(got, []uint64{base, base + 0x40000000}) || len(tab.ByName("_stext")) != 1 {
			t.Errorf("_stext is at %#x with a module's, at %#x without", got, tab.ByName("_stext"))
		}
		var below Builder
		below.Add(Sym{base - 0x1000, "_stext", "low", 't'})
		checkNames(t, both.With(&below))
	}
}

// TestFromPlaces reads offsets that count from their own places, of a kernel without a base.
func TestFromPlaces(t *testing.T) {
	const base, at = 0xffffffff81000000, 0xffffffff82d29934
	want := []Sym{{base, "_stext", "", 'T'}, {base + 0x10, "__x64_sys_read", "", 't'}, {at + 0x100, "_end", "", 'B'}}
	e := embed(false, base, want)
	e.Base, e.At = 0, at
	for i, s := range want {
		binary.LittleEndian.PutUint32(e.Offsets[4*i:], uint32(s.Addr-(at+4*uint64(i))))
	}
	var b Builder
	if err := b.Decode(e); err != nil {
		t.Fatal(err)
	}
	var got []Sym
	for s := range b.Table().All() {
		got = append(got, s)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// checkNames wants every symbol to be found by its name, those of one name ascending.
func checkNames(t *testing.T, tab *Table) {
	t.Helper()
	want := map[string][]uint64{}
	for s := range tab.All() {
		want[s.Name] = append(want[s.Name], s.Addr)
	}
	for name, at := range want {
		if got := tab.ByName(name); !slices.Equal(got, at) {
			t.Errorf("%s is at %#x, not %#x", name, got, at)
		}
	}
}

func TestDecodeBad(t *testing.T) {
	good := func() Embedded {
		return embed(false, 1<<63, []Sym{{1 << 63, "_stext", "", 'T'}, {1<<63 + 1, "b", "", 'T'}})
	}
	for name, spoil := range map[string]func(e *Embedded){
		"more names than offsets": func(e *Embedded) { e.N = 3 },
		"negative count":          func(e *Embedded) { e.N = -1 },
		"names cut short":         func(e *Embedded) { e.Names = strings.NewReader("\x05Ta") },
		"empty name":              func(e *Embedded) { e.Names = strings.NewReader("\x00\x00") },
		"short token index":       func(e *Embedded) { e.TokenIndex = e.TokenIndex[:10] },
		"token table cut short":   func(e *Embedded) { e.TokenTable = e.TokenTable[:4] },
	} {
		e := good()
		spoil(&e)
		var b Builder
		if err := b.Decode(e); err == nil {
			t.Errorf("%s is no error", name)
		}
	}
}

// TestHostile gives tables cut short and changed.
func TestHostile(t *testing.T) {
	e := embed(true, 1<<63, []Sym{{1 << 63, "_stext", "", 'T'}, {1<<63 + 1, "sys_b", "", 'T'}})
	names := []byte("\x07T_stext\x03T\x01b")
	sizes := []int{len(names), len(e.TokenTable), len(e.TokenIndex)}
	hostile.Check(t, slices.Concat(names, e.TokenTable, e.TokenIndex, e.Offsets), len(names), func(b []byte) {
		var parts [4][]byte
		for i, n := range sizes {
			n = min(n, len(b))
			parts[i], b = b[:n], b[n:]
		}
		var d Builder
		in := Embedded{N: 2, Names: bytes.NewReader(parts[0]), TokenTable: parts[1], TokenIndex: parts[2], Offsets: b, Check: "_stext", CheckAddr: 1 << 63}
		if d.Decode(in) == nil {
			d.Table().ByAddr(1 << 63)
		}
	})
}

func FuzzDecode(f *testing.F) {
	e := embed(true, 1<<63, []Sym{{1 << 63, "_stext", "", 'T'}, {1<<63 + 1, "sys_b", "", 'T'}})
	names := []byte("\x07T_stext\x03T\x01b")
	f.Add(2, names, e.TokenTable, e.TokenIndex, e.Offsets)
	f.Fuzz(func(_ *testing.T, n int, names, tokens, index, offsets []byte) {
		var b Builder
		if b.Decode(Embedded{N: n, Names: bytes.NewReader(names), TokenTable: tokens, TokenIndex: index, Offsets: offsets, Check: "_stext"}) != nil {
			return
		}
		t := b.Table()
		t.ByAddr(1 << 63)
		t.ByName("_stext")
	})
}

// TestExpect: names that were expected, there or not, once or often, are found as by the index, also among symbols that are added later,
// behind the others and between them.
func TestExpect(t *testing.T) {
	names := []string{"init_task", "init_tasks", "ini", "in", "prb", "_end", "a", "zone"}
	for _, later := range []uint64{0xffffffffc0000000, 0xffffffff81000020} {
		build := func(expect []string) *Table {
			b := Builder{Expect: expect}
			for i, n := range []string{"init_task", "prb", "zone", "ini", "init_task", "a", "in", "_end"} {
				b.Add(Sym{Addr: 0xffffffff81000000 + 16*uint64(i), Name: n, Type: 'D'})
			}
			var more Builder
			for i, n := range []string{"prb", "init_tasks", "zone"} {
				more.Add(Sym{Addr: later + 8*uint64(i), Name: n, Type: 't', Module: "m"})
			}
			return b.Table().With(&more)
		}
		plain, expected := build(nil), build([]string{"init_task", "init_tasks", "ini", "in", "prb", "none", "zone"})
		for _, n := range append(names, "none") {
			want, got := slices.Collect(plain.Named(n)), slices.Collect(expected.Named(n))
			if d := cmp.Diff(want, got); d != "" || n == "prb" && len(got) != 2 {
				t.Errorf("%s, with more at %#x: %s", n, later, d)
			}
		}
		if a, ok := expected.expected["none"]; !ok || a != nil || len(expected.expected["zone"]) != 2 {
			t.Errorf("expected: %v", expected.expected)
		}
	}
}
