// Package dump is the backend of package kernel for crash dumps. It makes a [kernel.Target] out of physical memory and
// what the dump itself has in it: VMCOREINFO says where the page tables and the symbol table are, symbols say where the
// types (BTF) and unwind tables (ORC) are, types say what the rest means. No debug information from outside is needed.
//
// x86-64, four and five levels of page tables. VMCOREINFO tells where symbols are since Linux 6.0.
package dump
