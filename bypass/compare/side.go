package compare

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/bypass/steer"
	"github.com/fathom-trace/fathom/bypass/traffic"
	"github.com/fathom-trace/fathom/bypass/xsk"
)

// Way is a way to send and receive.
type Way string

// Ways.
const (
	UDP        Way = "udp"         // Go's net.UDPConn
	UDPSpin    Way = "udp-spin"    // sockets of the kernel, read without waiting, with SO_BUSY_POLL
	Packet     Way = "packet"      // AF_PACKET, waiting by Go's netpoller
	XSKNetpoll Way = "xsk-netpoll" // AF_XDP, waiting by Go's netpoller
	XSKSpin    Way = "xsk-spin"    // AF_XDP, spinning
	Memory     Way = "shm"         // shared memory, spinning: no device is between, for processes of one machine

	TCP          Way = "tcp"              // Go's net.TCPConn
	StackNetpoll Way = "netstack-netpoll" // TCP of package netstack, on AF_XDP, waiting by Go's netpoller
	StackYield   Way = "netstack-yield"   // the same, looking again and again
)

// Ways lists them, the one that others are compared with first.
func Ways() []Way {
	return []Way{UDP, UDPSpin, Packet, XSKNetpoll, XSKSpin, Memory, TCP, StackNetpoll, StackYield}
}

// beside is what a way is compared with if it is measured too: the kernel's of the same protocol.
func (w Way) beside() Way {
	if w == StackNetpoll || w == StackYield {
		return TCP
	}
	return UDP
}

// Role is what a side does.
type Role string

// Roles.
const (
	Echo  Role = "echo"  // sends back what comes, until its input ends
	Sink  Role = "sink"  // counts what comes, until its input ends
	Ping  Role = "ping"  // Count round trips
	Blast Role = "blast" // sends for For

	Exchange Role = "exchange" // sends Count ticks to the group, each Gap after the order for the one before came
	Strategy Role = "strategy" // answers each tick with an order, until its input ends
)

// Job is what a side has to do. It is handed over as JSON.
type Job struct {
	Way    Way            `json:"way"`
	Role   Role           `json:"role"`
	Device xsk.Device     `json:"device"`
	Local  netip.AddrPort `json:"local"`
	Remote netip.AddrPort `json:"remote"`
	MAC    string         `json:"mac"` // of Remote
	Mode   steer.Mode     `json:"mode"`
	Size   int            `json:"size"` // bytes of a frame
	Count  int            `json:"count,omitempty"`
	For    time.Duration  `json:"for,omitempty"`
	Memory [2]string      `json:"memory,omitzero"` // paths of what the way "shm" uses
	Group  netip.AddrPort `json:"group,omitzero"`  // of multicast, that ticks are sent to
	Gap    time.Duration  `json:"gap,omitempty"`   // from an order to the next tick
}

// Done is what a side says at its end.
type Done struct {
	Packets uint64          `json:"packets"` // round trips too, and those before the first that is timed
	Lost    uint64          `json:"lost,omitempty"`
	CPU     time.Duration   `json:"cpu"` // of the process, user and system, softirqs that ran in it too
	Took    time.Duration   `json:"took"`
	For     time.Duration   `json:"for,omitempty"` // of Took, how long Blast gave packets: the rest is until the last had left
	Times   []time.Duration `json:"times,omitempty"`
	Stats   *xsk.Stats      `json:"stats,omitempty"`
	Error   string          `json:"error,omitempty"`
}

// side is what serves a job, open.
type side interface {
	stats() *xsk.Stats
	interrupt() // has who runs until it is told to end look at stop
	io.Closer
}

// end is one way's socket, open.
type end interface {
	side
	echo(stop *atomic.Bool) (uint64, error)
	sink(stop *atomic.Bool) (uint64, error)
	ping(n int, took func(time.Duration)) (lost uint64, err error)
	blast(until time.Time) (n uint64, err error) // gives packets until then
}

// warmUp: a tenth more round trips go before those whose times count. A process that has just begun is disturbed by its own runtime: Go's
// watches each 20 µs at first.
const warmUp = 10

// lostAfter is when an answer is lost.
const lostAfter = time.Second

// Serve does a job: it says "ready" when its socket is open, runs, and says what it did as JSON. Echo and Sink end with in.
func Serve(j Job, in io.Reader, out io.Writer) error {
	var e side
	err := j.Device.In(func() (err error) { e, err = j.open(); return err })
	if err != nil {
		return fmt.Errorf("open %s on %s: %w", j.Way, j.Device, err)
	}
	defer e.Close()
	if _, err := fmt.Fprintln(out, "ready"); err != nil {
		return err
	}
	var stop atomic.Bool
	if j.Role == Echo || j.Role == Sink || j.Role == Strategy {
		go func() {
			_, _ = bufio.NewReader(in).ReadByte() // the end of input, or the word to end
			stop.Store(true)
			e.interrupt()
		}()
	}
	d, err := j.run(e, &stop)
	if err != nil {
		d.Error = err.Error()
	}
	return json.NewEncoder(out).Encode(d)
}

func (j Job) run(s side, stop *atomic.Bool) (d Done, err error) {
	if j.alone() { // else who waits would have the runtime change threads, twice for each packet
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
	}
	cpu, begin := cpuTime(), time.Now()
	d.Times = make([]time.Duration, 0, j.Count)
	trips := j.Count + j.Count/warmUp
	took := func(t time.Duration) {
		if d.Packets++; d.Packets > uint64(j.Count/warmUp) {
			d.Times = append(d.Times, t)
		}
	}
	e, _ := s.(end)
	m, _ := s.(*market)
	switch {
	case m != nil && j.Role == Exchange:
		d.Lost, err = m.exchange(trips, j.Gap, took)
	case m != nil && j.Role == Strategy:
		d.Packets, err = m.strategy(stop)
	case e != nil && j.Role == Echo:
		d.Packets, err = e.echo(stop)
	case e != nil && j.Role == Sink:
		d.Packets, err = e.sink(stop)
	case e != nil && j.Role == Ping:
		d.Lost, err = e.ping(trips, took)
	case e != nil && j.Role == Blast:
		d.For = j.For
		d.Packets, err = e.blast(begin.Add(j.For))
	default:
		err = fmt.Errorf("no role %q", j.Role)
	}
	d.CPU, d.Took, d.Stats = cpuTime()-cpu, time.Since(begin), s.stats()
	return d, err
}

// alone says if the side never waits in Go's runtime, and has a thread of its own.
func (j Job) alone() bool {
	return j.Role == Exchange || slices.Contains([]Way{UDPSpin, SocketsSpin, XSKSpin, Memory}, j.Way)
}

func cpuTime() time.Duration {
	var r unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &r) // it cannot fail for oneself
	return time.Duration(unix.TimevalToNsec(r.Utime) + unix.TimevalToNsec(r.Stime))
}

// open runs on a thread in the device's namespace.
func (j Job) open() (side, error) {
	mac, err := net.ParseMAC(j.MAC)
	if err != nil {
		return nil, err
	}
	dev := xsk.Device{Name: j.Device.Name} // the thread is there
	l, err := traffic.Of(dev)
	if err != nil {
		return nil, err
	}
	if j.Role == Exchange || j.Role == Strategy {
		return openMarket(j, l)
	}
	t, err := traffic.NewTemplate(traffic.Flow{SrcMAC: l.MAC, DstMAC: mac, Src: j.Local, Dst: j.Remote}, j.Size)
	if err != nil {
		return nil, err
	}
	switch j.Way {
	case UDP:
		return openUDP(j, t)
	case UDPSpin:
		return openSpin(j, t)
	case Packet:
		return openPacket(j, l, t)
	case XSKNetpoll:
		return openXSK(j, t, xsk.Netpoll)
	case XSKSpin:
		return openXSK(j, t, xsk.Spin)
	case Memory:
		return openMemory(j, t)
	case TCP:
		return openTCP(j, t)
	case StackNetpoll:
		return openStack(j, t, xsk.Netpoll)
	case StackYield:
		return openStack(j, t, xsk.SpinYield)
	}
	return nil, fmt.Errorf("no way %q", j.Way)
}

// xskEnd is AF_XDP.
type xskEnd struct {
	*traffic.Session
	q      *xsk.Queue
	t      *traffic.Template
	wait   xsk.Wait
	ctx    context.Context
	cancel context.CancelFunc
}

func openXSK(j Job, t *traffic.Template, w xsk.Wait) (end, error) {
	r, err := steer.Flow{Proto: "udp", Src: netip.PrefixFrom(j.Remote.Addr(), 32), DstPort: steer.Ports{First: j.Local.Port()}}.Rule(steer.ToSocket)
	if err != nil {
		return nil, err
	}
	return openXSKRule(j, t, w, r)
}

// openXSKRule takes what a rule has.
func openXSKRule(j Job, t *traffic.Template, w xsk.Wait, r steer.Rule) (*xskEnd, error) {
	s, err := traffic.Open(context.Background(), traffic.Config{Device: xsk.Device{Name: j.Device.Name}, Queues: []int{0}, Rules: []steer.Rule{r},
		Steer: steer.Options{Mode: j.Mode}, Queue: xsk.Options{Wait: w, RetryFor: 10 * time.Second}})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &xskEnd{s, s.Queues[0], t, w, ctx, cancel}, nil
}

func (e *xskEnd) interrupt() { e.cancel() }
func (e *xskEnd) stats() *xsk.Stats {
	s, err := e.q.Stats()
	if err != nil {
		return nil
	}
	return &s
}

func (e *xskEnd) echo(*atomic.Bool) (uint64, error) {
	n := uint64(0)
	err := traffic.Forward(e.ctx, e.q, e.q, 64, e.wait, func(b []byte) bool { n++; return traffic.Turn(b) })
	return n, err
}

func (e *xskEnd) sink(*atomic.Bool) (n uint64, err error) {
	var fs [64]xsk.Frame
	for {
		k, err := e.q.Recv(fs[:])
		if err != nil {
			return n, err
		}
		n += uint64(k)
		e.q.Free(fs[:k])
		if k > 0 {
			continue
		}
		if err := e.q.Wait(e.ctx); errors.Is(err, context.Canceled) {
			return n, nil
		} else if err != nil {
			return n, err
		}
	}
}

func (e *xskEnd) ping(n int, took func(time.Duration)) (uint64, error) {
	return traffic.RoundTrips(e.ctx, e.q, e.t, n, lostAfter, took)
}

func (e *xskEnd) blast(until time.Time) (uint64, error) {
	ctx, cancel := context.WithDeadline(e.ctx, until)
	defer cancel()
	return traffic.Send(ctx, e.q, traffic.SendOptions{Template: e.t, Batch: 64, Wait: e.wait})
}
