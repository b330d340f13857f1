package packet

import (
	"fmt"
	"strings"

	"github.com/fathom-trace/fathom/netstate"
)

// judge names the rules that may have dropped a packet at a hook, the likeliest first.
func (r *Recording) judge(s *scene, hook string) (out []*finding) {
	before := map[string]uint64{}
	if b := r.Before[uint64(s.loss.Netns)]; b != nil {
		for _, c := range b.Chains {
			for _, x := range c.Rules {
				before[fmt.Sprint(c.Family, c.Table, c.Name, x.Handle)] = x.Packets
			}
		}
	}
	var moved, other []*finding
	for i := range s.st.Chains {
		c := &s.st.Chains[i]
		for j := range c.Rules {
			x := &c.Rules[j]
			if x.Verdict != "drop" && x.Verdict != "reject" || c.Hook != "" && c.Hook != hook {
				continue
			}
			f := &finding{culprit: nftCulprit(s.ns(), c, c.Hook, x), cause: ruleWords(s.ns(), c, c.Hook, x), fix: "remove or narrow the rule"}
			if x.Packets > before[fmt.Sprint(c.Family, c.Table, c.Name, x.Handle)] {
				f.certain = true
				moved = append(moved, f)
			} else {
				other = append(other, f)
			}
		}
	}
	out = append(moved, other...)
	for i := range s.st.Chains {
		if c := &s.st.Chains[i]; c.Hook == hook && c.Policy == "drop" {
			out = append(out, &finding{culprit: nftCulprit(s.ns(), c, hook, nil), fix: "add a rule that accepts it",
				cause: fmt.Sprintf("the policy of chain %s in table %s %s (hook %s) of %s is drop, and no rule accepts it", c.Name, c.Family, c.Table, hook, s.ns())})
			out[len(out)-1].culprit["policy"] = "drop"
		}
	}
	return out
}

// rewriter names the rule that changed the addresses of packets.
func (r *Recording) rewriter(w Rewrite) (Culprit, string) {
	st := r.State(w.Netns)
	if st == nil {
		return Culprit{"kind": "nft", "netns": r.NS(w.Netns)}, ""
	}
	want := w.To.Dst
	if w.From.Dst == w.To.Dst {
		want = w.To.Src
	}
	var any *netstate.Chain
	var anyRule *netstate.NFTRule
	for i := range st.Chains {
		c := &st.Chains[i]
		for j := range c.Rules {
			x := &c.Rules[j]
			switch x.Verdict {
			case "dnat", "snat", "masquerade", "redirect", "set":
			default:
				continue
			}
			if strings.Contains(x.Text, want.Addr().String()) {
				return nftCulprit(r.NS(w.Netns), c, c.Hook, x), ruleWords(r.NS(w.Netns), c, c.Hook, x)
			}
			any, anyRule = c, x
		}
	}
	if any != nil {
		return nftCulprit(r.NS(w.Netns), any, any.Hook, anyRule), ruleWords(r.NS(w.Netns), any, any.Hook, anyRule)
	}
	return Culprit{"kind": "nft", "netns": r.NS(w.Netns)}, ""
}
