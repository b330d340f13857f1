package unwind

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/debuginfo/kallsyms"
	"github.com/fathom-trace/fathom/debuginfo/orc"
	"github.com/fathom-trace/fathom/kernel"
)

// fake is a kernel with a stack and four functions of 0x100 bytes each from text on.
type fake struct {
	kernel.Target
	stack []byte
	table *orc.Table
}

const (
	text  = 0xffffffff81000000
	stack = 0xffffc90000000000
)

func (f *fake) ReadVirt(p []byte, addr uint64) error {
	if addr >= stack && addr+uint64(len(p)) <= stack+uint64(len(f.stack)) {
		copy(p, f.stack[addr-stack:])
		return nil
	}
	if addr >= text && addr < text+0x400 { // all code is calls
		copy(p, []byte{0xe8, 0, 0, 0, 0})
		return nil
	}
	return &kernel.FaultError{Addr: addr, Err: errors.New("hole")}
}

func (f *fake) Unwind(addr uint64) *orc.Table {
	if addr < text || addr >= text+0x400 {
		return nil
	}
	return f.table
}
func (f *fake) Types() ctype.Lookup { return types{} }

// Symbols names the last function as what indirect calls go through, and the one before as where new tasks begin.
func (f *fake) Symbols() kernel.Symbols {
	var b kallsyms.Builder
	b.Add(kallsyms.Sym{Addr: text, Name: "_text", Type: 'T'})
	b.Add(kallsyms.Sym{Addr: text + 0x200, Name: "ret_from_fork", Type: 'T'})
	b.Add(kallsyms.Sym{Addr: text + 0x300, Name: "__x86_indirect_thunk_array", Type: 'T'})
	return b.Table()
}

// types knows struct orc_entry as it is since 6.4, and struct pt_regs.
type types struct{}

func (types) ByName(_ ctype.Kind, name string) (ctype.Type, error) {
	num := &ctype.Int{Size: 8}
	switch name {
	case "orc_entry":
		return ctype.NewStruct(name, false, 6, func() []ctype.Member {
			return []ctype.Member{{Name: "type", Type: &ctype.Int{Size: 2}, BitOff: 40, BitSize: 3}}
		}), nil
	case "pt_regs":
		return ctype.NewStruct(name, false, 8*len(ptRegs), func() (out []ctype.Member) {
			for i, r := range ptRegs {
				out = append(out, ctype.Member{Name: r[0], Type: num, BitOff: 64 * i})
			}
			return out
		}), nil
	}
	return nil, ctype.ErrNotFound
}
func (types) EnumValue(string) (*ctype.Enum, int64, bool) { return nil, 0, false }
func (types) Func(string, string) (*ctype.Func, error)    { return nil, ctype.ErrNotFound }

// Words of entries: base in bits 0–3, frame pointer in 4–7, type in 8–10.
const (
	callSP = 0x0205 // a return address below SP+offset
	regsSP = 0x0305 // struct pt_regs at SP+offset
	ends   = 0x0100
	none   = 0x0000
)

// newFake gives function i the entry with that offset and word.
func newFake(t *testing.T, entries ...[2]int) *fake {
	f := &fake{stack: make([]byte, 4096)}
	var ips, es []byte
	const at = text + 0x10000
	for i, e := range entries {
		ips = binary.LittleEndian.AppendUint32(ips, uint32(0x100*i-0x10000-4*i))
		es = binary.LittleEndian.AppendUint16(es, uint16(e[0]))
		es = binary.LittleEndian.AppendUint16(es, 0)
		es = binary.LittleEndian.AppendUint16(es, uint16(e[1]))
	}
	format, err := orc.FormatOf(types{})
	if err != nil {
		t.Fatal(err)
	}
	f.table = &orc.Table{Format: format, N: len(entries), IPAddr: at, IPs: bytes.NewReader(ips), Entries: bytes.NewReader(es)}
	return f
}

func (f *fake) put(off int, v uint64) { binary.LittleEndian.PutUint64(f.stack[off:], v) }

// show writes a stack in a line: functions by number with offset, ? for scanned, ! for interrupted, and the end.
func show(s Stack) string {
	var b bytes.Buffer
	for _, f := range s.Frames {
		if f.PC < text {
			fmt.Fprintf(&b, "%#x", f.PC)
		} else {
			fmt.Fprintf(&b, "f%d+%#x", (f.PC-text)/0x100, (f.PC-text)%0x100)
		}
		if f.Scanned {
			b.WriteByte('?')
		}
		if f.Regs != nil {
			b.WriteByte('!')
		}
		b.WriteByte(' ')
	}
	return b.String() + string(s.End)
}

func TestFrom(t *testing.T) {
	regs := func(pc, sp uint64) kernel.Regs { return kernel.Regs{"rip": pc, "rsp": sp, "cs": 0x10} }
	calls := [][2]int{{8, callSP}, {16, callSP}, {8, ends}, {8, none}}
	for _, c := range []struct {
		name    string
		entries [][2]int
		fill    func(f *fake)
		regs    kernel.Regs
		want    string
	}{
		{"calls to the outermost", calls, func(f *fake) { f.put(0, text+0x150); f.put(16, text+0x250) }, regs(text+0x10, stack), "f0+0x10 f1+0x50 f2+0x50 outermost"},
		{"a call at the end of a function belongs to it", calls, func(f *fake) { f.put(0, text+0x200); f.put(16, text+0x250) }, regs(text+0x10, stack), "f0+0x10 f2+0x0 f2+0x50 outermost"},
		{"null pointer called", calls, func(f *fake) { f.put(0, text+0x150); f.put(16, text+0x250) }, regs(0, stack), "0x0 f1+0x50 f2+0x50 outermost"},
		{"no entry: the next that a call precedes", calls, func(f *fake) { f.put(8, 0x1234); f.put(24, text+0x150); f.put(40, text+0x250) }, regs(text+0x310, stack), "f3+0x10 f1+0x50? f2+0x50? outermost"},
		{"at the begin of a thunk", [][2]int{{8, callSP}, {16, callSP}, {8, ends}, {8, ends}}, func(f *fake) { f.put(0, text+0x150); f.put(16, text+0x250) }, regs(text+0x300, stack), "f3+0x0 f1+0x50 f2+0x50 outermost"},
		{"nothing to find", calls, func(*fake) {}, regs(text+0x310, stack), "f3+0x10 broken"},
		{"return address 0", calls, func(*fake) {}, regs(text+0x10, stack), "f0+0x10 broken"},
		{"stack ends", calls, func(*fake) {}, regs(text+0x10, stack+4096), "f0+0x10 broken"},
		{"stack pointer goes down", [][2]int{{-8, callSP}}, func(f *fake) { f.put(48, text+0x10) }, regs(text+0x10, stack+64), "f0+0x10 broken"},
		{"user mode", calls, func(*fake) {}, kernel.Regs{"rip": 0x400000, "cs": 0x33}, "user"},
		{"interrupted in the kernel", [][2]int{{8, regsSP}, {8, callSP}, {8, ends}}, func(f *fake) {
			f.put(8+8*16, text+0x150) // ip
			f.put(8+8*17, 0x10)       // cs
			f.put(8+8*19, stack+0x200)
			f.put(0x200, text+0x250)
		}, regs(text+0x10, stack), "f0+0x10! f1+0x50 f2+0x50 outermost"},
		{"from user mode", [][2]int{{8, regsSP}}, func(f *fake) { f.put(8+8*16, 0x400000); f.put(8+8*17, 0x33) }, regs(text+0x10, stack), "f0+0x10! user"},
	} {
		f := newFake(t, c.entries...)
		c.fill(f)
		got := show(From(f, c.regs))
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
	}
}

// TestSwitched: a task that was forked and never ran goes on at the begin of a function, what stands before that is another one's.
func TestSwitched(t *testing.T) {
	for _, c := range []struct {
		name string
		pc   uint64
		want string
	}{
		{"behind a call", text + 0x10, "f0+0x10 f2+0x10 outermost"},
		{"never ran", text + 0x200, "f2+0x0 outermost"},
	} {
		f := newFake(t, [2]int{8, callSP}, [2]int{8, none}, [2]int{8, ends})
		f.put(0, text+0x210)
		if got := show(switched(f, c.pc, 0, stack).run()); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}
