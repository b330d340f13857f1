// Package bpf holds the result of a compilation: programs and maps, ready for a kernel (package probe) or for the BPF
// machine (package vm). An Object belongs to one binding; it is not changed after bpf/gen made it.
package bpf

import (
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

// Map is a map of an Object.
type Map struct {
	Spec *ebpf.MapSpec
	IR   *ir.Map
}
