// Package changes tells what changes in the network of one or more namespaces, in the kernel's sysctls and among its
// modules, as it happens: addresses, links, routes, neighbours and rules by the multicast groups of rtnetlink(7), modules by
// uevents, sysctls by fanotify(7) and by reading them again, namespaces by their numbers. It reads only; the one thing it
// asks the kernel to make is a number (nsid) for each namespace it is to listen to, which goes with that namespace.
//
// All namespaces are listened to from the caller's own (NETLINK_LISTEN_ALL_NSID, Linux 4.2): a socket inside a namespace
// would keep it alive, and with it the devices and addresses whose end is to be told.
//
// Who made a change is not known here beyond the port of a netlink request. A Change carries the message it was decoded
// from, by which others can find out.
package changes

import (
	"time"

	"github.com/fathom-trace/fathom/netstate"
)

// Kind is what changed.
type Kind string

// Kinds.
const (
	Addr   Kind = "addr"
	Link   Kind = "link"
	Route  Kind = "route"
	Neigh  Kind = "neigh"
	Rule   Kind = "rule"
	Sysctl Kind = "sysctl"
	NetNS  Kind = "netns"
	Module Kind = "module"
)

// Kinds are all there are, in the order people think of them.
var Kinds = [...]Kind{Addr, Link, Route, Neigh, Rule, Sysctl, NetNS, Module}

// Act is what happened to it.
type Act string

// Acts.
const (
	Added   Act = "added"
	Removed Act = "removed"
	Changed Act = "changed"
)

// Silent says why no message of the kernel's told of a change.
type Silent string

// Reasons of silence.
const (
	Told     Silent = ""            // there was one
	NSGone   Silent = "namespace"   // the namespace was deleted with all that was in it
	Followed Silent = "consequence" // the kernel tells of the cause only: IPv4 routes of a link that goes down
	Overrun  Silent = "overrun"     // messages were lost; this is the difference between before and now
	Polled   Silent = "polled"      // found by reading again
)

// Change is one change. What is about the object before and after is in Old and New; one of them is nil if it was added or
// removed.
type Change struct {
	Kind   Kind
	Act    Act
	Time   time.Time
	NS     netstate.Namespace
	Index  int    // of the link concerned; 0 is none
	Dev    string // its name, if known
	Old    *Object
	New    *Object
	Port   uint32 // nlmsg_pid: port of the socket whose request caused it; 0 is none, or one of the kernel itself
	PID    int    // of the process, where the kernel told it with the change (fanotify); 0 is not known
	Silent Silent
	Cause  *Change // of a silent change: what brought it about

	Socket uint64 // cookie of the socket that the message came through (SO_COOKIE); 0 without a message
	Msg    []byte // the message, at most MsgBytes of it
	// Boot is when it was received, by CLOCK_BOOTTIME in nanoseconds: programs in the kernel have the same clock.
	Boot uint64
}

// MsgBytes bounds Change.Msg.
const MsgBytes = 256

// Object is a thing that changed. One of the pointers is set, by the Kind.
type Object struct {
	Addr   *AddrInfo
	Link   *LinkInfo
	Route  *netstate.Route
	Neigh  *netstate.Neigh
	Rule   *netstate.Rule
	Sysctl *Setting
	NetNS  *netstate.Namespace
	Module string
}

// AddrInfo is an address with what only changes tell.
type AddrInfo struct {
	netstate.Addr
	Preferred time.Duration `json:"preferred_ns,omitempty"` // lifetime left; 0 is for ever, negative is none: deprecated
}

// LinkInfo is a link with what only changes tell.
type LinkInfo struct {
	netstate.Link
	Carrier bool `json:"carrier"`
	MovedTo *int `json:"moved_to_nsid,omitempty"` // of a removed link: the namespace it went to, as the one it left counts; nil if to none
}

// Setting is a sysctl: its name as sysctl(8) has it and its value, with its blanks as they are.
type Setting struct {
	Name  string
	Value string
}
