package check

import (
	"fmt"
	"maps"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/lang/syntax"
)

// ParseAttachPoint takes the text of an attach point apart, with params put in for $1 and the like. The message is "" if it
// is well formed. Several providers come from a wildcard in the probe type.
func ParseAttachPoint(ap *syntax.AttachPoint, params []string, unsafe bool) (points []AttachPoint, msg, hint string) {
	parts, msg := splitPoint(ap.Raw, params)
	if msg != "" {
		return nil, msg, ""
	}
	name := parts[0]
	if isWild(name) {
		return wildProviders(ap, parts, unsafe)
	}
	p, ok := FindProvider(name)
	if !ok {
		return nil, "Invalid probe type: " + name, didYouMean(name, providerNames())
	}
	a := AttachPoint{Span: ap.Span, Provider: p, Raw: ap.Raw}
	if msg = a.parse(parts[1:], unsafe); msg != "" {
		return nil, msg, "usage: " + p.Usage
	}
	return []AttachPoint{a}, "", ""
}

// wildProviders expands a wildcard in the probe type: to kernel probes, or with a path to user probes. Probe types that take
// another number of parts are left out.
func wildProviders(ap *syntax.AttachPoint, parts []string, unsafe bool) (points []AttachPoint, msg, hint string) {
	user := len(parts) > 1 && strings.Contains(parts[1], "/")
	for _, p := range providers {
		if p.Special || p.isUser() != user || strings.Contains(p.Name, "ret") || p.Name == "fexit" || !Match(parts[0], p.Name) {
			continue
		}
		a := AttachPoint{Span: ap.Span, Provider: p, Raw: ap.Raw}
		if a.parse(parts[1:], unsafe) == "" {
			points = append(points, a)
		}
	}
	if points == nil {
		return nil, "No probe type matched for " + parts[0], ""
	}
	return points, "", ""
}

// splitPoint cuts raw at its colons, resolves quotes and puts positional parameters in.
func splitPoint(raw string, params []string) (parts []string, msg string) {
	var part strings.Builder
	quoted := false
	for i, budget := 0, 64; i < len(raw); i++ {
		switch c := raw[i]; {
		case c == '"':
			quoted = !quoted
		case quoted && c == '\\' && i+1 < len(raw):
			i++
			part.WriteByte(raw[i])
		case !quoted && c == ':':
			parts = append(parts, part.String())
			part.Reset()
		case !quoted && c == '$':
			n := i + 1
			for n < len(raw) && raw[n] >= '0' && raw[n] <= '9' && raw[i+1] != '0' {
				n++
			}
			if n == i+1 {
				return nil, "invalid trailing character for positional param: " + raw[n:min(n+1, len(raw))] +
					". Try quoting this entire part if this is intentional e.g. \"$" + raw[n:min(n+1, len(raw))] + "\"."
			}
			if budget--; budget < 0 {
				return nil, "positional parameters refer to each other"
			}
			raw = raw[:i] + param(params, raw[i+1:n]) + raw[n:]
			i--
		default:
			part.WriteByte(c)
		}
	}
	return append(parts, part.String()), ""
}

// param gives the positional parameter number n, "" if there is none.
func param(params []string, n string) string {
	if i, err := strconv.Atoi(n); err == nil && i >= 1 && i <= len(params) {
		return params[i-1]
	}
	return ""
}

// parse reads what follows the probe type.
func (a *AttachPoint) parse(parts []string, unsafe bool) string {
	switch a.Provider.Name {
	case "begin", "end":
		return a.parseNone(parts)
	case "self":
		return a.parseSelf(parts)
	case "test", "bench":
		return a.parseNamed(parts)
	case "kprobe", "kretprobe":
		return a.parseKprobe(parts, unsafe)
	case "fentry", "fexit":
		return a.parseFentry(parts)
	case "uprobe", "uretprobe":
		return a.parseUprobe(parts)
	case "usdt":
		return a.parseUSDT(parts)
	case "tracepoint":
		return a.parseTracepoint(parts)
	case "rawtracepoint":
		return a.parseRawTracepoint(parts)
	case "profile", "interval":
		return a.parseTimer(parts)
	case "software":
		return a.parseEvent(parts, softwareEvents)
	case "hardware":
		return a.parseEvent(parts, hardwareEvents)
	case "watchpoint":
		return a.parseWatchpoint(parts)
	case "iter":
		return a.parseIter(parts)
	}
	return "Invalid provider: '" + a.Provider.Name + "'"
}

// count is the message about a wrong number of parts; want2 < 0: only want is right.
func (a *AttachPoint) count(got, want, want2 int) string {
	s := fmt.Sprint(want)
	if want2 >= 0 {
		s += fmt.Sprintf(" or %d", want2)
	}
	return fmt.Sprintf("%s probe type requires %s arguments, found %d", a.Provider.Name, s, got)
}

func (a *AttachPoint) parseNone(parts []string) string {
	if len(parts) != 0 && (len(parts) != 1 || parts[0] != "") {
		return a.count(len(parts), 0, -1)
	}
	return ""
}

func (a *AttachPoint) parseSelf(parts []string) string {
	if len(parts) != 2 {
		return a.count(len(parts), 2, -1)
	}
	a.Module, a.Func = parts[0], parts[1]
	switch {
	case a.Module != "signal":
		return a.Module + " is not a supported trigger"
	case a.Func != "SIGUSR1":
		return a.Func + " is not a supported signal"
	}
	return ""
}

func (a *AttachPoint) parseNamed(parts []string) string {
	if len(parts) != 1 {
		return a.count(len(parts), 1, -1)
	}
	if a.Func = parts[0]; a.Func == "" {
		return a.Provider.Name + " probes must have a name"
	}
	return ""
}

func (a *AttachPoint) parseKprobe(parts []string, unsafe bool) string {
	switch len(parts) {
	case 1:
	case 2:
		a.Module = parts[0]
	default:
		return a.count(len(parts), 1, 2)
	}
	if msg := a.function(parts[len(parts)-1], a.Provider.Name == "kprobe"); msg != "" {
		return msg
	}
	switch {
	case a.HasAddr && !unsafe:
		return "Probing by address requires --unsafe"
	case a.Func == "" && !a.HasAddr:
		return a.Provider.Name + "s should be attached to a function"
	}
	return ""
}

// function reads function, function+offset or an address.
func (a *AttachPoint) function(s string, offset bool) string {
	name, off, ok := strings.Cut(s, "+")
	if !ok {
		if v, _, err := syntax.ParseInt(s); err == nil {
			a.Address, a.HasAddr = v, true
			return ""
		}
		a.Func = s
		return ""
	}
	switch {
	case !offset:
		return "Offset not allowed"
	case strings.Contains(off, "+"):
		return "Cannot take more than one offset"
	}
	v, _, err := syntax.ParseInt(off)
	if err != nil {
		return "Invalid offset: " + err.Error()
	}
	a.Func, a.Offset, a.HasOff = name, v, true
	if isWild(name) {
		return "Cannot use wildcards with an offset"
	}
	return ""
}

func (a *AttachPoint) parseFentry(parts []string) string {
	switch {
	case len(parts) == 0 || len(parts) > 3:
		return a.count(len(parts), 1, 3)
	case parts[0] == "bpf":
		if len(parts) == 1 {
			return "the 'bpf' variant of this probe requires a bpf program name and optional bpf program id"
		}
		a.Module, a.Func = "bpf", parts[len(parts)-1]
		if len(parts) == 3 && parts[1] != "*" {
			id, _, err := syntax.ParseInt(parts[1])
			if err != nil {
				return "bpf program id must be a number or '*'"
			}
			a.Address, a.HasAddr = id, true
		}
		return ""
	case len(parts) == 3:
		return "Only the 'bpf' variant of this probe supports 4 arguments"
	case len(parts) == 2:
		a.Module = parts[0]
	}
	if a.Func = parts[len(parts)-1]; a.Func == "" {
		return "fentry/fexit should specify a function"
	}
	return ""
}

func (a *AttachPoint) parseUprobe(parts []string) string {
	switch len(parts) {
	case 2:
	case 3:
		if a.Lang = parts[1]; a.Lang != "cpp" {
			return "unsupported language type: " + a.Lang
		}
	default:
		return a.count(len(parts), 2, 3)
	}
	a.Module = parts[0]
	if a.Module == "" {
		return a.Provider.Name + " should have a target"
	}
	s := parts[len(parts)-1]
	if a.Lang != "" {
		a.Func = s
		return ""
	}
	if msg := a.function(s, a.Provider.Name == "uprobe"); msg != "" {
		return msg
	}
	switch {
	case a.HasAddr && isWild(a.Module):
		return "Cannot use wildcards with absolute address"
	case a.Func == "" && !a.HasAddr:
		return a.Provider.Name + " should be attached to a function and/or address"
	}
	return ""
}

func (a *AttachPoint) parseUSDT(parts []string) string {
	switch len(parts) {
	case 2:
		a.Module, a.Func = parts[0], parts[1]
	case 3:
		a.Module, a.Unit, a.Func = parts[0], parts[1], parts[2]
	default:
		return a.count(len(parts), 2, 3)
	}
	if a.Func == "" {
		return "usdt probe must have a target function or wildcard"
	}
	return ""
}

func (a *AttachPoint) parseTracepoint(parts []string) string {
	if len(parts) == 1 && isWild(parts[0]) {
		parts = []string{"*", parts[0]}
	}
	if len(parts) != 2 {
		return a.count(len(parts), 2, -1)
	}
	if a.Module, a.Func = parts[0], parts[1]; a.Module == "" || a.Func == "" {
		return "tracepoint probe must have a target"
	}
	return ""
}

func (a *AttachPoint) parseRawTracepoint(parts []string) string {
	switch len(parts) {
	case 1:
	case 2:
		a.Module = parts[0]
	default:
		return a.count(len(parts), 2, 1)
	}
	if a.Func = parts[len(parts)-1]; a.Func == "" {
		return "rawtracepoint should be attached to a function"
	}
	return ""
}

func (a *AttachPoint) parseTimer(parts []string) string {
	name := a.Provider.Name
	switch len(parts) {
	case 1: // nanoseconds, or with a unit: 1s
		v, _, err := syntax.ParseInt(parts[0])
		switch {
		case err != nil:
			return fmt.Sprintf("Invalid rate of %s probe: %v", name, err)
		case v < 1000:
			return fmt.Sprintf("Invalid rate of %s probe. Minimum is 1000 or 1us. Found: %d nanoseconds", name, v)
		}
		a.Unit, a.Count = "us", v/1000
		return ""
	case 2:
	default:
		return a.count(len(parts), 1, 2)
	}
	v, _, err := syntax.ParseInt(parts[1])
	if err != nil {
		return fmt.Sprintf("Invalid rate of %s probe: %v", name, err)
	}
	a.Unit, a.Count = parts[0], v
	switch a.Unit {
	case "s", "ms", "us", "hz":
	case "":
		return name + " probe must have unit of time"
	default:
		return a.Unit + " is not an accepted unit of time"
	}
	if v == 0 {
		return name + " frequency should be a positive integer"
	}
	return ""
}

func (a *AttachPoint) parseEvent(parts []string, events map[string]string) string {
	name := a.Provider.Name
	if len(parts) != 1 && len(parts) != 2 {
		return a.count(len(parts), 1, 2)
	}
	ev, ok := events[parts[0]]
	switch {
	case parts[0] == "":
		return fmt.Sprintf("%s probe must have a %s event name", name, name)
	case isWild(parts[0]):
		return fmt.Sprintf("wildcards are not allowed for %s probe type", name)
	case !ok:
		msg := fmt.Sprintf("%s is not a %s probe", parts[0], name)
		if c := nearest(parts[0], maps.Keys(events)); c != "" {
			msg += ", did you mean `" + c + "`?"
		}
		return msg
	}
	a.Func = ev
	if len(parts) == 2 && parts[1] != "*" && parts[1] != "" {
		v, _, err := syntax.ParseInt(parts[1])
		if err != nil {
			return fmt.Sprintf("Invalid count for %s probe: %v", name, err)
		}
		a.Count = v
	}
	return ""
}

func (a *AttachPoint) parseWatchpoint(parts []string) string {
	if len(parts) != 3 {
		return a.count(len(parts), 3, -1)
	}
	addr, _, err := syntax.ParseInt(parts[0])
	if err != nil {
		return "Invalid function/address argument: " + err.Error()
	}
	n, _, err := syntax.ParseInt(parts[1])
	if err != nil {
		return "Invalid length argument: " + err.Error()
	}
	a.Address, a.HasAddr, a.Count, a.Unit = addr, true, n, parts[2]
	switch {
	case addr == 0:
		return "watchpoint must be attached to a non-zero address"
	case n != 1 && n != 2 && n != 4 && n != 8:
		return "watchpoint length must be one of (1,2,4,8)"
	case a.Unit == "" || strings.Trim(a.Unit, "rwx") != "":
		return "watchpoint mode must be combination of (r,w,x)"
	}
	for _, c := range a.Unit {
		if strings.Count(a.Unit, string(c)) > 1 {
			return "watchpoint modes may not be duplicated"
		}
	}
	return ""
}

func (a *AttachPoint) parseIter(parts []string) string {
	if len(parts) != 1 && len(parts) != 2 {
		return "iter probe type takes 2 arguments (1 optional)"
	}
	a.Func = parts[0]
	switch {
	case a.Func == "":
		return "iter should specify a iterator's name"
	case isWild(a.Func) || len(parts) == 2 && isWild(parts[1]):
		return "iter probe type does not support wildcards"
	}
	if len(parts) == 2 {
		a.Module = parts[1]
	}
	return ""
}

// Match reports whether name matches pattern, in which * is any text, ? one byte and [a-z] one of a set.
func Match(pattern, name string) bool {
	star, mark := -1, 0
	p, n := 0, 0
	for n < len(name) {
		size, ok := matchOne(pattern[p:], name[n])
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, n
			p++
		case ok:
			p += size
			n++
		case star >= 0:
			mark++
			p, n = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// matchOne matches one byte with what pattern begins with; size is the length of that.
func matchOne(pattern string, c byte) (size int, ok bool) {
	if pattern == "" {
		return 0, false
	}
	end := strings.IndexByte(pattern, ']')
	if pattern[0] != '[' || end < 2 {
		return 1, pattern[0] == '?' || pattern[0] == c
	}
	set := pattern[1:end]
	neg := set[0] == '!' || set[0] == '^'
	if neg {
		set = set[1:]
	}
	in := false
	for i := 0; i < len(set); i++ {
		if i+2 < len(set) && set[i+1] == '-' {
			in = in || set[i] <= c && c <= set[i+2]
			i += 2
			continue
		}
		in = in || set[i] == c
	}
	return end + 1, in != neg
}
