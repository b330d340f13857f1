package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/lease"
)

// RunDir is where namespaces have names, as ip-netns(8) has it.
const RunDir = "/run/netns"

// Kind is the kind of a named namespace's lease; [Clean] is its cleaner.
const Kind = "netns"

// Open enters nothing yet: it opens a namespace by the number of a process in it, by a path, or by its name in [RunDir].
func Open(ref string) (NS, error) {
	path := filepath.Join(RunDir, ref)
	switch _, err := strconv.ParseUint(ref, 10, 31); {
	case err == nil:
		path = "/proc/" + ref + "/ns/net"
	case strings.Contains(ref, "/"):
		path = ref
	case !validName(ref):
		return NS{-1}, fmt.Errorf("open network namespace %q: %w", ref, fs.ErrInvalid)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return NS{-1}, &fs.PathError{Op: "open network namespace", Path: path, Err: err}
	}
	if err := isNetNS(fd); err != nil {
		unix.Close(fd)
		return NS{-1}, fmt.Errorf("open network namespace %s: %w", path, err)
	}
	return NS{fd}, nil
}

// isNetNS asks for a descriptor's kind of namespace (NS_GET_NSTYPE, Linux 4.11).
func isNetNS(fd int) error {
	typ, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	switch {
	case errors.Is(err, unix.ENOTTY):
		return errors.New("not a namespace")
	case err != nil:
		return err
	case typ != unix.CLONE_NEWNET:
		return errors.New("a namespace, but not of the network")
	}
	return nil
}

// Current opens the namespace this process is in.
func Current() (NS, error) { return Open("/proc/self/ns/net") }

// Named is a namespace with a name that others can use (ip netns exec NAME …). It stays until it is removed.
type Named struct {
	NS
	Name  string
	lease *lease.Lease
}

// NewNamed makes a namespace and gives it a name. The record in d removes it should this process die.
func NewNamed(d lease.Dir, name string) (n *Named, err error) {
	if !validName(name) {
		return nil, fmt.Errorf("name network namespace %q: %w", name, fs.ErrInvalid)
	}
	ns, err := New()
	if err != nil {
		return nil, err
	}
	n = &Named{NS: ns, Name: name}
	if n.lease, err = d.New(Kind, name, nil); err == nil {
		if err = bind(ns, name); err == nil {
			return n, nil
		}
		err = errors.Join(err, n.lease.Release()) // the name was not made, or was another's
	}
	return nil, errors.Join(err, ns.Close())
}

// Bind gives a namespace a name, without a lease: that is its owner's. It fails if the name is taken.
func (n NS) Bind(name string) error {
	if !validName(name) {
		return fmt.Errorf("name network namespace %q: %w", name, fs.ErrInvalid)
	}
	return bind(n, name)
}

// bind mounts the namespace on its name. It fails if the name is taken.
func bind(ns NS, name string) error {
	if err := os.MkdirAll(RunDir, 0o755); err != nil {
		return err
	}
	path := filepath.Join(RunDir, name)
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|os.O_EXCL, 0)
	if err != nil {
		return fmt.Errorf("name network namespace %s: %w", name, err)
	}
	f.Close()
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", ns.fd), path, "", unix.MS_BIND, ""); err != nil {
		return errors.Join(fmt.Errorf("name network namespace %s: %w", name, err), os.Remove(path))
	}
	return nil
}

// Keep leaves the namespace to the person who asked for it: it stays when this process ends.
func (n *Named) Keep() error { return n.lease.Keep() }

// Close removes the name, and the namespace unless someone else is in it.
func (n *Named) Close() error {
	err := Remove(n.Name)
	if err == nil {
		err = n.lease.Release()
	}
	return errors.Join(err, n.NS.Close())
}

// Remove takes a name away. It is no error if there is no such name.
func Remove(name string) error {
	if !validName(name) {
		return fmt.Errorf("remove network namespace %q: %w", name, fs.ErrInvalid)
	}
	path := filepath.Join(RunDir, name)
	err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && err != unix.EINVAL && err != unix.ENOENT { // EINVAL: not a mount point
		return fmt.Errorf("remove network namespace %s: %w", name, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Clean is the lease's cleaner of named namespaces.
func Clean(r lease.Record) error { return Remove(r.Name) }

// validName refuses what would leave the folder, and numbers, which are processes.
func validName(name string) bool {
	_, err := strconv.Atoi(name)
	return err != nil && name != "" && name != "." && name != ".." && !strings.Contains(name, "/") && len(name) < unix.NAME_MAX
}
