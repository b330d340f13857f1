package nic_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/answers/nic"
	"github.com/fathom-trace/fathom/internal/ktest"
	netlive "github.com/fathom-trace/fathom/netstate/live"
)

// TestWithoutProbes: where functions cannot be probed, tracepoints tell what they can of each question, and what is missing is said.
func TestWithoutProbes(t *testing.T) {
	ktest.Need(t, ktest.BTF, ktest.RawTracepoint, ktest.Ringbuf, ktest.NetNS, ktest.Iter)
	if ktest.Detect(ktest.Kprobe) == nil || ktest.Detect(ktest.Fentry) == nil {
		t.Skip("functions can be probed here")
	}
	ns := ktest.Loopback(t, "lo")
	w, _, cpus := world(t)
	r, err := netlive.OpenNS(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	const n = 200
	send := func() {
		t.Helper()
		from, to := listen(t, ns, "127.0.0.1:0"), listen(t, ns, "127.0.0.1:0")
		b := make([]byte, 100)
		for range n {
			if _, err := from.WriteTo(b, to.LocalAddr()); err != nil {
				t.Fatal(err)
			}
			if _, err := to.Read(b); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Run("latency", func(t *testing.T) {
		l, err := nic.OpenLatency(w, nic.LatencyOptions{Index: 1, NetNS: uint32(r.NS().Inode), Slow: time.Second, CPUs: cpus})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		send()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := l.Run(ctx); err != nil {
			t.Fatal(err)
		}
		res, err := l.Result()
		if err != nil {
			t.Fatal(err)
		}
		for i, s := range res.Stages[1:] {
			if s.Hist.Count != n && !(i == 3 && !res.Ready) {
				t.Errorf("%s: %d packets, %d were sent", s.Name, s.Hist.Count, n)
			}
		}
		if res.Whole.Count != n || res.Off() > 0.05 {
			t.Errorf("whole: %d packets, stages are %.3f apart", res.Whole.Count, res.Off())
		}
	})
	t.Run("work", func(t *testing.T) {
		k, err := nic.OpenWork(w, cpus, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
		send()
		res, err := k.Result(0, func(addr uint64) string { return fmt.Sprintf("%#x", addr) })
		if err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		if err := res.WriteText(&text, 5); err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(res.Softirqs, func(s nic.SoftirqLoad) bool { return s.Name == "NET_RX" })
		if i < 0 || res.Softirqs[i].Run.Count == 0 {
			t.Errorf("NET_RX is not seen:\n%s", &text)
		}
		for _, fn := range nic.ListTasklet {
			if !strings.Contains(text.String(), "function "+fn) {
				t.Errorf("it is not said that %s cannot be probed:\n%s", fn, &text)
			}
		}
	})
	t.Run("sockets", func(t *testing.T) {
		o := nic.SocketOptions{CPUs: cpus, Name: func(addr uint64) nic.Place { return nic.Place{Name: fmt.Sprintf("%#x", addr)} }}
		s, err := nic.OpenSockets(w, o)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if m := s.Missing(); !strings.Contains(fmt.Sprint(m), "security_socket_post_create") {
			t.Errorf("it is not said that who makes sockets is not seen: %v", m)
		}
		var found []nic.KernelSocket
		err = ns.Do(func() (err error) {
			found, _, err = nic.ListSockets(t.Context(), w, o)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		route := slices.IndexFunc(found, func(s nic.KernelSocket) bool { return s.Proto == "netlink route" && s.Kern && !s.HoldsNS })
		if route < 0 || found[route].NetNS != r.NS().Inode {
			t.Errorf("rtnetlink's socket of the namespace is not there: %+v", found)
		}
	})
}

// TestReadingCosts: who looks on needs less than a hundredth of a CPU for it. What counts is the time that this process ran, not how
// late it was; of some windows the best, for the runtime has other things to do after a start.
func TestReadingCosts(t *testing.T) {
	ktest.Need(t, ktest.BTF, ktest.RawTracepoint, ktest.Ringbuf)
	if ktest.InGuest() {
		t.Skip("an emulated CPU is a tenth of one, or less")
	}
	w, _, cpus := world(t)
	l, err := nic.OpenLatency(w, nic.LatencyOptions{Slow: time.Second, CPUs: cpus})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, err := nic.OpenSockets(w, nic.SocketOptions{CPUs: cpus, Name: func(uint64) nic.Place { return nic.Place{} }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	go func() { done <- l.Run(ctx) }()
	go func() {
		_, err := s.Run(ctx, func(nic.SocketEvent) error { return nil })
		done <- err
	}()
	const window, windows = time.Second, 20
	best := 1.0
	for range windows {
		cpu, began := used(t), time.Now()
		time.Sleep(window)
		if best = min(best, float64(used(t)-cpu)/float64(time.Since(began))); best < 0.01 {
			break
		}
	}
	cancel()
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Logf("%.2f %% of a CPU", 100*best)
	if best >= 0.01 {
		t.Errorf("%.1f %% of a CPU, in the best of %d windows", 100*best, windows)
	}
}

// used is the CPU time that this process has used.
func used(t *testing.T) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
