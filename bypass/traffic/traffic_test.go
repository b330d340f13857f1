package traffic

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/fathom-trace/fathom/wire/header"
)

var testFlow = Flow{
	SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2},
	Src: netip.MustParseAddrPort("10.0.0.1:4096"), Dst: netip.MustParseAddrPort("10.0.0.2:4096"),
}

func frame(t testing.TB, f Flow, size int, seq uint64) []byte {
	t.Helper()
	tm, err := NewTemplate(f, size)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, size)
	tm.Write(b, seq)
	return b
}

func TestFrames(t *testing.T) {
	tagged := testFlow
	tagged.VLAN = 100
	for _, f := range []Flow{testFlow, tagged} {
		for _, size := range []int{64, 99, 1500} {
			for _, seq := range []uint64{0, 1, 0xfffe, 1<<63 + 12345} {
				b := frame(t, f, size, seq)
				if got, v := Read(b); got != seq || v != Good {
					t.Errorf("%d bytes, number %d: read %d, verdict %d", size, seq, got, v)
				}
				ip, end, ok := datagram(b)
				if !ok || end != size {
					t.Fatalf("%d bytes: no datagram", size)
				}
				udp := b[ip+ipLen:]
				if s := header.Sum(header.Sum(uint64(17)+uint64(len(udp)), b[ip+12:ip+20]), udp); header.Fold(s) != 0 {
					t.Errorf("%d bytes, number %d: the checksum is wrong", size, seq)
				}
				if !Turn(b) {
					t.Fatal("not turned")
				}
				if s := header.Sum(header.Sum(uint64(17)+uint64(len(udp)), b[ip+12:ip+20]), udp); header.Fold(s) != 0 || [6]byte(b[:6]) != [6]byte(f.SrcMAC) {
					t.Error("turned wrong")
				}
				if got, v := Read(b); got != seq || v != Good {
					t.Errorf("turned: read %d, verdict %d", got, v)
				}
				b[size-1] ^= 1
				if _, v := Read(b); v != Corrupt {
					t.Errorf("%d bytes, one changed: verdict %d", size, v)
				}
			}
		}
	}
	for _, size := range []int{0, MinFrame - 1, 1 << 17} {
		if _, err := NewTemplate(testFlow, size); err == nil {
			t.Errorf("frames of %d bytes are made", size)
		}
	}
}

func TestAccount(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   []uint64
		want Account
	}{
		{"in order", []uint64{0, 1, 2, 3}, Account{}},
		{"lost", []uint64{0, 3, 4}, Account{Lost: 2}},
		{"twice", []uint64{0, 1, 1, 2, 0}, Account{Twice: 2}},
		{"late", []uint64{0, 2, 1, 3}, Account{Late: 1}},
		{"late and again", []uint64{0, 2, 1, 1}, Account{Late: 1, Twice: 1}},
		{"far", []uint64{0, 200000, 199999, 199999, 5}, Account{Lost: 199998, Late: 2, Twice: 1}},
		{"two senders", []uint64{Stream(1, 0), Stream(2, 0), Stream(1, 1), Stream(2, 2)}, Account{Lost: 1}},
	} {
		var a Account
		for _, n := range tt.in {
			a.number(n)
		}
		if d := cmp.Diff(tt.want, a, cmpopts.IgnoreUnexported(Account{})); d != "" {
			t.Errorf("%s: %s", tt.name, d)
		}
	}
	var a Account
	b := frame(t, testFlow, 60, 0)
	a.Note(b)
	b[50] ^= 1
	a.Note(b)
	a.Note([]byte("no frame"))
	if d := cmp.Diff(Account{Packets: 3, Bytes: 128, Corrupt: 1, Foreign: 1}, a, cmpopts.IgnoreUnexported(Account{})); d != "" || a.Clean() {
		t.Error(d)
	}
}

func FuzzRead(f *testing.F) {
	tm, err := NewTemplate(testFlow, 80)
	if err != nil {
		f.Fatal(err)
	}
	b := make([]byte, 80)
	tm.Write(b, 7)
	f.Add(b)
	f.Add(b[:20])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var a Account
		a.Note(b)
		arpReply(b)
		SwapMACs(b)
		if Turn(b) {
			if _, _, ok := datagram(b); !ok {
				t.Error("what was turned is no datagram any more")
			}
		}
	})
}

func TestARP(t *testing.T) {
	l := Local{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, Net: netip.MustParsePrefix("10.0.0.1/24")}
	b := arpRequest(l, net.HardwareAddr{2, 0, 0, 0, 0, 2}, netip.MustParseAddr("10.0.0.2"))
	if _, _, ok := arpReply(b); ok {
		t.Error("a request is taken for an answer")
	}
	b[header.EthernetLen+7] = 2
	if a, mac, ok := arpReply(b); !ok || a != l.Net.Addr() || mac.String() != l.MAC.String() {
		t.Error(a, mac, ok)
	}
}

func TestTimes(t *testing.T) {
	var h Times
	for i := range 1000 {
		h.Add(time.Duration(i+1) * time.Microsecond)
	}
	s := h.Summary()
	if s.P50 != 501 || s.P99 != 991 || s.Min != 1 || s.Max != 1000 {
		t.Errorf("%+v", s)
	}
	var w strings.Builder
	if err := h.WriteText(&w); err != nil || !strings.Contains(w.String(), "p99 991.0") {
		t.Error(w.String(), err)
	}
	n := 0
	for _, b := range h.Histogram() {
		n += b.N
	}
	if n != 1000 {
		t.Errorf("%d in the histogram", n)
	}
	if (&Times{}).At(.5) != 0 {
		t.Error("a time out of none")
	}
}
