package fault

import (
	"fmt"

	"github.com/fathom-trace/fathom/lab/fault/expect"
)

// drops says what event of skb:kfree_skb tells of the loss, on all kernels.
func (s *Scene) drops(function, reason string) {
	s.dropsSince("6.1", function, reason)
	if f, ok := since73[function]; ok {
		s.dropsSince("7.3", f, reason)
	}
}

// since73 are the functions that Linux 7.3 loses packets in where earlier ones did in these.
var since73 = map[string]string{"__udp4_lib_rcv": "udp_rcv", "__udp6_lib_rcv": "udpv6_rcv"}

// dropsSince says it of kernels from a release on, until the next one that is named.
func (s *Scene) dropsSince(release, function, reason string) {
	s.Answer.Drops[release] = append(s.Answer.Drops[release], expect.Event{Event: "kfree_skb", Function: function, Reason: reason, Count: 1})
}

// silent says that no event tells of it.
func (s *Scene) silent() { s.Answer.Drops["6.1"] = []expect.Event{} }

// blame names the object: its kind, the role of its namespace, and fields as pairs.
func (s *Scene) blame(kind, role string, fields ...any) {
	s.Answer.Culprit["kind"], s.Answer.Culprit["netns"] = kind, role
	for i := 0; i+1 < len(fields); i += 2 {
		v := fields[i+1]
		switch x := v.(type) {
		case int:
			v = float64(x) // as JSON has it
		case fmt.Stringer:
			v = x.String()
		}
		s.Answer.Culprit[fields[i].(string)] = v
	}
}

// at says where the loss happens, and what devices may be named for it; without it that is where the culprit is.
func (s *Scene) at(role string, devs ...string) {
	s.Answer.Netns = role
	if len(devs) > 0 {
		s.Answer.Devs[role] = devs
	}
}

// counter says that a counter moves by n at least.
func (s *Scene) counter(role, name string, n int) {
	s.Answer.Counters = append(s.Answer.Counters, expect.Counter{Netns: role, Name: name, Min: n})
}

// few draws a small number of packets.
func (s *Scene) few() int { return 3 + s.deck.IntN(6) }
