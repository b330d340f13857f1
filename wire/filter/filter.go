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
	// Unoptimized leaves the program as the expression has it.
	Unoptimized bool
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
