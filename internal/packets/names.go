package packets

import (
	"regexp"
	"slices"
	"strings"

	"github.com/fathom-trace/fathom/answers/packet"
	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/kernel/live"
	"github.com/fathom-trace/fathom/wire/filter"
)

// names names functions and drop reasons of the running kernel. What was named once is remembered: the same few hundred
// addresses come again and again.
type names struct {
	live    *live.Live
	funcs   map[uint64]string
	reasons map[int32]string
}

func newNames(l *live.Live) *names {
	n := &names{live: l, funcs: map[uint64]string{}, reasons: map[int32]string{}}
	types, err := l.Types()
	if err != nil {
		return n
	}
	t, err := types.ByName(ctype.KindEnum, "skb_drop_reason")
	if err != nil {
		return n // before Linux 5.17
	}
	if e, ok := t.(*ctype.Enum); ok {
		for _, v := range e.Values {
			n.reasons[int32(v.Value)] = strings.TrimPrefix(v.Name, "SKB_DROP_REASON_")
		}
	}
	return n
}

// Reason implements packet.Namer.
func (n *names) Reason(r int32) string { return n.reasons[r] }

// variant is what compilers add to the names of functions of which they made another.
var variant = regexp.MustCompile(`\.(constprop|isra|part|cold|llvm)\b.*$`)

// Function implements packet.Namer. The addresses are those behind calls.
func (n *names) Function(addr uint64) string {
	name, ok := n.funcs[addr]
	if !ok {
		name, _, _ = n.live.Symbolise(addr - 1)
		name = variant.ReplaceAllString(name, "")
		n.funcs[addr] = name
	}
	return name
}

// wanted gives what says if packets are wanted by their first event, and if refused system calls are by what they would have
// sent. The programs in the kernel have chosen already, but an address that they follow may have become another packet's.
func wanted(o *Options, netns []uint32) (want func(*packet.Event) bool, keep func(packet.Tuple) bool) {
	l2, _ := filter.Compile(o.Filter, filter.Options{Link: filter.Ethernet, Metadata: true})
	l3, _ := filter.Compile(o.Filter, filter.Options{Link: filter.Raw, Metadata: true}) // nil if it asks for link headers
	matches := func(f *filter.Filter, e *packet.Event) bool {
		return f != nil && f.MatchMeta(e.Bytes, len(e.Bytes), filter.Meta{Tagged: e.Tagged, TCI: e.VLAN, Type: e.Type, Ifindex: e.Ifindex})
	}
	want = func(e *packet.Event) bool {
		switch {
		case len(netns) > 0 && !slices.Contains(netns, e.Netns), len(o.Devs) > 0 && !slices.Contains(o.Devs, e.Dev),
			o.Mark != nil && e.Mark != *o.Mark, len(o.PIDs) > 0 && !slices.Contains(o.PIDs, e.PID), o.Comm != "" && e.Comm != o.Comm:
			return false
		case o.Filter == "":
			return true
		case e.L2:
			return matches(l2, e)
		}
		return matches(l3, e)
	}
	keep = func(t packet.Tuple) bool {
		pkt := t.Packet()
		return o.Filter == "" || pkt == nil || l3 != nil && l3.Match(pkt, len(pkt))
	}
	return want, keep
}
