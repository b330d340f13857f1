package nic

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/internal/timeline"
)

// WriteTimeline draws the packets that were kept, with a process for each CPU that received them and in it as many lines as
// there were packets at a time: a packet is a slice, its stages are slices in it.
func (r *LatencyResult) WriteTimeline(w io.Writer) error {
	t := timeline.New(w)
	kept := append([]Late{}, r.Kept...)
	sorting.Stable(kept, func(a, b Late) int { return cmp.Or(cmp.Compare(a.CPU, b.CPU), cmp.Compare(a.begin(), b.begin())) })
	lanes := map[int][]uint64{} // by CPU: when each line is free again
	for i := range kept {
		p := &kept[i]
		if lanes[p.CPU] == nil {
			t.Process(p.CPU+1, fmt.Sprintf("CPU %d", p.CPU))
		}
		lane := 0
		for lane < len(lanes[p.CPU]) && lanes[p.CPU][lane] > p.begin() {
			lane++
		}
		if lane == len(lanes[p.CPU]) {
			lanes[p.CPU] = append(lanes[p.CPU], 0)
			t.Thread(p.CPU+1, uint64(lane+1), fmt.Sprintf("packets, line %d", lane+1))
		}
		lanes[p.CPU][lane] = p.Read
		e := timeline.Event{Phase: "X", PID: p.CPU + 1, TID: uint64(lane + 1)}
		slice := func(name string, from, took uint64, args map[string]string) {
			e.Name, e.TS, e.Dur, e.Args = name, timeline.Stamp(from), timeline.Stamp(took), args
			t.Put(e)
		}
		slice(duration(p.Whole())+strings.TrimPrefix(r.irqName(p.IRQ, p.IRQAt), ","), p.begin(), p.Whole(), map[string]string{
			"reader": fmt.Sprintf("%s[%d]", p.Comm, p.PID), "ifindex": fmt.Sprint(p.Index), "why": strings.Join(p.Why(r.irqWords, r.idleWords), "; "),
		})
		at := p.begin()
		for s, ns := range p.Stages() {
			if ns > 0 {
				slice(StageNames[s], at, ns, nil)
			}
			at += ns
		}
	}
	return t.Close()
}
