// Package netstack is TCP and UDP of this process: connections and listeners whose packets go around the kernel, through
// AF_XDP sockets (package xsk), or AF_PACKET ones (package tpacket) where there are none, on a device and with addresses that stay the kernel's.
//
//	s, err := netstack.Open(xsk.Device{Name: "eth0"}, netstack.Options{})
//	l, err := s.Listen("tcp", ":8080")
//	err = http.Serve(l, handler)
//	client := http.Client{Transport: &http.Transport{DialContext: s.DialContext}}
//
// What is the kernel's stays so: its addresses, routes, neighbours and MTU are asked for and followed, ARP and neighbour
// discovery are its own, and only packets to ports that were opened here are taken from it. Such a port is bound in the
// kernel too, by a socket that neither listens nor receives, so that no other program gets it, and an attempt to open one that
// somebody has fails as it does there. All ends with the process, kill -9 included.
//
// Connections are net.Conn and behave as those of package net, with its errors: deadlines, half closing (CloseRead,
// CloseWrite), syscall.ECONNREFUSED. The protocols themselves are gVisor's (gvisor.dev/gvisor/pkg/tcpip); none of its types
// is seen here.
//
// Packets may be longer than a frame of AF_XDP (Linux 6.6): by the MTU, or because a sender's kernel left them to a device to cut.
//
// Where a connection of the kernel does, that is simpler: on veth round trips of TCP take from half as long as Go's net, where it is dear to
// wake a thread, to as long, and bulk transfers reach two fifths (sending) to two thirds (receiving) of the kernel's without offloads
// (docs/benchmarks-bypass.md). HandleUDP, whose datagrams gVisor never sees, is the short way.
package netstack
