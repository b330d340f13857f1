package packet

import (
	"fmt"
	"strings"

	"github.com/fathom-trace/fathom/netstate"
	"github.com/fathom-trace/fathom/netstate/nft"
)

// asSeen is a packet as rules of a namespace see it at an event.
func (s *scene) asSeen(h *Hop, hook string) nft.Packet {
	p := nft.Packet{Proto: h.View.Ether, Mark: h.Mark, Data: h.View.pkt}
	if h.View.HasMAC {
		p.Link = h.Bytes[:14]
	}
	in, out := int(h.IIF), 0
	switch hook {
	case "output", "postrouting", "egress":
		in, out = 0, int(s.route().Link)
		if hook == "egress" {
			out = int(h.Ifindex)
		}
	case "forward":
		out = s.route().Link
		fallthrough
	default:
		if l, ok := s.st.LinkByIndex(int(h.Ifindex)); ok {
			in = l.Index
		}
	}
	p.IIF, p.OIF, p.IIFName, p.OIFName = in, out, s.st.LinkName(in), s.st.LinkName(out)
	t := h.Type
	p.PktType = &t
	for _, f := range append([]string{s.loss.Func}, h.Path...) {
		p.Bridged = p.Bridged || strings.HasPrefix(f, "br_") || strings.HasPrefix(f, "__br_")
	}
	if p.Bridged && hook == "forward" { // the packet has the device that it is to leave by (__br_forward)
		in, out = int(h.IIF), int(h.Ifindex)
		p.IIF, p.OIF, p.IIFName, p.OIFName = in, out, s.st.LinkName(in), s.st.LinkName(out)
	}
	return p
}

// since gives the counters that moved in the namespace of the loss.
func (s *scene) since() map[string]int64 {
	b := s.rec.Before[s.st.NS.Inode]
	if b == nil {
		return nil
	}
	return netstate.Diff(b, s.st)
}

// judge names the rule that dropped a packet at a hook: nil if none did.
func (s *scene) judge(hook string) *finding {
	o := s.st.Firewall().Eval(s.asSeen(s.hop, hook), hook)
	step, sure := o.Dropper(s.since())
	if !sure {
		all := o.Droppers()
		if len(all) == 0 {
			return nil
		}
		step = all[0]
	}
	c := nftCulprit(s.ns(), step.Chain, hook, step.Rule)
	if step.Rule == nil {
		c["policy"] = "drop"
		return &finding{culprit: c, certain: sure, fix: "add a rule that accepts it",
			cause: fmt.Sprintf("the policy of chain %s in table %s %s (hook %s) of %s is drop, and no rule accepts it", step.Chain.Name, step.Chain.Family, step.Chain.Table, hook, s.ns())}
	}
	what := "drops it"
	if step.Verdict == "reject" {
		what = "rejects it, with an answer"
	}
	f := &finding{culprit: c, certain: sure, cause: ruleWords(s.ns(), step.Chain, hook, step.Rule) + " " + what, fix: "remove or narrow the rule"}
	if strings.Contains(step.Rule.Text, "limit rate") {
		f.fix = "raise the limit"
	}
	return f
}

// rewriter names the rule that changed the addresses of packets, and says which it is; "" if none is known.
func (r *Recording) rewriter(w Rewrite) (Culprit, string) {
	ns := r.NS(w.Netns)
	st := r.State(w.Netns)
	if st == nil {
		return Culprit{"kind": "nft", "netns": ns}, ""
	}
	want := w.To.Dst
	if w.From.Dst == w.To.Dst {
		want = w.To.Src
	}
	if w.Before != nil {
		s := &scene{rec: r, st: st, loss: &Loss{Netns: w.Netns, Ifidx: w.Before.Ifindex}, hop: w.Before}
		for _, hook := range []string{"ingress", "prerouting", "output", "input", "postrouting"} {
			for _, c := range st.Firewall().Eval(s.asSeen(w.Before, hook), hook).Changes {
				if c.Rule != nil && strings.Contains(c.To, want.Addr().String()) {
					return nftCulprit(ns, c.Chain, hook, c.Rule), ruleWords(ns, c.Chain, hook, c.Rule)
				}
			}
		}
	}
	for i := range st.Chains {
		c := &st.Chains[i]
		for j := range c.Rules {
			if x := &c.Rules[j]; rewrites[x.Verdict] && strings.Contains(x.Text, want.Addr().String()) {
				return nftCulprit(ns, c, c.Hook, x), ruleWords(ns, c, c.Hook, x)
			}
		}
	}
	return Culprit{"kind": "nft", "netns": ns}, ""
}

// rewrites are the verdicts of rules that change packets.
var rewrites = map[string]bool{"dnat": true, "snat": true, "masquerade": true, "redirect": true, "set": true}
