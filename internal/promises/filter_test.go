package promises

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// forbidden are system calls that containers forbid (Docker's default profile, without CAP_SYS_ADMIN and CAP_BPF).
var forbidden = []uint32{unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_MOUNT, unix.SYS_FSOPEN, unix.SYS_SETNS, unix.SYS_UNSHARE}

// writing are those by which files get their content, with the number of the argument that names the file.
var writing = map[uint32]int{
	unix.SYS_WRITE: 0, unix.SYS_PWRITE64: 0, unix.SYS_WRITEV: 0, unix.SYS_SPLICE: 2, unix.SYS_SENDFILE: 0, unix.SYS_COPY_FILE_RANGE: 2,
	unix.SYS_FSYNC: 0, unix.SYS_FDATASYNC: 0, unix.SYS_FTRUNCATE: 0, unix.SYS_FALLOCATE: 0,
}

// From seccomp(2) and linux/seccomp.h.
const (
	setModeFilter   = 1
	newListener     = 8
	retAllow        = 0x7fff0000
	retErrno        = 0x00050000
	retUserNotif    = 0x7fc00000
	notifRecv       = 0xc0502100 // _IOWR('!', 0, struct seccomp_notif)
	notifSend       = 0xc0182101 // _IOWR('!', 1, struct seccomp_notif_resp)
	continueSyscall = 1
	listenerName    = "anon_inode:seccomp notify"
)

// notif is struct seccomp_notif, answer struct seccomp_notif_resp.
type notif struct {
	ID         uint64
	PID, Flags uint32
	NR         uint32
	Arch       uint32
	IP         uint64
	Args       [6]uint64
}

type answer struct {
	ID    uint64
	Val   int64
	Error int32
	Flags uint32
}

// filtered becomes a program whose system calls are filtered: refused, or told to who started it, who finds the listener by its name.
func filtered(role string, args []string) error {
	runtime.LockOSThread()
	calls, verdict, flags := forbidden, uint32(retErrno|uint32(unix.EPERM)), uintptr(0)
	if role == trapped {
		calls, verdict, flags = nil, retUserNotif, newListener
		for nr := range writing {
			calls = append(calls, nr)
		}
	}
	prog := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}} // seccomp_data.nr
	for i, nr := range calls {
		prog = append(prog, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: nr, Jt: uint8(len(calls) - i)})
	}
	prog = append(prog, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: retAllow}, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: verdict})
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if err := os.Setenv(envRole, work+" 2000"); err != nil { // what it starts of us
		return err
	}
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, setModeFilter, flags, uintptr(unsafe.Pointer(&fprog)))
	if errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	if role == trapped { // from now on nothing may be written here: nobody answers yet
		if _, _, errno := unix.RawSyscall(unix.SYS_FCNTL, fd, unix.F_SETFD, 0); errno != 0 {
			return errno
		}
	}
	return syscall.Exec(args[0], args, os.Environ())
}

// as makes a command of this program in a role, which becomes bin.
func as(role, bin string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", append([]string{bin}, args...)...)
	cmd.Env = append(os.Environ(), envRole+"="+role)
	return cmd
}

// disk lets a program's writes below a folder fail from the n-th on.
type disk struct {
	folder string
	errno  unix.Errno
	from   int64
	writes atomic.Int64 // so far
}

// watch answers for the writes of a process that was started as trapped, until it is gone.
func (d *disk) watch(t *testing.T, pid int, gone <-chan struct{}) {
	fd, err := listener(pid, gone)
	if err != nil {
		t.Error(err)
		return
	}
	defer unix.Close(fd)
	for {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(p, 50); err != nil && !errors.Is(err, unix.EINTR) {
			t.Error(err)
			return
		}
		if p[0].Revents&unix.POLLIN == 0 {
			select {
			case <-gone:
				return
			default:
				continue
			}
		}
		var n notif
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), notifRecv, uintptr(unsafe.Pointer(&n))); errno != 0 {
			continue // who asked has been interrupted, or has died
		}
		a := answer{ID: n.ID, Flags: continueSyscall}
		if d.fails(&n) {
			a.Flags, a.Error = 0, -int32(d.errno)
		}
		_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), notifSend, uintptr(unsafe.Pointer(&a))) // as above
	}
}

// fails says if a write is to fail.
func (d *disk) fails(n *notif) bool {
	at, ok := writing[n.NR]
	if !ok {
		return false
	}
	name, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", n.PID, int32(n.Args[at])))
	if err != nil || !strings.HasPrefix(name, d.folder) {
		return false
	}
	return d.writes.Add(1) >= d.from
}

// listener takes the descriptor that a process was told of its filter by.
func listener(pid int, gone <-chan struct{}) (int, error) {
	for {
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, name := range fds {
			if to, err := os.Readlink(name); err != nil || to != listenerName {
				continue
			}
			var theirs int
			if _, err := fmt.Sscan(filepath.Base(name), &theirs); err != nil {
				return -1, err
			}
			proc, err := unix.PidfdOpen(pid, 0)
			if err != nil {
				return -1, err
			}
			defer unix.Close(proc)
			return unix.PidfdGetfd(proc, theirs, 0)
		}
		select {
		case <-gone:
			return -1, fmt.Errorf("process %d ended before its system calls were filtered", pid)
		case <-time.After(2 * time.Millisecond):
		}
	}
}
