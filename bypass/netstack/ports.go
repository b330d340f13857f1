package netstack

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// port is one of TCP's or UDP's.
type port struct {
	proto  string // "tcp", "udp"
	number uint16
}

// Ports for connections that are made here lie beyond those that the kernel gives out by itself
// (net.ipv4.ip_local_port_range, 32768 to 60999). They are one range, which grows by a block when it is used up.
const (
	firstOutgoing = 61000
	lastOutgoing  = 65535
	block         = 252 // 18 of them
	tries         = 64  // of a port at random, before the range grows
)

// ports are those that are the stack's. Each is bound in the kernel too, so that nobody else gets it: a bound socket of TCP that does not
// listen answers nothing and is given nothing, since the packets do not come to the kernel; where they do, there is a guard.
type ports struct {
	s     *Stack
	guard *guard

	mu     sync.Mutex
	opened map[port]*opened
	first  uint16 // of the range for connections that are made here; 0 if there is none yet
	last   uint16
	kept   []int // descriptors that keep the range
	ended  bool
}

// opened is a port that somebody listens on, or that has connections of who did.
type opened struct {
	fd        int
	undo      func(fd int) // with somebody's socket, when it is only theirs again
	group     netip.Addr   // of multicast, whose packets come then
	users     int          // listener and connections' keeps
	listening bool
}

func newPorts(s *Stack) *ports {
	return &ports{s: s, opened: map[port]*opened{}}
}

// socket types by protocol.
var sockTypes = map[string]int{"tcp": unix.SOCK_STREAM, "udp": unix.SOCK_DGRAM}

// bind takes a port in the kernel: of an address, or of all if it is not valid; number 0 lets the kernel choose. The calling thread is in the
// device's namespace.
func (p *ports) bind(proto string, addr netip.Addr, number uint16) (fd int, got uint16, err error) {
	if addr.IsValid() {
		return p.bindTo(proto, addr, number)
	}
	fd, got, err = p.bindTo(proto, netip.IPv6Unspecified(), number) // and IPv4 with it
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL) {
		return p.bindTo(proto, netip.IPv4Unspecified(), number)
	}
	return fd, got, err
}

func (p *ports) bindTo(proto string, addr netip.Addr, number uint16) (fd int, got uint16, err error) {
	family, sa := unix.AF_INET, unix.Sockaddr(nil)
	if addr.Is4() {
		sa = &unix.SockaddrInet4{Port: int(number), Addr: addr.As4()}
	} else {
		v6 := &unix.SockaddrInet6{Port: int(number), Addr: addr.As16()}
		if addr.IsLinkLocalUnicast() {
			v6.ZoneId = uint32(p.s.near.index)
		}
		family, sa = unix.AF_INET6, v6
	}
	if fd, err = unix.Socket(family, sockTypes[proto]|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, 0, err
	}
	if proto == "udp" { // what comes all the same, by another device, is not kept
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 0)
	}
	if err == nil {
		err = p.guard.before(fd)
	}
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	if err == nil {
		err = p.guard.after(fd, proto)
	}
	var b bound
	if err == nil {
		b, err = boundTo(fd)
	}
	if err != nil {
		unix.Close(fd)
		return -1, 0, err
	}
	return fd, b.number, nil
}

// bound is what a socket is bound to.
type bound struct {
	addr   netip.Addr // not valid if it is any of IPv6 and IPv4
	number uint16
	only6  bool
}

func boundTo(fd int) (b bound, err error) {
	name, err := unix.Getsockname(fd)
	if err != nil {
		return b, os.NewSyscallError("getsockname", err)
	}
	switch name := name.(type) {
	case *unix.SockaddrInet4:
		b = bound{addr: netip.AddrFrom4(name.Addr), number: uint16(name.Port)}
	case *unix.SockaddrInet6:
		b = bound{addr: netip.AddrFrom16(name.Addr).Unmap(), number: uint16(name.Port)}
		if b.addr == netip.IPv6Unspecified() {
			b.addr = netip.Addr{}
			only, err := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
			if err != nil {
				return b, os.NewSyscallError("getsockopt", err)
			}
			b.only6 = only != 0
		}
	default:
		return b, os.NewSyscallError("getsockname", unix.EAFNOSUPPORT)
	}
	return b, nil
}

// open takes a port for the stack: from now on its packets come here.
func (p *ports) open(proto string, addr netip.Addr, number uint16) (port, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return port{}, unix.EBADF
	}
	if k := (port{proto, number}); p.opened[k].again() {
		return k, nil
	}
	at := addr
	switch {
	case addr.IsMulticast() && addr.Is4():
		at = netip.IPv4Unspecified()
	case addr.IsMulticast():
		at = netip.IPv6Unspecified()
	}
	var fd int
	var got uint16
	err := p.s.dev.In(func() (err error) {
		fd, got, err = p.bind(proto, at, number)
		return err
	})
	if err != nil {
		return port{}, err
	}
	o := &opened{fd: fd}
	if addr.IsMulticast() {
		o.group = addr
	}
	return p.take(port{proto, got}, o)
}

// adopt takes the port that a socket of somebody else is bound to.
func (p *ports) adopt(proto string, fd int, number uint16) (port, error) {
	if number == 0 {
		return port{}, os.NewSyscallError("bind", unix.EINVAL)
	}
	fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return port{}, os.NewSyscallError("fcntl", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		unix.Close(fd)
		return port{}, unix.EBADF
	}
	undo, err := p.guard.over(fd)
	if err != nil {
		unix.Close(fd)
		return port{}, err
	}
	return p.take(port{proto, number}, &opened{fd: fd, undo: undo})
}

func (o *opened) close() {
	if o.undo != nil {
		o.undo(o.fd)
	}
	unix.Close(o.fd)
}

// again has a port listened on that only has connections yet; false if it has more, or is not open.
func (o *opened) again() bool {
	if o == nil || o.listening {
		return false
	}
	o.users++
	o.listening = true
	return true
}

// silent is that nobody listens on a port any more.
func (p *ports) silent(k port) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if o := p.opened[k]; o != nil {
		o.listening = false
	}
}

// take has the packets of a port that is bound come here. p.mu is held.
func (p *ports) take(k port, o *opened) (port, error) {
	if before := p.opened[k]; before.again() { // the socket that is there keeps its port as long as it is open
		(&opened{fd: before.fd, undo: before.undo}).close()
		before.fd, before.undo = o.fd, o.undo
		return k, nil
	} else if before != nil { // by another address
		o.close()
		return port{}, unix.EADDRINUSE
	}
	o.users, o.listening = 1, true
	p.opened[k] = o
	if err := p.set(); err != nil {
		o.close()
		delete(p.opened, k)
		return port{}, err
	}
	return k, nil
}

// release gives a port back to the kernel.
func (p *ports) release(k port) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o := p.opened[k]
	if o == nil {
		return
	}
	if o.users--; o.users > 0 {
		return
	}
	delete(p.opened, k)
	if !p.ended {
		_ = p.set() // if it fails the port stays steered to nobody, which answers as a closed one
	}
	o.close()
}

// outgoing calls try until there is a port for a connection: with 0 if gVisor may choose one, which knows which are free for an address, with
// one at random if the connection must come from another address than gVisor would choose.
func (p *ports) outgoing(choose bool, try func(number uint16) error) error {
	for {
		p.mu.Lock()
		first, last := p.first, p.last
		p.mu.Unlock()
		for i := 0; i < tries && first > 0; i++ {
			number := uint16(0)
			if !choose {
				number = first + uint16(rand.IntN(int(last-first)+1))
			}
			if err := try(number); !errors.Is(err, unix.EADDRINUSE) && !errors.Is(err, unix.EADDRNOTAVAIL) {
				return err
			}
			if choose {
				break
			}
		}
		if err := p.grow(last); err != nil {
			return err
		}
	}
}

// grow makes the range for outgoing connections a block longer, if it still ends with last.
func (p *ports) grow(last uint16) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.ended:
		return unix.EBADF
	case p.last != last: // somebody else did
		return nil
	}
	const blocks = (lastOutgoing + 1 - firstOutgoing) / block
	from, to := 0, blocks
	if p.first > 0 {
		from = (int(p.last) + 1 - firstOutgoing) / block
		to = min(blocks, from+1)
	}
	for i := from; i < to; i++ {
		first := uint16(firstOutgoing + i*block)
		fds, err := p.bindBlock(first)
		if errors.Is(err, unix.EADDRINUSE) {
			continue
		} else if err != nil {
			return fmt.Errorf("take ports from %d on: %w", first, err)
		}
		was := p.first
		if p.first == 0 {
			p.first = first
		}
		p.last = first + block - 1
		err = p.set()
		if terr := p.s.gv.SetPortRange(p.first, p.last); err == nil && terr != nil {
			err = errno(terr)
		}
		if err != nil {
			p.first, p.last = was, last
			closeAll(fds)
			return err
		}
		p.kept = append(p.kept, fds...)
		return nil
	}
	return fmt.Errorf("all ports from %d to %d are in use: %w", max(p.first, firstOutgoing), max(p.last, lastOutgoing), unix.EADDRNOTAVAIL)
}

// bindBlock takes a block of ports, of both protocols, none of which anybody has.
func (p *ports) bindBlock(first uint16) (fds []int, err error) {
	err = p.s.dev.In(func() error {
		for i := range uint16(block) {
			for proto := range sockTypes {
				fd, _, err := p.bind(proto, netip.Addr{}, first+i)
				if err != nil {
					return err
				}
				fds = append(fds, fd)
			}
		}
		return nil
	})
	if err != nil {
		closeAll(fds)
		return nil, err
	}
	return fds, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// apply writes the rules again, since addresses have changed.
func (p *ports) apply() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return nil
	}
	return p.set()
}

// set says which packets are to come here; mu is held.
func (p *ports) set() error {
	var hosts []string
	for _, a := range p.s.addrs.list() {
		hosts = append(hosts, "dst host "+a.String())
	}
	slices.Sort(hosts)
	var filters []string
	add := func(k port, last uint16, to []string, errs bool) {
		if len(to) > 0 {
			filters = append(filters, portFilter(k.proto, k.number, last, to, errs))
		}
	}
	for k, o := range p.opened {
		to := hosts
		if o.group.IsValid() {
			to = []string{"dst host " + o.group.String()}
		}
		add(k, k.number, to, k.proto == "tcp" || o.undo == nil) // somebody's socket of UDP is told of errors itself
	}
	for proto := range sockTypes {
		if p.first > 0 {
			add(port{proto, p.first}, p.last, hosts, true)
		}
	}
	slices.Sort(filters)
	if err := p.s.packets.take(filters); err != nil {
		return fmt.Errorf("steer packets here: %w", err)
	}
	return nil
}

// portFilter writes the rule of ports in tcpdump's language: the packets to them, and, with errs, the errors of ICMP about packets from them, which
// say that a host is not there or that packets are too long. Fragments are the kernel's: only the first has ports. Errors quote the packet: IP's
// header, here without options, and the first bytes after it.
func portFilter(proto string, first, last uint16, hosts []string, errs bool) string {
	number := map[string]int{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP}[proto]
	quoted := func(icmp string, at int) string {
		if first == last {
			return fmt.Sprintf("%s[%d:2] = %d", icmp, at, first)
		}
		return fmt.Sprintf("%s[%d:2] >= %d and %s[%d:2] <= %d", icmp, at, first, icmp, at, last)
	}
	to := strings.Join(hosts, " or ")
	packets := fmt.Sprintf("(%s dst portrange %d-%d and not ip[6:2] & 0x3fff != 0)", proto, first, last)
	if !errs {
		return fmt.Sprintf("(%s) and %s", to, packets)
	}
	return fmt.Sprintf("(%s) and (%s or (icmp[0] = 3 and icmp[17] = %d and %s) or (icmp6[0] <= 2 and icmp6[14] = %d and %s))",
		to, packets, number, quoted("icmp", 28), number, quoted("icmp6", 48))
}

// close gives all ports back.
func (p *ports) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	for _, o := range p.opened {
		o.close()
	}
	closeAll(p.kept)
	p.opened, p.kept = map[port]*opened{}, nil
}
