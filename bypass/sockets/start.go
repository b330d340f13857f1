package sockets

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// channel is the descriptor by which [Enter] tells which one the kernel asks by.
const channel = 3

// Enter is the other half of [Run]: the process that Options.Self starts must call it with the program's arguments. It puts itself under
// the filter and becomes the program; it returns only what went wrong.
func Enter(argv []string) error {
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	runtime.LockOSThread() // the filter is this thread's, which becomes the program
	// Without us its calls would fail. The signal is a thread's too, and the kernel sends it when the thread that started us ends.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	var goes [1]byte
	if n, err := unix.Read(channel, goes[:]); n != 1 {
		return fmt.Errorf("what is carried was not said: %w", errors.Join(errStart, err))
	}
	fd, err := install(goes[0] != 0)
	if err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	// sendmsg, which could hand it out, may be one of the calls that wait for whom it is handed to: it is fetched.
	if _, err := unix.Write(channel, binary.NativeEndian.AppendUint32(nil, uint32(fd))); err != nil {
		return os.NewSyscallError("write", err)
	}
	if n, err := unix.Read(channel, goes[:]); n != 1 {
		return fmt.Errorf("nobody answers: %w", errors.Join(errStart, err))
	}
	unix.Close(fd)
	unix.Close(channel)
	return &os.PathError{Op: "exec", Path: path, Err: unix.Exec(path, argv, os.Environ())}
}

// install puts the calling thread under the filter. While a call is being answered only signals that kill interrupt it (Linux 5.19,
// SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV): otherwise its thread might run on while we write what it has asked for into its memory. Without CAP_SYS_ADMIN it, and what it starts, can gain no privileges anymore.
func install(goes bool) (int, error) {
	p := filter(goes)
	prog := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	const flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	try := func() (int, unix.Errno) {
		fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
		return int(fd), errno
	}
	fd, errno := try()
	if errno == unix.EACCES {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return -1, os.NewSyscallError("prctl", err)
		}
		fd, errno = try()
	}
	switch {
	case errno == unix.EINVAL:
		return -1, errors.New("the kernel has no SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, which came with Linux 5.19")
	case errno == unix.EBUSY:
		return -1, errors.New("a filter that asks another program is there already, and the kernel asks one only")
	case errno != 0:
		return -1, errno
	}
	return fd, nil
}

// start starts the program under the filter. The calling thread's network namespace is the program's.
func start(o Options) (*exec.Cmd, asker, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, asker{}, os.NewSyscallError("socketpair", err)
	}
	defer unix.Close(pair[0])
	theirs := os.NewFile(uintptr(pair[1]), "channel")
	cmd := exec.Command(o.Self[0], append(o.Self[1:len(o.Self):len(o.Self)], o.Command...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Env, cmd.Dir = o.Stdin, o.Stdout, o.Stderr, o.Env, o.Dir
	cmd.ExtraFiles = []*os.File{theirs}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return nil, asker{}, err
	}
	goes := []byte{0}
	if len(o.To) > 0 {
		goes[0] = 1
	}
	_ = send(pair[0], goes) // who is gone already is told of by receive
	fd, err := receive(pair[0], cmd.Process.Pid)
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // what it said went to its standard error
		return nil, asker{}, err
	}
	return cmd, asker{fd}, nil
}

// receive fetches the descriptor that the channel tells of.
func receive(channel, pid int) (int, error) {
	var b [4]byte
	for {
		n, err := unix.Read(channel, b[:])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return -1, os.NewSyscallError("read", err)
		case n != len(b):
			return -1, errStart
		}
		break
	}
	fd, err := borrow(uint32(pid), int(binary.NativeEndian.Uint32(b[:])))
	if err != nil {
		return -1, err
	}
	if err := send(channel, []byte{0}); err != nil {
		unix.Close(fd)
		return -1, errors.Join(errStart, err)
	}
	return fd, nil
}

var errStart = errors.New("the program did not start")
