package check

import (
	"iter"
	"strings"
)

// nearest gives the candidate that looks most like name, "" if none is near: at most a third of it may differ.
func nearest(name string, candidates iter.Seq[string]) string {
	best, bestDist := "", max(1, len(name)/3)+1
	for c := range candidates {
		if c == name || c == "" {
			continue
		}
		d := distance(strings.ToLower(name), strings.ToLower(c), bestDist+1)
		if d < bestDist || d == bestDist && best != "" && better(name, c, best) {
			best, bestDist = c, d
		}
	}
	return best
}

// better decides between candidates that are equally near: the length that is nearer, then the alphabet.
func better(name, c, best string) bool {
	a, b := len(c)-len(name), len(best)-len(name)
	if a*a != b*b {
		return a*a < b*b
	}
	return c < best
}

// didYouMean makes a hint of nearest.
func didYouMean(name string, candidates iter.Seq[string]) string {
	if c := nearest(name, candidates); c != "" {
		return "did you mean `" + c + "`?"
	}
	return ""
}

// distance is the number of insertions, deletions, replacements and swaps of neighbours that make b of a; limit or more is
// given as limit.
func distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit || len(a) > 256 || len(b) > 256 {
		return limit
	}
	before, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], before[j-2]+1)
			}
		}
		before, prev, cur = prev, cur, before
	}
	return min(prev[len(b)], limit)
}
