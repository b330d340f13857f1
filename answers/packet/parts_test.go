package packet

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/fathom-trace/fathom/netstate"
)

const mss = 1000

// stream is three hosts in a row that see a stream of TCP: each wire between them carries segments of mss bytes.
type stream struct {
	t     *testing.T
	hosts []*Seen
	next  uint64
	now   uint64
	// truth is on which wires what came as a segment left: "host packet part" of the far end is that of the near one.
	truth map[string]string
	v6    bool
}

func newStream(t *testing.T, v6 bool) *stream {
	s := &stream{t: t, now: 1e12, truth: map[string]string{}, v6: v6}
	tuple := Tuple{Ether: etherIPv4, Proto: protoTCP, Src: netip.MustParseAddrPort("10.0.0.1:1000"), Dst: netip.MustParseAddrPort("10.9.9.9:9")}
	for i := range 3 {
		rec := &Recording{Flows: []*Flow{{Number: 1, Tuple: tuple, Losses: []*Loss{{Func: "f", Sample: &Packet{}, At: &Hop{}}}}}}
		s.hosts = append(s.hosts, &Seen{Host: string(rune('a' + i)), Rec: rec, Offset: int64(i) * 1e9, Error: 1000})
	}
	return s
}

// mark is how a host sees n segments from a number on, as one packet; the last has last bytes.
func (s *stream) mark(host int, seq uint32, id uint16, n, last int, tstamp uint64) Mark {
	g := &Seg{Stream: 7, Seq: seq, Len: uint32((n-1)*mss + last), Head: 52, V4: !s.v6, Flags: 0x10}
	if !s.v6 {
		g.ID = id
	}
	if n > 1 {
		g.Size = mss
	}
	return Mark{Head: identity(g.Stream, uint32(g.ID), 0, int(g.Head)+int(g.Len), seq, g.Flags), Data: tstamp, N: 8, TTL: uint8(64 - max(0, host-1)), Seg: g,
		Time: uint64(int64(s.now) - s.hosts[host].Offset)}
}

// see adds what a host sees, and gives the name of the trail.
func (s *stream) see(host int, t Trail) string {
	s.next++
	s.now += 1000
	t.Packet, t.Flow = s.next, 1
	s.hosts[host].Trails = append(s.hosts[host].Trails, t)
	return fmt.Sprint(host, " ", t.Packet)
}

// pass has a host see n segments as one packet, and send them on so; or lose them.
func (s *stream) pass(host int, seq uint32, id uint16, n, last int, ts uint64, lost bool) string {
	t := Trail{First: Rx, In: s.mark(host, seq, id, n, last, ts)}
	switch {
	case lost:
		t.State, t.Loss = Lost, 1
	case host == 2:
		t.State = Delivered
	default:
		out := s.mark(host, seq, id, n, last, ts)
		out.TTL = uint8(64 - host)
		t.Out, t.OutDev = &out, "eth0"
	}
	return s.see(host, t)
}

// wire notes that count segments of a trail, from one on, came as those of another, from one on.
func (s *stream) wire(from string, i int, to string, k, count int) {
	for n := range count {
		s.truth[fmt.Sprint(to, " ", k+n)] = fmt.Sprint(from, " ", i+n)
	}
}

// check joins and holds that to the truth: none joined wrong; it gives how many were not joined.
func (s *stream) check() (j *Joined, missing int) {
	s.t.Helper()
	j = Join(s.hosts)
	found := 0
	for _, c := range j.Chains {
		for k := 1; k < len(c); k++ {
			got := fmt.Sprint(c[k-1].Host, " ", c[k-1].end().Packet, " ", c[k-1].Part)
			if c[k-1].Rest != nil {
				got = fmt.Sprint(c[k-1].Host, " ", c[k-1].Rest.Packet, " ", 0)
			}
			if want := s.truth[fmt.Sprint(c[k].Host, " ", c[k].Trail.Packet, " ", c[k].Part)]; got != want {
				s.t.Errorf("segment %d of packet %d of host %d is said to come from %s, it came from %q", c[k].Part, c[k].Trail.Packet, c[k].Host, got, want)
			}
			found++
		}
	}
	return j, len(s.truth) - found
}

// classes counts what became of segments.
func classes(j *Joined) map[Class]uint64 {
	out := map[Class]uint64{}
	for _, v := range j.Explain() {
		out[v.Class] += v.Count
	}
	return out
}

// TestSegments: what one host sees as one packet and another as several is joined segment by segment, and none wrong.
func TestSegments(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, c := range []struct {
			name    string
			send    func(s *stream)
			missing int // joints that cannot be told
			want    map[Class]uint64
		}{
			{"ten singles, one packet, ten singles", func(s *stream) {
				b := s.pass(1, 5000, 7, 10, 300, 1, false)
				for k := range 10 {
					size := mss
					if k == 9 {
						size = 300
					}
					a := s.pass(0, 5000+uint32(k*mss), 7+uint16(k), 1, size, 1, false)
					d := s.pass(2, 5000+uint32(k*mss), 7+uint16(k), 1, size, 1, false)
					s.wire(a, 0, b, k, 1)
					s.wire(b, k, d, 0, 1)
				}
			}, 0, map[Class]uint64{ClassDelivered: 10}},
			{"merged across the borders of what was sent, and over the end of numbers", func(s *stream) {
				base := ^uint32(4499)
				a1, a2 := s.pass(0, base, 65530, 5, mss, 1, false), s.pass(0, base+5000, 65535, 5, mss, 1, false)
				b1, b2 := s.pass(1, base, 65530, 7, mss, 1, false), s.pass(1, base+7000, 1, 3, mss, 1, false)
				d := s.pass(2, base, 65530, 10, mss, 1, false)
				s.wire(a1, 0, b1, 0, 5)
				s.wire(a2, 0, b1, 5, 2)
				s.wire(a2, 2, b2, 0, 3)
				s.wire(b1, 0, d, 0, 7)
				s.wire(b2, 0, d, 7, 3)
			}, 0, map[Class]uint64{ClassDelivered: 10}},
			{"all have one number", func(s *stream) {
				b := s.pass(1, 5000, 7, 3, mss, 1, false)
				for k := range 3 {
					s.wire(s.pass(0, 5000+uint32(k*mss), 7, 1, mss, 1, false), 0, b, k, 1)
				}
			}, 0, nil},
			{"one of several is lost by the last host", func(s *stream) {
				a, b := s.pass(0, 5000, 7, 10, mss, 1, false), s.pass(1, 5000, 7, 10, mss, 1, false)
				s.wire(a, 0, b, 0, 10)
				for k := range 10 {
					s.wire(b, k, s.pass(2, 5000+uint32(k*mss), 7+uint16(k), 1, mss, 1, k == 4), 0, 1)
				}
			}, 0, map[Class]uint64{ClassDelivered: 9, ClassDrop: 1}},
			{"one of several is lost in between, and sent again", func(s *stream) {
				a := s.pass(0, 5000, 7, 10, mss, 1, false)
				b1, b2 := s.pass(1, 5000, 7, 4, mss, 1, false), s.pass(1, 10000, 12, 5, mss, 1, false)
				s.wire(a, 0, b1, 0, 4)
				s.wire(a, 5, b2, 0, 5)
				again := s.pass(0, 9000, 17, 1, mss, 2, false)
				s.wire(again, 0, s.pass(1, 9000, 17, 1, mss, 2, false), 0, 1)
			}, 0, nil},
			{"sent again as a larger one", func(s *stream) {
				for k := range 2 {
					s.pass(0, 5000+uint32(k*mss), 7+uint16(k), 1, mss, 1, true)
				}
				a, b := s.pass(0, 5000, 9, 2, mss, 2, false), s.pass(1, 5000, 9, 2, mss, 2, false)
				s.wire(a, 0, b, 0, 2)
				s.wire(b, 0, s.pass(2, 5000, 9, 2, mss, 2, false), 0, 2)
			}, 0, map[Class]uint64{ClassDelivered: 2, ClassDrop: 2}},
			{"other borders on the same wire", func(s *stream) { // no host divides so: the bytes are told, and nothing is joined
				s.pass(0, 5000, 7, 2, mss, 1, false)
				s.pass(2, 5500, 7, 1, mss, 1, false)
			}, 0, map[Class]uint64{ClassLeft: 2, ClassDelivered: 1}},
			{"sent twice, one lost in between, and nothing tells which", func(s *stream) {
				a1, a2 := s.pass(0, 5000, 7, 3, mss, 1, false), s.pass(0, 5000, 7, 3, mss, 1, false)
				b := s.pass(1, 5000, 7, 3, mss, 1, false)
				s.wire(a1, 0, b, 0, 3)
				_ = a2
			}, 3, nil},
		} {
			t.Run(fmt.Sprint(c.name, map[bool]string{true: " v6"}[v6]), func(t *testing.T) {
				s := newStream(t, v6)
				c.send(s)
				for _, h := range s.hosts {
					h.Rec.After = map[uint64]*netstate.State{1: {Addrs: []netstate.Addr{{Prefix: netip.MustParsePrefix("10.9.9.9/24")}}}}
					if h.Host != "c" {
						h.Rec.After = nil
					}
				}
				j, missing := s.check()
				if missing != c.missing {
					t.Errorf("%d were not joined, not %d", missing, c.missing)
				}
				got := classes(j)
				if c.want != nil && fmt.Sprint(got) != fmt.Sprint(c.want) {
					t.Errorf("%v, not %v", got, c.want)
				}
				again := Join(s.hosts)
				if !slices.EqualFunc(j.Chains, again.Chains, func(a, b Chain) bool { return slices.Equal(a, b) }) {
					t.Error("joined otherwise the second time")
				}
			})
		}
	}
}

// TestSegmentsAtRandom: streams of which each host sees segments merged as it likes, some lost, some sent again: every one is
// joined, none wrong.
func TestSegmentsAtRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	// runs divides n into packets of several segments.
	runs := func(n int) (out []int) {
		for n > 0 {
			k := min(n, 1+r.IntN(12))
			out, n = append(out, k), n-k
		}
		return out
	}
	for range 50 {
		s := newStream(t, false)
		seq, id := r.Uint32(), uint16(r.Uint32())
		if r.IntN(2) == 0 {
			seq = -uint32(r.IntN(40 * mss))
		}
		for burst := range 30 {
			n, ts := 1+r.IntN(40), uint64(burst)
			from, again := seq, r.IntN(3) == 0
			for range map[bool]int{false: 1, true: 2}[again] {
				// On each wire the segments are those of mss bytes; what each host sees of them as one is its own.
				type at struct {
					name string
					part int
				}
				var before []at
				for host := range 3 {
					var now []at
					k := 0
					for _, m := range runs(n) {
						name := s.pass(host, from+uint32(k*mss), id+uint16(k), m, mss, ts, false)
						for p := range m {
							now = append(now, at{name, p})
							if before != nil {
								s.wire(before[k+p].name, before[k+p].part, name, p, 1)
							}
						}
						k += m
					}
					before = now
				}
				id += uint16(n)
				ts += 1000
			}
			seq += uint32(n * mss)
		}
		if _, missing := s.check(); missing != 0 {
			t.Fatalf("%d of %d were not joined", missing, len(s.truth))
		}
	}
}

// TestSegmentsWithin: segments that a host was handed over one by one, merged, followed as one, and sent on one by one again.
func TestSegmentsWithin(t *testing.T) {
	for _, kept := range []bool{false, true} { // the first of those merged goes on with an address of its own
		s := newStream(t, false)
		var from [4]string
		var handed [4]Mark
		for k := range 4 {
			from[k] = s.pass(0, 5000+uint32(k*mss), 7+uint16(k), 1, mss, 1, false)
			handed[k] = s.mark(1, 5000+uint32(k*mss), 7+uint16(k), 1, mss, 1)
		}
		in, queued := s.mark(1, 5000, 7, 4, mss, 1), s.mark(1, 5000, 7, 4, mss, 1)
		in.Time = handed[0].Time
		s.wire(from[0], 0, s.see(1, Trail{First: RxEntry, In: in, Divided: &queued, OutDev: "eth0"}), 0, 4)
		y := fmt.Sprint(1, " ", s.next)
		for k := range 4 {
			s.truth[fmt.Sprint(y, " ", k)] = from[k] + " 0"
		}
		for k := 1; k < 4; k++ {
			x := Trail{First: RxEntry, Door: true, In: handed[k]}
			if kept && k == 2 {
				out := s.mark(1, 5000+uint32(k*mss), 7+uint16(k), 1, mss, 1)
				out.TTL = 63
				x.Door, x.Out = false, &out
				name := s.see(1, x)
				s.truth[name+" 0"] = from[k] + " 0"
				delete(s.truth, fmt.Sprint(y, " ", k))
				s.wire(name, 0, s.pass(2, 5000+uint32(k*mss), 7+uint16(k), 1, mss, 1, false), 0, 1)
				continue
			}
			s.see(1, x)
		}
		for k := range 4 {
			if kept && k == 2 {
				continue
			}
			out := s.mark(1, 5000+uint32(k*mss), 7+uint16(k), 1, mss, 1)
			out.TTL = 63
			name := s.see(1, Trail{First: Xmit, In: out, Out: &out, OutDev: "eth0"})
			s.wire(name, 0, s.pass(2, 5000+uint32(k*mss), 7+uint16(k), 1, mss, 1, false), 0, 1)
		}
		j, missing := s.check()
		if got := classes(j); missing != 0 || len(j.Chains) != 4 || got[ClassDelivered] != 4 {
			t.Errorf("kept %v: %d were not joined, %d packets: %v", kept, missing, len(j.Chains), got)
		}
		for _, c := range j.Chains {
			if took, _ := j.took(c[0], c[1]); took < 0 {
				t.Errorf("came %d ns before it left", -took)
			}
		}
	}
}

// TestTrailsOfSegments: what a tracker tells of merged and divided packets of TCP.
func TestTrailsOfSegments(t *testing.T) {
	w := newWorld(t)
	var told []*Trail
	w.Trails(func(tr *Trail) { told = append(told, tr) })
	seg := func(seq uint32, id uint16, n int) []byte {
		d := tcp(seq, id)
		d.rest = make([]byte, n)
		return d.bytes()
	}
	size := func(d []byte, text string) { e := w.event(text, d); e.GSOSize = 40; w.Add(e) }
	w.see(seg(100, 5, 40), "rx_entry skb=1 ns=1 dev=1")
	w.see(seg(140, 6, 40), "rx_entry skb=2 ns=1 dev=1")
	size(seg(100, 5, 80), "rx skb=1 ns=1 dev=1 gso=2")
	size(seg(100, 5, 80), "queue skb=1 ns=1 dev=2 gso=2")
	w.see(seg(100, 5, 40), "xmit skb=3 ns=1 dev=2")
	w.see(seg(140, 6, 40), "xmit skb=4 ns=1 dev=2")
	w.End()
	if len(told) != 4 {
		t.Fatalf("%d trails", len(told))
	}
	one, door, a, b := told[0], told[1], told[2], told[3]
	if one.In.Seg.count() != 2 || one.Divided == nil || one.Divided.Seg.count() != 2 || one.Merged || one.First != RxEntry || one.Out != nil {
		t.Errorf("merged and divided: %+v", one)
	}
	if !door.Door || door.First != RxEntry || a.First != Xmit || b.First != Xmit || a.Out == nil || b.Out == nil {
		t.Errorf("alone: %+v, %+v, %+v", door, a, b)
	}
	if !slices.Contains(one.In.Seg.keys(1), b.In.Head) || !slices.Contains(one.In.Seg.keys(0), a.In.Head) || one.In.Seg.keys(1)[0] != door.In.Head {
		t.Error("its segments have other keys than they themselves")
	}
}

// TestDividedBelowXDP: where stacks have a function of XDP, as all have behind a veth that merges, the first of the segments that a packet is
// divided into is no copy of it.
func TestDividedBelowXDP(t *testing.T) {
	w := newWorld(t)
	var told []*Trail
	w.Trails(func(tr *Trail) { told = append(told, tr) })
	seg := func(n int) []byte { d := tcp(100, 5); d.rest = make([]byte, n); return d.bytes() }
	for _, text := range []string{"rx skb=1 ns=1 dev=1 gso=2", "queue skb=1 ns=1 dev=2 gso=2", "consume skb=1 ns=1 dev=2 gso=2 last path=consume_skb,veth_xdp_rcv"} {
		e := w.event(text, seg(80))
		e.GSOSize = 40
		w.Add(e)
	}
	w.see(seg(40), "xmit skb=2 ns=1 dev=2 path=dev_hard_start_xmit,veth_xdp_rcv")
	w.End()
	if len(told) != 2 || told[0].Divided == nil || told[1].First != Xmit || told[1].Out == nil {
		t.Errorf("%d trails: %+v", len(told), told)
	}
}

// TestSegmentInMemoryOfSeveral: a segment in the memory of a packet of several that was sent before is a packet of its own.
func TestSegmentInMemoryOfSeveral(t *testing.T) {
	w := newWorld(t)
	w.see(tcp(100, 5).bytes(), "queue skb=1 head=9 ns=1 dev=1 gso=3", "xmit skb=1 head=9 ns=1 dev=1 gso=3")
	w.see(tcp(140, 8).bytes(), "xmit skb=2 head=9 ns=1 dev=1")
	if w.Packets() != 2 {
		t.Errorf("%d packets", w.Packets())
	}
}

// FuzzJoin: whatever hosts say of packets, joining ends, and every packet is in one verdict.
func FuzzJoin(f *testing.F) {
	f.Add([]byte(`[{"packet":1,"in":{"h":1,"ttl":64,"t":5,"seg":{"s":1,"q":4294967290,"n":14480,"z":1448,"hl":52,"v4":true}},"divided":{"h":1,"ttl":64,"t":6,"seg":{"s":1,"q":1,"n":14480,"z":1448}}}]`),
		[]byte(`[{"packet":1,"flow":1,"loss":9,"first":"rx_entry","door":true,"in":{"h":1,"ttl":64,"t":5,"seg":{"s":1,"q":5,"n":1448}},"out":{"h":1,"t":9}},{"first":"xmit","in":{"seg":{"n":4000000000,"z":1}}}]`))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		var hosts []*Seen
		for i, text := range [][]byte{a, b} {
			s := &Seen{Host: fmt.Sprint(i), Rec: &Recording{Flows: []*Flow{{Number: 1}}}}
			if json.Unmarshal(text, &s.Trails) != nil || len(s.Trails) > 64 {
				return
			}
			hosts = append(hosts, s)
		}
		j := Join(hosts)
		j.Explain()
	})
}
