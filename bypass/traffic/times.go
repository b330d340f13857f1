package traffic

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Times are durations that were measured. One goroutine owns them.
type Times struct {
	Lost   uint64
	all    []time.Duration
	sorted bool
}

// Add adds one.
func (t *Times) Add(d time.Duration) { t.all, t.sorted = append(t.all, d), false }

// Count says how many there are.
func (t *Times) Count() int { return len(t.all) }

// At gives the value that a part of all, from 0 to 1, does not exceed; 0 if there are none.
func (t *Times) At(part float64) time.Duration {
	if len(t.all) == 0 {
		return 0
	}
	if !t.sorted {
		slices.Sort(t.all)
		t.sorted = true
	}
	return t.all[min(int(part*float64(len(t.all))), len(t.all)-1)]
}

// Summary is what programs are told, in microseconds.
type Summary struct {
	Type  string  `json:"type"` // "times"
	Count int     `json:"count"`
	Lost  uint64  `json:"lost"`
	Min   float64 `json:"min_us"`
	P50   float64 `json:"p50_us"`
	P90   float64 `json:"p90_us"`
	P99   float64 `json:"p99_us"`
	P999  float64 `json:"p999_us"`
	Max   float64 `json:"max_us"`
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

// Summary gives the usual percentiles.
func (t *Times) Summary() Summary {
	return Summary{"times", len(t.all), t.Lost, micros(t.At(0)), micros(t.At(.5)), micros(t.At(.9)), micros(t.At(.99)), micros(t.At(.999)), micros(t.At(1))}
}

// Bucket is a bar of a histogram: times from From up to, not including, twice as much.
type Bucket struct {
	From time.Duration `json:"from_ns"`
	N    int           `json:"n"`
}

// Histogram counts by powers of two, without empty buckets at the ends.
func (t *Times) Histogram() []Bucket {
	var n [64]int
	for _, d := range t.all {
		b := 0
		for v := d.Nanoseconds(); v > 1; v >>= 1 {
			b++
		}
		n[b]++
	}
	var out []Bucket
	for i, c := range n {
		if c > 0 || len(out) > 0 {
			out = append(out, Bucket{time.Duration(1) << i, c})
		}
	}
	for len(out) > 0 && out[len(out)-1].N == 0 {
		out = out[:len(out)-1]
	}
	return out
}

// barWidth is how wide the longest bar is.
const barWidth = 40

// WriteText draws a histogram, and says the percentiles.
func (t *Times) WriteText(w io.Writer) error {
	hist := t.Histogram()
	most := 1
	for _, b := range hist {
		most = max(most, b.N)
	}
	for _, b := range hist {
		if _, err := fmt.Fprintf(w, "%9.1f µs %9d |%s\n", micros(b.From), b.N, strings.Repeat("@", (b.N*barWidth+most-1)/most)); err != nil {
			return err
		}
	}
	s := t.Summary()
	_, err := fmt.Fprintf(w, "%d round trips, %d lost: min %.1f, p50 %.1f, p99 %.1f, p99.9 %.1f, max %.1f µs\n", s.Count, s.Lost, s.Min, s.P50, s.P99, s.P999, s.Max)
	return err
}
