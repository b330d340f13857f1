package netstate

import (
	"net/netip"

	"github.com/fathom-trace/fathom/netstate/nft"
)

// Firewall is the ruleset of nftables, which can be asked what it does with a packet:
//
//	out := s.Firewall().Eval(s.Packet(data, iif, 0), "input")
//	step, sure := out.Dropper(netstate.Diff(before, after))
func (s *State) Firewall() *nft.Ruleset { return &nft.Ruleset{Chains: s.Chains, Sets: s.Sets} }

// Packet is a packet for [nft.Ruleset.Eval], with what the state knows of its devices: iif and oif are indexes, 0 is none.
// data begins with the network header. The caller adds what it knows of mark, connection and socket.
func (s *State) Packet(data []byte, iif, oif int) nft.Packet {
	p := nft.Packet{Data: data, IIF: iif, OIF: oif, FIB: s.nftFIB}
	if l, ok := s.LinkByIndex(iif); ok {
		group := uint32(l.Group)
		p.IIFName, p.IIFKind, p.IIFGroup = l.Name, l.Kind, &group
	}
	if l, ok := s.LinkByIndex(oif); ok {
		group := uint32(l.Group)
		p.OIFName, p.OIFKind, p.OIFGroup = l.Name, l.Kind, &group
	}
	return p
}

// Flags of nftables' expression fib (NFTA_FIB_F_…), and types of routes (RTN_…).
const (
	fibDst  = 2
	fibMark = 4
	fibIIF  = 8
	fibOIF  = 16

	rtnUnicast   = 1
	rtnBroadcast = 3
	rtnMulticast = 5
)

var rtnTypes = map[string]uint32{
	"unicast": rtnUnicast, "local": 2, "broadcast": rtnBroadcast, "anycast": 4, "multicast": rtnMulticast, "blackhole": 6, "unreachable": 7, "prohibit": 8,
}

// nftFIB answers the expression fib as net/ipv4/netfilter/nft_fib_ipv4.c does: the device that an address is reached by, and
// what kind of address it is.
func (s *State) nftFIB(p *nft.Packet, hook string, flags uint32) (dev int, name string, typ uint32, ok bool) {
	src, dst := addrs(p.Data)
	if !src.IsValid() {
		return 0, "", 0, false
	}
	f := Flow{Src: src, Dst: dst, IIF: loopback}
	if flags&fibDst == 0 {
		f.Src, f.Dst = dst, src
	}
	if flags&fibMark != 0 {
		f.Mark = p.Mark
	}
	want := 0
	switch {
	case flags&fibIIF != 0:
		want = p.IIF
	case flags&fibOIF != 0:
		want = p.OIF
	}
	typ = s.addrType(f.Dst, want)
	if p.IIF == loopback && hook == "prerouting" { // what comes in by the loopback belongs there
		return loopback, s.LinkName(loopback), typ, true
	}
	d := s.lookup(f)
	switch {
	case d.Type != "unicast", want != 0 && !s.leavesBy(d, want):
		want = 0
	case want == 0:
		want = d.Link
	}
	// Newer kernels say lo in the input hook, too.
	return want, s.LinkName(want), typ, p.IIF != loopback || hook != "input" || want == loopback
}

// addrType is what an address is to this namespace (inet_dev_addr_type).
func (s *State) addrType(a netip.Addr, dev int) uint32 {
	switch {
	case a.IsMulticast():
		return rtnMulticast
	case a.Is4() && (a.As4()[0] == 0 || a == netip.AddrFrom4([4]byte{255, 255, 255, 255})):
		return rtnBroadcast
	}
	family := 4
	if a.Is6() {
		family = 6
	}
	if best := s.candidates(family, tableLocal, Flow{Dst: a}); len(best) > 0 && (dev == 0 || best[0].Link == dev) {
		return rtnTypes[best[0].Type]
	}
	return rtnUnicast
}

// addrs are the addresses of a packet.
func addrs(data []byte) (src, dst netip.Addr) {
	switch {
	case len(data) >= 20 && data[0]>>4 == 4:
		src, _ = netip.AddrFromSlice(data[12:16])
		dst, _ = netip.AddrFromSlice(data[16:20])
	case len(data) >= 40 && data[0]>>4 == 6:
		src, _ = netip.AddrFromSlice(data[8:24])
		dst, _ = netip.AddrFromSlice(data[24:40])
	}
	return src, dst
}
