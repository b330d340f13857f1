package complete

import (
	"slices"
	"strings"
)

// Narrow gives those of the names, sorted, that begin with prefix. If there are more than most, they are cut behind the
// first "_", "." or ":" that follows, or if that leaves too many, the first letters: then whole is false, and there is more to
// type behind each.
func Narrow(names []string, prefix string, most int) (out []string, whole bool) {
	first, _ := slices.BinarySearch(names, prefix)
	last := first
	for last < len(names) && strings.HasPrefix(names[last], prefix) {
		last++
	}
	names = names[first:last]
	if len(names) <= most {
		return names, true
	}
	if out = heads(names, func(rest string) int { return strings.IndexAny(rest, "_.:") }, len(prefix)); len(out) > most || len(out) < 2 {
		out = heads(names, func(string) int { return 0 }, len(prefix))
	}
	return out, false
}

// heads are what names begin with, up to and with the byte that end finds behind the first at bytes.
func heads(names []string, end func(rest string) int, at int) (out []string) {
	for _, n := range names {
		if i := end(n[at:]); i >= 0 && at+i < len(n) {
			n = n[:at+i+1]
		}
		if len(out) == 0 || out[len(out)-1] != n {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
