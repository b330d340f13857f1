package nic_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/fathom-trace/fathom/answers/nic"
	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/internal/polling"
	"github.com/fathom-trace/fathom/lab/topology/traffic"
	netlive "github.com/fathom-trace/fathom/netstate/live"
)

// TestModes compares the modes of cards whose packets come by interrupts, and looks at what each mode does.
func TestModes(t *testing.T) {
	ktest.NeedGuest(t, ktest.BTF, ktest.RawTracepoint, ktest.NetNS)
	e, v := joined(t)
	ctx, cancel := context.WithCancel(t.Context())
	done, ready := make(chan error, 1), make(chan string, 1)
	go func() {
		done <- v.ns.Do(func() error {
			_, err := traffic.Listen(ctx, traffic.ListenOptions{Protocol: traffic.ProtoUDP, Addr: "10.99.0.2:7", Echo: true, Ready: func(s string) { ready <- s }})
			return err
		})
	}()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	<-ready
	r, err := netlive.OpenNS(e.ns)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	devs, err := r.NICs(e.dev)
	if err != nil {
		t.Fatal(err)
	}
	w, _, cpus := world(t)
	p, err := nic.OpenPolls(w, cpus, devs[0].Index, uint32(r.NS().Inode))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	o := polling.Options{Reader: r, Dev: e.dev, Index: devs[0].Index, To: netip.MustParseAddrPort("10.99.0.2:7"), For: 600 * time.Millisecond, Rounds: 2, Polls: p.Read}
	for _, vec := range devs[0].Vectors {
		o.IRQs = append(o.IRQs, vec.IRQ)
	}
	m, err := polling.Compare(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if err := m.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", text.String())
	by := map[nic.Mode]nic.ModeResult{}
	for _, row := range m.Rows {
		by[row.Mode] = row
		if row.Refused != "" || row.Trips == 0 || row.Times.Count != row.Trips || row.IRQs == nil || row.Polled == nil || row.Polled.Polls == 0 {
			t.Errorf("%s: %+v", row.Mode, row)
		}
	}
	if t.Failed() {
		return
	}
	if i := by[nic.ByInterrupt]; *i.IRQs == 0 || i.Polled.Runs == 0 || i.Polled.NS == 0 || i.Polled.Outside*2 > i.Polled.Polls { // a thread of the mode before may end
		t.Errorf("by interrupt: %d irqs, %+v", *i.IRQs, i.Polled)
	}
	if th := by[nic.ByThread]; th.Polled.Outside == 0 || th.Polled.ByOutside < th.Trips {
		t.Errorf("by thread: %d answers, %+v", th.Trips, th.Polled)
	}
	if d := by[nic.ByDeferral]; d.Polled.Polls <= d.Trips {
		t.Errorf("deferred: %d answers, %d polls, and none in vain", d.Trips, d.Polled.Polls)
	}
}
