package steer

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/fathom-trace/fathom/wire/filter"
)

// Action is what becomes of a packet that matches.
type Action int

// Actions. Packets that match no rule are the kernel's.
const (
	ToSocket Action = iota // to the AF_XDP socket of the packet's queue, or to the kernel if the queue has none
	Drop
	ToKernel // as if no rule matched: an exception to the rules behind it
)

// String gives the action's name.
func (a Action) String() string { return [...]string{"socket", "drop", "kernel"}[a] }

// Rule says which packets are meant and what becomes of them: the first rule that matches decides.
type Rule struct {
	Filter string // of tcpdump's language (package wire/filter); "" is every packet
	Action Action
}

// Flow describes packets by their fields. What is zero is not looked at.
type Flow struct {
	Proto            string // "udp", "tcp", "icmp", …, as in tcpdump's language
	Src, Dst         netip.Prefix
	SrcPort, DstPort Ports
	Group            netip.Addr // multicast group
	VLAN             uint16
}

// Ports is a range of ports; Last 0 stands for First.
type Ports struct{ First, Last uint16 }

func (p Ports) expr(dir string) string {
	if p.Last == 0 || p.Last == p.First {
		return fmt.Sprintf("%s port %d", dir, p.First)
	}
	return fmt.Sprintf("%s portrange %d-%d", dir, p.First, p.Last)
}

// notFragment holds for IPv4 packets that are whole and for everything that is not IPv4: of a fragmented packet only the first
// part has ports, so the kernel must have all parts.
const notFragment = "not ip[6:2] & 0x3fff != 0"

// Filter writes the flow in tcpdump's language. Whoever asks for ports gets packets that are not fragments.
func (f Flow) Filter() (string, error) {
	var parts []string
	if f.VLAN != 0 {
		parts = append(parts, fmt.Sprintf("vlan %d", f.VLAN))
	}
	if f.Proto != "" {
		parts = append(parts, f.Proto)
	}
	for _, p := range []struct {
		dir  string
		pref netip.Prefix
	}{{"src", f.Src}, {"dst", f.Dst}} {
		if p.pref.IsValid() {
			parts = append(parts, fmt.Sprintf("%s net %s", p.dir, p.pref.Masked()))
		}
	}
	if f.Group.IsValid() {
		if !f.Group.IsMulticast() {
			return "", fmt.Errorf("%s is no multicast group", f.Group)
		}
		parts = append(parts, "dst host "+f.Group.String())
	}
	ports := false
	for _, p := range []struct {
		dir   string
		ports Ports
	}{{"src", f.SrcPort}, {"dst", f.DstPort}} {
		switch {
		case p.ports == Ports{}:
			continue
		case p.ports.First == 0 || p.ports.Last != 0 && p.ports.Last < p.ports.First:
			return "", fmt.Errorf("ports %d-%d are no range", p.ports.First, p.ports.Last)
		}
		parts, ports = append(parts, p.ports.expr(p.dir)), true
	}
	if ports {
		if f.Proto == "icmp" || f.Proto == "icmp6" {
			return "", errors.New(f.Proto + " has no ports")
		}
		parts = append(parts, notFragment)
	}
	expr := strings.Join(parts, " and ")
	_, err := filter.Compile(expr, filter.Options{})
	return expr, err
}

// Rule makes a rule of the flow.
func (f Flow) Rule(a Action) (Rule, error) {
	expr, err := f.Filter()
	return Rule{expr, a}, err
}
