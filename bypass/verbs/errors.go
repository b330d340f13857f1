package verbs

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/netstate/rdma"
)

// ErrClosed says that something is used, or closed, after it was closed.
var ErrClosed = errors.New("it is closed")

// Errors of posting work.
var (
	ErrFull   = errors.New("all work that a queue pair has room for is under way or not polled")
	ErrFailed = errors.New("the queue pair has failed: a completion said why, and no more work is done")
)

// Error is an operation on a device that failed, with the reason in words.
type Error struct {
	Op     string // "register memory on"
	Device string
	Err    error
	Why    string   // what such an error means there; "" if nothing is known
	Try    []string // commands that look into it, or get around it
}

// Error gives the operation, the object, the cause and what it means.
func (e *Error) Error() string {
	s := fmt.Sprintf("%s RDMA device %s: %v", e.Op, e.Device, e.Err)
	if e.Why != "" {
		s += ": " + e.Why
	}
	return s
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// explain says what an error means for an operation.
func explain(op, device string, err error) error {
	e := &Error{Op: op, Device: device, Err: err}
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return e
	}
	for _, m := range meanings {
		if strings.HasPrefix(op, m.op) && m.errno == errno {
			e.Why, e.Try = m.why, m.try
			break
		}
	}
	return e
}

// meanings are errnos of drivers/infiniband/core/uverbs_main.c, uverbs_cmd.c, umem.c and sw/rxe; the first row that fits is taken.
var meanings = []struct {
	op    string // how the operation begins
	errno syscall.Errno
	why   string
	try   []string
}{
	{"open", unix.EACCES, "the file belongs to root, and on Debian to the group rdma where rdma-core is installed", nil},
	{"open", unix.ENOENT, "the device is there, its file is not: udev or devtmpfs makes it", nil},
	{"open", unix.ENXIO, "the device is gone", []string{"fathom bypass rdma"}},
	{"register memory", unix.ENOMEM, "more memory would be locked than ulimit -l allows a process without CAP_IPC_LOCK, or there is none", []string{"ulimit -l"}},
	{"make a queue pair", unix.EINVAL, "more work, or more segments of it, were asked for than the device has room for", nil},
	{"make a completion queue", unix.EINVAL, "more entries were asked for than the device has room for", nil},
	{"make", unix.ENOMEM, "the device has no more of them, or there is no memory", nil},
	{"connect", unix.EHOSTUNREACH, "no route from the device's network device to the peer's address", []string{"ip route get PEER oif DEVICE"}},
	{"connect", unix.ENETUNREACH, "no route from the device's network device to the peer's address", []string{"ip route get PEER oif DEVICE"}},
	{"connect", unix.ETIMEDOUT, "the peer's address has no neighbour that answers on the device's network", []string{"ip neighbour"}},
	{"connect", unix.EINVAL, "the states of the pair must be gone through in order, with an MTU that the port has", nil},
	{"end a protection domain", unix.EBUSY, "memory or queue pairs are in it", nil},
	{"", unix.EIO, "the device was removed", []string{"fathom bypass rdma"}},
}

// notThere says which devices there are instead.
func notThere(name string, devs []rdma.Device, err error) error {
	e := &Error{Op: "find", Device: name, Err: fs.ErrNotExist, Try: []string{"fathom bypass rdma"}}
	if err != nil {
		e.Err = errors.Join(e.Err, err)
	}
	if len(devs) == 0 {
		e.Why = "this machine has none, in hardware or in software (module rdma_rxe)"
		e.Try = []string{"modprobe rdma_rxe", "rdma link add rxe0 type rxe netdev " + name}
		return e
	}
	names := make([]string, len(devs))
	for i := range devs {
		names[i] = devs[i].Name
	}
	e.Why = "there are " + strings.Join(names, ", ")
	return e
}
