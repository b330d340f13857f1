package market_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fathom-trace/fathom/examples/market"
	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/lab/topology"
)

func TestMessages(t *testing.T) {
	var b [market.Size]byte
	tick := market.Tick{Seq: 1 << 40, Price: 10_007}
	tick.Put(b[:])
	if got, err := market.ReadTick(b[:]); err != nil || got != tick {
		t.Errorf("%+v, %v", got, err)
	}
	market.Decide(tick).Put(b[:])
	if got, err := market.ReadOrder(b[:]); err != nil || got != (market.Order{Seq: 1 << 40, Price: 10_008}) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := market.ReadOrder(b[:15]); err != market.ErrShort {
		t.Error(err)
	}
}

// TestTrade builds both programs and has each way of the strategy answer all ticks of an exchange, in namespaces of their own.
func TestTrade(t *testing.T) {
	ktest.Need(t, ktest.NetNS)
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", dir, "../exchange", "../strategy")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, way := range []string{"sockets", "netstack"} {
		t.Run(way, func(t *testing.T) {
			if way == "netstack" {
				ktest.Need(t, ktest.AFXDP)
			}
			trade(t, dir, way)
		})
	}
}

func trade(t *testing.T, dir, way string) {
	pair, err := topology.NewPair("va", "vb")
	if err != nil {
		t.Fatal(err)
	}
	defer pair.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	const ticks = "500"
	start := func(h topology.Host, name string, args ...string) (*exec.Cmd, *said) {
		cmd := exec.CommandContext(ctx, filepath.Join(dir, name), args...)
		out := &said{line: make(chan struct{}, 100)}
		cmd.Stdout, cmd.Stderr = out, out
		if err := h.NS.Do(cmd.Start); err != nil {
			t.Fatal(err)
		}
		return cmd, out
	}
	at := fmt.Sprintf("%s:9000", pair.A.Addr)
	exchange, heard := start(pair.A, "exchange", "-i", pair.A.Dev, "-listen", at, "-ticks", ticks)
	select {
	case <-heard.line: // it listens
	case <-ctx.Done():
		t.Fatal("the exchange does not listen")
	}
	strategy, did := start(pair.B, "strategy", "-i", pair.B.Dev, "-exchange", at, "-by", way)
	if err := exchange.Wait(); err != nil {
		t.Errorf("exchange: %v\n%s", err, heard)
		strategy.Process.Signal(syscall.SIGTERM)
	}
	if err := strategy.Wait(); err != nil {
		t.Errorf("strategy: %v\n%s", err, did)
	}
	if got := heard.String(); !strings.Contains(got, ticks+" ticks, each answered by its order; p50 ") {
		t.Errorf("the exchange said\n%s", got)
	}
	if got := did.String(); got != ticks+" orders\n" {
		t.Errorf("the strategy said %q", got)
	}
}

// said is what a program printed.
type said struct {
	line chan struct{} // gets something with each write
	b    bytes.Buffer
}

func (s *said) Write(b []byte) (int, error) {
	select {
	case s.line <- struct{}{}:
	default:
	}
	return s.b.Write(b)
}

func (s *said) String() string { return s.b.String() } // once the program has ended
