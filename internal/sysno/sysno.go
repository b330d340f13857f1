// Package sysno has the names and numbers of Linux's system calls on the architectures fathom is built for
// (arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h).
package sysno

import "slices"

//go:generate go run ../gen/sysno

// Name gives the name of a system call of an architecture (GOARCH), "" if there is none.
func Name(arch string, nr uint64) string {
	if t := table(arch); nr < uint64(len(t)) {
		return t[nr]
	}
	return ""
}

// Number gives the number of a system call.
func Number(arch, name string) (int, bool) {
	if name == "" {
		return 0, false
	}
	n := slices.Index(table(arch), name)
	return n, n >= 0
}

// Names are all system calls of an architecture, in the order of their numbers; "" is a number that is not used.
func Names(arch string) []string { return slices.Clone(table(arch)) }

func table(arch string) []string {
	if arch == "arm64" {
		return arm64[:]
	}
	return amd64[:]
}
