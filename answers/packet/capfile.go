package packet

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/wire/pcapng"
)

// Link types of files (LINKTYPE_… of the pcap registry).
const (
	linkEthernet = 1
	linkRaw      = 101
)

// PcapNG writes the packets that were kept, once for each event on their way, with what happened as comment: an interface
// for each device and namespace. bootToReal is what to add to an event's time to have ns since 1970.
func PcapNG(w io.Writer, r *Recording, vs []*Verdict, bootToReal int64) error {
	out, err := pcapng.NewWriter(w, pcapng.Section{OS: "Linux " + r.Kernel, Application: "fathom packet"})
	if err != nil {
		return err
	}
	all, verdicts := r.points(), shown(vs)
	ifaces := map[string]int{}
	for _, x := range all {
		h := x.hop
		if len(h.Bytes) == 0 {
			continue
		}
		link, data := uint16(linkRaw), h.Bytes
		before := min(int(h.L3), len(data)) // bytes of the link header
		if h.L2 {
			link = linkEthernet
		} else {
			data, before = data[before:], 0
		}
		name := fmt.Sprintf("%s/%s", r.NS(h.Netns), or(h.Dev, "-"))
		key := fmt.Sprint(link, name)
		i, ok := ifaces[key]
		if !ok {
			if i, err = out.Add(pcapng.Interface{Link: link, Name: name, Snaplen: 1 << 16}); err != nil {
				return err
			}
			ifaces[key] = i
		}
		comments := []string{fmt.Sprintf("%s in %s", h.Kind, or(h.Func, "?")), "path: " + strings.Join(h.Path, " < ")}
		if v := verdicts[x.packet]; v != nil && h.Kind == Drop {
			comments = append(comments, "LOST: "+v.Cause, "object: "+v.Culprit.String(), "mend: "+v.Fix)
		}
		k := pcapng.Packet{Interface: i, Time: int64(h.Time) + bootToReal, WireLen: max(int(h.Len), len(data), before+h.View.IPLen), Data: data, ID: x.packet.ID, Comments: comments}
		if err := out.Write(k); err != nil {
			return err
		}
	}
	return nil
}

// point is an event on the way of a packet that was kept.
type point struct {
	flow   *Flow
	packet *Packet
	hop    *Hop
}

// points are all of them, by time.
func (r *Recording) points() (all []point) {
	for _, f := range r.Flows {
		for _, p := range f.kept() {
			for _, h := range p.Hops {
				all = append(all, point{f, p, h})
			}
		}
	}
	sorting.Stable(all, func(a, b point) int { return int(int64(a.hop.Time) - int64(b.hop.Time)) })
	return all
}

// shown are the verdicts that a packet stands for.
func shown(vs []*Verdict) map[*Packet]*Verdict {
	out := map[*Packet]*Verdict{}
	for _, v := range vs {
		if v.sample != nil && out[v.sample] == nil {
			out[v.sample] = v
		}
	}
	return out
}

// kept are the packets of a flow that were kept, each once.
func (f *Flow) kept() []*Packet {
	out := slices.Clone(f.Sample)
	add := func(p *Packet) {
		if p != nil && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	for _, l := range f.Losses {
		add(l.Sample)
	}
	add(f.OpenSample)
	return out
}
