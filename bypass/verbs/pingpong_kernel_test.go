package verbs_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fathom-trace/fathom/bypass/verbs"
	"github.com/fathom-trace/fathom/bypass/verbs/pingpong"
	"github.com/fathom-trace/fathom/netstate/rdma"
)

// TestRoundTrips: a server answers one client after the other, in messages of any size; who is no client is told of and does no harm;
// the end of the server is told to a client that measures.
func TestRoundTrips(t *testing.T) {
	dev := device(t)
	before := find(t, dev).Used
	xs, xc := contextOf(t, dev), contextOf(t, dev)
	type did struct {
		pingpong.Account
		err error
	}
	accounts := make(chan did, 8)
	s := pingpong.Server{Done: func(a pingpong.Account, err error) { accounts <- did{a, err} }}
	if err := s.Listen(t.Context(), "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	serving, end := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Serve(serving, xs); err != nil {
			t.Error(err)
		}
	})
	for _, o := range []pingpong.Options{{Count: 200, Size: 1}, {Count: 100, Size: 5000, Spin: true}, {Count: 2, Size: pingpong.MostSize}} {
		var times []time.Duration
		if err := pingpong.Ping(ctx, xc, s.Addr(), o, func(d time.Duration) { times = append(times, d) }); err != nil {
			t.Fatalf("%+v: %v", o, err)
		}
		a := <-accounts
		if len(times) != o.Count || a.err != nil || a.Messages != o.Count || a.Size != o.Size || times[0] <= 0 {
			t.Errorf("%+v: %d round trips; the server: %+v", o, len(times), a)
		}
	}
	c, err := net.Dial("tcp", s.Addr())
	if err == nil {
		_, err = io.WriteString(c, "GET / HTTP/1.1\r\n")
	}
	if err != nil {
		t.Fatal(err)
	}
	if rest, err := bufio.NewReader(c).ReadString('\n'); err != io.EOF || rest != "" {
		t.Errorf("a stranger is answered %q, %v", rest, err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if a := <-accounts; a.err == nil || !strings.Contains(a.err.Error(), "no fathom bypass rdma") {
		t.Errorf("a stranger: %v", a.err)
	}
	n := 0
	err = pingpong.Ping(ctx, xc, s.Addr(), pingpong.Options{Count: 1 << 30, Size: 8}, func(time.Duration) {
		if n++; n == 50 {
			end()
		}
	})
	if err == nil || !strings.Contains(err.Error(), "the other end is gone") || n < 50 {
		t.Errorf("a server that ends after %d round trips: %v", n, err)
	}
	wg.Wait()
	used(t, dev, plus(before, "ctx", 2))
}

// plus gives what is in use with more of one kind.
func plus(u []rdma.Used, what string, n uint64) []rdma.Used {
	out := append([]rdma.Used(nil), u...)
	for i := range out {
		if out[i].What == what {
			out[i].Count += n
		}
	}
	return out
}

// contextOf opens a device for a test.
func contextOf(t *testing.T, dev string) *verbs.Context {
	t.Helper()
	x, err := verbs.Open(dev)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	})
	return x
}
