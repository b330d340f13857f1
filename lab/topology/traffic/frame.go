package traffic

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/wire/header"
)

// Frame is an Ethernet frame to be made, right or wrong in its checksums as one wants. The family of From and To is the
// packet's. The zero value of most fields is what is usual.
type Frame struct {
	Dst, Src  net.HardwareAddr
	VLAN      uint16 // of an 802.1Q tag; 0: none
	EtherType uint16 // of a Payload that is no IP packet; 0: the addresses say it
	From, To  netip.AddrPort
	Proto     uint8 // IPPROTO_UDP, IPPROTO_TCP, IPPROTO_ICMP (an echo request), IPPROTO_ICMPV6; others are the payload alone
	TTL       uint8 // 64 if 0
	ID        uint16
	DF, MF    bool
	Offset    int   // of a fragment, in bytes; one that is not the first is the payload alone
	Flags     uint8 // of TCP; SYN if 0
	Seq, Ack  uint32
	BadIP     bool   // the header's checksum is wrong
	BadL4     bool   // the checksum of UDP, TCP, or ICMP is wrong
	Options   []byte // of IPv4, padded to words
	MoreIP    int    // bytes that the IPv4 header claims and that are not there
	MoreUDP   int    // the same of the UDP header
	Payload   []byte
}

// minPayload is the least that Ethernet carries: shorter ones are padded.
const minPayload = 46

// wrong is added to a checksum, bit by bit, that is to be wrong.
const wrong = 0x5555

// Bytes makes the frame.
func (f Frame) Bytes() []byte {
	be := binary.BigEndian
	b := append(append(make([]byte, 0, 64+len(f.Payload)), f.Dst...), f.Src...)
	if f.VLAN != 0 {
		b = be.AppendUint16(be.AppendUint16(b, unix.ETH_P_8021Q), f.VLAN)
	}
	switch {
	case f.EtherType != 0:
		b = append(be.AppendUint16(b, f.EtherType), f.Payload...)
		return append(b, make([]byte, max(0, minPayload-len(f.Payload)))...)
	case f.To.Addr().Is6():
		return f.ipv6(be.AppendUint16(b, unix.ETH_P_IPV6))
	}
	return f.ipv4(be.AppendUint16(b, unix.ETH_P_IP))
}

// ttl is what the frame is sent with.
func (f Frame) ttl() uint8 {
	if f.TTL == 0 {
		return 64
	}
	return f.TTL
}

// ipv4 appends an IPv4 packet (RFC 791).
func (f Frame) ipv4(b []byte) []byte {
	be := binary.BigEndian
	at := len(b)
	head := header.IPv4Len + len(f.Options)
	b = append(b, 0x40|byte(head/4), 0, 0, 0)
	b = be.AppendUint16(b, f.ID)
	frag := uint16(f.Offset / 8)
	if f.DF {
		frag |= 0x4000
	}
	if f.MF {
		frag |= 0x2000
	}
	b = be.AppendUint16(b, frag)
	b = append(b, f.ttl(), f.Proto, 0, 0)
	b = append(append(b, f.From.Addr().AsSlice()...), f.To.Addr().AsSlice()...)
	b = append(b, f.Options...)
	b = f.transport(b, header.Layer{Kind: header.KindIPv4, Off: at, Len: head})
	be.PutUint16(b[at+2:], uint16(len(b)-at+f.MoreIP))
	sum := header.IPv4(b[at:]).Compute()
	if f.BadIP {
		sum ^= wrong
	}
	be.PutUint16(b[at+10:], sum)
	return b
}

// ipv6 appends an IPv6 packet (RFC 8200).
func (f Frame) ipv6(b []byte) []byte {
	at := len(b)
	b = append(b, 0x60, 0, 0, 0, 0, 0, f.Proto, f.ttl())
	b = append(append(b, f.From.Addr().AsSlice()...), f.To.Addr().AsSlice()...)
	b = f.transport(b, header.Layer{Kind: header.KindIPv6, Off: at, Len: header.IPv6Len})
	binary.BigEndian.PutUint16(b[at+4:], uint16(len(b)-at-header.IPv6Len))
	return b
}

// transport appends the header of what is carried, the payload, and puts the checksum in its place.
func (f Frame) transport(b []byte, ip header.Layer) []byte {
	if f.Offset > 0 {
		return append(b, f.Payload...)
	}
	be := binary.BigEndian
	l := header.Layer{Off: len(b)}
	sumAt := 0
	switch f.Proto {
	case unix.IPPROTO_UDP:
		l.Kind, sumAt = header.KindUDP, 6
		b = be.AppendUint16(be.AppendUint16(b, f.From.Port()), f.To.Port())
		b = be.AppendUint16(be.AppendUint16(b, uint16(header.UDPLen+len(f.Payload)+f.MoreUDP)), 0)
	case unix.IPPROTO_TCP:
		l.Kind, sumAt = header.KindTCP, 16
		flags := f.Flags
		if flags == 0 {
			flags = header.SYN
		}
		b = be.AppendUint16(be.AppendUint16(b, f.From.Port()), f.To.Port())
		b = be.AppendUint32(be.AppendUint32(b, f.Seq), f.Ack)
		b = append(b, header.TCPLen/4<<4, flags, 0xfa, 0xf0, 0, 0, 0, 0)
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		l.Kind, sumAt = header.KindICMP, 2
		typ := byte(8) // echo (RFC 792)
		if f.Proto == unix.IPPROTO_ICMPV6 {
			l.Kind, typ = header.KindICMPv6, 128 // echo request (RFC 4443)
		}
		b = be.AppendUint16(append(b, typ, 0, 0, 0), f.From.Port())
		b = be.AppendUint16(b, f.ID)
	default:
		return append(b, f.Payload...)
	}
	l.Len = len(b) - l.Off
	b = append(b, f.Payload...)
	sum := header.TransportSum(b, ip, l, len(b))
	if f.BadL4 {
		if sum ^= wrong; sum == 0 {
			sum = 1 // UDP's 0 is no checksum
		}
	}
	be.PutUint16(b[l.Off+sumAt:], sum)
	return b
}

// Injector sends whole frames from an interface (packet(7)), as they are, headers and all.
type Injector struct {
	fd, index int
}

// OpenInjector opens an interface of the namespace this thread is in.
func OpenInjector(dev string) (*Injector, error) {
	ifi, err := net.InterfaceByName(dev)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dev, err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0) // protocol 0 receives nothing
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", os.NewSyscallError("socket", err))
	}
	return &Injector{fd, ifi.Index}, nil
}

// Send sends a frame.
func (i *Injector) Send(frame []byte) error {
	if len(frame) < header.EthernetLen {
		return fmt.Errorf("send frame of %d bytes: no header", len(frame))
	}
	to := &unix.SockaddrLinklayer{Ifindex: i.index, Protocol: htons(binary.BigEndian.Uint16(frame[12:])), Halen: 6}
	copy(to.Addr[:], frame[:6])
	return os.NewSyscallError("sendto", unix.Sendto(i.fd, frame, 0, to))
}

// Close closes the socket.
func (i *Injector) Close() error { return unix.Close(i.fd) }
