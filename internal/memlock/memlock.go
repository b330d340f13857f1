// Package memlock lets BPF maps and programs have the memory they take on kernels that count it against RLIMIT_MEMLOCK, which is
// 64 KiB there: those before Linux 5.11 (bpf_charge_memlock in kernel/bpf/syscall.c).
package memlock

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Try makes a map or a program, and once more without the limit if it was refused for want of rights, which is what such a kernel
// says. The limit then stays away, for this process and those that it starts. The error is that of do, of the second time if
// there was one.
func Try[T any](do func() (T, error)) (T, error) { return try(do, raise) }

func try[T any](do func() (T, error), raise func() bool) (T, error) {
	v, err := do()
	if !errors.Is(err, unix.EPERM) || !raise() {
		return v, err
	}
	return do()
}

// raise takes the limit away; it says false if there is none, or if it is not ours to change.
func raise() bool {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_MEMLOCK, &l) != nil || l.Cur == unix.RLIM_INFINITY {
		return false
	}
	return unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}) == nil
}
