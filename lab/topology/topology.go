// Package topology builds networks out of namespaces, through netlink alone. Everything is tied to descriptors: when
// the owner closes it or dies, nothing is left.
package topology

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	vns "github.com/vishvananda/netns"

	"github.com/fathom-trace/fathom/internal/netns"
)

// Host is one end: a namespace with one interface.
type Host struct {
	netns.NS
	Dev  string
	Addr net.IP
}

// Pair is two hosts joined by a veth pair.
type Pair struct{ A, B Host }

// NewPair joins two new namespaces: 10.77.0.1 on devA and 10.77.0.2 on devB, up, /24.
func NewPair(devA, devB string) (p *Pair, err error) {
	p = &Pair{A: Host{Dev: devA, Addr: net.IPv4(10, 77, 0, 1)}, B: Host{Dev: devB, Addr: net.IPv4(10, 77, 0, 2)}}
	if p.A.NS, err = netns.New(); err != nil {
		return nil, err
	}
	if p.B.NS, err = netns.New(); err != nil {
		p.A.Close()
		return nil, err
	}
	if err = p.wire(); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Close removes both namespaces and so the pair.
func (p *Pair) Close() error {
	p.A.Close()
	return p.B.Close()
}

func (p *Pair) wire() error {
	h, err := netlink.NewHandleAt(vns.NsHandle(p.A.FD()))
	if err != nil {
		return fmt.Errorf("netlink in %s: %w", p.A.Dev, err)
	}
	defer h.Close()
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: p.A.Dev}, PeerName: p.B.Dev, PeerNamespace: netlink.NsFd(p.B.FD())}
	if err := h.LinkAdd(veth); err != nil {
		return fmt.Errorf("add veth %s -- %s: %w", p.A.Dev, p.B.Dev, err)
	}
	for _, host := range []Host{p.A, p.B} {
		if err := up(host); err != nil {
			return err
		}
	}
	return nil
}

// up gives a host its address and sets its interfaces up.
func up(host Host) error {
	h, err := netlink.NewHandleAt(vns.NsHandle(host.FD()))
	if err != nil {
		return fmt.Errorf("netlink in %s: %w", host.Dev, err)
	}
	defer h.Close()
	for _, name := range []string{"lo", host.Dev} {
		l, err := h.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find %s: %w", name, err)
		}
		if name == host.Dev {
			a := &netlink.Addr{IPNet: &net.IPNet{IP: host.Addr, Mask: net.CIDRMask(24, 32)}}
			if err := h.AddrAdd(l, a); err != nil {
				return fmt.Errorf("add %v to %s: %w", a, name, err)
			}
		}
		if err := h.LinkSetUp(l); err != nil {
			return fmt.Errorf("set %s up: %w", name, err)
		}
	}
	return nil
}
