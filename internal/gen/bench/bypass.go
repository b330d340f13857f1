package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fathom-trace/fathom/bypass/compare"
	"github.com/fathom-trace/fathom/bypass/coro"
	"github.com/fathom-trace/fathom/bypass/steer"
	"github.com/fathom-trace/fathom/bypass/xsk"
	"github.com/fathom-trace/fathom/lab/topology"
)

// bypassRounds, bypassTrips and bypassFor are how much bypassPage measures of each way.
const (
	bypassRounds = 15
	bypassTrips  = 10000
	bypassFor    = 500 * time.Millisecond
	tickCount    = 3000
	tickGap      = 50 * time.Microsecond
)

// cWay is the program in C.
const cWay compare.Way = "xsk-c"

// bypassPage prints docs/benchmarks-bypass.md: the kernel's ways beside AF_XDP and shared memory, all in turns.
func bypassPage() (err error) {
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	pair, err := topology.NewPair("va", "vb")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pair.Close()) }()
	o := compare.Options{Rounds: bypassRounds, Count: bypassTrips, For: bypassFor, Size: 60, Command: []string{"./fathom", "bypass", "side"}, Ways: datagrams(), Mode: steer.Generic}
	for _, e := range []struct {
		p *compare.Place
		h topology.Host
	}{{&o.A, pair.A}, {&o.B, pair.B}} {
		e.p.Device = xsk.Device{Name: e.h.Dev, NetNS: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), e.h.FD())}
		e.p.Addr, _ = netip.AddrFromSlice(e.h.Addr.To4())
	}
	o.A.CPU, o.B.CPU = compare.CPUs()
	if bin, cerr := compileC(dir); cerr == nil {
		o.Ways = append(o.Ways, cWay)
		o.External = map[compare.Way]func(compare.Job, string) []string{cWay: func(j compare.Job, mac string) []string { return cCommand(bin, j, mac) }}
	} else {
		fmt.Fprintln(os.Stderr, cerr)
	}
	o.Note = func(round int, w compare.Way, r compare.Role) {
		fmt.Fprintf(os.Stderr, "\rround %d of %d: %-11s %-5s ", round+1, o.Rounds, w, r)
	}
	r, err := compare.Run(context.Background(), o)
	fmt.Fprintln(os.Stderr)
	if err != nil {
		return err
	}
	o.Ways, o.External, o.Tick, o.Count, o.Gap = nil, nil, true, tickCount, tickGap
	ticks, err := compare.Run(context.Background(), o)
	fmt.Fprintln(os.Stderr)
	if err != nil {
		return err
	}
	o.Ways, o.Gap = []compare.Way{compare.Sockets, compare.XSKSpin, compare.StackInline}, 0
	atOnce, err := compare.Run(context.Background(), o)
	fmt.Fprintln(os.Stderr)
	if err != nil {
		return err
	}
	return errors.Join(writeBypass(r), writeTicks(ticks, atOnce), writeTCP(pair))
}

// datagrams are the ways of the page's first table: connections are measured by tcp.go, in bulk too.
func datagrams() []compare.Way {
	return slices.DeleteFunc(compare.Ways(), func(w compare.Way) bool {
		return w == compare.TCP || w == compare.StackNetpoll || w == compare.StackYield
	})
}

// compileC compiles the program that fathom's AF_XDP is compared with.
func compileC(dir string) (string, error) {
	bin := filepath.Join(dir, "xsk")
	out, err := exec.Command("gcc", "-O2", "-Wall", "-o", bin, "internal/gen/bench/testdata/xsk.c").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("compile xsk.c: %w: %s", err, out)
	}
	return bin, nil
}

// cCommand is the command line of xsk.c for a job; mac is the device's own address.
func cCommand(bin string, j compare.Job, mac string) []string {
	role := map[compare.Role]string{compare.Blast: "tx", compare.Sink: "rx", compare.Ping: "ping", compare.Echo: "echo"}[j.Role]
	much := fmt.Sprint(j.For.Seconds())
	if j.Role == compare.Ping {
		much = fmt.Sprint(j.Count)
	}
	return []string{bin, role, j.Device.NetNS, j.Device.Name, much, mac, j.MAC,
		j.Local.Addr().String(), j.Remote.Addr().String(), fmt.Sprint(j.Local.Port()), fmt.Sprint(j.Size)}
}

// goal is a ratio that is wanted; 0 only says how it is.
type goal struct {
	what   string
	of, to compare.Way
	metric string
	wanted float64
	less   bool
}

var bypassGoals = []goal{
	{"AF_XDP spinning, p50 of a round trip beside Go's UDP", compare.XSKSpin, compare.UDP, "p50", 1. / 8, true},
	{"AF_XDP spinning, p99 beside Go's UDP", compare.XSKSpin, compare.UDP, "p99", 1. / 12, true},
	{"AF_XDP on the netpoller, p50 beside Go's UDP", compare.XSKNetpoll, compare.UDP, "p50", .85, true},
	{"AF_XDP on the netpoller, p99 beside Go's UDP", compare.XSKNetpoll, compare.UDP, "p99", .5, true},
	{"AF_XDP spinning, packets a second beside Go's UDP", compare.XSKSpin, compare.UDP, "packets/s", 2.5, false},
	{"AF_XDP spinning, packets a second beside the program in C", compare.XSKSpin, cWay, "packets/s", .95, false},
	{"AF_XDP spinning, p50 of a round trip beside the program in C", compare.XSKSpin, cWay, "p50", 0, true},
	{"the program in C, p50 of a round trip beside Go's UDP", cWay, compare.UDP, "p50", 0, true},
	{"the program in C, p99 beside Go's UDP", cWay, compare.UDP, "p99", 0, true},
	{"shared memory, p50 of a round trip beside Go's UDP", compare.Memory, compare.UDP, "p50", 1. / 50, true},
}

var tickGoals = []goal{
	{"ticks by AF_XDP, spinning, orders by the kernel's TCP, p50 beside Go's sockets", compare.XSKSpin, compare.Sockets, "p50", 1. / 3, true},
	{"both by bypass/netstack, yielding, the order written where the tick is received, p50 beside Go's sockets", compare.StackInline, compare.Sockets, "p50", 1. / 2, true},
}

// writeTicks prints what was measured from tick to order, and of what came at once only how it is.
func writeTicks(r, atOnce *compare.Report) error {
	fmt.Printf("## From tick to order\n\nAn exchange sends ticks to a group of multicast, a strategy answers each with an order over TCP (`fathom bypass tick`). The exchange has sockets "+
		"of the kernel that are read without waiting, for all ways of the strategy, and sends the next tick %v after an order; %d ticks for each way in each of %d rounds.\n\n", tickGap, r.Count, r.Rounds)
	more := ""
	for _, g := range tickGoals {
		q := atOnce.Ratio(g.of, g.to, g.metric)
		more += fmt.Sprintf("| the same with the next tick at once: %s | | %.3g | %.3g – %.3g | |\n", g.of, q.Median, q.Min, q.Max)
	}
	return writeGoals(r, tickGoals, more)
}

func writeBypass(r *compare.Report) error {
	load, _ := os.ReadFile("/proc/loadavg") // says how far to trust this
	fmt.Printf("# Going around the kernel\n\nMade by `make bench-bypass` on %s, %d CPUs. Both sides are processes of their own, each on one CPU, on a veth pair between two "+
		"namespaces; all ways take turns in each of %d rounds, in another order each time. Ratios are within a round. The machine is "+
		"shared: only ratios count. XDP runs in generic mode: on veth its native mode first makes another buffer of each skb, and is slower. veth has no zero copy, and each packet sent costs a call and an skb: cards with zero copy differ. "+
		"Who waits by the netpoller looks for 50 µs before it sleeps, while packets come that fast. A tenth more round trips go before those that are timed. "+
		"The program in C, which spins too, says what AF_XDP itself gives here. A spinning way suffers most from other programs on its CPU: the load was %s at the end (two processes of ours are 2).\n\n", kernel(), cpus(), r.Rounds, strings.Join(strings.Fields(string(load))[:1], ""))
	ns := switches()
	more := fmt.Sprintf("| a value delivered to code that waits (`bypass/coro`), ns a switch | ≤ 150 | %.0f | | %s |\n", ns, yes(ns <= 150))
	if us, udp := cacheLine(200000), slices.Sorted(slices.Values(r.Rows[0].P50)); us > 0 && len(udp) > 0 {
		more = fmt.Sprintf("| a cache line to the other CPU and one back (%.2f µs), beside Go's UDP | | %.3g | | |\n", us, us/udp[len(udp)/2]) + more
	}
	fmt.Printf("## What was wanted\n\n")
	return writeGoals(r, bypassGoals, more)
}

// writeGoals prints what was wanted of a report, more as further lines of that table, and all that was measured.
func writeGoals(r *compare.Report, goals []goal, more string) error {
	fmt.Printf("| ratio | wanted | median | rounds from – to | holds |\n|---|---|---|---|---|\n")
	for _, g := range goals {
		q := r.Ratio(g.of, g.to, g.metric)
		if q.Rounds == 0 {
			fmt.Printf("| %s | | not measured | | |\n", g.what)
			continue
		}
		if g.wanted == 0 {
			fmt.Printf("| %s | | %.3g | %.3g – %.3g | |\n", g.what, q.Median, q.Min, q.Max)
			continue
		}
		sign, holds := "≥", q.Median >= g.wanted
		if g.less {
			sign, holds = "≤", q.Median <= g.wanted
		}
		fmt.Printf("| %s | %s %.3g | %.3g | %.3g – %.3g | %s |\n", g.what, sign, g.wanted, q.Median, q.Min, q.Max, yes(holds))
	}
	fmt.Printf("%s\nAll that was measured:\n\n```\n", more)
	var b strings.Builder
	if err := r.WriteText(&b); err != nil {
		return err
	}
	fmt.Print(strings.TrimRight(b.String(), "\n"), "\n```\n\n")
	return nil
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// switches measures coro: nanoseconds for each of the two switches of a delivery, the least of several tries.
func switches() float64 {
	var t coro.Task
	p := coro.NewPort[int](&t, 1)
	t.Start(func() {
		for {
			if _, err := p.Receive(); err != nil {
				return
			}
		}
	})
	defer t.Stop()
	const n = 200000
	least := 0.
	for range 10 {
		begin := time.Now()
		for range n {
			if p.Deliver(1) != nil {
				return 0
			}
		}
		if ns := float64(time.Since(begin).Nanoseconds()) / (2 * n); least == 0 || ns < least {
			least = ns
		}
	}
	return least
}
