// Package topology builds networks out of namespaces, through netlink alone: no ip command, nothing of the machine's own
// network is touched, and mounts stay as they are.
//
// Unnamed namespaces are tied to descriptors: when the owner closes them or dies, kill -9 included, the kernel removes
// them with all that is in them. Named ones, which others can enter, have a lease.
package topology

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	vns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/lease"
	"github.com/fathom-trace/fathom/internal/netns"
)

// Host is one end: a namespace with one interface.
type Host struct {
	netns.NS
	Dev  string
	Addr net.IP

	name  *netns.Named // nil for an unnamed namespace
	bits  int
	close func() error
}

// Keep leaves a named host to the person who asked for it. It does nothing for an unnamed one, which has only us.
func (h *Host) Keep() error {
	if h.name == nil {
		return nil
	}
	return h.name.Keep()
}

// Pair is two hosts joined by a veth pair.
type Pair struct{ A, B Host }

// End says how one end of a pair is to be.
type End struct {
	Dev  string       // interface
	Addr netip.Prefix // its address and the network's size
	Name string       // of the namespace, in /run/netns; "" for none
}

// Config says how a pair is to be.
type Config struct {
	A, B End
	MTU  int        // 0 is the kernel's, 1500
	Dir  *lease.Dir // records named namespaces; needed if there are such
}

// NewPair joins two new namespaces: 10.77.0.1 on devA and 10.77.0.2 on devB, up, /24.
func NewPair(devA, devB string) (*Pair, error) {
	return Join(Config{
		A: End{Dev: devA, Addr: netip.MustParsePrefix("10.77.0.1/24")},
		B: End{Dev: devB, Addr: netip.MustParsePrefix("10.77.0.2/24")},
	})
}

// Join makes two namespaces and joins them. All interfaces are up, and packets pass, when it returns.
func Join(c Config) (p *Pair, err error) {
	p = &Pair{}
	if p.A, err = host(c.A, c.Dir); err != nil {
		return nil, err
	}
	if p.B, err = host(c.B, c.Dir); err != nil {
		return nil, errors.Join(err, p.A.close())
	}
	if err = p.wire(c.MTU); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// host makes an end's namespace.
func host(e End, dir *lease.Dir) (h Host, err error) {
	h = Host{Dev: e.Dev, Addr: e.Addr.Addr().AsSlice(), bits: e.Addr.Bits()}
	switch {
	case !e.Addr.IsValid():
		return h, fmt.Errorf("address of %s: %v is none", e.Dev, e.Addr)
	case e.Name == "":
		h.NS, err = netns.New()
		h.close = h.NS.Close
	case dir == nil:
		return h, fmt.Errorf("network namespace %s: a name needs a lease", e.Name)
	default:
		if h.name, err = netns.NewNamed(*dir, e.Name); err == nil {
			h.NS, h.close = h.name.NS, h.name.Close
		}
	}
	return h, err
}

// Close removes both namespaces and so the pair.
func (p *Pair) Close() error { return errors.Join(p.A.close(), p.B.close()) }

func (p *Pair) wire(mtu int) error {
	h, err := handle(p.A)
	if err != nil {
		return err
	}
	defer h.Close()
	veth := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: p.A.Dev, MTU: mtu}, PeerMTU: uint32(mtu),
		PeerName: p.B.Dev, PeerNamespace: netlink.NsFd(p.B.FD()),
	}
	if err := h.LinkAdd(veth); err != nil {
		return fmt.Errorf("add veth %s -- %s: %w", p.A.Dev, p.B.Dev, err)
	}
	for _, host := range []Host{p.A, p.B} {
		if err := up(host); err != nil {
			return err
		}
	}
	return errors.Join(running(p.A), running(p.B))
}

// settle is how long an interface may take to run once both ends are up; the kernel looks at carriers once a second.
const settle = 5 * time.Second

// running waits until the kernel knows that a host's interface has a carrier: IPv6 sends nothing before.
func running(host Host) error {
	h, err := handle(host)
	if err != nil {
		return err
	}
	defer h.Close()
	for deadline := time.Now().Add(settle); ; time.Sleep(time.Millisecond) {
		l, err := h.LinkByName(host.Dev)
		switch {
		case err != nil:
			return fmt.Errorf("find %s: %w", host.Dev, err)
		case l.Attrs().OperState == netlink.OperUp:
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("wait for %s: it is %v after %v", host.Dev, l.Attrs().OperState, settle)
		}
	}
}

// handle speaks to the kernel inside a host.
func handle(host Host) (*netlink.Handle, error) {
	h, err := netlink.NewHandleAt(vns.NsHandle(host.FD()), unix.NETLINK_ROUTE) // others need modules
	if err != nil {
		return nil, fmt.Errorf("netlink in %s: %w", host.Dev, err)
	}
	return h, nil
}

// up gives a host its address and sets its interfaces up.
func up(host Host) error {
	h, err := handle(host)
	if err != nil {
		return err
	}
	defer h.Close()
	for _, name := range []string{"lo", host.Dev} {
		l, err := h.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find %s: %w", name, err)
		}
		if name == host.Dev {
			if err := host.address(h, l); err != nil {
				return err
			}
		}
		if err := h.LinkSetUp(l); err != nil {
			return fmt.Errorf("set %s up: %w", name, err)
		}
	}
	return nil
}

// ifaNoDAD is IFA_F_NODAD of if_addr.h: an IPv6 address that is usable at once, since no one else can have it.
const ifaNoDAD = 0x02

func (h Host) address(nl *netlink.Handle, l netlink.Link) error {
	a := &netlink.Addr{IPNet: &net.IPNet{IP: h.Addr, Mask: net.CIDRMask(h.bits, 8*len(h.Addr))}}
	if len(h.Addr) == net.IPv6len {
		a.Flags = ifaNoDAD
	}
	if err := nl.AddrAdd(l, a); err != nil {
		return fmt.Errorf("add %v to %s: %w", a, h.Dev, err)
	}
	return nil
}
