package sockets

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/bypass/netstack"
	"github.com/fathom-trace/fathom/internal/netns"
)

// mirror is a network namespace of ours in which a tun device stands for the stack's: it has its name, number and addresses, and all routes
// lead through it to us. A socket of UDP that is there behaves as one in the device's namespace, and is the kernel's for all that a program does with it;
// what it sends we read, and what we write it receives.
type mirror struct {
	ns    netns.NS
	tun   *os.File
	index int
	files [2]*os.File // the namespace's /proc/net/udp and udp6

	handling sync.Mutex // a packet, from taking it out of the device on

	mu    sync.Mutex
	addrs map[netip.Addr]bool
}

// wholeMTU has datagrams of any size pass in one packet.
const wholeMTU = 65535

func newMirror(s *netstack.Stack) (m *mirror, err error) {
	m = &mirror{index: s.Index(), addrs: map[netip.Addr]bool{}}
	if m.ns, err = netns.New(); err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	if err = m.ns.Do(func() error { return m.setUp(s.Device().Name) }); err == nil {
		err = m.follow(s)
	}
	if err != nil {
		return nil, errors.Join(err, m.close())
	}
	return m, nil
}

// setUp runs in the namespace.
func (m *mirror) setUp(name string) error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("/dev/net/tun: %w: it takes CONFIG_TUN (modprobe tun)", err)
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		if m.index > 1 { // lo has the first
			err = unix.IoctlSetPointerInt(fd, unix.TUNSETIFINDEX, m.index)
		}
	}
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("make a tun device: %w", err)
	}
	m.tun = os.NewFile(uintptr(fd), "tun")
	for i, file := range []string{"udp", "udp6"} {
		if m.files[i], err = os.Open("/proc/thread-self/net/" + file); err != nil && i == 0 { // IPv6 may be missing
			return err
		}
	}
	for path, v := range map[string]string{
		"ipv4/conf/" + name + "/route_localnet": "1", "ipv4/conf/" + name + "/rp_filter": "0", "ipv4/conf/all/rp_filter": "0",
		"ipv6/conf/" + name + "/addr_gen_mode": "1", "ipv6/conf/" + name + "/accept_dad": "0",
	} {
		_ = os.WriteFile("/proc/sys/net/"+path, []byte(v), 0) // where there are none it goes without: datagrams to oneself may not
	}
	l, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find the tun device: %w", err)
	}
	m.index = l.Attrs().Index
	if lo, err := netlink.LinkByName("lo"); err == nil { // what comes from 127.0.0.1 is for a local address only then; nothing is sent by it
		_ = netlink.LinkSetUp(lo)
	}
	if err := errors.Join(netlink.LinkSetMTU(l, wholeMTU), netlink.LinkSetTxQLen(l, 4096), netlink.LinkSetUp(l)); err != nil {
		return fmt.Errorf("set up the tun device: %w", err)
	}
	return m.direct(name)
}

// direct has everything that is sent go to us, what is for the host's own addresses, too.
func (m *mirror) direct(name string) error {
	for family, all := range map[int]string{unix.AF_INET: "0.0.0.0/0", unix.AF_INET6: "::/0"} {
		dst, err := netlink.ParseIPNet(all)
		if err == nil {
			err = netlink.RouteAdd(&netlink.Route{LinkIndex: m.index, Dst: dst, Scope: netlink.SCOPE_LINK})
		}
		if err != nil && family == unix.AF_INET {
			return fmt.Errorf("route to the tun device: %w", err)
		}
		in := netlink.NewRule()
		in.Family, in.Priority, in.Table, in.IifName = family, 0, unix.RT_TABLE_LOCAL, name
		local := netlink.NewRule()
		local.Family, local.Priority, local.Table = family, 0, unix.RT_TABLE_LOCAL
		if netlink.RuleAdd(in) == nil { // else what is for oneself is lo's
			_ = netlink.RuleDel(local)
		}
	}
	return nil
}

// follow gives the device the stack's addresses.
func (m *mirror) follow(s *netstack.Stack) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range s.Addrs() {
		if m.addrs[a] {
			continue
		}
		addr, err := netlink.ParseAddr(netip.PrefixFrom(a, a.BitLen()).String())
		if err != nil {
			return err
		}
		if a.Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := m.ns.Do(func() error {
			return netlink.AddrAdd(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: m.index}}, addr)
		}); err != nil {
			return fmt.Errorf("give the tun device %s: %w", a, err)
		}
		m.addrs[a] = true
	}
	return nil
}

// has says if an address is the host's, or stands for all.
func (m *mirror) has(a netip.Addr) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return a.IsUnspecified() || m.addrs[a.Unmap()]
}

// open are the sockets of UDP that are there, by inode.
func (m *mirror) open() (map[uint64]bool, error) {
	all := map[uint64]bool{}
	for _, f := range m.files {
		if f == nil {
			continue
		}
		b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<30))
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(b)) {
			if w := strings.Fields(line); len(w) > 9 {
				if n, err := strconv.ParseUint(w[9], 10, 64); err == nil {
					all[n] = true
				}
			}
		}
	}
	return all, nil
}

// read calls f with each packet that comes out of the device, until stop is closed and nothing is left of what was sent before.
func (m *mirror) read(stop <-chan struct{}, f func(packet []byte)) error {
	raw, err := m.tun.SyscallConn()
	if err != nil {
		return err
	}
	go func() {
		<-stop
		m.tun.SetReadDeadline(time.Unix(1, 0))
	}()
	b := make([]byte, wholeMTU)
	for err == nil {
		err = raw.Read(func(fd uintptr) bool { return m.next(int(fd), b, f) })
	}
	for ctl := true; ctl; { // what is left
		if cerr := control(m.tun, func(fd int) error { ctl = m.next(fd, b, f); return nil }); cerr != nil {
			return cerr
		}
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

// next handles a packet; false if there is none.
func (m *mirror) next(fd int, b []byte, f func(packet []byte)) bool {
	m.handling.Lock()
	defer m.handling.Unlock()
	n, err := unix.Read(fd, b)
	if err != nil {
		return errors.Is(err, unix.EINTR)
	}
	f(b[:n])
	return true
}

// settle returns when all that was sent before has been handled.
func (m *mirror) settle() {
	for left := true; left; {
		m.handling.Lock()
		err := control(m.tun, func(fd int) error {
			p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			n, err := unix.Poll(p, 0)
			left = n > 0 && p[0].Revents&unix.POLLIN != 0
			return err
		})
		m.handling.Unlock()
		if err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		if left {
			time.Sleep(100 * time.Microsecond) // the reader is there
		}
	}
}

// write has the device receive a packet. One that finds no room is lost, as any datagram may be.
func (m *mirror) write(packet []byte) {
	_ = control(m.tun, func(fd int) error {
		_, err := unix.Write(fd, packet)
		return err
	})
}

func (m *mirror) close() error {
	var errs []error
	for _, f := range append([]*os.File{m.tun}, m.files[:]...) {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(append(errs, m.ns.Close())...)
}
