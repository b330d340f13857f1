package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/bypass/compare"
	"github.com/fathom-trace/fathom/lab/topology"
)

// watched is something that watches packets while others are sent.
type watched struct {
	name  string
	start func() (stop func(), err error)
}

// rates measures what another flow reaches while one is followed: datagrams a second that one thread sends and receives, and
// bytes a second of a TCP stream. Each is measured without, with, and without: what it costs is a ratio within a round. What programs that do
// nothing cost at the same tracepoints is the least that there could be.
func rates(pair *topology.Pair, tools []follower) error {
	const rounds = 9
	loads := []struct {
		what, unit string
		run        func(*topology.Pair) (float64, error)
	}{
		{"Datagrams of 1,000 bytes of another flow, sent and received by turns by one thread as fast as it can", "datagrams a second", rate},
		{"A TCP stream of another flow, as fast as it goes", "MB/s", stream},
	}
	var errs []error
	all := func() (n [2]float64) {
		for i, l := range loads {
			var err error
			if n[i], err = l.run(pair); err != nil {
				errs = append(errs, err)
			}
		}
		return n
	}
	names, err := tools[0].tracepoints()
	if err != nil {
		return err
	}
	rows := []watched{{fmt.Sprintf("programs that do nothing at the %d tracepoints of --plain", len(names)), func() (func(), error) { return attachIdle(names) }}}
	for _, f := range tools {
		rows = append(rows, watched{f.name, func() (func(), error) {
			s, err := f.start(quietPort)
			if err != nil {
				return nil, err
			}
			return func() { s.stop() }, nil
		}})
	}
	var bare [2][]float64
	with, ratio := make([][2][]float64, len(rows)), make([][2][]float64, len(rows))
	for r := range rounds {
		for i := range rows {
			k := (i + r) % len(rows)
			before := all()
			stop, err := rows[k].start()
			if err != nil {
				errs = append(errs, err)
				continue
			}
			n := all()
			stop()
			after := all()
			for j := range loads {
				b := (before[j] + after[j]) / 2
				bare[j] = append(bare[j], b)
				with[k][j], ratio[k][j] = append(with[k][j], n[j]), append(ratio[k][j], n[j]/b)
			}
		}
	}
	for j, l := range loads {
		if len(bare[j]) == 0 {
			continue
		}
		fmt.Printf("%s, in %d rounds, before, while and after; medians:\n\n| with | %s | of bare (least – most) |\n| --- | --- | --- |\n| nothing | %.0f | 1 |\n", l.what, rounds, l.unit, middle(bare[j]))
		for i, row := range rows {
			if q := ratio[i][j]; len(q) > 0 {
				fmt.Printf("| %s | %.0f | %.3f (%.3f – %.3f) |\n", row.name, middle(with[i][j]), middle(q), slices.Min(q), slices.Max(q))
			}
		}
		fmt.Println()
	}
	return errors.Join(errs...)
}

// tracepoints are those that a follower attaches to, as the kernel says of its links.
func (f follower) tracepoints() (names []string, err error) {
	s, err := f.start(quietPort)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	infos, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", s.cmd.Process.Pid))
	if err != nil {
		return nil, err
	}
	for _, i := range infos {
		b, err := os.ReadFile(i)
		if err != nil {
			continue // closed meanwhile
		}
		for l := range strings.Lines(string(b)) {
			if name, ok := strings.CutPrefix(l, "tp_name:"); ok {
				names = append(names, strings.TrimSpace(name))
			}
		}
	}
	if len(names) == 0 {
		return nil, errors.New("the kernel does not say where " + f.name + " is attached")
	}
	return names, nil
}

// attachIdle attaches a program that does nothing to raw tracepoints.
func attachIdle(names []string) (stop func(), err error) {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.RawTracepoint, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}})
	if err != nil {
		return nil, err
	}
	defer prog.Close() // the links hold it
	var links []link.Link
	stop = func() {
		for _, l := range links {
			l.Close()
		}
	}
	for _, n := range names {
		l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: n, Program: prog})
		if err != nil {
			stop()
			return nil, err
		}
		links = append(links, l)
	}
	return stop, nil
}

// stream is the rate of a TCP connection in MB/s, over half a second.
func stream(pair *topology.Pair) (mbs float64, err error) {
	var ln, a int
	err = pair.B.NS.Do(func() (err error) {
		if ln, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err = unix.Bind(ln, &unix.SockaddrInet4{}); err != nil {
			return err
		}
		return unix.Listen(ln, 1)
	})
	if err != nil {
		return 0, err
	}
	defer unix.Close(ln)
	at, err := unix.Getsockname(ln)
	if err != nil {
		return 0, err
	}
	to := far(echoPort)
	to.Port = at.(*unix.SockaddrInet4).Port
	err = pair.A.NS.Do(func() (err error) {
		if a, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.Connect(a, to)
	})
	if err != nil {
		return 0, err
	}
	b, _, err := unix.Accept4(ln, unix.SOCK_CLOEXEC)
	if err != nil {
		unix.Close(a)
		return 0, err
	}
	defer unix.Close(b)
	go func() {
		defer unix.Close(a)
		for buf := make([]byte, 64<<10); ; {
			if _, err := unix.SendmsgN(a, buf, nil, nil, unix.MSG_NOSIGNAL); err != nil {
				return
			}
		}
	}()
	total, start, buf := 0, time.Now(), make([]byte, 256<<10)
	for time.Since(start) < 500*time.Millisecond {
		n, err := unix.Read(b, buf)
		if err != nil || n == 0 {
			return 0, err
		}
		total += n
	}
	return float64(total) / 1e6 / time.Since(start).Seconds(), nil
}

// rate is that of datagrams of 1,000 bytes, sent and received by turns for half a second on one CPU.
func rate(pair *topology.Pair) (n float64, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with this
		var one unix.CPUSet
		first, _ := compare.CPUs()
		one.Set(first)
		if err = unix.SchedSetaffinity(0, &one); err == nil {
			n, err = datagramRate(pair)
		}
	}()
	<-done
	return n, err
}

func datagramRate(pair *topology.Pair) (float64, error) {
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
