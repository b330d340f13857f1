package nic

import (
	"encoding/binary"
	"strings"

	"github.com/fathom-trace/fathom/debuginfo/disasm"
	"github.com/fathom-trace/fathom/kernel"
)

// A tasklet is asked for by tasklet_schedule, which is inlined where it is called: it sets a bit of the tasklet's state, and
// only if that was not set it calls __tasklet_schedule (include/linux/interrupt.h). So a tasklet that is asked for again before
// it runs leaves no trace but that instruction, which is found in the code of those that call __tasklet_schedule:
//
//	lock bts $0x0, 8(tasklet)
//
// It is that on x86-64 only.

// Func is a function of the kernel or a module.
type Func struct {
	Addr uint64
	Size int // bytes
	Name string
}

// Site is an instruction that asks for a tasklet. The tasklet's state is at Base + Disp, or at Addr where Base is "".
type Site struct {
	Func string
	Off  uint64 // bytes into it
	Base string // register, "bx"
	Disp int64
	Addr uint64
}

// tasklet state: struct tasklet_struct begins with next, then has state.
const taskletState = 8

// chunk is how much code is read at once, at most.
const chunk = 1 << 20

// FindSites looks through functions, which are sorted by address, for places that ask for a tasklet: in those that call or jump
// to one of targets. What cannot be read is passed over.
func FindSites(mem kernel.Memory, funcs []Func, targets []uint64) []Site {
	var out []Site
	buf := make([]byte, chunk)
	for i := 0; i < len(funcs); {
		j, end := i, funcs[i].Addr
		for ; j < len(funcs); j++ {
			to := funcs[j].Addr + uint64(funcs[j].Size)
			if to < funcs[i].Addr || to-funcs[i].Addr > chunk {
				break
			}
			end = max(end, to)
		}
		if j == i { // larger than a chunk: no function is
			i++
			continue
		}
		code := buf[:end-funcs[i].Addr]
		if err := mem.ReadVirt(code, funcs[i].Addr); err == nil {
			for _, f := range funcs[i:j] {
				out = append(out, sitesIn(code[f.Addr-funcs[i].Addr:][:f.Size], f, targets)...)
			}
		} else {
			for _, f := range funcs[i:j] {
				if one := buf[:f.Size]; mem.ReadVirt(one, f.Addr) == nil {
					out = append(out, sitesIn(one, f, targets)...)
				}
			}
		}
		i = j
	}
	return out
}

// goesTo says if there is a call, or a jump, to one of targets in code.
func goesTo(code []byte, addr uint64, targets []uint64) bool {
	to := func(i int) bool { // the displacement of 32 bits that ends an instruction is at i
		t := addr + uint64(i) + 4 + uint64(int64(int32(binary.LittleEndian.Uint32(code[i:]))))
		for _, x := range targets {
			if x == t {
				return true
			}
		}
		return false
	}
	for i := 1; i+4 <= len(code); i++ {
		switch b := code[i-1]; {
		case b == 0xe8 || b == 0xe9: // call, jmp
		case b&0xf0 == 0x80 && i > 1 && code[i-2] == 0x0f: // jcc
		default:
			continue
		}
		if to(i) {
			return true
		}
	}
	return false
}

func sitesIn(code []byte, f Func, targets []uint64) (out []Site) {
	if !goesTo(code, f.Addr, targets) {
		return nil
	}
	for _, in := range disasm.Decode(disasm.AMD64, code, f.Addr, nil) {
		if in.Mem == nil || in.Mem.Index != "" || !strings.HasPrefix(in.Text, "lock bts") || !strings.Contains(in.Text, "$0x0,") {
			continue
		}
		s := Site{Func: f.Name, Off: in.Addr - f.Addr, Base: registers[in.Mem.Base], Disp: int64(int32(in.Mem.Disp)), Addr: in.Mem.Addr}
		if s.Base != "" || s.Addr != 0 {
			out = append(out, s)
		}
	}
	return out
}

// registers are the names that programs have for those of instructions (arch/x86/include/asm/ptrace.h).
var registers = map[string]string{
	"RAX": "ax", "RBX": "bx", "RCX": "cx", "RDX": "dx", "RSI": "si", "RDI": "di", "RBP": "bp", "RSP": "sp",
	"R8": "r8", "R9": "r9", "R10": "r10", "R11": "r11", "R12": "r12", "R13": "r13", "R14": "r14", "R15": "r15",
}
