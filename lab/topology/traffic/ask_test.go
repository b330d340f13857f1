package traffic

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestAsk asks somebody who sends back what he gets, somebody who does not, and nobody.
func TestAsk(t *testing.T) {
	answering := func(echo bool) netip.AddrPort {
		ctx, cancel := context.WithCancel(t.Context())
		at, done := make(chan string, 1), make(chan error, 1)
		go func() {
			_, err := Listen(ctx, ListenOptions{Protocol: ProtoUDP, Addr: "127.0.0.1:0", Echo: echo, Ready: func(a string) { at <- a }})
			done <- err
		}()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		return netip.MustParseAddrPort(<-at)
	}
	var took []time.Duration
	o := AskOptions{From: here{}, To: answering(true), For: 50 * time.Millisecond, Took: func(d time.Duration) { took = append(took, d) }}
	a, err := Ask(t.Context(), o)
	if err != nil || a.Asked == 0 || len(took) != a.Asked-a.Lost {
		t.Errorf("%+v, %d answers: %v", a, len(took), err)
	}
	o.To, o.First = answering(false), time.Second
	if a, err := Ask(t.Context(), o); !errors.Is(err, ErrNobody) {
		t.Errorf("who is silent: %+v, %v", a, err)
	}
	o.To = netip.MustParseAddrPort("127.0.0.1:1")
	if a, err := Ask(t.Context(), o); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a closed port: %+v, %v", a, err)
	}
}
