package tracefs

import (
	"cmp"
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/fathom-trace/fathom/internal/feature"
	"github.com/fathom-trace/fathom/internal/sorting"
)

// aliases are LTTng's names of events that the kernel names differently (lttng-modules, include/instrumentation/events).
var aliases = map[string]Event{
	"skb_kfree": {"skb", "kfree_skb"}, "skb_consume": {"skb", "consume_skb"}, "skb_copy_datagram_iovec": {"skb", "skb_copy_datagram_iovec"},
	"net_if_receive_skb": {"net", "netif_receive_skb"}, "net_if_rx": {"net", "netif_rx"}, "net_dev_xmit": {"net", "net_dev_xmit"}, "net_dev_queue": {"net", "net_dev_queue"},
	"irq_softirq_entry": {"irq", "softirq_entry"}, "irq_softirq_exit": {"irq", "softirq_exit"}, "irq_softirq_raise": {"irq", "softirq_raise"},
	"kmem_mm_page_alloc": {"kmem", "mm_page_alloc"}, "kmem_mm_page_free": {"kmem", "mm_page_free"}, "kmem_kmalloc": {"kmem", "kmalloc"}, "kmem_kfree": {"kmem", "kfree"},
	"block_rq_issue": {"block", "block_rq_issue"}, "block_rq_complete": {"block", "block_rq_complete"},
	"napi_poll": {"napi", "napi_poll"}, "power_cpu_idle": {"power", "cpu_idle"}, "power_cpu_frequency": {"power", "cpu_frequency"},
	"random_get_random_bytes": {"random", "get_random_bytes"}, "rcu_utilization": {"rcu", "rcu_utilization"},
}

// String gives the event as people write it, "sched:sched_switch".
func (e Event) String() string { return e.System + ":" + e.Name }

// Matches says if a pattern means an event: "sched:*" and "sched/*" name both parts, "sched" a system or an event; names of
// LTTng's are understood, as skb_kfree for skb:kfree_skb.
func (e Event) Matches(pattern string) bool {
	if a, ok := aliases[pattern]; ok && a == e {
		return true
	}
	sys, name, both := strings.Cut(strings.Replace(pattern, "/", ":", 1), ":")
	if both {
		return glob(sys, e.System) && glob(name, e.Name)
	}
	return glob(sys, e.System) || glob(sys, e.Name)
}

func glob(pattern, s string) bool {
	ok, err := path.Match(pattern, s)
	return ok && err == nil
}

// NoEventError says that a pattern means no event of this kernel.
type NoEventError struct {
	Pattern string
	Near    []string // events with similar names, the nearest first
}

func (e *NoEventError) Error() string {
	if len(e.Near) == 0 {
		return fmt.Sprintf("no event matches %q", e.Pattern)
	}
	return fmt.Sprintf("no event matches %q; near are %s", e.Pattern, strings.Join(e.Near, " "))
}

// userEvents is the system of the events that programs make (Documentation/trace/user_events.rst, since 6.4), and userEventsFile where
// they make them.
const (
	userEvents     = "user_events"
	userEventsFile = "user_events_data"
)

// canHave tells if events of a pattern's system can come: a [feature.ErrUnsupported] where the kernel has no such system.
func (f FS) canHave(pattern string) error {
	sys, _, _ := strings.Cut(strings.Replace(pattern, "/", ":", 1), ":")
	if sys != userEvents {
		return nil
	}
	if _, err := os.Stat(f.path(userEventsFile)); err != nil {
		return feature.Unsupported("user_events (CONFIG_USER_EVENTS, since 6.4)", "stat "+f.path(userEventsFile), err)
	}
	return nil
}

// Select gives the events that a pattern means, as [Event.Matches] says, sorted. None is a *[NoEventError], or a
// [feature.ErrUnsupported] where the kernel can have none.
func (f FS) Select(pattern string) ([]Event, error) {
	if _, err := path.Match(pattern, ""); err != nil {
		return nil, fmt.Errorf("pattern %s: %w", pattern, err)
	}
	all, err := f.Events()
	if err != nil {
		return nil, err
	}
	var out []Event
	for _, e := range all {
		if e.Matches(pattern) {
			out = append(out, e)
		}
	}
	if len(out) == 0 {
		if err := f.canHave(pattern); err != nil {
			return nil, err
		}
		return nil, &NoEventError{pattern, nearest(all, pattern, 3)}
	}
	return out, nil
}

// nearest lists the n events that share most pairs of letters with a pattern.
func nearest(all []Event, pattern string, n int) (out []string) {
	want := pairs(pattern)
	type scored struct {
		name  string
		score int
	}
	var list []scored
	for _, e := range all {
		have := pairs(e.System + ":" + e.Name)
		common := 0
		for p := range want {
			if have[p] {
				common++
			}
		}
		if 2*common > len(want) {
			list = append(list, scored{e.System + ":" + e.Name, 4*common - len(have)})
		}
	}
	sorting.By(list, func(a, b scored) int { return cmp.Or(b.score-a.score, strings.Compare(a.name, b.name)) })
	for _, s := range list[:min(n, len(list))] {
		out = append(out, s.name)
	}
	return out
}

func pairs(s string) map[string]bool {
	out := map[string]bool{}
	for i := range len(s) - 1 {
		out[s[i:i+2]] = true
	}
	return out
}
