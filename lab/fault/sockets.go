package fault

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/fathom-trace/fathom/lab/topology/traffic"
	"github.com/fathom-trace/fathom/wire/header"
)

// Faults at the socket: there is none, or it does not take what comes.

var any4 = netip.IPv4Unspecified()

func udpNoListener(s *Scene) error {
	_, b := s.pair()
	if err := s.up(); err != nil {
		return err
	}
	port := s.deck.Port()
	s.datagrams("a", datagrams{to: b.port(port), count: s.few(), pause: gap})
	s.drops("__udp4_lib_rcv", "NO_SOCKET")
	s.blame("socket", "b", "proto", "udp", "local", b.port(port), "state", "absent")
	s.counter("b", "Udp.NoPorts", 1)
	s.counter("a", "Icmp.InDestUnreachs", 1)
	return nil
}

func udpNoListener6(s *Scene) error {
	_, b := s.pair6()
	if err := s.up(); err != nil {
		return err
	}
	port := s.deck.Port()
	s.datagrams("a", datagrams{to: b.port(port), count: s.few(), pause: gap})
	s.drops("__udp6_lib_rcv", "NO_SOCKET")
	s.blame("socket", "b", "proto", "udp", "local", b.port(port), "state", "absent")
	s.counter("b", "Udp6.NoPorts", 1)
	return nil
}

func tcpNoListener(s *Scene) error {
	_, b := s.pair()
	if err := s.up(); err != nil {
		return err
	}
	port := s.deck.Port()
	s.connects("a", b.port(port), s.few(), time.Second)
	s.Answer.Errno = "ECONNREFUSED"
	s.drops("tcp_v4_rcv", "NO_SOCKET")
	s.blame("socket", "b", "proto", "tcp", "local", b.port(port), "state", "absent")
	s.counter("b", "Tcp.OutRsts", 3)
	return nil
}

func udpBoundToDevice(s *Scene) error {
	_, b := s.pair()
	other, port := s.beside("b").dev, s.deck.Port()
	if err := s.up(); err != nil {
		return err
	}
	if err := s.serve("b", socket{proto: "udp", addr: netip.AddrPortFrom(any4, uint16(port)), dev: other}); err != nil {
		return err
	}
	s.datagrams("a", datagrams{to: b.port(port), count: s.few(), pause: gap})
	s.drops("__udp4_lib_rcv", "NO_SOCKET")
	s.blame("socket", "b", "proto", "udp", "local", fmt.Sprintf("0.0.0.0%%%s:%d", other, port), "state", "wrong-device")
	s.counter("b", "Udp.NoPorts", 1)
	return nil
}

func tcpBoundToDevice(s *Scene) error {
	_, b := s.pair()
	other, port := s.beside("b").dev, s.deck.Port()
	if err := s.up(); err != nil {
		return err
	}
	if err := s.serve("b", socket{proto: "tcp", addr: netip.AddrPortFrom(any4, uint16(port)), dev: other, backlog: 8}); err != nil {
		return err
	}
	s.connects("a", b.port(port), s.few(), time.Second)
	s.Answer.Errno = "ECONNREFUSED"
	s.drops("tcp_v4_rcv", "NO_SOCKET")
	s.blame("socket", "b", "proto", "tcp", "local", fmt.Sprintf("0.0.0.0%%%s:%d", other, port), "state", "wrong-device")
	return nil
}

func udpOtherAddress(s *Scene) error {
	_, b := s.pair()
	port := s.deck.Port()
	addr := netip.MustParseAddr(fmt.Sprintf("10.%d.1.1", 1+s.deck.IntN(60)))
	other := s.beside("b")
	other.addr, other.bits = addr, 32
	if err := s.up(); err != nil {
		return err
	}
	local := netip.AddrPortFrom(addr, uint16(port))
	if err := s.serve("b", socket{proto: "udp", addr: local}); err != nil {
		return err
	}
	s.datagrams("a", datagrams{to: b.port(port), count: s.few(), pause: gap})
	s.drops("__udp4_lib_rcv", "NO_SOCKET")
	s.blame("socket", "b", "proto", "udp", "local", local, "state", "wrong-address")
	return nil
}

func udpOtherPeer(s *Scene) error {
	a, b := s.pair()
	port := s.deck.Port()
	if err := s.up(); err != nil {
		return err
	}
	peer := netip.AddrPortFrom(a.addr.Next(), uint16(s.deck.Port()))
	if err := s.serve("b", socket{proto: "udp", addr: b.port(port), peer: peer}); err != nil {
		return err
	}
	s.datagrams("a", datagrams{to: b.port(port), count: s.few(), pause: gap})
	s.drops("__udp4_lib_rcv", "NO_SOCKET")
	s.blame("socket", "b", "proto", "udp", "local", b.port(port), "state", "connected")
	return nil
}

func udpV6Only(s *Scene) error {
	_, b := s.pair()
	port := s.deck.Port()
	if err := s.up(); err != nil {
		return err
	}
	if err := s.serve("b", socket{proto: "udp", addr: netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(port)), v6only: true}); err != nil {
		return err
	}
	s.datagrams("a", datagrams{to: b.port(port), count: s.few(), pause: gap})
	s.drops("__udp4_lib_rcv", "NO_SOCKET")
	s.blame("socket", "b", "proto", "udp", "local", fmt.Sprintf("[::]:%d", port), "state", "v6only")
	return nil
}

func udpRcvbufFull(s *Scene) error {
	_, b := s.pair()
	port := s.deck.Port()
	if err := s.up(); err != nil {
		return err
	}
	local := netip.AddrPortFrom(any4, uint16(port))
	if err := s.serve("b", socket{proto: "udp", addr: local, rcvbuf: 2304, unread: true}); err != nil {
		return err
	}
	s.datagrams("a", datagrams{to: b.port(port), count: 30 + s.deck.IntN(30), size: 512})
	s.drops("udp_queue_rcv_one_skb", "SOCKET_RCVBUFF")
	s.blame("socket", "b", "proto", "udp", "local", local, "field", "rcvbuf")
	s.counter("b", "Udp.RcvbufErrors", 20)
	return nil
}

func socketFilter(s *Scene) error {
	_, b := s.pair()
	port := s.deck.Port()
	if err := s.up(); err != nil {
		return err
	}
	local := b.port(port)
	if err := s.serve("b", socket{proto: "udp", addr: local, refuse: true}); err != nil {
		return err
	}
	s.datagrams("a", datagrams{to: local, count: s.few()})
	s.drops("udp_queue_rcv_one_skb", "SOCKET_FILTER")
	s.blame("socket", "b", "proto", "udp", "local", local, "field", "filter")
	s.counter("b", "Udp.InErrors", 3)
	return nil
}

func tcpListenOverflow(s *Scene) error {
	_, b := s.pair()
	port := s.deck.Port()
	if err := s.up(); err != nil {
		return err
	}
	local := netip.AddrPortFrom(any4, uint16(port))
	if err := s.serve("b", socket{proto: "tcp", addr: local, unread: true}); err != nil {
		return err
	}
	s.connects("a", b.port(port), 3, 1200*time.Millisecond)
	s.silent()
	s.blame("socket", "b", "proto", "tcp", "local", local, "field", "backlog")
	s.counter("b", "TcpExt.ListenOverflows", 1)
	return nil
}

// synBacklog is a listener whose queue of handshakes is full, of SYNs of hosts that are not there.
func synBacklog(s *Scene) error {
	a, b := s.pair()
	port, from := s.deck.Port(), s.deck.Port()
	s.host("b", "sysctl net.ipv4.tcp_syncookies=0")
	if err := s.up(); err != nil {
		return err
	}
	const room = 2
	if err := s.serve("b", socket{proto: "tcp", addr: b.port(port), backlog: room}); err != nil {
		return err
	}
	s.frames(a, 12, 0, 0, func(i int) traffic.Frame {
		f := udpFrame(a, b, from+i, port, 0)
		f.Proto, f.Seq = header.ProtoTCP, s.deck.Uint32()
		ip := a.addr.As4()
		ip[3] = byte(100 + i) // nobody
		f.From = netip.AddrPortFrom(netip.AddrFrom4(ip), uint16(from+i))
		return f
	})
	s.Answer.Retries = true // SYNs that wait for the last segment of the handshake have arrived
	s.silent()
	s.blame("socket", "b", "proto", "tcp", "local", b.port(port), "field", "backlog")
	s.counter("b", "TcpExt.ListenDrops", 5)
	return nil
}

func tcpMD5Missing(s *Scene) error {
	a, b := s.pair()
	port := s.deck.Port()
	if err := s.up(); err != nil {
		return err
	}
	local := netip.AddrPortFrom(any4, uint16(port))
	if err := s.serve("b", socket{proto: "tcp", addr: local, backlog: 4, md5: a.addr}); err != nil {
		return err
	}
	s.connects("a", b.port(port), 1, 1500*time.Millisecond)
	s.Answer.Errno = "timeout"
	s.drops("tcp_v4_rcv", "TCP_MD5NOTFOUND")
	s.blame("socket", "b", "proto", "tcp", "local", local, "field", "TCP_MD5SIG")
	s.counter("b", "TcpExt.TCPMD5NotFound", 1)
	return nil
}

func tcpMinTTL(s *Scene) error {
	_, b := s.pair()
	port := s.deck.Port()
	if err := s.up(); err != nil {
		return err
	}
	local := netip.AddrPortFrom(any4, uint16(port))
	if err := s.serve("b", socket{proto: "tcp", addr: local, backlog: 4, minTTL: 200}); err != nil {
		return err
	}
	s.connects("a", b.port(port), 1, 1500*time.Millisecond)
	s.Answer.Errno = "timeout"
	s.drops("tcp_v4_rcv", "NOT_SPECIFIED")
	s.dropsSince("6.12", "tcp_v4_rcv", "TCP_MINTTL")
	s.blame("socket", "b", "proto", "tcp", "local", local, "field", "IP_MINTTL")
	s.counter("b", "TcpExt.TCPMinTTLDrop", 1)
	return nil
}

func tcpMidstream(s *Scene) error {
	a, b := s.pair()
	port, from := s.deck.Port(), s.deck.Port()
	if err := s.up(); err != nil {
		return err
	}
	s.frames(a, s.few(), gap, 0, func(int) traffic.Frame {
		f := udpFrame(a, b, from, port, 0)
		f.Proto, f.Flags, f.Seq, f.Ack = header.ProtoTCP, header.ACK, s.deck.Uint32(), s.deck.Uint32()
		return f
	})
	s.drops("tcp_v4_rcv", "NO_SOCKET")
	s.blame("socket", "b", "proto", "tcp", "local", b.port(port), "state", "absent")
	s.counter("b", "Tcp.OutRsts", 3)
	return nil
}

func captureOverflow(s *Scene) error {
	_, b := s.pair()
	port := s.deck.Port()
	if err := s.up(); err != nil {
		return err
	}
	if err := s.serve("b", socket{proto: "udp", addr: netip.AddrPortFrom(any4, uint16(port)), rcvbuf: 1 << 20}); err != nil {
		return err
	}
	if err := s.serve("b", socket{proto: "packet", dev: b.dev, rcvbuf: 1, unread: true, beside: true}); err != nil {
		return err
	}
	s.Answer.Class = "false-loss"
	s.datagrams("a", datagrams{to: b.port(port), count: 40 + s.deck.IntN(30), size: 1200, pause: time.Millisecond})
	s.silent()
	s.blame("socket", "b", "proto", "packet", "field", "rcvbuf")
	s.counter("b", "Udp.InDatagrams", 40)
	return nil
}

func pingReply(s *Scene) error {
	_, b := s.pair()
	if err := s.up(); err != nil {
		return err
	}
	s.Answer.Class = "false-loss"
	s.pings("a", b.addr, s.few())
	s.drops("icmp_rcv", "NO_SOCKET")
	s.dropsSince("6.18", "ping_rcv", "NO_SOCKET")
	s.Answer.Culprit = map[string]any{}
	s.at("a")
	s.counter("a", "Icmp.InEchoReps", 3)
	return nil
}

func multicastNotJoined(s *Scene) error {
	a, b := s.pair()
	port := s.deck.Port()
	group := netip.AddrFrom4([4]byte{239, byte(s.deck.IntN(256)), byte(s.deck.IntN(256)), byte(1 + s.deck.IntN(254))})
	s.host("a", "route 239.0.0.0/8 dev %s", a.dev)
	if err := s.up(); err != nil {
		return err
	}
	if err := s.serve("b", socket{proto: "udp", addr: netip.AddrPortFrom(any4, uint16(port))}); err != nil {
		return err
	}
	s.datagrams("a", datagrams{to: netip.AddrPortFrom(group, uint16(port)), count: s.few()})
	s.drops("ip_rcv_finish_core", "NOT_SPECIFIED")
	s.blame("membership", "b", "dev", b.dev, "group", group, "state", "absent")
	return nil
}
