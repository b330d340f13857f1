package packet

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// row is hosts in a row, through which packets go: a trail on each.
type row struct {
	hosts []*Seen
	truth map[string]string // which trail of a host came from which of the one before
}

func newRow(n int, offsets ...int64) *row {
	w := &row{truth: map[string]string{}}
	for i := range n {
		w.hosts = append(w.hosts, &Seen{Host: string(rune('a' + i)), Rec: &Recording{Flows: []*Flow{{Number: 1, Tuple: tupleFor(i)}}}, Offset: -offsets[i], Error: 1000})
	}
	return w
}

func tupleFor(i int) Tuple {
	return Tuple{Ether: etherIPv4, Proto: protoUDP, Src: netip.MustParseAddrPort(fmt.Sprintf("10.0.%d.1:1000", i)), Dst: netip.MustParseAddrPort("10.9.9.9:9")}
}

// inBetween is where no host is: behind the first.
const inBetween = 1000

// send sends a packet at a moment of the joiner's clock. It looks as its head and data say (with NAT on host nat: another head from then
// on), and is lost on host lost, or arrives if that is none.
func (w *row) send(at uint64, head, data uint64, lost, nat int) {
	came := ""
	for i, s := range w.hosts {
		there := func(t uint64) uint64 { return uint64(int64(t) - s.Offset) }
		t := Trail{Packet: uint64(len(s.Trails) + 1), Flow: 1, In: Mark{Head: head, Data: data, N: 32, TTL: uint8(64 - max(0, i-1)), Time: there(at)}}
		if i == nat {
			head ^= 0xabcdef
		}
		name := fmt.Sprint(i, " ", t.Packet)
		if came != "" {
			w.truth[name] = came
		}
		came = name
		switch {
		case i == lost:
			t.State = Lost
		case i < len(w.hosts)-1:
			out := t.In
			out.Head, out.Time = head, there(at+500)
			if i > 0 { // the sender is no router
				out.TTL--
			}
			t.Out, t.OutDev = &out, "eth0"
		default:
			t.State = Delivered
		}
		s.Trails = append(s.Trails, t)
		if i == lost || lost == inBetween {
			return
		}
		at += 2000
	}
}

// check holds what was joined to the truth; it gives how many of the joints were found.
func (w *row) check(t *testing.T, j *Joined) (found int) {
	t.Helper()
	for _, c := range j.Chains {
		for k := 1; k < len(c); k++ {
			got := fmt.Sprint(c[k-1].Host, " ", c[k-1].Trail.Packet)
			if want := w.truth[fmt.Sprint(c[k].Host, " ", c[k].Trail.Packet)]; got != want {
				t.Errorf("packet %d of host %d is said to come from %s, it came from %q", c[k].Trail.Packet, c[k].Host, got, want)
			}
			found++
		}
	}
	return found
}

// TestJoin: packets that differ are joined, whatever the clocks; those that look alike only where that is no guess.
func TestJoin(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, c := range []struct {
		name string
		send func(w *row)
		all  bool // all are joined
		want uint64
	}{
		{"different", func(w *row) {
			for i := range 500 {
				lost := r.IntN(20)
				w.send(1e12+uint64(i)*1e6, r.Uint64(), 7, lost, 1)
			}
		}, true, 0},
		{"the same number again, other data", func(w *row) {
			for i := range 500 {
				w.send(1e12+uint64(i)*1e6, uint64(i%50), r.Uint64(), r.IntN(20), 1)
			}
		}, true, 0},
		{"the same again much later", func(w *row) {
			for i := range 50 {
				w.send(1e12+uint64(i)*6e9, 5, 5, r.IntN(5), -1)
			}
		}, true, 0},
		{"alike, and all go through", func(w *row) {
			for i := range 20 {
				w.send(1e12+uint64(i)*1e6, 5, 5, -1, -1)
			}
		}, true, 0},
		{"alike, and a host loses one", func(w *row) {
			for i := range 20 {
				lost := -1
				if i == 7 {
					lost = 1
				}
				w.send(1e12+uint64(i)*1e6, 5, 5, lost, -1)
			}
		}, true, 0},
		{"alike, and one is lost in between", func(w *row) {
			for i := range 20 {
				lost := -1
				if i == 7 {
					lost = inBetween
				}
				w.send(1e12+uint64(i)*1e6, 5, 5, lost, -1)
			}
		}, false, 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newRow(3, 0, 77e15, -5e9)
			c.send(w)
			j := Join(w.hosts)
			found := w.check(t, j)
			if c.all && found != len(w.truth) {
				t.Errorf("%d of %d were joined", found, len(w.truth))
			}
			if j.Ambiguous != c.want {
				t.Errorf("%d are ambiguous, not %d", j.Ambiguous, c.want)
			}
			again := Join(w.hosts)
			if !slices.EqualFunc(j.Chains, again.Chains, func(a, b Chain) bool { return slices.Equal(a, b) }) {
				t.Error("joined otherwise the second time")
			}
		})
	}
}

// TestJoinAccount: every packet that was sent is in one verdict.
func TestJoinAccount(t *testing.T) {
	w := newRow(3, 0, 1e9, 2e9)
	for i := range 100 {
		lost := -1
		if i%10 == 0 {
			lost = 1
		}
		w.send(1e12+uint64(i)*1e6, uint64(i), 1, lost, 1)
	}
	at := &Hop{Event: Event{Kind: Drop}, Func: "f"}
	sample := &Packet{ID: 1, Hops: []*Hop{at}}
	w.hosts[1].Rec.Flows[0].Losses = []*Loss{{Func: "f", Reason: "R", Count: 10, Sample: sample, At: at}}
	for i := range w.hosts[1].Trails {
		if tr := &w.hosts[1].Trails[i]; tr.State == Lost {
			tr.Loss = 1
		}
	}
	classes := map[Class]uint64{}
	for _, v := range Join(w.hosts).Explain() {
		classes[v.Class] += v.Count
		if v.Sent != 100 || v.Delivered != 90 {
			t.Errorf("%s at %s: %d sent, %d delivered", v.Class, v.Host, v.Sent, v.Delivered)
		}
		if v.Class == ClassDrop && (v.Host != "b" || fmt.Sprint(v.Way) != "[a b]") {
			t.Errorf("lost at %s, by %v", v.Host, v.Way)
		}
	}
	if classes[ClassDrop] != 10 || classes[ClassDelivered] != 90 || len(classes) != 2 {
		t.Errorf("%v", classes)
	}
}
