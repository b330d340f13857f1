package cfi

import (
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// amd64 gives the section of the entries, at address 0x1000.
func amd64(entries ...string) Section {
	b, err := hex.DecodeString(strings.ReplaceAll(strings.Join(entries, ""), " ", ""))
	if err != nil {
		panic(err)
	}
	return Section{Data: b, Order: binary.LittleEndian, Addr: 0x1000, AddrSize: 8, EH: true}
}

// Common entries and the start of one function's entry, of which the address is 0x2000 and the length 0x40.
const (
	// "zR", code 1, data -8, ra 16, pcrel sdata4; cfa rsp+8, ra cfa-8, two nops
	commonZR = "14000000 00000000 01 7a5200 01 78 10 01 1b 0c0708 9001 0000"
	signalZR = "18000000 00000000 01 7a525300 01 78 10 01 1b 0c0708 9001 0000 00000000"
)

// fde is the entry of the function behind commonZR: 0x20 bytes, the last 7 of them instructions, filled with nops.
func fde(ins string) string {
	ins = strings.ReplaceAll(ins, " ", "")
	for len(ins) < 2*19 {
		ins += "00"
	}
	return "20000000 1c000000 e00f0000 40000000 00" + ins
}

func TestDecode(t *testing.T) {
	regs, _ := RegsOf(elf.EM_X86_64)
	row := func(pc uint64, b Base, off int64) Row { return Row{PC: pc, Base: b, Off: off, RA: Saved, RAOff: -8} }
	saved := func(r Row) Row { r.FP, r.FPOff = Saved, -16; return r }
	tests := []struct {
		name, ins string
		want      []Row
		err       string
	}{
		{"no instructions", "", []Row{row(0x2000, SP, 8)}, ""},
		{"push, mov, leave", "41 0e10 8602 43 0d06 70 0c0708", []Row{
			row(0x2000, SP, 8), saved(row(0x2001, SP, 16)), saved(row(0x2004, FP, 16)), saved(row(0x2034, SP, 8)),
		}, ""},
		{"remember and restore", "41 0e10 0a 42 0e08 41 0b", []Row{
			row(0x2000, SP, 8), row(0x2001, SP, 16), row(0x2003, SP, 8), row(0x2004, SP, 16),
		}, ""},
		{"restore", "8602 41 c6", []Row{saved(row(0x2000, SP, 8)), row(0x2001, SP, 8)}, ""},
		{"long advances", "0208 0e10 03 1000 0e18 04 10000000 0e20", []Row{
			row(0x2000, SP, 8), row(0x2008, SP, 16), row(0x2018, SP, 24), row(0x2028, SP, 32),
		}, ""},
		{"behind the end", "04 00010000 0e20", []Row{row(0x2000, SP, 8)}, ""},
		{"signed and negative", "41 13 7e 11 06 02 2f 03 02", []Row{row(0x2000, SP, 8), saved(row(0x2001, SP, 16))}, ""},
		{"outermost", "07 10", []Row{{PC: 0x2000, Base: SP, Off: 8, RA: Undefined}}, ""},
		{"another base", "41 0d0a", []Row{row(0x2000, SP, 8), row(0x2001, None, 0)}, ""},
		{"an expression", "41 0f 03 76 78 06 42 0c0708", []Row{row(0x2000, SP, 8), row(0x2001, None, 0), row(0x2003, SP, 8)}, ""},
		{"half a rule after one", "41 0f 03 76 78 06 42 0e08", []Row{row(0x2000, SP, 8), row(0x2001, None, 0)}, ""},
		{"frame pointer elsewhere", "09 06 03", []Row{{PC: 0x2000, Base: SP, Off: 8, FP: Lost, RA: Saved, RAOff: -8}}, ""},
		{"linkage table", "0e10 60 0f0b 77088000 3f1a3b2a332422", []Row{
			row(0x2000, SP, 16), row(0x2020, SP, 8), row(0x202b, SP, 16), row(0x2030, SP, 8), row(0x203b, SP, 16),
		}, ""},
		{"restores nothing", "0b", nil, "was not remembered"},
		{"expression too long", "0f 7f", nil, "expression of 127 bytes"},
		{"unknown", "3c 00", nil, "instruction 0x3c"},
	}
	for _, tt := range tests {
		got, err := Decode(amd64(commonZR, fde(tt.ins), "00000000"), regs)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: error %v, want %q", tt.name, err, tt.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if d := cmp.Diff([]Func{{Lo: 0x2000, Hi: 0x2040, Rows: tt.want}}, got); d != "" {
			t.Errorf("%s: (-want +got)\n%s", tt.name, d)
		}
	}
}

func TestDecodeErrors(t *testing.T) {
	regs, _ := RegsOf(elf.EM_X86_64)
	tests := []struct{ name, in, err string }{
		{"short", "14000000 0000", "an entry of 20 bytes"},
		{"no common entry", fde(""), "outside the section"},
		{"refers to a function", commonZR + fde("") + strings.Replace(fde(""), "1c000000", "28000000", 1), "no common entry"},
		{"version", strings.Replace(commonZR, " 01 7a", " 07 7a", 1) + fde(""), "version 7"},
		{"augmentation", strings.Replace(commonZR, "7a5200", "656800", 1) + fde(""), `augmentation "eh"`},
		{"another return address", strings.Replace(commonZR, " 10 ", " 11 ", 1) + fde(""), "register 17"},
	}
	for _, tt := range tests {
		_, err := Decode(amd64(tt.in), regs)
		if err == nil || !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.err)
		}
	}
}

// TestDebugFrame reads the other kind of section, in its 64-bit format and in version 4.
func TestDebugFrame(t *testing.T) {
	sec := amd64(
		"ffffffff 1400000000000000 ffffffffffffffff 04 00 08 00 01 78 10 0c0708 9001",
		"ffffffff 1c00000000000000 0000000000000000 0020000000000000 4000000000000000 41 0e10 00",
	)
	sec.EH = false
	regs, _ := RegsOf(elf.EM_X86_64)
	got, err := Decode(sec, regs)
	if err != nil {
		t.Fatal(err)
	}
	want := []Func{{Lo: 0x2000, Hi: 0x2040, Rows: []Row{
		{PC: 0x2000, Base: SP, Off: 8, RA: Saved, RAOff: -8}, {PC: 0x2001, Base: SP, Off: 16, RA: Saved, RAOff: -8},
	}}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestTable(t *testing.T) {
	r := func(pc uint64, off int64) Row { return Row{PC: pc, Base: SP, Off: off} }
	got := Table([]Func{
		{Lo: 0x40, Hi: 0x50, Rows: []Row{r(0x40, 8)}},
		{Lo: 0x10, Hi: 0x20, Rows: []Row{r(0x10, 8), r(0x14, 16)}},
		{Lo: 0x20, Hi: 0x30, Rows: []Row{r(0x20, 16), r(0x28, 8)}}, // goes on as the one before ends
		{Lo: 0x48, Hi: 0x60, Rows: []Row{r(0x48, 24)}},             // overlaps
	})
	want := []Row{r(0x10, 8), r(0x14, 16), r(0x28, 8), {PC: 0x30}, r(0x40, 8), r(0x48, 24), {PC: 0x60}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, tt := range []struct {
		pc   uint64
		want Row
	}{{0xf, Row{}}, {0x10, r(0x10, 8)}, {0x13, r(0x10, 8)}, {0x2f, r(0x28, 8)}, {0x35, Row{PC: 0x30}}, {1 << 60, Row{PC: 0x60}}} {
		if got := Find(want, tt.pc); got != tt.want {
			t.Errorf("at %#x: %+v, want %+v", tt.pc, got, tt.want)
		}
	}
}

func TestReadIndex(t *testing.T) {
	sec := amd64("01 1b 03 3b f8ffffff 02000000 00010000 10000000 00020000 20000000")
	got, err := ReadIndex(sec)
	want := Index{Frames: 0xffc, Entries: []Place{{0x1100, 0x1010}, {0x1200, 0x1020}}}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(err, d)
	}
	sec.Data = sec.Data[:20]
	if _, err := ReadIndex(sec); err == nil {
		t.Error("no error from a short table")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(amd64(commonZR, fde("41 0e10 8602 43 0d06 70 0c0708"), "00000000").Data, true)
	f.Add(amd64(signalZR, strings.Replace(fde("0a 41 0e10 0b"), "1c000000", "20000000", 1)).Data, true)
	f.Add(amd64(commonZR, fde("0e10 60 0f0b 77088000 3f1a3b2a332422")).Data, true)
	f.Add(amd64("ffffffff 1400000000000000 ffffffffffffffff 04 00 08 00 01 78 10 0c0708 9001").Data, false)
	f.Fuzz(func(t *testing.T, b []byte, eh bool) {
		regs, _ := RegsOf(elf.EM_X86_64)
		s := Section{Data: b, Order: binary.LittleEndian, Addr: 0x1000, AddrSize: 8, EH: eh}
		fns, _ := Decode(s, regs)
		for _, fn := range fns {
			if fn.Lo >= fn.Hi || len(fn.Rows) == 0 || fn.Rows[0].PC != fn.Lo {
				t.Fatalf("function %+v", fn)
			}
		}
		rows := Table(fns)
		for i := 1; i < len(rows); i++ {
			if rows[i-1].PC >= rows[i].PC || rows[i-1].same(rows[i]) {
				t.Fatalf("rows %+v, %+v", rows[i-1], rows[i])
			}
		}
	})
}

func FuzzReadIndex(f *testing.F) {
	f.Add(amd64("01 1b 03 3b f8ffffff 02000000 00010000 10000000 00020000 20000000").Data)
	f.Fuzz(func(t *testing.T, b []byte) {
		x, _ := ReadIndex(Section{Data: b, Order: binary.LittleEndian, Addr: 0x1000, AddrSize: 8})
		if len(x.Entries) > len(b) {
			t.Fatal("more entries than bytes")
		}
	})
}
