package netstate

import (
	"fmt"
	"strconv"
	"strings"
)

// SysctlName writes a name, of a device say, as it stands in the name of a setting: dots become slashes and slashes dots.
func SysctlName(s string) string {
	return strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, s)
}

// how says how the setting of a device and that of "all" become one.
type how int

const (
	devOnly how = iota // of "all" only what was written to it counts, for it was written to the devices, too
	either             // on if one of them is
	both               // on if both are
	highest
	allOnly
)

// combined are the settings in which "all" counts (IN_DEV_… of include/linux/inetdevice.h; net/ipv6/{ip6_output,addrconf}.c).
var combined = map[string]how{
	"ipv4.rp_filter": highest, "ipv4.arp_ignore": highest, "ipv4.arp_announce": highest, "ipv4.arp_notify": highest, "ipv4.arp_accept": highest,
	"ipv4.src_valid_mark": either, "ipv4.accept_local": either, "ipv4.log_martians": either, "ipv4.proxy_arp": either,
	"ipv4.proxy_arp_pvlan": either, "ipv4.shared_media": either, "ipv4.send_redirects": either, "ipv4.secure_redirects": either,
	"ipv4.route_localnet": either, "ipv4.arp_filter": either, "ipv4.drop_unicast_in_l2_multicast": either,
	"ipv4.drop_gratuitous_arp": either, "ipv4.promote_secondaries": either,
	"ipv4.mc_forwarding": both, "ipv4.bc_forwarding": both, "ipv4.accept_source_route": both, "ipv4.bootp_relay": both,
	"ipv4.arp_evict_nocarrier": both,
	"ipv6.forwarding":          allOnly, "ipv6.accept_dad": highest, "ipv6.proxy_ndp": either,
}

// DevSysctl is the value a setting of a device has in effect, and the key that it comes from: "net.ipv4.conf.all.rp_filter"
// if that is higher than the device's own. family is 4 or 6. ok is false if it was not read, or is no number.
func (s *State) DevSysctl(family int, dev, name string) (value int, key string, ok bool) {
	proto := fmt.Sprintf("ipv%d", family)
	own := fmt.Sprintf("net.%s.conf.%s.%s", proto, SysctlName(dev), name)
	all := fmt.Sprintf("net.%s.conf.all.%s", proto, name)
	d, ok1 := s.number(own)
	a, ok2 := s.number(all)
	rule := combined[proto+"."+name]
	if proto+"."+name == "ipv4.accept_redirects" { // a router asks both, a host either
		rule = either
		if f, _, _ := s.DevSysctl(4, dev, "forwarding"); f != 0 {
			rule = both
		}
	}
	switch rule {
	case highest:
		if ok2 && a > d {
			return a, all, true
		}
	case either:
		if a != 0 && d == 0 {
			return a, all, ok2
		}
	case both:
		if d != 0 && a == 0 {
			return a, all, ok2
		}
	case allOnly:
		return a, all, ok2
	}
	return d, own, ok1
}

// number is a setting's value.
func (s *State) number(key string) (int, bool) {
	n, err := strconv.Atoi(strings.TrimSpace(s.Sysctls[key]))
	return n, err == nil
}

// DecidingSysctls are the settings that answers in this package and in answers/packet ask for, as paths below /proc/sys/net;
// * stands for every device. They are a tenth of all, and read in a tenth of the time.
func DecidingSysctls() []string {
	paths := []string{
		"core/netdev_max_backlog", "netfilter/nf_conntrack_max", "ipv4/ip_forward",
		"ipv4/tcp_l3mdev_accept", "ipv4/udp_l3mdev_accept", "ipv4/raw_l3mdev_accept",
	}
	for _, name := range []string{
		"accept_local", "accept_redirects", "accept_source_route", "arp_filter", "arp_ignore", "drop_unicast_in_l2_multicast", "forwarding", "ignore_routes_with_linkdown",
		"proxy_arp", "route_localnet", "rp_filter", "send_redirects", "src_valid_mark",
	} {
		paths = append(paths, "ipv4/conf/*/"+name)
	}
	for _, name := range []string{"accept_redirects", "disable_ipv6", "drop_unicast_in_l2_multicast", "forwarding", "ignore_routes_with_linkdown"} {
		paths = append(paths, "ipv6/conf/*/"+name)
	}
	return append(paths, "ipv4/neigh/*/unres_qlen_bytes", "ipv6/neigh/*/unres_qlen_bytes")
}
