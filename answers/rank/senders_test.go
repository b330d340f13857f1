package rank

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/fathom-trace/fathom/bypass/traffic"
	"github.com/fathom-trace/fathom/bypass/xsk"
	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/lab/topology"
)

// TestTwoSenders: packets that leave by an AF_XDP socket and by one of UDP are told apart by their stacks, with as many hits and bytes as
// were sent. What arrives is handed over by the sender's own call (netif_rx), so each stack is whole.
func TestTwoSenders(t *testing.T) {
	p := here(t)
	ktest.Need(t, ktest.NetNS, ktest.XDP, ktest.AFXDP)
	const byXSK, byUDP, size, payload = 40, 48, 60, 100
	near, far := fmt.Sprintf("n%d", os.Getpid()), fmt.Sprintf("f%d", os.Getpid())
	pair, err := topology.NewPair(near, far)
	if err != nil {
		t.Fatal(err)
	}
	defer pair.Close()
	dev := func(h topology.Host) xsk.Device {
		return xsk.Device{Name: h.Dev, NetNS: fmt.Sprintf("/proc/self/fd/%d", h.FD())}
	}
	la, err := traffic.Of(dev(pair.A))
	if err != nil {
		t.Fatal(err)
	}
	lb, err := traffic.Of(dev(pair.B))
	if err != nil {
		t.Fatal(err)
	}
	tm, err := traffic.NewTemplate(traffic.Flow{SrcMAC: la.MAC, DstMAC: lb.MAC, Src: netip.AddrPortFrom(la.Net.Addr(), 4096), Dst: netip.AddrPortFrom(lb.Net.Addr(), 4096)}, size)
	if err != nil {
		t.Fatal(err)
	}
	tx, err := traffic.Open(t.Context(), traffic.Config{Device: dev(pair.A), NoProgram: true, Queues: []int{0}, Queue: xsk.Options{NoRX: true}})
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Close()
	var in, out net.Conn
	receiver := func() error {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: lb.Net.Addr().AsSlice(), Port: 4097})
		in = c
		return err
	}
	sender := func() (err error) {
		out, err = net.Dial("udp4", netip.AddrPortFrom(lb.Net.Addr(), 4097).String())
		return err
	}
	if err := pair.B.Do(receiver); err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := pair.A.Do(sender); err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	datagrams := func(n int) {
		t.Helper()
		for range n {
			if _, err := out.Write(make([]byte, payload)); err != nil {
				t.Fatal(err)
			}
			in.SetReadDeadline(time.Now().Add(time.Minute))
			if _, err := in.Read(make([]byte, payload)); err != nil {
				t.Fatal(err)
			}
		}
	}
	datagrams(1) // the neighbour is known from now on: what waits for it is sent by somebody else
	q := p.query(t, "net:netif_rx", fmt.Sprintf("name == %q", far), "kstack", "len")
	tabs := p.count(t, q, func() {
		if n, err := traffic.Send(t.Context(), tx.Queues[0], traffic.SendOptions{Template: tm, Count: byXSK, Batch: 8}); n != byXSK || err != nil {
			t.Fatalf("%d frames sent: %v", n, err)
		}
		datagrams(byUDP)
	})
	for engine, tab := range tabs {
		for _, way := range []struct {
			function, caller string // poll sends what a full ring left, too
			hits             uint64
			sum              int64
		}{{"__dev_direct_xmit+", "xsk_", byXSK, byXSK * (size - 14)}, {"__dev_queue_xmit+", "udp_sendmsg+", byUDP, byUDP * (payload + 28)}} {
			hits, sum := uint64(0), int64(0)
			for _, r := range tab.Rows {
				if s := r.Keys[0].String(); strings.Contains(s, way.function) && strings.Contains(s, way.caller) {
					hits, sum = hits+r.Hits, sum+r.Sums[0]
				}
			}
			if hits != way.hits || sum != way.sum {
				t.Errorf("%s: %d packets of %d bytes went through %s, want %d of %d: %+v", engine, hits, sum, way.function, way.hits, way.sum, tab.Rows)
			}
		}
	}
}
