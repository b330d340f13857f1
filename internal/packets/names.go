package packets

import (
	"regexp"
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

// keeper says which refused system calls the filter would have let through: what they would have sent is made up of what
// is known of it.
func keeper(expr string) (func(packet.Tuple) bool, error) {
	if expr == "" {
		return nil, nil
	}
	f, err := filter.Compile(expr, filter.Options{Link: filter.Raw})
	if err != nil {
		return func(packet.Tuple) bool { return false }, nil // of link headers: no system call of ours has any
	}
	return func(t packet.Tuple) bool {
		pkt := t.Packet()
		return pkt == nil || f.Match(pkt, len(pkt))
	}, nil
}
