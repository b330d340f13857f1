package packet

import "strings"

// plumbing are functions that every stack has, of tracing and of freeing: they say nothing about a packet.
var plumbing = set(`
	bpf_dispatcher_xdp bpf_dispatcher_xdp_func bpf_trace_run1 bpf_trace_run2 bpf_trace_run3 bpf_trace_run4 bpf_trace_run5
	bpf_trace_run6 bpf_trace_run7 __bpf_trace_kfree_skb __traceiter_kfree_skb __traceiter_consume_skb __bpf_trace_consume_skb
	__traceiter_net_dev_queue __traceiter_net_dev_start_xmit __traceiter_netif_receive_skb __traceiter_netif_rx
	__traceiter_netif_receive_skb_entry __traceiter_napi_gro_receive_entry __traceiter_skb_copy_datagram_iovec
	__traceiter_qdisc_enqueue __traceiter_qdisc_dequeue __bpf_trace_net_dev_template __bpf_trace_net_dev_start_xmit
	sk_skb_reason_drop kfree_skb_reason kfree_skb kfree_skb_list_reason consume_skb skb_release_data __kfree_skb
	__sk_skb_reason_drop kfree_skb_list bpf_prog_run trace_call_bpf
`)

// entered are functions with which the kernel begins: what is further out is not about packets.
var entered = set(`
	do_syscall_64 el0_svc entry_SYSCALL_64_after_hwframe invoke_syscall ksys_write vfs_write __x64_sys_sendto __x64_sys_sendmsg
	__x64_sys_sendmmsg __x64_sys_connect __x64_sys_write __x64_sys_recvfrom __x64_sys_recvmsg __sys_sendto __sys_sendmsg
`)

// deferred says if a function runs softirqs: what is done there is not done for the task that it interrupts.
func deferred(f string) bool { return f == "handle_softirqs" || f == "__do_softirq" }

// repeating are functions that send segments of TCP again (net/ipv4/tcp_output.c, tcp_timer.c).
var repeating = set(`
	tcp_retransmit_skb __tcp_retransmit_skb tcp_retransmit_timer tcp_xmit_retransmit_queue tcp_send_loss_probe
	tcp_write_timer_handler tcp_write_timer tcp_rtx_synack inet_rtx_syn_ack reqsk_timer_handler
`)

// takers are functions that take packets because they are for them: what they consume was delivered.
var takers = set(`
	skb_consume_udp icmp_rcv icmpv6_rcv ndisc_rcv arp_process arp_rcv igmp_rcv tcp_v4_rcv tcp_v6_rcv tcp_rcv_established
	tcp_rcv_state_process tcp_data_queue udp_recvmsg udpv6_recvmsg raw_recvmsg rawv6_recvmsg packet_recvmsg ping_recvmsg
	skb_free_datagram __skb_free_datagram_locked unix_dgram_recvmsg igmp6_event_query mld_rcv tun_do_read tap_do_read
	xsk_generic_rcv xsk_generic_xmit ip_mr_input gre_rcv esp_input llc_rcv stp_rcv br_stp_rcv br_handle_frame_finish
	tcp_recvmsg_locked sk_eat_skb icmp_echo icmp_unreach icmp_redirect igmp_heard_query
`)

func set(words string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(words) {
		m[w] = true
	}
	return m
}

// internal says if a function is of tracing or freeing. Programs and trampolines of BPF have names that begin alike.
func internal(name string) bool {
	return plumbing[name] || strings.HasPrefix(name, "bpf_prog_") || strings.HasPrefix(name, "bpf_trampoline") ||
		strings.HasPrefix(name, "__bpf_trace_") || strings.HasPrefix(name, "__traceiter_")
}
