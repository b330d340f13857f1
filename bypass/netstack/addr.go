package netstack

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// addresses are those that gVisor was told of.
type addresses struct {
	mu  sync.Mutex
	has []netip.Prefix
}

func (a *addresses) list() (out []netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range a.has {
		out = append(out, p.Addr())
	}
	return out
}

// follow has the stack have the device's addresses and MTU, and be told when they change.
func (s *Stack) follow(ctx context.Context) error {
	done := make(chan struct{})
	addrs, links := make(chan netlink.AddrUpdate, 16), make(chan netlink.LinkUpdate, 16)
	err := s.dev.In(func() error {
		if err := netlink.AddrSubscribe(addrs, done); err != nil {
			return fmt.Errorf("follow the addresses of %s: %w", s.dev, err)
		}
		if err := netlink.LinkSubscribe(links, done); err != nil {
			close(done)
			return fmt.Errorf("follow the settings of %s: %w", s.dev, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := s.sync(); err != nil {
		close(done)
		return err
	}
	s.ended.Go(func() {
		defer func() { // the subscriptions end when nobody holds them up
			close(done)
			for range addrs {
			}
			for range links {
			}
		}()
		for {
			var index int
			select {
			case <-ctx.Done():
				return
			case u, ok := <-addrs:
				if !ok {
					return
				}
				index = u.LinkIndex
			case u, ok := <-links:
				if !ok {
					return
				}
				index = int(u.Index)
			}
			if index == s.near.index {
				_ = s.sync() // a device that went away is told by its queues
			}
		}
	})
	return nil
}

// sync tells gVisor of the device's addresses and MTU.
func (s *Stack) sync() error {
	l, err := s.near.h.LinkByIndex(s.near.index)
	if err != nil {
		return fmt.Errorf("look at %s: %w", s.dev, err)
	}
	if mtu := l.Attrs().MTU; mtu > 0 && uint32(mtu) != s.link.MTU() {
		s.gv.SetNICMTU(nic, uint32(min(mtu, s.most)))
	}
	all, err := s.near.h.AddrList(l, unix.AF_UNSPEC)
	if err != nil {
		return fmt.Errorf("list addresses of %s: %w", s.dev, err)
	}
	var now []netip.Prefix
	for _, a := range all {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			ones, _ := a.Mask.Size()
			now = append(now, netip.PrefixFrom(ip.Unmap(), ones))
		}
	}
	s.addrs.mu.Lock()
	old := s.addrs.has
	s.addrs.has = now
	s.addrs.mu.Unlock()
	for _, p := range old {
		if !slices.Contains(now, p) {
			s.gv.RemoveAddress(nic, tcpip.AddrFromSlice(p.Addr().AsSlice()))
			s.link.flows.forget()
		}
	}
	for _, p := range now {
		if slices.Contains(old, p) {
			continue
		}
		a := tcpip.ProtocolAddress{Protocol: protocol(p.Addr()), AddressWithPrefix: tcpip.AddressWithPrefix{Address: tcpip.AddrFromSlice(p.Addr().AsSlice()), PrefixLen: p.Bits()}}
		if err := s.gv.AddProtocolAddress(nic, a, stack.AddressProperties{}); err != nil {
			return fmt.Errorf("use address %s: %s", p, err)
		}
	}
	if slices.Equal(old, now) {
		return nil
	}
	return s.ports.apply()
}

// protocol is the number of IP for an address.
func protocol(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}
