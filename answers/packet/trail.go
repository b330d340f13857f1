package packet

import (
	"encoding/binary"
	"net/netip"
)

// Mark is what routers do not change of a packet: by it another host knows it again. What they do change, the TTL, is beside
// it.
type Mark struct {
	Head uint64 `json:"h"`           // of addresses, ports, lengths and numbers
	Data uint64 `json:"d,omitempty"` // of the first bytes behind the headers
	N    uint8  `json:"n,omitempty"` // how many; 0 where they were not seen
	TTL  uint8  `json:"ttl"`
	Time uint64 `json:"t"` // ns since boot
	Seg  *Seg   `json:"seg,omitempty"`
}

// Trail is the way of one packet through one host, to be joined with those through others.
type Trail struct {
	Packet uint64 `json:"packet"`
	Flow   int    `json:"flow,omitempty"` // its number; 0 if it belongs to none
	Loss   int    `json:"loss,omitempty"` // which of the flow's losses, from 1; 0 if it was not lost
	State  State  `json:"state,omitempty"`
	In     Mark   `json:"in"`            // when it was first seen
	Out    *Mark  `json:"out,omitempty"` // when it left by a device, if it did
	OutDev string `json:"out_dev,omitempty"`
	ID     uint32 `json:"id,omitempty"`     // of IPv4, when it was first seen
	Weight uint64 `json:"w,omitempty"`      // segments that it stands for, if not one
	Merged bool   `json:"merged,omitempty"` // of segments that cannot be told
	First  Kind   `json:"first,omitempty"`  // by which event it was first seen
	Door   bool   `json:"door,omitempty"`   // a driver handed it over, and that was all: it may have been merged into another
	// Divided is what a packet of several segments was when it was given to a device that sent them one by one: they have
	// trails of their own.
	Divided *Mark  `json:"divided,omitempty"`
	Last    *Place `json:"last,omitempty"` // where it was seen last, if nobody told its end and it did not leave
}

// Place is where a packet was seen.
type Place struct {
	Kind    Kind   `json:"kind"`
	Netns   uint32 `json:"netns,omitempty"`
	Ifindex uint32 `json:"ifindex,omitempty"`
	Dev     string `json:"dev,omitempty"`
	Func    string `json:"function,omitempty"`
	Tuple   *Tuple `json:"tuple,omitempty"` // if it is not the flow's
}

// hop makes an event of a place.
func (p *Place) hop(f *Flow) *Hop {
	h := &Hop{Event: Event{Kind: p.Kind, Netns: p.Netns, Ifindex: p.Ifindex, Dev: p.Dev}, Func: p.Func}
	h.View.Tuple = f.Tuple
	if p.Tuple != nil {
		h.View.Tuple = *p.Tuple
	}
	return h
}

// dataBytes is how much of what a packet carries tells it from others that have the same headers: datagrams of IPv4 that must
// not be fragmented have no number of their own.
const dataBytes = 32

// marked makes the mark of a packet as an event shows it; ok is false if it is none of IP.
func marked(h *Hop) (m Mark, ok bool) {
	v := &h.View
	if !v.IP() {
		return m, false
	}
	m = Mark{TTL: v.TTL, Time: h.Time}
	stream := v.stream()
	m.Head = identity(stream, v.ID, v.Frag, v.IPLen, v.Seq, v.Flags)
	m.Data, m.N = v.data()
	m.Seg = v.segments(stream, h.GSOSize)
	return m, true
}

// stream hashes what all packets of a tuple have in common.
func (v *View) stream() uint64 {
	hash := uint64(offset64)
	num := func(n uint64) { hash = fnv1a(hash, n) }
	addr := func(a netip.AddrPort) {
		b := a.Addr().As16()
		num(binary.BigEndian.Uint64(b[:]))
		num(binary.BigEndian.Uint64(b[8:]))
		num(uint64(a.Port()))
	}
	addr(v.Src)
	addr(v.Dst)
	num(uint64(v.Proto)<<16 | uint64(v.Kind))
	return hash
}

// identity hashes what tells a packet of a stream from others.
func identity(stream uint64, id, frag uint32, length int, seq uint32, flags uint8) uint64 {
	stream = fnv1a(stream, uint64(id)<<32|uint64(frag))
	stream = fnv1a(stream, uint64(length))
	return mix(fnv1a(stream, uint64(seq)<<8|uint64(flags&^(0x40|0x80)))) // routers set ECE and CWR nowhere, but senders may clear them anew
}

// offset64 is where FNV-1a begins.
const offset64 = 0xcbf29ce484222325

// mix spreads all bits over all (the finaliser of MurmurHash3).
func mix(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// data hashes the first bytes that the packet carries: all of dataBytes, or all there are, or none if some were not seen. TCP's
// numbers tell its segments apart without, and how much of a segment is seen differs from device to device: there it is the
// time stamp, which tells a segment from the same sent again where IP has no number, and which those merged have in common.
func (v *View) data() (hash uint64, n uint8) {
	if v.Proto == protoTCP {
		return v.stamp()
	}
	if len(v.pkt) == 0 {
		return 0, 0
	}
	off := 40
	if v.pkt[0]>>4 == 4 {
		off = int(v.pkt[0]&15) * 4
	}
	if v.First && (v.Proto == protoUDP || v.Proto == protoICMP || v.Proto == protoICMPv6) {
		off += 8
	}
	want := min(dataBytes, v.IPLen-off)
	if want <= 0 || off+want > len(v.pkt) {
		return 0, 0
	}
	hash = offset64
	for _, b := range v.pkt[off : off+want] {
		hash = fnv1a(hash, uint64(b))
	}
	return mix(hash), uint8(want)
}

// trail is what a Tracker keeps of a packet for its Trail.
type trail struct {
	in     Mark
	first  Kind
	door   bool
	ip     bool
	id     uint32
	out    *Mark
	queued *Mark // as several segments that were given to a device, which may divide them; nil once they left as one
	dev    string
	merged bool
	flow   *Flow
}

// Trails has every packet of IP told when it is no longer followed. It is called before the first Add.
func (t *Tracker) Trails(tell func(*Trail)) { t.tell = tell }

// Within has packets followed in these namespaces only: what leaves them has left the host.
func (t *Tracker) Within(netns []uint32) {
	t.within = map[uint32]bool{}
	for _, n := range netns {
		t.within[n] = true
	}
}

// Foreign says if an event is in a namespace that does not belong to the host, and is no event for Add; its packet is followed
// no more.
func (t *Tracker) Foreign(e *Event) bool {
	if t.within == nil || e.Netns == 0 || t.within[e.Netns] {
		return false
	}
	for _, p := range []*Packet{t.bySkb[e.Skb], t.byHead[e.Head]} {
		if p != nil {
			t.forget(p)
		}
	}
	return true
}

// note keeps what a trail needs of an event.
func (t *Tracker) note(p *Packet, h *Hop) {
	if t.tell == nil {
		return
	}
	tr := p.trail
	if tr == nil {
		tr = &trail{flow: p.flow, id: h.View.ID, first: h.Kind, door: h.Kind == RxEntry}
		tr.in, tr.ip = marked(h)
		p.trail = tr
	}
	m, ok := marked(h)
	several := ok && m.Seg.count() > 1
	switch h.Kind {
	case Queue, Xmit, Rx, RxEntry, RxQueue: // behind these a socket merges what waits for it
		tr.merged = tr.merged || h.GSO > 1 && !several
	}
	switch h.Kind {
	case Queue:
		if several {
			tr.queued, tr.out, tr.dev = &m, nil, h.Dev
		}
	case Xmit:
		if ok {
			tr.out, tr.queued, tr.dev = &m, nil, h.Dev
		}
	case Rx, RxEntry, RxQueue, Copied:
		tr.out, tr.queued = nil, nil // it came in again: it is still here
		if tr.door && several && m.Seg.begins(tr.in.Seg) {
			tr.in.Seg = m.Seg // others have been merged into it
		}
	}
	tr.door = tr.door && (h.Kind == RxEntry || h.Kind == Consume)
}

// told gives a packet's trail to who wants it, once.
func (t *Tracker) told(p *Packet) {
	tr := p.trail
	if tr == nil || !tr.ip || p.split && (tr.queued == nil || tr.merged) {
		return
	}
	p.trail = nil
	out := Trail{Packet: p.ID, State: p.state, In: tr.in, ID: tr.id, Merged: tr.merged, First: tr.first, Door: tr.door}
	switch {
	case p.split, p.state == Open && tr.queued != nil:
		out.State, out.Divided, out.OutDev, out.Last = Open, tr.queued, tr.dev, p.place()
	case p.state != Open:
	case tr.out != nil:
		out.Out, out.OutDev = tr.out, tr.dev
	default:
		out.Last = p.place()
	}
	if p.weight > 1 {
		out.Weight = p.weight
	}
	if f := tr.flow; f != nil {
		out.Flow = f.Number
		for i, l := range f.Losses {
			if p.state == Lost && l == p.loss {
				out.Loss = i + 1
			}
		}
	}
	t.tell(&out)
}

// place is where the packet was seen last, nil if nobody knows.
func (p *Packet) place() *Place {
	h := (&Verdict{sample: p}).lastHop()
	if h == nil {
		return nil
	}
	at := &Place{Kind: h.Kind, Netns: h.Netns, Ifindex: h.Ifindex, Dev: h.Dev, Func: h.Func}
	if h.View.Tuple != p.Tuple {
		t := h.View.Tuple
		at.Tuple = &t
	}
	return at
}

// End tells the trails of all packets that are still followed.
func (t *Tracker) End() {
	if t.tell == nil {
		return
	}
	for _, p := range t.order {
		t.told(p)
	}
}
