// Package vm is the BPF machine: it executes eBPF instructions in user space,
// over the events of a recording or the objects of a crash dump, with the
// results the kernel would have given.
//
// The machine:
//
//	r0..r10      64-bit registers; r10 is the frame pointer, read-only
//	frames       up to 8, 512 bytes of stack each; r6..r9 survive a call
//	after a call r1..r5 hold a poison value: using them is an error, as in the verifier
//	code         pre-decoded once by New; a run allocates nothing
//	budget       instructions per run, so that every run ends
//
// Addresses. What the machine owns has an address that no CPU can have: the
// top byte is 0x42, which is neither canonical on amd64 (48 or 57 bits) nor a
// valid address on arm64.
//
//	63      56 55  52 51     40 39                    0
//	+---------+------+---------+-----------------------+
//	|  0x42   | kind | object  | offset                |
//	+---------+------+---------+-----------------------+
//
// Every other address belongs to the [Target]. A load instruction from it is
// the kernel's PROBE_MEM: a failed read gives 0. A failed helper read gives
// -EFAULT and a zeroed destination. Both are counted in [Stats]. A store to it,
// and any access past the end of an object, is an [*Error] with the instruction:
// the kernel's verifier would not have loaded that program.
//
// What is not checked: alignment, types, uninitialised stack. The machine
// executes; it does not verify. Tail calls, dynptrs, and map types other than
// those in maps.go are refused by name.
//
// Authority: Documentation/bpf/standardization/instruction-set.rst (RFC 9669),
// kernel/bpf/core.c (___bpf_prog_run), kernel/bpf/helpers.c, kernel/trace/bpf_trace.c.
package vm
