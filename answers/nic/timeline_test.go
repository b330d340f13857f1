package nic

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/fathom-trace/fathom/internal/timeline"
)

// TestTimeline: packets that overlap on a CPU are drawn on lines of their own, stages fill their packet.
func TestTimeline(t *testing.T) {
	one := func(cpu int, at uint64) Late {
		return Late{CPU: cpu, Raise: at, Run: at + 10, Poll: at + 20, Recv: at + 30, Wake: at + 40, Read: at + 100, Comm: "reader", PID: 7, Idle: -1}
	}
	r := LatencyResult{Kept: []Late{one(1, 2000), one(0, 1050), one(0, 1000), one(0, 1100)}}
	var b strings.Builder
	if err := r.WriteTimeline(&b); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Events []timeline.Event `json:"traceEvents"`
	}
	if err := json.Unmarshal([]byte(b.String()), &got); err != nil {
		t.Fatal(err, b.String())
	}
	lines := map[string]int{}
	var stages, names int
	for _, e := range got.Events {
		switch {
		case e.Phase == "M":
			names++
		case strings.Contains(e.Name, " → "):
			stages++
		default:
			lines[string(e.TS)] = e.PID*10 + int(e.TID)
			if e.Dur != "0.100" || e.Args["reader"] != "reader[7]" {
				t.Errorf("%+v", e)
			}
		}
	}
	for ts, want := range map[string]int{"1.000": 11, "1.050": 12, "1.100": 11, "2.000": 21} {
		if lines[ts] != want {
			t.Errorf("the packet of %s is on %d, not %d", ts, lines[ts], want)
		}
	}
	if stages != 4*5 || names != 2+3 {
		t.Errorf("%d stages, %d names", stages, names)
	}
}
