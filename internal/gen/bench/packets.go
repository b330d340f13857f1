package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/lab/topology"
)

// follower is a program that follows packets: how it is started, and what it prints when it is ready.
type follower struct {
	name  string
	argv  []string // the filter goes behind
	ready string
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

// packets measures fathom packet beside pwru, if its path is given, on the kernel that this runs on. It needs root. Inside
// of a guest: fathom lab boot --load veth -- bench packets /path/of/pwru.
func packets(peers []string) {
	tools := []follower{
		{"fathom packet --plain", []string{"./fathom", "packet", "--plain"}, "following packets"},
		{"fathom packet", []string{"./fathom", "packet"}, "following packets"},
	}
	for _, p := range peers {
		tools = append(tools, follower{"pwru", []string{p, "--backend", "kprobe-multi"}, "Listening for events"})
	}
	pair, err := topology.NewPair("va", "vb")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer pair.Close()
	fmt.Printf("## Following packets\n\nOn %s, %d CPUs. A UDP datagram and its echo over a veth pair, %d of them in each of %d rounds, taken in turns; the filter is `udp port %s`, which matches, or `udp port %s`, which does not.\n\n", kernel(), cpus(), pings, rttRounds, echoPort, quietPort)
	starting(tools)
	trips(pair, tools)
	rates(pair, tools[:2])
}

// started is a follower that is ready.
type started struct {
	cmd   *exec.Cmd
	took  time.Duration
	lines chan struct{} // closed when its output ended
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
	s := &started{cmd: cmd, lines: make(chan struct{})}
	ready := make(chan bool, 1)
	go func() {
		defer close(s.lines)
		sc := bufio.NewScanner(r)
		for sc.Scan() {
			if strings.Contains(sc.Text(), f.ready) {
				select {
				case ready <- true:
				default:
				}
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
	s.took = time.Since(begin)
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
	fmt.Printf("| tool | start to ready, s | to its end, s | peak RSS MB |\n| --- | --- | --- | --- |\n")
	for _, f := range tools {
		var ready, end []float64
		var most int64
		for range 3 {
			s, err := f.start(quietPort)
			if err != nil {
				fmt.Printf("| %s | %v | | |\n", f.name, err)
				break
			}
			rss, took := s.stop()
			ready, end, most = append(ready, s.took.Seconds()), append(end, took.Seconds()), max(most, rss)
			if s.took > patience {
				break
			}
		}
		if len(ready) > 0 {
			fmt.Printf("| %s | %.2f (%.2f) | %.2f | %.1f |\n", f.name, middle(ready), slices.Min(ready), middle(end), float64(most)/1e6)
		}
	}
	fmt.Println()
}

// patience is how long a start may take that is repeated.
const patience = 5 * time.Second

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

// rates measures how many datagrams a second one thread sends and receives while another flow is followed.
func rates(pair *topology.Pair, tools []follower) {
	const rounds = 7
	best := make([]float64, len(tools)+1)
	for range rounds {
		for i := range best {
			var s *started
			if i > 0 {
				var err error
				if s, err = tools[i-1].start(quietPort); err != nil {
					continue
				}
			}
			if n, err := rate(pair); err == nil {
				best[i] = max(best[i], n)
			}
			if s != nil {
				s.stop()
			}
		}
	}
	fmt.Printf("| datagrams of another flow with | best of %d, 1/s | of bare |\n| --- | --- | --- |\n| nothing | %.0f | 1 |\n", rounds, best[0])
	for i, f := range tools {
		fmt.Printf("| %s | %.0f | %.3f |\n", f.name, best[i+1], best[i+1]/best[0])
	}
	fmt.Println()
}

// rate is that of datagrams of 1,000 bytes, sent and received by turns for half a second.
func rate(pair *topology.Pair) (float64, error) {
	a, err := udp(pair.A, "")
	if err != nil {
		return 0, err
	}
	defer unix.Close(a)
	b, err := udp(pair.B, echoPort)
	if err != nil {
		return 0, err
	}
	defer unix.Close(b)
	buf := make([]byte, 1000)
	n, start := 0, time.Now()
	for time.Since(start) < 500*time.Millisecond {
		for range 32 {
			if err := unix.Sendto(a, buf, 0, far(echoPort)); err != nil && !errors.Is(err, unix.ENOBUFS) {
				return 0, err
			}
		}
		for range 32 {
			if _, _, err := unix.Recvfrom(b, buf, 0); err != nil {
				return 0, err
			}
			n++
		}
	}
	return float64(n) / time.Since(start).Seconds(), nil
}
