package expect

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Verdict is a record of type "verdict". What is not listed here is in All.
type Verdict struct {
	Class     string         `json:"class"`
	Netns     string         `json:"netns"`
	Dev       string         `json:"dev"`
	Function  string         `json:"function"`
	Reason    string         `json:"reason"`
	Culprit   map[string]any `json:"culprit"`
	Sent      *int           `json:"sent"`
	Delivered *int           `json:"delivered"`
	Count     *int           `json:"count"`
	InFlight  int            `json:"in_flight"`
	Unknown   int            `json:"unknown"`
	Cause     string         `json:"cause"`
	Fix       string         `json:"fix"`

	All map[string]any `json:"-"`
}

// ParseVerdict reads one line; ok is false if it is a record of another type.
func ParseVerdict(line []byte) (v Verdict, ok bool, err error) {
	if err := json.Unmarshal(line, &v.All); err != nil {
		return v, false, fmt.Errorf("record %q: %w", line, err)
	}
	if v.All["type"] != "verdict" {
		return v, false, nil
	}
	if err := json.Unmarshal(line, &v); err != nil {
		return v, false, fmt.Errorf("verdict %q: %w", line, err)
	}
	return v, true, nil
}

// Score is how a tool did: the four questions, and for each that failed, why.
type Score struct {
	ID                          string
	Class, Place, Object, Count bool
	Why                         []string
	Verdict                     *Verdict // the one that was compared; nil if there is none
}

// Points counts what is right, up to 4.
func (s Score) Points() (n int) {
	for _, b := range []bool{s.Class, s.Place, s.Object, s.Count} {
		if b {
			n++
		}
	}
	return n
}

// rank orders scores: by points, then by what is asked first.
func (s Score) rank() (n int) {
	for _, b := range []bool{s.Class, s.Place, s.Object, s.Count} {
		n <<= 1
		if b {
			n |= 1
		}
	}
	return s.Points()<<4 | n
}

// Score compares what a tool said with the answer. Of several verdicts about the traffic the best is taken; one of another
// class beside it, about the same packets, costs the class.
func (a Answer) Score(lab Lab, verdicts []Verdict) Score {
	verdicts = a.joined(verdicts)
	best := Score{ID: a.ID, Why: []string{"no verdict about the traffic"}}
	for _, v := range verdicts {
		if !a.about(v) {
			continue
		}
		if s := a.score(lab, v, a.beside(verdicts, v)); best.Verdict == nil || s.rank() > best.rank() {
			best = s
		}
	}
	if best.Verdict == nil {
		return best
	}
	for _, v := range verdicts {
		if a.about(v) && a.wrong(lab, v) {
			best.Class = false
			best.Why = append(best.Why, fmt.Sprintf("class: a false verdict beside it: %s in %s %s %s %s", v.Class, v.Netns, v.Dev, v.Function, v.Reason))
		}
	}
	return best
}

// about says that a verdict is about the traffic that was sent: its flow has an address that it goes to. A verdict that
// names no flow is.
func (a Answer) about(v Verdict) bool {
	if v.Class == "" || v.Class == "delivered" || v.Class == "ok" {
		return false
	}
	flow := text(v.All["flow"])
	if flow == "" || len(a.Dst) == 0 {
		return true
	}
	for _, d := range a.Dst {
		if hasAddr(flow, d) {
			return true
		}
	}
	return false
}

// hasAddr finds an address in a text, and not one that only begins or ends with it.
func hasAddr(text, addr string) bool {
	for i := 0; ; {
		j := strings.Index(text[i:], addr)
		if j < 0 {
			return false
		}
		j += i
		end := j + len(addr)
		digit := func(k int) bool { return k >= 0 && k < len(text) && text[k] >= '0' && text[k] <= '9' }
		if !digit(j-1) && !digit(end) && !(j >= 1 && text[j-1] == '.' && digit(j-2)) && !(end < len(text) && text[end] == '.' && digit(end+1)) {
			return true
		}
		i = j + 1
	}
}

// wrong says that a verdict tells a loss of these packets that the kernel was not made to cause.
func (a Answer) wrong(lab Lab, v Verdict) bool {
	if v.Class == a.Class || v.Class == FalseLoss {
		return false
	}
	events, _ := a.Events(lab.Kernel)
	return !slices.ContainsFunc(events, func(e Event) bool { return e.is(v) })
}

// is says that a verdict tells of the event.
func (e Event) is(v Verdict) bool {
	return (e.Function == "" || Function(v.Function) == e.Function) && (e.Event != "kfree_skb" || v.Reason == "" || reason(v.Reason) == reason(e.Reason))
}

// reason is the name of a drop reason without what all begin with.
func reason(s string) string {
	return strings.TrimPrefix(strings.TrimPrefix(strings.ToUpper(s), "SKB_DROP_REASON_"), "SKB_")
}

// joined makes one verdict of those that say the same of several flows of the traffic.
func (a Answer) joined(verdicts []Verdict) (out []Verdict) {
	seen := map[string]int{}
	for _, v := range verdicts {
		if v.Sent == nil || v.Delivered == nil || v.Count == nil || !a.about(v) {
			out = append(out, v)
			continue
		}
		k := fmt.Sprintln(v.Class, v.Netns, v.Dev, v.Function, v.Reason, text(map[string]any(v.Culprit)))
		i, ok := seen[k]
		if !ok {
			seen[k] = len(out)
			out = append(out, v)
			continue
		}
		was := &out[i]
		sent, delivered, count := *was.Sent+*v.Sent, *was.Delivered+*v.Delivered, *was.Count+*v.Count
		was.Sent, was.Delivered, was.Count = &sent, &delivered, &count
		was.InFlight += v.InFlight
		was.Unknown += v.Unknown
	}
	return out
}

// protocol is what a flow begins with: "udp", "tcp", "arp".
func protocol(flow string) string { p, _, _ := strings.Cut(flow, " "); return p }

// others are the packets of other verdicts.
type others struct {
	arrived int // of flows to the same place that lost nothing
	lost    int // of the same flow, for another cause
}

// beside counts what other verdicts than v say.
func (a Answer) beside(verdicts []Verdict, v Verdict) (o others) {
	for _, x := range verdicts {
		flow := text(x.All["flow"])
		_, to, _ := strings.Cut(flow, ">")
		switch {
		case x.Sent == nil || x.Count == nil:
		case x.Class == "delivered" && protocol(flow) == protocol(text(v.All["flow"])) && slices.ContainsFunc(a.Dst, func(d string) bool { return hasAddr(to, d) }):
			o.arrived += *x.Sent
		case x.All["id"] != v.All["id"] && flow != "" && flow == text(v.All["flow"]) && x.Class != "delivered":
			o.lost += *x.Count
		}
	}
	return o
}

func (a Answer) score(lab Lab, v Verdict, o others) Score {
	s := Score{ID: a.ID, Verdict: &v}
	note := func(what string, bad []string) bool {
		for _, b := range bad {
			s.Why = append(s.Why, what+": "+b)
		}
		return len(bad) == 0
	}
	s.Class = note("class", differs("class", a.Class, v.Class))
	s.Place = note("place", a.place(lab, v))
	s.Object = note("object", a.object(lab, v.Culprit))
	s.Count = note("count", a.count(v, o))
	return s
}

func differs(what, want, got string) []string {
	if want == got {
		return nil
	}
	return []string{fmt.Sprintf("%s is %q, want %q", what, got, want)}
}

// place compares where it happened.
func (a Answer) place(lab Lab, v Verdict) (bad []string) {
	role := a.Netns
	if c := a.role("netns"); role == "" && c != "init" {
		role = c
	}
	if role == "" && len(a.Counters) > 0 {
		role = a.Counters[0].Netns
	}
	want := lab.Netns[role]
	switch {
	case a.Class == Misroute: // the wrong place, or where it was sent there
		ok := false
		for _, name := range lab.Netns {
			ok = ok || name == v.Netns
		}
		if !ok {
			bad = append(bad, fmt.Sprintf("netns %q is none of the fault's", v.Netns))
		}
	case want != "":
		bad = append(bad, differs("netns", want, v.Netns)...)
	}
	if devs := a.devs(role); len(devs) > 0 && !slices.Contains(devs, v.Dev) {
		bad = append(bad, fmt.Sprintf("dev is %q, want %s", v.Dev, strings.Join(devs, " or ")))
	}
	events, _ := a.Events(lab.Kernel)
	if a.Class == Errno || len(events) == 0 {
		return bad
	}
	if !slices.ContainsFunc(events, func(e Event) bool { return e.is(v) }) {
		bad = append(bad, fmt.Sprintf("%s %s, want %s", v.Function, v.Reason, eventText(events)))
	}
	return bad
}

func eventText(events []Event) string {
	var out []string
	for _, e := range events {
		if e.Event == "kfree_skb" {
			out = append(out, e.Function+" "+e.Reason)
		} else {
			out = append(out, e.Event+" "+e.Reason)
		}
	}
	return strings.Join(out, " or ")
}

func (a Answer) role(key string) string { s, _ := a.Culprit[key].(string); return s }

// devs are the devices that may be named: those given, else the culprit's if it sits on a device.
func (a Answer) devs(role string) []string {
	if d := a.Devs[role]; len(d) > 0 {
		return d
	}
	switch a.role("kind") {
	case "xsk", "xdp", "tc", "tcx", "qdisc", "bridge", "membership", "address":
		return []string{a.role("dev")}
	}
	return nil
}

// count looks whether what was sent is accounted for.
func (a Answer) count(v Verdict, o others) (bad []string) {
	if v.Sent == nil || v.Delivered == nil || v.Count == nil {
		return []string{"sent, delivered or count is missing"}
	}
	sent, delivered, lost := *v.Sent, *v.Delivered, *v.Count
	switch {
	case a.Retries && sent+o.arrived < a.Sent, !a.Retries && sent != a.Sent && sent+o.arrived != a.Sent:
		bad = append(bad, fmt.Sprintf("sent is %d, want %d", sent, a.Sent))
	}
	if a.Delivered != nil && delivered != *a.Delivered && delivered+o.arrived != *a.Delivered {
		bad = append(bad, fmt.Sprintf("delivered is %d, want %d", delivered, *a.Delivered))
	}
	if a.Class == FalseLoss { // the events counted are no loss
		if sent != delivered {
			bad = append(bad, fmt.Sprintf("%d sent, %d delivered, and nothing was lost", sent, delivered))
		}
		return bad
	}
	if sum := delivered + lost + v.InFlight + v.Unknown; sent != sum && sent != sum+o.lost {
		bad = append(bad, fmt.Sprintf("%d sent, %d delivered, %d lost, %d lost otherwise, %d in flight, %d unknown do not add up", sent, delivered, lost, o.lost, v.InFlight, v.Unknown))
	}
	if v.Unknown != 0 {
		bad = append(bad, fmt.Sprintf("%d are of unknown fate", v.Unknown))
	}
	return bad
}
