package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/fathom-trace/fathom/bypass/held"
	"github.com/fathom-trace/fathom/bypass/steer"
	"github.com/fathom-trace/fathom/bypass/traffic"
	"github.com/fathom-trace/fathom/bypass/xsk"
	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/internal/feature"
)

// bypassFlags are what tx, rx, l2fwd, echo and rtt share. The short forms are xdpsock's.
type bypassFlags struct {
	dev, netns               string
	queue                    string
	generic, native          bool
	copy, zero               bool
	wait                     string
	poll, busy, noWakeup     bool
	frags                    bool
	frameSize, frames, batch int
	interval, duration       int
	forTime                  time.Duration
	count                    uint64
	quiet, json              bool

	// of what is sent
	smac, dmac string
	to         string
	size       int
	vlan       uint16

	// of what is received
	filter string
	all    bool

	backend string // of run
}

// defaultPort is xdpsock's.
const defaultPort = 4096

func (f *bypassFlags) common(fl *pflag.FlagSet) {
	fl.StringVarP(&f.dev, "interface", "i", "", "network `DEVICE`")
	fl.StringVar(&f.netns, "netns", "", "network namespace of the device: a `NAME`, a process or a path")
	fl.StringVarP(&f.queue, "queue", "q", "0", "`QUEUES`: 0, or 0,1, or all")
	fl.BoolVarP(&f.generic, "xdp-skb", "S", false, "attach in generic mode, which every device has")
	fl.BoolVarP(&f.native, "xdp-native", "N", false, "attach in the driver")
	fl.BoolVarP(&f.copy, "copy", "c", false, "have packets copied")
	fl.BoolVarP(&f.zero, "zero-copy", "z", false, "no copies, or fail")
	fl.StringVar(&f.wait, "wait", "", "`HOW` to wait: netpoll, poll, spin, yield, busy-poll (default spin, as xdpsock)")
	fl.BoolVarP(&f.poll, "poll", "p", false, "--wait poll")
	fl.BoolVarP(&f.busy, "busy-poll", "B", false, "--wait busy-poll")
	fl.BoolVarP(&f.noWakeup, "no-need-wakeup", "m", false, "have the kernel look at the rings unasked")
	fl.BoolVarP(&f.frags, "frags", "F", false, "take packets of several buffers")
	fl.IntVarP(&f.frameSize, "frame-size", "f", 4096, "frames of `N` bytes")
	fl.IntVar(&f.frames, "frames", 4096, "`N` frames for each queue")
	fl.IntVarP(&f.batch, "batch-size", "b", 64, "`N` packets at a time")
	fl.IntVarP(&f.interval, "interval", "n", 1, "say how it goes every `N` seconds")
	fl.IntVarP(&f.duration, "duration", "d", 0, "end after `N` seconds")
	forVar(fl, &f.forTime, "end after this `TIME`, such as 10s")
	fl.BoolVarP(&f.quiet, "quiet", "Q", false, "only the last account")
	fl.BoolVarP(&f.json, "json", "j", false, "print the account as JSON")
}

func (f *bypassFlags) counting(fl *pflag.FlagSet) {
	fl.Uint64VarP(&f.count, "tx-pkt-count", "C", 0, "end after `N` packets")
}

func (f *bypassFlags) sending(fl *pflag.FlagSet) {
	fl.StringVarP(&f.dmac, "tx-dmac", "G", "", "`MAC` that frames go to (default: that of --to)")
	fl.StringVarP(&f.smac, "tx-smac", "H", "", "`MAC` that frames come from (default: the device's)")
	fl.StringVar(&f.to, "to", "", "`ADDRESS[:PORT]` that datagrams go to (default: that of the host with -G)")
	fl.IntVarP(&f.size, "tx-pkt-size", "s", 64, "packets of `N` bytes, with the 4 of Ethernet's checksum")
	fl.Uint16VarP(&f.vlan, "tx-vlan-id", "J", 0, "tag frames with VLAN `N`")
}

func (f *bypassFlags) receiving(fl *pflag.FlagSet) {
	fl.StringVar(&f.filter, "filter", "", "take packets that match `EXPR`, as tcpdump writes it (default: udp dst port 4096)")
	fl.BoolVar(&f.all, "all", false, "take all packets, also the kernel's: ARP, ssh")
}

// device gives the device that was named.
func (f *bypassFlags) device() xsk.Device { return xsk.Device{Name: f.dev, NetNS: f.netns} }

// config turns flags into what is opened.
func (f *bypassFlags) config() (c traffic.Config, err error) {
	if f.dev == "" {
		return c, errors.New("name a device: -i DEVICE")
	}
	if f.queue != "all" {
		for s := range strings.SplitSeq(f.queue, ",") {
			n, err := strconv.ParseUint(s, 10, 16)
			if err != nil {
				return c, fmt.Errorf("queues are 0, or 0,1, or all; not %q", f.queue)
			}
			c.Queues = append(c.Queues, int(n))
		}
	}
	switch {
	case f.generic && f.native:
		return c, errors.New("-S or -N, not both")
	case f.copy && f.zero:
		return c, errors.New("-c or -z, not both")
	case f.zero && f.generic:
		return c, errors.New("generic mode copies: no -z with -S")
	case f.batch < 1 || f.batch > 4096 || f.interval < 1 || f.duration < 0 || f.frames < 64:
		return c, errors.New("-b is 1 to 4096, -n 1 or more, -d not negative, --frames 64 or more")
	}
	c.Device = f.device()
	c.Memory = xsk.Memory{Frames: f.frames, FrameSize: f.frameSize}
	c.Queue = xsk.Options{NoNeedWakeup: f.noWakeup, MultiBuffer: f.frags}
	c.Steer.MultiBuffer = f.frags
	if c.Queue.Wait, err = f.waiting(); err != nil {
		return c, err
	}
	if f.copy {
		c.Queue.Copying = xsk.Copy
	} else if f.zero {
		c.Queue.Copying = xsk.ZeroCopy
	}
	if f.generic {
		c.Steer.Mode = steer.Generic
	} else if f.native {
		c.Steer.Mode = steer.Native
	}
	return c, present(c.Device)
}

// present says if a device is not there, and what lists those that are. A namespace that is not there is said by who goes in.
func present(d xsk.Device) error {
	if there, err := d.Present(); there || err != nil {
		return nil
	}
	where, list := "here", "fathom nic"
	if d.NetNS != "" {
		where, list = "in namespace "+d.NetNS, "fathom nic --netns "+d.NetNS
	}
	return fmt.Errorf("no network device %q %s; %s lists them", d.Name, where, list)
}

func (f *bypassFlags) waiting() (xsk.Wait, error) {
	n := 0
	for _, b := range []bool{f.poll, f.busy, f.wait != ""} {
		if b {
			n++
		}
	}
	switch {
	case n > 1:
		return 0, errors.New("one way to wait: -p, -B or --wait")
	case f.poll:
		return xsk.Poll, nil
	case f.busy:
		return xsk.BusyPoll, nil
	case f.wait == "":
		return xsk.Spin, nil
	}
	return xsk.ParseWait(f.wait)
}

// rules gives what is taken from the kernel.
func (f *bypassFlags) rules() ([]steer.Rule, error) {
	switch {
	case f.all && f.filter != "":
		return nil, errors.New("--all or --filter, not both")
	case f.all:
		return []steer.Rule{{}}, nil
	case f.filter != "":
		return []steer.Rule{{Filter: f.filter}}, nil
	}
	r, err := steer.Flow{Proto: "udp", DstPort: steer.Ports{First: defaultPort}}.Rule(steer.ToSocket)
	return []steer.Rule{r}, err
}

// flow says from where to where datagrams go; it asks the network what was not said.
func (f *bypassFlags) flow() (fl traffic.Flow, err error) {
	l, err := traffic.Of(f.device())
	if err != nil {
		return fl, err
	}
	fl.SrcMAC, fl.VLAN = l.MAC, f.vlan
	if f.smac != "" {
		if fl.SrcMAC, err = traffic.ParseMAC(f.smac); err != nil {
			return fl, usageError{"fathom bypass", err}
		}
	}
	if f.dmac != "" {
		if fl.DstMAC, err = traffic.ParseMAC(f.dmac); err != nil {
			return fl, usageError{"fathom bypass", err}
		}
	}
	if f.to == "" && f.dmac == "" {
		return fl, usageError{"fathom bypass", errors.New("say where packets go: --to ADDRESS[:PORT], or -G MAC")}
	}
	fl.Src = netip.AddrPortFrom(l.Net.Addr(), defaultPort)
	switch {
	case f.to != "":
		if fl.Dst, err = addrPort(f.to); err != nil {
			return fl, usageError{"fathom bypass", err}
		}
		if fl.DstMAC == nil {
			if fl.DstMAC, err = traffic.MACOf(f.device(), l, fl.Dst.Addr()); err != nil {
				return fl, err
			}
		}
	default:
		a, aerr := traffic.AddrOf(f.device(), l, fl.DstMAC)
		if aerr != nil { // the addresses that xdpsock writes
			a = netip.AddrFrom4([4]byte{10, 10, 10, 32})
			fmt.Fprintf(os.Stderr, "fathom: no address of %s is known (%v): datagrams go to %s; --to says another\n", fl.DstMAC, aerr, a)
		}
		fl.Dst = netip.AddrPortFrom(a, defaultPort)
	}
	if !fl.Src.Addr().Is4() {
		fl.Src = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 10, 10, 16}), defaultPort)
	}
	return fl, nil
}

// addrPort reads ADDRESS[:PORT].
func addrPort(s string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a, defaultPort), nil
	}
	return netip.ParseAddrPort(s)
}

// context ends with Ctrl-C, SIGTERM, -d and --for.
func (f *bypassFlags) context(c *cobra.Command) (context.Context, context.CancelFunc, error) {
	d := f.forTime
	if f.duration > 0 {
		if d > 0 {
			return nil, nil, errors.New("-d or --for, not both")
		}
		d = time.Duration(f.duration) * time.Second
	}
	ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt)
	if d == 0 {
		return ctx, stop, nil
	}
	ctx, cancel := context.WithTimeout(ctx, d)
	return ctx, func() { cancel(); stop() }, nil
}

// bypassError gives an error the ways on that its package knows.
func bypassError(what string, err error) error {
	var x *xsk.Error
	var h *held.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &usageError{}):
		return err
	case errors.As(err, &h):
		return &diag.Error{What: what, Because: h.Error(), Try: h.Try(), Err: err}
	case errors.As(err, &x):
		return &diag.Error{What: what, Because: x.Error(), Try: x.Try, Err: err, Code: codeOf(err)}
	}
	return &diag.Error{What: what, Err: err, Code: codeOf(err)}
}

// codeOf gives the exit code that a cause has.
func codeOf(err error) int {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return diag.ExitPermission
	case errors.Is(err, feature.ErrUnsupported), errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.EAFNOSUPPORT):
		return diag.ExitUnsupported
	}
	return diag.ExitFailure
}
