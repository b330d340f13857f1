package capture

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/answers/packet"
	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/lab/topology"
	"github.com/fathom-trace/fathom/probe"
)

// TestRefusals: each way of sending and connecting that fails is told, with the call, the error and the address, whether the
// ends of functions can be seen or those of system calls must be.
func TestRefusals(t *testing.T) {
	ktest.Need(t, ktest.BTF, ktest.RawTracepoint, ktest.NetNS)
	w := world(t)
	pair, err := topology.NewPair("va", "vb")
	if err != nil {
		t.Fatal(err)
	}
	defer pair.Close()
	t.Run("functions", func(t *testing.T) {
		ktest.Need(t, ktest.Fentry)
		refusals(t, pair, func() (*Capture, error) { return open(w, Options{CPUs: 4, Ring: 1 << 20}, ways{ends: newEnds(w)}) }, true)
	})
	t.Run("calls", func(t *testing.T) {
		refusals(t, pair, func() (*Capture, error) { return open(w, Options{CPUs: 4, Ring: 1 << 20}, ways{}) }, false)
	})
}

func refusals(t *testing.T, pair *topology.Pair, open func() (*Capture, error), ends bool) {
	c, err := open()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := slices.ContainsFunc(c.sess.Accounts(), func(a probe.Account) bool { return a.Unit.Provider == "fexit" }); got != ends {
		t.Errorf("the ends of functions are watched: %v, want %v", got, ends)
	}
	if err := pair.A.NS.Do(refuse); err != nil {
		t.Fatal(err)
	}
	c.Stop()
	var got []string
	for {
		e, ok, err := c.Next(time.Now().Add(10 * time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		if e.Kind == packet.Refused && e.PID == uint32(os.Getpid()) {
			got = append(got, fmt.Sprintf("%s %v %v", e.Call, unix.Errno(e.Reason), e.To))
		}
	}
	const there, far = "203.0.113.9:9", "10.77.0.2:9"
	want := []string{
		"sendto network is unreachable " + there, "sendmsg network is unreachable " + there, "sendmmsg network is unreachable " + there,
		"connect network is unreachable " + there, "connect network is unreachable [2001:db8::9]:9",
		"write message too long " + far, "writev message too long " + far,
	}
	slices.Sort(got)
	slices.Sort(want)
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// refuse has the kernel refuse what cannot be sent: there is no route, or it is too long for a datagram.
func refuse() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	there := &unix.SockaddrInet4{Port: 9, Addr: netip.MustParseAddr("203.0.113.9").As4()}
	var errs []error
	want := func(err, want error) {
		if !errors.Is(err, want) {
			errs = append(errs, fmt.Errorf("got %w, want %w", err, want))
		}
	}
	want(unix.Sendto(fd, []byte("x"), 0, there), unix.ENETUNREACH)
	want(unix.Sendmsg(fd, []byte("x"), nil, there, 0), unix.ENETUNREACH)
	want(sendmmsg(fd, there), unix.ENETUNREACH)
	want(unix.Connect(fd, there), unix.ENETUNREACH)
	fd6, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd6)
	want(unix.Connect(fd6, &unix.SockaddrInet6{Port: 9, Addr: netip.MustParseAddr("2001:db8::9").As16()}), unix.ENETUNREACH)
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: 9, Addr: netip.MustParseAddr("10.77.0.2").As4()}); err != nil {
		return err
	}
	long := make([]byte, 70000)
	_, err = unix.Write(fd, long)
	want(err, unix.EMSGSIZE)
	_, err = unix.Writev(fd, [][]byte{long})
	want(err, unix.EMSGSIZE)
	return errors.Join(errs...)
}

// sendmmsg sends one message.
func sendmmsg(fd int, to *unix.SockaddrInet4) error {
	b := []byte("x")
	raw := unix.RawSockaddrInet4{Family: unix.AF_INET, Port: uint16(to.Port<<8 | to.Port>>8), Addr: to.Addr}
	iov := unix.Iovec{Base: &b[0], Len: 1}
	m := struct {
		hdr unix.Msghdr
		n   uint32
	}{hdr: unix.Msghdr{Name: (*byte)(unsafe.Pointer(&raw)), Namelen: unix.SizeofSockaddrInet4, Iov: &iov, Iovlen: 1}}
	_, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&m)), 1, 0, 0, 0)
	runtime.KeepAlive(b)
	if errno != 0 {
		return errno
	}
	return nil
}
