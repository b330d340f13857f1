package sockets

import (
	"math"
	"runtime"

	"golang.org/x/sys/unix"
)

// asked are the system calls that we answer or let the kernel do, one by one.
var asked = []uint32{unix.SYS_BIND, unix.SYS_LISTEN, unix.SYS_ACCEPT, unix.SYS_ACCEPT4, unix.SYS_CONNECT, unix.SYS_GETSOCKNAME,
	unix.SYS_GETPEERNAME, unix.SYS_SETSOCKOPT, unix.SYS_GETSOCKOPT}

// naming are those that may name where a datagram goes to, which are asked about where that matters: Options.To. sendto is, if it has an address.
var naming = []uint32{unix.SYS_SENDMSG, unix.SYS_SENDMMSG}

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
	dataAddr = 16 + 4*8 // sendto's address: its fifth argument
)

// filter is the classic BPF program that the kernel runs at each system call. Calls of another architecture (32-bit programs, x32) are
// the kernel's. goes says that what datagrams are sent to matters.
func filter(goes bool) []unix.SockFilter {
	const allow, ask, refuse = unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_USER_NOTIF, unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	load := func(off uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: off}
	}
	ret := func(v uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: v} }
	equal := func(v uint32, yes, no int) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: v, Jt: jump(yes), Jf: jump(no)}
	}
	calls := asked
	if goes {
		calls = append(calls[:len(calls):len(calls)], naming...)
	}
	n := len(calls)
	// behind the calls: sendto, io_uring, and the answers allow, refuse, ask; then whether sendto has an address, either half of which is not 0
	p := []unix.SockFilter{load(dataArch), equal(arch(), 0, n+3), load(dataNr)}
	for i, nr := range calls {
		p = append(p, equal(nr, n-i+3, 0))
	}
	sendto := uint32(unix.SYS_SENDTO)
	if !goes {
		sendto = calls[0] // which was asked about
	}
	p = append(p, equal(sendto, 4, 0), equal(unix.SYS_IO_URING_SETUP, 1, 0), ret(allow), ret(refuse), ret(ask))
	return append(p, load(dataAddr), equal(0, 0, 2), load(dataAddr+4), equal(0, 1, 0), ret(ask), ret(allow))
}

// jump is a distance, which is known to be short.
func jump(n int) uint8 {
	if n > math.MaxUint8 {
		panic("sockets: the filter is too long")
	}
	return uint8(n)
}
