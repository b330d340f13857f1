package netstack

import (
	"context"
	"hash/maphash"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/stack/gro"

	wire "github.com/fathom-trace/fathom/wire/header"
)

// link is the device as gVisor sees it: it takes and gives packets of IP. Ethernet is done here, with what the kernel knows of
// neighbours.
type link struct {
	lanes []*lane
	near  *neighbours
	trust bool
	most  int // bytes of a packet of IP that there is room for
	mtu   atomic.Uint32
	onEnd atomic.Pointer[func()]

	inward                 atomic.Pointer[inward]
	flows                  flows
	ended                  atomic.Bool
	received, sent, noRoom atomic.Uint64
	uncut                  atomic.Uint64
	inline                 atomic.Pointer[inlineHandlers]
}

func newLink(queues []queue, near *neighbours, trust bool, most int) *link {
	l := &link{near: near, trust: trust, most: most, flows: flows{seed: maphash.MakeSeed()}}
	l.mtu.Store(uint32(near.mtu))
	for _, q := range queues {
		n := &lane{link: l, q: q, kick: make(chan struct{}, 1), acks: acks{delay: ackDelay}}
		n.gro.Init(true)
		l.lanes = append(l.lanes, n)
	}
	return l
}

// lane is a queue of the device. One goroutine receives, any may send: mu is held to use the queue.
type lane struct {
	link *link
	gro  gro.GRO
	mu   sync.Mutex
	q    queue
	put  int // packets that the kernel has not been told of
	acks acks
	kick chan struct{} // has somebody tell it soon
}

const (
	burst      = 64 // packets that are received, or sent, at a time
	few        = 8  // packets after which it is not likely that more are there already
	maxOptions = 60 // bytes that a packet of TCP may be shorter than the MTU and still be full: its options, and the rounding of the kernel's
)

// receive gives packets to gVisor until the context ends, or the device does; the error says which.
func (n *lane) receive(ctx context.Context) error {
	for {
		n.mu.Lock()
		got, err := n.q.recv()
		ready := false
		if len(got) == 0 && err == nil {
			ready, err = n.q.prepare()
		}
		n.mu.Unlock()
		switch {
		case err != nil:
			return err
		case len(got) > 0:
			n.deliver(got)
			if n.link.streams(got[len(got)-1].b) {
				n.q.calm()
			}
			n.mu.Lock()
			n.q.free()
			n.mu.Unlock()
			if len(got) < few {
				runtime.Gosched() // who answers goes first, looking for more can wait
			}
		case ready:
			if err := ctx.Err(); err != nil {
				return err
			}
		default:
			if err := n.q.park(ctx); err != nil {
				return err
			}
		}
	}
}

// streams says if a packet is of a stream of which more comes, or that we send, and nobody waits for it alone: it is full, or an
// acknowledgement.
func (l *link) streams(b []byte) bool {
	if len(b) > wire.EthernetLen+int(l.MTU())-maxOptions {
		return true
	}
	conn, _ := acknowledgement(b)
	return conn != nil
}

// deliver gives a burst of packets to gVisor, which has a copy of each.
func (n *lane) deliver(packets []arrived) {
	in := n.link.inward.Load()
	if in == nil {
		return
	}
	n.gro.Dispatcher = in
	handlers := n.link.inline.Load()
	for i, p := range packets {
		b, sound := p.b, p.sound || n.link.trust
		if len(b) < wire.EthernetLen {
			continue
		}
		if next := i + 1; next < len(packets) && sound && (packets[next].sound || n.link.trust) && supersedes(packets[next].b, b) {
			n.link.received.Add(1)
			continue
		}
		eth := wire.Ethernet(b)
		var proto tcpip.NetworkProtocolNumber
		switch eth.Type() {
		case uint16(header.IPv4ProtocolNumber):
			proto = header.IPv4ProtocolNumber
		case uint16(header.IPv6ProtocolNumber):
			proto = header.IPv6ProtocolNumber
		default:
			continue
		}
		n.link.received.Add(1)
		payload := b[wire.EthernetLen:]
		if len(payload) > int(n.link.MTU()) && uncut(proto, payload) {
			n.link.uncut.Add(1)
			continue
		}
		if handlers != nil && handlers.take(n, proto, eth.Src(), payload, sound) {
			continue
		}
		to, direct := partOf(proto, payload, len(payload))
		if direct = direct && in.takes(&to, payload, sound); direct {
			payload = payload[:to.total]
		} else if a, ok := source(proto, payload); ok {
			n.link.near.learn(a, eth.Src())
		}
		copied := buffer.NewViewWithData(payload)
		if p.sound && !direct && !n.link.trust {
			complete(proto, copied.AsSlice())
		}
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithView(copied)})
		pkt.NetworkProtocolNumber = proto
		pkt.RXChecksumValidated = sound
		switch {
		case sound && len(packets) > 1 && (direct || n.link.trust):
			n.gro.Enqueue(pkt)
		case direct:
			n.gro.Flush()
			in.give(&to, pkt)
		default: // of packets that were put together the checksum is the first one's, which IP's layer would verify, and take for wrong
			n.gro.Flush()
			in.NetworkDispatcher.DeliverNetworkPacket(proto, pkt)
		}
		pkt.DecRef()
	}
	n.gro.Flush()
}

// source is who a packet says it is from.
func source(proto tcpip.NetworkProtocolNumber, b []byte) (netip.Addr, bool) {
	switch {
	case proto == header.IPv4ProtocolNumber && len(b) >= header.IPv4MinimumSize:
		return netip.AddrFrom4([4]byte(b[12:16])), true
	case proto == header.IPv6ProtocolNumber && len(b) >= header.IPv6MinimumSize:
		return netip.AddrFrom16([16]byte(b[8:24])), true
	}
	return netip.Addr{}, false
}

// uncut says if a packet that is longer than the MTU is of datagrams that their sender's kernel has left to be cut by a device (UDP_SEGMENT,
// Linux's SKB_GSO_UDP_L4), as a veth or a virtual machine's host hands on: how long each is stands beside the packet, not in it.
func uncut(proto tcpip.NetworkProtocolNumber, b []byte) bool {
	switch {
	case proto == header.IPv4ProtocolNumber && len(b) >= header.IPv4MinimumSize:
		ip := header.IPv4(b)
		return ip.TransportProtocol() == header.UDPProtocolNumber && !ip.More() && ip.FragmentOffset() == 0
	case proto == header.IPv6ProtocolNumber && len(b) >= header.IPv6MinimumSize:
		return header.IPv6(b).NextHeader() == uint8(header.UDPProtocolNumber)
	}
	return false
}

// lane picks the queue for a flow, so that its packets stay in order.
func (l *link) lane(hash uint32) *lane { return l.lanes[int(hash)%len(l.lanes)] }

// WritePackets sends packets that gVisor made. What has no neighbour yet waits until the kernel has found one.
func (l *link) WritePackets(list stack.PacketBufferList) (int, tcpip.Error) {
	pkts := list.AsSlice()
	for at := 0; at < len(pkts); at += burst {
		if err := l.write(pkts[at:min(at+burst, len(pkts))]); err != nil {
			return at, err
		}
	}
	return len(pkts), nil
}

func (l *link) write(pkts []*stack.PacketBuffer) tcpip.Error {
	var macs [burst][6]byte
	var known [burst]bool
	for i, p := range pkts {
		to, ok := netip.AddrFromSlice(p.EgressRoute.RemoteAddress.AsSlice())
		if !ok {
			continue
		}
		if macs[i], known[i] = l.near.find(to); !known[i] {
			for _, h := range l.frames(p) {
				l.near.hold(to, h)
			}
		}
	}
	n := l.lane(pkts[0].Hash)
	n.mu.Lock()
	defer n.mu.Unlock()
	if l.ended.Load() {
		return &tcpip.ErrClosedForSend{}
	}
	for i, p := range pkts {
		if known[i] && !n.hold(p, macs[i]) {
			c := newCut(p)
			n.write(&c, macs[i], uint16(p.NetworkProtocolNumber), i < len(pkts)-1)
		}
	}
	return nil
}

// write sends what a packet of gVisor's makes; mu is held. more says that another comes.
func (n *lane) write(c *cut, to [6]byte, proto uint16, more bool) {
	for left := c.pieces(); left > 0; {
		room := n.q.room(min(left, burst))
		used := 0
		for used < len(room) && used < left {
			size := wire.EthernetLen + c.next()
			if size > len(room[used]) {
				break
			}
			room[used] = room[used][:size]
			n.link.fill(room[used], c, to, proto)
			used++
		}
		if used == 0 {
			n.q.put(nil)
			n.link.noRoom.Add(uint64(left))
			return
		}
		left -= used
		last := len(room[used-1]) - wire.EthernetLen
		n.send(room[:used], more || left > 0 || last > int(n.link.MTU())-maxOptions) // full ones come in bursts, whose last is seldom full
	}
}

// send gives packets to the device that were written into its buffers; mu is held. What has no room is counted. The kernel is told at once, which costs
// a call, but if more is about to come: TCP sends a burst packet by packet.
func (n *lane) send(packets [][]byte, more bool) {
	sent, err := n.q.put(packets)
	n.link.sent.Add(uint64(sent))
	if sent < len(packets) || err != nil {
		n.link.noRoom.Add(uint64(len(packets) - sent))
		more = false
	}
	if n.put += sent; more && n.put < burst/2 {
		select {
		case n.kick <- struct{}{}:
		default:
		}
		return
	}
	n.tell()
}

// tell has the kernel send what was put; mu is held.
func (n *lane) tell() {
	n.put = 0
	n.q.kick()
}

// kicker tells the kernel of packets after which nothing came.
func (n *lane) kicker(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.kick:
		}
		n.mu.Lock()
		if n.put > 0 && !n.link.ended.Load() {
			n.tell()
		}
		n.mu.Unlock()
	}
}

// fill writes the next packet that a cut makes, with its header of Ethernet; b is as long as both.
func (l *link) fill(b []byte, c *cut, to [6]byte, proto uint16) {
	l.ethernet(b, to, proto)
	c.fill(b[wire.EthernetLen:])
}

func (l *link) ethernet(b []byte, to [6]byte, proto uint16) {
	copy(b, to[:])
	copy(b[6:], l.near.mac[:])
	b[12], b[13] = byte(proto>>8), byte(proto)
}

// held is a packet that waits for its neighbour: Ethernet without the address.
type held struct {
	b    []byte
	hash uint32
}

// frames are what a packet of gVisor's makes, to be held.
func (l *link) frames(p *stack.PacketBuffer) (all []held) {
	c := newCut(p)
	for range c.pieces() {
		b := make([]byte, wire.EthernetLen+c.next())
		l.fill(b, &c, [6]byte{}, uint16(p.NetworkProtocolNumber))
		all = append(all, held{b, p.Hash})
	}
	return all
}

// release sends packets that waited for a neighbour.
func (l *link) release(mac [6]byte, packets []held) {
	for _, p := range packets {
		copy(p.b, mac[:])
		l.lane(p.hash).sendBytes(p.b)
	}
}

// sendBytes sends one packet.
func (n *lane) sendBytes(b []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.link.ended.Load() {
		return
	}
	room := n.q.room(1)
	if len(room) == 0 || len(b) > len(room[0]) {
		n.q.put(nil)
		n.link.noRoom.Add(1)
		return
	}
	room[0] = room[0][:copy(room[0], b)]
	n.send(room, false)
}

// end sends what was held back, and has nothing be sent any more: the queues are about to be closed.
func (l *link) end() {
	for _, n := range l.lanes {
		n.expire()
	}
	for _, n := range l.lanes {
		n.mu.Lock()
		l.ended.Store(true)
		n.mu.Unlock()
	}
}

// What gVisor asks of a device.

// MTU is the largest packet of IP.
func (l *link) MTU() uint32 { return l.mtu.Load() }

// SetMTU has later packets be of another size.
func (l *link) SetMTU(mtu uint32) { l.mtu.Store(mtu) }

// MaxHeaderLength is 0: Ethernet's header is not gVisor's.
func (l *link) MaxHeaderLength() uint16 { return 0 }

// LinkAddress is the device's Ethernet address.
func (l *link) LinkAddress() tcpip.LinkAddress { return tcpip.LinkAddress(l.near.mac[:]) }

// SetLinkAddress does nothing: the address is the kernel's.
func (l *link) SetLinkAddress(tcpip.LinkAddress) {}

// Capabilities says whether checksums of what arrives are to be verified.
func (l *link) Capabilities() stack.LinkEndpointCapabilities {
	if l.trust {
		return stack.CapabilityRXChecksumOffload
	}
	return stack.CapabilityNone
}

// Attach says who gets what arrives.
func (l *link) Attach(d stack.NetworkDispatcher) {
	if d == nil {
		l.inward.Store(nil)
		return
	}
	in := &inward{NetworkDispatcher: d, flows: &l.flows}
	in.tcp, _ = d.(transport)
	l.inward.Store(in)
}

// IsAttached says whether somebody does.
func (l *link) IsAttached() bool { return l.inward.Load() != nil }

// Wait returns at once: the receiving goroutines are the Stack's.
func (l *link) Wait() {}

// ARPHardwareType says that there is no ARP: the kernel does it.
func (l *link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }

// AddHeader does nothing: Ethernet's header is written with the packet's frame.
func (l *link) AddHeader(*stack.PacketBuffer) {}

// ParseHeader does nothing: Ethernet's header does not come here.
func (l *link) ParseHeader(*stack.PacketBuffer) bool { return true }

// Close runs what SetOnCloseAction said.
func (l *link) Close() {
	if f := l.onEnd.Swap(nil); f != nil {
		(*f)()
	}
}

// SetOnCloseAction keeps what is to be done at the end.
func (l *link) SetOnCloseAction(f func()) {
	if f != nil {
		l.onEnd.Store(&f)
	}
}

// GSOMaxSize is how much TCP may be given to be cut into segments at once.
func (l *link) GSOMaxSize() uint32 { return stack.GVisorGSOMaxSize }

// SupportedGSO says that the device cuts, see cut.
func (l *link) SupportedGSO() stack.SupportedGSO { return stack.HostGSOSupported }
