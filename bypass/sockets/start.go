package sockets

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// channel is the descriptor by which [Enter] hands out the one that the kernel asks by.
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
	fd, err := install()
	if err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	if err := unix.Sendmsg(channel, []byte{0}, unix.UnixRights(fd), nil, 0); err != nil {
		return os.NewSyscallError("sendmsg", err)
	}
	unix.Close(fd)
	unix.Close(channel)
	return &os.PathError{Op: "exec", Path: path, Err: unix.Exec(path, argv, os.Environ())}
}

// install puts the calling thread under the filter. While a call is being answered only signals that kill interrupt it (Linux 5.19,
// SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV): otherwise its thread might run on while we write what it has asked for into its memory. Without CAP_SYS_ADMIN it, and what it starts, can gain no privileges anymore.
func install() (int, error) {
	p := filter()
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
	fd, err := receive(pair[0])
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // what it said went to its standard error
		return nil, asker{}, err
	}
	return cmd, asker{fd}, nil
}

// receive takes the descriptor from the channel.
func receive(channel int) (int, error) {
	b, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	var n, oobn int
	var err error
	for {
		if n, oobn, _, _, err = unix.Recvmsg(channel, b, oob, unix.MSG_CMSG_CLOEXEC); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return -1, os.NewSyscallError("recvmsg", err)
	}
	if n == 0 {
		return -1, errStart
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(msgs) != 1 {
		return -1, errors.Join(errors.New("no descriptor came from the program's start"), err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return -1, errors.Join(errors.New("no descriptor came from the program's start"), err)
	}
	return fds[0], nil
}

var errStart = errors.New("the program did not start")
