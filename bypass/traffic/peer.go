package traffic

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/bypass/xsk"
	"github.com/fathom-trace/fathom/wire/header"
)

// Local is what a device is called in frames.
type Local struct {
	Index int
	MAC   net.HardwareAddr
	Net   netip.Prefix // its first address of IPv4 and the network's size; not valid if it has none
	MTU   int
}

// Of looks at a device.
func Of(dev xsk.Device) (l Local, err error) {
	err = dev.In(func() error {
		ifi, err := net.InterfaceByName(dev.Name)
		if err != nil {
			return fmt.Errorf("find device %s: %w", dev, err)
		}
		l.Index, l.MAC, l.MTU = ifi.Index, ifi.HardwareAddr, ifi.MTU
		addrs, err := ifi.Addrs()
		if err != nil {
			return fmt.Errorf("list addresses of %s: %w", dev, err)
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
				l.Net = p
				return nil
			}
		}
		return nil
	})
	return l, err
}

// Dropped is how many packets a device took from those who send and did not pass on: veth does so when the other end is slow. The
// sender is told that they were sent.
func Dropped(dev xsk.Device) (n uint64, err error) {
	err = dev.In(func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("read counters of %s: %w", dev, err)
		}
		defer h.Close()
		l, err := h.LinkByName(dev.Name)
		if err != nil {
			return fmt.Errorf("read counters of %s: %w", dev, err)
		}
		if s := l.Attrs().Statistics; s != nil {
			n = s.TxDropped
		}
		return nil
	})
	return n, err
}

// answerWithin is how long hosts are given to answer ARP.
const answerWithin = time.Second

// ErrNobody says that no host answered.
var ErrNobody = errors.New("nobody answers ARP")

// MACOf finds the Ethernet address of a neighbour: the kernel's, or it is asked for by ARP.
func MACOf(dev xsk.Device, l Local, to netip.Addr) (mac net.HardwareAddr, err error) {
	err = dev.In(func() error {
		ns, err := neighbours(l.Index)
		if err != nil {
			return err
		}
		for _, n := range ns {
			if a, ok := netip.AddrFromSlice(n.IP.To4()); ok && a == to && len(n.HardwareAddr) == 6 {
				mac = n.HardwareAddr
				return nil
			}
		}
		broadcast := net.HardwareAddr{255, 255, 255, 255, 255, 255}
		_, mac, err = ask(l, broadcast, []netip.Addr{to}, nil)
		if err != nil {
			return fmt.Errorf("find Ethernet address of %s on %s: %w", to, dev, err)
		}
		return nil
	})
	return mac, err
}

// widest is the largest network whose addresses are tried one by one.
const widest = 22

// AddrOf finds the IPv4 address of the neighbour with an Ethernet address: one that the kernel knows, or the host is asked, by
// frames to it alone, for the addresses of the device's network.
func AddrOf(dev xsk.Device, l Local, mac net.HardwareAddr) (addr netip.Addr, err error) {
	err = dev.In(func() error {
		ns, err := neighbours(l.Index)
		if err != nil {
			return err
		}
		for _, n := range ns {
			if a, ok := netip.AddrFromSlice(n.IP.To4()); ok && slices.Equal(n.HardwareAddr, mac) {
				addr = a
				return nil
			}
		}
		if !l.Net.IsValid() || l.Net.Bits() < widest {
			return ErrNobody
		}
		var targets []netip.Addr
		for a := l.Net.Masked().Addr(); l.Net.Contains(a); a = a.Next() {
			if a != l.Net.Addr() {
				targets = append(targets, a)
			}
		}
		addr, _, err = ask(l, mac, targets, mac)
		return err
	})
	return addr, err
}

func neighbours(index int) ([]netlink.Neigh, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("list neighbours: %w", err)
	}
	defer h.Close()
	ns, err := h.NeighList(index, unix.AF_INET)
	if err != nil {
		return nil, fmt.Errorf("list neighbours: %w", err)
	}
	return ns, nil
}

// ask sends ARP requests for targets to an Ethernet address, and gives the first answer; from, if not nil, is who must answer. The
// calling thread is in the device's namespace.
func ask(l Local, to net.HardwareAddr, targets []netip.Addr, from net.HardwareAddr) (netip.Addr, net.HardwareAddr, error) {
	proto := binary.NativeEndian.Uint16([]byte{0x08, 0x06})
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(proto))
	if err != nil {
		return netip.Addr{}, nil, fmt.Errorf("open packet socket: %w", err)
	}
	defer unix.Close(fd)
	sa := &unix.SockaddrLinklayer{Protocol: proto, Ifindex: l.Index}
	if err := unix.Bind(fd, sa); err != nil {
		return netip.Addr{}, nil, fmt.Errorf("bind packet socket: %w", err)
	}
	for _, t := range targets {
		if err := unix.Sendto(fd, arpRequest(l, to, t), 0, sa); err != nil {
			return netip.Addr{}, nil, fmt.Errorf("send ARP request: %w", err)
		}
	}
	buf := make([]byte, 128)
	for until := time.Now().Add(answerWithin); ; {
		left := time.Until(until)
		if left <= 0 {
			return netip.Addr{}, nil, ErrNobody
		}
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1); err != nil && err != unix.EINTR {
			return netip.Addr{}, nil, fmt.Errorf("wait for ARP: %w", err)
		}
		n, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
		if err == unix.EAGAIN || err == unix.EINTR {
			continue
		} else if err != nil {
			return netip.Addr{}, nil, fmt.Errorf("receive ARP: %w", err)
		}
		if a, mac, ok := arpReply(buf[:n]); ok && slices.Contains(targets, a) && (from == nil || slices.Equal(mac, from)) {
			return a, mac, nil
		}
	}
}

// arpRequest asks who has an address.
func arpRequest(l Local, to net.HardwareAddr, target netip.Addr) []byte {
	b := make([]byte, 60)
	copy(b, to)
	copy(b[6:], l.MAC)
	be := binary.BigEndian
	be.PutUint16(b[12:], 0x0806)
	arp := b[header.EthernetLen:]
	be.PutUint16(arp, 1)
	be.PutUint16(arp[2:], 0x0800)
	arp[4], arp[5] = 6, 4
	be.PutUint16(arp[6:], 1)
	copy(arp[8:], l.MAC)
	if l.Net.IsValid() {
		a := l.Net.Addr().As4()
		copy(arp[14:], a[:])
	}
	t := target.As4()
	copy(arp[24:], t[:])
	return b
}

// arpReply reads who answers.
func arpReply(b []byte) (netip.Addr, net.HardwareAddr, bool) {
	const reply = 2
	if len(b) < header.EthernetLen+header.ARPLen || header.Ethernet(b).Type() != 0x0806 {
		return netip.Addr{}, nil, false
	}
	h := header.ARP(b[header.EthernetLen:])
	if binary.BigEndian.Uint16(h) != 1 || binary.BigEndian.Uint16(h[2:]) != 0x0800 || h[4] != 6 || h[5] != 4 || h.Op() != reply {
		return netip.Addr{}, nil, false
	}
	mac := h.SenderMAC()
	return h.Sender(), net.HardwareAddr(slices.Clone(mac[:])), true
}

// ParseMAC reads an Ethernet address.
func ParseMAC(s string) (net.HardwareAddr, error) {
	m, err := net.ParseMAC(s)
	if err == nil && len(m) != 6 {
		err = fmt.Errorf("address %s: Ethernet has 6 bytes", s)
	}
	return m, err
}

// Reserve has the kernel give no one else the port that answers come to, which becomes the flow's source. The caller closes what
// is returned when no more answers are waited for.
func Reserve(dev xsk.Device, f *Flow) (c io.Closer, err error) {
	err = dev.In(func() error {
		u, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(f.Src.Addr(), 0)))
		if err != nil {
			u, err = net.ListenUDP("udp4", nil) // the address is none of ours
		}
		if err != nil {
			return err
		}
		c = u
		f.Src = netip.AddrPortFrom(f.Src.Addr(), u.LocalAddr().(*net.UDPAddr).AddrPort().Port())
		return nil
	})
	return c, err
}
