package traffic

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"
)

// here is the namespace the test is in: its loopback needs no privilege.
type here struct{}

func (here) Do(f func() error) error { return f() }

var loopback = netip.MustParseAddrPort("127.0.0.1:0")

func TestUDP(t *testing.T) {
	r, err := UDP(t.Context(), Flow{From: here{}, To: here{}, Addr: loopback, Messages: 1000, Size: 900})
	want := Count{1000, 900000}
	if err != nil || r.Sent != want || r.Received != want || r.Addr.Port() == 0 {
		t.Errorf("%+v: %v", r, err)
	}
}

func TestTCP(t *testing.T) {
	r, err := TCP(t.Context(), Flow{From: here{}, To: here{}, Addr: loopback, Messages: 50, Size: 100000})
	want := Count{50, 5000000}
	if err != nil || r.Sent != want || r.Received != want {
		t.Errorf("%+v: %v", r, err)
	}
}

func TestNothing(t *testing.T) {
	for name, send := range map[string]func(context.Context, Flow) (Result, error){"UDP": UDP, "TCP": TCP} {
		r, err := send(t.Context(), Flow{From: here{}, To: here{}, Addr: loopback, Size: 8})
		if err != nil || r.Sent != (Count{}) || r.Received != (Count{}) {
			t.Errorf("%s: %+v: %v", name, r, err)
		}
		if _, err := send(t.Context(), Flow{From: here{}, To: here{}, Addr: loopback, Messages: 1, Size: -1}); err == nil {
			t.Errorf("%s: a size of -1", name)
		}
	}
}

// TestCanceled: the context ends a flow in the middle.
func TestCanceled(t *testing.T) {
	for name, send := range map[string]func(context.Context, Flow) (Result, error){"UDP": UDP, "TCP": TCP} {
		var r Result
		var err error
		for within := 50 * time.Millisecond; r.Sent.Messages == 0 && within < time.Minute; within *= 2 { // the end may come before the middle
			ctx, cancel := context.WithTimeout(t.Context(), within)
			r, err = send(ctx, Flow{From: here{}, To: here{}, Addr: loopback, Messages: 1 << 30, Size: 1000, Pause: time.Millisecond})
			cancel()
		}
		if !errors.Is(err, context.DeadlineExceeded) || r.Sent.Messages == 0 {
			t.Errorf("%s: %+v: %v", name, r, err)
		}
	}
}

// broken is a place where nothing can be made.
type broken struct{}

var errBroken = errors.New("broken")

func (broken) Do(func() error) error { return errBroken }

func TestBroken(t *testing.T) {
	for name, send := range map[string]func(context.Context, Flow) (Result, error){"UDP": UDP, "TCP": TCP} {
		for _, f := range []Flow{{From: broken{}, To: here{}}, {From: here{}, To: broken{}}} {
			f.Addr, f.Messages, f.Size = loopback, 1, 100
			if _, err := send(t.Context(), f); !errors.Is(err, errBroken) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}
