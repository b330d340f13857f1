// Package sockdiag makes the requests of NETLINK_SOCK_DIAG and decodes its answers: sockets of TCP, UDP, SCTP, raw IP, packets,
// AF_XDP and AF_VSOCK (include/uapi/linux/{inet_diag,packet_diag,xdp_diag,vm_sockets_diag,sock_diag}.h). Every function takes the payload of one message.
package sockdiag

import (
	"encoding/binary"
	"net/netip"

	"github.com/fathom-trace/fathom/netstate"
	"github.com/fathom-trace/fathom/netstate/nlattr"
)

// ByFamily is the message type of every request here (SOCK_DIAG_BY_FAMILY).
const ByFamily = 20

// Address families and protocols that can be asked for.
const (
	INet   = 2
	INet6  = 10
	Packet = 17
	VSock  = 40
	XDP    = 44

	TCP     = 6
	UDP     = 17
	SCTP    = 132
	UDPLite = 136
	Raw     = 255
)

// Attributes of inet_diag.
const (
	inetInfo    = 2
	inetMemInfo = 7
	inetV6Only  = 11
	inetMark    = 15
	inetMD5     = 18

	md5Size = 100 // struct tcp_diag_md5sig
)

// Fields of SK_MEMINFO_… that are used.
const (
	memRmemAlloc = 0
	memRcvBuf    = 1
	memDrops     = 8
)

// INetRequest asks for the sockets of a family and protocol in all states.
func INetRequest(family, protocol uint8) []byte {
	b := make([]byte, 56) // struct inet_diag_req_v2
	b[0], b[1] = family, protocol
	if protocol == Raw {
		b[3] = 255 // struct inet_diag_req_raw: any protocol
	}
	b[2] = 1 << (inetMemInfo - 1)
	if protocol == TCP {
		b[2] |= 1 << (inetInfo - 1) // which brings the peers that must sign, too
	}
	binary.LittleEndian.PutUint32(b[4:], 0xffffffff)
	return b
}

// PacketRequest asks for packet sockets with their devices, memory and filters.
func PacketRequest() []byte {
	const info, mem, filter = 1, 0x10, 0x20
	return request(Packet, info|mem|filter)
}

// XDPRequest asks for AF_XDP sockets with their rings and statistics.
func XDPRequest() []byte { return request(XDP, 0x1f) }

// VSockRequest asks for AF_VSOCK sockets in all states.
func VSockRequest() []byte {
	b := make([]byte, 24) // struct vsock_diag_req
	b[0] = VSock
	binary.LittleEndian.PutUint32(b[4:], 0xffffffff)
	return b
}

func request(family uint8, show uint32) []byte {
	b := make([]byte, 20)
	b[0] = family
	binary.LittleEndian.PutUint32(b[8:], show)
	return b
}

// tcpStates are those of include/net/tcp_states.h, from 1.
var tcpStates = [...]string{
	"", "established", "syn-sent", "syn-recv", "fin-wait-1", "fin-wait-2", "time-wait", "close", "close-wait", "last-ack", "listen",
	"closing", "new-syn-recv", "bound-inactive",
}

// StateName names a TCP state; for other protocols it says whether the socket is connected.
func StateName(proto string, n uint8) string {
	if proto != "tcp" {
		if n == 1 {
			return "connected"
		}
		return ""
	}
	if int(n) < len(tcpStates) {
		return tcpStates[n]
	}
	return "unknown"
}

var protoNames = map[uint8]string{TCP: "tcp", UDP: "udp", UDPLite: "udplite", SCTP: "sctp", Raw: "raw"}

// DecodeINet reads struct inet_diag_msg. proto is what was asked for.
func DecodeINet(proto uint8, b []byte) (netstate.Socket, error) {
	const msg = 72
	a, err := nlattr.ParseAt(b, msg)
	if err != nil {
		return netstate.Socket{}, err
	}
	s := netstate.Socket{
		Proto: protoNames[proto], Family: 4, Dev: int(nlattr.U32(b[40:])), RecvQ: nlattr.U32(b[56:]), SendQ: nlattr.U32(b[60:]),
		UID: nlattr.U32(b[64:]), Inode: uint64(nlattr.U32(b[68:])), Mark: a.U32(inetMark), Cookie: nlattr.U64(b[44:]),
	}
	n := 4
	if b[0] == INet6 {
		s.Family, n, s.V6Only = 6, 16, a.U8(inetV6Only) != 0
	}
	s.State = StateName(s.Proto, b[1])
	s.Local, s.Remote = addrPort(b[8:8+n], b[4:]), addrPort(b[24:24+n], b[6:])
	if proto == Raw {
		s.Number = int(s.Local.Port())
		s.Local, s.Remote = netip.AddrPortFrom(s.Local.Addr(), 0), netip.AddrPortFrom(s.Remote.Addr(), 0)
	}
	memory(&s, a.Get(inetMemInfo))
	for d := a.Get(inetMD5); len(d) >= md5Size; d = d[md5Size:] {
		if addr, ok := md5Addr(d); ok {
			s.MD5 = append(s.MD5, netip.PrefixFrom(addr, int(d[1])))
		}
	}
	return s, nil
}

func md5Addr(d []byte) (netip.Addr, bool) {
	if d[0] == INet6 {
		return netip.AddrFromSlice(d[4:20])
	}
	return netip.AddrFromSlice(d[4:8])
}

func addrPort(addr, port []byte) netip.AddrPort {
	a, _ := netip.AddrFromSlice(addr)
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(port))
}

// memory reads the SK_MEMINFO_… array.
func memory(s *netstate.Socket, d []byte) {
	at := func(i int) uint32 { return nlattr.U32(d[min(4*i, len(d)):]) }
	s.RcvMem, s.RcvBuf, s.Drops = at(memRmemAlloc), at(memRcvBuf), at(memDrops)
}

// DecodePacket reads struct packet_diag_msg.
func DecodePacket(b []byte) (netstate.Socket, error) {
	const (
		msg     = 16
		info    = 0
		uid     = 5
		meminfo = 6
		filter  = 7
	)
	a, err := nlattr.ParseAt(b, msg)
	if err != nil {
		return netstate.Socket{}, err
	}
	s := netstate.Socket{
		Proto: "packet", Number: int(nlattr.U16(b[2:])), Inode: uint64(nlattr.U32(b[4:])), Cookie: nlattr.U64(b[8:]),
		Dev: int(nlattr.U32(a.Get(info))), UID: a.U32(uid), Filter: len(a.Get(filter)) > 0,
	}
	memory(&s, a.Get(meminfo))
	return s, nil
}

// DecodeXDP reads struct xdp_diag_msg.
func DecodeXDP(b []byte) (netstate.Socket, error) {
	const (
		msg     = 16
		info    = 1
		uid     = 2
		fill    = 6
		meminfo = 8
		stats   = 9
	)
	a, err := nlattr.ParseAt(b, msg)
	if err != nil {
		return netstate.Socket{}, err
	}
	at := func(typ uint16, off int) []byte { d := a.Get(typ); return d[min(off, len(d)):] }
	x := &netstate.XSK{
		Link: int(nlattr.U32(at(info, 0))), Queue: int(nlattr.U32(at(info, 4))), Fill: nlattr.U32(at(fill, 0)),
		RxDropped: nlattr.U64(at(stats, 0)), RingFull: nlattr.U64(at(stats, 16)), FillEmpty: nlattr.U64(at(stats, 24)),
	}
	s := netstate.Socket{
		Proto: "xdp", Inode: uint64(nlattr.U32(b[4:])), Cookie: nlattr.U64(b[8:]), UID: a.U32(uid), Dev: x.Link, XSK: x,
	}
	memory(&s, a.Get(meminfo))
	return s, nil
}

// DecodeVSock reads struct vsock_diag_msg. Its states are those of TCP.
func DecodeVSock(b []byte) (netstate.Socket, error) {
	const msg = 32
	if _, err := nlattr.ParseAt(b, msg); err != nil {
		return netstate.Socket{}, err
	}
	s := netstate.Socket{Proto: "vsock", State: StateName("tcp", b[2]), Inode: uint64(nlattr.U32(b[20:])), Cookie: nlattr.U64(b[24:])}
	if port := nlattr.U32(b[8:]); port != 0xffffffff { // VMADDR_PORT_ANY
		s.Number = int(port)
	}
	return s, nil
}
