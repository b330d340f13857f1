package changes

import (
	"encoding/binary"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/bin"
	"github.com/fathom-trace/fathom/netstate/nlattr"
	"github.com/fathom-trace/fathom/netstate/rtnl"
)

// header is struct nlmsghdr (include/uapi/linux/netlink.h).
type header struct {
	Len   uint32
	Type  uint16
	Flags uint16
	Seq   uint32
	Port  uint32
}

const headerLen = 16

// message is one netlink message: its header and what follows.
type message struct {
	header
	whole   []byte // header included
	payload []byte
}

// split cuts what a socket gave into messages, which are aligned to four bytes.
func split(b []byte) ([]message, error) {
	var out []message
	for off := 0; off < len(b); {
		c := bin.NewCursorAt(b[off:], binary.NativeEndian, int64(off))
		h := header{c.U32(), c.U16(), c.U16(), c.U32(), c.U32()}
		if c.OK() && (h.Len < headerLen || int64(h.Len) > int64(len(b)-off)) {
			c.Fail("length %d, have %d", h.Len, len(b)-off)
		}
		if err := c.Err("netlink message"); err != nil {
			return out, err
		}
		end := off + int(h.Len)
		out = append(out, message{h, b[off:end], b[off+headerLen : end]})
		off += (int(h.Len) + 3) &^ 3
	}
	return out, nil
}

// event is a message as far as it tells by itself.
type event struct {
	kind    Kind
	removed bool
	replace bool // NLM_F_REPLACE: takes the place of another
	index   int
	obj     *Object
	nsid    int // of a namespace that went or came: kind NetNS
}

// decode reads a message of the groups listened to; a nil event is one that is of no interest here, such as the forwarding
// tables of bridges.
func decode(m message) (*event, error) {
	row, ok := decoders[m.Type]
	if !ok {
		return nil, nil
	}
	ev := &event{kind: row.kind, removed: row.removed, replace: m.Flags&unix.NLM_F_REPLACE != 0}
	if len(m.payload) == 0 {
		return nil, &bin.FormatError{What: string(row.kind) + " message", Off: headerLen, Msg: "no bytes"}
	}
	ok, err := row.read(ev, m.payload)
	if err != nil || !ok {
		return nil, err
	}
	return ev, nil
}

// decoder reads one type of message. read says if the message is of interest.
type decoder struct {
	kind    Kind
	removed bool
	read    func(ev *event, b []byte) (bool, error)
}

// decoders by message type (include/uapi/linux/rtnetlink.h).
var decoders = map[uint16]decoder{
	unix.RTM_NEWADDR:  {Addr, false, readAddr},
	unix.RTM_DELADDR:  {Addr, true, readAddr},
	unix.RTM_NEWLINK:  {Link, false, readLink},
	unix.RTM_DELLINK:  {Link, true, readLink},
	unix.RTM_NEWROUTE: {Route, false, readRoute},
	unix.RTM_DELROUTE: {Route, true, readRoute},
	unix.RTM_NEWNEIGH: {Neigh, false, readNeigh},
	unix.RTM_DELNEIGH: {Neigh, true, readNeigh},
	unix.RTM_NEWRULE:  {Rule, false, readRule},
	unix.RTM_DELRULE:  {Rule, true, readRule},
	unix.RTM_NEWNSID:  {NetNS, false, readNSID},
	unix.RTM_DELNSID:  {NetNS, true, readNSID},
}

// forever is INFINITY_LIFE_TIME (include/net/addrconf.h).
const forever = 0xffffffff

// readAddr reads struct ifaddrmsg (include/uapi/linux/if_addr.h).
func readAddr(ev *event, b []byte) (bool, error) {
	a, ok, err := rtnl.DecodeAddr(b)
	if err != nil || !ok || !a.Prefix.IsValid() {
		return false, err
	}
	x := &AddrInfo{Addr: a}
	attrs, err := nlattr.ParseAt(b, unix.SizeofIfAddrmsg)
	if err != nil {
		return false, err
	}
	if c := attrs.Get(unix.IFA_CACHEINFO); len(c) >= 8 { // struct ifa_cacheinfo: ifa_prefered, ifa_valid, …
		switch p := nlattr.U32(c); p {
		case forever:
		case 0:
			x.Preferred = -1
		default:
			x.Preferred = time.Duration(p) * time.Second
		}
	}
	ev.index, ev.obj = x.Link, &Object{Addr: x}
	return true, nil
}

// Attributes of links that golang.org/x/sys/unix does not name (include/uapi/linux/if_link.h).
const (
	iflaCarrier = 33
	iflaNewNSID = 45 // IFLA_NEW_NETNSID
)

// readLink reads struct ifinfomsg (include/uapi/linux/rtnetlink.h). Messages of another family are about a bridge's ports.
func readLink(ev *event, b []byte) (bool, error) {
	l, err := rtnl.DecodeLink(b)
	if err != nil || b[0] != unix.AF_UNSPEC {
		return false, err
	}
	attrs, err := nlattr.ParseAt(b, unix.SizeofIfInfomsg)
	if err != nil {
		return false, err
	}
	x := &LinkInfo{Link: l.Link, Carrier: attrs.U8(iflaCarrier) != 0}
	if attrs.Has(iflaNewNSID) && ev.removed {
		id := int(int32(attrs.U32(iflaNewNSID)))
		x.MovedTo = &id
	}
	ev.index, ev.obj = l.Index, &Object{Link: x}
	return true, nil
}

func readRoute(ev *event, b []byte) (bool, error) {
	r, ok, err := rtnl.DecodeRoute(b)
	ev.index, ev.obj = r.Link, &Object{Route: &r}
	return ok, err
}

func readNeigh(ev *event, b []byte) (bool, error) {
	n, ok, err := rtnl.DecodeNeigh(b)
	ev.index, ev.obj = n.Link, &Object{Neigh: &n}
	return ok, err
}

func readRule(ev *event, b []byte) (bool, error) {
	r, ok, err := rtnl.DecodeRule(b)
	ev.obj = &Object{Rule: &r}
	return ok, err
}

// Attributes of namespace numbers (include/uapi/linux/net_namespace.h).
const (
	netnsaNSID = 1
	netnsaFD   = 3
)

// readNSID reads struct rtgenmsg and NETNSA_….
func readNSID(ev *event, b []byte) (bool, error) {
	a, err := nlattr.ParseAt(b, 4)
	ev.nsid = int(int32(a.U32(netnsaNSID)))
	return err == nil && a.Has(netnsaNSID), err
}

// TableName names a routing table as iproute2 does without a configuration.
func TableName(t int) string {
	switch t {
	case unix.RT_TABLE_LOCAL:
		return "local"
	case unix.RT_TABLE_MAIN:
		return "main"
	case unix.RT_TABLE_DEFAULT:
		return "default"
	}
	return strconv.Itoa(t)
}
