package changes

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/bin"
	"github.com/fathom-trace/fathom/netstate"
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

// attrs are the attributes of a message by type (struct nlattr); of a type that comes twice the last.
type attrs map[uint16][]byte

// attrMask takes NLA_F_NESTED and NLA_F_NET_BYTEORDER out of a type.
const attrMask = 0x3fff

func readAttrs(b []byte, base int) (attrs, error) {
	out := attrs{}
	for off := 0; off < len(b); {
		c := bin.NewCursorAt(b[off:], binary.NativeEndian, int64(base+off))
		n, typ := int(c.U16()), c.U16()&attrMask
		if c.OK() && (n < 4 || n > len(b)-off) {
			c.Fail("attribute %d of length %d, have %d", typ, n, len(b)-off)
		}
		if err := c.Err("netlink attribute"); err != nil {
			return out, err
		}
		out[typ] = b[off+4 : off+n]
		off += (n + 3) &^ 3
	}
	return out, nil
}

func (a attrs) u32(typ uint16) uint32 {
	if b := a[typ]; len(b) >= 4 {
		return binary.NativeEndian.Uint32(b)
	}
	return 0
}

func (a attrs) str(typ uint16) string {
	s, _, _ := strings.Cut(string(a[typ]), "\x00")
	return s
}

func (a attrs) ip(typ uint16) netip.Addr {
	ip, _ := netip.AddrFromSlice(a[typ])
	return ip
}

// prefix gives a prefix whose address may be missing: then it is zero, of the family.
func (a attrs) prefix(typ uint16, family, bits int) (netip.Prefix, bool) {
	ip := a.ip(typ)
	if !ip.IsValid() {
		ip = netip.IPv4Unspecified()
		if family == unix.AF_INET6 {
			ip = netip.IPv6Unspecified()
		}
	}
	p := netip.PrefixFrom(ip, bits)
	return p, p.IsValid()
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
	if len(m.payload) < row.fixed {
		return nil, &bin.FormatError{What: string(row.kind) + " message", Off: headerLen, Msg: fmt.Sprintf("need %d bytes, have %d", row.fixed, len(m.payload))}
	}
	a, err := readAttrs(m.payload[row.fixed:], headerLen+row.fixed)
	if err != nil {
		return nil, err
	}
	ev := &event{kind: row.kind, removed: row.removed, replace: m.Flags&unix.NLM_F_REPLACE != 0}
	if !row.read(ev, m.payload, a) {
		return nil, nil
	}
	return ev, nil
}

// decoder reads one type of message: fixed bytes, then attributes. read says if the message is of interest.
type decoder struct {
	kind    Kind
	removed bool
	fixed   int
	read    func(ev *event, b []byte, a attrs) bool
}

// decoders by message type (include/uapi/linux/rtnetlink.h).
var decoders = map[uint16]decoder{
	unix.RTM_NEWADDR:  {Addr, false, 8, readAddr},
	unix.RTM_DELADDR:  {Addr, true, 8, readAddr},
	unix.RTM_NEWLINK:  {Link, false, 16, readLink},
	unix.RTM_DELLINK:  {Link, true, 16, readLink},
	unix.RTM_NEWROUTE: {Route, false, 12, readRoute},
	unix.RTM_DELROUTE: {Route, true, 12, readRoute},
	unix.RTM_NEWNEIGH: {Neigh, false, 12, readNeigh},
	unix.RTM_DELNEIGH: {Neigh, true, 12, readNeigh},
	unix.RTM_NEWRULE:  {Rule, false, 12, readRule},
	unix.RTM_DELRULE:  {Rule, true, 12, readRule},
	unix.RTM_NEWNSID:  {NetNS, false, 4, readNSID},
	unix.RTM_DELNSID:  {NetNS, true, 4, readNSID},
}

func u32(b []byte) uint32 { return binary.NativeEndian.Uint32(b) }

// forever is INFINITY_LIFE_TIME (include/net/addrconf.h).
const forever = 0xffffffff

// readAddr reads struct ifaddrmsg (include/uapi/linux/if_addr.h).
func readAddr(ev *event, b []byte, a attrs) bool {
	family, bits := int(b[0]), int(b[1])
	if family != unix.AF_INET && family != unix.AF_INET6 {
		return false
	}
	local, remote := a.ip(unix.IFA_LOCAL), a.ip(unix.IFA_ADDRESS)
	if !local.IsValid() {
		local = remote
	}
	x := &AddrInfo{Addr: netstate.Addr{Link: int(u32(b[4:])), Prefix: netip.PrefixFrom(local, bits), Broadcast: a.ip(unix.IFA_BROADCAST), Flags: uint32(b[2]), Scope: b[3]}}
	if !x.Prefix.IsValid() {
		return false
	}
	if remote.IsValid() && remote != local {
		x.Peer = remote
	}
	if _, ok := a[unix.IFA_FLAGS]; ok {
		x.Flags = a.u32(unix.IFA_FLAGS)
	}
	if c := a[unix.IFA_CACHEINFO]; len(c) >= 8 { // struct ifa_cacheinfo: ifa_prefered, ifa_valid, …
		if v := u32(c[4:]); v != forever {
			x.Valid = time.Duration(v) * time.Second
		}
		switch p := u32(c); p {
		case forever:
		case 0:
			x.Preferred = -1
		default:
			x.Preferred = time.Duration(p) * time.Second
		}
	}
	ev.index, ev.obj = x.Link, &Object{Addr: x}
	return true
}

// Attributes that golang.org/x/sys/unix does not name (include/uapi/linux/if_link.h).
const (
	iflaNewNetNSID  = 45 // IFLA_NEW_NETNSID
	iflaNewIfindex  = 49
	iflaCarrier     = 33
	iflaLinkNetNSID = 37
	infoKind        = 1 // IFLA_INFO_KIND
)

// operStates are IF_OPER_… (include/uapi/linux/if.h).
var operStates = [...]string{"unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up"}

// readLink reads struct ifinfomsg (include/uapi/linux/rtnetlink.h). Messages of another family are about a bridge's ports.
func readLink(ev *event, b []byte, a attrs) bool {
	if b[0] != unix.AF_UNSPEC {
		return false
	}
	l := netstate.Link{
		Index: int(u32(b[4:])), Flags: u32(b[8:]), Name: a.str(unix.IFLA_IFNAME), MTU: int(a.u32(unix.IFLA_MTU)),
		Master: int(a.u32(unix.IFLA_MASTER)), Lower: int(a.u32(unix.IFLA_LINK)), TxQLen: int(a.u32(unix.IFLA_TXQLEN)),
	}
	if mac := a[unix.IFLA_ADDRESS]; len(mac) > 0 {
		l.MAC = net.HardwareAddr(mac).String()
	}
	if s := a[unix.IFLA_OPERSTATE]; len(s) > 0 && int(s[0]) < len(operStates) {
		l.Oper = operStates[s[0]]
	}
	if info, err := readAttrs(a[unix.IFLA_LINKINFO], 0); err == nil {
		l.Kind = info.str(infoKind)
	}
	x := &LinkInfo{Link: l, MovedTo: -1}
	if c := a[iflaCarrier]; len(c) > 0 {
		x.Carrier = c[0] != 0
	}
	if _, ok := a[iflaNewNetNSID]; ok && ev.removed {
		x.MovedTo = int(int32(a.u32(iflaNewNetNSID)))
	}
	ev.index, ev.obj = l.Index, &Object{Link: x}
	return true
}

// routeTypes are RTN_… (include/uapi/linux/rtnetlink.h).
var routeTypes = [...]string{"unspec", "unicast", "local", "broadcast", "anycast", "multicast", "blackhole", "unreachable", "prohibit", "throw", "nat", "xresolve"}

func name(names []string, i byte) string {
	if int(i) < len(names) {
		return names[i]
	}
	return fmt.Sprint(i)
}

// families gives 4 and 6 for address families.
func families(af byte) (int, bool) {
	switch af {
	case unix.AF_INET:
		return 4, true
	case unix.AF_INET6:
		return 6, true
	}
	return 0, false
}

// readRoute reads struct rtmsg. Cached routes (RTM_F_CLONED) are none of the table's.
func readRoute(ev *event, b []byte, a attrs) bool {
	family, ok := families(b[0])
	dst, valid := a.prefix(unix.RTA_DST, int(b[0]), int(b[1]))
	if !ok || !valid || u32(b[8:])&unix.RTM_F_CLONED != 0 {
		return false
	}
	r := &netstate.Route{
		Family: family, Table: int(b[4]), Type: name(routeTypes[:], b[7]), Dst: dst, Via: a.ip(unix.RTA_GATEWAY),
		Link: int(a.u32(unix.RTA_OIF)), Src: a.ip(unix.RTA_PREFSRC), Metric: int(a.u32(unix.RTA_PRIORITY)), Proto: int(b[5]),
	}
	if _, ok := a[unix.RTA_TABLE]; ok {
		r.Table = int(a.u32(unix.RTA_TABLE))
	}
	if v := a[unix.RTA_VIA]; len(v) > 2 && !r.Via.IsValid() { // struct rtvia: family, then the address
		r.Via, _ = netip.AddrFromSlice(v[2:])
	}
	if m, err := readAttrs(a[unix.RTA_METRICS], 0); err == nil {
		r.MTU = int(m.u32(unix.RTAX_MTU))
	}
	r.Hops = readHops(a[unix.RTA_MULTIPATH])
	ev.index, ev.obj = r.Link, &Object{Route: r}
	return true
}

// readHops reads a row of struct rtnexthop: length, flags, hops, ifindex, then attributes.
func readHops(b []byte) (hops []netstate.Hop) {
	for len(b) >= 8 {
		n := int(binary.NativeEndian.Uint16(b))
		if n < 8 || n > len(b) {
			return hops
		}
		h := netstate.Hop{Link: int(u32(b[4:]))}
		if a, err := readAttrs(b[8:n], 0); err == nil {
			h.Via = a.ip(unix.RTA_GATEWAY)
		}
		hops = append(hops, h)
		b = b[min(len(b), (n+3)&^3):]
	}
	return hops
}

// neighStates are NUD_… (include/uapi/linux/neighbour.h), one bit each.
var neighStates = [...]string{"incomplete", "reachable", "stale", "delay", "probe", "failed", "noarp", "permanent"}

// readNeigh reads struct ndmsg.
func readNeigh(ev *event, b []byte, a attrs) bool {
	addr := a.ip(unix.NDA_DST)
	if _, ok := families(b[0]); !ok || !addr.IsValid() {
		return false
	}
	n := &netstate.Neigh{Link: int(u32(b[4:])), Addr: addr, State: "none"}
	state := binary.NativeEndian.Uint16(b[8:])
	for i, s := range neighStates {
		if state&(1<<i) != 0 {
			n.State = s
		}
	}
	if mac := a[unix.NDA_LLADDR]; len(mac) > 0 {
		n.MAC = net.HardwareAddr(mac).String()
	}
	ev.index, ev.obj = n.Link, &Object{Neigh: n}
	return true
}

// Attributes of rules (include/uapi/linux/fib_rules.h).
const (
	fraDst, fraSrc, fraIIF, fraGoto     = 1, 2, 3, 4
	fraPriority, fraMark, fraTable      = 6, 10, 15
	fraMask, fraOIF, fraL3MDev, fraUIDs = 16, 17, 19, 20
	fraProto, fraSport, fraDport        = 22, 23, 24
	fraSuppressPrefix                   = 14
	ruleInvert                          = 2 // FIB_RULE_INVERT
)

// ruleActions are FR_ACT_….
var ruleActions = [...]string{"unspec", "lookup", "goto", "nop", "res3", "res4", "blackhole", "unreachable", "prohibit"}

// readRule reads struct fib_rule_hdr.
func readRule(ev *event, b []byte, a attrs) bool {
	family, ok := families(b[0])
	if !ok {
		return false
	}
	r := &netstate.Rule{
		Family: family, Priority: int(a.u32(fraPriority)), IIF: a.str(fraIIF), OIF: a.str(fraOIF), Mark: a.u32(fraMark), Mask: a.u32(fraMask),
		Invert: u32(b[8:])&ruleInvert != 0, Action: name(ruleActions[:], b[7]), Table: int(b[4]),
	}
	if _, ok := a[fraTable]; ok {
		r.Table = int(a.u32(fraTable))
	}
	if _, ok := a[fraSrc]; ok {
		r.From, _ = a.prefix(fraSrc, int(b[0]), int(b[2]))
	}
	if _, ok := a[fraDst]; ok {
		r.To, _ = a.prefix(fraDst, int(b[0]), int(b[1]))
	}
	r.Text = ruleText(r, a)
	ev.obj = &Object{Rule: r}
	return true
}

// ruleText writes a rule as ip-rule(8) takes it, without its priority.
func ruleText(r *netstate.Rule, a attrs) string {
	var t []string
	add := func(on bool, format string, args ...any) {
		if on {
			t = append(t, fmt.Sprintf(format, args...))
		}
	}
	add(r.Invert, "not")
	add(!r.From.IsValid(), "from all")
	add(r.From.IsValid(), "from %s", host(r.From))
	add(r.To.IsValid(), "to %s", host(r.To))
	switch {
	case r.Mask != 0 && r.Mask != forever:
		add(true, "fwmark %#x/%#x", r.Mark, r.Mask)
	case r.Mark != 0:
		add(true, "fwmark %#x", r.Mark)
	}
	add(r.IIF != "", "iif %s", r.IIF)
	add(r.OIF != "", "oif %s", r.OIF)
	add(len(a[fraL3MDev]) > 0 && a[fraL3MDev][0] != 0, "lookup [l3mdev-table]")
	if v := a[fraUIDs]; len(v) >= 8 {
		add(true, "uidrange %d-%d", u32(v), u32(v[4:]))
	}
	if v := a[fraProto]; len(v) > 0 {
		add(true, "ipproto %d", v[0])
	}
	for _, p := range []struct {
		typ  uint16
		name string
	}{{fraSport, "sport"}, {fraDport, "dport"}} {
		if v := a[p.typ]; len(v) >= 4 { // struct fib_rule_port_range
			add(true, "%s %d-%d", p.name, binary.NativeEndian.Uint16(v), binary.NativeEndian.Uint16(v[2:]))
		}
	}
	add(r.Action == "lookup" && r.Table != 0, "lookup %s", TableName(r.Table))
	add(r.Action == "goto", "goto %d", a.u32(fraGoto))
	add(r.Action != "lookup" && r.Action != "goto", "%s", r.Action)
	if v, ok := a[fraSuppressPrefix]; ok && len(v) >= 4 && u32(v) != forever {
		add(true, "suppress_prefixlength %d", u32(v))
	}
	return strings.Join(t, " ")
}

// host leaves the length of a prefix out that is a single address.
func host(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
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
	return fmt.Sprint(t)
}

// Attributes of namespace numbers (include/uapi/linux/net_namespace.h).
const (
	netnsaNSID = 1
	netnsaFD   = 3
)

// readNSID reads struct rtgenmsg and NETNSA_….
func readNSID(ev *event, _ []byte, a attrs) bool {
	if len(a[netnsaNSID]) < 4 {
		return false
	}
	ev.nsid = int(int32(a.u32(netnsaNSID)))
	return true
}
