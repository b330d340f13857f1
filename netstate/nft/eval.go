package nft

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/fathom-trace/fathom/internal/sorting"
)

// Step is a rule that decided, or might have, or changed the packet. Without a rule it is the chain's policy.
type Step struct {
	Chain   *Chain
	Rule    *Rule  // nil: the policy of Chain
	Verdict string // "accept", "drop", "reject", "queue", "set", "dnat", …
	To      string // of what is written: "10.77.2.2:9"
	Unknown string // what would have to be known to tell whether it applies: "limit rate over 1/minute", "ct state"; "" if it does
}

// Counter is the name of the step's own counter in a state, "" if it has none: "nft.inet.fw.c.4.packets".
func (s Step) Counter() string {
	if s.Rule == nil || !s.Rule.Counts {
		return ""
	}
	return fmt.Sprintf("nft.%s.%s.%s.%d.packets", s.Chain.Family, s.Chain.Table, s.Chain.Name, s.Rule.Handle)
}

// drops reports whether the step would have dropped the packet.
func (s Step) drops() bool { return s.Verdict == "drop" || s.Verdict == "reject" }

// Outcome is what the chains of a hook do with a packet.
type Outcome struct {
	Verdict string // "accept", "drop", "reject", "queue", "stolen"; what holds if none of Maybe applies
	By      *Step  // what decided; nil if no rule and no policy did: nothing is hooked there
	Maybe   []Step // what would have decided before, in order, if what is unknown were so
	Changes []Step // what rewrote the packet, in order
	Trail   []Step // every rule that matched or at least counted, in order; those that may have, with what is unknown
	Packet  *Packet
}

// Droppers are all steps that can have dropped the packet, in order.
func (o Outcome) Droppers() []Step {
	var out []Step
	for _, s := range o.Maybe {
		if s.drops() {
			out = append(out, s)
		}
	}
	if o.By != nil && o.By.drops() {
		out = append(out, *o.By)
	}
	return out
}

// Dropper says which step dropped a packet that is known to have been dropped in the hook. Where several can have done it,
// counters that moved meanwhile decide (see Diff of package netstate), then the one that certainly applies, if it is the
// only one without a counter. ok is false if that does not suffice; the candidates are [Outcome.Droppers].
func (o Outcome) Dropper(moved map[string]int64) (Step, bool) {
	all := o.Droppers()
	if len(all) == 1 {
		return all[0], true
	}
	var with, silent []Step
	for _, s := range all {
		switch name := s.Counter(); {
		case name == "":
			silent = append(silent, s)
		case moved[name] > 0:
			with = append(with, s)
		}
	}
	switch {
	case len(with) == 1:
		return with[0], true
	case len(with) > 1:
		return with[0], false
	case len(silent) == 1:
		return silent[0], true
	}
	return Step{}, false
}

// Bounds of an evaluation: nftables allow 16 jumps, and validate that rules do not loop; a ruleset out of a file may.
const (
	maxDepth = 16
	maxSteps = 1 << 20
)

// eval is one run of a packet through a hook.
type eval struct {
	set   *Ruleset
	pkt   *Packet
	hook  string
	out   *Outcome
	steps int
}

// Eval runs a packet through the base chains of a hook ("prerouting", "input", …; "ingress" and "egress" of a device), in
// the order of their priorities, as the kernel would: an accept goes on with the next chain, a drop ends. The packet is not
// changed; Outcome.Packet is a copy as it is afterwards.
func (s *Ruleset) Eval(p Packet, hook string) Outcome {
	e := &eval{set: s, pkt: p.clone(), hook: hook, out: &Outcome{Verdict: "accept"}}
	e.out.Packet = e.pkt
	for _, c := range s.hooked(e.pkt, hook) {
		if c.Type == "nat" && p.CtState != "" && p.CtState != "new" {
			continue // only the first packet of a connection comes here
		}
		v := e.chain(c, 0, "")
		step := Step{Chain: cmp.Or(v.chain, c), Verdict: v.verdict, Rule: v.rule}
		if v.verdict == "" {
			step.Verdict = c.Policy
		}
		e.out.By, e.out.Verdict = &step, step.Verdict
		if step.Verdict != "accept" {
			break
		}
	}
	return *e.out
}

// hooked are the base chains that see a packet in a hook, by priority.
func (s *Ruleset) hooked(p *Packet, hook string) []*Chain {
	var out []*Chain
	for i := range s.Chains {
		c := &s.Chains[i]
		if c.Hook != hook || c.Dormant {
			continue
		}
		ok := false
		switch proto := p.proto(); c.Family {
		case "ip":
			ok = proto == etherIP && !p.Bridged
		case "ip6":
			ok = proto == etherIP6 && !p.Bridged
		case "inet":
			ok = (proto == etherIP || proto == etherIP6) && !p.Bridged
			if hook == "ingress" {
				ok = slices.Contains(c.Devs, p.IIFName)
			}
		case "arp":
			ok = proto == etherARP
		case "bridge":
			ok = p.Bridged
		case "netdev":
			dev := p.IIFName
			if hook == "egress" {
				dev = p.OIFName
			}
			ok = slices.Contains(c.Devs, dev)
		}
		if ok {
			out = append(out, c)
		}
	}
	sorting.Stable(out, func(a, b *Chain) int { return cmp.Compare(a.Priority, b.Priority) })
	return out
}

// decision is how a chain ended: with a verdict, or by returning. In a chain that is not certainly reached verdicts are only
// noted; ended says that one would have been final there.
type decision struct {
	verdict string
	chain   *Chain // of rule: the hook's own, or one that was jumped to
	rule    *Rule
	ended   bool
}

// chain runs a chain. unknown, if it is not certain that it is reached, says why not.
func (e *eval) chain(c *Chain, depth int, unknown string) decision {
	left := false // the packet may have left the chain before
	for i := range c.Rules {
		if e.steps++; e.steps > maxSteps || depth > maxDepth {
			break
		}
		rule := &c.Rules[i]
		m := e.rule(c, rule, unknown)
		why := cmp.Or(unknown, m.unknown)
		if m.match != no || m.counted {
			e.out.Trail = append(e.out.Trail, Step{Chain: c, Rule: rule, Verdict: m.verdict, Unknown: why})
		}
		if m.match == no {
			continue
		}
		switch m.verdict {
		case "", "continue", "break":
		case "jump", "goto":
			d := e.jump(c, m.target, depth, why)
			if d.verdict != "" {
				return d
			}
			if d.ended && m.match == yes {
				return decision{ended: !left}
			}
			if m.verdict == "goto" {
				if m.match == yes {
					return decision{}
				}
				unknown, left = why, true
			}
		case "return":
			if m.match == yes {
				return decision{}
			}
			unknown, left = why, true // what follows depends on it
		default:
			if why == "" {
				return decision{m.verdict, c, rule, true}
			}
			e.out.Maybe = append(e.out.Maybe, Step{Chain: c, Rule: rule, Verdict: m.verdict, Unknown: why})
			if m.match == yes {
				return decision{ended: !left}
			}
		}
	}
	return decision{}
}

func (e *eval) jump(from *Chain, target string, depth int, why string) decision {
	for i := range e.set.Chains {
		if c := &e.set.Chains[i]; c.Name == target && c.Table == from.Table && c.Family == from.Family {
			return e.chain(c, depth+1, why)
		}
	}
	return decision{}
}
