// Package why says what a network device does, in the state it is in, with what arrives on it: an ARP request for an address,
// a packet to that address, a broadcast. It goes through what the kernel decides on the way in, in the kernel's order (arp_rcv
// in net/ipv4/arp.c, ip_route_input_slow and ip_error in net/ipv4/route.c, __fib_validate_source in net/ipv4/fib_frontend.c),
// and names the step where it ends. It reads a state and touches no system. IPv4 only.
package why

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/fathom-trace/fathom/netstate"
)

// Frame is what arrives.
type Frame string

// Frames.
const (
	ARP       Frame = "arp"       // a request for the address
	Unicast   Frame = "unicast"   // a packet to the device's MAC address and the address
	Broadcast Frame = "broadcast" // a packet to 255.255.255.255
)

// Verdict is what becomes of it.
type Verdict string

// Verdicts.
const (
	NotReceived Verdict = "not received" // the kernel does not see it
	Taken       Verdict = "taken"        // by the device's master, such as a bridge
	Answered    Verdict = "answered"
	Ignored     Verdict = "ignored" // consumed without an answer
	Delivered   Verdict = "delivered"
	Forwarded   Verdict = "forwarded"
	Refused     Verdict = "refused" // dropped, and the sender is told by ICMP
	Dropped     Verdict = "dropped"
)

// Row is the verdict on one kind of frame.
type Row struct {
	Frame   Frame   `json:"frame"`
	Verdict Verdict `json:"verdict"`
	Step    string  `json:"step"`              // the kernel's function in which it ends
	Reason  string  `json:"reason,omitempty"`  // of a drop, as kernels that tell reasons call it
	Counter string  `json:"counter,omitempty"` // that goes up, as Counters of a State calls it
	Because string  `json:"because"`
	Fix     string  `json:"fix,omitempty"` // a command
	// Raw says if packet sockets (tcpdump, DHCP clients) receive it; AF_XDP and XDP programs, where there are any, come first.
	Raw bool `json:"raw"`
}

// Answer is all there is to say of a device.
type Answer struct {
	NetNS string     `json:"netns"` // as netstate.Namespace has it
	Inode uint64     `json:"netns_inode"`
	Dev   string     `json:"dev"`
	State string     `json:"state"` // "down", "up, no carrier", "up without an address", "up with 192.0.2.1/24"
	Dst   netip.Addr `json:"dst,omitzero"`
	Src   netip.Addr `json:"src,omitzero"`
	Rows  []Row      `json:"rows"`
	Notes []string   `json:"notes,omitempty"` // what else decides, and is not looked at
}

// Question is what is asked of a device.
type Question struct {
	// Dst is the address that is asked for and sent to. The zero Addr takes the device's first; if it has none, one that this
	// namespace does not have.
	Dst netip.Addr
	// Src is who sends. The zero Addr takes somebody in the network of the device's first address; if it has none, somebody
	// to whom there is no route.
	Src netip.Addr
}

// Device flags (include/uapi/linux/if.h).
const (
	iffUp       = 1 << 0
	iffLoopback = 1 << 3
	iffNoARP    = 1 << 7
	iffLowerUp  = 1 << 16
)

// Explain says what the device of that name does. The state must have links, addresses, routes, rules and sysctls, for the
// notes also chains and filters. It fails if there is none, or an address asked for is not of IPv4.
func Explain(st *netstate.State, dev string, q Question) (*Answer, error) {
	l, ok := st.LinkByName(dev)
	if !ok {
		return nil, fmt.Errorf("no device %q in network namespace %s", dev, st.NS.Name)
	}
	for _, a := range []netip.Addr{q.Dst, q.Src} {
		if a.IsValid() && !a.Is4() {
			return nil, fmt.Errorf("%s is no address of IPv4", a)
		}
	}
	s := &scene{st: st, l: l, q: q}
	for i := range st.Addrs {
		if a := &st.Addrs[i]; a.Link == l.Index && a.Prefix.Addr().Is4() {
			s.addrs = append(s.addrs, a.Prefix)
		}
	}
	s.fill()
	a := &Answer{NetNS: st.NS.Name, Inode: st.NS.Inode, Dev: dev, State: s.state(), Dst: s.q.Dst, Src: s.q.Src, Notes: s.notes()}
	for _, f := range []Frame{ARP, Unicast, Broadcast} {
		a.Rows = append(a.Rows, s.row(f))
	}
	return a, nil
}

// scene is a device in its state, and the question.
type scene struct {
	st    *netstate.State
	l     *netstate.Link
	q     Question
	addrs []netip.Prefix // of IPv4, on the device
}

// fill chooses addresses that were not given.
func (s *scene) fill() {
	if len(s.addrs) == 0 {
		return
	}
	if !s.q.Dst.IsValid() {
		s.q.Dst = s.addrs[0].Addr()
	}
	if !s.q.Src.IsValid() {
		s.q.Src = neighbour(s.addrs[0])
	}
}

// neighbour is another address of a network; the zero Addr if there is none.
func neighbour(p netip.Prefix) netip.Addr {
	for _, a := range []netip.Addr{p.Addr().Next(), p.Addr().Prev()} {
		if p.Contains(a) && a != p.Masked().Addr() {
			return a
		}
	}
	return netip.Addr{}
}

func (s *scene) up() bool      { return s.l.Flags&iffUp != 0 }
func (s *scene) carrier() bool { return s.l.Flags&iffLowerUp != 0 }

func (s *scene) state() string {
	switch {
	case !s.up():
		return "down"
	case !s.carrier():
		return "up, no carrier"
	case len(s.addrs) == 0:
		return "up without an address"
	}
	return "up with " + s.addrs[0].String()
}

// row goes through the steps that all frames take, then those of the frame.
func (s *scene) row(f Frame) Row {
	r := s.arrive()
	if r.Verdict == "" {
		switch f {
		case ARP:
			r = s.arp()
		case Unicast:
			r = s.unicast()
		case Broadcast:
			r = s.broadcast()
		}
		r.Raw = true
	}
	r.Frame = f
	return r
}

// takers are what kinds of masters take all frames of their ports, and the function that does.
var takers = map[string]string{
	"bridge": "br_handle_frame", "bond": "bond_handle_frame", "team": "team_handle_frame", "openvswitch": "netdev_frame_hook", "hsr": "hsr_handle_frame",
}

// arrive is the way from the wire to the protocols: the driver, then the master.
func (s *scene) arrive() Row {
	switch {
	case !s.up():
		return Row{Verdict: NotReceived, Step: "driver", Fix: "ip link set dev " + s.l.Name + " up",
			Because: s.l.Name + " is down: its driver was never opened (ndo_open), so it has no interrupt, no NAPI and no ring to put a frame in"}
	case !s.carrier():
		return Row{Verdict: NotReceived, Step: "driver", Because: s.l.Name + " has no carrier: nothing comes in until the other end is connected and up"}
	}
	if s.l.Flags&iffLoopback != 0 {
		return Row{Verdict: Delivered, Step: "loopback_xmit", Raw: true,
			Because: "what arrives on " + s.l.Name + " was sent by this namespace itself: it has the route that it was sent by, and needs no ARP"}
	}
	m, ok := s.st.LinkByIndex(s.l.Master)
	if !ok || s.l.Master == 0 {
		return Row{}
	}
	fn, takes := takers[m.Kind]
	if !takes {
		return Row{}
	}
	return Row{Verdict: Taken, Step: fn, Raw: true, Fix: "fathom packet why dev " + m.Name,
		Because: fmt.Sprintf("%s is a port of the %s %s, which takes all its frames: addresses belong on %s", s.l.Name, m.Kind, m.Name, m.Name)}
}

// addFix is the command that gives the device an address.
func (s *scene) addFix() string {
	a := "ADDRESS/LENGTH"
	if s.q.Dst.IsValid() {
		a = s.q.Dst.String() + "/LENGTH"
	}
	return "ip addr add " + a + " dev " + s.l.Name
}

// setting gives a setting of the device in net.ipv4.conf, how the kernel joins it with that for all devices, and its name.
func (s *scene) setting(name string, join func(all, dev int) int) (value int, key string) {
	key = "net.ipv4.conf." + netstate.SysctlName(s.l.Name) + "." + name
	allKey := "net.ipv4.conf.all." + name
	dev, _ := strconv.Atoi(s.st.Sysctls[key])
	all, _ := strconv.Atoi(s.st.Sysctls[allKey])
	value = join(all, dev)
	if value != dev {
		key = allKey
	}
	return value, key
}

// How the kernel joins settings (include/linux/inetdevice.h).
func larger(all, dev int) int { return max(all, dev) }   // IN_DEV_MAXCONF
func either(all, dev int) int { return min(1, all|dev) } // IN_DEV_ORCONF
func alone(_, dev int) int    { return dev }             // IN_DEV_CONF_GET

// notes names what decides too, and is not looked at here.
func (s *scene) notes() (out []string) {
	for _, p := range s.l.XDP {
		out = append(out, fmt.Sprintf("an XDP program (%s, number %d) sees every frame before all this", p.Name, p.ID))
	}
	if slices.ContainsFunc(s.st.Filters, func(f netstate.Filter) bool { return f.Link == s.l.Index && f.Parent == "ingress" }) {
		out = append(out, "filters at ingress (tc filter show dev "+s.l.Name+" ingress) see every frame before the protocols")
	}
	rules := map[string]int{}
	for _, c := range s.st.Chains {
		rules[c.Hook] += len(c.Rules)
	}
	for _, h := range []string{"ingress", "prerouting", "input"} {
		if rules[h] > 0 {
			out = append(out, fmt.Sprintf("%d firewall rules at %s may drop it: fathom packet shows whether they do", rules[h], h))
		}
	}
	if slices.ContainsFunc(s.st.Rules, func(r netstate.Rule) bool { return r.Family == 4 && !plain(r) }) {
		out = append(out, "rules of policy routing that look at more than addresses and the device are taken as for a plain packet (ip rule)")
	}
	return out
}
