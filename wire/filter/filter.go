package filter

import (
	"golang.org/x/net/bpf"
)

// Link says what a packet's bytes start with.
type Link uint8

// Link types, with the numbers of LINKTYPE_… in files.
const (
	Ethernet Link = iota // 1
	Raw                  // 101: an IPv4 or IPv6 header
	SLL                  // 113: Linux cooked header
	SLL2                 // 276: Linux cooked header, version 2
	Null                 // 0: address family in the byte order of the machine that wrote it
	Loop                 // 108: address family in network byte order
)

// String gives tcpdump's name of the link type.
func (l Link) String() string {
	return [...]string{"EN10MB", "RAW", "LINUX_SLL", "LINUX_SLL2", "NULL", "LOOP"}[l]
}

// Options say what the packets are and where names come from. The zero value is Ethernet, and no names but our own.
type Options struct {
	Link  Link
	Names Names
	// Netmask is that of the network captured on, for "ip broadcast"; 0 if there is none.
	Netmask uint32
	// Snaplen is what the classic program returns for a packet that matches; 0 means 262144.
	Snaplen uint32
	// Metadata says that the filter runs where more is known of a packet than its bytes, as in a socket filter or with an skb: a
	// VLAN tag that the device took out, the direction, the interface. inbound, outbound and ifindex are understood
	// then, and vlan looks at that tag first.
	Metadata bool
	// Unoptimized leaves the program as the expression has it.
	Unoptimized bool
}

// Meta is what a kernel knows of a packet beside its bytes; filters compiled with Options.Metadata ask for it.
type Meta struct {
	Tagged  bool   // the outermost VLAN tag is not among the bytes but in TCI (skb->vlan_tci)
	TCI     uint16 // priority, drop eligible indicator and number of that VLAN
	Type    uint8  // PACKET_HOST … PACKET_OUTGOING (include/uapi/linux/if_packet.h)
	Ifindex uint32 // of the interface
}

// Loads from metaBase on are of Meta (SKF_AD_OFF and SKF_AD_… in include/uapi/linux/filter.h).
const (
	metaBase    = 0xfffff000
	metaType    = metaBase + 4
	metaIfindex = metaBase + 8
	metaTag     = metaBase + 44
	metaTagged  = metaBase + 48
)

// value gives what is at a place of Meta.
func (m *Meta) value(at uint32) uint32 {
	switch at {
	case metaType:
		return uint32(m.Type)
	case metaIfindex:
		return m.Ifindex
	case metaTag:
		return uint32(m.TCI)
	case metaTagged:
		if m.Tagged {
			return 1
		}
	}
	return 0
}

// Filter is a compiled expression. It does not change; any number of goroutines may use it.
type Filter struct {
	expr  string
	root  *block
	order []*block // of the graph, each before those it jumps to
	prog  []step
	snap  uint32
}

// Compile translates an expression; the empty one matches every packet. Its error is an *Error.
func Compile(expr string, o Options) (*Filter, error) {
	n, err := parse(expr)
	if err != nil {
		return nil, err
	}
	t := constant(true)
	if n != nil {
		g := newGen(expr, &o)
		if t = g.node(n); g.err != nil {
			return nil, g.err
		}
	}
	f := &Filter{expr: expr, snap: o.Snaplen}
	if f.snap == 0 {
		f.snap = 262144
	}
	f.root = graph(t)
	if !o.Unoptimized {
		f.root = optimize(f.root)
		if f.root.end() && !f.root.verdict {
			return nil, &Error{Expr: expr, End: len(expr), Msg: "no packet can match this"}
		}
	}
	f.order = topological(f.root)
	f.prog = layout(f.order)
	return f, nil
}

// String gives the expression.
func (f *Filter) String() string { return f.expr }

// Classic gives the program in classic BPF, for SO_ATTACH_FILTER or for x/net/bpf: it returns Options.Snaplen for a match
// and 0 otherwise. The error is about a program longer than the kernel takes (4096 instructions).
func (f *Filter) Classic() ([]bpf.RawInstruction, error) { return classic(f.order, f.snap) }
