// Package netstate says what the network of a namespace is: links, addresses, routes and rules, neighbours, sockets,
// netfilter rules, queueing disciplines, filters and XDP programs, sysctls and counters; and what follows from it.
//
// A [State] is plain data: package live reads it out of a running kernel, it can be kept as JSON with a recording, and
// asked later on another machine. Its methods answer from what was read and touch no system:
//
//	LinkByIndex(int), LinkByName(string) (*Link, bool)    devices
//	HasAddr(netip.Addr) bool                              is it one of ours
//	DevSysctl(family, dev, name) (value, key, ok)         a device's setting as it works together with "all", and which key decides
//	FIB(Flow) Decision                                    rule, route, type, device and gateway, or the errno; as ip route get
//	ReversePath(Flow) ReversePath                         may a source come in by a device (rp_filter, accept_local); if not, why
//	SocketsFor(proto, local, remote, link) []Candidate    which sockets take a packet, and why the others do not
//	Packet(data, iif, oif) nft.Packet                     a packet for the firewall, with what is known of its devices
//	Firewall() *nft.Ruleset                               its Eval(packet, hook) says which rule or policy decides
//	Diff(before, after) map[string]int64                  counters that moved
//
// Counters have flat names: "Udp.NoPorts", "TcpExt.ListenOverflows", "Ip6.InDiscards", "rt_cache.in_martian_dst",
// "nf_conntrack.drop", "arp_cache.res_failed" (of the initial namespace), "softnet.dropped", "xfrm.XfrmInNoPols",
// "link.eth0.rx_dropped" (as /proc/net/dev), "iplink.eth0.rx_otherhost" (as ip -s -s link), "tc.eth0.drops" (qdiscs and
// actions), "ethtool.eth0.rx_xdp_drops", "nft.inet.fw.c.packets" (a chain's counting rules together) and
// "nft.inet.fw.c.4.packets" (of the rule with handle 4).
package netstate

import (
	"net/netip"
	"time"

	"github.com/fathom-trace/fathom/netstate/nft"
)

// State is the network of one namespace at one moment. What could not be read is in Missing; its part is then empty.
type State struct {
	NS       Namespace         `json:"ns"`
	Time     time.Time         `json:"time"`
	Links    []Link            `json:"links,omitempty"` // by index
	Addrs    []Addr            `json:"addrs,omitempty"`
	Routes   []Route           `json:"routes,omitempty"` // of all tables
	Rules    []Rule            `json:"rules,omitempty"`  // by priority
	Neighs   []Neigh           `json:"neighs,omitempty"`
	FDB      []FDB             `json:"fdb,omitempty"`
	Groups   []Group           `json:"groups,omitempty"`
	Sockets  []Socket          `json:"sockets,omitempty"`
	Chains   []Chain           `json:"chains,omitempty"` // of nftables, in the order of hook and priority
	Sets     []Set             `json:"sets,omitempty"`   // of nftables: what rules look up
	Qdiscs   []Qdisc           `json:"qdiscs,omitempty"`
	Filters  []Filter          `json:"filters,omitempty"` // of traffic control, tcx included
	Policies []Policy          `json:"policies,omitempty"`
	Sysctls  map[string]string `json:"sysctls,omitempty"` // "net.ipv4.ip_forward": "1"
	Counters map[string]uint64 `json:"counters,omitempty"`
	Missing  []Missing         `json:"missing,omitempty"`
}

// Namespace names a network namespace. Inode is what tells them apart; Name is what people call it: its mount below
// /run/netns, "init" for that of process 1, or "comm[pid]" of its first process.
type Namespace struct {
	Inode uint64 `json:"inode"`
	Name  string `json:"name"`
}

// Missing is a part of a State that could not be read.
type Missing struct {
	What string `json:"what"` // "nftables", "sockets tcp", …
	Err  string `json:"err"`
}

// Link is a network device.
type Link struct {
	Index  int     `json:"index"`
	Name   string  `json:"name"`
	Kind   string  `json:"kind,omitempty"` // IFLA_INFO_KIND: "veth", "bridge", "vlan", …; "" for hardware
	MAC    string  `json:"mac,omitempty"`  // "02:00:00:00:00:01"
	MTU    int     `json:"mtu"`
	Flags  uint32  `json:"flags"`             // IFF_… (include/uapi/linux/if.h)
	Oper   string  `json:"oper,omitempty"`    // operstate: "up", "down", "lowerlayerdown", …
	Master int     `json:"master,omitempty"`  // index of the bridge, bond or VRF it belongs to
	Lower  int     `json:"lower,omitempty"`   // IFLA_LINK: of a VLAN or macvlan its parent; of veth its peer, in PeerNS
	PeerNS uint64  `json:"peer_ns,omitempty"` // inode of the namespace that Lower counts in; 0: this one, or not known
	NSID   *int    `json:"nsid,omitempty"`    // IFLA_LINK_NETNSID: Lower counts in another namespace; -1: one without a number here
	Table  int     `json:"table,omitempty"`   // routing table of a VRF
	Group  int     `json:"group,omitempty"`
	VLAN   uint16  `json:"vlan,omitempty"`   // number of a VLAN device
	Port   *Port   `json:"port,omitempty"`   // of a bridge's port
	Bridge *Bridge `json:"bridge,omitempty"` // of a bridge
	XDP    []Prog  `json:"xdp,omitempty"`
	TxQLen int     `json:"txqlen,omitempty"`
	Queues int     `json:"queues,omitempty"` // receiving
}

// Port is what a bridge knows of a port of it.
type Port struct {
	State string   `json:"state"`          // "disabled", "listening", "learning", "forwarding", "blocking" (include/uapi/linux/if_bridge.h)
	PVID  uint16   `json:"pvid,omitempty"` // VLAN of untagged frames; 0 is none
	VLANs []uint16 `json:"vlans,omitempty"`
	// Hairpin sends frames back out of the port; Isolated keeps frames of other isolated ports from it; Locked takes only
	// those whose sender the bridge's table has behind it.
	Hairpin  bool     `json:"hairpin,omitempty"`
	Isolated bool     `json:"isolated,omitempty"`
	Locked   bool     `json:"locked,omitempty"`
	NoFlood  []string `json:"no_flood,omitempty"` // "unicast" to unknown addresses, "multicast", "broadcast" that do not go out here
}

// FDB is an entry of a bridge's forwarding table.
type FDB struct {
	Port int    `json:"port"` // index of the link that the address is behind
	MAC  string `json:"mac"`
	VLAN uint16 `json:"vlan,omitempty"`
	Kind string `json:"kind"` // "learned", "static", "local": the bridge's own
}

// Bridge is how a bridge is set.
type Bridge struct {
	STP           bool          `json:"stp"`
	VLANFiltering bool          `json:"vlan_filtering"`
	ForwardDelay  time.Duration `json:"forward_delay_ns"`
}

// Prog is a BPF program on a device.
type Prog struct {
	ID   uint32 `json:"id"`
	Name string `json:"name,omitempty"` // as loaded, at most 15 bytes
	Mode string `json:"mode,omitempty"` // of XDP: "generic", "native", "offload"
}

// Addr is an address of a link.
type Addr struct {
	Link      int           `json:"link"` // index
	Prefix    netip.Prefix  `json:"prefix"`
	Peer      netip.Addr    `json:"peer,omitzero"`
	Broadcast netip.Addr    `json:"broadcast,omitzero"`
	Flags     uint32        `json:"flags,omitempty"` // IFA_F_… (include/uapi/linux/if_addr.h)
	Scope     uint8         `json:"scope,omitempty"`
	Valid     time.Duration `json:"valid_ns,omitempty"` // lifetime left; 0 is for ever
}

// Route is an entry of a routing table.
type Route struct {
	Family int          `json:"family"` // 4 or 6
	Table  int          `json:"table"`
	Type   string       `json:"type"` // "unicast", "local", "broadcast", "blackhole", "unreachable", "prohibit", "throw", …
	Dst    netip.Prefix `json:"dst"`  // 0.0.0.0/0, ::/0 for the default
	Via    netip.Addr   `json:"via,omitzero"`
	Link   int          `json:"link,omitempty"`
	Src    netip.Addr   `json:"src,omitzero"`
	Metric int          `json:"metric,omitempty"`
	MTU    int          `json:"mtu,omitempty"`
	Proto  int          `json:"proto,omitempty"` // RTPROT_…
	Hops   []Hop        `json:"hops,omitempty"`  // of a route with several
	From   netip.Prefix `json:"from,omitzero"`   // sources it is for (IPv6)
	TOS    uint8        `json:"tos,omitempty"`   // 0: any
	Scope  uint8        `json:"scope,omitempty"` // RT_SCOPE_…
	Flags  uint32       `json:"flags,omitempty"` // RTNH_F_… (include/uapi/linux/rtnetlink.h)
	Pref   uint8        `json:"pref,omitempty"`  // of routers (RFC 4191): 0 medium, 1 high, 3 low
	NHID   uint32       `json:"nhid,omitempty"`  // nexthop object
}

// Hop is one of several ways of a route.
type Hop struct {
	Via    netip.Addr `json:"via,omitzero"`
	Link   int        `json:"link"`
	Weight int        `json:"weight"`
	Flags  uint32     `json:"flags,omitempty"` // RTNH_F_…
}

// Rule is an entry of the policy routing database.
type Rule struct {
	Family   int          `json:"family"`
	Priority int          `json:"priority"`
	From     netip.Prefix `json:"from,omitzero"` // invalid: any
	To       netip.Prefix `json:"to,omitzero"`
	IIF      string       `json:"iif,omitempty"`
	OIF      string       `json:"oif,omitempty"`
	Mark     uint32       `json:"mark,omitempty"`
	Mask     uint32       `json:"mask,omitempty"`
	Invert   bool         `json:"invert,omitempty"`
	TOS      uint8        `json:"tos,omitempty"`
	IPProto  uint8        `json:"ipproto,omitempty"`
	SPort    Range        `json:"sport,omitzero"`
	DPort    Range        `json:"dport,omitzero"`
	UID      *Range       `json:"uid,omitempty"`
	TunID    uint64       `json:"tun_id,omitempty"`
	L3MDev   bool         `json:"l3mdev,omitempty"` // the table is that of the VRF the flow is in
	Action   string       `json:"action"`           // "lookup", "goto", "nop", "blackhole", "unreachable", "prohibit"
	Table    int          `json:"table,omitempty"`
	Goto     int          `json:"goto,omitempty"` // priority of the rule to go on with
	// Routes of these prefix lengths or less, or whose device is of this group, are as if they were not there; nil: none.
	SuppressPrefix *int   `json:"suppress_prefixlength,omitempty"`
	SuppressGroup  *int   `json:"suppress_ifgroup,omitempty"`
	Text           string `json:"text"` // as ip-rule writes it: "from 10.77.1.1 to 10.77.2.0/24 prohibit"
}

// Range is a range of numbers, both ends in it.
type Range struct {
	First uint32 `json:"first"`
	Last  uint32 `json:"last"`
}

// Has reports whether n is in it.
func (r Range) Has(n uint32) bool { return r.First <= n && n <= r.Last }

// Neigh is an entry of a neighbour table.
type Neigh struct {
	Link  int        `json:"link"`
	Addr  netip.Addr `json:"addr"`
	MAC   string     `json:"mac,omitempty"`
	State string     `json:"state"` // "incomplete", "reachable", "stale", "delay", "probe", "failed", "noarp", "permanent"
}

// Group is a multicast group that a link listens to.
type Group struct {
	Link int        `json:"link"`
	Addr netip.Addr `json:"addr"`
}

// Socket is a socket of the internet protocols, raw or packet.
type Socket struct {
	Proto  string         `json:"proto"` // "tcp", "udp", "udplite", "raw", "packet", "xdp", "sctp", "vsock"
	Family int            `json:"family,omitempty"`
	State  string         `json:"state,omitempty"` // of TCP: "listen", "established", …; of UDP "connected" or ""
	Local  netip.AddrPort `json:"local,omitzero"`
	Remote netip.AddrPort `json:"remote,omitzero"`
	Dev    int            `json:"dev,omitempty"`    // bound to this link
	Number int            `json:"number,omitempty"` // of raw: IP protocol; of packet: EtherType; of vsock: its port
	V6Only bool           `json:"v6only,omitempty"`
	Inode  uint64         `json:"inode,omitempty"`
	UID    uint32         `json:"uid"`
	Owner  string         `json:"owner,omitempty"` // "comm[pid]", where it could be found
	Mark   uint32         `json:"mark,omitempty"`
	RecvQ  uint32         `json:"recvq"`            // bytes; of a listener: connections that wait for accept
	SendQ  uint32         `json:"sendq,omitempty"`  // bytes; of a listener: how many may wait
	RcvMem uint32         `json:"rmem,omitempty"`   // bytes allocated for receiving (SK_MEMINFO_RMEM_ALLOC)
	RcvBuf uint32         `json:"rcvbuf,omitempty"` // how many may be (SK_MEMINFO_RCVBUF)
	Drops  uint32         `json:"drops,omitempty"`
	Filter bool           `json:"filter,omitempty"` // a packet socket has a program that chooses what it receives; the kernel does not say it of others
	Cookie uint64         `json:"cookie,omitempty"`
	MD5    []netip.Prefix `json:"md5,omitempty"` // peers that must sign (TCP_MD5SIG)
	XSK    *XSK           `json:"xsk,omitempty"`
}

// XSK is what only AF_XDP sockets have.
type XSK struct {
	Link      int    `json:"link"`
	Queue     int    `json:"queue"`
	Fill      uint32 `json:"fill"`       // entries of the fill ring; 0: it has none
	RxDropped uint64 `json:"rx_dropped"` // XDP_STATISTICS: for reasons other than an invalid descriptor
	FillEmpty uint64 `json:"rx_fill_ring_empty"`
	RingFull  uint64 `json:"rx_ring_full"`
}

// What nftables hold is in package nft, which can also say what it would do with a packet.
type (
	Chain   = nft.Chain
	NFTRule = nft.Rule
	Set     = nft.Set
)

// Qdisc is a queueing discipline.
type Qdisc struct {
	Link    int               `json:"link"`
	Kind    string            `json:"kind"`
	Handle  uint32            `json:"handle"`
	Parent  uint32            `json:"parent"`
	Options map[string]string `json:"options,omitempty"` // "limit": "3000"
	Limit   uint64            `json:"limit,omitempty"`
	Unit    string            `json:"unit,omitempty"` // of Limit: "b" or "p"
	Drops   uint64            `json:"drops"`
	Backlog uint64            `json:"backlog,omitempty"` // bytes
	QLen    uint64            `json:"qlen,omitempty"`
}

// Filter is a classifier of traffic control, or a program of tcx.
type Filter struct {
	Link    int      `json:"link"`
	Parent  string   `json:"parent"` // "ingress", "egress", or a class "1:10"
	Prio    int      `json:"prio,omitempty"`
	Kind    string   `json:"kind"` // "matchall", "u32", "flower", "bpf", …, "tcx"
	Handle  uint32   `json:"handle,omitempty"`
	Prog    *Prog    `json:"prog,omitempty"`
	Acts    []string `json:"actions,omitempty"` // in order: "gact drop", "mirred redirect dev x", …
	Drops   uint64   `json:"drops,omitempty"`
	Packets uint64   `json:"packets,omitempty"`
}

// Policy is an IPsec policy.
type Policy struct {
	Dir    string       `json:"dir"` // "in", "out", "fwd"
	Src    netip.Prefix `json:"src"`
	Dst    netip.Prefix `json:"dst"`
	Link   int          `json:"link,omitempty"`  // 0: any
	Proto  uint8        `json:"proto,omitempty"` // IP protocol; 0: any
	Action string       `json:"action"`          // "allow" or "block"
	Index  uint32       `json:"index"`
	Prio   uint32       `json:"prio,omitempty"`
	Tmpl   int          `json:"templates,omitempty"` // transformations it asks for
}
