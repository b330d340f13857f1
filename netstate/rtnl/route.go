package rtnl

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/fathom-trace/fathom/netstate"
	"github.com/fathom-trace/fathom/netstate/nlattr"
)

// Address families.
const (
	afINet  = 2
	afINet6 = 10
)

// family is 4 or 6; 0 is neither.
func family(af uint8) int {
	switch af {
	case afINet:
		return 4
	case afINet6:
		return 6
	}
	return 0
}

// addr reads an address; not valid if it is none.
func addr(d []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(d)
	return a
}

// prefix reads an address and the length of a prefix. With no address it is that of everything.
func prefix(fam int, d []byte, bits uint8) netip.Prefix {
	a := addr(d)
	if !a.IsValid() {
		a = netip.IPv4Unspecified()
		if fam == 6 {
			a = netip.IPv6Unspecified()
		}
	}
	return netip.PrefixFrom(a, int(bits))
}

const (
	ifaAddress   = 1
	ifaLocal     = 2
	ifaBroadcast = 4
	ifaCacheInfo = 6
	ifaFlags     = 8
	forEver      = 1<<32 - 1
)

// DecodeAddr reads an RTM_NEWADDR message (struct ifaddrmsg). ok is false for families other than IP.
func DecodeAddr(b []byte) (out netstate.Addr, ok bool, err error) {
	const ifaddrmsg = 8
	a, err := nlattr.ParseAt(b, ifaddrmsg)
	if err != nil {
		return out, false, err
	}
	fam := family(b[0])
	if fam == 0 {
		return out, false, nil
	}
	out = netstate.Addr{Link: int(nlattr.U32(b[4:])), Flags: uint32(b[2]), Scope: b[3], Broadcast: addr(a.Get(ifaBroadcast))}
	local, remote := a.Get(ifaLocal), a.Get(ifaAddress)
	if local == nil {
		local = remote
	}
	out.Prefix = prefix(fam, local, b[1])
	if p := addr(remote); p != out.Prefix.Addr() { // point to point
		out.Peer = p
	}
	if a.Has(ifaFlags) {
		out.Flags = a.U32(ifaFlags)
	}
	if c := a.Get(ifaCacheInfo); len(c) >= 8 { // struct ifa_cacheinfo: preferred, valid in seconds
		if s := nlattr.U32(c[4:]); s != forEver {
			out.Valid = time.Duration(s) * time.Second
		}
	}
	return out, true, nil
}

const (
	rtaDst       = 1
	rtaSrc       = 2
	rtaOIF       = 4
	rtaGateway   = 5
	rtaPriority  = 6
	rtaPrefSrc   = 7
	rtaMetrics   = 8
	rtaMultipath = 9
	rtaTable     = 15
	rtaVia       = 18
	rtaPref      = 20
	rtaNHID      = 30
	rtaxMTU      = 2
	rtmFCloned   = 0x200
)

var routeTypes = []string{"unspec", "unicast", "local", "broadcast", "anycast", "multicast", "blackhole", "unreachable", "prohibit", "throw", "nat", "xresolve"}

// DecodeRoute reads an RTM_NEWROUTE message (struct rtmsg). ok is false for families other than IP and for cached routes.
func DecodeRoute(b []byte) (r netstate.Route, ok bool, err error) {
	const rtmsg = 12
	a, err := nlattr.ParseAt(b, rtmsg)
	if err != nil {
		return r, false, err
	}
	fam := family(b[0])
	if flags := nlattr.U32(b[8:]); fam == 0 || flags&rtmFCloned != 0 {
		return r, false, nil
	}
	r = netstate.Route{
		Family: fam, Table: int(b[4]), Proto: int(b[5]), Scope: b[6], Type: name(routeTypes, int(b[7])), TOS: b[3],
		Dst: prefix(fam, a.Get(rtaDst), b[1]), Via: via(a), Link: int(a.U32(rtaOIF)), Src: addr(a.Get(rtaPrefSrc)),
		Metric: int(a.U32(rtaPriority)), Flags: nlattr.U32(b[8:]) & 0xff, MTU: int(a.Nested(rtaMetrics).U32(rtaxMTU)),
		Pref: a.U8(rtaPref), NHID: a.U32(rtaNHID),
	}
	if t := a.U32(rtaTable); t != 0 {
		r.Table = int(t)
	}
	if b[2] != 0 {
		r.From = prefix(fam, a.Get(rtaSrc), b[2])
	}
	r.Hops, err = hops(a.Get(rtaMultipath))
	return r, true, err
}

// via reads a gateway, which may be of another family than the route.
func via(a nlattr.Attrs) netip.Addr {
	if v := a.Get(rtaVia); len(v) > 2 { // struct rtvia
		return addr(v[2:])
	}
	return addr(a.Get(rtaGateway))
}

// hops reads struct rtnexthop one after the other.
func hops(b []byte) ([]netstate.Hop, error) {
	const rtnexthop = 8
	var out []netstate.Hop
	for len(b) >= rtnexthop {
		n := int(nlattr.U16(b))
		if n < rtnexthop || n > len(b) {
			break
		}
		a, err := nlattr.Parse(b[rtnexthop:n])
		if err != nil {
			return out, err
		}
		out = append(out, netstate.Hop{Via: via(a), Link: int(nlattr.U32(b[4:])), Weight: int(b[3]) + 1, Flags: uint32(b[2])})
		b = b[min((n+3)&^3, len(b)):]
	}
	return out, nil
}

const (
	ndaDst    = 1
	ndaLLAddr = 2
	ndaVLAN   = 5
)

var neighStates = map[uint16]string{
	0: "none", 1: "incomplete", 2: "reachable", 4: "stale", 8: "delay", 16: "probe", 32: "failed", 64: "noarp", 128: "permanent",
}

// DecodeNeigh reads an RTM_NEWNEIGH message (struct ndmsg). ok is false for what is no neighbour of IP.
func DecodeNeigh(b []byte) (n netstate.Neigh, ok bool, err error) {
	const ndmsg = 12
	a, err := nlattr.ParseAt(b, ndmsg)
	if err != nil || family(b[0]) == 0 {
		return n, false, err
	}
	n = netstate.Neigh{
		Link: int(nlattr.U32(b[4:])), Addr: addr(a.Get(ndaDst)), MAC: nlattr.MAC(a.Get(ndaLLAddr)), State: neighStates[nlattr.U16(b[8:])],
	}
	return n, n.Addr.IsValid(), nil
}

// DecodeFDB reads an RTM_NEWNEIGH message of AF_BRIDGE. ok is false for what is in no bridge's table: a device's own list
// (NTF_SELF), as that of a VXLAN device.
func DecodeFDB(b []byte) (f netstate.FDB, ok bool, err error) {
	const ndmsg, afBridge, ntfSelf = 12, 7, 2
	a, err := nlattr.ParseAt(b, ndmsg)
	if err != nil || b[0] != afBridge || b[10]&ntfSelf != 0 {
		return f, false, err
	}
	kind := "learned"
	switch nlattr.U16(b[8:]) {
	case 64: // NUD_NOARP
		kind = "static"
	case 128: // NUD_PERMANENT
		kind = "local"
	}
	return netstate.FDB{Port: int(nlattr.U32(b[4:])), MAC: nlattr.MAC(a.Get(ndaLLAddr)), VLAN: a.U16(ndaVLAN), Kind: kind}, true, nil
}

// header is a fixed header that begins with an address family.
func header(af uint8, n int) []byte {
	b := make([]byte, n)
	b[0] = af
	return b
}

// Request is the body of a dump request that asks for one address family (AF_UNSPEC: all): struct rtmsg, ifinfomsg and
// their like begin with it and are of at most this size.
func Request(af uint8) []byte { return header(af, 16) }

// BridgeRequest asks for the links of bridges with their VLANs (RTEXT_FILTER_BRVLAN).
func BridgeRequest() []byte {
	const (
		afBridge     = 7
		iflaExtMask  = 29
		filterBRVLAN = 2
	)
	return nlattr.AppendU32(header(afBridge, 16), iflaExtMask, filterBRVLAN)
}

// TCRequest is the body of a dump of what traffic control has on a link below a parent (struct tcmsg).
func TCRequest(index int, parent uint32) []byte {
	b := header(0, tcmsg)
	binary.LittleEndian.PutUint32(b[4:], uint32(index))
	binary.LittleEndian.PutUint32(b[12:], parent)
	return b
}
