// Package sockets has an unmodified program's TCP connections and UDP datagrams go through a stack of user space (package netstack), past the kernel's.
//
//	s, err := netstack.Open(xsk.Device{Name: "eth0"}, netstack.Options{})
//	res, err := sockets.Run(ctx, s, sockets.Options{Ports: []uint16{8080}, Command: []string{"python3", "-m", "http.server", "8080"}})
//
// The program and its children run under a seccomp filter that has the kernel ask us before it does what they ask for: listen, accept,
// connect and what else is asked about a socket (seccomp_unotify(2)). Where a connection is to go past the kernel the program is given one
// end of a pair of UNIX sockets in place of its TCP socket, under the same descriptor, and we carry between the other end and the
// connection. So read, write, poll, epoll, sendfile, splice, fork and dup stay the kernel's and as fast as they are, and no call that moves
// data is held up. A UNIX socket is asked for its addresses and for what only TCP has by calls that we answer.
//
// A socket of UDP becomes one of UDP in a network namespace of ours, from which a tun device leads to us and on to the stack: so all
// of it is the kernel's, too, and only what may be its first call that names an address is asked about.
//
// What is not carried stays the kernel's, and is said: connections that do not go to where they were asked to, sockets of TCP that were
// bound before they connect. A listening socket goes on to listen in the kernel as well: what comes by another device, such as lo, reaches
// the program as before. io_uring is refused (ENOSYS), since the kernel asks nobody about it; programs do without.
//
// The filter is no protection against the program: what it points to may be changed while it is read (the same page says so).
package sockets
