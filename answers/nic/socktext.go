package nic

import (
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/fathom-trace/fathom/internal/jsonl"
	netnic "github.com/fathom-trace/fathom/netstate/nic"
)

// Families of sockets, of which some are named (include/linux/socket.h).
const (
	afUnix    = 1
	afINET    = 2
	afINET6   = 10
	afNetlink = 16
	afPacket  = 17

	sockRaw = 3 // SOCK_RAW
)

// familyNames are other families, whose sockets are told of as they are made.
var familyNames = map[uint64]string{3: "ax25", 9: "x25", 15: "key", 21: "rds", 29: "can", 30: "tipc", 31: "bluetooth", 33: "rxrpc", 38: "alg", 39: "nfc", 40: "vsock", 41: "kcm",
	42: "qipcrtr", 43: "smc", 44: "xdp", 45: "mctp"}

// netlinkNames are the protocols of netlink (include/uapi/linux/netlink.h).
var netlinkNames = map[uint64]string{0: "route", 2: "usersock", 4: "sock_diag", 6: "xfrm", 7: "selinux", 8: "iscsi", 9: "audit", 10: "fib_lookup", 11: "connector", 12: "netfilter",
	14: "dnrtmsg", 15: "kobject_uevent", 16: "generic", 18: "scsitransport", 20: "rdma", 21: "crypto", 22: "smc"}

// protoName names a kind of socket.
func protoName(family, typ, protocol uint64) string {
	switch family {
	case afUnix:
		return "unix"
	case afINET, afINET6:
		name, ok := map[uint64]string{1: "icmp", 2: "igmp", 6: "tcp", 17: "udp", 58: "icmp", 132: "sctp", 136: "udplite", 262: "mptcp"}[protocol]
		switch {
		case ok:
		case protocol == 0 && typ == 1:
			name = "tcp"
		case protocol == 0 && typ == 2:
			name = "udp"
		default:
			name = fmt.Sprintf("protocol %d", protocol)
		}
		if typ == sockRaw {
			name = "raw " + name
		}
		if family == afINET6 {
			name += " of IPv6"
		}
		return name
	case afNetlink:
		if n, ok := netlinkNames[protocol]; ok {
			return "netlink " + n
		}
		return fmt.Sprintf("netlink %d", protocol)
	case afPacket:
		if protocol == 0 {
			return "packet"
		}
		return fmt.Sprintf("packet 0x%04x", protocol)
	}
	if n, ok := familyNames[family]; ok {
		return n
	}
	return fmt.Sprintf("family %d", family)
}

// how says how a socket was made.
func (s *KernelSocket) how() string {
	if s.Orphan {
		return "no process has it"
	}
	if s.Kern {
		return "as the kernel's"
	}
	return "as a process's"
}

// holds says if it holds its namespace.
func (s *KernelSocket) holds() string {
	if s.HoldsNS {
		return "held"
	}
	return ""
}

// WriteText writes an event for people: a line, and with stack the way through the kernel.
func (e *SocketEvent) WriteText(w io.Writer, stack bool) error {
	var b strings.Builder
	by := e.By.String()
	if by == "" {
		by = "code that was not seen"
	}
	switch e.What {
	case "made":
		fmt.Fprintf(&b, "made      %s, %s, by %s", e.Proto, e.how(), by)
	default:
		fmt.Fprintf(&b, "%-9s %s %s, for %s", e.What, e.Proto, e.address(), by)
	}
	fmt.Fprintf(&b, ", while %s[%d] ran", e.Comm, e.PID)
	if e.NetNS != 0 {
		fmt.Fprintf(&b, "; namespace %d", e.NetNS)
	}
	b.WriteByte('\n')
	if stack {
		for _, p := range e.Stack {
			fmt.Fprintf(&b, "            %s\n", p)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// WriteSockets writes sockets of the kernel for people.
func WriteSockets(w io.Writer, socks []KernelSocket, missing []netnic.Missing) error {
	var b strings.Builder
	t := newTable()
	t.row("socket", "state", "address", "made", "namespace", "inode", "what comes in goes to")
	for i := range socks {
		s := &socks[i]
		inode := ""
		if s.Inode != 0 {
			inode = fmt.Sprint(s.Inode)
		}
		t.row(s.Proto, s.State, s.address(), s.how(), s.holds(), inode, s.Receives.String())
	}
	t.write(&b, "")
	for _, m := range missing {
		fmt.Fprintf(&b, "missing  %s: %s\n", m.What, m.Why)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// socketJSON is the JSON form of a socket and of an event.
type socketJSON struct {
	Type      string  `json:"type"`
	What      string  `json:"what,omitempty"`
	AtNS      uint64  `json:"at_ns,omitempty"`
	Proto     string  `json:"proto"`
	State     string  `json:"state,omitempty"`
	Local     string  `json:"local,omitempty"`
	Remote    string  `json:"remote,omitempty"`
	Path      string  `json:"path,omitempty"`
	Kernel    bool    `json:"kern"`
	HoldsNS   bool    `json:"holds_netns"`
	Orphan    bool    `json:"orphan,omitempty"`
	NetNS     uint32  `json:"netns_inode,omitempty"`
	Inode     uint64  `json:"inode,omitempty"`
	Receives  *Place  `json:"receives,omitempty"`
	PID       int     `json:"pid,omitempty"`
	Comm      string  `json:"comm,omitempty"`
	By        *Place  `json:"by,omitempty"`
	KernStack []Place `json:"kstack,omitempty"`
}

func (s *KernelSocket) json() socketJSON {
	text := func(a netip.AddrPort) string {
		if !a.IsValid() {
			return ""
		}
		return a.String()
	}
	j := socketJSON{Type: "socket", Proto: s.Proto, State: s.State, Local: text(s.Local), Remote: text(s.Remote), Path: s.Path, Kernel: s.Kern, HoldsNS: s.HoldsNS, Orphan: s.Orphan, NetNS: uint32(s.NetNS), Inode: s.Inode}
	if s.Receives != (Place{}) {
		j.Receives = &s.Receives
	}
	return j
}

// WriteJSON writes an event as a line of type "socket_event".
func (e *SocketEvent) WriteJSON(w io.Writer) error {
	j := e.json()
	j.Type, j.What, j.AtNS, j.PID, j.Comm, j.KernStack = "socket_event", e.What, e.At, e.PID, e.Comm, e.Stack
	if e.By != (Place{}) {
		j.By = &e.By
	}
	return jsonl.Write(w, j)
}

// WriteSocketsJSON writes sockets of the kernel as lines of type "socket", then what is missing, and "sockets", the end.
func WriteSocketsJSON(w io.Writer, socks []KernelSocket, missing []netnic.Missing, lost uint64) error {
	e := jsonl.NewEncoder(w)
	for i := range socks {
		if err := e.Encode(socks[i].json()); err != nil {
			return err
		}
	}
	for _, m := range missing {
		if err := e.Encode(map[string]string{"type": "missing", "what": m.What, "why": m.Why}); err != nil {
			return err
		}
	}
	return e.Encode(map[string]any{"type": "sockets", "sockets": len(socks), "lost": lost})
}
