package nft

import (
	"encoding/binary"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fathom-trace/fathom/netstate/nlattr"
)

// names of values, by type. What has no name is written as a number.
var names = map[uint32]map[uint64]string{
	tNFProto:   {2: "ipv4", 10: "ipv6"},
	tEtherType: {0x0800: "ip", 0x0806: "arp", 0x86dd: "ip6", 0x8100: "8021q", 0x88a8: "8021ad", 0x9100: "0x9100"},
	tARPOp:     {1: "request", 2: "reply", 3: "rrequest", 4: "rreply", 8: "inrequest", 9: "inreply", 10: "nak"},
	tProto: {
		0: "ip", 1: "icmp", 2: "igmp", 4: "ipencap", 6: "tcp", 17: "udp", 33: "dccp", 41: "ipv6", 47: "gre", 50: "esp", 51: "ah", 58: "ipv6-icmp", 89: "ospf",
		103: "pim", 108: "comp", 112: "vrrp", 115: "l2tp", 132: "sctp", 136: "udplite",
	},
	tICMPType: {
		0: "echo-reply", 3: "destination-unreachable", 4: "source-quench", 5: "redirect", 8: "echo-request", 9: "router-advertisement",
		10: "router-solicitation", 11: "time-exceeded", 12: "parameter-problem", 13: "timestamp-request", 14: "timestamp-reply",
		15: "info-request", 16: "info-reply", 17: "address-mask-request", 18: "address-mask-reply",
	},
	tICMP6Type: {
		1: "destination-unreachable", 2: "packet-too-big", 3: "time-exceeded", 4: "parameter-problem", 128: "echo-request", 129: "echo-reply",
		130: "mld-listener-query", 131: "mld-listener-report", 132: "mld-listener-done", 133: "nd-router-solicit", 134: "nd-router-advert",
		135: "nd-neighbor-solicit", 136: "nd-neighbor-advert", 137: "nd-redirect", 138: "router-renumbering", 141: "ind-neighbor-solicit",
		142: "ind-neighbor-advert", 143: "mld2-listener-report",
	},
	tICMPCode:  {0: "net-unreachable", 1: "host-unreachable", 2: "prot-unreachable", 3: "port-unreachable", 4: "frag-needed", 9: "net-prohibited", 10: "host-prohibited", 13: "admin-prohibited"},
	tICMP6Code: {0: "no-route", 1: "admin-prohibited", 3: "addr-unreachable", 4: "port-unreachable", 5: "policy-fail", 6: "reject-route"},
	tICMPxCode: {0: "no-route", 1: "port-unreachable", 2: "host-unreachable", 3: "admin-prohibited"},
	tCtDir:     {0: "original", 1: "reply"},
	tPktType:   {0: "host", 1: "broadcast", 2: "multicast", 3: "other"},
	tARPHRD:    {1: "ether", 512: "ppp", 768: "ipip", 769: "ipip6", 772: "loopback", 776: "sit", 778: "ipgre"},
	tDSCP: {
		0: "cs0", 8: "cs1", 16: "cs2", 24: "cs3", 32: "cs4", 40: "cs5", 48: "cs6", 56: "cs7", 1: "lephb", 10: "af11", 12: "af12", 14: "af13", 18: "af21",
		20: "af22", 22: "af23", 26: "af31", 28: "af32", 30: "af33", 34: "af41", 36: "af42", 38: "af43", 44: "va", 46: "ef",
	},
	tECN:     {0: "not-ect", 1: "ect1", 2: "ect0", 3: "ce"},
	tFIBAddr: {0: "unspec", 1: "unicast", 2: "local", 3: "broadcast", 4: "anycast", 5: "multicast", 6: "blackhole", 7: "unreachable", 8: "prohibit"},
	tBoolean: {0: "missing", 1: "exists"},
	tIGMPType: {
		0x11: "membership-query", 0x12: "membership-report-v1", 0x16: "membership-report-v2", 0x22: "membership-report-v3", 0x17: "leave-group",
	},
	tTimeDay:  {0: "Sunday", 1: "Monday", 2: "Tuesday", 3: "Wednesday", 4: "Thursday", 5: "Friday", 6: "Saturday"},
	tRealm:    {0: "cosmos"},
	tDevGroup: {0: "default"},
}

// flagNames are types whose values are sets of bits, in the order nft writes them.
var flagNames = map[uint32][]struct {
	bit  uint64
	name string
}{
	tTCPFlag: {{1, "fin"}, {2, "syn"}, {4, "rst"}, {8, "psh"}, {16, "ack"}, {32, "urg"}, {64, "ecn"}, {128, "cwr"}},
	tCtState: {{1, "invalid"}, {2, "established"}, {4, "related"}, {8, "new"}, {64, "untracked"}},
	tCtStatus: {
		{1, "expected"}, {2, "seen-reply"}, {4, "assured"}, {8, "confirmed"}, {16, "snat"}, {32, "dnat"}, {512, "dying"},
	},
}

// hostOrder are the types whose values are numbers in the machine's byte order.
var hostOrder = []uint32{
	tMark, tIfindex, tARPHRD, tRealm, tClassID, tUID, tGID, tCtState, tCtDir, tCtStatus, tPktType, tDevGroup, tFIBAddr, tHostNumber, tTime,
	tTimeDate, tTimeHour, tTimeDay, tCgroup2,
}

// number reads a value; big says that it is in network order whatever its type.
func number(typ uint32, big bool, d []byte) uint64 {
	var b [8]byte
	if !big && slices.Contains(hostOrder, typ) {
		copy(b[:], d)
		return binary.LittleEndian.Uint64(b[:])
	}
	copy(b[max(0, 8-len(d)):], d[max(0, len(d)-8):])
	return binary.BigEndian.Uint64(b[:])
}

// value writes a value of a type as nft does; times of day are UTC.
func value(typ uint32, bigEndian bool, d []byte) string {
	switch typ {
	case tIPAddr, tIP6Addr:
		if a, ok := netip.AddrFromSlice(d); ok {
			return a.String()
		}
	case tEtherAddr, tLLAddr:
		return nlattr.MAC(d)
	case tIfname, tString:
		return ifname(d)
	}
	n := number(typ, bigEndian, d)
	switch typ {
	case tTimeDate:
		return time.Unix(0, int64(n)).UTC().Format(`"2006-01-02 15:04:05"`)
	case tTimeHour:
		return time.Unix(int64(n), 0).UTC().Format(`"15:04"`)
	case tTimeDay:
		return `"` + time.Weekday(n%7).String() + `"`
	}
	if s, ok := names[typ][n]; ok {
		return s
	}
	switch typ {
	case tMark:
		return fmt.Sprintf("0x%08x", n)
	case tHex, tEtherType:
		return fmt.Sprintf("%#x", n)
	case tTCPFlag, tCtState, tCtStatus:
		return flags(typ, n)
	case tDSCP, tBitmask:
		return fmt.Sprintf("0x%02x", n)
	case tClassID:
		return classID(n)
	case tTime:
		return duration(n / 1000)
	case tCtLabel:
		return label(d)
	}
	if len(d) > 8 {
		return new(big.Int).SetBytes(d).String()
	}
	return strconv.FormatUint(n, 10)
}

// ifname writes a name; one without a NUL at the end is that of every device that begins so.
func ifname(d []byte) string {
	s, _, ended := strings.Cut(string(d), "\x00")
	if !ended && len(d) < 16 {
		s += "*"
	}
	return `"` + s + `"`
}

func flags(typ uint32, n uint64) string {
	var out []string
	for _, f := range flagNames[typ] {
		if n&f.bit != 0 {
			out, n = append(out, f.name), n&^f.bit
		}
	}
	if n != 0 || out == nil {
		out = append(out, fmt.Sprintf("0x%x", n))
	}
	return strings.Join(out, ",")
}

func classID(n uint64) string {
	switch n {
	case 0:
		return "none"
	case 0xffffffff:
		return "root"
	}
	if n&0xffff == 0 {
		return fmt.Sprintf("%x:", n>>16)
	}
	return fmt.Sprintf("%x:%x", n>>16, n&0xffff)
}

// duration writes seconds as nft does: "1d2h3m4s".
func duration(s uint64) string {
	if s == 0 {
		return "0s"
	}
	var b strings.Builder
	for _, u := range []struct {
		n    uint64
		unit string
	}{{86400, "d"}, {3600, "h"}, {60, "m"}, {1, "s"}} {
		if s >= u.n {
			fmt.Fprintf(&b, "%d%s", s/u.n, u.unit)
			s %= u.n
		}
	}
	return b.String()
}

func label(d []byte) string {
	var out []string
	for i := range len(d) * 8 {
		if d[i/8]&(1<<(i%8)) != 0 {
			out = append(out, strconv.Itoa(i))
		}
	}
	return strings.Join(out, ",")
}

// typeLen is how many bytes a value of a type has in a key; 0 is not known.
func typeLen(typ uint32) int {
	switch typ {
	case tNFProto, tProto, tICMPType, tTCPFlag, tCtDir, tICMP6Type, tPktType, tICMPCode, tICMP6Code, tICMPxCode, tDSCP, tECN, tBoolean, tIGMPType, tTimeDay:
		return 1
	case tEtherType, tARPOp, tService, tARPHRD:
		return 2
	case tIPAddr, tMark, tIfindex, tRealm, tClassID, tUID, tGID, tCtState, tCtStatus, tDevGroup, tFIBAddr, tTimeHour:
		return 4
	case tEtherAddr:
		return 6
	case tTime, tTimeDate, tCgroup2:
		return 8
	case tIP6Addr, tIfname, tCtLabel:
		return 16
	}
	return 0
}

// keyTypes takes the type of a concatenation apart: nft puts six bits for each part.
func keyTypes(typ uint32) []uint32 {
	var out []uint32
	for ; typ != 0; typ >>= 6 {
		out = append(out, typ&0x3f)
	}
	slices.Reverse(out)
	return out
}

// add1 and sub1 step an address or number of any length by one.
func step(d []byte, by int64) []byte {
	n := new(big.Int).SetBytes(d)
	n.Add(n, big.NewInt(by))
	if n.Sign() < 0 || n.BitLen() > len(d)*8 {
		return nil
	}
	return n.FillBytes(make([]byte, len(d)))
}

// prefixLen is the length of the prefix that is exactly from first to last; −1 if there is none.
func prefixLen(first, last []byte) int {
	bits := 0
	for i := range first {
		x := first[i] ^ last[i]
		for b := 7; b >= 0; b-- {
			switch on := x>>b&1 != 0; {
			case !on && bits == i*8+7-b:
				bits++
			case !on, first[i]>>b&1 != 0, last[i]>>b&1 == 0: // a bit after the prefix must be 0 in the first and 1 in the last
				return -1
			}
		}
	}
	return bits
}

// maskLen is the length of a mask that is a prefix; −1 if it is none.
func maskLen(mask []byte) int {
	bits, ended := 0, false
	for _, m := range mask {
		for b := 7; b >= 0; b-- {
			on := m>>b&1 != 0
			if on && ended {
				return -1
			}
			ended = ended || !on
			if on {
				bits++
			}
		}
	}
	return bits
}

func zero(d []byte) bool { return !slices.ContainsFunc(d, func(b byte) bool { return b != 0 }) }
