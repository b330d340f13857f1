package netstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/bypass/xsk"
)

// How long things are believed, and waited for.
const (
	fresh        = 2 * time.Second        // then the kernel is asked again, while the old answer is used
	hearsay      = 100 * time.Millisecond // an address that a packet came from, until the kernel has been asked
	resolvedIn   = 3 * time.Second        // as long as the kernel's own tries
	askAgain     = 2 * time.Millisecond
	maxHeld      = 64   // packets that wait for one neighbour
	maxUnknown   = 1024 // neighbours that are waited for
	maxRemembers = 1 << 16
)

// hop is where packets to an address go next.
type hop struct {
	mac   [6]byte
	src   netip.Addr    // the address that the kernel would send from
	until time.Duration // as now says
	asked bool          // the kernel is being asked
}

// epoch is when now began to count: half the price of what o'clock it is, which is asked for each packet.
var epoch = time.Now()

func now() time.Duration { return time.Since(epoch) }

// neighbours knows where packets go, from the kernel's routes and neighbours. The kernel does ARP and neighbour discovery; it is
// told to when nobody is known yet (NTF_USE, net/core/neighbour.c).
type neighbours struct {
	dev    xsk.Device
	h      *netlink.Handle
	index  int
	mac    [6]byte
	mtu    int
	kind   string // of device: "veth"
	queues int    // that receive
	ctx    context.Context
	send   func(mac [6]byte, packets []held)

	failed atomic.Uint64 // packets

	mu      sync.RWMutex
	hops    map[netip.Addr]*hop
	waiting map[netip.Addr][]held
	asking  sync.WaitGroup
	sending int // goroutines that send what waited
	closed  bool
}

func openNeighbours(ctx context.Context, dev xsk.Device) (n *neighbours, err error) {
	n = &neighbours{dev: dev, ctx: ctx, hops: map[netip.Addr]*hop{}, waiting: map[netip.Addr][]held{}}
	err = dev.In(func() error {
		if n.h, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			return fmt.Errorf("open netlink: %w", err)
		}
		l, err := n.h.LinkByName(dev.Name)
		if err != nil {
			return errors.Join(fmt.Errorf("find device %s: %w", dev, err), n.Close())
		}
		a := l.Attrs()
		if len(a.HardwareAddr) != len(n.mac) {
			return errors.Join(fmt.Errorf("%s has no Ethernet address: its kind is %s", dev, l.Type()), n.Close())
		}
		n.index, n.mtu, n.kind, n.queues, n.mac = a.Index, a.MTU, l.Type(), a.NumRxQueues, [6]byte(a.HardwareAddr)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return n, nil
}

// Close waits for what is being asked, at most as long as one answer takes.
func (n *neighbours) Close() error {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	n.asking.Wait()
	if n.h != nil {
		n.h.Close()
	}
	return nil
}

// find gives the Ethernet address for packets to an address, if it is known. What is known too long is asked for again meanwhile.
func (n *neighbours) find(to netip.Addr) ([6]byte, bool) {
	if mac, ok := many(to); ok {
		return mac, true
	}
	n.mu.RLock()
	h := n.hops[to]
	var mac [6]byte
	old := false
	if h != nil {
		mac, old = h.mac, !h.asked && now() > h.until
	}
	n.mu.RUnlock()
	if old {
		n.ask(to)
	}
	return mac, h != nil
}

// many gives the Ethernet address of broadcast and of groups (RFC 1112, RFC 2464).
func many(to netip.Addr) ([6]byte, bool) {
	switch {
	case to.Is4() && to == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return [6]byte{255, 255, 255, 255, 255, 255}, true
	case to.Is4() && to.IsMulticast():
		a := to.As4()
		return [6]byte{1, 0, 0x5e, a[1] & 0x7f, a[2], a[3]}, true
	case to.Is6() && to.IsMulticast():
		a := to.As16()
		return [6]byte{0x33, 0x33, a[12], a[13], a[14], a[15]}, true
	}
	return [6]byte{}, false
}

// learn remembers who a packet came from, so that the answer need not wait; the kernel is asked when it is used.
func (n *neighbours) learn(from netip.Addr, mac [6]byte) {
	n.mu.RLock()
	known := n.hops[from] != nil
	n.mu.RUnlock()
	if known {
		return
	}
	n.mu.Lock()
	if n.hops[from] == nil {
		n.room()
		n.hops[from] = &hop{mac: mac, until: now() + hearsay}
	}
	n.mu.Unlock()
}

// room forgets somebody when too many are known; mu is held.
func (n *neighbours) room() {
	for a, h := range n.hops {
		if len(n.hops) < maxRemembers {
			return
		}
		if !h.asked {
			delete(n.hops, a)
		}
	}
}

// hold keeps a packet until its neighbour is known, and asks for it.
func (n *neighbours) hold(to netip.Addr, p held) {
	n.mu.Lock()
	if h := n.hops[to]; h != nil { // since it was looked for
		mac := h.mac
		n.mu.Unlock()
		n.send(mac, []held{p})
		return
	}
	w, waits := n.waiting[to]
	if len(w) >= maxHeld || !waits && len(n.waiting) >= maxUnknown || n.closed {
		n.mu.Unlock()
		n.failed.Add(1)
		return
	}
	n.waiting[to] = append(w, p)
	if waits {
		n.mu.Unlock()
		return
	}
	n.asking.Add(1)
	n.mu.Unlock()
	go func() {
		defer n.asking.Done()
		n.look(to)
	}()
}

// ask asks the kernel again, in a goroutine.
func (n *neighbours) ask(to netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.hops[to]
	if h == nil || h.asked || n.closed {
		return
	}
	h.asked = true
	n.asking.Add(1)
	go func() {
		defer n.asking.Done()
		n.look(to)
	}()
}

// look asks the kernel, and sends what waited for the answer.
func (n *neighbours) look(to netip.Addr) {
	h, err := n.resolve(n.ctx, to)
	n.mu.Lock()
	waiting := n.waiting[to]
	delete(n.waiting, to)
	switch old := n.hops[to]; {
	case err == nil:
		n.room()
		n.hops[to] = &h
		n.sending++
	case old != nil && errors.Is(err, unix.ENETUNREACH):
		old.until, old.asked = now()+fresh, false // no route leads there, but something came: it is answered to who sent it
	default:
		delete(n.hops, to)
	}
	n.mu.Unlock()
	if err != nil {
		n.failed.Add(uint64(len(waiting)))
		return
	}
	n.send(h.mac, waiting)
	n.mu.Lock()
	n.sending--
	n.mu.Unlock()
}

// hopTo is resolve with memory: for those who can wait and want to know why not.
func (n *neighbours) hopTo(ctx context.Context, to netip.Addr) (hop, error) {
	n.mu.RLock()
	h := n.hops[to]
	n.mu.RUnlock()
	if h != nil && h.src.IsValid() && now() < h.until {
		return *h, nil
	}
	found, err := n.resolve(ctx, to)
	if err != nil {
		return hop{}, err
	}
	n.mu.Lock()
	n.room()
	n.hops[to] = &found
	n.mu.Unlock()
	return found, nil
}

// resolve asks the kernel where packets to an address go. The error wraps that of the system call: ENETUNREACH, or EHOSTUNREACH if nobody
// answers.
func (n *neighbours) resolve(ctx context.Context, to netip.Addr) (h hop, err error) {
	r, err := n.route(to)
	if err != nil {
		return h, err
	}
	h.src, _ = netip.AddrFromSlice(r.Src)
	h.src = h.src.Unmap()
	next := to
	if gw, ok := netip.AddrFromSlice(r.Gw); ok {
		next = gw.Unmap()
	} else if via, ok := r.Via.(*netlink.Via); ok {
		if gw, ok := netip.AddrFromSlice(via.Addr); ok {
			next = gw
		}
	}
	if r.Type == unix.RTN_BROADCAST {
		h.mac = [6]byte{255, 255, 255, 255, 255, 255}
	} else if h.mac, err = n.neighbour(ctx, next); err != nil {
		return h, err
	}
	h.until = now() + fresh
	return h, nil
}

// ErrElsewhere is that the kernel's route to an address leads through another device than the stack's.
var ErrElsewhere = errors.New("the route leads through another device")

// route asks the kernel for the route to an address.
func (n *neighbours) route(to netip.Addr) (r netlink.Route, err error) {
	var o netlink.RouteGetOptions
	if to.IsLinkLocalUnicast() {
		o.OifIndex = n.index // else the kernel is not told of the device: it would take every address for a neighbour then
	}
	routes, err := n.h.RouteGetWithOptions(to.AsSlice(), &o)
	if err != nil {
		return r, fmt.Errorf("find the route to %s: %w", to, err)
	}
	if len(routes) == 0 || routes[0].LinkIndex != n.index {
		return r, fmt.Errorf("%w than %s to %s (%w)", ErrElsewhere, n.dev, to, unix.ENETUNREACH)
	}
	return routes[0], nil
}

// valid is which states have an Ethernet address that may be used (NUD_VALID, include/net/neighbour.h).
const valid = unix.NUD_PERMANENT | unix.NUD_NOARP | unix.NUD_REACHABLE | unix.NUD_PROBE | unix.NUD_STALE | unix.NUD_DELAY

// neighbour gives the Ethernet address of who is next. The kernel finds it out, or sees if it still holds.
func (n *neighbours) neighbour(ctx context.Context, next netip.Addr) (mac [6]byte, err error) {
	family := unix.AF_INET
	if next.Is6() {
		family = unix.AF_INET6
	}
	ip := net.IP(next.AsSlice())
	for told, began := false, time.Now(); ; {
		all, err := n.h.NeighList(n.index, family)
		if err != nil {
			return mac, fmt.Errorf("list neighbours: %w", err)
		}
		state := 0
		for _, e := range all {
			if e.IP.Equal(ip) {
				state = e.State
				if e.State&valid != 0 && len(e.HardwareAddr) == len(mac) {
					mac = [6]byte(e.HardwareAddr)
				}
			}
		}
		if mac != ([6]byte{}) && (told || state&(unix.NUD_PERMANENT|unix.NUD_NOARP|unix.NUD_REACHABLE) != 0) {
			return mac, nil
		}
		if told && (state == unix.NUD_FAILED || time.Since(began) > resolvedIn) {
			return mac, fmt.Errorf("nobody answers for %s on %s: %w", next, n.dev, unix.EHOSTUNREACH)
		}
		if !told {
			told = true
			err := n.h.NeighSet(&netlink.Neigh{LinkIndex: n.index, Family: family, IP: ip, Flags: unix.NTF_USE})
			if err != nil && !errors.Is(err, syscall.EEXIST) {
				return mac, fmt.Errorf("have the kernel look for %s on %s: %w", next, n.dev, err)
			}
			if mac != ([6]byte{}) {
				return mac, nil // used, while the kernel sees if it still holds
			}
		}
		select {
		case <-ctx.Done():
			return mac, ctx.Err()
		case <-time.After(askAgain):
		}
	}
}
