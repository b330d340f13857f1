package xsk

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Error is an operation on a queue that failed, with the reason in words.
type Error struct {
	Op     string // "bind"
	Device Device
	Queue  int
	Err    error
	Why    string   // what such an error means there; "" if nothing is known
	Try    []string // commands that look into it, or get around it
}

// Error gives the operation, the object, the cause and what it means.
func (e *Error) Error() string {
	s := fmt.Sprintf("%s AF_XDP socket, %s queue %d: %v", e.Op, e.Device, e.Queue, e.Err)
	if e.Why != "" {
		s += ": " + e.Why
	}
	return s
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// explain says what an errno means for an operation.
func (q *Queue) explain(op string, err error) error {
	e := &Error{Op: op, Device: q.dev, Queue: q.key.Queue, Err: err}
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return e
	}
	for _, m := range meanings {
		if (m.op == "" || m.op == op) && m.errno == errno && (m.when == nil || m.when(q)) {
			e.Why = m.why
			for _, t := range m.try {
				e.Try = append(e.Try, strings.ReplaceAll(t, "DEVICE", q.dev.Name))
			}
			break
		}
	}
	return e
}

// meanings are the errnos of net/xdp/xsk.c, xdp_umem.c and xsk_buff_pool.c; the first row that fits is taken.
var meanings = []struct {
	op    string // "" is any
	errno syscall.Errno
	when  func(*Queue) bool
	why   string
	try   []string
}{
	{"open socket", unix.EAFNOSUPPORT, nil, "this kernel is built without AF_XDP (CONFIG_XDP_SOCKETS)", []string{"fathom doctor"}},
	{"open socket", unix.EPERM, nil, "an AF_XDP socket takes CAP_NET_RAW in its network namespace", []string{"fathom doctor"}},
	{"register memory", unix.EPERM, nil, "pinning memory takes CAP_IPC_LOCK, or a limit on locked memory (ulimit -l) that is large enough", nil},
	{"register memory", unix.ENOBUFS, nil, "the frames are more than the limit on locked memory (ulimit -l) allows a process without CAP_IPC_LOCK; fewer frames fit", nil},
	{"register memory", unix.ENOMEM, nil, "there is not as much memory that can be pinned", nil},
	{"register memory", unix.EINVAL, nil, "the kernel takes frames of a power of two of bytes, from 2048 to a page, and flags that it knows", nil},
	{"make ring", unix.EINVAL, nil, "the number of entries of a ring must be a power of two", nil},
	{"make ring", unix.ENOMEM, nil, "there is no memory for so many entries", nil},
	{"bind", unix.EBUSY, func(q *Queue) bool { return q.caps.Retries > 0 },
		"another AF_XDP socket has this queue, or one that was closed is not taken apart yet (it was tried again all the while)", []string{"fathom bypass status"}},
	{"bind", unix.EBUSY, nil, "another AF_XDP socket has this queue", []string{"fathom bypass status"}},
	{"bind", unix.EOPNOTSUPP, func(q *Queue) bool { return q.opts.Copying == ZeroCopy },
		"zero copy was asked for, and this driver has none for such frames (veth, virtio and all generic mode have none); copying works everywhere", nil},
	{"bind", unix.EOPNOTSUPP, nil, "the driver does not take packets of several buffers, or the frame size", nil},
	{"bind", unix.EINVAL, func(q *Queue) bool { return q.caps.Shared },
		"the device has no queue of this number, or the rings of the queue are wrong for shared memory", []string{"ethtool -l DEVICE"}},
	{"bind", unix.EINVAL, func(q *Queue) bool { return q.opts.MultiBuffer },
		"the device has no queue of this number, or this kernel does not know packets of several buffers (XDP_USE_SG, Linux 6.6)", []string{"ethtool -l DEVICE"}},
	{"bind", unix.EINVAL, nil, "the device has no queue of this number", []string{"ethtool -l DEVICE"}},
	{"bind", unix.ENODEV, nil, "the device is gone", nil},
	{"bind", unix.ENETDOWN, nil, "the device is down", []string{"ip link set DEVICE up"}},
	{"bind", unix.EBADF, nil, "the socket whose memory is shared is closed or not bound", nil},
	{"bind", unix.EPERM, nil, "binding takes CAP_NET_RAW in the device's network namespace", []string{"fathom doctor"}},
	{"ask for busy polling", unix.EPERM, nil, "to prefer busy polling, or a budget above 64 packets, takes CAP_NET_ADMIN", nil},
	{"ask for busy polling", unix.ENOPROTOOPT, nil, "this kernel cannot prefer busy polling (Linux 5.11)", nil},
	{"send", unix.ENETDOWN, nil, "the device is down, or the socket is not bound any more", []string{"ip link set DEVICE up"}},
	{"send", unix.ENXIO, nil, "the socket has no transmit ring, or the device is gone", nil},
	{"send", unix.EOPNOTSUPP, nil, "the driver cannot send from AF_XDP sockets", nil},
	{"send", unix.EMSGSIZE, nil, "a packet is longer than the device's MTU, or has more buffers than the driver takes", nil},
	{"send", unix.EOVERFLOW, nil, "a packet has more buffers than the driver takes", nil},
	{"send", unix.EINVAL, nil, "a descriptor means nothing to the kernel: its address, length or options", nil},
	{"", unix.EPERM, nil, "this takes CAP_NET_RAW, and CAP_NET_ADMIN for XDP programs", []string{"fathom doctor"}},
}
