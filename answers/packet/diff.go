package packet

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// waypoint is a step of a way, as ways are compared: what had the packet, wherever that was: the bad flow may take other
// devices.
type waypoint struct {
	fn string
	at string // where, for people
}

// way lays a packet's way out function by function.
func way(r *Recording, p *Packet) (out []waypoint) {
	for _, l := range Lanes(r, p) {
		for _, f := range l.Funcs {
			out = append(out, waypoint{f, strings.TrimSpace(l.Netns + " " + l.Dev)})
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
	gw, bw := way(good, best(goodFlow)), way(bad, worst(badFlow))
	common, g, b := align(gw, bw)
	lines := []string{fmt.Sprintf("good  %s", goodFlow.Tuple), fmt.Sprintf("bad   %s", badFlow.Tuple)}
	if common > 0 {
		lines = append(lines, fmt.Sprintf("%d steps in common; the last is %s, at %s of the good one and %s of the bad one", common, gw[g].fn, gw[g].at, bw[b].at))
		lines = append(lines, only("good", gw[:g], bw), only("bad", bw[:b], gw))
	}
	lines = append(lines, rest("good", gw[g+1:]), rest("bad", bw[b+1:]))
	for _, v := range Explain(bad) {
		if v.flow == badFlow && v.Class != ClassDelivered {
			lines = append(lines, fmt.Sprintf("the bad one: %s, %s", headline[v.Class], v.Cause), "mend: "+v.Fix)
		}
	}
	lines = slices.DeleteFunc(lines, func(l string) bool { return l == "" })
	_, err := fmt.Fprintln(w, strings.Join(lines, "\n"))
	return err
}

// align finds the longest sequence of functions that two ways have in common, and where its last one is in each; -1 if
// there is none.
func align(a, b []waypoint) (n, lastA, lastB int) {
	longest := make([][]int, len(a)+1)
	for i := range longest {
		longest[i] = make([]int, len(b)+1)
	}
	for i := range a {
		for j := range b {
			if a[i].fn == b[j].fn {
				longest[i+1][j+1] = longest[i][j] + 1
			} else {
				longest[i+1][j+1] = max(longest[i][j+1], longest[i+1][j])
			}
		}
	}
	i, j := len(a), len(b)
	n = longest[i][j]
	for i > 0 && j > 0 && a[i-1].fn != b[j-1].fn {
		if longest[i-1][j] >= longest[i][j-1] {
			i--
		} else {
			j--
		}
	}
	if n == 0 {
		return 0, -1, -1
	}
	return n, i - 1, j - 1
}

// only tells the steps that one way has and the other has nowhere.
func only(name string, w, other []waypoint) string {
	var fns []string
	for _, x := range w {
		if !slices.ContainsFunc(other, func(o waypoint) bool { return o.fn == x.fn }) {
			fns = append(fns, x.fn)
		}
	}
	if len(fns) == 0 {
		return ""
	}
	return fmt.Sprintf("before it only the %s one passed: %s", name, few(fns))
}

func rest(name string, w []waypoint) string {
	if len(w) == 0 {
		return fmt.Sprintf("there the %s one ends", name)
	}
	var fns []string
	for _, x := range w {
		fns = append(fns, x.fn)
	}
	return fmt.Sprintf("then the %s one goes on at %s: %s", name, w[0].at, few(fns))
}

// few writes the first of a list.
func few(list []string) string {
	const most = 8
	if len(list) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(list[:most], ", "), len(list)-most)
	}
	return strings.Join(list, ", ")
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
