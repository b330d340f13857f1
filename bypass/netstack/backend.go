package netstack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	holders "github.com/fathom-trace/fathom/bypass/held"
	"github.com/fathom-trace/fathom/bypass/steer"
	"github.com/fathom-trace/fathom/bypass/tpacket"
	"github.com/fathom-trace/fathom/bypass/traffic"
	"github.com/fathom-trace/fathom/bypass/xsk"
	"github.com/fathom-trace/fathom/wire/filter"
)

// Backend is the way by which a stack gets its packets.
type Backend int

// Ways.
const (
	BackendAuto Backend = iota // AF_XDP, or AF_PACKET where that cannot be had
	XDP
	// Packet is AF_PACKET. The kernel gets what comes as well, so the sockets by which ports are held there take it, for the stack's device only,
	// and drop it by a filter: those of TCP listen, and so nothing is answered or reset. They go with the process.
	Packet
)

// backends are their names.
var backends = [...]string{"auto", "xdp", "packet"}

// String gives the name.
func (b Backend) String() string {
	if b < 0 || int(b) >= len(backends) {
		return fmt.Sprintf("Backend(%d)", int(b))
	}
	return backends[b]
}

// ParseBackend reads a name.
func ParseBackend(s string) (Backend, error) {
	for i, name := range backends {
		if s == name {
			return Backend(i), nil
		}
	}
	return 0, fmt.Errorf("no backend %q: %s", s, strings.Join(backends[:], ", "))
}

// packets is a device, opened by a backend.
type packets interface {
	// take says which packets come: those that match one of the filters, which are of tcpdump's language.
	take(filters []string) error
	Close() error
}

// attach opens the device.
func (s *Stack) attach(ctx context.Context, o Options) (queues []queue, err error) {
	if o.Backend != Packet {
		queues, err = s.attachXDP(ctx, o)
		if err == nil || o.Backend == XDP || !o.replaceable(err) {
			return queues, err
		}
	}
	s.instead = err
	queues, err = s.attachPacket(o)
	return queues, errors.Join(err, errIf(err, s.instead))
}

func errIf(err, other error) error {
	if err == nil {
		return nil
	}
	return other
}

// replaceable says if AF_PACKET does where AF_XDP fails so: not if somebody has the device, who may take packets before AF_PACKET sees them, nor
// if something was asked for that only AF_XDP has.
func (o Options) replaceable(err error) bool {
	var h *holders.Error
	return o.Mode == steer.Auto && o.Copying == xsk.CopyAuto && o.Wait != xsk.BusyPoll && !errors.As(err, &h) && !errors.Is(err, unix.EBUSY) && !errors.Is(err, context.Canceled)
}

// attachXDP opens AF_XDP sockets and attaches a program.
//
// Packets of several frames come where the MTU asks for them, and in generic mode, which is behind what puts packets together (GRO) and before
// what cuts them on a veth: without, a peer's kernel that sends much waits for ever for an acknowledgement of what was too long. Drivers'
// own mode gives packets as they are on the wire, and some drivers have no zero copy with several frames.
func (s *Stack) attachXDP(ctx context.Context, o Options) (queues []queue, err error) {
	s.most = frameSize - headroom
	long := s.near.mtu > s.most
	if long {
		s.most = s.near.mtu
	}
	multi := long || o.Mode == steer.Generic
	t, err := s.openXDP(ctx, o, multi)
	if err == nil && !multi && t.Program.Mode() == steer.Generic { // the driver has no XDP
		if err = t.Close(); err == nil {
			o.Mode, multi = steer.Generic, true
			t, err = s.openXDP(ctx, o, multi)
		}
	}
	if multi && !long && errors.Is(err, unix.EINVAL) { // Linux 6.6
		multi = false
		t, err = s.openXDP(ctx, o, multi)
	}
	if err != nil && long {
		return nil, fmt.Errorf("MTU %d, where a packet takes several frames: %w", s.near.mtu, err)
	}
	if err != nil {
		return nil, err
	}
	for _, q := range t.Queues {
		x := xskQueue{q: q}
		if multi {
			x.in = make([]byte, burst*frameSize)
		}
		if long {
			queues = append(queues, newLongQueue(x, s.most+ethernet))
		} else {
			queues = append(queues, &x)
		}
	}
	s.backend, s.mode, s.packets = XDP, t.Program.Mode(), program{t}
	return queues, nil
}

func (s *Stack) openXDP(ctx context.Context, o Options, multi bool) (*traffic.Session, error) {
	return traffic.Open(ctx, traffic.Config{
		Device: s.dev, Queues: o.Queues, Memory: xsk.Memory{Frames: o.Frames, FrameSize: frameSize},
		Queue: xsk.Options{Copying: o.Copying, Wait: o.Wait, MultiBuffer: multi},
		Steer: steer.Options{Mode: o.Mode, MultiBuffer: multi},
		Rules: []steer.Rule{}, // nothing yet
	})
}

// frameSize is how long frames are: a page.
const frameSize = 4096

// headroom is what the kernel keeps of a frame for itself, and for the Ethernet header with a tag (XDP_PACKET_HEADROOM).
const headroom = 256 + 18

// program is a device by AF_XDP.
type program struct{ *traffic.Session }

func (p program) take(filters []string) error {
	rules := make([]steer.Rule, len(filters))
	for i, f := range filters {
		rules[i].Filter = f
	}
	return p.Program.Set(rules)
}

// attachPacket opens AF_PACKET sockets: as many as queues were named, or as the device has, but not more than there are CPUs.
func (s *Stack) attachPacket(o Options) (queues []queue, err error) {
	n := len(o.Queues)
	if n == 0 {
		n = max(1, min(s.near.queues, runtime.GOMAXPROCS(0)))
	}
	s.most = max(s.near.mtu, frameSize/2-ethernet)
	all, err := tpacket.Open(s.dev, n, tpacket.Options{Slots: o.Frames / 2, Size: s.most + ethernet, Wait: o.Wait})
	if err != nil {
		return nil, err
	}
	for _, q := range all {
		queues = append(queues, &packetQueue{q: q})
	}
	s.backend, s.packets = Packet, sockets(all)
	s.ports.guard = &guard{dev: s.dev.Name, index: s.near.index}
	return queues, nil
}

// ethernet is room for Ethernet's header with a tag.
const ethernet = 18

// sockets are a device by AF_PACKET.
type sockets []*tpacket.Queue

func (p sockets) take(filters []string) error {
	prog := []bpf.RawInstruction{{Op: unix.BPF_RET | unix.BPF_K}} // nothing
	if len(filters) > 0 {
		f, err := filter.Compile("("+strings.Join(filters, ") or (")+")", filter.Options{})
		if err == nil {
			prog, err = f.Classic()
		}
		if err != nil {
			return err
		}
	}
	for _, q := range p {
		if err := q.Filter(prog); err != nil {
			return err
		}
	}
	return nil
}

func (p sockets) Close() (err error) {
	for _, q := range p {
		err = errors.Join(err, q.Close())
	}
	return err
}

// guard keeps the kernel from answering what came to the stack, where it gets that too. nil: it does not.
type guard struct {
	dev   string
	index int
}

// before is called with a socket that is to hold a port: it takes what comes by the device, and drops it.
func (g *guard) before(fd int) error {
	if g == nil {
		return nil
	}
	if err := unix.BindToDevice(fd, g.dev); err != nil {
		return os.NewSyscallError("SO_BINDTODEVICE", err)
	}
	return drop(fd, []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}})
}

// after is called with it when it is bound: TCP resets what no socket listens for.
func (g *guard) after(fd int, proto string) error {
	if g == nil || proto != "tcp" {
		return nil
	}
	return os.NewSyscallError("listen", unix.Listen(fd, 1))
}

// over has somebody's socket, who goes on to use it for what comes by other devices, drop what comes by this one. undo ends it.
func (g *guard) over(fd int) (undo func(fd int), err error) {
	if g == nil {
		return func(int) {}, nil
	}
	if n, err := tpacket.FilterLen(fd); err != nil || n > 0 {
		return nil, errors.Join(err, fmt.Errorf("the socket has a filter of its own (SO_ATTACH_FILTER, %d instructions), which AF_PACKET would need: AF_XDP does not", n))
	}
	const ifindex = 0xfffff000 + 8 // SKF_AD_OFF + SKF_AD_IFINDEX
	err = drop(fd, []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: ifindex},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(g.index), Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
	})
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = fmt.Errorf("%w: one of MPTCP (Go's net.Listen makes those, but for GODEBUG=multipathtcp=0) takes no filter, which AF_PACKET needs", err)
	}
	return func(fd int) { _ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0) }, err
}

func drop(fd int, prog []unix.SockFilter) error {
	return os.NewSyscallError("SO_ATTACH_FILTER", unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}))
}
