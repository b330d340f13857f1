package netstack

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"github.com/fathom-trace/fathom/bypass/steer"
	"github.com/fathom-trace/fathom/bypass/xsk"
)

// Checksums says what is done with checksums of packets that arrive. Those of packets that are sent are always computed.
type Checksums int

// What is done with them.
const (
	// ChecksumAuto verifies them, but on veth, where the kernel leaves those of its own packets unfinished and nothing can go wrong between
	// the two ends but what was made to (netem).
	ChecksumAuto Checksums = iota
	ChecksumVerify
	ChecksumTrust
)

// Options say how a stack is to be; the zero value takes all queues, waits by Go's netpoller and follows the kernel's settings.
type Options struct {
	Backend   Backend
	Queues    []int       // of the device; nil: all. AF_PACKET has as many sockets instead
	Mode      steer.Mode  // of AF_XDP
	Copying   xsk.Copying // of AF_XDP
	Wait      xsk.Wait
	Checksums Checksums
	// Frames is how many frames of memory each queue has; 4096 if 0. They hold what arrives until it is read, and what is being sent.
	Frames int
	// Congestion is TCP's way to find its speed: "cubic", as the kernel's, if empty, or "reno".
	Congestion string
}

// nic is the one device of a stack.
const nic = 1

// Stack is TCP and UDP on one device. It is safe for use by several goroutines.
type Stack struct {
	dev     xsk.Device
	packets packets
	backend Backend
	instead error      // why it is not AF_XDP
	mode    steer.Mode // of AF_XDP
	most    int        // bytes of a packet that there is room for
	gv      *stack.Stack
	link    *link
	near    *neighbours
	ports   *ports
	addrs   addresses

	cancel context.CancelFunc
	ended  sync.WaitGroup
	close  sync.Once
	err    error        // of Close
	broke  atomic.Value // error that ended a receiving goroutine
}

// Open makes a stack of a device. It needs CAP_NET_RAW and CAP_NET_ADMIN there, and CAP_BPF for AF_XDP. If an XDP program is on the device
// already, the error is a *held.Error, but with Packet; it stays.
func Open(dev xsk.Device, o Options) (*Stack, error) {
	s, err := open(dev, o)
	if err != nil {
		return nil, fmt.Errorf("open a TCP/IP stack on %s: %w", dev, err)
	}
	return s, nil
}

func open(dev xsk.Device, o Options) (s *Stack, err error) {
	s = &Stack{dev: dev}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	if s.near, err = openNeighbours(ctx, dev); err != nil {
		return s, err
	}
	s.ports = newPorts(s)
	queues, err := s.attach(ctx, o)
	if err != nil {
		return s, err
	}
	trust := o.Checksums == ChecksumTrust || o.Checksums == ChecksumAuto && s.near.kind == "veth"
	s.link = newLink(queues, s.near, trust, s.most)
	s.near.send = s.link.release
	if s.gv, err = protocols(s.link, o); err != nil {
		return s, err
	}
	if err := s.follow(ctx); err != nil {
		return s, err
	}
	for _, l := range s.link.lanes {
		s.ended.Go(func() { l.kicker(ctx) })
		s.ended.Go(func() {
			if err := l.receive(ctx); ctx.Err() == nil {
				s.broke.Store(err)
			}
		})
	}
	return s, nil
}

// protocols makes gVisor's part.
func protocols(l *link, o Options) (*stack.Stack, error) {
	gv := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
	})
	if o.Congestion == "" {
		o.Congestion = "cubic"
	}
	sack, cc, reuse := tcpip.TCPSACKEnabled(true), tcpip.CongestionControlOption(o.Congestion), tcpip.TCPTimeWaitReuseOption(tcpip.TCPTimeWaitReuseGlobal)
	for what, err := range map[string]tcpip.Error{
		"selective acknowledgements":       gv.SetTransportProtocolOption(tcp.ProtocolNumber, &sack),
		"congestion control " + string(cc): gv.SetTransportProtocolOption(tcp.ProtocolNumber, &cc),
		"ports in TIME_WAIT":               gv.SetTransportProtocolOption(tcp.ProtocolNumber, &reuse),
		"the device":                       gv.CreateNIC(nic, l),
	} {
		if err != nil {
			gv.Close()
			return nil, fmt.Errorf("set up %s: %s", what, err)
		}
	}
	gv.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: nic}, {Destination: header.IPv6EmptySubnet, NIC: nic}})
	return gv, nil
}

// Leads says if packets to an address would go through the stack's device: the error is [ErrElsewhere] if they would not, or the kernel's.
func (s *Stack) Leads(to netip.Addr) error {
	_, err := s.near.route(to)
	return err
}

// Index is the number of the device in its namespace, which link-local addresses are bound to.
func (s *Stack) Index() int { return s.near.index }

// Device is the device that the stack is on.
func (s *Stack) Device() xsk.Device { return s.dev }

// Addrs are the addresses of the device, which are the stack's too.
func (s *Stack) Addrs() []netip.Addr { return s.addrs.list() }

// Mode says where the XDP program runs; Auto if there is none.
func (s *Stack) Mode() steer.Mode { return s.mode }

// Backend says by which way packets come, and, if it is AF_PACKET because AF_XDP cannot be had, why.
func (s *Stack) Backend() (b Backend, why error) { return s.backend, s.instead }

// Err says what ended receiving, if something did: the device went away.
func (s *Stack) Err() error {
	err, _ := s.broke.Load().(error)
	return err
}

// Stats are what a stack counted.
type Stats struct {
	Received, Sent uint64 // packets
	NoRoom         uint64 // packets that were not sent because no frame was free or the ring was full; TCP sends them again
	NoNeighbour    uint64 // packets that were not sent because nobody answered for the address, or the route leads elsewhere
	Retransmits    uint64 // segments of TCP sent again
	BadChecksums   uint64 // packets that arrived with a wrong one
	Uncut          uint64 // packets of several datagrams (UDP_SEGMENT) that were dropped, since a device was to cut them and none has
	Established    uint64 // connections of TCP that are
	Queues         xsk.Stats
}

// Stats reads the counters.
func (s *Stack) Stats() (st Stats, err error) {
	g := s.gv.Stats()
	st = Stats{
		Received: s.link.received.Load(), Sent: s.link.sent.Load(), NoRoom: s.link.noRoom.Load(), Uncut: s.link.uncut.Load(), NoNeighbour: s.near.failed.Load(),
		Retransmits: g.TCP.Retransmits.Value(), BadChecksums: g.TCP.ChecksumErrors.Value() + g.UDP.ChecksumErrors.Value(), Established: g.TCP.CurrentEstablished.Value(),
	}
	for _, l := range s.link.lanes {
		one, err := l.q.stats()
		if err != nil {
			return st, err
		}
		st.Queues = st.Queues.Add(one)
	}
	return st, nil
}

// Close ends all connections and listeners, and gives the ports back to the kernel. Connections that were not closed before are reset.
func (s *Stack) Close() error {
	s.close.Do(func() {
		var errs []error
		if s.gv != nil {
			s.gv.Destroy()
		}
		s.cancel()
		s.ended.Wait()
		if s.near != nil {
			errs = append(errs, s.near.Close())
		}
		if s.packets != nil {
			if s.link != nil {
				s.link.end()
			}
			errs = append(errs, s.packets.Close())
		}
		if s.ports != nil {
			s.ports.close()
		}
		s.err = errors.Join(errs...)
	})
	return s.err
}
