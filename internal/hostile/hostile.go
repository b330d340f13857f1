// Package hostile gives parsers bytes that they do not expect: good ones cut short and good ones changed. A parser may refuse
// them or make sense of what is left; it may not panic, nor take long. FATHOM_MUTATIONS says how often, in long runs.
package hostile

import (
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

// Env sets how many changed copies a parser gets.
const Env = "FATHOM_MUTATIONS"

// How often a test cuts and changes, and how long one call may take.
const (
	cuts      = 500
	mutations = 1000
	patience  = 2 * time.Second
)

// Check calls parse with good cut at 500 places, then with 1,000 copies of it in which bytes were changed, most of them among
// the first head bytes, where what says how the rest is to be read stands. parse may be called with what it must not change.
func Check(t *testing.T, good []byte, head int, parse func([]byte)) {
	t.Helper()
	timed := func(what string, n int, b []byte) {
		start := time.Now()
		parse(b)
		if took := time.Since(start); took > patience {
			t.Errorf("%s %d took %s", what, n, took)
		}
	}
	for i := range cuts {
		at := len(good) * i / cuts
		timed("cut at", at, slices.Clip(good[:at]))
	}
	count := mutations
	if n, err := strconv.Atoi(os.Getenv(Env)); err == nil {
		count = n
	}
	for i := range count {
		rng := rand.New(rand.NewPCG(uint64(i), uint64(len(good))))
		timed("mutation", i, mutate(rng, good, head))
	}
}

// odd are numbers that lengths and offsets do not expect.
var odd = []byte{0, 1, 0x7f, 0x80, 0xff, 0xfe, ' ', '\n'}

// mutate changes a few bytes, or a run of them, or drops or doubles a piece.
func mutate(rng *rand.Rand, good []byte, head int) []byte {
	m := slices.Clone(good)
	if len(m) == 0 {
		return m
	}
	place := func() int {
		if head > 0 && rng.IntN(4) > 0 {
			return rng.IntN(min(head, len(m)))
		}
		return rng.IntN(len(m))
	}
	for range 1 + rng.IntN(6) {
		at := place()
		run := min(1<<rng.IntN(4), len(m)-at)
		switch rng.IntN(5) {
		case 0:
			m[at] ^= 1 << rng.IntN(8)
		case 1:
			m[at] = byte(rng.Uint32())
		case 2, 3:
			v := odd[rng.IntN(len(odd))]
			for i := range run {
				m[at+i] = v
			}
		default:
			if rng.IntN(2) == 0 && len(m) > run {
				m = slices.Delete(m, at, at+run)
			} else {
				m = slices.Insert(m, at, m[at:at+run]...)
			}
		}
	}
	return m
}
