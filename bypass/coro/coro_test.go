package coro

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/internal/ktest"
)

func TestMain(m *testing.M) { ktest.Main(m, ktest.Config{}) }

// TestOrder: what comes while the body waits elsewhere is kept, in order.
func TestOrder(t *testing.T) {
	var task Task
	a, b := NewPort[int](&task, 2), NewPort[string](&task, 4)
	var log []string
	task.Start(func() {
		log = append(log, "start")
		for range 2 {
			n, err := a.Receive()
			log = append(log, fmt.Sprint(n, err))
			for range n {
				s, err := b.Receive()
				log = append(log, fmt.Sprintf("%s %v", s, err))
			}
		}
	})
	log = append(log, "loop")
	for _, s := range []string{"x", "y"} {
		if err := b.Deliver(s); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Deliver(3); err != nil { // takes x and y, and waits for a third
		t.Fatal(err)
	}
	for i := range 3 {
		if err := a.Deliver(i); (i == 2) != errors.Is(err, ErrFull) {
			t.Errorf("%d: %v", i, err)
		}
	}
	log = append(log, "loop")
	if err := b.Deliver("z"); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff("start, loop, 3 <nil>, x <nil>, y <nil>, loop, z <nil>, 0 <nil>", strings.Join(log, ", ")); d != "" || !task.Ended() || a.Len() != 1 {
		t.Error(d, task.Ended(), a.Len())
	}
	if err := b.Deliver("late"); !errors.Is(err, ErrEnded) {
		t.Error(err)
	}
	task.Stop()
}

func TestStop(t *testing.T) {
	var task Task
	p := NewPort[int](&task, 1)
	var errs []error
	task.Start(func() {
		for range 2 {
			_, err := p.Receive()
			errs = append(errs, err)
		}
	})
	task.Stop()
	if len(errs) != 2 || errs[0] != ErrStopped || errs[1] != ErrStopped || !task.Ended() {
		t.Error(errs)
	}
	var never Task
	never.Stop()
}

func TestPanic(t *testing.T) {
	var task Task
	p := NewPort[int](&task, 1)
	task.Start(func() { v, _ := p.Receive(); panic(v) })
	defer func() {
		if r := recover(); r != 7 || !task.Ended() {
			t.Errorf("recovered %v", r)
		}
	}()
	_ = p.Deliver(7) // panics
}

// BenchmarkSwitch is a value delivered: into the body and back are two switches.
func BenchmarkSwitch(b *testing.B) {
	var task Task
	p := NewPort[int](&task, 1)
	sum := 0
	task.Start(func() {
		for {
			v, err := p.Receive()
			if err != nil {
				return
			}
			sum += v
		}
	})
	b.ReportAllocs()
	for b.Loop() {
		if err := p.Deliver(1); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(2*b.N), "ns/switch")
	task.Stop()
}

// TestAllocates: a value on its way allocates nothing.
func TestAllocates(t *testing.T) {
	var task Task
	p := NewPort[int](&task, 1)
	task.Start(func() {
		for {
			if _, err := p.Receive(); err != nil {
				return
			}
		}
	})
	defer task.Stop()
	if n := testing.AllocsPerRun(1000, func() { _ = p.Deliver(1) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
