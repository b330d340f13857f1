package filter

import (
	"net/netip"
	"strconv"
	"strings"
)

// Names answers for names in an expression that the package's own tables do not know. A nil function knows none.
type Names struct {
	// Host gives the addresses of a host.
	Host func(name string) []netip.Addr
	// Ether gives the MAC address of a host (ethers(5)).
	Ether func(name string) (mac [6]byte, ok bool)
	// Net gives a network's number as networks(5) has it, without trailing zero bytes: loopback is 127.
	Net func(name string) (n uint32, ok bool)
	// Port gives a port; proto is "tcp", "udp", or "" if the name stands for both. It is asked before the own table.
	Port func(name string) (port uint16, proto string, ok bool)
}

// row finds "key …" in a table of rows that end with a semicolon, and gives what follows the key.
func row(table, key string) (string, bool) {
	if key == "" || strings.ContainsAny(key, "; \n") {
		return "", false
	}
	for at := 0; ; {
		i := strings.Index(table[at:], key+" ")
		if i < 0 {
			return "", false
		}
		at += i
		if before := table[at-1]; before == ';' || before == '\n' {
			rest := table[at+len(key)+1:]
			return rest[:strings.IndexByte(rest, ';')], true
		}
		at++
	}
}

// port finds a named or numbered port; p is pAny if the name stands for more than one protocol.
func (n *Names) port(name string) (port int, p proto, ok bool) {
	if v, err := strconv.ParseUint(name, 10, 16); err == nil {
		return int(v), pAny, true
	}
	if n.Port != nil {
		if v, s, ok := n.Port(name); ok {
			return int(v), protoWords[s], true
		}
	}
	text, ok := row(services, name)
	if !ok {
		return 0, pAny, false
	}
	num, kinds, _ := strings.Cut(text, " ")
	v, _ := strconv.Atoi(num)
	switch kinds {
	case "t":
		return v, pTCP, true
	case "u":
		return v, pUDP, true
	}
	return v, pAny, true
}

// ipProtocol finds the number of a protocol over IP.
func ipProtocol(name string) (uint32, bool) {
	text, ok := row(ipProtocols, name)
	v, _ := strconv.Atoi(text)
	return uint32(v), ok
}

// proto is a protocol as the language names it.
type proto uint8

const (
	pAny proto = iota
	pLink
	pIP
	pARP
	pRARP
	pSCTP
	pTCP
	pUDP
	pICMP
	pIGMP
	pIGRP
	pPIM
	pVRRP
	pCARP
	pIP6
	pICMP6
	pAH
	pESP
	pATalk
	pAARP
	pDECnet
	pLAT
	pSCA
	pMOPRC
	pMOPDL
	pISO
	pESIS
	pISIS
	pL1
	pL2
	pIIH
	pLSP
	pSNP
	pCSNP
	pPSNP
	pCLNP
	pSTP
	pIPX
	pNetBEUI
	pRadio
)

// protoWords are the words for protocols.
var protoWords = map[string]proto{
	"ether": pLink, "ip": pIP, "arp": pARP, "rarp": pRARP, "sctp": pSCTP, "tcp": pTCP, "udp": pUDP, "icmp": pICMP,
	"igmp": pIGMP, "igrp": pIGRP, "pim": pPIM, "vrrp": pVRRP, "carp": pCARP, "ip6": pIP6, "icmp6": pICMP6, "ah": pAH,
	"esp": pESP, "atalk": pATalk, "aarp": pAARP, "decnet": pDECnet, "lat": pLAT, "sca": pSCA, "moprc": pMOPRC,
	"mopdl": pMOPDL, "iso": pISO, "esis": pESIS, "isis": pISIS, "l1": pL1, "l2": pL2, "iih": pIIH, "lsp": pLSP,
	"snp": pSNP, "csnp": pCSNP, "psnp": pPSNP, "clnp": pCLNP, "stp": pSTP, "ipx": pIPX, "netbeui": pNetBEUI, "radio": pRadio,
}

// String gives the word for p.
func (p proto) String() string {
	for w, q := range protoWords {
		if p == q {
			return w
		}
	}
	return "default"
}

// EtherTypes, and SAPs of IEEE 802.2, which are below 1501.
const (
	etIP       = 0x0800
	etARP      = 0x0806
	etTEB      = 0x6558
	etRARP     = 0x8035
	etATalk    = 0x809b
	etAARP     = 0x80f3
	etVLAN     = 0x8100
	etIPX      = 0x8137
	etIP6      = 0x86dd
	etMPLS     = 0x8847
	etPPPoED   = 0x8863
	etPPPoES   = 0x8864
	etQinQ     = 0x88a8
	etOldQinQ  = 0x9100
	etLoopback = 0x9000
	etMOPDL    = 0x6001
	etMOPRC    = 0x6002
	etDECnet   = 0x6003
	etLAT      = 0x6004
	etSCA      = 0x6007
	etNS       = 0x0600

	sapIP      = 0x06
	sapSTP     = 0x42
	sapIPX     = 0xe0
	sapNetBEUI = 0xf0
	sapISO     = 0xfe

	pppMPLS = 0x281 // RFC 3032

	// maxLength is the largest value of an Ethernet type field that is a length (IEEE 802.3).
	maxLength = 1500
)

// linkTypes are the protocols that a link-layer header names.
var linkTypes = map[proto]uint32{
	pIP: etIP, pARP: etARP, pRARP: etRARP, pIP6: etIP6, pATalk: etATalk, pAARP: etAARP, pDECnet: etDECnet, pSCA: etSCA,
	pLAT: etLAT, pMOPDL: etMOPDL, pMOPRC: etMOPRC, pISO: sapISO, pSTP: sapSTP, pIPX: sapIPX, pNetBEUI: sapNetBEUI,
}

// etherProtocols are the names "ether proto" takes.
var etherProtocols = map[string]uint32{
	"aarp": etAARP, "arp": etARP, "atalk": etATalk, "decnet": etDECnet, "ip": etIP, "ip6": etIP6, "lat": etLAT,
	"loopback": etLoopback, "mopdl": etMOPDL, "moprc": etMOPRC, "rarp": etRARP, "sca": etSCA,
	"iso": sapISO, "stp": sapSTP, "ipx": sapIPX, "netbeui": sapNetBEUI,
}

// osiProtocols are the network layer protocol identifiers of ISO 9577.
var osiProtocols = map[string]uint32{"clnp": 0x81, "esis": 0x82, "isis": 0x83}

// Protocols over IP.
const (
	ipICMP     = 1
	ipIGMP     = 2
	ipTCP      = 6
	ipIGRP     = 9
	ipUDP      = 17
	ipRouting  = 43
	ipFragment = 44
	ipESP      = 50
	ipAH       = 51
	ipICMP6    = 58
	ipNone     = 59
	ipDstOpts  = 60
	ipPIM      = 103
	ipVRRP     = 112
	ipSCTP     = 132
)

// isisTypes are the PDU types of IS-IS (ISO 10589) that a word stands for.
var isisTypes = map[proto][]uint32{
	pL1: {26, 24, 18, 15, 17}, pL2: {27, 25, 20, 16, 17}, pIIH: {17, 15, 16}, pLSP: {18, 20},
	pSNP: {27, 26, 24, 25}, pCSNP: {24, 25}, pPSNP: {26, 27},
}

// llcKinds are the names after "llc": a mask and a value of the control field's first byte.
var llcKinds = map[string][2]uint32{
	"s": {0x03, 0x01}, "u": {0x03, 0x03},
	"rr": {0x0f, 0x01}, "rnr": {0x0f, 0x05}, "rej": {0x0f, 0x09},
	"ui": {0xef, 0x03}, "ua": {0xef, 0x63}, "disc": {0xef, 0x43}, "dm": {0xef, 0x0f}, "sabme": {0xef, 0x6f},
	"test": {0xef, 0xe3}, "xid": {0xef, 0xaf}, "frmr": {0xef, 0x87},
}

// foreign are words for what no link type of ours carries.
var foreign = map[string]string{
	"on": "pf", "rset": "pf", "rnr": "pf", "srnr": "pf", "reason": "pf", "action": "pf",
	"type": "802.11", "subtype": "802.11", "dir": "802.11",
	"lane": "ATM", "metac": "ATM", "bcc": "ATM", "oam": "ATM", "oamf4": "ATM", "oamf4ec": "ATM", "oamf4sc": "ATM", "sc": "ATM",
	"ilmic": "ATM", "vpi": "ATM", "vci": "ATM", "connectmsg": "ATM", "metaconnect": "ATM",
	"fisu": "SS7", "lssu": "SS7", "msu": "SS7", "hfisu": "SS7", "hlssu": "SS7", "hmsu": "SS7", "sio": "SS7", "opc": "SS7",
	"dpc": "SS7", "sls": "SS7", "hsio": "SS7", "hopc": "SS7", "hdpc": "SS7", "hsls": "SS7",
}

// constants are the named numbers: offsets of fields, ICMP types, TCP flags.
var constants = map[string]uint32{
	"icmptype": 0, "icmpcode": 1, "icmp6type": 0, "icmp6code": 1, "tcpflags": 13,
	"tcp-fin": 0x01, "tcp-syn": 0x02, "tcp-rst": 0x04, "tcp-push": 0x08, "tcp-ack": 0x10, "tcp-urg": 0x20, "tcp-ece": 0x40,
	"tcp-cwr":        0x80,
	"icmp-echoreply": 0,
	"icmp-unreach":   3, "icmp-sourcequench": 4, "icmp-redirect": 5, "icmp-echo": 8, "icmp-routeradvert": 9,
	"icmp-routersolicit": 10, "icmp-timxceed": 11, "icmp-paramprob": 12, "icmp-tstamp": 13, "icmp-tstampreply": 14,
	"icmp-ireq": 15, "icmp-ireqreply": 16, "icmp-maskreq": 17, "icmp-maskreply": 18,
	"icmp6-destinationunreach": 1, "icmp6-packettoobig": 2, "icmp6-timeexceeded": 3, "icmp6-parameterproblem": 4,
	"icmp6-echo": 128, "icmp6-echoreply": 129, "icmp6-multicastlistenerquery": 130, "icmp6-multicastlistenerreportv1": 131,
	"icmp6-multicastlistenerdone": 132, "icmp6-routersolicit": 133, "icmp6-routeradvert": 134, "icmp6-neighborsolicit": 135,
	"icmp6-neighboradvert": 136, "icmp6-redirect": 137, "icmp6-routerrenum": 138, "icmp6-nodeinformationquery": 139,
	"icmp6-nodeinformationresponse": 140, "icmp6-ineighbordiscoverysolicit": 141, "icmp6-ineighbordiscoveryadvert": 142,
	"icmp6-multicastlistenerreportv2": 143, "icmp6-homeagentdiscoveryrequest": 144, "icmp6-homeagentdiscoveryreply": 145,
	"icmp6-mobileprefixsolicit": 146, "icmp6-mobileprefixadvert": 147, "icmp6-certpathsolicit": 148, "icmp6-certpathadvert": 149,
	"icmp6-multicastrouteradvert": 151, "icmp6-multicastroutersolicit": 152, "icmp6-multicastrouterterm": 153,
}
