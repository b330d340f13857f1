package packets

import (
	"fmt"
	"strconv"
	"strings"
)

// words are the primitives that a filter may begin with beside tcpdump's, joined by "and": what is not in a packet's bytes.
var words = map[string]func(o *Options, arg string) error{
	"netns": func(o *Options, a string) error { o.Netns = append(o.Netns, a); return nil },
	"dev":   func(o *Options, a string) error { o.Devs = append(o.Devs, a); return nil },
	"comm":  func(o *Options, a string) error { o.Comm = a; return nil },
	"mark": func(o *Options, a string) error {
		n, err := strconv.ParseUint(a, 0, 32)
		m := uint32(n)
		o.Mark = &m
		return err
	},
	"pid": func(o *Options, a string) error {
		n, err := strconv.ParseUint(a, 10, 32)
		o.PIDs = append(o.PIDs, uint32(n))
		return err
	},
}

// Split takes our own words from a filter, before and behind tcpdump's expression, and gives what is left of it.
func (o *Options) Split(expr string) (string, error) {
	f := strings.Fields(expr)
	take := func(word, arg string) error {
		if err := words[word](o, arg); err != nil {
			return fmt.Errorf("%s %s: not a number that fits", word, arg)
		}
		return nil
	}
	for len(f) >= 2 && words[f[0]] != nil {
		if err := take(f[0], f[1]); err != nil {
			return "", err
		}
		if f = f[2:]; len(f) > 0 {
			if f[0] != "and" && f[0] != "&&" || len(f) == 1 {
				return "", fmt.Errorf("%q: netns, dev, mark, pid and comm stand before or behind the rest, joined by \"and\"", strings.Join(f, " "))
			}
			f = f[1:]
		}
	}
	for n := len(f); n >= 3 && words[f[n-2]] != nil && (f[n-3] == "and" || f[n-3] == "&&"); n = len(f) {
		if err := take(f[n-2], f[n-1]); err != nil {
			return "", err
		}
		f = f[:n-3]
	}
	return strings.Join(f, " "), nil
}
