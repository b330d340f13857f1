package remote

import (
	"fmt"
	"strconv"
	"strings"
)

// Host is a machine as a person names it: what their ssh knows, perhaps with a user and a port.
type Host struct {
	Name string // as it is told: without user and port, unless two of them would be told alike
	Dest string // what ssh is given: [user@]host
	Port int    // 0 is ssh's own choice
}

// mostHosts bounds how many connections one run holds.
const mostHosts = 64

// Parse reads "[user@]host[:port],…". An IPv6 address with a port stands in brackets.
func Parse(list []string) ([]Host, error) {
	var out []Host
	seen := map[string]bool{}
	for _, text := range list {
		h, err := parse(text)
		if err != nil {
			return nil, err
		}
		if seen[text] {
			return nil, fmt.Errorf("host %s is named twice", text)
		}
		seen[text] = true
		out = append(out, h)
	}
	if len(out) > mostHosts {
		return nil, fmt.Errorf("%d hosts: at most %d at a time", len(out), mostHosts)
	}
	for i := range out {
		for j := range out {
			if i != j && out[i].short() == out[j].short() {
				out[i].Name = list[i]
			}
		}
	}
	return out, nil
}

// short is the host alone.
func (h Host) short() string { return h.Dest[strings.LastIndexByte(h.Dest, '@')+1:] }

func parse(text string) (h Host, err error) {
	h.Dest = text
	user, host := "", text
	if i := strings.LastIndexByte(text, '@'); i >= 0 {
		user, host = text[:i+1], text[i+1:]
	}
	switch i := strings.LastIndexByte(host, ':'); {
	case strings.HasPrefix(host, "["):
		end := strings.IndexByte(host, ']')
		if end < 0 {
			return h, fmt.Errorf("host %q: no ] behind the address", text)
		}
		rest := host[end+1:]
		host = host[1:end]
		if rest != "" {
			if h.Port, err = port(strings.TrimPrefix(rest, ":")); err != nil || rest[0] != ':' {
				return h, fmt.Errorf("host %q: behind ] stands :PORT", text)
			}
		}
	case i >= 0 && strings.Count(host, ":") == 1:
		if h.Port, err = port(host[i+1:]); err != nil {
			return h, fmt.Errorf("host %q: %w", text, err)
		}
		host = host[:i]
	}
	if host == "" || user == "@" {
		return h, fmt.Errorf("host %q: write [user@]host[:port]", text)
	}
	if strings.Trim(host, ".") == "" || strings.HasPrefix(text, "-") || strings.HasPrefix(host, "-") || strings.ContainsAny(text, " \t\n\x00/") {
		return h, fmt.Errorf("host %q: that is no name of a host", text) // ssh would take it for an option
	}
	h.Dest = user + host
	h.Name = h.short()
	return h, nil
}

func port(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("no port %q", s)
	}
	return int(n), nil
}
