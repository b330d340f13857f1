package watch

import (
	"slices"
	"strings"
)

// Ways in which changes come about: values of Record.How.
const (
	ByNetlink   = "netlink"           // a request through a netlink socket
	ByIoctl     = "ioctl"             // the old interface of ifconfig and route
	BySysctl    = "sysctl"            // a write below /proc/sys
	BySyscall   = "syscall"           // another system call; Request names it
	ByModule    = "module"            // a module was loaded or unloaded
	ByLifetime  = "lifetime"          // the address's lifetime ran out: a lease that nobody renewed
	ByLinkDown  = "link down"         // the link was set down
	ByLinkGone  = "link removed"      // the link was removed, or moved to another namespace
	ByLinkUp    = "link up"           // the link was set up
	ByDAD       = "duplicate address" // duplicate address detection found another host with it
	ByDADDone   = "address verified"  // duplicate address detection found none
	ByRA        = "router advertisement"
	ByCarrier   = "carrier" // the cable, or what stands for it
	ByNamespace = "namespace deleted"
	ByTimer     = "timer"           // of the kernel's neighbour tables
	ByPacket    = "packet"          // one that came in
	ByTraffic   = "traffic"         // one that was to be sent
	ByAddress   = "address removed" // a route that needed it went along
	ByKernel    = "kernel"          // some other work of the kernel; the stack says which
	Unknown     = "unknown"
)

// cause is how a change came about, as far as a stack tells.
type cause struct {
	how     string // an effect where the kernel does by itself what follows from something else, else the way in
	via     string // the way in: what was asked for
	request string // of netlink the message's name, of other ways the system call
	text    string // the effect in words
	kernel  bool   // nobody asked: an interrupt, or a work of the kernel
}

// effect is something the kernel does by itself, told by a function on the stack.
type effect struct {
	fns  []string // any of them
	with []string // and any of these, if there are some
	how  string
	text string
}

// effects are tried in order: what is said first is more exact.
var effects = []effect{
	{[]string{"cleanup_net"}, nil, ByNamespace, "a network namespace was deleted, and the kernel removed what was in it (cleanup_net)"},
	{[]string{"check_lifetime"}, nil, ByLifetime, "its valid lifetime ran out and nobody renewed it: the kernel's work check_lifetime removed it"},
	{[]string{"addrconf_verify_work"}, nil, ByLifetime, "its lifetime ran out and nobody renewed it: the kernel's work addrconf_verify_work changed it"},
	{[]string{"addrconf_dad_failure", "addrconf_dad_stop"}, nil, ByDAD, "another host has this address: duplicate address detection failed (addrconf_dad_stop)"},
	{[]string{"addrconf_dad_completed", "addrconf_dad_work", "addrconf_dad_begin"}, nil, ByDADDone, "duplicate address detection ended (addrconf_dad_work)"},
	{[]string{"addrconf_prefix_rcv", "addrconf_prefix_rcv_add_addr", "ndisc_router_discovery"}, nil, ByRA, "a router advertisement said so (ndisc_router_discovery)"},
	{[]string{"addrconf_rs_timer"}, nil, ByRA, "no router answered (addrconf_rs_timer)"},
	{[]string{"linkwatch_event", "linkwatch_do_dev", "__linkwatch_run_queue"}, nil, ByCarrier, "the carrier changed (linkwatch_event)"},
	{[]string{"unregister_netdevice_many_notify", "unregister_netdevice_many", "unregister_netdevice_queue", "rollback_registered_many"}, nil, ByLinkGone, "the link was removed (unregister_netdevice)"},
	{[]string{"__dev_change_net_namespace", "dev_change_net_namespace"}, nil, ByLinkGone, "the link was moved to another network namespace"},
	{[]string{"addrconf_ifdown"}, []string{"proc_sys_call_handler"}, BySysctl, "IPv6 was turned off on the link (addrconf_ifdown)"},
	{[]string{"addrconf_ifdown"}, []string{"__dev_notify_flags", "dev_close_many", "netif_close_many"}, ByLinkDown, "the link was set down, and the kernel ended IPv6 on it (addrconf_ifdown)"},
	{[]string{"__dev_close_many", "dev_close_many", "netif_close_many_and_unlock", "__dev_close", "dev_close", "netif_close"}, nil, ByLinkDown, "the link was set down"},
	{[]string{"addrconf_ifdown"}, nil, ByLinkDown, "IPv6 ended on the link (addrconf_ifdown)"},
	{[]string{"inetdev_down"}, nil, ByLinkDown, "IPv4 was turned off on the link (inetdev_event)"},
	{[]string{"__dev_open", "dev_open", "netif_open"}, nil, ByLinkUp, "the link was set up"},
	{[]string{"addrconf_notify"}, nil, ByLinkUp, "the link changed (addrconf_notify)"},
	{[]string{"fib_del_ifaddr", "fib_inetaddr_event"}, nil, ByAddress, "the address that it belongs to changed (fib_inetaddr_event)"},
	{[]string{"neigh_timer_handler", "neigh_periodic_work", "neigh_managed_work", "neigh_forced_gc"}, nil, ByTimer, "the neighbour table's timer ran"},
	{[]string{"arp_process", "arp_rcv", "ndisc_rcv", "ndisc_recv_na", "ndisc_recv_ns"}, nil, ByPacket, "the neighbour was heard of: an ARP or ND packet came in"},
	{[]string{"__neigh_event_send", "neigh_resolve_output", "neigh_probe"}, nil, ByTraffic, "a packet was to be sent to the neighbour"},
}

// entry is a way into the kernel, told by a function on the stack.
type entry struct {
	fn  string
	via string
}

// entries are tried in order.
var entries = []entry{
	{"rtnetlink_rcv_msg", ByNetlink}, {"netlink_rcv_skb", ByNetlink}, {"netlink_sendmsg", ByNetlink}, {"proc_sys_call_handler", BySysctl},
	{"devinet_ioctl", ByIoctl}, {"inet_ioctl", ByIoctl}, {"inet6_ioctl", ByIoctl}, {"dev_ioctl", ByIoctl}, {"sock_ioctl", ByIoctl}, {"__x64_sys_ioctl", ByIoctl}, {"__arm64_sys_ioctl", ByIoctl},
	{"load_module", ByModule}, {"do_init_module", ByModule}, {"__do_sys_delete_module", ByModule}, {"__x64_sys_delete_module", ByModule}, {"free_module", ByModule},
}

// handlers name rtnetlink's requests by the functions that serve them.
var handlers = map[string]string{
	"inet_rtm_newaddr": "RTM_NEWADDR", "inet6_rtm_newaddr": "RTM_NEWADDR", "inet_rtm_deladdr": "RTM_DELADDR", "inet6_rtm_deladdr": "RTM_DELADDR",
	"inet_rtm_newroute": "RTM_NEWROUTE", "inet6_rtm_newroute": "RTM_NEWROUTE", "inet_rtm_delroute": "RTM_DELROUTE", "inet6_rtm_delroute": "RTM_DELROUTE",
	"rtnl_newlink": "RTM_NEWLINK", "__rtnl_newlink": "RTM_NEWLINK", "rtnl_setlink": "RTM_SETLINK", "rtnl_dellink": "RTM_DELLINK",
	"neigh_add": "RTM_NEWNEIGH", "neigh_delete": "RTM_DELNEIGH", "neightbl_set": "RTM_SETNEIGHTBL",
	"fib_nl_newrule": "RTM_NEWRULE", "fib_nl_delrule": "RTM_DELRULE", "fib_newrule": "RTM_NEWRULE", "fib_delrule": "RTM_DELRULE",
	"rtnl_net_newid": "RTM_NEWNSID", "rtm_new_nexthop": "RTM_NEWNEXTHOP", "rtm_del_nexthop": "RTM_DELNEXTHOP",
}

// softirqs are functions that run what interrupts left: the task below them was only in the way.
var softirqs = []string{"__do_softirq", "handle_softirqs", "do_softirq", "__irq_exit_rcu", "irq_exit_rcu", "net_rx_action", "run_timer_softirq", "call_timer_fn"}

// threads are functions in which the kernel's own threads run.
var threads = []string{"process_one_work", "worker_thread", "kthread"}

// explain tells how something came about by the stack of functions, the innermost first, without offsets.
func explain(stack []string) cause {
	if len(stack) == 0 {
		return cause{how: Unknown}
	}
	fns := make([]string, len(stack))
	for i, f := range stack {
		fns[i], _, _ = strings.Cut(f, ".") // .isra.0, .constprop.0, .part.0
	}
	has := func(names ...string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return slices.Contains(fns, n) })
	}
	c := cause{kernel: has(softirqs...) || has(threads...)}
	for _, e := range entries {
		if has(e.fn) {
			c.via = e.via
			break
		}
	}
	for _, f := range fns {
		if r, ok := handlers[f]; ok {
			c.request = r
			break
		}
	}
	if !c.kernel && c.request == "" && c.via != BySysctl {
		c.request = systemCall(fns)
	}
	for _, e := range effects {
		if has(e.fns...) && (len(e.with) == 0 || has(e.with...)) {
			c.how, c.text = e.how, e.text
			break
		}
	}
	switch {
	case c.how != "":
	case c.via != "":
		c.how = c.via
	case c.kernel:
		c.how = ByKernel
	case c.request != "":
		c.how = BySyscall
	default:
		c.how = ByKernel
	}
	if c.via == "" && !c.kernel && c.request != "" {
		c.via = BySyscall
	}
	return c
}

// systemCall finds the system call at the bottom of a stack: __x64_sys_NAME, __arm64_sys_NAME.
func systemCall(fns []string) string {
	for _, f := range slices.Backward(fns) {
		for _, p := range []string{"__x64_sys_", "__arm64_sys_", "__ia32_sys_", "__do_sys_"} {
			if n, ok := strings.CutPrefix(f, p); ok {
				return n + "(2)"
			}
		}
	}
	return ""
}

// messenger says if a function only carries the message that tells of a change.
func messenger(fn string) bool {
	for _, p := range []string{"sock_def_readable", "__netlink_sendskb", "netlink_", "do_one_broadcast", "nlmsg_", "rtnl_notify", "bpf_", "__traceiter_", "__bpf_trace_", "trace_call_bpf", "kprobe_", "ftrace_", "arch_ftrace", "opt_pre_handler", "optimized_callback", "kobject_uevent_net_broadcast"} {
		if strings.HasPrefix(fn, p) {
			return true
		}
	}
	return false
}

// visible leaves the messengers at the top of a stack out, and above them what calls our program.
func visible(stack []string) []string {
	if i := slices.IndexFunc(stack, func(f string) bool { return strings.HasPrefix(f, "sock_def_readable+") }); i >= 0 {
		stack = stack[i:]
	}
	for len(stack) > 0 && messenger(stack[0]) {
		stack = stack[1:]
	}
	return stack
}
