package watch

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/netstate"
	"github.com/fathom-trace/fathom/netstate/changes"
)

// TestExplain: stacks as Linux 6.1, 6.12 and 6.18 gave them, the innermost function first.
func TestExplain(t *testing.T) {
	const netlink = " netlink_rcv_skb netlink_unicast netlink_sendmsg ____sys_sendmsg ___sys_sendmsg __sys_sendmsg do_syscall_64 entry_SYSCALL_64_after_hwframe"
	const worker = " process_one_work worker_thread kthread ret_from_fork ret_from_fork_asm"
	for _, tt := range []struct {
		name, stack                string
		how, via, request, because string
		kernel                     bool
	}{
		{"asked", "__inet_del_ifa inet_rtm_deladdr" + netlink, ByNetlink, ByNetlink, "RTM_DELADDR", "", false},
		{"asked, 6.12", "__inet_del_ifa inet_rtm_deladdr rtnetlink_rcv_msg" + netlink, ByNetlink, ByNetlink, "RTM_DELADDR", "", false},
		{"ifconfig", "__inet_insert_ifa inet_set_ifa devinet_ioctl inet_ioctl sock_do_ioctl sock_ioctl __x64_sys_ioctl do_syscall_64", ByIoctl, ByIoctl, "ioctl(2)", "", false},
		{"lifetime", "__inet_del_ifa check_lifetime" + worker, ByLifetime, "", "", "its valid lifetime ran out", true},
		{"lifetime, IPv6", "__ipv6_ifa_notify ipv6_ifa_notify ipv6_del_addr addrconf_verify_rtnl addrconf_verify_work" + worker, ByLifetime, "", "", "its lifetime ran out", true},
		{"link down", "__ipv6_ifa_notify addrconf_ifdown.isra.0 addrconf_notify notifier_call_chain __dev_notify_flags netif_change_flags do_setlink.isra.0 rtnl_newlink" + netlink,
			ByLinkDown, ByNetlink, "RTM_NEWLINK", "the link was set down", false},
		{"link down by ioctl", "__ipv6_ifa_notify addrconf_ifdown addrconf_notify notifier_call_chain __dev_notify_flags dev_change_flags devinet_ioctl inet_ioctl sock_ioctl __x64_sys_ioctl",
			ByLinkDown, ByIoctl, "ioctl(2)", "the link was set down", false},
		{"link removed", "rtmsg_ifinfo unregister_netdevice_many_notify rtnl_dellink" + netlink, ByLinkGone, ByNetlink, "RTM_DELLINK", "the link was removed", false},
		{"address of a link that is removed", "__inet_del_ifa inetdev_event notifier_call_chain unregister_netdevice_many_notify rtnl_dellink" + netlink,
			ByLinkGone, ByNetlink, "RTM_DELLINK", "the link was removed", false},
		{"IPv6 off", "__ipv6_ifa_notify addrconf_ifdown dev_disable_change addrconf_sysctl_disable proc_sys_call_handler vfs_write ksys_write do_syscall_64",
			BySysctl, BySysctl, "", "IPv6 was turned off", false},
		{"namespace", "__inet_del_ifa inetdev_event unregister_netdevice_many_notify default_device_exit_batch ops_undo_list cleanup_net" + worker, ByNamespace, "", "", "a network namespace was deleted", true},
		{"duplicate", "__ipv6_ifa_notify addrconf_dad_stop addrconf_dad_work" + worker, ByDAD, "", "", "another host has this address", true},
		{"verified", "__ipv6_ifa_notify addrconf_dad_completed addrconf_dad_work" + worker, ByDADDone, "", "", "duplicate address detection ended", true},
		{"router", "__ipv6_ifa_notify addrconf_prefix_rcv_add_addr addrconf_prefix_rcv ndisc_router_discovery icmpv6_rcv net_rx_action handle_softirqs", ByRA, "", "", "a router advertisement", true},
		{"carrier", "netif_state_change linkwatch_do_dev linkwatch_event" + worker, ByCarrier, "", "", "the carrier changed", true},
		{"interrupt of somebody", "__neigh_notify neigh_update_notify __neigh_update arp_process net_rx_action handle_softirqs do_softirq __dev_queue_xmit udp_sendmsg __sys_sendto __x64_sys_sendto",
			ByPacket, "", "", "the neighbour was heard of", true},
		{"tun closed", "rtmsg_ifinfo __dev_close_many tun_chr_close __fput task_work_run do_exit __x64_sys_exit_group do_syscall_64", ByLinkDown, BySyscall, "exit_group(2)", "the link was set down", false},
		{"module", "kobject_uevent_env mod_sysfs_setup load_module init_module_from_file __x64_sys_finit_module do_syscall_64", ByModule, ByModule, "finit_module(2)", "", false},
		{"unknown work", "something_new somewhere" + worker, ByKernel, "", "", "", true},
		{"unknown call", "something_new __arm64_sys_bpf el0_svc", BySyscall, BySyscall, "bpf(2)", "", false},
		{"nothing", "", Unknown, "", "", "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := explain(strings.Fields(tt.stack))
			want := cause{how: tt.how, via: tt.via, request: tt.request, kernel: tt.kernel, text: c.text}
			if d := cmp.Diff(want, c, cmp.AllowUnexported(cause{})); d != "" {
				t.Error(d)
			}
			if !strings.HasPrefix(c.text, tt.because) || tt.because == "" && c.text != "" {
				t.Errorf("text %q", c.text)
			}
		})
	}
}

func TestVisible(t *testing.T) {
	got := visible([]string{"0xffffffffc0049af9", "__this_module+0x4040", "sock_def_readable+0x7f", "__netlink_sendskb+0x67", "netlink_broadcast_filtered+0x1", "nlmsg_notify+0x1", "rtnl_notify+0x1", "__inet_del_ifa+0x171", "netlink_rcv_skb+0x1"})
	if d := cmp.Diff([]string{"__inet_del_ifa+0x171", "netlink_rcv_skb+0x1"}, got); d != "" {
		t.Error(d)
	}
}

// TestPatience: a change waits for its author while what programs saw lies unread, but not for ever.
func TestPatience(t *testing.T) {
	eye := &part{}
	w := &Watcher{o: Options{Dev: "none"}, w: &witness{seen: make(chan sighting, 1), parts: []*part{eye}}}
	c := &changes.Change{Kind: changes.Route, Act: changes.Removed, Old: &changes.Object{Route: &netstate.Route{}}, Msg: []byte{1}}
	given := func(came time.Time) bool {
		w.pending = []*pending{{c: c, came: came, waits: true, until: came}}
		_, ok := w.ready()
		return ok
	}
	came := time.Now().Add(-time.Second)
	if given(came) {
		t.Error("it did not wait though nothing was read")
	}
	before, after := came.Add(-time.Millisecond), came.Add(time.Millisecond)
	if eye.read.Store(&before); given(came) {
		t.Error("it did not wait though what was seen since was not read")
	}
	eye.read.Store(&after)
	if w.w.seen <- (sighting{}); given(came) {
		t.Error("it did not wait though a sighting was not taken")
	}
	if <-w.w.seen; !given(came) {
		t.Error("it waits though all was read")
	}
	if eye.read.Store(&before); !given(came.Add(-behind)) {
		t.Error("it waits for ever")
	}
}

// TestForget: what programs saw of a message is kept as long as the message may wait in a queue; what has no message, for as long as
// it may have to do with what is read again.
func TestForget(t *testing.T) {
	now := time.Now()
	w := &Watcher{causes: map[*changes.Change]*sighting{}}
	for i := range remembered + 100 {
		w.sights = append(w.sights, &sighting{kind: recMessage, pid: i, at: now.Add(-time.Minute)})
	}
	told, late := &sighting{kind: recMessage, at: now.Add(-time.Minute)}, &sighting{kind: recMessage, at: now.Add(-queued - time.Second)}
	set, old := &sighting{kind: recSysctl, at: now.Add(-time.Second)}, &sighting{kind: recSysctl, at: now.Add(-memory - time.Second)}
	for _, s := range []*sighting{old, late, set} {
		w.sights = append([]*sighting{s}, w.sights...)
		w.causes[&changes.Change{}] = s
	}
	w.causes[&changes.Change{}] = told
	w.forget(now)
	if n := len(w.sights); n != remembered-1 || w.sights[0].pid != 101 || len(w.causes) != 2 {
		t.Errorf("%d sightings are kept, from that of %d on, and %d causes", n, w.sights[0].pid, len(w.causes))
	}
	w.sights = append([]*sighting{set}, w.sights[:10]...)
	if w.forget(now); len(w.sights) != 11 {
		t.Errorf("%d of 11 sightings are kept", len(w.sights))
	}
	if w.forget(now.Add(queued)); len(w.sights) != 0 || len(w.causes) != 0 {
		t.Errorf("%d sightings and %d causes are kept for ever", len(w.sights), len(w.causes))
	}
}

// TestOvertaken: a program that looks for its message when that is gone and the next is there has the next one's; who was at the
// first is found nevertheless. What merely waits for its change is left to it.
func TestOvertaken(t *testing.T) {
	const socket = 7
	at := uint64(5 * time.Second)
	change := func(msg string) *changes.Change {
		at++
		return &changes.Change{Kind: changes.Addr, Socket: socket, Msg: []byte(msg), Boot: at}
	}
	sight := func(pid int, msg string) *sighting {
		at++
		return &sighting{kind: recMessage, socket: socket, pid: pid, msg: []byte(msg), boot: at, at: time.Now()}
	}
	w := &Watcher{causes: map[*changes.Change]*sighting{}, w: newWitness()}
	w.sighted(sight(1, "route")) // who added the address, and looked too late
	w.sighted(sight(2, "route"))
	w.sighted(sight(3, "link"))
	first := change("addr")
	w.changed(first)
	if s := w.blind(first); s != nil {
		t.Errorf("before the route is known the address is of process %d", s.pid)
	}
	w.changed(change("route"))
	if s := w.blind(first); s == nil || s.pid != 1 {
		t.Errorf("the address is of %+v", s)
	}
	if s := w.pending[1].s; s == nil || s.pid != 2 {
		t.Errorf("the route is of %+v", s)
	}
	if s := w.blind(change("rule")); s != nil {
		t.Errorf("a rule is of process %d", s.pid)
	}
}
