package header

import "encoding/binary"

// etherType gives the kind of layer an EtherType announces.
func (w *walker) etherType(t uint16) Kind {
	switch t {
	case EtherTypeIPv4:
		return KindIPv4
	case EtherTypeIPv6:
		return KindIPv6
	case EtherTypeARP, EtherTypeRARP:
		return w.arp()
	case EtherTypeVLAN, EtherTypeQinQ, EtherTypeQinQ1:
		return KindVLAN
	case EtherTypeMPLS:
		return KindMPLS
	case EtherTypePPPoE:
		return KindPPPoE
	case EtherTypeTEB:
		return KindEthernet
	}
	w.s.Next = t
	return w.stop(Unknown)
}

// arp follows ARP for IPv4 over Ethernet only.
func (w *walker) arp() Kind {
	if b := w.rest(); len(b) >= 6 && [6]byte(b) != [6]byte{0, 1, 8, 0, 6, 4} {
		w.s.Next = EtherTypeARP
		return w.stop(Unknown)
	}
	return KindARP
}

// limit ends the packet n bytes behind at; link layers pad short packets.
func (w *walker) limit(at, n int) { w.s.End = min(w.s.End, at+n) }

func (w *walker) ipv4(b []byte) Kind {
	h := IPv4(b)
	n, total := h.HeaderLen(), h.TotalLen()
	if b[0]>>4 != 4 || n < IPv4Len || total != 0 && total < n {
		return w.stop(Bad)
	}
	at := w.s.Payload
	if !w.take(KindIPv4, n) {
		return KindNone
	}
	if total != 0 {
		w.limit(at, total)
	}
	if h.FragmentOffset() != 0 {
		return w.stop(Fragment)
	}
	return w.protocol(h.Proto())
}

func (w *walker) ipv6(b []byte) Kind {
	h := IPv6(b)
	if b[0]>>4 != 6 {
		return w.stop(Bad)
	}
	w.take(KindIPv6, IPv6Len)
	if n := h.PayloadLen(); n != 0 {
		w.limit(w.s.Payload, n)
	}
	return w.protocol(h.NextHeader())
}

// extension steps over an extension header of IPv6 or an authentication header.
func (w *walker) extension(b []byte) Kind {
	p, n := w.proto, 8+int(b[1])*8
	switch p {
	case ProtoFragment:
		n = 8
	case ProtoAH:
		n = (int(b[1]) + 2) * 4
	}
	if n < 8 {
		return w.stop(Bad)
	}
	if !w.take(KindExtension, n) {
		return KindNone
	}
	w.s.Layers[w.s.N-1].Proto = p
	if p == ProtoFragment && Extension(b).FragmentOffset() != 0 {
		return w.stop(Fragment)
	}
	return w.protocol(Extension(b).NextHeader())
}

// protocol gives the kind of layer a protocol number of IP announces.
func (w *walker) protocol(p uint8) Kind {
	switch p {
	case ProtoTCP:
		return KindTCP
	case ProtoUDP:
		return KindUDP
	case ProtoSCTP:
		return KindSCTP
	case ProtoICMP:
		return KindICMP
	case ProtoICMPv6:
		return KindICMPv6
	case ProtoIPIP:
		return KindIPv4
	case ProtoIPv6:
		return KindIPv6
	case ProtoGRE:
		return KindGRE
	case ProtoMPLS:
		return KindMPLS
	case ProtoHopByHop, ProtoRouting, ProtoFragment, ProtoDstOpts, ProtoMobility, ProtoAH:
		w.proto = p
		return KindExtension
	case ProtoNone:
		return KindNone
	}
	w.s.Next = uint16(p)
	return w.stop(Unknown)
}

// udp looks for tunnels by the receiver's port.
func (w *walker) udp(b []byte) Kind {
	switch UDP(b).DstPort() {
	case VXLANPort, VXLANPortLinux:
		if r := w.rest(); len(r) >= VXLANLen && VXLAN(r).Valid() && r[0]&^8 == 0 {
			return KindVXLAN
		}
	case GenevePort:
		if r := w.rest(); len(r) >= GeneveLen && Geneve(r).Version() == 0 {
			return KindGeneve
		}
	}
	return KindNone
}

func (w *walker) gre(b []byte) Kind {
	h := GRE(b)
	if h.Version() != 0 || binary.BigEndian.Uint16(b)&0x4000 != 0 { // PPTP, or source routing, which is obsolete
		w.take(KindGRE, GRELen)
		w.s.Next = h.Type()
		return w.stop(Unknown)
	}
	if !w.take(KindGRE, h.HeaderLen()) {
		return KindNone
	}
	return w.etherType(h.Type())
}
