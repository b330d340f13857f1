// Package rtnl decodes what the kernel answers over NETLINK_ROUTE and NETLINK_XFRM: links, addresses, routes, rules,
// neighbours, queueing disciplines, filters, policies. Every function takes the payload of one message, after struct
// nlmsghdr, and returns a value; layouts are those of include/uapi/linux/{rtnetlink,if_link,if_addr,neighbour,fib_rules,
// pkt_sched,pkt_cls,xfrm}.h. Attributes that a kernel does not send leave their field zero.
package rtnl

import (
	"strconv"
	"time"

	"github.com/fathom-trace/fathom/netstate"
	"github.com/fathom-trace/fathom/netstate/nlattr"
)

// Attributes of links (if_link.h).
const (
	iflaAddress     = 1
	iflaName        = 3
	iflaMTU         = 4
	iflaLink        = 5
	iflaMaster      = 10
	iflaTxQLen      = 13
	iflaOperState   = 16
	iflaLinkInfo    = 18
	iflaStats64     = 23
	iflaAFSpec      = 26
	iflaGroup       = 27
	iflaNumRxQueues = 32
	iflaNetNSID     = 37
	iflaXDP         = 43

	infoKind      = 1
	infoData      = 2
	infoSlaveKind = 4
	infoSlaveData = 5

	vlanID   = 1
	vrfTable = 1

	brForwardDelay  = 1
	brSTPState      = 5
	brVLANFiltering = 7
	brportState     = 1
	brportHairpin   = 4 // IFLA_BRPORT_MODE
	brportUnicast   = 9 // IFLA_BRPORT_UNICAST_FLOOD
	brportMulticast = 27
	brportBroadcast = 30
	brportIsolated  = 33
	brportLocked    = 39

	xdpAttached  = 2
	xdpProgID    = 4
	xdpDrvProgID = 5
	xdpSkbProgID = 6
	xdpHwProgID  = 7
)

// Link is a link with its counters (IFLA_STATS64), by the names ip -s -s -j link gives them: "rx_dropped", "tx_carrier_errors".
type Link struct {
	netstate.Link
	Stats map[string]uint64
}

// statNames are the fields of struct rtnl_link_stats64 in order; what an older kernel does not have is missing at the end.
var statNames = [...]string{
	"rx_packets", "tx_packets", "rx_bytes", "tx_bytes", "rx_errors", "tx_errors", "rx_dropped", "tx_dropped", "rx_multicast",
	"tx_collisions", "rx_length_errors", "rx_over_errors", "rx_crc_errors", "rx_frame_errors", "rx_fifo_errors",
	"rx_missed_errors", "tx_aborted_errors", "tx_carrier_errors", "tx_fifo_errors", "tx_heartbeat_errors",
	"tx_window_errors", "rx_compressed", "tx_compressed", "rx_nohandler", "rx_otherhost",
}

var operStates = [...]string{"unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up"}

// DecodeLink reads an RTM_NEWLINK message. The programs of its XDP have no names yet.
func DecodeLink(b []byte) (Link, error) {
	const ifinfomsg = 16
	a, err := nlattr.ParseAt(b, ifinfomsg)
	if err != nil {
		return Link{}, err
	}
	l := Link{Link: netstate.Link{
		Index: int(int32(nlattr.U32(b[4:]))), Flags: nlattr.U32(b[8:]), Name: a.String(iflaName), MTU: int(a.U32(iflaMTU)),
		Master: int(a.U32(iflaMaster)), Lower: int(a.U32(iflaLink)), TxQLen: int(a.U32(iflaTxQLen)),
		Queues: int(a.U32(iflaNumRxQueues)), Group: int(a.U32(iflaGroup)), MAC: nlattr.MAC(a.Get(iflaAddress)),
	}}
	if a.Has(iflaNetNSID) {
		id := int(int32(a.U32(iflaNetNSID)))
		l.NSID = &id
	}
	if s := int(a.U8(iflaOperState)); s < len(operStates) && a.Has(iflaOperState) {
		l.Oper = operStates[s]
	}
	l.info(a.Nested(iflaLinkInfo))
	l.XDP = xdp(a.Nested(iflaXDP))
	if d := a.Get(iflaStats64); d != nil {
		l.Stats = make(map[string]uint64, len(statNames))
		for i, name := range statNames {
			if len(d) >= 8*(i+1) {
				l.Stats[name] = nlattr.U64(d[8*i:])
			}
		}
	}
	return l, nil
}

// info reads IFLA_LINKINFO: what is particular to a kind of link, and to what its master makes of it.
func (l *Link) info(a nlattr.Attrs) {
	l.Kind = a.String(infoKind)
	data := a.Nested(infoData)
	switch l.Kind {
	case "vlan":
		l.VLAN = data.U16(vlanID)
	case "vrf":
		l.Table = int(data.U32(vrfTable))
	case "bridge":
		l.Bridge = &netstate.Bridge{
			STP: data.U32(brSTPState) != 0, VLANFiltering: data.U8(brVLANFiltering) != 0,
			ForwardDelay: time.Duration(data.U32(brForwardDelay)) * 10 * time.Millisecond, // in units of USER_HZ
		}
	}
	if a.String(infoSlaveKind) == "bridge" {
		l.Port = port(a.Nested(infoSlaveData))
	}
}

// port reads what a bridge knows of a port. What this kernel does not tell of is as it is by default.
func port(a nlattr.Attrs) *netstate.Port {
	p := &netstate.Port{State: name(portStates[:], int(a.U8(brportState))), Hairpin: a.U8(brportHairpin) != 0,
		Isolated: a.U8(brportIsolated) != 0, Locked: a.U8(brportLocked) != 0}
	for _, f := range []struct {
		typ  uint16
		what string
	}{{brportUnicast, "unicast"}, {brportMulticast, "multicast"}, {brportBroadcast, "broadcast"}} {
		if len(a.Get(f.typ)) > 0 && a.U8(f.typ) == 0 {
			p.NoFlood = append(p.NoFlood, f.what)
		}
	}
	return p
}

var portStates = [...]string{"disabled", "listening", "learning", "forwarding", "blocking"}

// xdp reads IFLA_XDP: up to three programs, one for each place a frame can be met. The attribute without a place is that
// of a device with one program, whose place is in IFLA_XDP_ATTACHED.
func xdp(a nlattr.Attrs) []netstate.Prog {
	var out []netstate.Prog
	for _, at := range []struct {
		typ  uint16
		mode string
	}{{xdpDrvProgID, "native"}, {xdpSkbProgID, "generic"}, {xdpHwProgID, "offload"}} {
		if id := a.U32(at.typ); id != 0 {
			out = append(out, netstate.Prog{ID: id, Mode: at.mode})
		}
	}
	if id := a.U32(xdpProgID); id != 0 && len(out) == 0 {
		out = append(out, netstate.Prog{ID: id, Mode: name([]string{"", "native", "generic", "offload"}, int(a.U8(xdpAttached)))})
	}
	return out
}

const (
	bridgeVLANInfo    = 2
	vlanPVID          = 1 << 1
	vlanRangeBegin    = 1 << 3
	vlanRangeEnd      = 1 << 4
	maxVLANs          = 4096
	bridgeIfinfomsg   = 16
	bridgeVLANInfoLen = 4
)

// DecodeVLANs reads a link of family AF_BRIDGE: the VLANs of a bridge's port, and the PVID. The index says of which link.
func DecodeVLANs(b []byte) (index int, pvid uint16, vlans []uint16, err error) {
	a, err := nlattr.ParseAt(b, bridgeIfinfomsg)
	if err != nil {
		return 0, 0, nil, err
	}
	begin := 0
	for _, x := range a.Nested(iflaAFSpec) {
		if x.Type != bridgeVLANInfo || len(x.Data) < bridgeVLANInfoLen {
			continue
		}
		flags, vid := nlattr.U16(x.Data), int(nlattr.U16(x.Data[2:]))
		if flags&vlanPVID != 0 {
			pvid = uint16(vid)
		}
		if flags&vlanRangeBegin != 0 {
			begin = vid
			continue
		}
		if flags&vlanRangeEnd == 0 {
			begin = vid
		}
		for v := begin; v <= vid && len(vlans) < maxVLANs; v++ {
			vlans = append(vlans, uint16(v))
		}
	}
	return int(int32(nlattr.U32(b[4:]))), pvid, vlans, nil
}

// name looks a number up; what has no name is its number.
func name(names []string, n int) string {
	if n >= 0 && n < len(names) && names[n] != "" {
		return names[n]
	}
	return strconv.Itoa(n)
}
