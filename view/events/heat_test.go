package events

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/fathom-trace/fathom/traceevent"
)

// TestHeat: what took how long, and when; where events are missing; in characters and as a picture.
func TestHeat(t *testing.T) {
	begin, end := format(t, "io", fmt.Sprintf(pairFormat, "begin", 1)), format(t, "io", fmt.Sprintf(pairFormat, "end", 2))
	pair, err := ParsePair("begin[vec] end[vec]")
	if err != nil {
		t.Fatal(err)
	}
	draw := func(l *Latency) {
		t.Helper()
		at := uint64(1000)
		one := func(ns uint64) {
			for _, e := range []traceevent.Event{{Time: at, Format: begin, Rec: rec(1, 3)}, {Time: at + ns, Format: end, Rec: rec(1, 3)}} {
				if err := l.Event(&e); err != nil {
					t.Fatal(err)
				}
			}
			at += 100_000
		}
		for i := range 40 { // two kinds, and later one that grows
			one(1100)
			if i >= 20 {
				one(uint64(i-19) * 2000)
			} else {
				one(20_000)
			}
		}
		if err := l.Event(&traceevent.Event{Time: at, Since: at - 1_000_000, Lost: 7}); err != nil {
			t.Fatal(err)
		}
	}
	same := func(pattern, _, name string) bool { return pattern == name }
	var b strings.Builder
	l, err := NewLatency(&b, &Source{}, pair, same, 1)
	if err != nil {
		t.Fatal(err)
	}
	l.HeatText(51, false)
	draw(l)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	const want = `
   32.8µs |                           ....
   16.4µs |.@...@..@..@..@      ...@...
   8.19µs |                  ....
    4.1µs |                 @
   2.05µs |                .
   1.02µs |@..@..@..@..@..@@..@..@..@..@.
          +--------------------------?????
           0                        8.13ms
a column is 262µs, from 0.000002 on; a row is what took so long, up to the row above; in a cell: . 1 @ 2 or more; ? events are missing
`
	if got := b.String(); !strings.Contains(got, want[1:]) || !strings.Contains(got, "begin to end: 80") {
		t.Errorf("%s", got)
	}

	b.Reset()
	p, err := NewLatencyPage(&b, &Source{}, pair, same, 1, "a <title>", []string{"a <note>"})
	if err != nil {
		t.Fatal(err)
	}
	draw(p.Latency)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`class="heat"`, "events are missing", "a &lt;title&gt;", "a &lt;note&gt;", "begin to end: 80", "prefers-color-scheme:dark", " from 1.02µs to 1.54µs, at ", "</svg>", "</body></html>"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "http://") && strings.Count(b.String(), "http://") != strings.Count(b.String(), `xmlns="http://www.w3.org/2000/svg"`) {
		t.Error("the page asks a network")
	}
}

// TestRows: each number is in the row whose least it is not below, and the next row begins above it.
func TestRows(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 20000 {
		v := r.Uint64() >> (r.Uint64() % 64)
		if i < 4096 {
			v = uint64(i)
		}
		k := row(v)
		if k < 0 || k >= heatRows || least(k) > v || k+2 < heatRows && v >= 2 && least(k+1) <= v {
			t.Fatalf("%d is in row %d, from %d", v, k, least(k))
		}
	}
}

// TestShade: more is never a lighter shade, one is seen, the most is the darkest, and the legend says where shades begin.
func TestShade(t *testing.T) {
	for _, most := range []uint64{1, 2, 3, 7, 100, 12345} {
		before := 0
		for n := uint64(1); n <= most; n++ {
			s := shade(n, most, 8)
			if s < max(before, 1) || s > 8 || n == most && s != 8 {
				t.Fatalf("%d of %d: %d after %d", n, most, s, before)
			}
			before = s
		}
		seen := map[int]uint64{}
		for n := most; n > 0; n-- {
			seen[shade(n, most, 8)] = n
		}
		for _, l := range legend(most, 8) {
			if seen[l.shade] != l.least {
				t.Errorf("of %d, shade %d begins at %d, not %d", most, l.shade, seen[l.shade], l.least)
			}
			delete(seen, l.shade)
		}
		if len(seen) > 0 {
			t.Errorf("of %d, not told: %v", most, seen)
		}
	}
}

// TestColumns: times are in the part that they belong to, however wide parts become.
func TestColumns(t *testing.T) {
	c := NewColumns(100, func(into *int, from int) { *into += from })
	r := rand.New(rand.NewPCG(5, 6))
	var times []uint64
	for at := uint64(1 << 40); len(times) < 5000; at += r.Uint64N(1 << (len(times) / 200)) {
		times = append(times, at)
		*c.At(at)++
	}
	want := make([]int, len(c.Parts))
	for _, at := range times {
		want[(at-c.First)/c.Width]++
	}
	for i, n := range c.Parts {
		if n != want[i] || len(c.Parts) > 100 {
			t.Errorf("part %d of %d: %d of %d", i, len(c.Parts), n, want[i])
		}
	}
	if got := c.Between(times[0], times[len(times)-1]); len(got) != len(c.Parts) {
		t.Errorf("%d of %d parts", len(got), len(c.Parts))
	}
}
