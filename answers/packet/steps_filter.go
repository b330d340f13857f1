package packet

import (
	"fmt"
	"strings"

	"github.com/fathom-trace/fathom/netstate"
)

// hooks are the places where netfilter looks, by the functions around them.
var hooks = []struct {
	name  string
	funcs []string
}{
	{"output", []string{"br_dev_xmit"}}, // of bridges these five, which are around those of IP
	{"forward", []string{"__br_forward", "br_forward", "maybe_deliver", "br_flood", "br_handle_frame_finish"}},
	{"postrouting", []string{"br_forward_finish", "br_dev_queue_push_xmit"}},
	{"input", []string{"br_pass_frame_up"}},
	{"prerouting", []string{"br_handle_frame"}},
	{"ingress", []string{"nf_hook_ingress", "nf_ingress"}},
	{"egress", []string{"nf_hook_egress", "__netif_receive_skb_egress"}},
	{"output", []string{"__ip_local_out", "ip_local_out", "__ip6_local_out", "ip6_local_out", "rawv6_sendmsg", "raw_sendmsg", "raw_send_hdrinc"}},
	{"postrouting", []string{"ip_output", "ip_mc_output", "ip6_output", "ip6_finish_output"}},
	{"forward", []string{"ip_forward", "ip6_forward", "br_nf_forward_ip", "ip_sublist_forward"}},
	{"input", []string{"ip_local_deliver", "ip6_input", "ip6_mc_input"}},
	{"prerouting", []string{"ip_rcv", "ipv6_rcv", "ip_sublist_rcv", "ip_list_rcv", "ipv6_list_rcv", "nf_hook_slow_list"}},
}

// hook says at which hook the packet was.
func (s *scene) hook() string {
	for _, p := range append([]string{s.loss.Func}, s.hop.Path...) {
		for _, h := range hooks {
			for _, f := range h.funcs {
				if p == f {
					return h.name
				}
			}
		}
		if p == "__netif_receive_skb_core" {
			return "ingress"
		}
		if p == "__dev_queue_xmit" {
			return "egress"
		}
	}
	// Where the callers were inlined into the stack's entry, the packet's way tells.
	switch {
	case s.loss.Netns == s.flow.Netns && len(s.pkt.Hops) > 0 && s.pkt.Hops[0].Kind == Drop:
		return "output"
	case s.route().Type == "local":
		return "input"
	}
	return "forward"
}

// netfilterDropped: a rule, the policy of a chain, or connection tracking.
func netfilterDropped(s *scene) *finding {
	if f := conntrackFull(s); f != nil {
		return f
	}
	hook := s.hook()
	if f := s.judge(hook); f != nil {
		return f
	}
	return &finding{culprit: Culprit{"kind": "netfilter", "netns": s.ns(), "hook": hook},
		cause: fmt.Sprintf("netfilter drops it at hook %s of %s", hook, s.ns()), fix: "nft -a list ruleset; iptables-save"}
}

// conntrackFull: there was no room for another connection (nf_conntrack_in in net/netfilter/nf_conntrack_core.c).
func conntrackFull(s *scene) *finding {
	if s.in("nft_do_chain", "ipt_do_table") {
		return nil
	}
	moved := s.rec.moved(s.loss.Netns, "nf_conntrack.drop") + s.rec.moved(s.loss.Netns, "nf_conntrack.early_drop")
	if moved == 0 {
		return nil
	}
	const key = "net.netfilter.nf_conntrack_max"
	v := ""
	if st := s.rec.State(uint32(s.rec.Init)); st != nil {
		v = st.Sysctls[key]
	}
	return &finding{culprit: Culprit{"kind": "sysctl", "netns": "init", "key": key, "value": v}, certain: true,
		cause: fmt.Sprintf("%s=%s is reached: the first packets of new flows are dropped", key, v), fix: "raise " + key}
}

// nftCulprit names a rule.
func nftCulprit(ns string, c *netstate.Chain, hook string, r *netstate.NFTRule) Culprit {
	out := Culprit{"kind": "nft", "netns": ns, "table": c.Family + " " + c.Table, "chain": c.Name}
	if hook != "" {
		out["hook"] = hook
	}
	if r != nil {
		out["rule"], out["handle"] = r.Text, r.Handle
		if r.Comment != "" {
			out["comment"] = r.Comment
		}
	}
	return out
}

// ruleWords says which rule it is.
func ruleWords(ns string, c *netstate.Chain, hook string, r *netstate.NFTRule) string {
	text := fmt.Sprintf("the nft rule '%s' in table %s %s chain %s", strings.TrimSpace(r.Text), c.Family, c.Table, c.Name)
	if hook != "" {
		text += " (hook " + hook + ")"
	}
	if r.Comment != "" {
		text += fmt.Sprintf(", \"%s\",", r.Comment)
	}
	return text + " of " + ns
}

// xfrmDropped: a policy of IPsec.
func xfrmDropped(s *scene) *finding {
	v := &s.hop.View
	dir := "in"
	switch {
	case s.in("__xfrm_route_forward", "ip_forward", "ip6_forward"):
		dir = "fwd"
	case s.in("xfrm_lookup", "xfrm_lookup_route", "xfrm_lookup_with_ifid") || s.hop.Type == Outgoing:
		dir = "out"
	}
	for _, p := range s.st.Policies {
		if p.Dir == dir && p.Src.Contains(v.Src.Addr()) && p.Dst.Contains(v.Dst.Addr()) && (p.Action == "block" || p.Tmpl > 0) {
			why := "block"
			if p.Action != "block" {
				why = "wants it protected, and it is not"
			}
			return &finding{culprit: Culprit{"kind": "xfrm", "netns": s.ns(), "dir": dir, "action": p.Action, "index": p.Index, "src": p.Src.String(), "dst": p.Dst.String()},
				certain: true, cause: fmt.Sprintf("the IPsec policy %v > %v dir %s of %s: %s", p.Src, p.Dst, dir, s.ns(), why),
				fix: fmt.Sprintf("ip xfrm policy delete index %d dir %s", p.Index, dir)}
		}
	}
	return &finding{culprit: Culprit{"kind": "xfrm", "netns": s.ns(), "dir": dir}, cause: "an IPsec policy refuses it", fix: "ip xfrm policy"}
}
