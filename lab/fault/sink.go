package fault

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// sink is a socket that packets are meant for, or that stands beside: it counts what it gets.
type sink struct {
	fd     int
	file   *os.File // of the same descriptor, once it is set up
	reads  bool     // its reader runs
	counts bool     // what it gets has arrived
	done   sync.WaitGroup
	buf    []byte
	got    int
}

// socket says how a sink is to be. The zero value reads what it gets.
type socket struct {
	proto   string // udp, tcp, packet
	addr    netip.AddrPort
	dev     string // bound to it
	rcvbuf  int
	unread  bool // nobody reads
	backlog int
	md5     netip.Addr // peer that must sign
	peer    netip.AddrPort
	v6only  bool
	refuse  bool // a classic BPF program accepts nothing
	beside  bool // what it gets has not arrived where it was meant to
	minTTL  int
	group   netip.Addr // joined on dev
}

// serve opens a socket in a role's namespace. It stays open until the scene is closed.
func (s *Scene) serve(role string, o socket) error {
	k := &sink{fd: -1, counts: !o.beside, buf: make([]byte, 1<<16)}
	err := s.ns[role].Do(func() (err error) {
		if k.fd, err = o.open(); err == nil {
			err = o.set(k.fd)
		}
		return err
	})
	s.sinks = append(s.sinks, k)
	if err != nil {
		return fmt.Errorf("open %s socket at %v: %w", o.proto, o.addr, err)
	}
	k.file = os.NewFile(uintptr(k.fd), o.proto)
	if !o.unread {
		in, err := k.file.SyscallConn()
		if err != nil {
			return fmt.Errorf("read %s socket at %v: %w", o.proto, o.addr, err)
		}
		k.reads = true
		k.done.Go(func() { k.read(in, o.proto == "tcp") })
	}
	return nil
}

func (o socket) open() (int, error) {
	family := unix.AF_INET
	if o.addr.Addr().Is6() {
		family = unix.AF_INET6
	}
	switch o.proto {
	case "udp":
		return unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	case "tcp":
		return unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	}
	all := uint16(unix.ETH_P_ALL)<<8 | uint16(unix.ETH_P_ALL)>>8
	return unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(all))
}

// set sets the socket's options and binds it.
func (o socket) set(fd int) error {
	var errs []error
	try := func(err error) { errs = append(errs, err) }
	try(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	if o.rcvbuf > 0 {
		try(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, o.rcvbuf))
	}
	if o.refuse { // ret 0 (linux/filter.h)
		try(unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &unix.SockFilter{Code: unix.BPF_RET}}))
	}
	if o.proto == "packet" {
		ifi, err := net.InterfaceByName(o.dev)
		if err != nil {
			return err
		}
		try(unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: ifi.Index, Protocol: uint16(unix.ETH_P_ALL) << 8}))
		return errors.Join(errs...)
	}
	if o.dev != "" && !o.group.IsValid() {
		try(unix.BindToDevice(fd, o.dev))
	}
	if o.addr.Addr().Is6() {
		only := 0
		if o.v6only {
			only = 1
		}
		try(unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only))
	}
	if o.minTTL > 0 {
		try(unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MINTTL, o.minTTL))
	}
	if o.md5.IsValid() {
		try(unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_MD5SIG, md5sig(o.md5)))
	}
	try(unix.Bind(fd, sockaddr(o.addr)))
	if o.group.IsValid() {
		ifi, err := net.InterfaceByName(o.dev)
		if err != nil {
			return err
		}
		try(unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreqn{Multiaddr: o.group.As4(), Ifindex: int32(ifi.Index)}))
	}
	if o.peer.IsValid() {
		try(unix.Connect(fd, sockaddr(o.peer)))
	}
	if o.proto == "tcp" {
		try(unix.Listen(fd, o.backlog))
	}
	return errors.Join(errs...)
}

// md5sig is struct tcp_md5sig of include/uapi/linux/tcp.h: it asks a peer of IPv4 for signatures (RFC 2385) with a key that
// nobody has.
func md5sig(peer netip.Addr) string {
	const storage, maxKey = 128, 80 // struct sockaddr_storage; TCP_MD5SIG_MAXKEYLEN
	key := "secret"
	b := binary.NativeEndian.AppendUint16(nil, unix.AF_INET)
	b = append(append(b, 0, 0), peer.AsSlice()...) // any port
	b = append(b, make([]byte, storage-len(b)+2)...)
	b = binary.NativeEndian.AppendUint16(b, uint16(len(key)))
	b = append(append(b, 0, 0, 0, 0), key...)
	return string(append(b, make([]byte, maxKey-len(key))...))
}

// read takes what comes until the sink is settled.
func (k *sink) read(in syscall.RawConn, accept bool) {
	_ = in.Read(func(uintptr) bool { // until its deadline
		k.got += k.take(accept)
		return false
	})
	k.got += k.take(accept)
}

// take takes what is there now.
func (k *sink) take(accept bool) (n int) {
	for {
		if accept {
			fd, _, err := unix.Accept4(k.fd, unix.SOCK_CLOEXEC)
			if err != nil {
				return n
			}
			unix.Close(fd)
			n++
			continue
		}
		_, _, err := unix.Recvfrom(k.fd, k.buf, unix.MSG_DONTWAIT)
		if err == unix.ECONNREFUSED { // an answer to what nobody sent
			continue
		}
		if err != nil {
			return n
		}
		n++
	}
}

// settle says how many it got that were meant for it.
func (k *sink) settle() int {
	if !k.stop() {
		k.got += k.take(false)
	}
	if !k.counts {
		return 0
	}
	return k.got
}

// stop ends its reader; false says that there was none.
func (k *sink) stop() bool {
	if !k.reads {
		return false
	}
	k.reads = false
	_ = k.file.SetReadDeadline(time.Unix(1, 0))
	k.done.Wait()
	return true
}

func (k *sink) close() error {
	if k.file == nil { // it was not set up
		if k.fd < 0 {
			return nil
		}
		return unix.Close(k.fd)
	}
	k.stop()
	return k.file.Close()
}
