package compare

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/bypass/steer"
	"github.com/fathom-trace/fathom/bypass/traffic"
	"github.com/fathom-trace/fathom/bypass/xsk"
)

// Place is one end: a device and its address.
type Place struct {
	Device xsk.Device
	Addr   netip.Addr
	CPU    int // that its process runs on
}

// Options say what is measured.
type Options struct {
	// Command starts a side: it is given the job as JSON as one more argument, and calls Serve.
	Command []string
	A, B    Place // A asks and sends, B answers and counts
	Ways    []Way // nil: all. The first is what others are compared with
	Mode    steer.Mode
	Rounds  int
	Count   int           // round trips of each way in each round
	For     time.Duration // how long packets are sent in each round; 0: not at all
	Size    int           // bytes of a frame
	Gap     time.Duration // from an order to the next tick, which an exchange spins through
	// Tick has the time from tick to order measured, nothing else: A is an exchange, B a strategy, and Ways are of TickWays.
	Tick bool
	// External are ways that other programs have. The function gives the command line for a job, and is told the address of the job's
	// device; the program says what a side of ours says.
	External map[Way]func(j Job, mac string) []string
	// Note is told what is being measured.
	Note func(round int, w Way, r Role)
}

// Row is what was measured of one way. Slices have a value for each round; times are in microseconds.
type Row struct {
	Way   Way              `json:"way"`
	P50   []float64        `json:"p50_us"`
	P99   []float64        `json:"p99_us"`
	P999  []float64        `json:"p999_us"`
	Lost  uint64           `json:"lost"`
	TripC []float64        `json:"cpu_per_trip_us"` // of both processes
	Rate  []float64        `json:"packets_per_second,omitempty"`
	Gone  []float64        `json:"dropped_part,omitempty"` // of what was sent
	RateC []float64        `json:"cpu_per_packet_us,omitempty"`
	Hist  []traffic.Bucket `json:"histogram"`
	Errs  []string         `json:"errors,omitempty"`
	all   traffic.Times
}

// Report is what was measured.
type Report struct {
	Type   string  `json:"type"` // "compare", "tick"
	Size   int     `json:"frame_bytes"`
	Rounds int     `json:"rounds"`
	Count  int     `json:"trips"`
	Gap    float64 `json:"gap_us,omitempty"` // from an order to the next tick
	CPUs   [2]int  `json:"cpus"`
	Rows   []*Row  `json:"rows"`
}

// ticks is the group that market data is sent to, of those that nobody outside sees (RFC 2365).
var ticks = netip.AddrFrom4([4]byte{239, 192, 0, 1})

// portBase is the first port used: each measurement has its own, so that nothing late counts for another.
const portBase = 20000

// Run measures all ways in turns, in another order each round. A way that fails says so in its row, and the others go on.
func Run(ctx context.Context, o Options) (*Report, error) {
	roles, typ, ways := []Role{Ping, Blast}, "compare", Ways()
	if o.Tick {
		roles, typ, ways = []Role{Exchange}, "tick", TickWays()
	}
	if o.Ways == nil {
		o.Ways = ways
	}
	macs, err := addresses(o.A, o.B)
	if err != nil {
		return nil, err
	}
	r := &Report{Type: typ, Size: o.Size, Rounds: o.Rounds, Count: o.Count, Gap: o.Gap.Seconds() * 1e6, CPUs: [2]int{o.A.CPU, o.B.CPU}}
	for _, w := range o.Ways {
		r.Rows = append(r.Rows, &Row{Way: w})
	}
	port := uint16(portBase)
	for round := range o.Rounds {
		for i := range r.Rows {
			row := r.Rows[(i+round)%len(r.Rows)]
			for _, role := range roles {
				if role == Blast && o.For == 0 {
					continue
				}
				if o.Note != nil {
					o.Note(round, row.Way, role)
				}
				port++
				if err := o.measure(ctx, row, role, port, macs); err != nil {
					if ctx.Err() != nil {
						return r, ctx.Err()
					}
					row.Errs = append(row.Errs, fmt.Sprintf("round %d, %s: %v", round+1, role, err))
				}
			}
		}
	}
	for _, row := range r.Rows {
		row.Hist = row.all.Histogram()
	}
	return r, nil
}

func addresses(a, b Place) (macs [2]string, err error) {
	for i, p := range []Place{a, b} {
		l, err := traffic.Of(p.Device)
		if err != nil {
			return macs, err
		}
		macs[i] = l.MAC.String()
	}
	return macs, nil
}

// measure runs one pair of processes, and adds what they say to the row.
func (o *Options) measure(ctx context.Context, row *Row, role Role, port uint16, macs [2]string) error {
	a, b := netip.AddrPortFrom(o.A.Addr, port), netip.AddrPortFrom(o.B.Addr, port)
	other := map[Role]Role{Ping: Echo, Blast: Sink, Exchange: Strategy}[role]
	var paths [2]string
	if row.Way == Memory {
		ms, err := memory(o.Size)
		if err != nil {
			return err
		}
		defer closeMemory(ms) // only this process's view of it
		paths = [2]string{ms[0].Path(), ms[1].Path()}
	}
	group := netip.AddrPortFrom(ticks, port)
	var far, near *process
	start := []func() error{
		func() (err error) {
			far, err = o.start(ctx, o.B.CPU, macs[1], Job{Way: row.Way, Role: other, Device: o.B.Device, Local: b, Remote: a, MAC: macs[0], Mode: o.Mode, Size: o.Size, Memory: paths, Group: group})
			return err
		},
		func() (err error) {
			near, err = o.start(ctx, o.A.CPU, macs[0], Job{Way: row.Way, Role: role, Device: o.A.Device, Local: a, Remote: b, MAC: macs[1], Mode: o.Mode, Size: o.Size, Count: o.Count, For: o.For, Memory: paths, Group: group, Gap: o.Gap})
			return err
		},
	}
	if role == Exchange { // whom the strategy connects to
		slices.Reverse(start)
	}
	for _, f := range start {
		if err := f(); err != nil {
			for _, p := range []*process{far, near} {
				if p != nil {
					p.kill()
				}
			}
			return err
		}
	}
	n, nerr := near.end()
	f, ferr := far.end()
	if err := errors.Join(nerr, ferr); err != nil {
		return err
	}
	row.add(role, n, f)
	return nil
}

// add takes what both sides of a measurement said.
func (row *Row) add(role Role, near, far Done) {
	cpu := (near.CPU + far.CPU).Seconds() * 1e6
	if role == Exchange { // the instrument, which spins
		cpu = far.CPU.Seconds() * 1e6
	}
	if role == Ping || role == Exchange {
		var t traffic.Times
		for _, d := range near.Times {
			t.Add(d)
			row.all.Add(d)
		}
		row.Lost += near.Lost
		us := func(part float64) float64 { return t.At(part).Seconds() * 1e6 }
		row.P50, row.P99, row.P999 = append(row.P50, us(.5)), append(row.P99, us(.99)), append(row.P999, us(.999))
		row.TripC = append(row.TripC, cpu/max(1, float64(near.Packets)))
		return
	}
	row.Rate = append(row.Rate, float64(far.Packets)/max(near.For, 1).Seconds())
	row.RateC = append(row.RateC, cpu/max(1, float64(far.Packets)))
	row.Gone = append(row.Gone, max(0, 1-float64(far.Packets)/max(1, float64(near.Packets))))
}

// process is a side that runs.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// start starts a side on a CPU and waits until its socket is open.
func (o *Options) start(ctx context.Context, cpu int, mac string, j Job) (*process, error) {
	arg, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	argv := append(o.Command[:len(o.Command):len(o.Command)], string(arg))
	if f := o.External[j.Way]; f != nil {
		argv = f(j, mac)
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stderr = os.Stderr
	p := &process{cmd: cmd}
	if p.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)
	if err := onCPU(cpu, cmd.Start); err != nil {
		return nil, err
	}
	if line, err := p.out.ReadString('\n'); line != "ready\n" {
		_, werr := p.end()
		return nil, errors.Join(fmt.Errorf("start %s %s: it says %q", j.Way, j.Role, line), err, werr)
	}
	return p, nil
}

// end tells a side to end, which Ping and Blast do by themselves, and reads what it says.
func (p *process) end() (d Done, err error) {
	if p.cmd == nil {
		return d, nil
	}
	defer func() { err = errors.Join(err, p.cmd.Wait()) }()
	line, early := make(chan error, 1), p.in
	go func() { line <- json.NewDecoder(p.out).Decode(&d) }()
	if err := early.Close(); err != nil {
		return d, err
	}
	if err := <-line; err != nil {
		return d, fmt.Errorf("read what a side says: %w", err)
	}
	if d.Error != "" {
		return d, errors.New(d.Error)
	}
	return d, nil
}

// kill ends a side that waits for one that will not come.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // fails if it has ended
	_ = p.cmd.Wait()         // says that it was killed
}

// onCPU runs f on a thread that is bound to a CPU, as what it starts will be: a negative number leaves it free.
func onCPU(cpu int, f func() error) error {
	if cpu < 0 {
		return f()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var old, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &old); err != nil {
		return fmt.Errorf("read CPUs of a thread: %w", err)
	}
	one.Set(cpu)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("bind a thread to CPU %d: %w", cpu, err)
	}
	return errors.Join(f(), unix.SchedSetaffinity(0, &old))
}

// CPUs gives two that this process may use, the first and the last: one twice if there is only one.
func CPUs() (first, last int) {
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) != nil {
		return -1, -1
	}
	first = -1
	for i := range 1024 {
		if set.IsSet(i) {
			if first < 0 {
				first = i
			}
			last = i
		}
	}
	return first, last
}
