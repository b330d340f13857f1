package fault

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/lab/attach"
	"github.com/fathom-trace/fathom/lab/topology/traffic"
)

// All are the faults.
func All() []Fault {
	return slices.Concat(ofSockets(), ofRoutes(), ofRules(), ofLinks(), ofMachine())
}

func ofSockets() []Fault {
	return []Fault{
		{Name: "udp-no-listener", Title: "UDP to a port that nobody listens on", make: udpNoListener},
		{Name: "udp6-no-listener", Title: "the same over IPv6", make: udpNoListener6},
		{Name: "tcp-no-listener", Title: "TCP to a closed port", make: tcpNoListener},
		{Name: "tcp-midstream", Title: "a segment of a connection that is not there", make: tcpMidstream},
		{Name: "udp-bound-to-device", Title: "a UDP socket bound to another device", make: udpBoundToDevice},
		{Name: "tcp-bound-to-device", Title: "a listener bound to another device", make: tcpBoundToDevice},
		{Name: "udp-other-address", Title: "a UDP socket bound to another address", make: udpOtherAddress},
		{Name: "udp-other-peer", Title: "a UDP socket connected to another peer", make: udpOtherPeer},
		{Name: "udp-v6only", Title: "a socket of IPv6 only", make: udpV6Only},
		{Name: "udp-rcvbuf-full", Title: "a receive buffer that is full", make: udpRcvbufFull},
		{Name: "socket-filter", Title: "a filter on the socket that accepts nothing", make: socketFilter},
		{Name: "tcp-listen-overflow", Title: "an accept queue that is full", make: tcpListenOverflow},
		{Name: "syn-backlog", Title: "a queue of handshakes that is full", make: synBacklog},
		{Name: "tcp-md5-missing", Title: "a listener that wants signatures", Need: MD5, make: tcpMD5Missing},
		{Name: "tcp-min-ttl", Title: "a listener that wants a higher TTL", make: tcpMinTTL},
		{Name: "capture-overflow", Title: "a capture that is full, and nothing is lost", make: captureOverflow},
		{Name: "ping-reply", Title: "replies to a ping that came, and nothing is lost", make: pingReply},
		{Name: "multicast-not-joined", Title: "a group that nobody joined", make: multicastNotJoined},
	}
}

func ofRoutes() []Fault {
	return []Fault{
		{Name: "no-route-local", Title: "the sender has no route", make: noRouteLocal},
		{Name: "blackhole-local", Title: "the sender's route is a blackhole", make: typedRouteLocal("blackhole", "EINVAL")},
		{Name: "unreachable-local", Title: "the sender's route says unreachable", make: typedRouteLocal("unreachable", "EHOSTUNREACH")},
		{Name: "prohibit-local", Title: "the sender's route prohibits", make: typedRouteLocal("prohibit", "EACCES")},
		{Name: "prohibit-rule-local", Title: "a rule of the sender's prohibits", make: prohibitRuleLocal},
		{Name: "no-route-forward", Title: "the router has no route", make: noRouteForward},
		{Name: "blackhole-forward", Title: "the router's route is a blackhole", make: typedRouteForward("blackhole")},
		{Name: "unreachable-forward", Title: "the router's route says unreachable", make: typedRouteForward("unreachable")},
		{Name: "prohibit-rule", Title: "a rule of the router's prohibits", make: prohibitRule},
		{Name: "forwarding-off", Title: "a router that does not forward", make: forwardingOff},
		{Name: "forwarding6-off", Title: "a router that does not forward IPv6", make: forwardingOff6},
		{Name: "ttl-expired", Title: "a TTL that ends on the way", make: ttlExpired},
		{Name: "hop-limit", Title: "a hop limit of IPv6 that ends on the way", make: hopLimit6},
		{Name: "mtu-forward", Title: "too large behind the router", make: mtuForward},
		{Name: "mtu-local", Title: "too large for the sender's own device", make: mtuLocal},
		{Name: "frag-needed-blocked", Title: "too large, and the router's own rule drops what it says about it", make: fragNeededBlocked},
		{Name: "rp-filter", Title: "the way back is another, for one device", make: rpFilter},
		{Name: "rp-filter-all", Title: "the way back is another, for all devices", make: rpFilterAll},
		{Name: "martian-source", Title: "a loopback source on the wire", make: martianSource},
		{Name: "martian-destination", Title: "a loopback destination on the wire", make: martianDestination},
		{Name: "address-missing", Title: "an address that the receiver does not have", make: addressMissing},
		{Name: "ipv6-disabled", Title: "IPv6 is off where it arrives", make: disabled6},
		{Name: "neigh-failed", Title: "nobody answers for the address", make: neighFailed},
		{Name: "arp-ignored", Title: "the receiver does not answer for its address", make: arpIgnored},
		{Name: "neigh-queue-full", Title: "the queue for an unknown neighbour is full", make: neighQueueFull},
		{Name: "ipsec-block", Title: "an IPsec policy blocks what comes in", Need: XFRM, make: ipsecBlock},
		{Name: "ipsec-block-out", Title: "an IPsec policy blocks what goes out", Need: XFRM, make: ipsecBlockOut},
	}
}

func ofRules() []Fault {
	return []Fault{
		{Name: "nft-input", Title: "a rule at input", make: nftHook("input")},
		{Name: "nft-prerouting", Title: "a rule at prerouting", make: nftHook("prerouting")},
		{Name: "nft-forward", Title: "a rule of the router's", make: nftHook("forward")},
		{Name: "nft-output", Title: "a rule of the sender's", make: nftHook("output")},
		{Name: "nft-ingress", Title: "a rule at a device's ingress", make: nftNetdev("ingress")},
		{Name: "nft-egress", Title: "a rule at a device's egress", Need: Egress, make: nftNetdev("egress")},
		{Name: "nft-set-in-chain", Title: "a set, in a chain that is jumped to", make: nftSetInChain},
		{Name: "nft-policy", Title: "a chain that drops what no rule accepts", make: nftPolicyDrop},
		{Name: "nft-rate-limit", Title: "a rate that is too high", make: nftRateLimit},
		{Name: "nft-reject", Title: "a rule that resets", make: nftReject},
		{Name: "conntrack-invalid", Title: "a state that a rule drops", make: conntrackInvalid},
		{Name: "dnat-wrong-backend", Title: "an address translated to a port that nobody has", make: dnatWrongBackend},
		{Name: "rewrite-no-snat", Title: "an answer that comes from another address", make: rewriteNoSNAT},
		{Name: "ip-truncated", Title: "an IP header that claims more than there is", make: badFrame("ip_rcv_core", "PKT_TOO_SMALL", "ip.len", "IpExt.InTruncatedPkts", func(s *Scene, f *traffic.Frame) { f.MoreIP = 100 + s.deck.IntN(1000) })},
		{Name: "udp-bad-length", Title: "a UDP header that claims more than there is", make: badFrame("__udp4_lib_rcv", "PKT_TOO_SMALL", "udp.len", "Udp.InErrors", func(s *Scene, f *traffic.Frame) { f.MoreUDP = 100 + s.deck.IntN(1000) })},
		{Name: "ip-source-route", Title: "an IP option that nobody follows", make: sourceRouted},
		{Name: "ip-bad-checksum", Title: "a wrong checksum of IP", make: badFrame("ip_rcv_core", "IP_CSUM", "ip.csum", "Ip.InHdrErrors", func(_ *Scene, f *traffic.Frame) { f.BadIP = true })},
		{Name: "udp-bad-checksum", Title: "a wrong checksum of UDP", make: badFrame("__udp4_lib_rcv", "UDP_CSUM", "udp.csum", "Udp.InCsumErrors", func(_ *Scene, f *traffic.Frame) { f.BadL4 = true })},
		{Name: "icmp-bad-checksum", Title: "a wrong checksum of ICMP", make: badFrame("icmp_rcv", "ICMP_CSUM", "icmp.csum", "Icmp.InCsumErrors", func(_ *Scene, f *traffic.Frame) { f.Proto, f.BadL4 = unix.IPPROTO_ICMP, true })},
		{Name: "ip-unknown-protocol", Title: "a protocol over IP that nothing handles", make: unknownProtocol},
		{Name: "unknown-ethertype", Title: "an EtherType that nothing handles", make: unknownEtherType},
		{Name: "unicast-in-broadcast", Title: "a packet for one in a frame for all", make: unicastInBroadcast},
		{Name: "fragment-missing", Title: "a fragment that never comes", make: fragmentMissing},
	}
}

func ofLinks() []Fault {
	return []Fault{
		{Name: "vlan-unknown", Title: "a VLAN that the receiver has no device of", make: vlanUnknown},
		{Name: "wrong-mac", Title: "a frame for another MAC address", make: wrongMAC},
		{Name: "stale-neighbour", Title: "a neighbour with another's MAC address", make: staleNeighbour},
		{Name: "bridge-listening", Title: "a port that does not forward yet", make: bridgeListening},
		{Name: "bridge-no-pvid", Title: "a port without a VLAN for untagged frames", Need: VLANFiltering, make: bridgeNoPVID},
		{Name: "bridge-isolated", Title: "two ports that are kept apart", make: bridgeIsolated},
		{Name: "bridge-no-flood", Title: "a port that takes nothing for unknown addresses", make: bridgeNoFlood},
		{Name: "bridge-wrong-port", Title: "a bridge's table that has the receiver behind the wrong port", make: bridgeWrongPort},
		{Name: "bridge-vlan-mismatch", Title: "two ports of two VLANs", Need: VLANFiltering, make: bridgeVLANMismatch},
		{Name: "peer-down", Title: "the other end of the link is down", make: peerDown},
		{Name: "tc-ingress", Title: "a filter of traffic control at ingress", Need: Matchall, make: tcIngress},
		{Name: "tc-egress", Title: "a filter of traffic control at egress", Need: Matchall, make: tcEgress},
		{Name: "tcx-ingress", Title: "a program of tcx at ingress", Need: TCX, make: tcx(false)},
		{Name: "tcx-egress", Title: "a program of tcx at egress", Need: TCX, make: tcx(true)},
		{Name: "cgroup-egress", Title: "a program on a cgroup that drops what its processes send", Need: CgroupBPF, make: cgroupEgress},
		{Name: "xdp-drop", Title: "a program of XDP drops, generic", make: xdp(attach.XDPDrop, "XDP_DROP", false)},
		{Name: "xdp-aborted", Title: "a program of XDP aborts, generic", make: xdp(attach.XDPAborted, "XDP_ABORTED", false)},
		{Name: "xdp-native", Title: "a program of XDP drops, in the driver", make: xdp(attach.XDPDrop, "XDP_DROP", true)},
		{Name: "xsk-no-fill", Title: "an AF_XDP socket with an empty fill ring", make: xskNoFill},
		{Name: "tbf-overflow", Title: "a queue that is full", make: tbfOverflow},
		{Name: "netem-overflow", Title: "a queue of delayed packets that is full", Need: Netem, make: netemOverflow},
		{Name: "netem-loss", Title: "a qdisc that loses", Need: Netem, make: netemLoss},
	}
}

func ofMachine() []Fault {
	return []Fault{
		{Name: "conntrack-full", Title: "the table of connections is full", Machine: true, make: conntrackFull},
		{Name: "backlog-full", Title: "the queue of a CPU is full", Machine: true, make: backlogFull},
	}
}
