package expect

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// object compares the object to blame: each field that the answer has, as strictly as its meaning asks and as leniently as
// its form allows.
func (a Answer) object(lab Lab, got map[string]any) (bad []string) {
	for _, key := range slices.Sorted(maps.Keys(a.Culprit)) {
		want, have := a.Culprit[key], got[key]
		if key == "netns" {
			w := text(want)
			if name := lab.Netns[w]; name != "" {
				w = name
			}
			if have == nil && w == "init" {
				continue
			}
			want = w
		}
		if !same(key, want, have) {
			bad = append(bad, fmt.Sprintf("%s is %s, want %s", key, text(have), text(want)))
		}
	}
	return bad
}

// text is a value of JSON as a person writes it; "" for null.
func text(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}

// same compares one field.
func same(key string, want, got any) bool {
	w, g := strings.TrimSpace(text(want)), strings.TrimSpace(text(got))
	if got == nil {
		return false
	}
	switch key {
	case "rule":
		return strings.Contains(ruleText(g), ruleText(w))
	case "key":
		return strings.ReplaceAll(g, "/", ".") == strings.ReplaceAll(w, "/", ".")
	case "local":
		return endpoint(g) == endpoint(w)
	case "dev", "netns", "table", "chain":
		return g == w
	}
	if x, ok := number(w); ok {
		y, ok := number(g)
		return ok && x == y
	}
	if x, ok := address(w); ok {
		y, ok := address(g)
		return ok && x == y
	}
	return strings.EqualFold(w, g)
}

func number(s string) (uint64, bool) {
	n, err := strconv.ParseUint(s, 0, 64)
	return n, err == nil
}

// address reads an address, or a network of one.
func address(s string) (netip.Addr, bool) {
	if p, err := netip.ParsePrefix(s); err == nil && p.IsSingleIP() {
		return p.Addr(), true
	}
	a, err := netip.ParseAddr(s)
	return a, err == nil
}

// endpoint brings ADDRESS[%DEVICE]:PORT into one form: every address of any is *.
func endpoint(s string) string {
	i := strings.LastIndex(s, ":")
	if i < 0 {
		return s
	}
	addr, port := strings.Trim(s[:i], "[]"), s[i+1:]
	addr, dev, _ := strings.Cut(addr, "%")
	addr = strings.Trim(addr, "[]")
	if a, err := netip.ParseAddr(addr); err == nil && a.IsUnspecified() || addr == "" {
		addr = "*"
	}
	return addr + "%" + dev + ":" + port
}

// counterText is a rule's counter, with or without what it has counted.
var counterText = regexp.MustCompile(`\bcounter( packets \d+ bytes \d+)?( |$)`)

// ruleText brings a rule into one form: without its counter, its comment and what is the default, single spaces.
func ruleText(s string) string {
	s, _, _ = strings.Cut(s, " comment ")
	s = counterText.ReplaceAllString(s, "")
	s = strings.Replace(s, " burst 5 packets", "", 1) // what nft(8) takes if nothing is said, and may leave out
	return strings.Join(strings.Fields(strings.ReplaceAll(s, `"`, "")), " ")
}
