package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fathom-trace/fathom/answers/nic"
	"github.com/fathom-trace/fathom/internal/term"
	"github.com/fathom-trace/fathom/kernel/live"
	netlive "github.com/fathom-trace/fathom/netstate/live"
	netnic "github.com/fathom-trace/fathom/netstate/nic"
	"github.com/fathom-trace/fathom/probe"
	"github.com/fathom-trace/fathom/usersym"
)

// world opens the running kernel for programs; the caller calls end.
func nicWorld() (w *probe.World, l *live.Live, cpus int, end func(), err error) {
	if l, err = live.Open(live.Options{}); err != nil {
		return nil, nil, 0, nil, err
	}
	users := usersym.New(usersym.Options{})
	w = probe.NewWorld(l, users, 0)
	end = func() { w.Close(); users.Close(); l.Close() }
	if cpus, err = l.NumCPU(); err != nil {
		end()
		return nil, nil, 0, nil, err
	}
	return w, l, cpus, end, nil
}

// window is a context that ends after --for, by Ctrl-C, or with ctx.
func (f *nicFlags) window(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithTimeout(ctx, f.forTime)
	interrupt, stop := interrupts()
	go func() {
		select {
		case <-interrupt:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(); stop() }
}

// say tells on a terminal what is waited for.
func (f *nicFlags) say(stderr io.Writer, what string) {
	if term.IsTerminal(stderr) {
		fmt.Fprintf(stderr, "fathom: %s for %s\n", what, f.forTime)
	}
}

// latency measures the stages of packets' ways.
func (f *nicFlags) latency(ctx context.Context, r *netlive.Reader, stdout, stderr io.Writer) (err error) {
	o := nic.LatencyOptions{Slow: f.slow}
	if f.chrome != "" {
		o.Keep = mostDrawn
	}
	if f.netns != "" || f.dev != "" {
		o.NetNS = uint32(r.NS().Inode)
	}
	if f.dev != "" {
		devs, err := f.devices(r)
		if err != nil {
			return err
		}
		o.Index = devs[0].Index
	}
	w, _, cpus, end, err := nicWorld()
	if err != nil {
		return err
	}
	defer end()
	o.CPUs = cpus
	l, err := nic.OpenLatency(w, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	f.say(stderr, "measuring")
	ctx, cancel := f.window(ctx)
	defer cancel()
	if err := l.Run(ctx); err != nil {
		return err
	}
	res, err := l.Result()
	if err != nil {
		return err
	}
	b, _ := os.ReadFile("/proc/interrupts") // without it interrupts have no names
	irqs := netnic.ParseInterrupts(string(b))
	for i := range res.Vectors {
		if row, ok := irqs.ByIRQ(res.Vectors[i].IRQ); ok {
			res.Vectors[i].Name = strings.Join(row.Names, ", ")
		}
	}
	res.Idle = idleStates("/sys/devices/system/cpu/cpu0/cpuidle")
	if f.chrome != "" {
		if err := toFile(f.chrome, res.WriteTimeline); err != nil {
			return err
		}
	}
	out := bufio.NewWriter(stdout)
	if f.json {
		err = res.WriteJSON(out)
	} else {
		err = res.WriteText(out, term.UTF8(os.Getenv))
	}
	if err = errors.Join(err, out.Flush()); err == nil && res.Stages[3].Hist.Count == 0 {
		return exitError{exitNegative}
	}
	return err
}

// idleStates names the states that CPUs can be idle in, by their number, with the time to leave them; none without a driver for them.
func idleStates(dir string) (out []string) {
	for i := 0; ; i++ {
		read := func(name string) string {
			b, _ := os.ReadFile(filepath.Join(dir, fmt.Sprintf("state%d", i), name))
			return strings.TrimSpace(string(b))
		}
		name, us := read("name"), read("latency")
		switch {
		case name == "":
			return out
		case us != "":
			name += ", leaves in " + us + " us"
		}
		out = append(out, name)
	}
}

// mostDrawn is how many packets a timeline has: more is more than a browser likes.
const mostDrawn = 20000

// defaultFor is how long what takes time takes.
const defaultFor = 5 * time.Second
