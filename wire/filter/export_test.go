package filter

import (
	"math/rand/v2"
	"testing"
)

// Expression is one of the expressions the tests use.
type Expression struct {
	Link Link
	Text string
}

// Accepted gives the expressions of the list that compile, and some made at random.
func Accepted(t *testing.T) []Expression {
	var out []Expression
	for _, e := range append(expressions(t), generated(5, 80)...) {
		if !e.refused {
			out = append(out, Expression{e.link, e.text})
		}
	}
	return out
}

// Packets makes n packets.
func Packets(r *rand.Rand, l Link, n int) [][]byte {
	out := make([][]byte, n)
	for i := range out {
		out[i] = packets{r}.packet(l)
	}
	return out
}
