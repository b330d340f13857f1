package packet

import (
	"maps"
	"slices"
)

// Lane is a part of a packet's way: one device of one namespace, with the functions that had it there, in order.
type Lane struct {
	Netns string   `json:"netns"`
	Dev   string   `json:"dev"`
	Funcs []string `json:"functions"`
	Start uint64   `json:"start"` // ns since boot
	Since uint64   `json:"since"` // ns since the packet was first seen
	Drop  bool     `json:"drop,omitempty"`
	Kinds []Kind   `json:"events"`
}

// Lanes lays the way of a packet out by place.
func Lanes(r *Recording, p *Packet) (out []Lane) {
	for _, h := range p.Hops {
		ns, dev := r.NS(h.Netns), h.Dev
		n := len(out)
		if dev == "" && n > 0 || h.Kind == Drop && h.Ifindex == 0 && n > 0 {
			ns, dev = out[n-1].Netns, out[n-1].Dev
		}
		if n == 0 || out[n-1].Netns != ns || out[n-1].Dev != dev {
			out = append(out, Lane{Netns: ns, Dev: dev, Start: h.Time, Since: h.Time - p.Hops[0].Time})
			n++
		}
		l := &out[n-1]
		l.Kinds = append(l.Kinds, h.Kind)
		l.Drop = l.Drop || h.Kind == Drop
		for _, f := range slices.Backward(h.Path) { // the outermost first
			if entered[f] || scheduling[f] || elsewhere(h, f) {
				continue
			}
			if slices.Contains(l.Funcs, f) || n > 1 && slices.Contains(out[n-2].Funcs, f) {
				continue // a device's other end is called from this one
			}
			l.Funcs = append(l.Funcs, f)
		}
		if h.Func != "" && !slices.Contains(l.Funcs, h.Func) {
			l.Funcs = append(l.Funcs, h.Func)
		}
	}
	return out
}

// elsewhere says if a function further out on the stack had the packet in another place: softirqs run on top of whatever
// sent last.
func elsewhere(h *Hop, f string) bool {
	at := slices.Index(h.Path, "process_backlog")
	if at < 0 {
		at = slices.Index(h.Path, "__napi_poll")
	}
	if h.Kind == RxQueue || h.Kind == RxEntry { // called by the driver of the other end, which is called by what sent
		if x := slices.Index(h.Path, "dev_hard_start_xmit"); x >= 0 && (at < 0 || x < at) {
			at = x
		}
	}
	return at >= 0 && slices.Index(h.Path, f) > at
}

// scheduling are functions that run the network's work, and no part of it.
var scheduling = set(`
	handle_softirqs __do_softirq do_softirq do_softirq.part.0 __local_bh_enable_ip net_rx_action __napi_poll run_ksoftirqd
	smpboot_thread_fn kthread ret_from_fork ret_from_fork_asm irq_exit_rcu __irq_exit_rcu common_interrupt net_tx_action
	asm_common_interrupt sysvec_apic_timer_interrupt asm_sysvec_apic_timer_interrupt call_timer_fn run_timer_softirq
	__run_timers worker_thread process_one_work sock_write_iter sock_sendmsg __sock_sendmsg ____sys_sendmsg ___sys_sendmsg
	__sys_sendmmsg new_sync_write new_sync_read vfs_read ksys_read sock_read_iter sock_recvmsg x64_sys_call __sys_connect
	inet_stream_connect __inet_stream_connect __sys_recvfrom __sys_recvmsg ___sys_recvmsg ____sys_recvmsg run_timer_base
	__hrtimer_run_queues hrtimer_run_softirq sysvec_call_function_single asm_sysvec_call_function_single rest_init
	start_kernel cpu_startup_entry do_idle default_idle_call arch_cpu_idle default_idle secondary_startup_64_no_verify
`)

// landmark functions are worth showing without -v: each is a place that people know.
var landmark = set(`
	udp_sendmsg udpv6_sendmsg tcp_sendmsg tcp_v4_connect tcp_v6_connect raw_sendmsg rawv6_sendmsg packet_sendmsg icmp_reply
	__icmp_send icmp6_send __ip_local_out ip_local_out ip_output ip6_output ip_forward ip6_forward __dev_queue_xmit
	dev_hard_start_xmit veth_xmit netif_rx_internal netif_receive_skb __netif_receive_skb_core do_xdp_generic ip_rcv ip_rcv_core
	ip_rcv_finish_core ip_rcv_finish ipv6_rcv ip6_rcv_core ip6_rcv_finish ip_local_deliver ip6_input ip_local_deliver_finish
	__udp4_lib_rcv __udp6_lib_rcv udp_queue_rcv_one_skb tcp_v4_rcv tcp_v6_rcv icmp_rcv icmpv6_rcv ping_rcv arp_rcv arp_process
	br_handle_frame br_forward br_flood br_allowed_ingress br_dev_xmit nf_hook_slow nft_do_chain ipt_do_table ip_error
	udp_recvmsg tcp_recvmsg raw_recvmsg packet_rcv tpacket_rcv neigh_resolve_output __neigh_event_send neigh_invalidate
	vxlan_xmit vxlan_rcv ip_tunnel_xmit gre_rcv enqueue_to_backlog process_backlog xsk_generic_rcv tun_net_xmit
	ip_expire ip_defrag nf_conntrack_in sch_handle_ingress tcf_classify qdisc_drop tbf_enqueue netem_enqueue
	skb_copy_datagram_iter __skb_datagram_iter ndisc_rcv igmp_rcv ip_mc_input
`)

// compiledInto says which function a landmark is part of in kernels that do not have it by itself (net/ipv4/udp.c, net/ipv6/udp.c,
// Linux 7.3): that is the landmark there.
var compiledInto = map[string]string{"__udp4_lib_rcv": "udp_rcv", "__udp6_lib_rcv": "udpv6_rcv"}

// CompiledInto gives the function to watch instead of one of [Landmarks] that a kernel has not got, "" if there is none.
func CompiledInto(landmark string) string { return compiledInto[landmark] }

// Landmarks are the functions worth watching where the kernel lets functions be watched.
func Landmarks() []string { return slices.Sorted(maps.Keys(landmark)) }

func landmarks(fns []string) (out []string) {
	for _, f := range fns {
		if landmark[f] || standsFor(f, fns) {
			out = append(out, f)
		}
	}
	if len(out) == 0 && len(fns) > 0 {
		return fns[len(fns)-1:]
	}
	if last := fns[max(0, len(fns)-1):]; len(last) > 0 && !slices.Contains(out, last[0]) {
		out = append(out, last[0])
	}
	return out
}

// standsFor says if a function is one that a landmark was compiled into, and that is not among the others.
func standsFor(fn string, fns []string) bool {
	for l, into := range compiledInto {
		if into == fn {
			return !slices.Contains(fns, l)
		}
	}
	return false
}
