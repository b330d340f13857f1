package netstate_test

import (
	"fmt"
	"net/netip"

	"github.com/fathom-trace/fathom/netstate"
)

func Example() {
	s := &netstate.State{
		Links: []netstate.Link{{Index: 1, Name: "lo"}, {Index: 2, Name: "eth0"}, {Index: 3, Name: "eth1"}},
		Addrs: []netstate.Addr{{Link: 2, Prefix: netip.MustParsePrefix("10.77.0.2/24")}},
		Routes: []netstate.Route{
			{Family: 4, Table: 254, Type: "unicast", Dst: netip.MustParsePrefix("10.77.0.0/24"), Link: 2},
			{Family: 4, Table: 254, Type: "unicast", Dst: netip.MustParsePrefix("192.0.2.0/24"), Link: 3},
			{Family: 4, Table: 255, Type: "local", Dst: netip.MustParsePrefix("10.77.0.2/32"), Link: 2},
		},
		Sockets: []netstate.Socket{{
			Proto: "udp", Family: 4, Local: netip.MustParseAddrPort("0.0.0.0:9"), Remote: netip.MustParseAddrPort("0.0.0.0:0"), Dev: 3,
		}},
		Sysctls: map[string]string{"net.ipv4.conf.all.rp_filter": "1", "net.ipv4.conf.eth0.rp_filter": "0"},
	}
	me, far := netip.MustParseAddr("10.77.0.2"), netip.MustParseAddr("192.0.2.9")
	fmt.Println(s.FIB(netstate.Flow{Dst: far, Src: me}).Link, s.FIB(netstate.Flow{Dst: netip.MustParseAddr("198.51.100.1")}).Errno)
	p := s.ReversePath(netstate.Flow{Src: far, Dst: me, IIF: 2})
	fmt.Println(p.OK, p.Why, p.Key)
	for _, c := range s.SocketsFor("udp", netip.AddrPortFrom(me, 9), netip.AddrPortFrom(far, 5), 2) {
		fmt.Println(c.Socket.Local, c.Chosen, c.Why)
	}
	// Output:
	// 3 ENETUNREACH
	// false device net.ipv4.conf.all.rp_filter
	// 0.0.0.0:9 false device
}
