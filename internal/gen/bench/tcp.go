package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/bypass/compare"
	"github.com/fathom-trace/fathom/bypass/netstack"
	"github.com/fathom-trace/fathom/bypass/steer"
	"github.com/fathom-trace/fathom/bypass/xsk"
	"github.com/fathom-trace/fathom/lab/topology"
)

// Ways to have a connection of TCP.
const (
	tcpKernel  = "tcp"              // Go's net
	tcpSpin    = "tcp-spin"         // the kernel's, read without waiting; only to dial
	tcpNetpoll = "netstack-netpoll" // ours, waiting by Go's netpoller
	tcpYield   = "netstack-yield"   // ours, looking again and again, other goroutines in between
)

const (
	tcpRounds  = 7
	tcpTrips   = 3000
	tcpMessage = 100 // bytes
	tcpBulkFor = 700 * time.Millisecond
)

// tcpSide is one side of a connection: a process of its own.
type tcpSide struct {
	Way    string     `json:"way"`
	Device xsk.Device `json:"device"`
	Listen string     `json:"listen,omitempty"`
	Dial   string     `json:"dial,omitempty"`
	Bulk   bool       `json:"bulk,omitempty"`
}

// tcpResult is what the side that dials measured.
type tcpResult struct {
	P50, P99 float64 // of a round trip, µs
	Rate     float64 // bytes a second
}

func (s tcpSide) run() error {
	listen, dial := net.Listen, func(network, addr string) (net.Conn, error) { return net.Dial(network, addr) }
	in := s.Device.In
	if s.Way == tcpNetpoll || s.Way == tcpYield {
		wait := xsk.Netpoll
		if s.Way == tcpYield {
			wait = xsk.SpinYield
		}
		st, err := netstack.Open(s.Device, netstack.Options{Queues: []int{0}, Wait: wait, Mode: steer.Generic})
		if err != nil {
			return err
		}
		defer st.Close()
		listen, dial, in = st.Listen, st.Dial, func(f func() error) error { return f() }
	}
	if s.Listen != "" {
		var l net.Listener
		if err := in(func() (err error) { l, err = listen("tcp", s.Listen); return err }); err != nil {
			return err
		}
		fmt.Println("ready")
		c, err := l.Accept()
		if err != nil {
			return err
		}
		defer c.Close()
		if !s.Bulk {
			b := make([]byte, tcpMessage)
			for {
				if _, err := io.ReadFull(c, b); err != nil {
					return nil // the other side is done
				}
				if _, err := c.Write(b); err != nil {
					return err
				}
			}
		}
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, 256<<10))
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(c, "%d\n", n)
		return err
	}
	var c net.Conn
	if err := in(func() (err error) { c, err = dial("tcp", s.Dial); return err }); err != nil {
		return err
	}
	defer c.Close()
	var r tcpResult
	b := make([]byte, tcpMessage)
	if s.Bulk {
		b = make([]byte, 256<<10)
		start := time.Now()
		for time.Since(start) < tcpBulkFor {
			if _, err := c.Write(b); err != nil {
				return err
			}
		}
		if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			return err
		}
		var n float64
		if _, err := fmt.Fscan(c, &n); err != nil {
			return err
		}
		r.Rate = n / time.Since(start).Seconds()
		return json.NewEncoder(os.Stdout).Encode(r)
	}
	read := func() error { _, err := io.ReadFull(c, b); return err }
	if s.Way == tcpSpin {
		raw, err := c.(*net.TCPConn).SyscallConn()
		if err != nil {
			return err
		}
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		read = func() (err error) {
			at := 0
			rerr := raw.Read(func(fd uintptr) bool {
				for at < len(b) && err == nil {
					n, e := unix.Read(int(fd), b[at:])
					switch {
					case e == unix.EAGAIN || e == unix.EINTR:
					case e != nil || n == 0:
						err = errors.Join(io.ErrUnexpectedEOF, e)
					default:
						at += n
					}
				}
				return true
			})
			return errors.Join(err, rerr)
		}
	}
	var took []time.Duration
	for i := range tcpTrips + tcpTrips/10 {
		start := time.Now()
		if _, err := c.Write(b); err != nil {
			return err
		}
		if err := read(); err != nil {
			return err
		}
		if i >= tcpTrips/10 {
			took = append(took, time.Since(start))
		}
	}
	slices.Sort(took)
	at := func(p float64) float64 { return float64(took[int(p*float64(len(took)))].Nanoseconds()) / 1e3 }
	r.P50, r.P99 = at(.5), at(.99)
	return json.NewEncoder(os.Stdout).Encode(r)
}

// tcpPair measures a connection from a to b, each of its way.
func tcpPair(p *topology.Pair, from, to string, bulk bool, port int) (r tcpResult, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	at := func(h topology.Host) xsk.Device {
		return xsk.Device{Name: h.Dev, NetNS: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), h.FD())}
	}
	addr := fmt.Sprintf("%s:%d", p.B.Addr, port)
	first, last := compare.CPUs()
	start := func(cpu int, s tcpSide) (*exec.Cmd, io.Reader, error) {
		arg, err := json.Marshal(s)
		if err != nil {
			return nil, nil, err
		}
		self, err := os.Executable()
		if err != nil {
			return nil, nil, err
		}
		cmd := exec.CommandContext(ctx, "taskset", "-c", fmt.Sprint(cpu), self, "tcp-side", string(arg))
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, nil, err
		}
		return cmd, out, cmd.Start()
	}
	server, sout, err := start(last, tcpSide{Way: to, Device: at(p.B), Listen: addr, Bulk: bulk})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, server.Wait()) }()
	word := make([]byte, 6)
	if _, err := io.ReadFull(sout, word); err != nil || string(word) != "ready\n" {
		cancel()
		return r, fmt.Errorf("the side that listens says %q: %w", word, err)
	}
	client, cout, err := start(first, tcpSide{Way: from, Device: at(p.A), Dial: addr, Bulk: bulk})
	if err != nil {
		cancel()
		return r, err
	}
	err = json.NewDecoder(cout).Decode(&r)
	if err = errors.Join(err, client.Wait()); err != nil {
		cancel()
	}
	return r, err
}

// writeTCP measures and prints the part about connections. Offloads are off on both devices: with them the kernel never makes packets
// on veth.
func writeTCP(p *topology.Pair) error {
	for _, h := range []topology.Host{p.A, p.B} {
		if err := h.NS.Do(func() error {
			return exec.Command("ethtool", "-K", h.Dev, "tso", "off", "gso", "off", "gro", "off").Run()
		}); err != nil {
			return fmt.Errorf("turn off offloads of %s: %w", h.Dev, err)
		}
	}
	type run struct {
		from, to string
		bulk     bool
	}
	runs := []run{
		{tcpSpin, tcpKernel, false}, {tcpSpin, tcpNetpoll, false}, {tcpSpin, tcpYield, false},
		{tcpKernel, tcpKernel, true}, {tcpKernel, tcpNetpoll, true}, {tcpNetpoll, tcpKernel, true},
	}
	got := map[run][]tcpResult{}
	port := 30000
	for round := range tcpRounds {
		for i := range runs {
			k := runs[(i+round)%len(runs)]
			fmt.Fprintf(os.Stderr, "\rconnections: round %d of %d: %s to %s ", round+1, tcpRounds, k.from, k.to)
			port++
			r, err := tcpPair(p, k.from, k.to, k.bulk, port)
			if err != nil {
				return fmt.Errorf("%s to %s: %w", k.from, k.to, err)
			}
			got[k] = append(got[k], r)
		}
	}
	fmt.Fprintln(os.Stderr)
	ratio := func(of, to run, f func(tcpResult) float64) string {
		var q []float64
		for i := range got[of] {
			q = append(q, f(got[of][i])/f(got[to][i]))
		}
		slices.Sort(q)
		return fmt.Sprintf("%.3g | %.3g – %.3g", q[len(q)/2], q[0], q[len(q)-1])
	}
	median := func(k run, f func(tcpResult) float64) float64 {
		var q []float64
		for _, r := range got[k] {
			q = append(q, f(r))
		}
		slices.Sort(q)
		return q[len(q)/2]
	}
	p50, p99, rate := func(r tcpResult) float64 { return r.P50 }, func(r tcpResult) float64 { return r.P99 }, func(r tcpResult) float64 { return r.Rate }
	var b strings.Builder
	fmt.Fprintf(&b, "\n## Connections\n\nA server of `bypass/netstack` beside one of Go's net: %d round trips of %d bytes in each of %d rounds to a client that is the same for both, a socket of the kernel's that is read without waiting; and bulk transfers of %v in which one side is ours and the other "+
		"the kernel's, with a thread of its own each. Segmentation and receive offloads are off: with them the kernel never cuts what it sends on veth into packets, and is several times faster.\n\n", tcpTrips, tcpMessage, tcpRounds, tcpBulkFor)
	fmt.Fprintf(&b, "| ratio | wanted | median | rounds from – to |\n|---|---|---|---|\n")
	fmt.Fprintf(&b, "| round trip p50, yielding, beside Go's net | ≤ 0.8 | %s |\n", ratio(runs[2], runs[0], p50))
	fmt.Fprintf(&b, "| round trip p50, netpoller, beside Go's net | ≤ 1.1 | %s |\n", ratio(runs[1], runs[0], p50))
	fmt.Fprintf(&b, "| round trip p99, yielding, beside Go's net | | %s |\n", ratio(runs[2], runs[0], p99))
	fmt.Fprintf(&b, "| round trip p99, netpoller, beside Go's net | | %s |\n", ratio(runs[1], runs[0], p99))
	fmt.Fprintf(&b, "| bulk, ours receiving, beside the kernel's on both sides | ≥ 0.6 | %s |\n", ratio(runs[4], runs[3], rate))
	fmt.Fprintf(&b, "| bulk, ours sending, beside the kernel's on both sides | ≥ 0.4 | %s |\n", ratio(runs[5], runs[3], rate))
	fmt.Fprintf(&b, "\nMedians: Go's net %.1f µs, netpoller %.1f, yielding %.1f; bulk %.2f, %.2f receiving, %.2f sending, Gbit/s.\n",
		median(runs[0], p50), median(runs[1], p50), median(runs[2], p50), median(runs[3], rate)*8e-9, median(runs[4], rate)*8e-9, median(runs[5], rate)*8e-9)
	fmt.Print(b.String())
	return nil
}
