package packet

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// seen is a line of a story: a packet and what happens to it.
type seen struct {
	d    datagram
	what string
}

const (
	a0 = "10.0.0.1:40000"
	b0 = "10.0.0.2:9"
)

func udp(src, dst string) datagram { return datagram{proto: protoUDP, src: src, dst: dst} }

func (d datagram) with(change func(*datagram)) datagram { change(&d); return d }

func id(n uint16) func(*datagram) { return func(d *datagram) { d.id = n } }
func ttl(n uint8) func(*datagram) { return func(d *datagram) { d.ttl = n } }

func tcp(seq uint32, id uint16) datagram {
	return datagram{proto: protoTCP, src: a0, dst: "10.0.0.2:80", seq: seq, id: id, flags: 0x10}
}

// inside puts a packet into another: of IPIP, or of GRE or VXLAN with their headers.
func inside(proto uint8, hdr []byte, in []byte) datagram {
	d := datagram{proto: proto, src: "192.0.2.1:0", dst: "192.0.2.2:0", rest: append(hdr[:len(hdr):len(hdr)], in...)}
	if proto == protoUDP {
		d.src, d.dst = "192.0.2.1:55555", "192.0.2.2:4789"
	}
	return d
}

var (
	gre   = []byte{0, 0, 8, 0}
	vxlan = []byte{8, 0, 0, 0, 0, 0, 42, 0}
)

const flowA = "udp 10.0.0.1:40000 > 10.0.0.2:9"

// TestTracker tells stories of packets and compares what the flows come to.
func TestTracker(t *testing.T) {
	in := udp(a0, b0)
	snat := udp("192.0.2.9:1024", b0)
	icmp := func(src, dst, inSrc, inDst string) datagram {
		return datagram{proto: protoICMP, src: src + ":0", dst: dst + ":0", kind: 3<<8 | 1, id: 7, rest: udp(inSrc, inDst).bytes()}
	}
	for _, c := range []struct {
		name  string
		story []seen
		want  []sums
	}{
		{"one packet from device to process", []seen{
			{in, "queue skb=1 ns=1 dev=1"}, {in, "xmit skb=1 ns=1 dev=1"}, {in, "rx skb=1 ns=2 dev=2"}, {in, "copied skb=1 ns=2"},
		}, []sums{{flowA, 1, 1, 0, 0}}},
		{"an address again, with an end in between", []seen{
			{in, "queue skb=1 ns=1 dev=1"}, {in, "consume skb=1 last by=x"}, {in, "queue skb=1 ns=1 dev=1"},
		}, []sums{{flowA, 2, 0, 0, 2}}},
		{"an address again in silence, other identification", []seen{
			{in.with(id(1)), "queue skb=1 ns=1 dev=1"}, {in.with(id(2)), "queue skb=1 ns=1 dev=1"},
		}, []sums{{flowA, 2, 0, 0, 2}}},
		{"an address again in silence, nothing tells but the step", []seen{
			{in, "queue skb=1 ns=1 dev=1"}, {in, "xmit skb=1 ns=1 dev=1"}, {in, "queue skb=1 ns=1 dev=1 path=udp_sendmsg"},
		}, []sums{{flowA, 2, 0, 0, 2}}},
		{"an address again, of another flow", []seen{
			{in, "queue skb=1 ns=1 dev=1"}, {udp("10.0.0.3:1", "10.0.0.4:2"), "queue skb=1 ns=1 dev=1"},
		}, []sums{{flowA, 1, 0, 0, 1}, {"udp 10.0.0.3:1 > 10.0.0.4:2", 1, 0, 0, 1}}},
		{"an address again, in another namespace", []seen{
			{in, "rx skb=1 ns=1 dev=1"}, {in.with(ttl(63)), "queue skb=1 ns=2 dev=1"},
		}, []sums{{flowA, 1, 0, 0, 1}, {flowA, 1, 0, 0, 1}}},
		{"UDP where TCP was freed in silence", []seen{
			{tcp(1, 1), "rx skb=1 ns=1 dev=1"}, {in, "queue skb=1 ns=1 dev=1"},
		}, []sums{{"tcp 10.0.0.1:40000 > 10.0.0.2:80", 1, 0, 0, 1}, {flowA, 1, 0, 0, 1}}},
		{"a lost packet comes no more", []seen{
			{in, "drop skb=1 ns=1 dev=1 by=ip_rcv reason=2"}, {in, "rx skb=1 ns=1 dev=1"},
		}, []sums{{flowA, 2, 0, 1, 1}}},
		{"an answer in the memory of the question", []seen{
			{in, "rx skb=1 ns=1 dev=1"}, {udp(b0, a0), "rx skb=1 ns=1 dev=1"},
		}, []sums{{flowA, 1, 0, 0, 1}, {"udp 10.0.0.2:9 > 10.0.0.1:40000", 1, 0, 0, 1}}},
		{"a clone has the same data", []seen{
			{in, "queue skb=1 head=9 ns=1 dev=1"}, {in, "rx skb=2 head=9 ns=2 dev=2"}, {in, "consume skb=1 head=9"}, {in, "copied skb=2 head=9 ns=2"},
		}, []sums{{flowA, 1, 1, 0, 0}}},
		{"a copy is dropped, the packet is not", []seen{
			{in, "rx skb=1 head=9 ns=1 dev=1"}, {in, "copied skb=1 head=9 ns=1"}, {in, "drop skb=2 head=9 ns=1 dev=1 by=packet_rcv reason=2"},
		}, []sums{{flowA, 1, 1, 0, 0}}},
		{"a copy is dropped first", []seen{
			{in, "rx skb=1 head=9 ns=1 dev=1"}, {in, "drop skb=2 head=9 ns=1 dev=1 by=packet_rcv reason=2"}, {in, "copied skb=1 head=9 ns=1"},
		}, []sums{{flowA, 1, 1, 0, 0}}},
		{"source NAT", []seen{
			{in, "rx skb=1 ns=1 dev=1"}, {snat.with(ttl(63)), "queue skb=1 ns=1 dev=2"}, {snat.with(ttl(63)), "xmit skb=1 ns=1 dev=2"},
		}, []sums{{flowA, 1, 0, 0, 1}}},
		{"NAT of both ends", []seen{
			{in.with(id(5)), "rx skb=1 ns=1 dev=1"}, {udp("192.0.2.9:1", "192.0.2.8:2").with(id(5)), "queue skb=1 ns=1 dev=2"},
		}, []sums{{flowA, 1, 0, 0, 1}}},
		{"an ICMP error, on its way back through NAT", []seen{
			{icmp("198.51.100.1", "192.0.2.9", "192.0.2.9:1024", b0), "rx skb=1 ns=1 dev=2"},
			{icmp("198.51.100.1", "10.0.0.1", a0, b0).with(ttl(63)), "queue skb=1 ns=1 dev=1"},
		}, []sums{{"icmp type 3 code 1 198.51.100.1 > 192.0.2.9", 1, 0, 0, 1}}},
		{"IPIP put on and taken off", []seen{
			{in, "queue skb=1 ns=1 dev=1"}, {inside(4, nil, in.bytes()), "queue skb=1 ns=1 dev=2"}, {inside(4, nil, in.bytes()), "rx skb=1 ns=2 dev=3"}, {in, "rx skb=1 ns=2 dev=4"},
		}, []sums{{flowA, 1, 0, 0, 1}}},
		{"GRE put on and taken off", []seen{
			{in, "queue skb=1 ns=1 dev=1"}, {inside(47, gre, in.bytes()), "queue skb=1 ns=1 dev=2"}, {in, "rx skb=1 ns=2 dev=4"},
		}, []sums{{flowA, 1, 0, 0, 1}}},
		{"VXLAN put on and taken off", []seen{
			{in, "queue skb=1 ns=1 dev=1"}, {inside(protoUDP, vxlan, ethernet(in.bytes())), "queue skb=1 ns=1 dev=2"}, {in, "rx skb=1 ns=2 dev=4"},
		}, []sums{{flowA, 1, 0, 0, 1}}},
		{"a bridge leaves the TTL", []seen{
			{in, "rx skb=1 ns=1 dev=1"}, {in, "queue skb=1 ns=1 dev=2 path=br_forward_finish"},
		}, []sums{{flowA, 1, 0, 0, 1}}},
		{"a bridge, no stack", []seen{
			{in, "queue skb=1 ns=1 dev=3"}, {in, "rx skb=1 ns=1 dev=1"}, {in, "queue skb=1 ns=1 dev=2"},
		}, []sums{{flowA, 1, 0, 0, 1}}},
		{"an address again in silence, no stack", []seen{
			{in, "queue skb=1 ns=1 dev=1"}, {in, "xmit skb=1 ns=1 dev=1"}, {in, "queue skb=1 ns=1 dev=1"},
		}, []sums{{flowA, 2, 0, 0, 2}}},
		{"a router takes one off it", []seen{
			{in, "rx skb=1 ns=1 dev=1"}, {in.with(ttl(63)), "queue skb=1 ns=1 dev=2 path=ip_forward"},
		}, []sums{{flowA, 1, 0, 0, 1}}},
		{"a device on top of another", []seen{
			{in, "queue skb=1 ns=1 dev=2"}, {in, "xmit skb=1 ns=1 dev=2"}, {in, "queue skb=1 ns=1 dev=1 path=__dev_queue_xmit,vlan_dev_hard_start_xmit,dev_hard_start_xmit"},
		}, []sums{{flowA, 1, 0, 0, 1}}},
		{"redirected at ingress", []seen{
			{in, "rx skb=1 ns=1 dev=2"}, {in, "queue skb=1 ns=1 dev=1 path=__dev_queue_xmit,tcf_mirred_act,__netif_receive_skb_core"},
		}, []sums{{flowA, 1, 0, 0, 1}}},
		{"sent in a softirq on top of a device", []seen{
			{in, "queue skb=1 ns=1 dev=2"}, {in, "xmit skb=1 ns=1 dev=2"}, {in, "queue skb=1 ns=1 dev=1 path=__dev_queue_xmit,process_backlog,dev_hard_start_xmit"},
		}, []sums{{flowA, 2, 0, 0, 2}}},
		{"a queue of several segments becomes segments", []seen{
			{tcp(1, 1), "queue skb=1 ns=1 dev=1 gso=3"}, {tcp(1, 1), "xmit skb=2 ns=1 dev=1"}, {tcp(11, 2), "xmit skb=3 ns=1 dev=1"}, {tcp(21, 3), "xmit skb=4 ns=1 dev=1"},
		}, []sums{{"tcp 10.0.0.1:40000 > 10.0.0.2:80", 3, 0, 0, 3}}},
		{"a queue of several segments that stays whole", []seen{
			{tcp(1, 1), "queue skb=1 ns=1 dev=1 gso=3"}, {tcp(1, 1), "xmit skb=1 ns=1 dev=1 gso=3"}, {tcp(1, 1), "copied skb=1 ns=2"},
		}, []sums{{"tcp 10.0.0.1:40000 > 10.0.0.2:80", 3, 3, 0, 0}}},
		{"TCP sends again what is lost again", []seen{
			{tcp(1, 1), "queue skb=1 ns=1 dev=1"}, {tcp(1, 1), "drop skb=1 ns=1 dev=1 by=x reason=2 last"},
			{tcp(1, 2), "queue skb=2 ns=1 dev=1 path=tcp_retransmit_skb"}, {tcp(1, 2), "drop skb=2 ns=1 dev=1 by=x reason=2 last path=tcp_retransmit_skb"},
		}, []sums{{"tcp 10.0.0.1:40000 > 10.0.0.2:80", 1, 0, 1, 0}}},
		{"TCP sends again, and it arrives", []seen{
			{tcp(1, 1), "queue skb=1 ns=1 dev=1"}, {tcp(1, 1), "drop skb=1 ns=1 dev=1 by=x reason=2 last"},
			{tcp(1, 2), "queue skb=2 ns=1 dev=1 path=tcp_retransmit_skb"}, {tcp(1, 2), "copied skb=2 ns=1"},
		}, []sums{{"tcp 10.0.0.1:40000 > 10.0.0.2:80", 2, 1, 1, 0}}},
		{"fragments have the ports of the first", []seen{
			{in.with(func(d *datagram) { d.id, d.frag = 5, 0x2000 }), "queue skb=1 ns=1 dev=1"}, {in.with(func(d *datagram) { d.id, d.frag = 5, 0x20b9 }), "queue skb=2 ns=1 dev=1"},
			{in.with(func(d *datagram) { d.id, d.frag = 5, 0x0172 }), "queue skb=3 ns=1 dev=1"},
		}, []sums{{flowA, 3, 0, 0, 3}}},
		{"freed as done by who it was for", []seen{
			{in, "rx skb=1 ns=1 dev=1"}, {in, "consume skb=1 last by=icmp_rcv"},
		}, []sums{{flowA, 1, 1, 0, 0}}},
		{"freed as done by its sender", []seen{
			{in, "rx skb=1 ns=1 dev=1"}, {in, "consume skb=1 last by=napi_consume_skb"},
		}, []sums{{flowA, 1, 0, 0, 1}}},
		{"nothing begins with an end, nor with a function", []seen{
			{in, "consume skb=1 last by=icmp_rcv"}, {in, "step skb=1 by=ip_rcv ns=1"},
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			for _, s := range c.story {
				w.see(s.d.bytes(), s.what)
			}
			if diff := cmp.Diff(c.want, w.sums()); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// TestOtherMessages: what is no packet of a network does not stand for the one whose memory it has.
// TestSender: what a softirq does on top of a task is not sent by that task.
func TestSender(t *testing.T) {
	ping := Process{7, "ping"}
	for path, want := range map[string]Process{
		"__dev_queue_xmit,udp_sendmsg,__sys_sendto,do_syscall_64":                                           ping,
		"__dev_queue_xmit,icmp_reply,process_backlog,handle_softirqs,ip_finish_output2,do_syscall_64":       {},
		"neigh_invalidate,__run_timers,__do_softirq,asm_sysvec_apic_timer_interrupt,vfs_open,do_syscall_64": {},
		"__dev_queue_xmit,udp_sendmsg": {},
	} {
		w := newWorld(t)
		e := w.event("queue skb=1 ns=1 dev=1 path="+path, udp(a0, b0).bytes())
		e.PID, e.Comm = ping.PID, ping.Comm
		w.Add(e)
		if got := w.Flows()[0].Sender; got != want {
			t.Errorf("%s: sent by %v, want %v", path, got, want)
		}
	}
}

func TestOtherMessages(t *testing.T) {
	w := newWorld(t)
	in := udp(a0, b0).bytes()
	w.see(in, "rx skb=1 head=9 ns=1 dev=1", "drop skb=1 head=9 ns=1 dev=1 by=nft_do_chain reason=9")
	w.see(nil, "copied skb=2 head=9", "consume skb=2 head=9 last by=unix_dgram_recvmsg")
	if diff := cmp.Diff(sums{flowA, 1, 0, 1, 0}, w.sums()[0]); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// TestCutShort: what was lost because its header was cut short does not stand for the one whose memory it has.
func TestCutShort(t *testing.T) {
	w := newWorld(t)
	in := udp(a0, b0).bytes()
	w.see(in[:8], "drop skb=1 head=9 ns=1 dev=1 by=ip_rcv_core reason=2") // somebody has a copy, which goes in silence
	w.see(in, "drop skb=2 head=9 ns=2 by=nft_do_chain reason=9 last")
	if got := w.sums(); len(got) != 2 || got[1] != (sums{flowA, 1, 0, 1, 0}) {
		t.Errorf("%+v", got)
	}
}

// TestPlaces: without a stack, the place of an event is a function if there is but one; with one, it is the innermost.
func TestPlaces(t *testing.T) {
	w := newWorld(t)
	for text, want := range map[string]string{
		"queue skb=1": "__dev_queue_xmit", "xmit skb=1": "dev_hard_start_xmit", "rx_queue skb=1": "netif_rx_internal", "enqueued skb=1": "",
		"xmit skb=1 path=a,b": "a", "consume skb=1 by=x": "x", "drop skb=1 by=x": "x",
	} {
		e := w.event(text, nil)
		if fn, _ := w.path(&e); fn != want {
			t.Errorf("%s: %q, want %q", text, fn, want)
		}
	}
}

// TestCgroupPrograms: of programs on cgroups those are to blame that see what the sender sends; if there is one, it is certain.
func TestCgroupPrograms(t *testing.T) {
	progs := []CgroupProg{{"/", "ingress", 1, "in"}, {"/a", "egress", 2, "outer"}, {"/a/b", "egress", 3, "inner"}, {"/ab", "egress", 4, "beside"}}
	for _, c := range []struct {
		reason, sender string
		progs          []CgroupProg
		want           any // id
		certain        bool
	}{
		{"BPF_CGROUP_EGRESS", "/a/b/c", progs, uint32(3), false},
		{"BPF_CGROUP_EGRESS", "/a/x", progs, uint32(2), true},
		{"BPF_CGROUP_EGRESS", "/ab", progs, uint32(4), true},
		{"BPF_CGROUP_INGRESS", "/nowhere", progs, uint32(1), true},
		{"BPF_CGROUP_EGRESS", "/a", nil, nil, false},
	} {
		s := &scene{rec: &Recording{CgroupProgs: c.progs}, flow: &Flow{Cgroup: c.sender}, loss: &Loss{Reason: c.reason}}
		f := cgroupDropped(s)
		if diff := cmp.Diff([]any{c.want, c.certain}, []any{f.culprit["id"], f.certain}); diff != "" {
			t.Errorf("%s of %s: -want +got\n%s", c.reason, c.sender, diff)
		}
	}
}

func TestTunnelCutShort(t *testing.T) {
	in := datagram{proto: protoUDP, src: "[2001:db8::1]:40000", dst: "[2001:db8::2]:9"}
	out := datagram{proto: protoUDP, src: "[2001:db8:1::1]:5", dst: "[2001:db8:1::2]:4789", rest: append(vxlan[:8:8], ethernet(in.bytes())...)}
	w := newWorld(t)
	w.see(in.bytes(), "queue skb=1 ns=1 dev=1", "xmit skb=1 ns=1 dev=1")
	w.see(ethernet(out.bytes())[14:128], "queue skb=1 ns=1 dev=2 path=vxlan_xmit")
	want := []sums{{"udp [2001:db8::1]:40000 > [2001:db8::2]:9", 1, 0, 0, 1}}
	if diff := cmp.Diff(want, w.sums()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestRewritten(t *testing.T) {
	w := newWorld(t)
	in, out := udp(a0, b0), udp("192.0.2.9:1024", b0)
	w.see(in.bytes(), "rx skb=1 ns=1 dev=1")
	w.see(out.bytes(), "queue skb=1 ns=1 dev=2", "xmit skb=1 ns=1 dev=2")
	rs := w.Flows()[0].Rewritten
	if len(rs) != 1 || rs[0].From.String() != flowA || rs[0].To.Src != netip.MustParseAddrPort("192.0.2.9:1024") || rs[0].Dev != "d1" || rs[0].Before == nil {
		t.Errorf("rewritten: %+v", rs)
	}
}

func TestRepeatsAreInNoSum(t *testing.T) {
	w := newWorld(t)
	for i := range uint64(4) {
		path := ""
		if i > 0 {
			path = " path=tcp_retransmit_skb"
		}
		d := tcp(1, uint16(i+1)).bytes()
		w.see(d, fmt.Sprintf("queue skb=%d ns=1 dev=1%s", i+1, path), fmt.Sprintf("drop skb=%d ns=1 dev=1 by=x reason=2 last%s", i+1, path))
	}
	f := w.Flows()[0]
	if l := f.Losses[0]; len(f.Losses) != 1 || l.Count != 1 || l.Repeats != 3 || f.Packets != 1 || f.Repeated != 0 {
		t.Errorf("packets %d, repeated %d, loss %+v", f.Packets, f.Repeated, l)
	}
}

func TestFirstLossOfAKind(t *testing.T) {
	w := newWorld(t)
	in := udp(a0, b0).bytes()
	if l := w.see(in, "drop skb=1 ns=1 dev=1 by=ip_rcv reason=2 last"); l == nil || l.Func != "ip_rcv" || l.Reason != "NOT_SPECIFIED" || l.Netns != 1 {
		t.Fatalf("first: %+v", l)
	}
	if l := w.see(in, "drop skb=2 ns=1 dev=1 by=ip_rcv reason=2 last"); l != nil {
		t.Errorf("second of its kind: %+v", l)
	}
	if l := w.see(in, "drop skb=3 ns=1 dev=1 by=ip_rcv reason=9 last"); l == nil {
		t.Error("another reason is another loss")
	}
	// A drop that does not say where it was was where the packet was seen last.
	if l := w.see(in, "rx skb=4 ns=5 dev=6", "drop skb=4 by=udp_queue_rcv_one_skb reason=3 last"); l == nil || l.Netns != 5 || l.Dev != "d6" {
		t.Errorf("placed at %+v", l)
	}
}

func TestRefusalsAndTroubles(t *testing.T) {
	s := &symbols{}
	keep := func(t Tuple) bool { return t.Dst.Port() == 9 }
	w := &world{Tracker: NewTracker(s, nil, keep), symbols: s, t: t}
	for range 3 {
		w.Add(Event{Kind: Refused, Call: "sendto", Reason: 101, L4: protoUDP, To: netip.MustParseAddrPort(b0)})
		w.Add(Event{Kind: Refused, Call: "sendto", Reason: 101, L4: protoUDP, To: netip.MustParseAddrPort("10.0.0.2:8")})
		w.Add(Event{Kind: XDPError, Netns: 1, Ifindex: 2, Arg: 3, Reason: -6})
	}
	if r, x := w.Refusals(), w.Troubles(); len(r) != 1 || r[0].Count != 3 || len(x) != 1 || x[0].Count != 3 {
		t.Errorf("refusals %+v, troubles %+v", r, x)
	}
	for i := range 3 * mostOther {
		w.Add(Event{Kind: Refused, Call: "sendto", Reason: int32(i), To: netip.MustParseAddrPort(b0)})
		w.Add(Event{Kind: XDPError, Ifindex: uint32(i)})
	}
	if len(w.Refusals()) != mostOther || len(w.Troubles()) != mostOther {
		t.Errorf("%d refusals, %d troubles; at most %d", len(w.Refusals()), len(w.Troubles()), mostOther)
	}
}

func TestWanted(t *testing.T) {
	s := &symbols{}
	w := &world{Tracker: NewTracker(s, func(e *Event) bool { return e.Netns == 1 }, nil), symbols: s, t: t}
	w.see(udp(a0, b0).bytes(), "rx skb=1 ns=2 dev=1", "rx skb=2 ns=1 dev=1", "queue skb=1 ns=2 dev=1")
	if diff := cmp.Diff([]sums{{flowA, 1, 0, 0, 1}}, w.sums()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestLimits(t *testing.T) {
	w := newWorld(t)
	const n = mostFlows + 100
	for i := range uint64(n) {
		w.see(udp(fmt.Sprintf("10.%d.%d.1:5", i>>8, i&255), b0).bytes(), fmt.Sprintf("rx skb=%d ns=1 dev=1", i+1))
	}
	var packets uint64
	for _, f := range w.Flows() {
		packets += f.Packets
	}
	if len(w.Flows()) != mostFlows || w.Unkept() != 100 || packets+w.Unkept() != n || w.Packets() != n {
		t.Errorf("%d flows, %d packets in them, %d unkept of %d", len(w.Flows()), packets, w.Unkept(), w.Packets())
	}
	if len(w.bySkb) > mostPackets || len(w.byHead) > mostPackets || len(w.order) > mostPackets {
		t.Errorf("%d addresses, %d data, %d packets kept; at most %d", len(w.bySkb), len(w.byHead), len(w.order), mostPackets)
	}

	w = newWorld(t)
	for range 3 * mostHops {
		w.see(udp(a0, b0).bytes(), "rx skb=1 ns=1 dev=1")
	}
	if p := w.Flows()[0].Sample[0]; len(p.Hops) != mostHops {
		t.Errorf("%d hops; at most %d", len(p.Hops), mostHops)
	}

	w = newWorld(t) // packets of one flow: a few are kept whole, and all are counted
	for i := range uint64(3 * mostPackets) {
		w.see(udp(a0, b0).bytes(), fmt.Sprintf("rx skb=%d ns=1 dev=1", i+1))
	}
	f := w.Flows()[0]
	if f.Packets != 3*mostPackets || len(f.Sample) != samples || len(w.order) > mostPackets {
		t.Errorf("%d packets, %d samples, %d kept", f.Packets, len(f.Sample), len(w.order))
	}
	for i := range uint64(2 * mostFlows) { // fragments' ports
		w.see(udp(a0, b0).with(func(d *datagram) { d.id, d.frag = uint16(i), 0x2000 }).bytes(), fmt.Sprintf("rx skb=%d ns=1 dev=1", i+1))
	}
	if len(w.frags) > mostFlows {
		t.Errorf("ports of %d fragments", len(w.frags))
	}
}

// TestSumsHold: whatever comes, what was delivered and lost of a flow is no more than its packets, and its losses count no
// packet twice.
func TestSumsHold(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		w := newWorld(t)
		for range 400 {
			d := tcp(uint32(r.IntN(2)), uint16(r.IntN(3)))
			if r.IntN(2) == 0 {
				d = udp(a0, b0).with(id(uint16(r.IntN(3)))).with(ttl(uint8(63 + r.IntN(2))))
			}
			k := Kind(r.IntN(int(NumKinds)))
			path := [...]string{"", " path=tcp_retransmit_skb", " path=veth_xdp_rcv", " path=br_forward"}[r.IntN(4)]
			last := [...]string{"", " last"}[r.IntN(2)]
			w.see(d.bytes(), fmt.Sprintf("%s skb=%d head=%d ns=%d dev=%d gso=%d by=%s reason=2%s%s", k, 1+r.IntN(4), 1+r.IntN(3), 1+r.IntN(2), 1+r.IntN(2),
				r.IntN(3), [...]string{"icmp_rcv", "ip_rcv"}[r.IntN(2)], path, last))
		}
		for _, f := range w.Flows() {
			if f.Delivered+f.Dropped > f.Packets {
				t.Fatalf("seed %d: %v: %d delivered, %d lost of %d", seed, f.Tuple, f.Delivered, f.Dropped, f.Packets)
			}
		}
	}
}

func TestStages(t *testing.T) {
	w := newWorld(t)
	for i := range uint64(100) {
		d := udp(a0, b0).bytes()
		skb := fmt.Sprintf("skb=%d", i+1)
		w.see(d, "queue "+skb+" ns=1 dev=1", fmt.Sprintf("xmit %s ns=1 dev=1 after=%d", skb, 100*(i+1)), "rx_queue "+skb+" ns=2 dev=2", "step "+skb+" ns=2 dev=2 by=x", "rx "+skb+" ns=2 dev=2 after=5000", "copied "+skb+" ns=2 after=64")
	}
	type row struct {
		Name     string
		Waiting  bool
		Count    uint64
		Max      uint64
		P50, P99 uint64
	}
	var got []row
	for _, s := range w.Stages() {
		got = append(got, row{s.Name, s.Waiting, s.Count, s.Max, s.Percentile(0.5), s.Percentile(0.99)})
	}
	want := []row{
		{"backlog of the CPU", true, 100, 6000, 6000, 6000},
		{"queue of the device", true, 100, 10000, 8191, 10000},
		{"wire", false, 100, 1000, 1000, 1000},
		{"stack and socket", true, 100, 64, 64, 64},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	empty := Stage{Count: 0}
	if empty.Percentile(0.5) != 0 {
		t.Error("a stage without packets has no percentile")
	}
}

// BenchmarkTracker is what one event of a packet that is followed costs.
func BenchmarkTracker(b *testing.B) {
	w := newWorld(b)
	var es []Event
	for i := range uint64(1024) {
		d := udp(a0, b0).with(id(uint16(i))).bytes()
		binary.BigEndian.PutUint16(d[4:], uint16(i))
		es = append(es, w.event(fmt.Sprintf("queue skb=%d ns=1 dev=1 path=__dev_queue_xmit,udp_sendmsg", i+1), d), w.event(fmt.Sprintf("copied skb=%d ns=1", i+1), d), w.event(fmt.Sprintf("consume skb=%d last by=skb_consume_udp", i+1), d))
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		w.Add(es[i%len(es)])
	}
}
