package packet

// steps are the decisions at which the kernel loses packets, those first that say most. A row is asked if its place in the
// code or its reason fits; it may find that it was something else. Functions are matched by the path, which has different
// parts of it inlined on each kernel: rows name callers as well as the function itself.
var steps = []step{
	{"reply to ping", func(s *scene) bool {
		_, reply := s.hop.View.echo()
		return reply && s.reason("NO_SOCKET", "NOT_SPECIFIED")
	}, pingReply},
	{"copy", isCopy, copyDropped},
	{"bridge protocol", func(s *scene) bool { return s.at("stp_pdu_rcv", "br_stp_rcv", "llc_rcv", "garp_pdu_rcv") }, bridgeProtocol},
	{"xdp", func(s *scene) bool {
		return s.reason("XDP") || s.in("do_xdp_generic", "netif_receive_generic_xdp") || s.under("veth_xdp_rcv", "bpf_prog_run_generic_xdp")
	}, xdpDropped},
	{"tc", func(s *scene) bool {
		return s.reason("TC_INGRESS", "TC_EGRESS", "TC_ERROR", "TC_CLS", "TC_COOKIE_ERROR", "TC_CHAIN_NOTFOUND", "TC_RECLASSIFY_LOOP") ||
			s.in("sch_handle_ingress", "sch_handle_egress", "tc_run", "tcx_run")
	}, tcDropped},
	{"cgroup", func(s *scene) bool { return s.reason("BPF_CGROUP_EGRESS", "BPF_CGROUP_INGRESS") }, cgroupDropped},
	{"netfilter", func(s *scene) bool {
		return s.reason("NETFILTER_DROP", "NETFILTER_INGRESS", "NETFILTER_EGRESS") || s.in("nf_hook_slow", "nft_do_chain", "ipt_do_table", "nf_hook_slow_list")
	}, netfilterDropped},
	{"qdisc", func(s *scene) bool {
		return s.reason("QDISC_DROP", "QDISC_OVERLIMIT", "QDISC_CONGESTED", "CODEL_CONGESTED", "FQ_BAND_LIMIT", "FQ_FLOW_LIMIT", "FQ_HORIZON_LIMIT", "CAKE_FLOOD") ||
			s.in("__dev_xmit_skb", "qdisc_drop", "dev_qdisc_enqueue") || s.under("netem_", "tbf_", "fq_codel_", "pfifo_", "htb_")
	}, qdiscDropped},
	{"backlog", func(s *scene) bool { return s.reason("CPU_BACKLOG") || s.in("enqueue_to_backlog") }, backlogFull},
	{"bridge", func(s *scene) bool {
		return s.under("br_", "nbp_", "__br_") || s.reason("BRIDGE_INGRESS_STP_STATE", "BRIDGE_NON_FORWARDING_STATE", "MAC_INVALID_SOURCE", "VLAN_FILTER")
	}, bridgeDropped},
	{"neighbour", func(s *scene) bool {
		return s.reason("NEIGH_FAILED", "NEIGH_QUEUEFULL", "NEIGH_DEAD", "NEIGH_CREATEFAIL", "NEIGH_HH_FILLFAIL") ||
			s.in("neigh_invalidate", "__neigh_event_send", "arp_error_report", "ndisc_error_report")
	}, neighbourFailed},
	{"xfrm", func(s *scene) bool {
		return s.reason("XFRM_POLICY", "XFRM_ESP") || s.in("__xfrm_policy_check", "xfrm_policy_check", "xfrm_lookup", "xfrm_lookup_route", "xfrm_lookup_with_ifid", "__xfrm_route_forward")
	}, xfrmDropped},
	{"other host", func(s *scene) bool {
		return s.reason("OTHERHOST") || s.hop.Type == OtherHost && s.in("ip_rcv_core", "ip_rcv", "ip6_rcv_core")
	}, otherHost},
	{"ether type", func(s *scene) bool {
		return s.reason("UNHANDLED_PROTO") || s.in("__netif_receive_skb_core") && s.reason("NOT_SPECIFIED", "")
	}, unknownEther},
	{"ipv6 off", func(s *scene) bool { return s.reason("IPV6DISABLED", "IPV6_DISABLED") }, ipv6Off},
	{"checksum", func(s *scene) bool {
		return s.reason("IP_CSUM", "UDP_CSUM", "TCP_CSUM", "ICMP_CSUM", "SKB_CSUM", "CSUM")
	}, checksumWrong},
	{"header", func(s *scene) bool {
		return s.reason("PKT_TOO_SMALL", "HDR_TRUNC", "IP_INHDR", "UDP_SMALL", "PKT_TOO_BIG")
	}, headerWrong},
	{"fragment", func(s *scene) bool {
		return s.reason("FRAG_REASM_TIMEOUT", "FRAG_TOO_FAR", "DUP_FRAG") || s.in("ip_expire", "ip6_frag_expire", "inet_frag_rbtree_purge", "ip6frag_expire_frag_queue", "ip_frag_queue", "ip_defrag")
	}, fragmentLost},
	{"icmp6 end", func(s *scene) bool {
		return s.at("icmpv6_rcv") && s.hop.View.Proto == protoICMPv6 && s.reason("NOT_SPECIFIED", "")
	}, icmp6Done},
	{"protocol", func(s *scene) bool {
		return s.reason("IP_NOPROTO") || s.reason("NOT_SPECIFIED", "") && s.at("ip_protocol_deliver_rcu", "ip6_protocol_deliver_rcu", "ip_local_deliver_finish", "ip6_input_finish")
	}, protocolUnknown},
	{"socket", func(s *scene) bool { return s.reason("NO_SOCKET") }, noSocket},
	{"socket queue", func(s *scene) bool {
		return s.reason("SOCKET_RCVBUFF", "SOCKET_BACKLOG", "PROTO_MEM", "SOCKET_RCVBUF") || s.in("__udp_enqueue_schedule_skb", "sock_queue_rcv_skb_reason", "__sock_queue_rcv_skb") && !s.reason("SOCKET_FILTER")
	}, queueFull},
	{"socket filter", func(s *scene) bool { return s.reason("SOCKET_FILTER") || s.in("sk_filter_trim_cap") }, socketFilter},
	{"tcp signature", func(s *scene) bool {
		return s.reason("TCP_MD5NOTFOUND", "TCP_MD5UNEXPECTED", "TCP_MD5FAILURE", "TCP_AONOTFOUND", "TCP_AOUNEXPECTED", "TCP_AOKEYNOTFOUND", "TCP_AOFAILURE")
	}, signature},
	{"listener", func(s *scene) bool {
		return s.in("tcp_conn_request", "tcp_v4_syn_recv_sock", "tcp_v6_syn_recv_sock") || s.reason("TCP_LISTEN_OVERFLOW", "TCP_REQQFULLDROP")
	}, listenerFull},
	{"source route", sourceRouted, sourceRouteRefused},
	{"routing", routed, routeDropped},
	{"tcp state", func(s *scene) bool {
		return s.hop.View.Proto == protoTCP && (s.under("tcp_") || s.reason("TCP_RESET", "TCP_CLOSE", "TCP_OLD_DATA", "TCP_OLD_ACK", "TCP_OVERWINDOW", "TCP_INVALID_SEQUENCE", "TCP_INVALID_ACK_SEQUENCE", "TCP_FLAGS", "TCP_ABORT_ON_DATA", "TCP_FASTOPEN", "TCP_RFC7323_PAWS", "TCP_TOO_OLD_ACK", "TCP_ACK_UNSENT_DATA"))
	}, tcpState},
	{"closing", func(s *scene) bool {
		return s.reason("QUEUE_PURGE", "SOCKET_DESTROYED") || s.in("inet_sock_destruct", "udp_destruct_common", "udp_destruct_sock", "skb_queue_purge", "skb_queue_purge_reason", "sock_release", "__sk_destruct")
	}, closing},
	{"driver", func(s *scene) bool {
		return s.reason("DEV_READY", "DEV_HDR", "FULL_RING", "NOMEM", "NO_TX_TARGET") || s.in("veth_xmit", "tun_net_xmit", "dev_hard_start_xmit", "validate_xmit_skb")
	}, driverDropped},
}
