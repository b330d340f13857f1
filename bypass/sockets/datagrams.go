package sockets

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/bypass/netstack"
)

// udp is what a run has for datagrams, from the first socket on that is carried.
type udp struct {
	carry sync.Mutex // one socket at a time
	m     *mirror
	err   error         // why there is none
	ended chan struct{} // what the program sent is sent

	mu    sync.Mutex
	ports map[uint16]*datagrams
	ways  map[netip.Addr]way
}

// way says if an address is reached by the stack's device.
type way struct {
	past  bool
	until time.Time
}

// datagrams is a socket of UDP of which the program has another one in its place, in the mirror.
type datagrams struct {
	r      *run
	inode  string
	number uint64 // of it
	addr   netip.AddrPort
	past   *netstack.Bound
	kernel *net.UDPConn // the program's own: what comes by other devices comes there, and what goes by them goes there
	errs   sync.Mutex
}

// mirrored makes the mirror the first time. r.udp.carry is held.
func (r *run) mirrored() (*mirror, error) {
	u := &r.udp
	if u.m != nil || u.err != nil {
		return u.m, u.err
	}
	if u.m, u.err = newMirror(r.s); u.err != nil {
		return nil, u.err
	}
	u.ended = make(chan struct{})
	r.wg.Go(func() {
		defer close(u.ended)
		if err := u.m.read(r.ctx.Done(), r.goOut); err != nil {
			r.stays(fmt.Sprintf("no more datagrams: %v", err))
		}
	})
	r.wg.Go(func() {
		for {
			select {
			case <-r.ctx.Done():
				return
			case <-time.After(time.Second):
				u.carry.Lock()
				r.sweep()
				u.carry.Unlock()
			}
		}
	})
	return u.m, nil
}

// sweep gives back the ports of sockets that the program has closed. r.udp.carry is held.
func (r *run) sweep() {
	u := &r.udp
	if u.m == nil {
		return
	}
	open, err := u.m.open()
	if err != nil {
		return
	}
	var gone []*datagrams
	u.mu.Lock()
	for _, d := range u.ports {
		if !open[d.number] {
			gone = append(gone, d)
		}
	}
	u.mu.Unlock()
	if len(gone) == 0 {
		return
	}
	u.m.settle()
	for _, d := range gone {
		d.close()
	}
}

// endDatagrams ends what is carried, when all that was sent is sent.
func (r *run) endDatagrams() {
	u := &r.udp
	u.carry.Lock()
	defer u.carry.Unlock()
	if u.m == nil {
		return
	}
	<-u.ended
	for _, d := range u.all() {
		d.close()
	}
}

func (u *udp) all() (all []*datagrams) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, d := range u.ports {
		all = append(all, d)
	}
	return all
}

func (d *datagrams) close() {
	u := &d.r.udp
	u.mu.Lock()
	delete(u.ports, d.addr.Port())
	u.mu.Unlock()
	d.r.forget(d.inode)
	d.past.Close()
	d.kernel.Close()
}

// bindDatagrams answers bind of a socket of UDP to one of our ports.
func (r *run) bindDatagrams(n notification, fd, f int, sa []byte, at netip.AddrPort) {
	u := &r.udp
	u.carry.Lock()
	defer u.carry.Unlock()
	stays := func(why any) {
		r.stays(fmt.Sprintf("datagrams to port %d: %v", at.Port(), why))
		r.ask.pass(n.id)
	}
	m, err := r.mirrored()
	if err == nil {
		err = m.follow(r.s)
	}
	if err != nil {
		stays(err)
		return
	}
	if !m.has(at.Addr()) {
		stays(fmt.Sprintf("%s is not an address of the device", at.Addr()))
		return
	}
	d, err := describe(n.pid, fd)
	if err != nil {
		r.ask.answer(n, err)
		return
	}
	if reason := fixed(n.pid, fd, d.inode); reason != "" {
		stays(reason)
		return
	}
	r.sweep()
	if _, _, errno := unix.Syscall(unix.SYS_BIND, uintptr(f), uintptr(unsafe.Pointer(&sa[0])), uintptr(len(sa))); errno != 0 {
		r.ask.answer(n, errno)
		return
	}
	if err := r.carryDatagrams(n, fd, f, d); err != nil {
		r.stays(fmt.Sprintf("datagrams to port %d: %v", at.Port(), err))
	}
	r.ask.answer(n, nil) // it is bound
}

// sendDatagrams is called before a socket of UDP connects or sends to where datagrams go past the kernel: from then on it is carried, if it
// can be. The kernel does what the program asked for.
func (r *run) sendDatagrams(n notification, fd, f int, to netip.AddrPort) {
	defer r.ask.pass(n.id)
	u := &r.udp
	u.carry.Lock()
	defer u.carry.Unlock()
	err := r.s.Leads(to.Addr())
	if errors.Is(err, netstack.ErrElsewhere) {
		err = fmt.Errorf("the route is by another device")
	}
	var m *mirror
	if err == nil {
		m, err = r.mirrored()
	}
	if err == nil {
		err = m.follow(r.s)
	}
	var d descriptor
	if err == nil {
		d, err = describe(n.pid, fd)
	}
	if err == nil {
		if reason := fixed(n.pid, fd, d.inode); reason != "" {
			err = errors.New(reason)
		} else if _, perr := unix.Getpeername(f); perr == nil {
			err = errors.New("the socket was connected before")
		}
	}
	if err == nil {
		if b, berr := boundAt(f); berr != nil || b.Port() == 0 {
			err = errors.Join(berr, bindAny(f))
		} else if !m.has(b.Addr()) {
			err = fmt.Errorf("the socket is bound to %s, which is not an address of the device", b.Addr())
		}
	}
	if err == nil {
		r.sweep()
		err = r.carryDatagrams(n, fd, f, d)
	}
	if err != nil {
		r.stays(fmt.Sprintf("datagrams to %v: %v", to, err))
	}
}

// boundAt is what a socket is bound to.
func boundAt(fd int) (netip.AddrPort, error) {
	name, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, os.NewSyscallError("getsockname", err)
	}
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)), nil
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port)), nil
	}
	return netip.AddrPort{}, os.NewSyscallError("getsockname", unix.EAFNOSUPPORT)
}

// bindAny binds a socket to a port that the kernel chooses, as it does when the first datagram is sent.
func bindAny(fd int) error {
	name, err := unix.Getsockname(fd)
	if err == nil {
		err = unix.Bind(fd, name) // port 0 of any address, or of the one it is bound to
	}
	return os.NewSyscallError("bind", err)
}

// carryDatagrams gives the program a socket in the mirror for f, which is bound. r.udp.carry is held.
func (r *run) carryDatagrams(n notification, fd, f int, desc descriptor) (err error) {
	d := &datagrams{r: r}
	if d.addr, err = boundAt(f); err != nil {
		return err
	}
	theirs, err := r.udp.m.twin(f, desc.nonblock)
	if err != nil {
		return err
	}
	defer unix.Close(theirs)
	var st unix.Stat_t
	if err := unix.Fstat(theirs, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	d.number, d.inode = st.Ino, fmt.Sprintf("socket:[%d]", st.Ino)
	file, err := duplicate(f)
	if err != nil {
		return err
	}
	pc, err := net.FilePacketConn(file)
	file.Close()
	if err != nil {
		return err
	}
	d.kernel = pc.(*net.UDPConn)
	defer func() {
		if err != nil {
			d.kernel.Close()
			_ = unix.SetNonblock(f, desc.nonblock) // which package net has set for who has the socket, the program too
		}
	}()
	for _, o := range told {
		_ = unix.SetsockoptInt(f, o[0], o[1], 1) // those of the other family fail
	}
	if d.past, err = r.s.HandleBound(d.kernel, d.came); err != nil {
		return err
	}
	r.remember(d.inode, d)
	r.udp.mu.Lock()
	if r.udp.ports == nil {
		r.udp.ports = map[uint16]*datagrams{}
	}
	r.udp.ports[d.addr.Port()] = d
	r.udp.mu.Unlock()
	if err := r.ask.replace(n.id, theirs, fd, desc.cloexec); err != nil {
		d.close()
		return err
	}
	r.wg.Go(d.elsewhere)
	return nil
}

// told are options of the program's own socket by which the kernel tells where datagrams were sent to, and what ICMP says of those that went.
var told = [][2]int{{unix.IPPROTO_IP, unix.IP_PKTINFO}, {unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO}, {unix.IPPROTO_IP, unix.IP_RECVERR}, {unix.IPPROTO_IPV6, unix.IPV6_RECVERR}}

// copied are the options that a twin has from its socket. The kernel doubles what it is told of buffers.
var copied = [][2]int{
	{unix.SOL_SOCKET, unix.SO_REUSEADDR}, {unix.SOL_SOCKET, unix.SO_REUSEPORT}, {unix.SOL_SOCKET, unix.SO_BROADCAST}, {unix.SOL_SOCKET, unix.SO_TIMESTAMP},
	{unix.SOL_SOCKET, unix.SO_TIMESTAMPNS}, {unix.SOL_SOCKET, unix.SO_PRIORITY}, {unix.SOL_SOCKET, unix.SO_PASSCRED},
	{unix.IPPROTO_IP, unix.IP_TOS}, {unix.IPPROTO_IP, unix.IP_TTL}, {unix.IPPROTO_IP, unix.IP_PKTINFO}, {unix.IPPROTO_IP, unix.IP_RECVTTL},
	{unix.IPPROTO_IP, unix.IP_RECVTOS}, {unix.IPPROTO_IP, unix.IP_RECVERR}, {unix.IPPROTO_IP, unix.IP_MTU_DISCOVER},
	{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY}, {unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS}, {unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO},
	{unix.IPPROTO_IPV6, unix.IPV6_RECVERR}, {unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT}, {unix.IPPROTO_IPV6, unix.IPV6_TCLASS}, {unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER},
}

// twin makes a socket in the mirror that is as one of the program's, which is bound.
func (m *mirror) twin(f int, nonblock bool) (fd int, err error) {
	family, err := unix.GetsockoptInt(f, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return -1, os.NewSyscallError("getsockopt", err)
	}
	name, err := unix.Getsockname(f)
	if err != nil {
		return -1, os.NewSyscallError("getsockname", err)
	}
	if err := m.ns.Do(func() (err error) {
		fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return os.NewSyscallError("socket", err)
	}); err != nil {
		return -1, err
	}
	for _, o := range copied {
		if v, err := unix.GetsockoptInt(f, o[0], o[1]); err == nil {
			_ = unix.SetsockoptInt(fd, o[0], o[1], v) // those of the other family fail
		}
	}
	for from, to := range map[int]int{unix.SO_RCVBUF: unix.SO_RCVBUFFORCE, unix.SO_SNDBUF: unix.SO_SNDBUFFORCE} {
		if v, err := unix.GetsockoptInt(f, unix.SOL_SOCKET, from); err == nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, to, v/2)
		}
	}
	for _, o := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if v, err := unix.GetsockoptTimeval(f, unix.SOL_SOCKET, o); err == nil {
			_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, o, v)
		}
	}
	if err := errors.Join(os.NewSyscallError("bind", unix.Bind(fd, name)), unix.SetNonblock(fd, nonblock)); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// came is called with what came past the kernel.
func (d *datagrams) came(from, to netip.AddrPort, payload []byte) {
	d.r.datagramsIn.Add(1)
	d.r.udp.m.write(datagram{from, to, payload}.bytes())
}

// goOut sends a packet that a socket in the mirror sent.
func (r *run) goOut(packet []byte) {
	p, ok := parseDatagram(packet)
	if !ok {
		return // what the kernel says itself on such a device
	}
	r.udp.mu.Lock()
	d := r.udp.ports[p.from.Port()]
	r.udp.mu.Unlock()
	if d == nil {
		return
	}
	if r.past(p.to.Addr()) && d.past.Send(p.from.Addr(), p.to, p.payload) == nil {
		r.datagramsOut.Add(1)
		return
	}
	r.datagramsElse.Add(1)
	for range 2 { // the first call may be told what became of another one
		if _, err := d.kernel.WriteToUDPAddrPort(p.payload, p.to); err == nil {
			return
		}
		d.failures()
	}
}

// past says if datagrams to an address go past the kernel: its route leads by the stack's device, and it is one host's.
func (r *run) past(to netip.Addr) bool {
	if to.IsMulticast() || to == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return false
	}
	u := &r.udp
	now := time.Now()
	u.mu.Lock()
	w, ok := u.ways[to]
	u.mu.Unlock()
	if ok && now.Before(w.until) {
		return w.past
	}
	w = way{r.s.Leads(to) == nil, now.Add(time.Second)}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ways == nil || len(u.ways) >= 4096 {
		u.ways = map[netip.Addr]way{}
	}
	u.ways[to] = w
	return w.past
}

// elsewhere carries what comes through the kernel, until the socket is closed.
func (d *datagrams) elsewhere() {
	b, oob := make([]byte, wholeMTU), make([]byte, 512)
	for {
		n, oobn, _, from, err := d.kernel.ReadMsgUDPAddrPort(b, oob)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		d.failures()
		if err != nil {
			continue // it was about one that was sent
		}
		to := netip.AddrPortFrom(destination(oob[:oobn], d.addr.Addr()), d.addr.Port())
		from = netip.AddrPortFrom(from.Addr().Unmap().WithZone(""), from.Port())
		if !to.Addr().IsValid() || from.Addr().Is4() != to.Addr().Is4() {
			continue
		}
		d.r.datagramsElse.Add(1)
		d.r.udp.m.write(datagram{from, to, b[:n]}.bytes())
	}
}

// destination is where a datagram was sent to, by its control messages; or else is what the socket is bound to.
func destination(oob []byte, bound netip.Addr) netip.Addr {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return bound
	}
	for _, m := range msgs {
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
			return netip.AddrFrom4([4]byte(m.Data[8:12])) // ipi_addr
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
			return netip.AddrFrom16([16]byte(m.Data[:16])).Unmap()
		}
	}
	return bound
}

// failures tells the program's socket what ICMP said of datagrams that were sent: the kernel has told its own.
func (d *datagrams) failures() {
	d.errs.Lock()
	defer d.errs.Unlock()
	b, oob := make([]byte, 512), make([]byte, 512)
	for {
		var n, oobn int
		var name unix.Sockaddr
		err := control(d.kernel, func(fd int) (err error) {
			n, oobn, _, name, err = unix.Recvmsg(fd, b, oob, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
			return err
		})
		if err != nil {
			return
		}
		var to netip.AddrPort
		switch a := name.(type) {
		case *unix.SockaddrInet4:
			to = netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
		case *unix.SockaddrInet6:
			to = netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
		}
		if p, ok := failure(datagram{netip.AddrPortFrom(destination(oob[:oobn], d.addr.Addr()), d.addr.Port()), to, b[:n]}, oob[:oobn]); ok {
			d.r.udp.m.write(p)
		}
	}
}

// failure makes the packet of ICMP again that a message of the error queue is about (struct sock_extended_err, include/uapi/linux/errqueue.h).
func failure(sent datagram, oob []byte) ([]byte, bool) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil || !sent.from.Addr().IsValid() || !sent.to.Addr().IsValid() || sent.from.Addr().Is4() != sent.to.Addr().Is4() {
		return nil, false
	}
	for _, m := range msgs {
		four := m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_RECVERR
		six := m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_RECVERR
		if !four && !six || len(m.Data) < 16 {
			continue
		}
		const offOrigin, offType, offCode, offInfo, icmp, icmp6 = 4, 5, 6, 8, 2, 3
		if origin := m.Data[offOrigin]; four && origin != icmp || six && origin != icmp6 {
			continue
		}
		return sent.unreachable(sent.to.Addr(), m.Data[offType], m.Data[offCode], binary.NativeEndian.Uint32(m.Data[offInfo:])), true
	}
	return nil, false
}

// joins has the program's own socket join or leave a group of multicast, too: what is sent to one comes through the kernel.
func (d *datagrams) joins(n notification) {
	level, name, size := int(int32(n.args[1])), int(int32(n.args[2])), int(int32(n.args[4]))
	four := level == unix.IPPROTO_IP && (name == unix.IP_ADD_MEMBERSHIP || name == unix.IP_DROP_MEMBERSHIP)
	six := level == unix.IPPROTO_IPV6 && (name == unix.IPV6_ADD_MEMBERSHIP || name == unix.IPV6_DROP_MEMBERSHIP)
	if !four && !six || size <= 0 || size > unix.SizeofIPMreqn+unix.SizeofIPv6Mreq {
		return
	}
	b, err := read(n.pid, n.args[3], size)
	if err != nil {
		return // the kernel says so
	}
	err = control(d.kernel, func(fd int) error { return unix.SetsockoptString(fd, level, name, string(b)) })
	if err == nil {
		d.r.stays(fmt.Sprintf("groups of multicast that the socket at port %d joins", d.addr.Port()))
	}
}

// sends answers a call that may send a datagram to an address.
func (r *run) sends(n notification, fd int) {
	if r.find(inode(n.pid, fd)) != nil {
		r.ask.pass(n.id)
		return
	}
	at, size := n.args[4], uint64(uint32(n.args[5]))
	if n.nr != unix.SYS_SENDTO {
		b, err := read(n.pid, n.args[1], 12) // struct msghdr begins with the address and its length
		if err != nil {
			r.ask.pass(n.id)
			return
		}
		at, size = binary.NativeEndian.Uint64(b), uint64(binary.NativeEndian.Uint32(b[8:]))
	}
	f, to, ok := r.leaving(n, fd, at, size)
	if !ok {
		return
	}
	defer unix.Close(f)
	if !isUDP(f) {
		r.ask.pass(n.id)
		return
	}
	r.sendDatagrams(n, fd, f, to)
}

// isUDP says if a socket is one of UDP.
func isUDP(fd int) bool {
	family, err1 := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	proto, err2 := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	return err1 == nil && err2 == nil && (family == unix.AF_INET || family == unix.AF_INET6) && proto == unix.IPPROTO_UDP
}
