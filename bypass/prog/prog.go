// Package prog attaches a person's own XDP and tc programs, out of ELF objects, to devices of any network namespace: by links,
// which go with the process, or with a name (pinned), so that they stay until they are taken away.
//
// Pins are in a bpffs of fathom's own, [Root]/bpf: that of /sys/fs/bpf is hidden by `ip netns exec`. They are named after the
// namespace's cookie and the device's number, not after the device's name, which other namespaces use, too.
package prog

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/bypass/held"
	"github.com/fathom-trace/fathom/bypass/steer"
	"github.com/fathom-trace/fathom/bypass/xsk"
	"github.com/fathom-trace/fathom/internal/feature"
	"github.com/fathom-trace/fathom/internal/memlock"
)

// Hook is where on a device a program runs.
type Hook string

// Hooks.
const (
	XDP     Hook = "xdp"
	Ingress Hook = "ingress" // tcx, Linux 6.6
	Egress  Hook = "egress"
)

// Object is a loaded program with its maps. The caller closes it.
type Object struct {
	Name string
	Prog *ebpf.Program
	coll *ebpf.Collection
}

// Load loads a program for a hook out of an ELF object. name chooses one of several. offload, if not 0, is the number of the device
// in which the program is to run itself.
func Load(file, name string, hook Hook, offload int) (*Object, error) {
	spec, err := ebpf.LoadCollectionSpec(file)
	if err != nil {
		return nil, fmt.Errorf("read object %s: %w", file, err)
	}
	p, err := choose(spec, file, name, hook)
	if err != nil {
		return nil, err
	}
	if offload != 0 {
		p.Ifindex = uint32(offload)
		for _, m := range spec.Maps {
			if m.Type == ebpf.Array || m.Type == ebpf.Hash {
				return nil, feature.Unsupported("maps in offloaded programs", "map "+m.Name, errors.New("only programs without maps can be offloaded here"))
			}
		}
	}
	spec.Programs = map[string]*ebpf.ProgramSpec{p.Name: p} // others may be for what this kernel has not
	c, err := memlock.Try(func() (*ebpf.Collection, error) { return ebpf.NewCollection(spec) })
	if err != nil {
		return nil, fmt.Errorf("load %s of %s: %w", p.Name, file, err)
	}
	return &Object{p.Name, c.Programs[p.Name], c}, nil
}

// choose finds the program that is meant.
func choose(spec *ebpf.CollectionSpec, file, name string, hook Hook) (*ebpf.ProgramSpec, error) {
	want := ebpf.XDP
	if hook != XDP {
		want = ebpf.SchedCLS
	}
	var fits []*ebpf.ProgramSpec
	var all []string
	for n, p := range spec.Programs {
		all = append(all, fmt.Sprintf("%s (%s)", n, p.Type))
		if p.Type == want && (name == "" || n == name) {
			fits = append(fits, p)
		}
	}
	slices.Sort(all)
	switch {
	case len(fits) == 1:
		return fits[0], nil
	case len(fits) == 0 && name != "":
		return nil, fmt.Errorf("object %s: no program %s for %s; it has %s", file, name, hook, strings.Join(all, ", "))
	case len(fits) == 0:
		return nil, fmt.Errorf("object %s: no program for %s; it has %s", file, hook, strings.Join(all, ", "))
	}
	return nil, fmt.Errorf("object %s: several programs for %s, name one: %s", file, hook, strings.Join(all, ", "))
}

// Close unloads the program; an attached one stays as long as its link.
func (o *Object) Close() { o.coll.Close() }

// Mode is where an XDP program runs; steer's modes, and in the device itself.
type Mode int

// Modes.
const (
	Auto    = Mode(steer.Auto)
	Native  = Mode(steer.Native)
	Generic = Mode(steer.Generic)
	Offload = Generic + 1
)

// Attach attaches a program to a device by a link, which the caller closes. A program of XDP that is there is named by the error
// (held.Error), and stays; programs of tcx run one after the other.
func Attach(dev xsk.Device, o *Object, hook Hook, m Mode) (l link.Link, mode Mode, err error) {
	err = dev.In(func() error {
		ifi, err := net.InterfaceByName(dev.Name)
		if err != nil {
			return fmt.Errorf("find device %s: %w", dev, err)
		}
		if hook != XDP {
			l, err = attachTCX(dev, o, hook, ifi.Index)
			return err
		}
		l, mode, err = attachXDP(dev, o, m, ifi.Index)
		return err
	})
	return l, mode, err
}

func attachTCX(dev xsk.Device, o *Object, hook Hook, ifindex int) (link.Link, error) {
	at := ebpf.AttachTCXIngress
	if hook == Egress {
		at = ebpf.AttachTCXEgress
	}
	l, err := link.AttachTCX(link.TCXOptions{Program: o.Prog, Interface: ifindex, Attach: at})
	if errors.Is(err, ebpf.ErrNotSupported) {
		return nil, feature.Unsupported("tcx", "attach to "+dev.String()+" by a link", err)
	} else if err != nil {
		return nil, fmt.Errorf("attach %s to %s of %s: %w", o.Name, hook, dev, err)
	}
	return l, nil
}

func attachXDP(dev xsk.Device, o *Object, m Mode, ifindex int) (link.Link, Mode, error) {
	modes := []Mode{m}
	if m == Auto {
		modes = []Mode{Native, Generic}
	}
	flags := map[Mode]link.XDPAttachFlags{Native: link.XDPDriverMode, Generic: link.XDPGenericMode, Offload: link.XDPOffloadMode}
	var errs []error
	for _, m := range modes {
		l, err := link.AttachXDP(link.XDPOptions{Program: o.Prog, Interface: ifindex, Flags: flags[m]})
		if err == nil {
			return l, m, nil
		}
		if h := held.Look(dev.String(), ifindex, err); h != nil {
			return nil, m, h
		}
		errs = append(errs, fmt.Errorf("attach %s to %s, %s: %w", o.Name, dev, m, err))
	}
	return nil, m, errors.Join(errs...)
}

// String gives the mode's name.
func (m Mode) String() string { return [...]string{"auto", "native", "generic", "offload"}[m] }

// ParseMode reads a name; driver and skb are understood, too.
func ParseMode(s string) (Mode, error) {
	switch s {
	case "auto":
		return Auto, nil
	case "native", "driver", "drv", "xdpdrv":
		return Native, nil
	case "generic", "skb", "xdpgeneric":
		return Generic, nil
	case "offload", "hw", "xdpoffload":
		return Offload, nil
	}
	return 0, fmt.Errorf("no mode %q: auto, native, generic, offload", s)
}

// Flags of IFLA_XDP (include/uapi/linux/if_link.h).
const (
	flagReplace  = 1 << 4
	attrFD       = 1
	attrFlags    = 3
	attrExpected = 8
)

// DetachID takes away the XDP program of a number that somebody attached for good, over netlink. It fails if the device has another
// by then. One that a link attached goes with its link only.
func DetachID(dev xsk.Device, id uint32) error {
	return dev.In(func() error {
		ifi, err := net.InterfaceByName(dev.Name)
		if err != nil {
			return fmt.Errorf("find device %s: %w", dev, err)
		}
		on, err := held.On(ifi.Index)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(on, func(p held.Program) bool { return p.ID == id })
		if i < 0 {
			return fmt.Errorf("detach XDP program %d from %s: it is not there", id, dev)
		}
		if on[i].Link != 0 {
			return &held.Error{Device: dev.String(), Programs: on, Err: unix.EBUSY}
		}
		p, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
		if err != nil {
			return fmt.Errorf("open XDP program %d: %w", id, err)
		}
		defer p.Close()
		flags := map[string]uint32{"native": unix.XDP_FLAGS_DRV_MODE, "generic": unix.XDP_FLAGS_SKB_MODE, "offload": unix.XDP_FLAGS_HW_MODE}[on[i].Mode]
		req := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
		msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
		msg.Index = int32(ifi.Index)
		req.AddData(msg)
		x := nl.NewRtAttr(unix.IFLA_XDP|unix.NLA_F_NESTED, nil)
		x.AddRtAttr(attrFD, nl.Uint32Attr(^uint32(0))) // -1: none
		x.AddRtAttr(attrFlags, nl.Uint32Attr(flags|flagReplace))
		x.AddRtAttr(attrExpected, nl.Uint32Attr(uint32(p.FD())))
		req.AddData(x)
		if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
			return fmt.Errorf("detach XDP program %d from %s: %w", id, dev, err)
		}
		return nil
	})
}
