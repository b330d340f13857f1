package packet

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// waypoint is a step of a way, as ways are compared: what had the packet, on the n-th place of its way. Names of devices are left out:
// the bad flow may take another one.
type waypoint struct {
	place int
	fn    string
	at    string // where, for people
}

// way lays a packet's way out function by function.
func way(r *Recording, p *Packet) (out []waypoint) {
	for i, l := range Lanes(r, p) {
		for _, f := range l.Funcs {
			out = append(out, waypoint{i, f, strings.TrimSpace(l.Netns + " " + l.Dev)})
		}
	}
	return out
}

// Pick chooses the flow of a recording that people mean: the one of a tuple such as "udp 10.0.0.1 > 10.0.0.2:9" if text is
// part of it, else the first that is no error message.
func (r *Recording) Pick(text string) *Flow {
	for _, f := range r.Flows {
		if len(f.kept()) == 0 {
			continue
		}
		if text != "" && strings.Contains(f.Tuple.String(), text) || text == "" && !f.Tuple.icmpError() && f.Tuple.Ether != etherARP {
			return f
		}
	}
	return nil
}

// Diff compares the way of a good flow with that of a bad one and writes where they part, and why the bad one ended.
func Diff(w io.Writer, good, bad *Recording, goodFlow, badFlow *Flow) error {
	g, b := best(goodFlow), worst(badFlow)
	gw, bw := way(good, g), way(bad, b)
	n := 0
	for n < len(gw) && n < len(bw) && gw[n].place == bw[n].place && gw[n].fn == bw[n].fn {
		n++
	}
	lines := []string{fmt.Sprintf("good  %s", goodFlow.Tuple), fmt.Sprintf("bad   %s", badFlow.Tuple)}
	if n > 0 {
		lines = append(lines, fmt.Sprintf("alike for %d steps, up to %s at %s", n, gw[n-1].fn, bw[n-1].at))
	}
	lines = append(lines, differ("good", gw, n), differ("bad", bw, n))
	for _, v := range Explain(bad) {
		if v.flow == badFlow && v.Class != ClassDelivered {
			lines = append(lines, fmt.Sprintf("the bad one: %s, %s", headline[v.Class], v.Cause), "mend: "+v.Fix)
		}
	}
	_, err := fmt.Fprintln(w, strings.Join(lines, "\n"))
	return err
}

func differ(name string, w []waypoint, n int) string {
	if n >= len(w) {
		return fmt.Sprintf("then the %s one ends", name)
	}
	rest := w[n:min(len(w), n+6)]
	var fns []string
	for _, x := range rest {
		fns = append(fns, x.fn)
	}
	more := ""
	if len(w) > n+6 {
		more = fmt.Sprintf(" and %d more", len(w)-n-6)
	}
	return fmt.Sprintf("then the %s one goes on at %s: %s%s", name, rest[0].at, strings.Join(fns, ", "), more)
}

// best is a packet of a flow that went furthest, worst one that was lost.
func best(f *Flow) *Packet {
	return slices.MaxFunc(f.kept(), func(a, b *Packet) int { return len(a.Hops) - len(b.Hops) })
}

func worst(f *Flow) *Packet {
	for _, l := range f.Losses {
		return l.Sample
	}
	if f.OpenSample != nil {
		return f.OpenSample
	}
	return best(f)
}
