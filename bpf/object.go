// Package bpf holds the result of a compilation: programs and maps, ready for a kernel (package probe) or for the BPF
// machine (package vm). An Object belongs to one binding; it is not changed after bpf/gen made it.
package bpf

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/fathom-trace/fathom/ir"
)

// Object is a bound program.
type Object struct {
	Programs []*Program
	Maps     []*Map
}

// Program is one BPF program.
type Program struct {
	Name string // at most 15 bytes reach the kernel
	Type ebpf.ProgramType
	// AttachType is 0 where the program type needs none.
	AttachType ebpf.AttachType
	Insns      asm.Instructions
	Unit       *ir.Unit
	// StackBytes and ScratchBytes say what the program uses per CPU.
	StackBytes, ScratchBytes int
}

// GivenSymbol is what an instruction that loads number i of its target (ir.Given) refers to, until who loads the program puts the
// number there.
func GivenSymbol(i int64) string { return fmt.Sprintf("given.%d", i) }

// Given tells of an instruction which number of its target it loads.
func Given(in *asm.Instruction) (i int, ok bool) {
	s, ok := strings.CutPrefix(in.Reference(), "given.")
	if !ok || in.OpCode != asm.LoadImmOp(asm.DWord) || in.Src != 0 {
		return 0, false
	}
	i, err := strconv.Atoi(s)
	return i, err == nil
}

// element is what the metadata of an instruction has that says which element of scratch memory its program uses.
type element struct{}

// WithElement marks an instruction that stores the number of the program's element of scratch memory.
func WithElement(in asm.Instruction) asm.Instruction {
	in.Metadata.Set(element{}, true)
	return in
}

// IsElement tells of an instruction that its constant is the number of an element of scratch memory. A program may be interrupted
// by all others, though not by itself: who loads several programs of one gives each a number of its own.
func IsElement(in *asm.Instruction) bool { return in.Metadata.Get(element{}) != nil }

// Map is a map of an Object.
type Map struct {
	Spec    *ebpf.MapSpec
	IR      *ir.Map
	Scratch bool // per-CPU memory, an element for each program of the Object
}
