package topology

import (
	"fmt"

	"github.com/vishvananda/netlink"
	vns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/netns"
	"github.com/fathom-trace/fathom/lab/topology/spec"
)

// qdisc is the root discipline of an interface.
func qdisc(link netlink.Link, q *spec.Qdisc) netlink.Qdisc {
	a := netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT}
	if !q.Netem {
		limit := q.Limit
		if limit == 0 { // tc-tbf(8): what waits in 50 ms, and a burst
			limit = uint32(q.Rate/20) + q.Burst
		}
		return &netlink.Tbf{QdiscAttrs: a, Rate: q.Rate, Buffer: tbfBuffer(q), Limit: limit}
	}
	return netlink.NewNetem(a, netlink.NetemQdiscAttrs{
		Latency: uint32(q.Delay.Microseconds()), Jitter: uint32(q.Jitter.Microseconds()), Loss: float32(q.Loss),
		Duplicate: float32(q.Duplicate), CorruptProb: float32(q.Corrupt), ReorderProb: float32(q.Reorder), Limit: q.Limit, Rate64: q.Rate,
	})
}

// tbfBuffer is the burst as the kernel wants it: the time its bytes take, in ticks of psched.
func tbfBuffer(q *spec.Qdisc) uint32 {
	return uint32(float64(q.Burst) / float64(q.Rate) * 1e6 * netlink.TickInUsec())
}

// classify adds a filter that drops all, under a clsact that is made with the first of a device.
func classify(h *netlink.Handle, f spec.TCFilter) error {
	link, err := h.LinkByName(f.Dev)
	if err != nil {
		return fmt.Errorf("find %s: %w", f.Dev, err)
	}
	index := link.Attrs().Index
	err = h.QdiscReplace(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}})
	if err != nil {
		return fmt.Errorf("add clsact to %s: %w", f.Dev, err)
	}
	parent := uint32(netlink.HANDLE_MIN_INGRESS)
	if f.Way == "egress" {
		parent = netlink.HANDLE_MIN_EGRESS
	}
	drop := &netlink.GenericAction{ActionAttrs: netlink.ActionAttrs{Action: netlink.TC_ACT_SHOT}}
	err = h.FilterAdd(&netlink.MatchAll{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: parent, Priority: uint16(f.Prio), Protocol: unix.ETH_P_ALL},
		Actions:     []netlink.Action{drop},
	})
	if err != nil {
		return fmt.Errorf("add filter to %s: %w", f.Dev, err)
	}
	return nil
}

var xfrmDirs = map[string]netlink.Dir{"in": netlink.XFRM_DIR_IN, "out": netlink.XFRM_DIR_OUT, "fwd": netlink.XFRM_DIR_FWD}

// block adds IPsec policies that block.
func block(ns netns.NS, policies []spec.XFRMPolicy) error {
	h, err := netlink.NewHandleAt(vns.NsHandle(ns.FD()), unix.NETLINK_XFRM)
	if err != nil {
		return fmt.Errorf("open IPsec policies: %w", err)
	}
	defer h.Close()
	for _, p := range policies {
		err := h.XfrmPolicyAdd(&netlink.XfrmPolicy{Src: ipNet(p.Src), Dst: ipNet(p.Dst), Dir: xfrmDirs[p.Dir], Action: netlink.XFRM_POLICY_BLOCK})
		if err != nil {
			return fmt.Errorf("add IPsec policy %s %v to %v: %w", p.Dir, p.Src, p.Dst, err)
		}
	}
	return nil
}
