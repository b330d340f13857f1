package live

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/netstate"
	"github.com/fathom-trace/fathom/netstate/rtnl"
)

// linkStats are a device's counters.
type linkStats struct {
	name  string
	index int
	stats map[string]uint64
}

// rtnetlink reads what NETLINK_ROUTE tells.
func (s *reading) rtnetlink() {
	if s.want(Links | TC | Counters | Ethtool | NFT) {
		s.missing("links", s.readLinks())
	}
	if s.want(Addrs) {
		s.missing("addresses", collect(s, unix.RTM_GETADDR, unix.AF_UNSPEC, &s.out.Addrs, rtnl.DecodeAddr))
	}
	if s.want(Routes) {
		s.families("routes", func(af uint8) error { return collect(s, unix.RTM_GETROUTE, af, &s.out.Routes, rtnl.DecodeRoute) })
	}
	if s.want(Rules) {
		s.families("rules", func(af uint8) error { return collect(s, unix.RTM_GETRULE, af, &s.out.Rules, rtnl.DecodeRule) })
	}
	if s.want(Neighs) {
		s.missing("neighbours", collect(s, unix.RTM_GETNEIGH, unix.AF_UNSPEC, &s.out.Neighs, rtnl.DecodeNeigh))
		if slices.ContainsFunc(s.out.Links, func(l netstate.Link) bool { return l.Port != nil }) {
			s.missing("forwarding tables", collect(s, unix.RTM_GETNEIGH, unix.AF_BRIDGE, &s.out.FDB, rtnl.DecodeFDB))
		}
	}
	if s.want(TC | Counters) {
		s.trafficControl()
	}
}

// families reads something of IPv4 and of IPv6. A kernel without IPv6 has none of it.
func (s *reading) families(what string, f func(af uint8) error) {
	s.missing(what, f(unix.AF_INET))
	if err := f(unix.AF_INET6); !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EOPNOTSUPP) {
		s.missing(what+" of IPv6", err)
	}
}

// collect reads a dump into a list.
func collect[T any](s *reading, typ uint16, af uint8, into *[]T, decode func([]byte) (T, bool, error)) error {
	return s.dump(unix.NETLINK_ROUTE, typ, rtnl.Request(af), func(_ uint16, b []byte) error {
		v, ok, err := decode(b)
		if err == nil && ok {
			*into = append(*into, v)
		}
		return err
	})
}

func (s *reading) readLinks() error {
	var links []netstate.Link
	ids := map[int]bool{}
	ports := false
	err := s.dump(unix.NETLINK_ROUTE, unix.RTM_GETLINK, rtnl.Request(unix.AF_UNSPEC), func(_ uint16, b []byte) error {
		l, err := rtnl.DecodeLink(b)
		if err != nil {
			return err
		}
		if l.NSID != nil && *l.NSID >= 0 {
			ids[*l.NSID] = true
		}
		ports = ports || l.Port != nil
		links = append(links, l.Link)
		s.links = append(s.links, linkStats{l.Name, l.Index, l.Stats})
		return nil
	})
	sorting.By(links, func(a, b netstate.Link) int { return cmp.Compare(a.Index, b.Index) })
	for _, l := range s.links {
		if s.want(Counters) {
			for k, v := range l.stats {
				s.out.Counters["iplink."+l.name+"."+k] = v
			}
		}
	}
	if !s.want(Links) {
		return err
	}
	s.resolve(ids)
	for i := range links {
		if id := links[i].NSID; id != nil {
			links[i].PeerNS = s.peers[*id].inode
		}
		for j := range links[i].XDP {
			p := &links[i].XDP[j]
			p.Name = s.progName(p.ID)
		}
	}
	if ports {
		s.missing("VLANs of bridges", s.bridgeVLANs(links))
	}
	s.out.Links = links
	return err
}

func (s *reading) bridgeVLANs(links []netstate.Link) error {
	return s.dump(unix.NETLINK_ROUTE, unix.RTM_GETLINK, rtnl.BridgeRequest(), func(_ uint16, b []byte) error {
		index, pvid, vlans, err := rtnl.DecodeVLANs(b)
		i, ok := slices.BinarySearchFunc(links, index, func(l netstate.Link, n int) int { return cmp.Compare(l.Index, n) })
		if ok && links[i].Port != nil {
			links[i].Port.PVID, links[i].Port.VLANs = pvid, vlans
		}
		return err
	})
}

// progName asks for the name of a BPF program; "" if it may not be known.
func (r *Reader) progName(id uint32) string {
	if n, ok := r.progs[id]; ok {
		return n
	}
	p, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
	if err != nil {
		return ""
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return ""
	}
	r.progs[id] = info.Name
	return info.Name
}

// trafficControl reads qdiscs, and the filters at every place where a qdisc can have some.
func (s *reading) trafficControl() {
	var qdiscs []netstate.Qdisc
	err := s.dump(unix.NETLINK_ROUTE, unix.RTM_GETQDISC, rtnl.TCRequest(0, 0), func(_ uint16, b []byte) error {
		q, err := rtnl.DecodeQdisc(b)
		if err == nil {
			qdiscs = append(qdiscs, q)
		}
		return err
	})
	s.missing("queueing disciplines", err)
	names := map[int]string{}
	for _, l := range s.links {
		names[l.index] = l.name
	}
	for _, q := range qdiscs {
		s.count("tc."+names[q.Link]+".drops", q.Drops)
		for _, parent := range filterParents(q) {
			s.missing("filters of "+names[q.Link], s.filters(q.Link, parent, names[q.Link]))
		}
	}
	if s.want(TC) {
		s.out.Qdiscs = qdiscs
	}
}

// classful are the qdiscs that can have filters.
var classful = []string{"cbq", "drr", "dsmark", "ets", "fq_codel", "hfsc", "htb", "multiq", "prio", "qfq", "sfq", "choke", "atm", "cake"}

func filterParents(q netstate.Qdisc) []uint32 {
	switch {
	case q.Kind == "clsact":
		return []uint32{rtnl.Ingress, rtnl.Egress}
	case q.Kind == "ingress":
		return []uint32{rtnl.Ingress}
	case slices.Contains(classful, q.Kind) && q.Handle != 0:
		return []uint32{q.Handle}
	}
	return nil
}

func (s *reading) filters(index int, parent uint32, dev string) error {
	return s.dump(unix.NETLINK_ROUTE, unix.RTM_GETTFILTER, rtnl.TCRequest(index, parent), func(_ uint16, b []byte) error {
		f, err := rtnl.DecodeFilter(b)
		if err != nil {
			return err
		}
		if f.Prog == nil && f.Acts == nil && (f.Handle == 0 || f.Kind == "u32" && f.Handle&0xfff == 0) {
			return nil // the head of a list, or a table of hashes, which kernels send before the filters in it
		}
		if f.Prog != nil && f.Prog.ID != 0 {
			if n := s.progName(f.Prog.ID); n != "" {
				f.Prog.Name = n
			}
		}
		s.count("tc."+dev+".drops", f.Drops)
		if s.want(TC) {
			s.out.Filters = append(s.out.Filters, f)
		}
		return nil
	})
}

// count adds to a counter, if counters were asked for.
func (s *reading) count(name string, n uint64) {
	if s.want(Counters) {
		s.out.Counters[name] += n
	}
}

// tcx reads programs that hang on devices by themselves (Linux 6.6); an older kernel has none. It runs in the namespace:
// the kernel looks for the device in the caller's.
func (s *reading) tcx() {
	for _, l := range s.links {
		for _, at := range []struct {
			parent string
			typ    ebpf.AttachType
		}{{"ingress", ebpf.AttachTCXIngress}, {"egress", ebpf.AttachTCXEgress}} {
			q, err := link.QueryPrograms(link.QueryOptions{Target: l.index, Attach: at.typ})
			switch {
			case errors.Is(err, unix.EINVAL) || errors.Is(err, ebpf.ErrNotSupported):
				return
			case errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT):
				continue
			case err != nil:
				s.missing("tcx programs", fmt.Errorf("query %s: %w", l.name, err))
				return
			}
			for i, p := range q.Programs {
				s.out.Filters = append(s.out.Filters, netstate.Filter{
					Link: l.index, Parent: at.parent, Prio: i + 1, Kind: "tcx",
					Prog: &netstate.Prog{ID: uint32(p.ID), Name: s.progName(uint32(p.ID))},
				})
			}
		}
	}
}

const xfrmGetPolicy = 0x15 // XFRM_MSG_GETPOLICY

// policies reads IPsec policies.
func (s *reading) policies() {
	if !s.want(Policies) {
		return
	}
	err := s.dump(unix.NETLINK_XFRM, xfrmGetPolicy, nil, func(_ uint16, b []byte) error {
		p, err := rtnl.DecodePolicy(b)
		if err == nil {
			s.out.Policies = append(s.out.Policies, p)
		}
		return err
	})
	if !errors.Is(err, unix.EPROTONOSUPPORT) { // no IPsec in this kernel
		s.missing("IPsec policies", err)
	}
}
