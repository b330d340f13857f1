// Package spec is the language of a lab's network: what hosts there are, how they are joined, and what each is set to.
// It reads text and gives values; it touches no system. Grammar ([Parse]):
//
//	file     = { ( chain | node ) ( ";" | newline ) } .
//	chain    = end { "--" end } .
//	end      = NAME [ ":" PREFIX { "," PREFIX } ] [ "{" { KEY "=" VALUE } "}" ] .
//	node     = ( "host" | "router" | "bridge" ) NAME [ "{" { property ( ";" | newline ) } "}" ] .
//	property = KEY { WORD } .
//
// Words end at blanks, quotes keep them together, # begins a comment. A node that is only named in a chain is a host. What
// each key means stands in the tables endKeys and properties.
package spec

import (
	"fmt"
	"net"
	"net/netip"
	"time"
)

// Pos is a place in the text, from 1; columns count bytes.
type Pos struct{ Line, Col int }

func (p Pos) String() string { return fmt.Sprintf("%d:%d", p.Line, p.Col) }

// Error is text that makes no network.
type Error struct {
	Pos  Pos
	Msg  string
	Hint string // what to write instead; may be empty
}

func (e *Error) Error() string { return e.Pos.String() + ": " + e.Msg }

// Kind says what a node does with packets that are not its own.
type Kind int

// The kinds of nodes.
const (
	Host   Kind = iota
	Router      // forwards IPv4 and IPv6
	Bridge      // its links are ports of br0
)

func (k Kind) String() string { return [...]string{"host", "router", "bridge"}[k] }

// Topology is a network, checked: names are unique, addresses too, and bridges make no loop without STP.
type Topology struct {
	Nodes []*Node // in the order they are first named
	Links []Link
}

// Link is a veth pair.
type Link struct{ A, B *Iface }

// Node is a namespace.
type Node struct {
	Name string
	Kind Kind
	Pos  Pos

	Ifaces  []*Iface // ends of links
	Own     []Device // devices without a link
	Routes  []Route
	Rules   []Rule
	Neigh   []Neighbour
	Sysctls []Sysctl
	NFT     []NFTRule
	Table   string      // of its nftables rules: lab if the text does not say
	Sets    []NFTSet    // that rules look into
	Policy  []NFTPolicy // of base chains; others accept
	TC      []TCFilter
	XFRM    []XFRMPolicy
	Down    []string // interfaces that are set down when all else is made
	STP     bool
	Delay   time.Duration // that ports wait in each state of STP; 0 is 2 s
	VLANs   bool          // the bridge looks at VLAN tags; set if a port has one

	declared bool
}

// Iface is one end of a link.
type Iface struct {
	Node   *Node
	Pos    Pos
	Dev    string // ethN if the text does not say
	Addrs  []netip.Prefix
	MAC    net.HardwareAddr
	MTU    int
	Queues int
	NoIPv6 bool
	Access uint16   // VLAN of a bridge's port, untagged; 0 is none
	Trunk  []uint16 // tagged VLANs of a bridge's port
	Qdisc  *Qdisc
}

// Qdisc is what sending on an interface goes through: netem or tbf.
type Qdisc struct {
	Netem            bool
	Delay, Jitter    time.Duration
	Loss, Duplicate  float64 // per cent
	Corrupt, Reorder float64 // per cent
	Limit            uint32  // packets
	Rate             uint64  // bytes a second; 0 is no limit
	Burst            uint32  // bytes, of tbf
}

// Device is an interface that is no end of a link.
type Device struct {
	Pos    Pos
	Kind   string // "tun", "tap", "dummy", "vlan"
	Name   string
	Parent string // of a VLAN
	VLAN   uint16
	Queues int
	Addrs  []netip.Prefix
}

// Route is an entry of a routing table.
type Route struct {
	Pos    Pos
	Dst    netip.Prefix // 0.0.0.0/0 or ::/0 is the default
	Via    netip.Addr
	Dev    string
	Src    netip.Addr
	Type   string // "unicast", "blackhole", "unreachable", "prohibit"
	Table  int    // 0 is main
	Metric int
	MTU    int
}

// Rule chooses a routing table.
type Rule struct {
	Pos      Pos
	From, To netip.Prefix // invalid: any
	IIF, OIF string
	Mark     uint32
	Table    int    // 0 if there is an action
	Action   string // "blackhole", "unreachable", "prohibit"; "" looks into the table
	Priority int    // 0 lets the kernel choose
}

// Neighbour is a permanent entry of the neighbour table.
type Neighbour struct {
	Pos  Pos
	Addr netip.Addr
	MAC  net.HardwareAddr
	Dev  string
}

// Sysctl is a setting of a namespace: below net only, since all others would be the machine's.
type Sysctl struct {
	Pos        Pos
	Key, Value string
}

// NFTRule is one rule of the host's table: of family inet, or netdev for hooks of a device.
type NFTRule struct {
	Pos     Pos
	Hook    string // prerouting, input, forward, output, postrouting; ingress, egress; "" for a chain that others jump to
	Dev     string // of ingress and egress
	Chain   string // name of a chain without a hook
	Matches []Match
	Verdict string // accept, drop, reject, reset, masquerade, snat, dnat, rewrite, jump, goto
	NAT     netip.AddrPort
	Target  string // of jump and goto
}

// Match is a condition of an NFTRule. Not turns it round.
type Match struct {
	Key   string // iif, oif, saddr, daddr, proto, sport, dport, mark, ct, over
	Not   bool
	Text  string       // iif, oif; proto: tcp, udp, icmp, icmpv6; saddr, daddr: name of a set; ct: a state; over: second, minute, hour
	Net   netip.Prefix // saddr, daddr
	Num   uint32       // sport, dport, mark; over: packets in that time
	Burst uint32       // over: packets more
}

// NFTSet is a set of addresses that rules look into by name.
type NFTSet struct {
	Name  string
	Addrs []netip.Addr // of one family
}

// NFTPolicy is what a hook's chain does with what no rule decides.
type NFTPolicy struct {
	Pos        Pos
	Hook, Does string // accept, drop
}

// TCFilter is a classifier of traffic control that drops all that passes a device one way.
type TCFilter struct {
	Pos  Pos
	Dev  string
	Way  string // ingress, egress
	Prio int    // 0 lets the kernel choose
}

// XFRMPolicy is an IPsec policy that blocks.
type XFRMPolicy struct {
	Pos      Pos
	Dir      string // in, out, fwd
	Src, Dst netip.Prefix
}

// Node finds a node; nil if there is none.
func (t *Topology) Node(name string) *Node {
	for _, n := range t.Nodes {
		if n.Name == name {
			return n
		}
	}
	return nil
}
