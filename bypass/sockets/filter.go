package sockets

import (
	"math"
	"runtime"

	"golang.org/x/sys/unix"
)

// asked are the system calls that we answer or let the kernel do, one by one.
var asked = []uint32{unix.SYS_BIND, unix.SYS_LISTEN, unix.SYS_ACCEPT, unix.SYS_ACCEPT4, unix.SYS_CONNECT, unix.SYS_GETSOCKNAME,
	unix.SYS_GETPEERNAME, unix.SYS_SETSOCKOPT, unix.SYS_GETSOCKOPT}

// arch is this machine's AUDIT_ARCH (include/uapi/linux/audit.h).
func arch() uint32 {
	if runtime.GOARCH == "arm64" {
		return unix.AUDIT_ARCH_AARCH64
	}
	return unix.AUDIT_ARCH_X86_64
}

// struct seccomp_data (include/uapi/linux/seccomp.h): where its fields are.
const (
	dataNr   = 0
	dataArch = 4
)

// filter is the classic BPF program that the kernel runs at each system call. Calls of another architecture (32-bit programs, x32) are
// the kernel's.
func filter() []unix.SockFilter {
	const allow, ask, refuse = unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_USER_NOTIF, unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	load := func(off uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: off}
	}
	ret := func(v uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: v} }
	n := len(asked)
	// the answers stand at the end: allow, refuse, ask
	p := []unix.SockFilter{load(dataArch), {Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: arch(), Jf: jump(n + 2)}, load(dataNr)}
	for i, nr := range asked {
		p = append(p, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: nr, Jt: jump(n - i + 2)})
	}
	p = append(p, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_IO_URING_SETUP, Jt: 1})
	return append(p, ret(allow), ret(refuse), ret(ask))
}

// jump is a distance, which is known to be short.
func jump(n int) uint8 {
	if n > math.MaxUint8 {
		panic("sockets: the filter is too long")
	}
	return uint8(n)
}
