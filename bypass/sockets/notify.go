package sockets

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The structures and requests of seccomp_unotify(2) (include/uapi/linux/seccomp.h).
type (
	notification struct {
		id    uint64
		pid   uint32 // the thread that asks
		flags uint32
		nr    int32
		arch  uint32
		ip    uint64
		args  [6]uint64
	}
	response struct {
		id    uint64
		val   int64
		errno int32 // negative
		flags uint32
	}
	addFD struct {
		id               uint64
		flags            uint32
		src, dst, dflags uint32
	}
)

const (
	ioctlIDValid = 0x40082102 // SECCOMP_IOCTL_NOTIF_ID_VALID
	ioctlAddFD   = 0x40182103 // SECCOMP_IOCTL_NOTIF_ADDFD
	flagContinue = 1          // SECCOMP_USER_NOTIF_FLAG_CONTINUE: the kernel does it
)

// asker is the listening file descriptor of seccomp_unotify(2), by which the kernel asks a supervisor: us. The target is the program.
type asker struct{ fd int }

func (a asker) ioctl(req uintptr, p unsafe.Pointer) (int, error) {
	for {
		r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(a.fd), req, uintptr(p))
		switch errno {
		case 0:
			return int(r), nil
		case unix.EINTR:
			continue
		}
		return -1, errno
	}
}

// next waits for a question. The error is errGone when nobody is left to ask.
func (a asker) next() (n notification, err error) {
	for {
		p := []unix.PollFd{{Fd: int32(a.fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(p, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return n, os.NewSyscallError("poll", err)
		}
		switch {
		case p[0].Revents&unix.POLLIN != 0:
			n = notification{} // the kernel wants it zero
			_, err := a.ioctl(unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n))
			if errors.Is(err, unix.ENOENT) { // who asked was interrupted before we took it, or is gone
				continue
			}
			return n, err
		case p[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0:
			return n, errGone
		}
	}
}

var errGone = errors.New("nobody is left under the filter")

// valid says if a question still waits for its answer.
func (a asker) valid(id uint64) bool {
	_, err := a.ioctl(ioctlIDValid, unsafe.Pointer(&id))
	return err == nil
}

// restart, as an answer where a signal waits for the thread, has the call fail with EINTR or begin anew after the signal's handler, as the
// handler's SA_RESTART says (ERESTARTSYS, include/linux/errno.h).
const restart = unix.Errno(512)

// attention is how often calls that wait are looked at for signals.
const attention = 20 * time.Millisecond

// thread is what the kernel says about one (/proc/TID/status).
type thread struct {
	state       string // "S", "D", …
	first       bool   // of its process
	own, shared uint64 // signals that wait for it, and for its process
	blocked     uint64
}

func look(tid uint32) (t thread, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return t, err
	}
	signals := map[string]*uint64{"SigPnd": &t.own, "ShdPnd": &t.shared, "SigBlk": &t.blocked}
	for line := range strings.Lines(string(b)) {
		name, v, _ := strings.Cut(strings.TrimSpace(line), ":\t")
		switch set := signals[name]; {
		case name == "State":
			t.state = v[:min(1, len(v))]
		case name == "Tgid":
			t.first = v == strconv.FormatUint(uint64(tid), 10)
		case set != nil:
			if *set, err = strconv.ParseUint(v, 16, 64); err != nil {
				return t, fmt.Errorf("/proc/%d/status: %s: %w", tid, name, err)
			}
		}
	}
	return t, nil
}

// signalled says if a signal is there that interrupts its call: one for the thread, or one for its process that the kernel gives to the
// first thread (complete_signal, kernel/signal.c).
func (t thread) signalled() bool {
	return t.own&^t.blocked != 0 || t.first && t.shared&^t.blocked != 0
}

// settle waits until a thread that a signal has woken waits on for our answer, uninterruptibly. Kernels without "seccomp: Fix a race with
// WAIT_KILLABLE_RECV if the tracer replies too fast" begin the call anew if the answer is there before it does, and what it was is lost.
func settle(tid uint32) {
	for range 100 {
		if t, err := look(tid); err != nil || !t.signalled() || t.state == "D" {
			return
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// signalled says if a signal interrupts a thread's call; also if it is gone.
func signalled(tid uint32) bool {
	t, err := look(tid)
	return err != nil || t.signalled()
}

// answer gives 0 or an error. The thread may be gone: nothing is lost by that.
func (a asker) answer(n notification, err error) {
	settle(n.pid)
	r := response{id: n.id}
	if err != nil {
		r.errno = -int32(number(err))
	}
	_, _ = a.ioctl(unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r))
}

// pass has the kernel do it.
func (a asker) pass(id uint64) {
	r := response{id: id, flags: flagContinue}
	_, _ = a.ioctl(unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r))
}

// replace puts a descriptor of ours in place of one of the program's.
func (a asker) replace(id uint64, src, dst int, cloexec bool) error {
	r := addFD{id: id, flags: unix.SECCOMP_ADDFD_FLAG_SETFD, src: uint32(src), dst: uint32(dst)}
	if cloexec {
		r.dflags = unix.O_CLOEXEC
	}
	_, err := a.ioctl(ioctlAddFD, unsafe.Pointer(&r))
	return os.NewSyscallError("SECCOMP_IOCTL_NOTIF_ADDFD", err)
}

// give answers with a descriptor of ours, under a number that is free there. The error is ENOENT if nobody waits for it anymore.
func (a asker) give(n notification, src int, cloexec bool) error {
	settle(n.pid)
	r := addFD{id: n.id, flags: unix.SECCOMP_ADDFD_FLAG_SEND, src: uint32(src)}
	if cloexec {
		r.dflags = unix.O_CLOEXEC
	}
	_, err := a.ioctl(ioctlAddFD, unsafe.Pointer(&r))
	return err
}

// number is the errno of an error; EIO if it has none.
func number(err error) unix.Errno {
	var no unix.Errno
	if errors.As(err, &no) {
		return no
	}
	return unix.EIO
}

// read reads the program's memory.
func read(pid uint32, at uint64, n int) ([]byte, error) {
	b := make([]byte, n)
	if n == 0 {
		return b, nil
	}
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(n)
	got, err := unix.ProcessVMReadv(int(pid), local, []unix.RemoteIovec{{Base: uintptr(at), Len: n}}, 0)
	if err == nil && got != n || errors.Is(err, unix.EFAULT) {
		return nil, unix.EFAULT
	}
	return b, os.NewSyscallError("process_vm_readv", err)
}

// write writes to the program's memory.
func write(pid uint32, at uint64, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(len(b))
	got, err := unix.ProcessVMWritev(int(pid), local, []unix.RemoteIovec{{Base: uintptr(at), Len: len(b)}}, 0)
	if err == nil && got != len(b) || errors.Is(err, unix.EFAULT) {
		return unix.EFAULT
	}
	return os.NewSyscallError("process_vm_writev", err)
}

// result writes a value into room of the program's, as much as fits, and how long it is, as the kernel does (sockaddr, getsockopt).
// whole says that the full length is told even when not all fits.
func result(pid uint32, at, lenAt uint64, value []byte, whole bool) error {
	b, err := read(pid, lenAt, 4)
	if err != nil {
		return err
	}
	room := int32(binary.NativeEndian.Uint32(b))
	if room < 0 {
		return unix.EINVAL
	}
	fits := min(len(value), int(room))
	if err := write(pid, at, value[:fits]); err != nil {
		return err
	}
	told := fits
	if whole {
		told = len(value)
	}
	return write(pid, lenAt, binary.NativeEndian.AppendUint32(nil, uint32(told)))
}

// descriptor is what the kernel says about one of the program's.
type descriptor struct {
	inode             string // "socket:[4711]"
	nonblock, cloexec bool
}

// inode names the socket behind a descriptor of the program's; empty if it is none.
func inode(pid uint32, fd int) string {
	s, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd))
	if err != nil {
		return ""
	}
	return s
}

func describe(pid uint32, fd int) (d descriptor, err error) {
	d.inode = inode(pid, fd)
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", pid, fd))
	if err != nil {
		return d, unix.EBADF
	}
	var pos int64
	var flags uint32
	if _, err := fmt.Sscanf(string(b), "pos: %d\nflags: %o", &pos, &flags); err != nil {
		return d, fmt.Errorf("/proc/%d/fdinfo/%d: %w", pid, fd, err)
	}
	d.nonblock, d.cloexec = flags&unix.O_NONBLOCK != 0, flags&unix.O_CLOEXEC != 0
	return d, nil
}

// fixed says why a descriptor of the program's cannot stand for another socket: who else has the socket would not see it.
func fixed(pid uint32, fd int, inode string) (reason string) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	ents, err := os.ReadDir(dir)
	if err != nil {
		return err.Error()
	}
	for _, e := range ents {
		n, err := strconv.Atoi(e.Name())
		if err != nil || n == fd {
			continue
		}
		switch to, _ := os.Readlink(dir + "/" + e.Name()); to {
		case inode:
			return "its descriptor was duplicated before"
		case "anon_inode:[eventpoll]":
			b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", pid, n))
			for line := range strings.Lines(string(b)) {
				if f := strings.Fields(line); len(f) > 1 && f[0] == "tfd:" && f[1] == strconv.Itoa(fd) {
					return "its descriptor was in an epoll set before"
				}
			}
		}
	}
	return ""
}

// borrow gets a duplicate of a descriptor of the program's, which is closed by unix.Close. It is no os.File, because what that does about
// blocking would be done to the program.
func borrow(pid uint32, fd int) (int, error) {
	p, err := unix.PidfdOpen(int(pid), 0)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) { // not a process's first thread
		var leader int
		if leader, err = process(pid); err == nil {
			p, err = unix.PidfdOpen(leader, 0)
		}
	}
	if err != nil {
		return -1, os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(p)
	got, err := unix.PidfdGetfd(p, fd, 0)
	return got, os.NewSyscallError("pidfd_getfd", err)
}
