package filter

import (
	"fmt"
	"strconv"
	"strings"
)

// Error is something wrong with an expression.
type Error struct {
	Expr     string
	Pos, End int // the place in Expr, in bytes; End is behind it
	Msg      string
	Hint     string // what to write instead, or ""
}

// Error gives the message on one line.
func (e *Error) Error() string {
	s := fmt.Sprintf("filter, column %d: %s", e.Pos+1, e.Msg)
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

// Text gives the expression with carets under what is wrong and the message behind them, without a line end.
func (e *Error) Text() string {
	line := strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, e.Expr)
	pad := strings.Repeat(" ", len([]rune(line[:e.Pos])))
	s := line + "\n" + pad + strings.Repeat("^", max(1, len([]rune(line[e.Pos:e.End])))) + " " + e.Msg
	if e.Hint != "" {
		s += "\n" + pad + e.Hint
	}
	return s
}

func quote(s string) string { return strconv.Quote(s) }

// closest finds the word nearest to s, if one differs in no more than two letters.
func closest(s string) string {
	best, at := "", 3
	try := func(w string) {
		if d := distance(s, w); d < at && d < len(s) || d == at && best != "" && d < 3 && w < best {
			best, at = w, d
		}
	}
	for w := range words {
		try(w)
	}
	for w := range protoWords {
		try(w)
	}
	for w := range constants {
		try(w)
	}
	return best
}

// distance counts the letters to insert, drop, replace or swap with the next (Damerau, 1964; adjacent swaps only).
func distance(a, b string) int {
	if d := len(a) - len(b); d > 2 || d < -2 {
		return 3
	}
	prev, cur, old := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := range len(a) {
		cur[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			cur[j+1] = min(prev[j]+cost, prev[j+1]+1, cur[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				cur[j+1] = min(cur[j+1], old[j-1]+1)
			}
		}
		old, prev, cur = prev, cur, old
	}
	return prev[len(b)]
}
