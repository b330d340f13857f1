package compare

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestRatio(t *testing.T) {
	for _, tt := range []struct {
		name   string
		of, to []float64
		want   Ratio
		less   string // verdict if small is good
		more   string
	}{
		{"half", []float64{1, 2, 3}, []float64{2, 4, 6}, Ratio{.5, .5, .5, 3}, "better", "worse"},
		{"twice", []float64{4, 4, 4}, []float64{2, 2, 1}, Ratio{2, 2, 4, 3}, "worse", "better"},
		{"rounds disagree", []float64{1, 4, 4}, []float64{2, 2, 2}, Ratio{2, .5, 2, 3}, "inconclusive", "inconclusive"},
		{"a round is missing", []float64{1, 0, 1, 1}, []float64{2, 2, 2, 2}, Ratio{.5, .5, .5, 3}, "better", "worse"},
		{"too few", []float64{1}, []float64{2}, Ratio{.5, .5, .5, 1}, "too few rounds", "too few rounds"},
		{"nothing", nil, []float64{1}, Ratio{}, "not measured", "not measured"},
	} {
		got := ratio(tt.of, tt.to)
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s: %s", tt.name, d)
		}
		if l, m := got.Verdict(true), got.Verdict(false); l != tt.less || m != tt.more {
			t.Errorf("%s: %s, %s", tt.name, l, m)
		}
	}
}

func TestReport(t *testing.T) {
	rows := []*Row{{Way: UDP}, {Way: XSKSpin}}
	for round := range 3 {
		for i, row := range rows {
			var times []time.Duration
			for n := range 1000 {
				times = append(times, time.Duration(1+n+round)*time.Microsecond/time.Duration(1+9*i))
			}
			row.add(Ping, Done{Packets: 1000, CPU: time.Millisecond, Times: times}, Done{CPU: time.Duration(i) * 4 * time.Millisecond})
			row.add(Blast, Done{Packets: 2000, CPU: time.Millisecond, For: time.Second}, Done{Packets: uint64(500 * (1 + 2*i)), CPU: time.Millisecond})
		}
	}
	for _, row := range rows {
		row.Hist = row.all.Histogram()
	}
	r := &Report{Size: 60, Rounds: 3, Count: 1000, Rows: rows}
	var w strings.Builder
	if err := r.WriteText(&w); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"xsk-spin         p50           0.1 (0.1–0.1)", "better", "Going around the kernel loses: xsk-spin by CPU a trip (5 times).", "xsk-spin, 3000 round trips", "25.0%"} {
		if !strings.Contains(w.String(), want) {
			t.Errorf("no %q in\n%s", want, w.String())
		}
	}
	if got := r.Ratio(XSKSpin, UDP, "packets/s"); got.Median != 3 {
		t.Errorf("rate %v", got)
	}
}
