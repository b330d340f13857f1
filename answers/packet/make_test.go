package packet

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"
)

// datagram makes the bytes of a packet of IP, without payload. Ports of ICMP echoes are the identifier and the number.
type datagram struct {
	proto    uint8
	src, dst string // "10.0.0.1:40000", "[2001:db8::1]:9"
	id       uint16 // of IPv4
	ttl      uint8  // 0 is 64
	seq      uint32 // of TCP
	flags    uint8  // of TCP
	frag     uint16 // flags and offset of IPv4, as the header has them
	kind     uint16 // of ICMP: type<<8 | code
	rest     []byte // behind the headers
}

func (d datagram) bytes() []byte {
	src, dst := netip.MustParseAddrPort(d.src), netip.MustParseAddrPort(d.dst)
	l4 := d.transport(src, dst)
	if d.frag&0x1fff != 0 {
		l4 = nil
	}
	l4 = append(l4, d.rest...)
	ttl := d.ttl
	if ttl == 0 {
		ttl = 64
	}
	var h []byte
	if dst.Addr().Is4() {
		h = make([]byte, 20)
		h[0], h[8], h[9] = 0x45, ttl, d.proto
		binary.BigEndian.PutUint16(h[2:], uint16(20+len(l4)))
		binary.BigEndian.PutUint16(h[4:], d.id)
		binary.BigEndian.PutUint16(h[6:], d.frag)
		copy(h[12:], src.Addr().AsSlice())
		copy(h[16:], dst.Addr().AsSlice())
	} else {
		h = make([]byte, 40)
		h[0], h[6], h[7] = 0x60, d.proto, ttl
		binary.BigEndian.PutUint16(h[4:], uint16(len(l4)))
		copy(h[8:], src.Addr().AsSlice())
		copy(h[24:], dst.Addr().AsSlice())
	}
	return append(h, l4...)
}

func (d datagram) transport(src, dst netip.AddrPort) []byte {
	var b []byte
	switch d.proto {
	case protoTCP:
		b = make([]byte, 20)
		binary.BigEndian.PutUint32(b[4:], d.seq)
		b[12], b[13] = 5<<4, d.flags
	case protoUDP:
		b = make([]byte, 8)
		binary.BigEndian.PutUint16(b[4:], uint16(8+len(d.rest)))
	case protoICMP, protoICMPv6:
		b = make([]byte, 8)
		binary.BigEndian.PutUint16(b, d.kind)
		if q, r := (Tuple{Proto: d.proto, Kind: d.kind}).echo(); q || r {
			binary.BigEndian.PutUint16(b[4:], src.Port())
			binary.BigEndian.PutUint16(b[6:], dst.Port())
		}
		return b
	default:
		return nil
	}
	binary.BigEndian.PutUint16(b, src.Port())
	binary.BigEndian.PutUint16(b[2:], dst.Port())
	return b
}

// ethernet puts a link header in front: some addresses and the EtherType, behind VLAN tags if there are numbers of them.
func ethernet(pkt []byte, vlans ...uint16) []byte {
	b := []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1}
	for _, v := range vlans {
		b = binary.BigEndian.AppendUint16(append(b, 0x81, 0), v)
	}
	switch pkt[0] >> 4 {
	case 4:
		b = append(b, 0x08, 0x00)
	case 6:
		b = append(b, 0x86, 0xdd)
	default:
		b = append(b, 0x08, 0x06)
	}
	return append(b, pkt...)
}

// symbols is a kernel whose functions have addresses as they are asked for.
type symbols struct {
	names []string
}

func (s *symbols) at(name string) uint64 {
	for i, n := range s.names {
		if n == name {
			return uint64(i+1) << 8
		}
	}
	s.names = append(s.names, name)
	return uint64(len(s.names)) << 8
}

func (s *symbols) Function(addr uint64) string {
	if i := int(addr>>8) - 1; i >= 0 && i < len(s.names) {
		return s.names[i]
	}
	return ""
}

func (s *symbols) Reason(n int32) string {
	return map[int32]string{2: "NOT_SPECIFIED", 3: "NO_SOCKET", 9: "NETFILTER_DROP"}[n]
}

// world is a Tracker, its symbols and a clock.
type world struct {
	*Tracker
	*symbols
	t   testing.TB
	now uint64
}

func newWorld(t testing.TB) *world {
	s := &symbols{}
	return &world{Tracker: NewTracker(s, nil, nil), symbols: s, t: t}
}

// event is the text of an event, "rx skb=1 head=2 ns=3 dev=4 path=a,b last": what is not said is zero. The head is by
// default 1000 and the skb's number.
func (w *world) event(text string, d []byte) Event {
	w.t.Helper()
	w.now += 1000
	e := Event{Time: w.now, Bytes: d}
	for i, f := range strings.Fields(text) {
		k, v, _ := strings.Cut(f, "=")
		var n uint64
		for _, c := range v {
			n = n*10 + uint64(c-'0')
		}
		switch {
		case i == 0:
			if err := e.Kind.UnmarshalText([]byte(k)); err != nil {
				w.t.Fatal(err)
			}
		case k == "skb":
			e.Skb = n
			if e.Head == 0 {
				e.Head = 1000 + n
			}
		case k == "head":
			e.Head = n
		case k == "ns":
			e.Netns = uint32(n)
		case k == "dev":
			e.Ifindex, e.Dev = uint32(n), "d"+v
		case k == "cpu":
			e.CPU = uint32(n)
		case k == "reason":
			e.Reason = int32(n)
		case k == "gso":
			e.GSO = uint16(n)
		case k == "after":
			e.Time += n - 1000
			w.now = e.Time
		case k == "by":
			e.Arg = w.at(v)
		case k == "path":
			for p := range strings.SplitSeq(v, ",") {
				e.Stack = append(e.Stack, w.at(p))
			}
		case k == "last":
			e.Last = true
		default:
			w.t.Fatalf("%s: no word %q", text, f)
		}
	}
	switch {
	case len(d) == 0:
	case d[0]>>4 == 4:
		e.Proto = etherIPv4
	case d[0]>>4 == 6:
		e.Proto = etherIPv6
	}
	return e
}

// see lets the tracker see events of one packet, a line each.
func (w *world) see(d []byte, lines ...string) (l *Loss) {
	w.t.Helper()
	for _, text := range lines {
		l = w.Add(w.event(text, d))
	}
	return l
}

// sums is what a flow comes to.
type sums struct {
	Flow                           string
	Packets, Delivered, Lost, Open uint64
}

func (w *world) sums() (out []sums) {
	for _, f := range w.Flows() {
		out = append(out, sums{f.Tuple.String(), f.Packets, f.Delivered, f.Dropped, f.Open()})
	}
	return out
}
