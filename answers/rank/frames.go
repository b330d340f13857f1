package rank

import (
	"bytes"
	"cmp"
	"iter"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/debuginfo/disasm"
	"github.com/fathom-trace/fathom/debuginfo/kallsyms"
	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/kernel"
)

// Frame is how much stack a function takes for itself.
type Frame struct {
	Name   string
	Module string
	Addr   uint64
	Bytes  uint64 // what it pushes, makes room for, and its return address; what it pushes for calls later is not in it
}

// prologue is how many bytes of a function are looked at.
const prologue = 96

// chunk is how much code is read at once, in bytes.
const chunk = 1 << 20

// LargeFrame is the size, in bytes, from which on frames have in their code an instruction that no smaller one has: the six
// registers that functions save and 127 bytes, which fit its short form, are less.
const LargeFrame = 192

// subLong is how sub $imm32,%rsp begins, which has subLen bytes.
var subLong = []byte{0x48, 0x81, 0xec}

const subLen = 7

// padding begins the names of the room before functions (scripts/kallsyms.c, since 6.2).
const padding = "__pfx_"

// Frames reads the frames of functions out of their code, the largest first, of at least so many bytes: what their first
// instructions push and subtract from the stack pointer, up to the first jump. read is how many functions there are; those
// whose code cannot be read are not among them. It is for x86-64, and quick for frames of [LargeFrame] and more.
func Frames(mem kernel.Memory, syms iter.Seq[kallsyms.Sym], least uint64) (out []Frame, read int) {
	var buf []byte
	var base uint64 // of buf
	last := uint64(0)
	for s := range syms {
		if s.Addr == last && read > 0 || strings.HasPrefix(s.Name, padding) { // another name, or none
			continue
		}
		last = s.Addr
		if s.Addr < base || s.Addr+prologue > base+uint64(len(buf)) {
			base, buf = s.Addr, codeAt(mem, s.Addr, buf)
		}
		code := buf[s.Addr-base:]
		if len(code) == 0 {
			continue
		}
		read++
		code = code[:min(len(code), prologue)]
		if least >= LargeFrame {
			i := bytes.Index(code, subLong)
			if i < 0 || i+subLen > len(code) {
				continue
			}
			code = code[:i+subLen]
		}
		if n := frameOf(code, s.Addr); n >= least {
			out = append(out, Frame{s.Name, s.Module, s.Addr, n})
		}
	}
	sorting.By(out, func(a, b Frame) int { return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Addr, b.Addr)) })
	return out, read
}

// codeAt reads as much as there is, up to a chunk.
func codeAt(mem kernel.Memory, addr uint64, buf []byte) []byte {
	for n := chunk; n > 0; n /= 8 {
		n = max(n, prologue)
		if cap(buf) < n {
			buf = make([]byte, n)
		}
		if mem.ReadVirt(buf[:n], addr) == nil {
			return buf[:n]
		}
		if n == prologue {
			break
		}
	}
	return nil
}

// frameOf adds up what a prologue takes, and 8 bytes for the return address.
func frameOf(code []byte, addr uint64) uint64 {
	total := uint64(8)
	for _, i := range disasm.Decode(disasm.AMD64, code, addr, nil) {
		op, args, _ := strings.Cut(i.Text, " ")
		args = strings.TrimSpace(args)
		switch {
		case i.Bad() || i.Jump || strings.HasPrefix(op, "ret"):
			return total
		case i.Call && total > 8: // the first call may be that of ftrace
			return total
		case strings.HasPrefix(op, "push"):
			total += 8
		case strings.HasPrefix(op, "pop"):
			return total
		case strings.HasSuffix(args, ",%rsp") && (strings.HasPrefix(op, "sub") || strings.HasPrefix(op, "add")):
			return total + room(op, strings.TrimSuffix(args, ",%rsp"))
		}
	}
	return total
}

// room is what sub $n takes, or add $-n, which is shorter for 128; 0 if that is not a number.
func room(op, arg string) uint64 {
	n, err := strconv.ParseInt(strings.TrimPrefix(arg, "$"), 0, 64)
	if strings.HasPrefix(op, "add") {
		n = -n
	}
	if err != nil || n < 0 || n > 1<<20 {
		return 0
	}
	return uint64(n)
}
