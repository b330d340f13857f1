package netstack_test

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/bypass/netstack"
)

// TestListenAgain: a port is listened on once at a time, and again while connections of the listener before live on, which they do.
func TestListenAgain(t *testing.T) { eachHere(t, overListenAgain) }

func overListenAgain(t *testing.T, o netstack.Options) {
	asOn612(t)
	w := newSite(t, o)
	const addr = ours + ":8085"
	meet := func(l net.Listener) (near, far net.Conn) {
		t.Helper()
		far, err := w.dialKernel("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { far.Close() })
		if near, err = l.Accept(); err != nil {
			t.Fatal(err)
		}
		return near, far
	}
	first, err := w.s.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.s.Listen("tcp", addr); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a second listener: %v", err)
	}
	near, far := meet(first)
	first.Close()
	if c, err := w.dialKernel("tcp", addr); err == nil {
		c.Close()
		t.Error("somebody listens after Close")
	}
	second, err := w.s.Listen("tcp", addr)
	if err != nil {
		t.Fatalf("again, with a connection: %v", err)
	}
	near2, far2 := meet(second)
	second.Close()
	for _, p := range [][2]net.Conn{{near, far}, {near2, far2}} {
		if _, err := p[0].Write([]byte("lives")); err != nil {
			t.Error(err)
		}
		p[0].Close()
		if b, err := io.ReadAll(p[1]); err != nil || string(b) != "lives" {
			t.Errorf("%q, %v", b, err)
		}
		p[1].Close()
	}
	// A socket that is bound elsewhere: its port becomes ours, and is its again. It listens, for what comes by other devices.
	if err := w.p.A.NS.Do(func() error {
		if o.Backend == netstack.Packet {
			k, err := net.Listen("tcp", addr) // of MPTCP
			if err != nil {
				return err
			}
			if l, err := w.s.ListenBound(k.(*net.TCPListener)); !errors.Is(err, syscall.EOPNOTSUPP) {
				t.Errorf("a socket that takes no filter: %v, %v", l, err)
			}
			k.Close()
		}
		var lc net.ListenConfig
		lc.SetMultipathTCP(false)
		k, err := lc.Listen(w.patient, "tcp", addr)
		if err != nil {
			return err
		}
		defer k.Close()
		third, err := w.s.ListenBound(k.(*net.TCPListener))
		if err != nil {
			return err
		}
		near, far := meet(third)
		near.Close()
		far.Close()
		third.Close()
		c, err := w.dialKernel("tcp", addr)
		if err != nil {
			return err
		}
		defer c.Close()
		n, err := k.Accept()
		if err != nil {
			return err
		}
		return n.Close()
	}); err != nil {
		t.Error(err)
	}
	u, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(u)
	if l, err := w.s.ListenBound(raw(u)); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("a socket that is not bound: %v, %v", l, err)
	}
}

// raw is a descriptor as package syscall has it.
type raw int

func (r raw) SyscallConn() (syscall.RawConn, error) { return r, nil }
func (r raw) Control(f func(fd uintptr)) error      { f(uintptr(r)); return nil }
func (r raw) Read(func(fd uintptr) bool) error      { return errors.ErrUnsupported }
func (r raw) Write(func(fd uintptr) bool) error     { return errors.ErrUnsupported }
