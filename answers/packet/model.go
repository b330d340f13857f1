package packet

import "slices"

// stage is a step of a path that people know, with the functions by which it is seen. Kernels inline and rename: one of
// them is enough, and a later stage that was seen proves those before it.
type stage struct {
	name  string
	funcs []string
}

// The paths of packets (Documentation/networking, net/ipv4/ip_input.c, ip_forward.c, ip_output.c, net/core/dev.c).
var (
	receive = []stage{
		{"the device", []string{"netif_rx", "netif_rx_internal", "netif_receive_skb", "napi_gro_receive", "gro_receive_skb", "__netif_receive_skb_core"}},
		{"generic XDP", nil},
		{"tc ingress", nil},
		{"ip_rcv", []string{"ip_rcv", "ip_rcv_core", "ipv6_rcv", "ip6_rcv_core", "ip_rcv_finish", "ip_rcv_finish_core", "ip6_rcv_finish"}},
		{"netfilter PREROUTING (defragmentation, conntrack, DNAT)", nil},
		{"routing (ip_rcv_finish)", []string{"ip_rcv_finish", "ip_rcv_finish_core", "ip6_rcv_finish", "ip_route_input_noref", "ip_error", "ip6_pkt_drop"}},
	}
	deliver = []stage{
		{"ip_local_deliver", []string{"ip_local_deliver", "ip6_input", "ip_local_deliver_finish", "ip6_input_finish"}},
		{"netfilter INPUT", nil},
		{"the protocol", []string{"ip_local_deliver_finish", "ip_protocol_deliver_rcu", "ip6_protocol_deliver_rcu", "__udp4_lib_rcv", "__udp6_lib_rcv", "udp_rcv", "udpv6_rcv", "tcp_v4_rcv", "tcp_v6_rcv", "icmp_rcv", "icmpv6_rcv", "raw_v4_input"}},
		{"the socket", []string{"udp_queue_rcv_one_skb", "udp_queue_rcv_skb", "udp_unicast_rcv_skb", "__udp_enqueue_schedule_skb", "tcp_v4_do_rcv", "tcp_v6_do_rcv", "tcp_rcv_established", "raw_rcv", "udpv6_queue_rcv_one_skb"}},
		{"the process", []string{"skb_copy_datagram_iter", "__skb_datagram_iter", "udp_recvmsg", "tcp_recvmsg", "tcp_recvmsg_locked"}},
	}
	forward = []stage{
		{"ip_forward", []string{"ip_forward", "ip6_forward", "ip_forward_finish"}},
		{"netfilter FORWARD", nil},
		{"ip_output of the next device", []string{"ip_forward_finish"}},
		{"netfilter POSTROUTING", nil},
		{"the queue of the next device", nil},
		{"the next device", nil},
	}
	send = []stage{
		{"ip_local_out", []string{"__ip_local_out", "ip_local_out", "ip_send_skb", "__ip_queue_xmit"}},
		{"netfilter OUTPUT", nil},
		{"ip_output", []string{"ip_output", "ip6_output", "ip_finish_output", "ip_finish_output2"}},
		{"netfilter POSTROUTING", nil},
		{"the neighbour", []string{"neigh_resolve_output", "neigh_hh_output", "__neigh_event_send", "neigh_invalidate", "neigh_event_send_probe"}},
		{"the queue of the device", []string{"__dev_queue_xmit"}},
		{"the device", []string{"dev_hard_start_xmit", "veth_xmit"}},
	}
)

// NotReached gives the steps that should have come next, in the namespace where the packet was lost, and did not.
func NotReached(r *Recording, v *Verdict) (out []string) {
	if v.loss == nil || v.Class == ClassFalseLoss || !v.loss.At.View.IP() {
		return nil
	}
	seen := map[string]bool{v.loss.Func: true}
	for _, f := range v.loss.At.Path {
		if !elsewhere(v.loss.At, f) {
			seen[f] = true
		}
	}
	path := pathModel(r, v)
	last := -1
	for i, st := range path {
		if slices.ContainsFunc(st.funcs, func(f string) bool { return seen[f] }) {
			last = i
		}
	}
	if last < 0 {
		last = 0
	}
	for _, st := range path[min(len(path), last+1):] {
		out = append(out, st.name)
	}
	return out
}

// pathModel is the way that the packet should have gone where it was lost.
func pathModel(r *Recording, v *Verdict) []stage {
	l := v.loss
	if !arriving(l.At) {
		return send
	}
	s := &scene{rec: r, flow: v.flow, loss: l, hop: l.At, pkt: v.sample, st: r.State(l.Netns)}
	if s.st != nil {
		if d := s.route(); d.Type == "unicast" && s.forwards() {
			return slices.Concat(receive, forward)
		}
	}
	return slices.Concat(receive, deliver)
}

// arriving says if a packet was on its way up or through, not sent from here: the innermost function that tells decides.
func arriving(h *Hop) bool {
	for _, f := range append([]string{h.Func}, h.Path...) {
		for i, way := range [][]stage{receive, deliver, forward, send} {
			if slices.ContainsFunc(way, func(st stage) bool { return slices.Contains(st.funcs, f) }) {
				return i < 3
			}
		}
		if f == "process_backlog" || f == "__napi_poll" {
			return true
		}
	}
	return h.Type != Outgoing && h.IIF != 0
}
