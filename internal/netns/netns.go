// Package netns makes network namespaces and runs code in them. Only the network changes: mounts stay, so tracefs and
// bpffs are where they were (unlike under `ip netns exec`). An unnamed namespace lives as long as its descriptor.
package netns

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// NS is a network namespace held by a descriptor. The owner closes it.
type NS struct{ fd int }

// New makes an unnamed namespace. It goes when the NS is closed and nothing is left in it.
func New() (NS, error) {
	ns := NS{-1}
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make network namespace: %w", err)
		}
		fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open new network namespace: %w", err)
		}
		ns.fd = fd
		return nil
	})
	return ns, err
}

// Sysfs mounts sysfs as the namespace that the thread is in sees it: devices are shown by the namespace it was mounted in. The
// mount is attached nowhere and goes with the descriptor, which is the caller's; paths begin with /proc/self/fd/FD.
func Sysfs(readOnly bool) (int, error) {
	fs, err := unix.Fsopen("sysfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("mount sysfs: %w", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("mount sysfs: %w", err)
	}
	attrs := unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	if readOnly {
		attrs |= unix.MOUNT_ATTR_RDONLY
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return -1, fmt.Errorf("mount sysfs: %w", err)
	}
	return fd, nil
}

// FD gives the descriptor, valid until Close.
func (n NS) FD() int { return n.fd }

// Close lets go of the namespace.
func (n NS) Close() error { return unix.Close(n.fd) }

// Do runs f inside the namespace, on a thread of its own. Sockets that f opens stay in the namespace. To do something in the
// namespace where one already is takes no privilege.
func (n NS) Do(f func() error) error {
	return onThread(func() error {
		if n.here() {
			return f()
		}
		if err := unix.Setns(n.fd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return f()
	})
}

// here says if this thread is in the namespace.
func (n NS) here() bool {
	var own, it unix.Stat_t
	return unix.Stat("/proc/thread-self/ns/net", &own) == nil && unix.Fstat(n.fd, &it) == nil && own.Dev == it.Dev && own.Ino == it.Ino
}

// Exec replaces this process with a program, in the namespace: the thread that enters is the one that execve(2) keeps. It
// returns only if it fails. path is the program, args begin with its name.
func (n NS) Exec(path string, args, env []string) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	old, err := Current()
	if err != nil {
		return err
	}
	defer old.Close()
	if err := unix.Setns(n.fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	err = fmt.Errorf("run %s: %w", path, unix.Exec(path, args, env))
	return errors.Join(err, unix.Setns(old.fd, unix.CLONE_NEWNET)) // the thread goes back to others
}

// onThread runs f on a thread that ends afterwards: its namespaces are not given to other goroutines. It is never the
// main thread, which does not end, and whose namespaces others take for the process's (/proc/PID/ns).
func onThread(f func() error) error {
	errs := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread dies with the goroutine
		if unix.Gettid() != unix.Getpid() {
			defer close(errs)
			errs <- f()
			return
		}
		errs <- onThread(f) // this goroutine holds the main thread meanwhile
		runtime.UnlockOSThread()
	}()
	err, ok := <-errs
	if !ok {
		return errors.New("the function in a network namespace ended its goroutine")
	}
	return err
}
