package traffic

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// AskOptions say whom to ask, and how the answers are waited for.
type AskOptions struct {
	First time.Duration  // how long the first answer may take, 15 s if 0
	From  Place          // where the socket is made
	To    netip.AddrPort // who sends back each datagram of UDP
	For   time.Duration
	Busy  time.Duration // poll the device for so long before sleeping (SO_BUSY_POLL), in whole microseconds; 0 sleeps
	Took  func(time.Duration)
}

// Asked is what became of the questions.
type Asked struct {
	Asked, Lost int
	NAPI        uint32 // the instance that the last answer came by (SO_INCOMING_NAPI_ID); 0 if by none
}

const (
	askSize = 64
	askLost = time.Second // without an answer
	// askFirst is how long the first answer may take: neighbours are looked for, and on a machine that has much to do who answers may
	// not run for seconds.
	askFirst = 15 * time.Second
)

// ErrNobody says that nobody answers.
var ErrNobody = errors.New("nobody answers")

// Ask sends datagrams, each when the answer to the one before came or is lost, from a thread that sleeps in recv(2) as a plain
// program does: not by Go's poller, which a device could not be polled through. The answers to the first are not counted,
// as neighbours are looked for meanwhile. The end of the context is no error.
func Ask(ctx context.Context, o AskOptions) (a Asked, err error) {
	err = o.From.Do(func() (err error) {
		runtime.LockOSThread() // its CPU is what answers come to
		defer runtime.UnlockOSThread()
		fd, err := o.open()
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		q := asker{fd: fd}
		for deadline := time.Now().Add(cmp.Or(o.First, askFirst)); ; {
			if _, ok, err := q.ask(); err != nil {
				return fmt.Errorf("ask %s: %w", o.To, err)
			} else if ok {
				break
			}
			if ctx.Err() != nil {
				return nil
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("ask %s: %w", o.To, ErrNobody)
			}
		}
		for end := time.Now().Add(o.For); time.Now().Before(end) && ctx.Err() == nil; {
			took, ok, err := q.ask()
			if err != nil {
				return fmt.Errorf("ask %s: %w", o.To, err)
			}
			a.Asked++
			if !ok {
				a.Lost++
				continue
			}
			o.Took(took)
		}
		id, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_INCOMING_NAPI_ID)
		if err == nil {
			a.NAPI = uint32(id)
		}
		return nil
	})
	return a, err
}

// open makes the socket, on a thread in the namespace.
func (o *AskOptions) open() (int, error) {
	family, to := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: int(o.To.Port())})
	if o.To.Addr().Is4() {
		to.(*unix.SockaddrInet4).Addr = o.To.Addr().As4()
	} else {
		family, to = unix.AF_INET6, &unix.SockaddrInet6{Port: int(o.To.Port()), Addr: o.To.Addr().As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	wait := unix.NsecToTimeval(int64(askLost))
	err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait)
	if err == nil && o.Busy > 0 {
		if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BUSY_POLL, int(o.Busy.Microseconds())); err != nil {
			err = fmt.Errorf("set SO_BUSY_POLL: %w", err)
		}
	}
	if err == nil {
		if err = unix.Connect(fd, to); err != nil {
			err = fmt.Errorf("connect to %s: %w", o.To, err)
		}
	}
	if err != nil {
		unix.Close(fd)
		return 0, err
	}
	return fd, nil
}

// asker numbers questions.
type asker struct {
	fd  int
	seq uint64
}

// ask asks once; ok says that the answer came.
func (q *asker) ask() (took time.Duration, ok bool, err error) {
	var out, in [askSize]byte
	q.seq++
	binary.BigEndian.PutUint64(out[:], q.seq)
	start := time.Now()
	for {
		if _, err = unix.Write(q.fd, out[:]); err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return 0, false, err
	}
	for {
		n, err := unix.Read(q.fd, in[:])
		took = time.Since(start)
		switch {
		case err == unix.EINTR && took < askLost:
		case err == unix.EAGAIN || err == unix.EINTR:
			return took, false, nil
		case err != nil:
			return took, false, err
		case n >= seqLen && binary.BigEndian.Uint64(in[:]) == q.seq:
			return took, true, nil
		case took >= askLost: // late answers to others only
			return took, false, nil
		}
	}
}
