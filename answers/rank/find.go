package rank

import (
	"cmp"
	"slices"
	"strings"

	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/traceevent"
	"github.com/fathom-trace/fathom/traceevent/filter"
	"github.com/fathom-trace/fathom/tracefs"
)

// Proposal is an event that has to do with a topic.
type Proposal struct {
	Event  tracefs.Event
	Fields []string
	score  int
}

// topics are words that people say and the kernel abbreviates.
var topics = map[string][]string{
	"receive": {"rx", "rcv", "recv"}, "received": {"rx", "rcv", "recv"}, "send": {"tx", "xmit", "sendmsg"}, "transmit": {"tx", "xmit"},
	"packet": {"skb", "net", "napi", "xdp"}, "packets": {"skb", "net", "napi", "xdp"}, "network": {"net", "sock", "tcp", "udp", "skb"},
	"drop": {"kfree_skb", "drop", "lost"}, "lost": {"kfree_skb", "drop"}, "memory": {"kmem", "mm", "page", "oom", "kmalloc"},
	"allocation": {"alloc", "kmalloc"}, "allocate": {"alloc", "kmalloc"}, "disk": {"block", "bio", "scsi", "nvme"}, "io": {"block", "bio", "iomap"},
	"schedule": {"sched"}, "scheduler": {"sched"}, "wakeup": {"wakeup", "waking"}, "switch": {"switch"}, "interrupt": {"irq", "softirq", "ipi"},
	"lock": {"lock", "mutex", "contention"}, "syscall": {"syscalls", "sys_enter", "sys_exit"}, "process": {"sched_process", "task", "fork", "exec", "exit"},
	"file": {"filemap", "open", "ext4", "xfs", "writeback"}, "timer": {"timer", "hrtimer"}, "signal": {"signal"}, "work": {"workqueue"},
	"reset": {"reset", "rst"}, "retransmit": {"retransmit"}, "frequency": {"cpu_frequency", "power"}, "idle": {"cpu_idle"}, "migrate": {"migrate", "migration"},
}

// Find gives the events that have to do with all words, those that match best first. A word is found in an event's name,
// its system, or the names of its fields; format gives an event's description, nil if there is none.
func Find(events []tracefs.Event, words []string, format func(tracefs.Event) *traceevent.Format) []Proposal {
	var out []Proposal
	for _, e := range events {
		p := Proposal{Event: e}
		if f := format(e); f != nil {
			p.Fields = filter.Names(f)
		}
		all := true
		for _, w := range words {
			s := p.match(strings.ToLower(w))
			p.score += s
			all = all && s > 0
		}
		if all {
			out = append(out, p)
		}
	}
	sorting.Stable(out, func(a, b Proposal) int {
		return cmp.Or(b.score-a.score, len(a.Event.Name)-len(b.Event.Name), strings.Compare(a.Event.Name, b.Event.Name))
	})
	return out
}

// match says how well a word fits: a part of the name best, then the system, then a field.
func (p *Proposal) match(word string) (best int) {
	for i, w := range append([]string{word}, topics[word]...) {
		bonus := 0
		if i == 0 {
			bonus = 1
		}
		switch parts := strings.Split(p.Event.Name, "_"); {
		case slices.Contains(parts, w):
			best = max(best, 8+bonus)
		case strings.Contains(p.Event.Name, w) && len(w) > 2:
			best = max(best, 6+bonus)
		case p.Event.System == w:
			best = max(best, 4+bonus)
		case strings.Contains(p.Event.System, w) && len(w) > 2:
			best = max(best, 3+bonus)
		case slices.Contains(p.Fields, w):
			best = max(best, 1+bonus)
		}
	}
	return best
}
