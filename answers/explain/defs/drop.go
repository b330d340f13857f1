package defs

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/ctype"
)

// Drop is a reason why the kernel drops a packet.
type Drop struct {
	Name   string `json:"name"`   // without SKB_DROP_REASON_
	Number int64  `json:"number"` // in this kernel; -1 if it does not have the reason, or that is not known
	Text   string `json:"text"`   // "" if there are no words for it
}

// dropEnum is the enum that kernels since 5.17 have, dropPrefix what its names begin with.
const (
	dropEnum   = "skb_drop_reason"
	dropPrefix = "SKB_DROP_REASON_"
)

// Drop tells of a drop reason by its name or its number in this kernel. The error is [ErrUnknown] if neither the kernel nor
// the words here know it.
func (s *Source) Drop(text string) (*Drop, error) {
	name := strings.TrimPrefix(text, dropPrefix)
	n, err := strconv.ParseInt(text, 0, 64)
	numbered := err == nil
	d := &Drop{Name: name, Number: -1}
	if s.Types != nil {
		if t, err := s.Types.ByName(ctype.KindEnum, dropEnum); err == nil {
			for _, v := range t.(*ctype.Enum).Values {
				short := strings.TrimPrefix(strings.TrimPrefix(v.Name, dropPrefix), "SKB_")
				if numbered && v.Value == n || short == name {
					d.Name, d.Number = short, v.Value
				}
			}
		}
	}
	d.Text = dropWords[d.Name]
	if d.Number < 0 && d.Text == "" {
		return nil, ErrUnknown
	}
	return d, nil
}

// DropNames are the reasons that there are words for, sorted.
func DropNames() []string { return slices.Sorted(maps.Keys(dropWords)) }

// dropWords say what reasons mean; their names are those of include/net/dropreason-core.h, Linux 5.17 to 6.18. Numbers change
// from kernel to kernel, names seldom.
var dropWords = map[string]string{
	"NOT_SPECIFIED":            "the code that drops it does not say why: the place tells more than the reason",
	"NOT_DROPPED_YET":          "no loss: it is on its way",
	"CONSUMED":                 "no loss: whoever it was for has it",
	"NO_SOCKET":                "no socket takes it: nobody listens on that port and address, or not in this namespace",
	"SOCKET_CLOSE":             "the socket was closed while it waited there",
	"SOCKET_FILTER":            "the socket's own filter (SO_ATTACH_FILTER, BPF) refuses it",
	"SOCKET_RCVBUFF":           "the socket's receive buffer is full: the process reads too slowly",
	"UNIX_DISCONNECT":          "a Unix datagram socket was connected to somebody else meanwhile",
	"UNIX_SKIP_OOB":            "urgent data of a Unix socket was read over",
	"PKT_TOO_SMALL":            "it is shorter than its header",
	"TCP_CSUM":                 "TCP's checksum is wrong",
	"UDP_CSUM":                 "UDP's checksum is wrong",
	"ICMP_CSUM":                "ICMP's checksum is wrong",
	"IP_CSUM":                  "the checksum of the IPv4 header is wrong",
	"SKB_CSUM":                 "the checksum could not be made while it was sent",
	"NETFILTER_DROP":           "a rule of nftables or iptables, a verdict of a queue, or a module of netfilter drops it",
	"OTHERHOST":                "the frame has another host's MAC address: this one sees it because it is promiscuous, or by a stale neighbour entry",
	"IP_INHDR":                 "the IPv4 header is broken: version, length or checksum",
	"IP_RPFILTER":              "the reverse path filter (rp_filter): the way back to its sender is by another device",
	"UNICAST_IN_L2_MULTICAST":  "the frame is a broadcast or multicast, the IP address within is one host's (RFC 1122)",
	"XFRM_POLICY":              "an IPsec policy does not let it pass",
	"IP_NOPROTO":               "nobody handles the protocol that its IP header names",
	"PROTO_MEM":                "the memory of the whole protocol is used up (tcp_mem, udp_mem)",
	"TCP_AUTH_HDR":             "TCP has both MD5 and AO options, or a broken one",
	"TCP_MD5NOTFOUND":          "the peer must sign by MD5 and does not",
	"TCP_MD5UNEXPECTED":        "it is signed by MD5, and this socket has no key for the peer",
	"TCP_MD5FAILURE":           "its MD5 signature is wrong: another key",
	"TCP_AONOTFOUND":           "the peer must sign by TCP-AO and does not",
	"TCP_AOUNEXPECTED":         "it is signed by TCP-AO, and this socket has no key for the peer",
	"TCP_AOKEYNOTFOUND":        "it is signed by a key of TCP-AO that is not known here",
	"TCP_AOFAILURE":            "its TCP-AO signature is wrong",
	"SOCKET_BACKLOG":           "the socket was in use, and its backlog is full",
	"TCP_FLAGS":                "its TCP flags make no sense in this state",
	"TCP_ABORT_ON_DATA":        "data came for a socket that nobody reads any more (shutdown, close)",
	"TCP_ZEROWINDOW":           "TCP's window is closed: the receiver does not read",
	"TCP_OLD_DATA":             "the data is here already: a repetition",
	"TCP_OVERWINDOW":           "the data lies behind the window that was offered",
	"TCP_OFOMERGE":             "the data is among what waits out of order already",
	"TCP_RFC7323_PAWS":         "its TCP timestamp is older than the last (PAWS, RFC 7323)",
	"TCP_RFC7323_PAWS_ACK":     "an old acknowledgement by its timestamp (PAWS); harmless",
	"TCP_RFC7323_TW_PAWS":      "its timestamp is too old for a connection in TIME-WAIT",
	"TCP_RFC7323_TSECR":        "it echoes a timestamp that was never sent",
	"TCP_LISTEN_OVERFLOW":      "the listener's queue of connections is full: the process accepts too slowly",
	"TCP_OLD_SEQUENCE":         "its sequence number is before the window",
	"TCP_INVALID_SEQUENCE":     "its sequence number is not in the window",
	"TCP_INVALID_END_SEQUENCE": "its end is behind the window",
	"TCP_INVALID_ACK_SEQUENCE": "it acknowledges what is not acceptable in this state",
	"TCP_RESET":                "no loss: a reset was taken, and the connection has ended",
	"TCP_INVALID_SYN":          "a SYN where none belongs",
	"TCP_CLOSE":                "the connection is closed",
	"TCP_FASTOPEN":             "data of a fast open that came twice",
	"TCP_OLD_ACK":              "it acknowledges what was acknowledged; harmless",
	"TCP_TOO_OLD_ACK":          "its acknowledgement is far too old (RFC 5961)",
	"TCP_ACK_UNSENT_DATA":      "it acknowledges data that was never sent",
	"TCP_OFO_QUEUE_PRUNE":      "memory was short: what waited out of order was given up",
	"TCP_OFO_DROP":             "there was no memory to keep it out of order",
	"TCP_MINTTL":               "its TTL is below what the socket asks for (IP_MINTTL)",
	"IP_OUTNOROUTES":           "there is no route to where it should go",
	"IP_INNOROUTES":            "it is to be forwarded, and there is no route",
	"IP_INADDRERRORS":          "its address is none of this host's, and it is not forwarded",
	"IP_LOCAL_SOURCE":          "its source address is one of this host's own",
	"IP_INVALID_SOURCE":        "its source address cannot be a source: broadcast, multicast or zero",
	"IP_LOCALNET":              "an address of 127.0.0.0/8 came from the network, and route_localnet is off",
	"IP_INVALID_DEST":          "its destination cannot be one",
	"BPF_CGROUP_EGRESS":        "a BPF program on the sender's cgroup drops it",
	"IPV6DISABLED":             "IPv6 is switched off there (disable_ipv6)",
	"NEIGH_CREATEFAIL":         "the neighbour table is full, or has no entry to give",
	"NEIGH_FAILED":             "nobody answered: ARP or neighbour discovery failed",
	"NEIGH_QUEUEFULL":          "too many packets wait for the same neighbour's answer (unres_qlen_bytes)",
	"NEIGH_DEAD":               "the neighbour entry was removed while it waited",
	"NEIGH_HH_FILLFAIL":        "the frame's header could not be written",
	"TC_EGRESS":                "tc drops it at egress: a filter, an action or a BPF program",
	"TC_INGRESS":               "tc drops it at ingress: a filter, an action or a BPF program",
	"TC_COOKIE_ERROR":          "tc could not keep what it needs to go on with it",
	"TC_CHAIN_NOTFOUND":        "tc was to go on in a chain that is not there",
	"TC_RECLASSIFY_LOOP":       "tc's filters send it round in a circle",
	"SECURITY_HOOK":            "a security module (SELinux, Smack, AppArmor) refuses it",
	"QDISC_DROP":               "the queue of the device drops it: full, by its algorithm, or it takes nothing (noop)",
	"QDISC_OVERLIMIT":          "the queue of the device is at its limit",
	"QDISC_CONGESTED":          "the queue drops it to signal congestion (CoDel and its kin)",
	"CAKE_FLOOD":               "CAKE takes the flow for one that does not give way",
	"FQ_BAND_LIMIT":            "fq: its band is full",
	"FQ_HORIZON_LIMIT":         "fq: it is to be sent too far in the future",
	"FQ_FLOW_LIMIT":            "fq: its flow has too many packets waiting",
	"CPU_BACKLOG":              "the CPU's input queue is full (netdev_max_backlog)",
	"XDP":                      "an XDP program drops it, or redirects it to where nobody takes it",
	"UNHANDLED_PROTO":          "nobody handles its EtherType",
	"SKB_GSO_SEG":              "it could not be divided into segments",
	"SKB_UCOPY_FAULT":          "its data could not be copied from or to the program",
	"DEV_HDR":                  "the driver does not accept its header",
	"DEV_READY":                "the device is down or not ready",
	"FULL_RING":                "the ring to who should take it (tun, tap, veth) is full",
	"NOMEM":                    "there was no memory",
	"HDR_TRUNC":                "its headers are cut short",
	"TAP_FILTER":               "the filter of a tap device drops it",
	"TAP_TXFILTER":             "the transmit filter of a tap device drops it",
	"INVALID_PROTO":            "its protocol number is none, or none that belongs there",
	"PKT_TOO_BIG":              "it is larger than the MTU and must not be divided",
	"DUP_FRAG":                 "a fragment that came twice, or overlaps another",
	"FRAG_REASM_TIMEOUT":       "the other fragments did not come in time (ipfrag_time)",
	"FRAG_TOO_FAR":             "its fragment is too far from the others of that sender (ipfrag_max_dist)",
	"IPV6_BAD_EXTHDR":          "an extension header of IPv6 is broken or refused",
	"IPV6_NDISC_FRAG":          "neighbour discovery must not come in fragments (RFC 6980)",
	"IPV6_NDISC_HOP_LIMIT":     "neighbour discovery from beyond the link: its hop limit is not 255",
	"IPV6_NDISC_BAD_CODE":      "a neighbour discovery message with a wrong code",
	"IPV6_NDISC_BAD_OPTIONS":   "a neighbour discovery message with broken options",
	"IPV6_NDISC_NS_OTHERHOST":  "a neighbour solicitation for somebody else",
	"QUEUE_PURGE":              "the queue that it waited in was emptied: its owner went away",
	"PACKET_SOCK_ERROR":        "a packet socket (tcpdump and its kin) had no room for its copy: the packet itself went on",
	"VXLAN_INVALID_HDR":        "its VXLAN header has flags that this device does not accept",
	"VXLAN_VNI_NOT_FOUND":      "no VXLAN device here has its network identifier",
	"VXLAN_ENTRY_EXISTS":       "VXLAN learned the same address at another place that must not change",
	"MAC_INVALID_SOURCE":       "its source MAC address is none",
	"LOCAL_MAC":                "its source MAC address is this device's own: a loop, or a duplicate address",
	"NO_TX_TARGET":             "there is no port, member or remote that it could be sent to",
	"IP_TUNNEL_ECN":            "the ECN bits outside and inside of the tunnel contradict each other (RFC 6040)",
	"TUNNEL_TXINFO":            "it is to be sent by a tunnel that is told by metadata, and has none",
	"ARP_PVLAN_DISABLE":        "ARP within a private VLAN is off (proxy_arp_pvlan)",
	"MAC_IEEE_MAC_CONTROL":     "a control frame of Ethernet (pause), which goes no further",
	"BRIDGE_INGRESS_STP_STATE": "the bridge's port is not forwarding: blocking, listening or learning",
	"CAN_RX_INVALID_FRAME":     "it is no valid CAN frame",
	"CANFD_RX_INVALID_FRAME":   "it is no valid CAN FD frame",
	"CANXL_RX_INVALID_FRAME":   "it is no valid CAN XL frame",
	"PFMEMALLOC":               "it lies in memory that is kept for swapping over the network, and is not for such a socket",
	"DUALPI2_STEP_DROP":        "DualPI2: its low-latency queue is above the step",
	"PSP_INPUT":                "PSP: what came in is not authentic, or not expected",
	"PSP_OUTPUT":               "PSP: it could not be sealed",
	"RECURSION_LIMIT":          "it went through too many stacked devices: a loop",
}
