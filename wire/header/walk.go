package header

// Kind is what a layer is.
type Kind uint8

// Kinds of layers.
const (
	KindNone Kind = iota
	KindEthernet
	KindVLAN
	KindMPLS
	KindPPPoE
	KindARP // also RARP
	KindIPv4
	KindIPv6
	KindExtension // of IPv6; also AH. Layer.Proto says which
	KindTCP
	KindUDP
	KindSCTP
	KindICMP
	KindICMPv6
	KindGRE
	KindVXLAN
	KindGeneve
	KindIP // only as what Walk starts with: IPv4 or IPv6 by the first four bits
)

var kindText = [...]string{"none", "Ethernet", "VLAN", "MPLS", "PPPoE", "ARP", "IPv4", "IPv6", "IPv6 extension", "TCP", "UDP", "SCTP",
	"ICMP", "ICMPv6", "GRE", "VXLAN", "Geneve", "IP"}

// String names the kind.
func (k Kind) String() string { return kindText[k] }

// Layer is a header of a packet.
type Layer struct {
	Kind  Kind
	Proto uint8 // KindExtension: its number among the protocols over IP
	Off   int   // where it begins in the packet, in bytes
	Len   int   // its length, options counted
}

// Status says why a walk ended.
type Status uint8

// Statuses.
const (
	Done     Status = iota // a payload was reached, or nothing is left
	Cut                    // the packet ends inside of the next header
	Bad                    // a header contradicts itself: a length below the least, a wrong version
	Fragment               // a fragment that is not the first: its payload does not begin with a header
	Unknown                // a protocol that has no type here
	Deep                   // more layers than MaxLayers
)

// MaxLayers bounds a stack.
const MaxLayers = 24

// Stack is the layers of a packet, outermost first. It can be used again for the next one.
type Stack struct {
	Layers  [MaxLayers]Layer
	N       int // layers found
	Payload int // offset of what follows the last of them
	End     int // offset of its end: the innermost IP length, or the end of the packet
	Status  Status
	Next    uint16 // with Status Unknown: the EtherType or the protocol over IP that was not followed
}

// Found gives the layers.
func (s *Stack) Found() []Layer { return s.Layers[:s.N] }

// Last gives the innermost layer of a kind, and whether there is one.
func (s *Stack) Last(k Kind) (Layer, bool) {
	for i := s.N - 1; i >= 0; i-- {
		if s.Layers[i].Kind == k {
			return s.Layers[i], true
		}
	}
	return Layer{}, false
}

// Bytes gives a layer's header.
func (l Layer) Bytes(pkt []byte) []byte { return pkt[l.Off : l.Off+l.Len] }

// Walk finds the layers of a packet that begins with a header of kind first: KindEthernet, KindIP, or any other. It takes any
// bytes and does not allocate; tunnels are followed to their innermost header.
func (s *Stack) Walk(pkt []byte, first Kind) {
	s.N, s.Payload, s.End, s.Status, s.Next = 0, 0, len(pkt), Done, 0
	w := walker{s: s, pkt: pkt}
	for next := first; next != KindNone; {
		if s.N == MaxLayers {
			s.Status = Deep
			return
		}
		next = w.step(next)
	}
}

// walker is a walk: the rest of the packet begins at s.Payload.
type walker struct {
	s     *Stack
	pkt   []byte
	proto uint8 // of the extension header that comes next
}

func (w *walker) rest() []byte { return w.pkt[w.s.Payload:w.s.End] }

// take adds a layer of n bytes; false if it is not all there.
func (w *walker) take(k Kind, n int) bool {
	if len(w.rest()) < n {
		w.s.Status = Cut
		return false
	}
	w.s.Layers[w.s.N] = Layer{Kind: k, Off: w.s.Payload, Len: n}
	w.s.N++
	w.s.Payload += n
	return true
}

func (w *walker) stop(st Status) Kind {
	w.s.Status = st
	return KindNone
}

// fixed are the lengths of the fixed parts.
var fixed = [...]int{
	KindEthernet: EthernetLen, KindVLAN: VLANLen, KindMPLS: MPLSLen, KindPPPoE: PPPoELen, KindARP: ARPLen, KindIPv4: IPv4Len,
	KindIPv6: IPv6Len, KindExtension: 8, KindTCP: TCPLen, KindUDP: UDPLen, KindSCTP: SCTPLen, KindICMP: ICMPLen, KindICMPv6: ICMPLen,
	KindGRE: GRELen, KindVXLAN: VXLANLen, KindGeneve: GeneveLen, KindIP: 1,
}

// step takes one layer and says which comes next.
func (w *walker) step(k Kind) Kind {
	b := w.rest()
	if len(b) < fixed[k] {
		return w.stop(Cut)
	}
	switch k {
	case KindEthernet:
		w.take(k, EthernetLen)
		return w.etherType(Ethernet(b).Type())
	case KindVLAN:
		w.take(k, VLANLen)
		return w.etherType(VLAN(b).Type())
	case KindMPLS:
		w.take(k, MPLSLen)
		if !MPLS(b).Bottom() {
			return KindMPLS
		}
		return KindIP
	case KindPPPoE:
		w.take(k, PPPoELen)
		switch PPPoE(b).Proto() {
		case 0x21:
			return KindIPv4
		case 0x57:
			return KindIPv6
		}
		w.s.Next = PPPoE(b).Proto()
		return w.stop(Unknown)
	case KindIP:
		switch b[0] >> 4 {
		case 4:
			return KindIPv4
		case 6:
			return KindIPv6
		}
		return w.stop(Bad)
	case KindIPv4:
		return w.ipv4(b)
	case KindIPv6:
		return w.ipv6(b)
	case KindExtension:
		return w.extension(b)
	case KindTCP:
		if n := TCP(b).HeaderLen(); n < TCPLen {
			return w.stop(Bad)
		} else {
			w.take(k, n)
		}
		return KindNone
	case KindUDP:
		w.take(k, UDPLen)
		return w.udp(b)
	case KindGRE:
		return w.gre(b)
	case KindVXLAN:
		w.take(k, VXLANLen)
		return KindEthernet
	case KindGeneve:
		if !w.take(k, Geneve(b).HeaderLen()) {
			return KindNone
		}
		return w.etherType(Geneve(b).Type())
	}
	w.take(k, fixed[k]) // ARP, SCTP, ICMP, ICMPv6: what follows is payload
	return KindNone
}
