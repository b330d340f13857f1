package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/answers/packet"
	"github.com/fathom-trace/fathom/lab/topology"
	"github.com/fathom-trace/fathom/probe/try"
)

// follower is a program that follows packets: how it is started, what it prints when it is ready, and when all that it
// watches is watched; "" is at the same time.
type follower struct {
	name  string
	argv  []string // the filter goes behind
	ready string
	all   string
}

// Ports of the packets in packets: those that are followed, if the filter matches, and those that nobody sends.
const (
	echoPort  = "7777"
	quietPort = "9"
)

// pings is how many round trips one round of packets takes, rttRounds how many rounds, taken in turns.
const (
	pings     = 400
	rttRounds = 3
)

// packetPage prints docs/benchmarks-packet.md: packets in a guest, then on the machine at hand. peers is the path of pwru, or
// nothing.
func packetPage(peers []string) error {
	fmt.Printf("# Following packets\n\nMade by `make bench-packet`. A UDP datagram of 56 bytes goes over a veth pair and its echo comes back, %d times in each of %d "+
		"rounds, all tools in turns; what is followed is `udp port %s`, which the datagrams match, or `udp port %s`, which nobody uses. "+
		"The machine is shared: only ratios count, and minima more than means.\n\n", pings, rttRounds, echoPort, quietPort)
	dir, err := os.MkdirTemp(".", ".bench-") // the guest sees the working folder
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args := []string{"lab", "boot", "--load", "veth", "--for", "30m", "--", filepath.Join(dir, "bench"), "packets", filepath.Join(dir, "fathom")}
	files := map[string]string{self: "bench", "fathom": "fathom"}
	for _, p := range peers[:min(1, len(peers))] {
		files[p] = "pwru"
		args = append(args, filepath.Join(dir, "pwru"))
	}
	for from, to := range files {
		if err := copyFile(from, filepath.Join(dir, to)); err != nil {
			return err
		}
	}
	guest := exec.Command("./fathom", args...)
	guest.Env = append(os.Environ(), "FATHOM_ACCEL=tcg")
	guest.Stdout, guest.Stderr = os.Stdout, os.Stderr
	fmt.Printf("## In a guest, emulated\n\n")
	if err := guest.Run(); err != nil {
		return fmt.Errorf("run in a guest: %w", err)
	}
	fmt.Printf("## On the machine at hand\n\n")
	return packets("fathom", peers)
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755)
}

// packets measures fathom packet beside pwru, if its path is given, on the kernel that this runs on. It needs root. The
// programs are copied to memory first: where their files are is not what is compared.
func packets(fathom string, peers []string) error {
	dir, err := os.MkdirTemp("/dev/shm", "bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	bin := filepath.Join(dir, "fathom")
	if err := copyFile(fathom, bin); err != nil {
		return err
	}
	tools := []follower{{name: "fathom packet --plain", argv: []string{bin, "packet", "--plain"}, ready: "following packets"}}
	full := follower{name: "fathom packet", argv: []string{bin, "packet", "-v"}, ready: "following packets", all: " by tracepoints and "}
	if !kprobes() {
		full.all = ""
	}
	tools = append(tools, full)
	for _, p := range peers[:min(1, len(peers))] {
		if !kprobes() {
			continue // it has nothing to follow packets with
		}
		to := filepath.Join(dir, "pwru")
		if err := copyFile(p, to); err != nil {
			return err
		}
		tools = append(tools, follower{name: "pwru", argv: []string{to, "--backend", "kprobe-multi"}, ready: "Listening for events"})
	}
	pair, err := topology.NewPair("va", "vb")
	if err != nil {
		return err
	}
	defer pair.Close()
	fmt.Printf("On %s, %d CPUs.\n\n", kernel(), cpus())
	starting(tools)
	attaching(full)
	trips(pair, tools)
	return rates(pair, tools[:2])
}

// kprobes says if this kernel lets functions be watched by kprobe.multi.
func kprobes() bool { return try.Detect(try.KprobeMulti) == nil }

// attaching measures the bare call that attaches a program, which does nothing, to the functions that fathom packet watches,
// and beside it fathom's own call.
func attaching(full follower) {
	if !kprobes() {
		return
	}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.Kprobe, AttachType: ebpf.AttachTraceKprobeMulti, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer prog.Close()
	var names []string
	if b, err := os.ReadFile("/sys/kernel/tracing/available_filter_functions"); err == nil {
		for l := range strings.Lines(string(b)) {
			if f := strings.Fields(l); len(f) == 1 && slices.Contains(packet.Landmarks(), f[0]) {
				names = append(names, f[0])
			}
		}
	}
	bare, ours := time.Hour, time.Hour
	for range 5 {
		begin := time.Now()
		lk, err := link.KprobeMulti(prog, link.KprobeMultiOptions{Symbols: names})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return
		}
		bare = min(bare, time.Since(begin))
		lk.Close()
		s, err := full.start(quietPort)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return
		}
		s.stop()
		ours = min(ours, s.attached)
	}
	fmt.Printf("The bare call that attaches a program to %d functions takes %.3f s; fathom attaches its own to them in %.3f s, %.2f of that "+
		"(the least of 5 each, taken in turns). That happens after packets are seen.\n\n", len(names), bare.Seconds(), ours.Seconds(), ours.Seconds()/bare.Seconds())
}

// started is a follower that is ready.
type started struct {
	cmd   *exec.Cmd
	took  time.Duration // until ready
	whole time.Duration // until all that it watches is watched
	lines chan struct{} // closed when its output ended

	attached time.Duration // what it says of its own call; a long time if nothing
}

// start starts a follower and waits until it is ready.
func (f follower) start(port string) (*started, error) {
	cmd := exec.Command(f.argv[0], append(slices.Clone(f.argv[1:]), "udp port "+port)...)
	r, w := io.Pipe()
	cmd.Stderr, cmd.Stdout = w, io.Discard
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &started{cmd: cmd, lines: make(chan struct{}), attached: time.Hour}
	ready := make(chan bool, 1)
	go func() {
		defer close(s.lines)
		sc := bufio.NewScanner(r)
		for sc.Scan() {
			if s.took == 0 && strings.Contains(sc.Text(), f.ready) {
				s.took = time.Since(begin)
			}
			if _, v, ok := strings.Cut(sc.Text(), "attached in "); ok {
				if d, err := time.ParseDuration(strings.Join(strings.Fields(v)[:2], "")); err == nil {
					s.attached = d
				}
			}
			if s.took != 0 && s.whole == 0 && strings.Contains(sc.Text(), f.all) {
				s.whole = time.Since(begin)
				ready <- true
			}
		}
		io.Copy(io.Discard, r)
	}()
	exited := make(chan struct{})
	go func() { cmd.Wait(); w.Close(); close(exited) }()
	select {
	case <-ready:
	case <-exited:
		return nil, fmt.Errorf("%s ended: %v", f.name, cmd.ProcessState)
	case <-time.After(5 * time.Minute):
		cmd.Process.Kill()
		return nil, errors.New(f.name + " is not ready")
	}
	return s, nil
}

// stop ends a follower and gives its peak RSS in bytes, and how long ending took.
func (s *started) stop() (rss int64, took time.Duration) {
	begin := time.Now()
	s.cmd.Process.Signal(os.Interrupt)
	<-s.lines
	for s.cmd.ProcessState == nil {
		time.Sleep(time.Millisecond)
	}
	if ru, ok := s.cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		rss = ru.Maxrss << 10
	}
	return rss, time.Since(begin)
}

// starting measures start to readiness and memory.
func starting(tools []follower) {
	fmt.Printf("Seconds: median (least) of %d starts, taken in turns.\n\n| tool | start to ready | to all being watched | to its end | peak RSS MB |\n| --- | --- | --- | --- | --- |\n", startRounds)
	ready, whole, end, most := make([][]float64, len(tools)), make([][]float64, len(tools)), make([][]float64, len(tools)), make([]int64, len(tools))
	for range startRounds {
		for i, f := range tools {
			s, err := f.start(quietPort)
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				continue
			}
			rss, took := s.stop()
			ready[i], whole[i], end[i] = append(ready[i], s.took.Seconds()), append(whole[i], s.whole.Seconds()), append(end[i], took.Seconds())
			most[i] = max(most[i], rss)
		}
	}
	for i, f := range tools {
		if len(ready[i]) > 0 {
			fmt.Printf("| %s | %.2f (%.2f) | %.2f (%.2f) | %.2f | %.1f |\n", f.name, middle(ready[i]), slices.Min(ready[i]), middle(whole[i]), slices.Min(whole[i]), middle(end[i]), float64(most[i])/1e6)
		}
	}
	fmt.Println()
}

// startRounds is how often each tool is started to see how long that takes.
const startRounds = 3

func middle(v []float64) float64 { v = slices.Sorted(slices.Values(v)); return v[len(v)/2] }

// trips measures round trips, bare and while packets are followed.
func trips(pair *topology.Pair, tools []follower) {
	type row struct {
		name       string
		least, sum float64
		f          *follower
		port       string
	}
	rows := []row{{name: "nothing"}}
	for i := range tools {
		rows = append(rows, row{name: tools[i].name + ", not matching", f: &tools[i], port: quietPort}, row{name: tools[i].name + ", matching", f: &tools[i], port: echoPort})
	}
	for range rttRounds {
		for i := range rows {
			r := &rows[i]
			var s *started
			if r.f != nil {
				var err error
				if s, err = r.f.start(r.port); err != nil {
					fmt.Fprintln(os.Stderr, err)
					continue
				}
			}
			least, mean, err := roundTrips(pair)
			if s != nil {
				s.stop()
			}
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				continue
			}
			if r.least == 0 || least < r.least {
				r.least = least
			}
			r.sum += mean
		}
	}
	fmt.Printf("| round trip with | least us | of bare | mean us | of bare |\n| --- | --- | --- | --- | --- |\n")
	for _, r := range rows {
		fmt.Printf("| %s | %.1f | %.2f | %.1f | %.2f |\n", r.name, r.least, r.least/rows[0].least, r.sum/rttRounds, r.sum/rows[0].sum)
	}
	fmt.Println()
}

// udp opens a socket in a namespace.
func udp(h topology.Host, bind string) (fd int, err error) {
	err = h.NS.Do(func() error {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1})
		if bind == "" {
			return nil
		}
		n, err := strconv.Atoi(bind)
		return errors.Join(err, unix.Bind(fd, &unix.SockaddrInet4{Port: n}))
	})
	return fd, err
}

// far is the other end's address, at a port.
func far(port string) *unix.SockaddrInet4 {
	n, _ := strconv.Atoi(port)
	return &unix.SockaddrInet4{Port: n, Addr: netip.MustParseAddr("10.77.0.2").As4()}
}

// roundTrips sends datagrams to an echo, which this thread is too: nobody has to be woken up. Microseconds.
func roundTrips(pair *topology.Pair) (least, mean float64, err error) {
	a, err := udp(pair.A, "")
	if err != nil {
		return 0, 0, err
	}
	defer unix.Close(a)
	b, err := udp(pair.B, echoPort)
	if err != nil {
		return 0, 0, err
	}
	defer unix.Close(b)
	buf := make([]byte, 64)
	least = 1e9
	for range pings {
		start := time.Now()
		if err := unix.Sendto(a, buf[:56], 0, far(echoPort)); err != nil {
			return 0, 0, err
		}
		_, from, err := unix.Recvfrom(b, buf, 0)
		if err != nil {
			return 0, 0, err
		}
		if err := unix.Sendto(b, buf[:56], 0, from); err != nil {
			return 0, 0, err
		}
		if _, _, err := unix.Recvfrom(a, buf, 0); err != nil {
			return 0, 0, err
		}
		d := float64(time.Since(start).Nanoseconds()) / 1000
		least, mean = min(least, d), mean+d/pings
		time.Sleep(time.Millisecond)
	}
	return least, mean, nil
}
