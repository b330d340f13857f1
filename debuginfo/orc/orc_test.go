package orc

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/fathom-trace/fathom/internal/hostile"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/ctype"
)

// layout is a ctype.Lookup with nothing but struct orc_entry.
type layout []ctype.Member

func (l layout) ByName(_ ctype.Kind, name string) (ctype.Type, error) {
	if name != "orc_entry" || l == nil {
		return nil, ctype.ErrNotFound
	}
	return ctype.NewStruct(name, false, Size, func() []ctype.Member { return l }), nil
}
func (layout) EnumValue(string) (*ctype.Enum, int64, bool) { return nil, 0, false }
func (layout) Func(string, string) (*ctype.Func, error)    { return nil, ctype.ErrNotFound }
func bits(name string, at, n int) ctype.Member {
	return ctype.Member{Name: name, Type: &ctype.Int{Size: 2}, BitOff: 32 + at, BitSize: n}
}

var (
	old    = layout{bits("sp_reg", 0, 4), bits("bp_reg", 4, 4), bits("type", 8, 2), bits("end", 10, 1)}
	signal = layout{bits("sp_reg", 0, 4), bits("bp_reg", 4, 4), bits("type", 8, 2), bits("signal", 10, 1), bits("end", 11, 1)}
	recent = layout{bits("sp_reg", 0, 4), bits("bp_reg", 4, 4), bits("type", 8, 3), bits("signal", 11, 1)}
)

func TestDecode(t *testing.T) {
	for _, c := range []struct {
		name string
		l    layout
		word uint16
		want Entry
	}{
		{"call before 6.3", old, 0x0015, Entry{16, -16, SP, PrevSP, Call}},
		{"registers before 6.3", old, 0x0115, Entry{16, -16, SP, PrevSP, Regs}},
		{"end before 6.3", old, 0x0400, Entry{16, -16, Undefined, Undefined, EndOfStack}},
		{"undefined before 6.3", old, 0x0000, Entry{16, -16, Undefined, Undefined, None}},
		{"end with signal", signal, 0x0800, Entry{16, -16, Undefined, Undefined, EndOfStack}},
		{"call since 6.4", recent, 0x0215, Entry{16, -16, SP, PrevSP, Call}},
		{"registers since 6.4", recent, 0x0315, Entry{16, -16, SP, PrevSP, Regs}},
		{"partial since 6.4", recent, 0x0c15, Entry{16, -16, SP, PrevSP, RegsPartial}},
		{"end since 6.4", recent, 0x0100, Entry{16, -16, Undefined, Undefined, EndOfStack}},
		{"unknown type", recent, 0x0715, Entry{16, -16, SP, PrevSP, None}},
	} {
		f, err := FormatOf(c.l)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(c.want, f.Decode(entry(16, -16, c.word))); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
	}
	if _, err := FormatOf(layout(nil)); err == nil {
		t.Error("no struct orc_entry is an error")
	}
	if _, err := FormatOf(layout{bits("type", 8, 9)}); err == nil {
		t.Error("a type of 9 bits is an error")
	}
}

// TestLearn tells the numbers of the bases by entries of each kind of kernel.
func TestLearn(t *testing.T) {
	for _, c := range []struct {
		name  string
		l     layout
		words [4]uint16 // three of calls, of which two count from the stack pointer, and one of registers
		want  [4]Reg
	}{
		{"6.1", old, [4]uint16{0x0005, 0x0005, 0x0014, 0x0105}, [4]Reg{SP, SP, BP, SP}},
		{"6.12", recent, [4]uint16{0x0205, 0x0205, 0x0214, 0x0b05}, [4]Reg{SP, SP, BP, SP}},
		{"7.3", recent, [4]uint16{0x0203, 0x0203, 0x0284, 0x0b03}, [4]Reg{SP, SP, BP, SP}},
	} {
		f, err := FormatOf(c.l)
		if err != nil {
			t.Fatal(err)
		}
		var all []byte
		for _, w := range c.words {
			b := entry(16, -16, w)
			all = append(all, b[:]...)
		}
		f = f.Learn(append(all, 1, 2, 3))
		for i, w := range c.words {
			if e := f.Decode(entry(16, -16, w)); e.SPReg != c.want[i] || i == 2 && e.BPReg != PrevSP {
				t.Errorf("%s: %#x is %+v", c.name, w, e)
			}
		}
		if e := f.Learn(nil).Decode(entry(16, -16, c.words[1])); c.l[2].BitSize == 3 && c.words[0]&15 == 5 && e.SPReg != SP {
			t.Errorf("%s: with nothing to learn from: %+v", c.name, e)
		}
		if e := f.Decode(entry(16, -16, 0x021f)); e.Type == Call && c.l[2].BitSize == 3 {
			t.Errorf("%s: a base without a meaning: %+v", c.name, e)
		}
	}
}

func entry(sp, bp int16, word uint16) (b [Size]byte) {
	binary.LittleEndian.PutUint16(b[0:], uint16(sp))
	binary.LittleEndian.PutUint16(b[2:], uint16(bp))
	binary.LittleEndian.PutUint16(b[4:], word)
	return b
}

// table makes a Table over code at the addresses, entry i having SPOffset i.
func table(base uint64, code ...uint64) *Table {
	var ips, entries []byte
	for i, a := range code {
		ips = binary.LittleEndian.AppendUint32(ips, uint32(a-(base+4*uint64(i))))
		e := entry(int16(i), 0, 0x0215)
		entries = append(entries, e[:]...)
	}
	f, _ := FormatOf(recent)
	return &Table{Format: f, N: len(code), IPs: bytes.NewReader(ips), IPAddr: base, Entries: bytes.NewReader(entries)}
}

func TestLookup(t *testing.T) {
	tab := table(0xffffffff82000000, 0xffffffff81000000, 0xffffffff81000010, 0xffffffff81000013)
	for addr, want := range map[uint64]int{
		0xffffffff80ffffff: -1, 0xffffffff81000000: 0, 0xffffffff8100000f: 0, 0xffffffff81000010: 1, 0xffffffff81000012: 1, 0xffffffff81000013: 2, ^uint64(0): 2,
	} {
		e, ok := tab.Lookup(addr)
		if ok != (want >= 0) || ok && int(e.SPOffset) != want {
			t.Errorf("%#x: entry %d, %v; want %d", addr, e.SPOffset, ok, want)
		}
	}
	tab.N = 100 // more than there is: unreadable, not wrong
	if _, ok := tab.Lookup(0xffffffff81000000); ok {
		t.Error("found an entry in a table that cannot be read")
	}
}

// TestHostile gives tables cut short and changed.
func TestHostile(t *testing.T) {
	ips := []byte{0, 0, 0, 0xff, 0x40, 0, 0, 0xff, 0x80, 0, 0, 0xff, 0, 1, 0, 0xff}
	entries := bytes.Repeat([]byte{8, 0, 0xf0, 0xff, 0x15, 2}, 4)
	format, err := FormatOf(recent)
	if err != nil {
		t.Fatal(err)
	}
	hostile.Check(t, append(ips, entries...), 0, func(b []byte) {
		n := min(len(b), len(ips))
		tab := Table{Format: format, N: 4, IPs: bytes.NewReader(b[:n]), IPAddr: 0xffffffff82000000, Entries: bytes.NewReader(b[n:])}
		for at := uint64(0xffffffff80ffff00); at < 0xffffffff81000200; at += 0x20 {
			tab.Lookup(at)
		}
	})
}

func FuzzLookup(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8}, []byte{0, 0, 0, 0, 0x15, 2}, uint64(0x81000000))
	f.Fuzz(func(_ *testing.T, ips, entries []byte, addr uint64) {
		format, _ := FormatOf(recent)
		t := Table{Format: format, N: len(ips) / 4, IPs: bytes.NewReader(ips), IPAddr: 0x82000000, Entries: bytes.NewReader(entries)}
		t.Lookup(addr)
	})
}

func ExampleTable_Lookup() {
	t := table(0xffffffff82000000, 0xffffffff81000000, 0xffffffff81000040)
	e, ok := t.Lookup(0xffffffff81000050)
	fmt.Println(e.Type == Call, e.SPReg == SP, e.SPOffset, ok)
	// Output: true true 1 true
}

// holed is a table's memory, of which some pages are not there.
type holed struct {
	*bytes.Reader
	base    uint64
	missing map[uint64]bool // by number
}

func (h holed) ReadAt(b []byte, off int64) (int, error) {
	for at := h.base + uint64(off); at < h.base+uint64(off)+uint64(len(b)); at++ {
		if h.missing[at/4096] {
			return 0, fmt.Errorf("page %#x is missing", at/4096*4096)
		}
	}
	return h.Reader.ReadAt(b, off)
}

// TestHoles: where pages of the addresses are missing, only what stands in them, or may, is not known.
func TestHoles(t *testing.T) {
	const n = 6000 // on seven pages, as it begins within the first
	base := uint64(0xffffffff82000e00)
	var code []uint64
	for i := range n {
		code = append(code, 0xffffffff81000000+uint64(i)*8)
	}
	whole := table(base, code...)
	for _, missing := range [][]int{{}, {0}, {1}, {3}, {6}, {2, 3}, {1, 3, 5}, {0, 6}, {1, 2, 3, 4, 5}, {0, 1, 2, 4, 5, 6}, {0, 1, 2, 3, 4, 5, 6}} {
		tab := *whole
		h := holed{whole.IPs.(*bytes.Reader), base, map[uint64]bool{}}
		for _, p := range missing {
			h.missing[base/4096+uint64(p)] = true
		}
		tab.IPs = h
		there := func(i int) bool { return i < 0 || i >= n || !h.missing[(base+4*uint64(i))/4096] }
		for i := -1; i < n; i++ {
			addr := code[0] + uint64(int64(i)*8+5)
			e, ok := tab.Lookup(addr)
			// Of the last address before a hole nobody knows where its code ends.
			if want := i >= 0 && there(i) && there(i+1); ok != want || ok && int(e.SPOffset) != i {
				t.Fatalf("without pages %v: %#x has entry %d, %v; it is %d, known: %v", missing, addr, e.SPOffset, ok, i, want)
			}
		}
	}
}
