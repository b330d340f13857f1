package nft

// Bases of payload expressions (NFT_PAYLOAD_…).
const (
	baseLink = iota
	baseNetwork
	baseTransport
	baseInner

	baseOption = 1 << 8 // ours: an extension header of IPv6, by its number
	baseTCPOpt = 2 << 8 // ours: an option of TCP
)

// field is a field of a header, by bits from the header's start.
type field struct {
	name string
	off  int
	bits int
	typ  uint32
}

// header is a protocol's header as nft knows it.
type header struct {
	name   string
	fields []field
}

// Types of values, with nft's numbers (its enum datatypes), which sets carry in their key types.
const (
	tVerdict    = 1
	tNFProto    = 2
	tBitmask    = 3
	tInteger    = 4
	tString     = 5
	tLLAddr     = 6
	tIPAddr     = 7
	tIP6Addr    = 8
	tEtherAddr  = 9
	tEtherType  = 10
	tARPOp      = 11
	tProto      = 12
	tService    = 13
	tICMPType   = 14
	tTCPFlag    = 15
	tTime       = 18
	tMark       = 19
	tIfindex    = 20
	tARPHRD     = 21
	tRealm      = 22
	tClassID    = 23
	tUID        = 24
	tGID        = 25
	tCtState    = 26
	tCtDir      = 27
	tCtStatus   = 28
	tICMP6Type  = 29
	tCtLabel    = 30
	tPktType    = 31
	tICMPCode   = 32
	tICMP6Code  = 33
	tICMPxCode  = 34
	tDevGroup   = 35
	tDSCP       = 36
	tECN        = 37
	tFIBAddr    = 38
	tBoolean    = 39
	tIfname     = 41
	tIGMPType   = 42
	tTimeDate   = 43
	tTimeHour   = 44
	tTimeDay    = 45
	tCgroup2    = 46
	tHostNumber = 1 << 16 // ours: a number in the machine's order
	tHex        = 1<<16 + 1
)

var (
	etherHeader = header{"ether", []field{{"daddr", 0, 48, tEtherAddr}, {"saddr", 48, 48, tEtherAddr}, {"type", 96, 16, tEtherType}}}
	vlanHeader  = header{"vlan", []field{{"pcp", 112, 3, tInteger}, {"dei", 115, 1, tInteger}, {"id", 116, 12, tInteger}, {"type", 128, 16, tEtherType}}}
	arpHeader   = header{"arp", []field{
		{"htype", 0, 16, tInteger}, {"ptype", 16, 16, tEtherType}, {"hlen", 32, 8, tInteger}, {"plen", 40, 8, tInteger}, {"operation", 48, 16, tARPOp},
		{"saddr ether", 64, 48, tEtherAddr}, {"saddr ip", 112, 32, tIPAddr}, {"daddr ether", 144, 48, tEtherAddr}, {"daddr ip", 192, 32, tIPAddr},
	}}
	ipHeader = header{"ip", []field{
		{"version", 0, 4, tInteger}, {"hdrlength", 4, 4, tInteger}, {"dscp", 8, 6, tDSCP}, {"ecn", 14, 2, tECN}, {"length", 16, 16, tInteger},
		{"id", 32, 16, tInteger}, {"frag-off", 48, 16, tInteger}, {"ttl", 64, 8, tInteger}, {"protocol", 72, 8, tProto},
		{"checksum", 80, 16, tInteger}, {"saddr", 96, 32, tIPAddr}, {"daddr", 128, 32, tIPAddr},
	}}
	ip6Header = header{"ip6", []field{
		{"version", 0, 4, tInteger}, {"dscp", 4, 6, tDSCP}, {"ecn", 10, 2, tECN}, {"flowlabel", 12, 20, tInteger}, {"length", 32, 16, tInteger},
		{"nexthdr", 48, 8, tProto}, {"hoplimit", 56, 8, tInteger}, {"saddr", 64, 128, tIP6Addr}, {"daddr", 192, 128, tIP6Addr},
	}}
	thHeader = header{"th", []field{{"sport", 0, 16, tService}, {"dport", 16, 16, tService}}}
)

// transports are the headers by IP protocol.
var transports = map[uint8]header{
	1: {"icmp", []field{
		{"type", 0, 8, tICMPType}, {"code", 8, 8, tICMPCode}, {"checksum", 16, 16, tInteger}, {"id", 32, 16, tInteger}, {"sequence", 48, 16, tInteger},
		{"gateway", 32, 32, tInteger},
	}},
	2: {"igmp", []field{{"type", 0, 8, tIGMPType}, {"mrt", 8, 8, tInteger}, {"checksum", 16, 16, tInteger}, {"group", 32, 32, tIPAddr}}},
	6: {"tcp", []field{
		{"sport", 0, 16, tService}, {"dport", 16, 16, tService}, {"sequence", 32, 32, tInteger}, {"ackseq", 64, 32, tInteger},
		{"doff", 96, 4, tInteger}, {"reserved", 100, 4, tInteger}, {"flags", 104, 8, tTCPFlag}, {"window", 112, 16, tInteger},
		{"checksum", 128, 16, tInteger}, {"urgptr", 144, 16, tInteger},
	}},
	17: {"udp", []field{{"sport", 0, 16, tService}, {"dport", 16, 16, tService}, {"length", 32, 16, tInteger}, {"checksum", 48, 16, tInteger}}},
	33: {"dccp", []field{{"sport", 0, 16, tService}, {"dport", 16, 16, tService}}},
	50: {"esp", []field{{"spi", 0, 32, tInteger}, {"sequence", 32, 32, tInteger}}},
	51: {"ah", []field{{"nexthdr", 0, 8, tProto}, {"hdrlength", 8, 8, tInteger}, {"reserved", 16, 16, tInteger}, {"spi", 32, 32, tInteger}, {"sequence", 64, 32, tInteger}}},
	58: {"icmpv6", []field{
		{"type", 0, 8, tICMP6Type}, {"code", 8, 8, tICMP6Code}, {"checksum", 16, 16, tInteger}, {"id", 32, 16, tInteger}, {"sequence", 48, 16, tInteger},
		{"mtu", 32, 32, tInteger},
	}},
	108: {"comp", []field{{"nexthdr", 0, 8, tProto}, {"flags", 8, 8, tHex}, {"cpi", 16, 16, tInteger}}},
	132: {"sctp", []field{{"sport", 0, 16, tService}, {"dport", 16, 16, tService}, {"vtag", 32, 32, tInteger}, {"checksum", 64, 32, tInteger}}},
	136: {"udplite", []field{{"sport", 0, 16, tService}, {"dport", 16, 16, tService}, {"checksum", 48, 16, tInteger}}},
}

// options are extension headers and options of TCP, by base.
var options = map[uint32]header{
	baseOption + 0:  {"hbh", []field{{"nexthdr", 0, 8, tProto}, {"hdrlength", 8, 8, tInteger}}},
	baseOption + 60: {"dst", []field{{"nexthdr", 0, 8, tProto}, {"hdrlength", 8, 8, tInteger}}},
	baseOption + 43: {"rt", []field{{"nexthdr", 0, 8, tProto}, {"hdrlength", 8, 8, tInteger}, {"type", 16, 8, tInteger}, {"seg-left", 24, 8, tInteger}}},
	baseOption + 44: {"frag", []field{
		{"nexthdr", 0, 8, tProto}, {"reserved", 8, 8, tInteger}, {"frag-off", 16, 13, tInteger}, {"reserved2", 29, 2, tInteger},
		{"more-fragments", 31, 1, tInteger}, {"id", 32, 32, tInteger},
	}},
	baseOption + 135: {"mh", []field{{"nexthdr", 0, 8, tProto}, {"hdrlength", 8, 8, tInteger}, {"type", 16, 8, tInteger}}},
	baseTCPOpt + 2:   {"tcp option maxseg", []field{{"kind", 0, 8, tInteger}, {"length", 8, 8, tInteger}, {"size", 16, 16, tInteger}}},
	baseTCPOpt + 3:   {"tcp option window", []field{{"kind", 0, 8, tInteger}, {"length", 8, 8, tInteger}, {"count", 16, 8, tInteger}}},
	baseTCPOpt + 5:   {"tcp option sack", []field{{"kind", 0, 8, tInteger}, {"length", 8, 8, tInteger}, {"left", 16, 32, tInteger}, {"right", 48, 32, tInteger}}},
	baseTCPOpt + 8:   {"tcp option timestamp", []field{{"kind", 0, 8, tInteger}, {"length", 8, 8, tInteger}, {"tsval", 16, 32, tInteger}, {"tsecr", 48, 32, tInteger}}},
	baseTCPOpt + 30:  {"tcp option mptcp", []field{{"kind", 0, 8, tInteger}, {"length", 8, 8, tInteger}, {"subtype", 16, 4, tInteger}}},
}

// icmpBodies are what follows the first four bytes of messages, by protocol and type, where that is no id and sequence.
var icmpBodies = map[[2]int][]field{
	{1, 3}:    {{"mtu", 48, 16, tInteger}},
	{1, 5}:    {{"gateway", 32, 32, tInteger}},
	{58, 2}:   {{"mtu", 32, 32, tInteger}},
	{58, 4}:   {{"parameter-problem", 32, 32, tInteger}},
	{58, 130}: {{"max-delay", 32, 16, tInteger}},
}

// key is a key of meta, ct or rt: what nft calls it, and the type of its value.
type key struct {
	name string
	typ  uint32
	len  int
}

var metaKeys = map[uint32]key{
	0: {"meta length", tHostNumber, 4}, 1: {"meta protocol", tEtherType, 2}, 2: {"meta priority", tClassID, 4}, 3: {"meta mark", tMark, 4},
	4: {"iif", tIfindex, 4}, 5: {"oif", tIfindex, 4}, 6: {"iifname", tIfname, 16}, 7: {"oifname", tIfname, 16},
	8: {"meta iiftype", tARPHRD, 2}, 9: {"meta oiftype", tARPHRD, 2}, 10: {"meta skuid", tUID, 4}, 11: {"meta skgid", tGID, 4},
	12: {"meta nftrace", tHostNumber, 1}, 13: {"meta rtclassid", tRealm, 4}, 14: {"meta secmark", tMark, 4}, 15: {"meta nfproto", tNFProto, 1},
	16: {"meta l4proto", tProto, 1}, 17: {"meta ibrname", tIfname, 16}, 18: {"meta obrname", tIfname, 16}, 19: {"meta pkttype", tPktType, 1},
	20: {"meta cpu", tHostNumber, 4}, 21: {"iifgroup", tDevGroup, 4}, 22: {"oifgroup", tDevGroup, 4}, 23: {"meta cgroup", tHostNumber, 4},
	24: {"meta random", tInteger, 4}, 25: {"meta ipsec", tBoolean, 1}, 26: {"meta iifkind", tIfname, 16}, 27: {"meta oifkind", tIfname, 16},
	28: {"meta ibrpvid", tHostNumber, 2}, 29: {"meta ibrvproto", tEtherType, 2}, 30: {"meta time", tTimeDate, 8}, 31: {"meta day", tTimeDay, 1},
	32: {"meta hour", tTimeHour, 4}, 33: {"meta sdif", tIfindex, 4}, 34: {"meta sdifname", tIfname, 16}, 35: {"meta broute", tHostNumber, 1},
}

var ctKeys = map[uint32]key{
	0: {"state", tCtState, 4}, 1: {"direction", tCtDir, 1}, 2: {"status", tCtStatus, 4}, 3: {"mark", tMark, 4}, 4: {"secmark", tMark, 4},
	5: {"expiration", tTime, 4}, 6: {"helper", tString, 16}, 7: {"l3proto", tNFProto, 1}, 8: {"saddr", tIPAddr, 4}, 9: {"daddr", tIPAddr, 4},
	10: {"protocol", tProto, 1}, 11: {"proto-src", tService, 2}, 12: {"proto-dst", tService, 2}, 13: {"label", tCtLabel, 16},
	14: {"packets", tHostNumber, 8}, 15: {"bytes", tHostNumber, 8}, 16: {"avgpkt", tHostNumber, 8}, 17: {"zone", tHostNumber, 2},
	18: {"event", tHostNumber, 4}, 19: {"ip saddr", tIPAddr, 4}, 20: {"ip daddr", tIPAddr, 4}, 21: {"ip6 saddr", tIP6Addr, 16},
	22: {"ip6 daddr", tIP6Addr, 16}, 23: {"id", tHostNumber, 4},
}

var rtKeys = map[uint32]key{
	0: {"rt classid", tRealm, 4}, 1: {"rt ip nexthop", tIPAddr, 4}, 2: {"rt ip6 nexthop", tIP6Addr, 16}, 3: {"rt mtu", tHostNumber, 2},
	4: {"rt ipsec", tBoolean, 1},
}

var socketKeys = map[uint32]key{
	0: {"socket transparent", tHostNumber, 1}, 1: {"socket mark", tMark, 4}, 2: {"socket wildcard", tHostNumber, 1}, 3: {"socket cgroupv2", tCgroup2, 8},
}
