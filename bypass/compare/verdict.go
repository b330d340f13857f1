package compare

import (
	"fmt"
	"slices"
)

// Ratio is how a way compares with another, round by round.
type Ratio struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	Rounds int     `json:"rounds"`
}

// ratio divides values of the same round. Rounds in which either was not measured are left out.
func ratio(of, to []float64) Ratio {
	var rs []float64
	for i := range min(len(of), len(to)) {
		if of[i] > 0 && to[i] > 0 {
			rs = append(rs, of[i]/to[i])
		}
	}
	if len(rs) == 0 {
		return Ratio{}
	}
	slices.Sort(rs)
	return Ratio{median(rs), rs[0], rs[len(rs)-1], len(rs)}
}

// median gives the middle of sorted values.
func median(s []float64) float64 {
	switch n := len(s); {
	case n == 0:
		return 0
	case n%2 == 1:
		return s[n/2]
	default:
		return (s[n/2-1] + s[n/2]) / 2
	}
}

// middle is the median of values in any order.
func middle(v []float64) float64 {
	s := slices.Clone(v)
	slices.Sort(s)
	return median(s)
}

// Verdict says in words whether a way is better; less says that small values are good. Rounds that disagree are inconclusive: the
// spread is more than the gap.
func (r Ratio) Verdict(less bool) string {
	switch {
	case r.Rounds == 0:
		return "not measured"
	case r.Rounds < 3:
		return "too few rounds"
	case r.Min <= 1 && r.Max >= 1:
		return "inconclusive"
	case (r.Max < 1) == less:
		return "better"
	}
	return "worse"
}

// String gives the ratio with its spread.
func (r Ratio) String() string {
	if r.Rounds == 0 {
		return "-"
	}
	return fmt.Sprintf("%.3g (%.3g–%.3g)", r.Median, r.Min, r.Max)
}
