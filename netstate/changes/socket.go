package changes

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/netns"
)

// receiveBuffer is how many bytes of messages may wait. Where the kernel does not grant it, half of that is asked for, and
// so on.
const receiveBuffer = 8 << 20

// socket is a netlink socket that listens to multicast groups. One goroutine reads it; Close ends the reading.
type socket struct {
	file   *os.File
	cookie uint64
	buf    []byte
	oob    []byte
}

// listen opens a socket of a netlink family for groups. allNS asks for what happens in all namespaces that have a number
// here.
func listen(family int, groups []int, allNS bool) (s *socket, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, family)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	if allNS {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_LISTEN_ALL_NSID, 1); err != nil {
			return nil, fmt.Errorf("listen to other network namespaces: %w", err)
		}
	}
	for size := receiveBuffer; size > 64<<10; size /= 2 {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size) == nil || unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, size) == nil {
			break
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("bind netlink socket: %w", err)
	}
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		return nil, fmt.Errorf("get cookie of netlink socket: %w", err)
	}
	for _, g := range groups {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, g); err != nil {
			return nil, fmt.Errorf("listen to netlink group %d: %w", g, err)
		}
	}
	return &socket{file: os.NewFile(uintptr(fd), "netlink"), cookie: cookie, buf: make([]byte, 64<<10), oob: make([]byte, 256)}, nil
}

// packet is what one receive gave. The bytes are valid until the next.
type packet struct {
	b    []byte
	nsid int // of the namespace it is about; own
	at   time.Time
	boot uint64 // the same by CLOCK_BOOTTIME
}

// receive waits for the next packet. [unix.ENOBUFS] says that some were lost; [os.ErrClosed] that the socket was closed.
func (s *socket) receive() (packet, error) {
	rc, err := s.file.SyscallConn()
	if err != nil {
		return packet{}, err
	}
	var n, oobn int
	var rerr error
	err = rc.Read(func(fd uintptr) bool {
		for {
			n, oobn, _, _, rerr = unix.Recvmsg(int(fd), s.buf, s.oob, 0)
			if !errors.Is(rerr, unix.EINTR) {
				return !errors.Is(rerr, unix.EAGAIN)
			}
		}
	})
	if err == nil {
		err = rerr
	}
	if err != nil {
		return packet{}, err
	}
	return packet{b: s.buf[:n], nsid: nsidOf(s.oob[:oobn]), at: time.Now(), boot: bootTime()}, nil
}

// bootTime reads CLOCK_BOOTTIME.
func bootTime() uint64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0
	}
	return uint64(ts.Nano())
}

// nsidOf finds the number of a namespace among control messages.
func nsidOf(oob []byte) int {
	cs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return own
	}
	for _, c := range cs {
		if c.Header.Level == unix.SOL_NETLINK && c.Header.Type == unix.NETLINK_LISTEN_ALL_NSID && len(c.Data) >= 4 {
			return int(int32(binary.NativeEndian.Uint32(c.Data)))
		}
	}
	return own
}

func (s *socket) close() error { return s.file.Close() }

// dump asks the namespace of the calling thread for all objects of a kind.
func dump(kind Kind) (objs []*Object, err error) {
	req, fixed := requests[kind].typ, requests[kind].fixed
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	defer c.Close()
	for range 5 { // a table that changes while it is read is read again
		ms, err := c.Execute(netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(req), Flags: netlink.Request | netlink.Dump}, Data: make([]byte, fixed)})
		if err != nil {
			return nil, fmt.Errorf("list %ss: %w", kind, err)
		}
		objs = objs[:0]
		if slices.ContainsFunc(ms, func(m netlink.Message) bool { return m.Header.Flags&netlink.DumpInterrupted != 0 }) {
			continue
		}
		for _, m := range ms {
			ev, err := decode(message{header: header{Type: uint16(m.Header.Type)}, payload: m.Data})
			if err == nil && ev != nil && ev.kind == kind {
				objs = append(objs, ev.obj)
			}
		}
		return objs, nil
	}
	return nil, fmt.Errorf("list %ss: %w", kind, unix.EINTR)
}

// request is how all objects of a kind are asked for, and which groups tell of changes.
type request struct {
	typ    uint16
	fixed  int // bytes behind the header
	groups []int
}

var requests = map[Kind]request{
	Addr:  {unix.RTM_GETADDR, unix.SizeofIfAddrmsg, []int{unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR}},
	Link:  {unix.RTM_GETLINK, unix.SizeofIfInfomsg, []int{unix.RTNLGRP_LINK}},
	Route: {unix.RTM_GETROUTE, unix.SizeofRtMsg, []int{unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE}},
	Neigh: {unix.RTM_GETNEIGH, 12, []int{unix.RTNLGRP_NEIGH}},
	Rule:  {unix.RTM_GETRULE, 12, []int{unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE}},
}

// number gives the nsid of a namespace as the calling thread's namespace counts it, and has the kernel give it one if it has
// none: what happens there is told here only then. The number goes with the namespace.
func number(fd int) (int, error) {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return 0, fmt.Errorf("open netlink socket: %w", err)
	}
	defer c.Close()
	for range 3 {
		id, err := getNSID(c, fd)
		if err != nil || id >= 0 {
			return id, err
		}
		if err := askNSID(c, fd); err != nil && !errors.Is(err, unix.EEXIST) {
			return 0, fmt.Errorf("number network namespace: %w", err)
		}
	}
	return 0, errors.New("number network namespace: it got none")
}

func nsidRequest(typ uint16, fd int, attrs ...netlink.Attribute) (netlink.Message, error) {
	attrs = append(attrs, netlink.Attribute{Type: netnsaFD, Data: binary.NativeEndian.AppendUint32(nil, uint32(fd))})
	b, err := netlink.MarshalAttributes(attrs)
	return netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(typ), Flags: netlink.Request | netlink.Acknowledge}, Data: append(make([]byte, 4), b...)}, err
}

func getNSID(c *netlink.Conn, fd int) (int, error) {
	req, err := nsidRequest(unix.RTM_GETNSID, fd)
	if err != nil {
		return 0, err
	}
	req.Header.Flags = netlink.Request
	ms, err := c.Execute(req)
	if err != nil {
		return 0, fmt.Errorf("get number of network namespace: %w", err)
	}
	for _, m := range ms {
		if ev, err := decode(message{header: header{Type: uint16(m.Header.Type)}, payload: m.Data}); err == nil && ev != nil && ev.kind == NetNS {
			return ev.nsid, nil
		}
	}
	return 0, errors.New("get number of network namespace: no answer")
}

func askNSID(c *netlink.Conn, fd int) error {
	anyNumber := netlink.Attribute{Type: netnsaNSID, Data: binary.NativeEndian.AppendUint32(nil, ^uint32(0))}
	req, err := nsidRequest(unix.RTM_NEWNSID, fd, anyNumber)
	if err != nil {
		return err
	}
	_, err = c.Execute(req)
	return err
}

// ownNumber gives the nsid of the calling thread's namespace in itself, own if it has none.
func ownNumber(fd int) (int, error) {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return 0, fmt.Errorf("open netlink socket: %w", err)
	}
	defer c.Close()
	return getNSID(c, fd)
}

// numberedAs says if a namespace is still there and has a number. One that is being deleted can no longer be opened; a new one
// in its place has none yet.
func numberedAs(ref string, ino uint64, nsid int) bool {
	ns, err := netns.Open(ref)
	if err != nil {
		return false
	}
	defer ns.Close()
	if now, err := inode(ns); err != nil || now != ino {
		return false
	}
	id, err := ownNumber(ns.FD())
	return err == nil && id == nsid
}
