package verbs_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/fathom-trace/fathom/bypass/verbs"
	"github.com/fathom-trace/fathom/internal/ktest"
)

// hold opens two ends, has work under way between them, says so, and does nothing more.
func hold(dev string) error {
	a, err := open(dev)
	if err != nil {
		return err
	}
	b, err := open(dev)
	if err != nil {
		return err
	}
	if err := errors.Join(a.qp.Connect(b.qp.Endpoint(), verbs.Path{}), b.qp.Connect(a.qp.Endpoint(), verbs.Path{})); err != nil {
		return err
	}
	for i := range depth { // b has posted no receive: all of it waits
		if _, err := a.qp.PostSend(verbs.Send{Segments: []verbs.Segment{a.mem.Segment(i, 1)}}); err != nil {
			return err
		}
	}
	fmt.Println("holding")
	for {
		time.Sleep(time.Hour)
	}
}

// TestKill: of a process that is killed while work is under way nothing is left.
func TestKill(t *testing.T) {
	dev := device(t)
	before := find(t, dev).Used
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), victim+"="+dev)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		held := fmt.Sprint(find(t, dev).Used)
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
		if err != nil || line != "holding\n" || held == fmt.Sprint(before) {
			t.Fatalf("the victim says %q, %v; in use %s, before %v", line, err, held, before)
		}
		used(t, dev, before)
	}
}

// TestWriteRead: bytes go to and come from memory whose owner is told nothing.
func TestWriteRead(t *testing.T) {
	dev := device(t)
	a, b := connected(t, dev, dev, verbs.Path{})
	for i := range 200 {
		m := message('w', i)
		at, mine := a.data(i % depth)
		slot := i % depth * mostLen
		copy(mine, m)
		if _, err := a.qp.PostSend(verbs.Send{ID: 1, Op: verbs.OpWrite, Segments: []verbs.Segment{a.mem.Segment(at, len(m))}, Remote: b.mem.Remote(slot)}); err != nil {
			t.Fatal(err)
		}
		if c := a.next(t); c.Err() != nil || c.Op != verbs.OpWrite || string(b.mem.Bytes()[slot:slot+len(m)]) != string(m) {
			t.Fatalf("write %d of %d bytes: %v %v", i, len(m), c.Op, c.Err())
		}
		if _, err := a.qp.PostSend(verbs.Send{ID: 2, Op: verbs.OpRead, Segments: []verbs.Segment{a.mem.Segment(slot, len(m))}, Remote: b.mem.Remote(slot)}); err != nil {
			t.Fatal(err)
		}
		if c := a.next(t); c.Err() != nil || c.Op != verbs.OpRead || string(a.mem.Bytes()[slot:slot+len(m)]) != string(m) {
			t.Fatalf("read %d of %d bytes: %v %v", i, len(m), c.Op, c.Err())
		}
	}
	var none [1]verbs.Completion
	if n := b.cq.Poll(none[:]); n != 0 {
		t.Errorf("the peer was told: %+v", none)
	}
}

// TestWrong: work that cannot be done completes with a status that says why, at the end that did it and at the other, and the pair fails.
func TestWrong(t *testing.T) {
	dev := device(t)
	// Linux 6.1 has a status of its own for a range; later ones have that of a key.
	beyond := verbs.LocalOperation
	if ktest.Where() == "debian-6.1" {
		beyond = verbs.LocalProtection
	}
	receive := func(t *testing.T, e *end, s verbs.Segment) {
		t.Helper()
		if _, err := e.qp.PostReceive(verbs.Receive{ID: 7, Segments: []verbs.Segment{s}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name string
		path verbs.Path
		prep func(t *testing.T, a, b *end) verbs.Send
		a, b verbs.Status // of the sender's first completion, of the receiver's; Success: none
		says string
	}{
		{"bad key", verbs.Path{}, func(t *testing.T, a, b *end) verbs.Send {
			receive(t, b, b.room(0))
			s := a.mem.Segment(0, 100)
			s.Key ^= 0x100
			return verbs.Send{Segments: []verbs.Segment{s}}
		}, verbs.LocalOperation, verbs.Success, "key, range or rights are wrong"},
		{"beyond the memory", verbs.Path{}, func(t *testing.T, a, b *end) verbs.Send {
			receive(t, b, b.room(0))
			s := a.mem.Segment(2*depth*mostLen-10, 10)
			s.Length = 11
			return verbs.Send{Segments: []verbs.Segment{s}}
		}, beyond, verbs.Success, "range or rights"},
		{"too long", verbs.Path{}, func(t *testing.T, a, b *end) verbs.Send {
			receive(t, b, b.mem.Segment(0, 99))
			return verbs.Send{Segments: []verbs.Segment{a.mem.Segment(0, 100)}}
		}, verbs.RemoteOperation, verbs.LocalOperation, "remote operation error"},
		{"bad remote key", verbs.Path{}, func(t *testing.T, a, b *end) verbs.Send {
			r := b.mem.Remote(0)
			r.Key ^= 0x100
			return verbs.Send{Op: verbs.OpWrite, Remote: r, Segments: []verbs.Segment{a.mem.Segment(0, 100)}}
		}, verbs.RemoteAccess, verbs.Success, "remote access error"},
		{"remote range", verbs.Path{}, func(t *testing.T, a, b *end) verbs.Send {
			return verbs.Send{Op: verbs.OpRead, Remote: b.mem.Remote(2*depth*mostLen - 99), Segments: []verbs.Segment{a.mem.Segment(0, 100)}}
		}, verbs.RemoteAccess, verbs.Success, "remote access error"},
		{"no receive", verbs.Path{NoWait: true}, func(t *testing.T, a, b *end) verbs.Send {
			return verbs.Send{Segments: []verbs.Segment{a.mem.Segment(0, 100)}}
		}, verbs.ReceiverNotReady, verbs.Success, "receiver not ready"},
		{"nobody", verbs.Path{Timeout: 10, Retries: 1}, func(t *testing.T, a, b *end) verbs.Send {
			if err := b.qp.Close(); err != nil {
				t.Fatal(err)
			}
			return verbs.Send{Segments: []verbs.Segment{a.mem.Segment(0, 100)}}
		}, verbs.RetriesExceeded, verbs.Success, "retries exceeded"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := connected(t, dev, dev, tt.path)
			receive(t, a, a.room(1)) // which is flushed when the pair fails
			w := tt.prep(t, a, b)
			w.ID = 42
			if _, err := a.qp.PostSend(w); err != nil {
				t.Fatal(err)
			}
			c := a.next(t)
			if c.Op == verbs.OpReceive { // either may come first
				if c.Status != verbs.Flushed {
					t.Errorf("receive: %v", c.Err())
				}
				c = a.next(t)
			}
			var wrong *verbs.WorkError
			if c.Status != tt.a || c.ID != 42 || c.Op != w.Op || !errors.As(c.Err(), &wrong) || !strings.Contains(c.Err().Error(), tt.says) {
				t.Errorf("work %d: %v", c.ID, c.Err())
			}
			if _, err := a.qp.PostSend(w); err != verbs.ErrFailed {
				t.Errorf("work for a failed pair: %v", err)
			}
			if tt.b != verbs.Success {
				if c := b.next(t); c.Status != tt.b || c.ID != 7 {
					t.Errorf("receive %d: %v", c.ID, c.Err())
				}
			}
		})
	}
}

// TestFail: work under way completes as flushed when the pair is told to fail.
func TestFail(t *testing.T) {
	dev := device(t)
	a, b := connected(t, dev, dev, verbs.Path{})
	for i := range depth {
		if _, err := b.qp.PostReceive(verbs.Receive{ID: uint64(i), Segments: []verbs.Segment{b.room(i)}}); err != nil {
			t.Fatal(err)
		}
		if _, err := a.qp.PostSend(verbs.Send{ID: uint64(i), Op: verbs.OpSend}); err != nil { // no bytes at all
			t.Fatal(err)
		}
	}
	for i := range uint64(depth) {
		if c := b.next(t); c.Err() != nil || c.ID != i || c.Bytes != 0 {
			t.Fatalf("receive %d: %v, %d bytes", c.ID, c.Err(), c.Bytes)
		}
		if c := a.next(t); c.Err() != nil || c.ID != i {
			t.Fatalf("send %d: %v", c.ID, c.Err())
		}
	}
	for i := range depth {
		if _, err := b.qp.PostReceive(verbs.Receive{ID: uint64(i), Segments: []verbs.Segment{b.room(i)}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.qp.PostReceive(verbs.Receive{}); err != verbs.ErrFull {
		t.Errorf("receive %d: %v", depth, err)
	}
	if err := b.qp.Fail(); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(depth) {
		if c := b.next(t); c.Status != verbs.Flushed || c.ID != i || c.Op != verbs.OpReceive {
			t.Fatalf("receive %d: %v", c.ID, c.Err())
		}
	}
}

// TestWaitEnds: waiting ends with its context, and goes on with the next one.
func TestWaitEnds(t *testing.T) {
	dev := device(t)
	a, b := connected(t, dev, dev, verbs.Path{})
	for i := range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		waits := make(chan error, 1)
		go func() { waits <- b.cq.Wait(ctx) }()
		cancel()
		if err := <-waits; err != context.Canceled {
			t.Fatalf("waited until %v", err)
		}
		if _, err := b.qp.PostReceive(verbs.Receive{ID: uint64(i), Segments: []verbs.Segment{b.room(0)}}); err != nil {
			t.Fatal(err)
		}
		at, mine := a.data(0)
		binary.NativeEndian.PutUint32(mine, uint32(i))
		if _, err := a.qp.PostSend(verbs.Send{Segments: []verbs.Segment{a.mem.Segment(at, 4)}}); err != nil {
			t.Fatal(err)
		}
		if c := b.next(t); c.Err() != nil || c.ID != uint64(i) || binary.NativeEndian.Uint32(b.mem.Bytes()) != uint32(i) {
			t.Fatalf("receive %d: %v", c.ID, c.Err())
		}
		if c := a.next(t); c.Err() != nil {
			t.Fatal(c.Err())
		}
	}
}

// TestOpen: what cannot be opened, made or closed says why.
func TestOpen(t *testing.T) {
	dev := device(t)
	if _, err := verbs.Open("nosuch"); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "there are rd0") {
		t.Error(err)
	}
	e := must(t, "under0") // by the network device
	if got := e.x.Device().Name; got != dev {
		t.Errorf("under0 is below %s", got)
	}
	if _, err := e.d.NewQueuePair(verbs.QueuePairOptions{Send: e.cq, Receive: e.cq}); err == nil || !strings.Contains(err.Error(), "has no room") {
		t.Errorf("a queue pair with more work than completions: %v", err)
	}
	var not *verbs.Error
	if err := e.d.Close(); !errors.As(err, &not) || !strings.Contains(err.Error(), "memory or queue pairs are in it") {
		t.Errorf("a domain with memory was closed: %v", err)
	}
	if err := e.cq.Close(); err == nil || !strings.Contains(err.Error(), "use it") {
		t.Errorf("a completion queue with a queue pair was closed: %v", err)
	}
	if err := e.qp.Connect(verbs.Endpoint{}, verbs.Path{}); err == nil {
		t.Error("connected with nobody")
	}
	if err := e.qp.Close(); err != nil {
		t.Error(err)
	}
	if err := e.qp.Close(); err != verbs.ErrClosed {
		t.Errorf("closed twice: %v", err)
	}
	if _, err := e.qp.PostSend(verbs.Send{}); err != verbs.ErrClosed {
		t.Errorf("sent through a closed pair: %v", err)
	}
	if _, err := e.x.NewCompletionQueue(1 << 30); err == nil {
		t.Error("a completion queue of 2^30 entries")
	}
}
