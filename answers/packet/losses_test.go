package packet

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// lossy is a host that lost packets at a moment of the joiner's clock, at functions that are named with how many.
func lossy(host string, offset int64, at uint64, counts map[string]uint64) *Seen {
	s := &Seen{Host: host, Offset: -offset, Error: 5000, Rec: &Recording{LostRing: 1, Missed: 2, Unkept: 3}}
	for fn, n := range counts {
		h := &Hop{Event: Event{Kind: Drop, Time: uint64(int64(at) + offset), Bytes: udp(a0, b0).bytes(), Proto: etherIPv4}, Func: fn}
		h.View = Look(&h.Event)
		f := &Flow{Number: len(s.Rec.Flows) + 1, Tuple: h.View.Tuple, Packets: n, Dropped: n}
		f.Losses = []*Loss{{Func: fn, Count: n, At: h, Sample: &Packet{ID: 1, Hops: []*Hop{h}, flow: f}}}
		s.Rec.Flows = append(s.Rec.Flows, f)
	}
	return s
}

// TestLosses: one table of all hosts, by the joiner's clock; what a host did not see is a number of its own.
func TestLosses(t *testing.T) {
	l := &Losses{BootToReal: 7e18, Hosts: []*Seen{
		lossy("late", 1e12, 3000e9, map[string]uint64{"f": 5}),
		lossy("early", -2e9, 2000e9, map[string]uint64{"g": 7}),
		{Host: "cut"},
	}}
	vs := l.Explain()
	if len(vs) != 2 || vs[0].Host != "early" || vs[0].Time.UnixNano() != 7e18+2000e9 || vs[0].TimeError != 5000 || vs[1].Host != "late" || vs[1].Time.UnixNano() != 7e18+3000e9 {
		t.Fatalf("%+v", vs)
	}
	var text, lines bytes.Buffer
	if err := l.Text(&text, vs, Style{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"count  host   first            what  where",
		"7      early  ", "5      late   ",
		"early: 7 lost; not seen: 1 events found the ring full, 2 programs were busy, 3 packets belonged to too many flows; its clock is known within 5.0us",
		"cut: what it lost is not known: it ended before it told",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, text.String())
		}
	}
	if strings.Contains(text.String(), "  object") {
		t.Errorf("told whole without -v:\n%s", text.String())
	}
	text.Reset()
	if err := l.Text(&text, vs, Style{Verbose: true}); err != nil || strings.Count(text.String(), "\n  object ") != 2 || strings.Count(text.String(), "\n  host ") != 2 {
		t.Errorf("%v\n%s", err, text.String())
	}
	if err := l.JSON(&lines, vs, true); err != nil {
		t.Fatal(err)
	}
	kinds := map[string]int{}
	for s := range strings.Lines(lines.String()) {
		var r struct {
			Type, Host              string
			T                       uint64
			Hosts, Untold           int
			Dropped, Missed, Unkept uint64
			LostRing                uint64 `json:"lost_ring"`
		}
		if err := json.Unmarshal([]byte(s), &r); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		kinds[r.Type]++
		switch {
		case r.Type == "end" && (r.Hosts != 3 || r.Untold != 1 || r.Dropped != 12 || r.LostRing != 2 || r.Missed != 4 || r.Unkept != 6),
			r.Type != "end" && r.Host == "",
			r.Type == "hop" && r.T != map[string]uint64{"early": 2000e9, "late": 3000e9}[r.Host]:
			t.Errorf("%s", s)
		}
	}
	if kinds["verdict"] != 2 || kinds["hop"] != 2 || kinds["host"] != 3 || kinds["end"] != 1 {
		t.Errorf("%v", kinds)
	}
}
