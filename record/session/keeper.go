package session

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fathom-trace/fathom/internal/lease"
	"github.com/fathom-trace/fathom/record"
	"github.com/fathom-trace/fathom/tracefs"
)

// Names are what a keeper asks of the running kernel; both may be nil. They are called by one goroutine at a time.
type Names struct {
	Symbol   func(addr uint64) (name string, off, size uint64, module string, ok bool)
	Constant func(name string) (int64, bool)
}

// keeper is the process that a session belongs to. Its state belongs to the goroutine of run.
type keeper struct {
	spec     Spec
	leases   lease.Dir
	since    time.Time
	names    Names
	state    string
	err      error // why it failed
	want     []record.Spec
	waiting  []string
	rec      *record.Recorder
	seg      string    // folder of the segment that is recorded
	began    time.Time // the segment
	number   int       // of the segment that was begun last
	watch    *record.Watch
	due      <-chan time.Time // when the snapshot of an anomaly is taken
	known    []tracefs.Event  // the kernel's events when they were looked at last
	asked    chan asking
	finisher *finisher
	release  func() error // gives up the name and the socket
}

// asking is a request on its way to the goroutine that answers.
type asking struct {
	request
	answer chan reply
	told   chan struct{} // closed when who asked has the answer, or is gone
}

// Keep is the keeper: it reads a [Spec] from in, tells on out when it answers, and stays until the session is destroyed or
// ctx ends.
func Keep(ctx context.Context, in io.Reader, out io.Writer, names Names) error {
	signal.Ignore(syscall.SIGPIPE, syscall.SIGHUP) // who started us may go
	line, err := bufio.NewReader(in).ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("keep session: %w", err)
	}
	k := &keeper{state: created, since: time.Now(), asked: make(chan asking), names: names.locked()}
	if err := json.Unmarshal(line, &k.spec); err != nil {
		return fmt.Errorf("keep session: %w", err)
	}
	say := json.NewEncoder(out)
	l, err := k.open()
	if err != nil {
		return errors.Join(err, say.Encode(reply{Error: err.Error()}))
	}
	k.finisher = newFinisher(k.spec)
	go k.listen(l)
	if err := say.Encode(reply{Status: k.status()}); err != nil {
		return errors.Join(err, k.release())
	}
	return k.run(ctx)
}

// locked has the functions called one at a time: a segment is begun while another is finished.
func (n Names) locked() Names {
	var mu sync.Mutex
	out := n
	if f := n.Symbol; f != nil {
		out.Symbol = func(a uint64) (string, uint64, uint64, string, bool) {
			mu.Lock()
			defer mu.Unlock()
			return f(a)
		}
	}
	if f := n.Constant; f != nil {
		out.Constant = func(s string) (int64, bool) {
			mu.Lock()
			defer mu.Unlock()
			return f(s)
		}
	}
	return out
}

// open claims the name, makes the folder and listens.
func (k *keeper) open() (net.Listener, error) {
	k.leases = lease.Dir{Path: k.spec.Leases}
	d := data{Dir: k.spec.Dir, Socket: socketOf(k.spec.Leases, k.spec.Name)}
	own, err := k.leases.Claim(LeaseKind, k.spec.Name, d, nil)
	if errors.Is(err, lease.ErrTaken) {
		return nil, fmt.Errorf("a session %s exists already", k.spec.Name)
	} else if err != nil {
		return nil, err
	}
	if err := record.NewSession(k.spec.Dir, k.spec.Name); err != nil {
		return nil, errors.Join(err, own.Release())
	}
	l, err := net.Listen("unix", d.Socket)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen: %w", err), own.Release())
	}
	k.release = func() error { return errors.Join(l.Close(), own.Release()) }
	return l, nil
}

// listen hands requests to the goroutine of run.
func (k *keeper) listen(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			var q request
			if err := json.NewDecoder(c).Decode(&q); err != nil {
				return
			}
			a := asking{q, make(chan reply, 1), make(chan struct{})}
			defer close(a.told)
			k.asked <- a
			_ = json.NewEncoder(c).Encode(<-a.answer) // who asked may be gone
		}()
	}
}

// tick is how often caps are looked at, and look how often it is seen if there are new events.
const (
	tick = 100 * time.Millisecond
	look = time.Second
)

// run is the keeper's life.
func (k *keeper) run(ctx context.Context) error {
	caps, news := time.NewTicker(tick), time.NewTicker(look)
	defer caps.Stop()
	defer news.Stop()
	for {
		select {
		case <-ctx.Done():
			return errors.Join(k.stop(), k.release())
		case a := <-k.asked:
			err := k.do(a.request)
			if a.Op == opDestroy {
				err = errors.Join(err, k.release())
			}
			r := reply{Status: k.status()}
			if err != nil {
				r.Error = err.Error()
			}
			a.answer <- r
			if a.Op == opDestroy {
				<-a.told
				return nil
			}
		case <-caps.C:
			k.check()
		case <-news.C:
			k.newEvents()
		case <-k.seen():
			if k.due == nil {
				k.due = time.After(k.spec.After)
			}
		case <-k.due:
			k.due = nil
			if err := k.snapshot(); err != nil {
				k.fail(err)
			}
		}
	}
}

// seen is where the anomaly is told; nil where none is watched for.
func (k *keeper) seen() <-chan struct{} {
	if k.watch == nil {
		return nil
	}
	return k.watch.C
}

func (k *keeper) do(q request) error {
	switch q.Op {
	case opStatus:
		return nil
	case opEnable:
		return k.enable(q.Events)
	case opStart:
		return k.start()
	case opStop:
		if k.rec == nil && k.state != waiting {
			return fmt.Errorf("session %s is not recording", k.spec.Name)
		}
		return k.stop()
	case opRotate:
		return k.rotate(nil)
	case opSnapshot:
		if err := k.snapshot(); err != nil {
			return err
		}
		k.finisher.wait()
		return nil
	case opDestroy:
		err := k.stop()
		k.finisher.close()
		return err
	}
	return fmt.Errorf("no operation %q", q.Op)
}

// enable adds events to those that are wanted, and to those that are recorded.
func (k *keeper) enable(specs []record.Spec) error {
	now, later, err := matching(specs)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(now, record.Spec.IsSyscall) { // all of them share two events
		now = append(slices.DeleteFunc(slices.Clone(k.want), func(s record.Spec) bool { return !s.IsSyscall() }), now...)
	}
	if k.rec != nil && len(now) > 0 {
		if err := k.more(now); err != nil {
			return err
		}
	}
	k.want = append(k.want, specs...)
	k.waiting = append(k.waiting, later...)
	if k.state == waiting && len(now) > 0 {
		return k.start()
	}
	return nil
}

// more records further events from now on.
func (k *keeper) more(specs []record.Spec) error {
	if k.spec.Flight {
		return k.rec.Add(specs)
	}
	return k.rotate(specs)
}

// matching tells the patterns that mean events now from those that may mean events of modules to come.
func matching(specs []record.Spec) (now []record.Spec, later []string, err error) {
	fs, err := tracefs.Find()
	if err != nil {
		return nil, nil, err
	}
	defer fs.Close()
	for _, s := range specs {
		err := record.CheckSpec(fs, s)
		var none *tracefs.NoEventError
		switch {
		case err == nil:
			now = append(now, s)
		case errors.As(err, &none) && open(s):
			later = append(later, s.Pattern)
		default:
			return nil, nil, err
		}
	}
	return now, later, nil
}

func (k *keeper) start() error {
	switch {
	case k.rec != nil:
		return fmt.Errorf("session %s is recording already", k.spec.Name)
	case len(k.want) == 0:
		return fmt.Errorf("session %s has no events: enable some", k.spec.Name)
	}
	now, later, err := matching(k.want)
	if err != nil {
		return err
	}
	k.waiting, k.known = later, listed()
	if len(now) == 0 {
		k.state = waiting
		return nil
	}
	dir := k.next()
	rec, err := record.Start(record.Options{Dir: dir, Events: now, BufferKB: k.spec.BufferKB, Leases: k.leases, Flight: k.spec.Flight, Stacks: k.spec.Stacks,
		Symbol: k.names.Symbol, Constant: k.names.Constant})
	if err != nil {
		return err
	}
	if k.spec.When != nil {
		if k.watch, err = record.NewWatch(*k.spec.When, k.leases); err != nil {
			_, eerr := rec.End()
			return errors.Join(err, eerr)
		}
	}
	k.rec, k.state, k.err, k.began, k.seg = rec, recording, nil, time.Now(), dir
	return nil
}

// next is the folder of the segment that begins next.
func (k *keeper) next() string {
	kind := "segment"
	if k.spec.Flight {
		kind = "snapshot"
	}
	k.number++
	return filepath.Join(k.spec.Dir, fmt.Sprintf("%s-%04d", kind, k.number))
}

// stop ends the recording and waits until all segments are finished. A session that does not record stays as it is.
func (k *keeper) stop() error {
	if k.state == waiting {
		k.state = stopped
	}
	if k.rec == nil {
		return nil
	}
	var errs []error
	if k.watch != nil {
		errs = append(errs, k.watch.Close())
		k.watch, k.due = nil, nil
	}
	s, err := k.rec.End()
	k.rec, k.seg = nil, ""
	if s != nil {
		k.finisher.add(s)
	}
	k.finisher.wait()
	if k.state == recording {
		k.state = stopped
	}
	return errors.Join(append(errs, err)...)
}

// fail ends the recording for a reason that is told to who asks next.
func (k *keeper) fail(err error) {
	k.state = failed
	k.err = errors.Join(err, k.stop())
}

func (k *keeper) rotate(more []record.Spec) error {
	if k.rec == nil {
		return fmt.Errorf("session %s is not recording", k.spec.Name)
	}
	dir := k.next()
	s, err := k.rec.Rotate(dir, more)
	if s != nil {
		k.finisher.add(s)
		k.began, k.seg = time.Now(), dir
	}
	return err
}

func (k *keeper) snapshot() error {
	switch {
	case !k.spec.Flight:
		return fmt.Errorf("session %s is no flight recorder: create it with --snapshot, or rotate", k.spec.Name)
	case k.rec == nil:
		return fmt.Errorf("session %s is not recording", k.spec.Name)
	}
	s, err := k.rec.Snapshot(k.next())
	if s != nil {
		k.finisher.add(s)
	}
	return err
}

// check keeps the caps, and sees if the recording ended by itself.
func (k *keeper) check() {
	if k.rec == nil {
		return
	}
	select {
	case <-k.rec.Failed():
		k.fail(nil) // the segment tells why
		if k.err == nil {
			k.err = errors.New(k.finisher.lastError())
		}
		return
	default:
	}
	if k.spec.Flight {
		return
	}
	if b := k.spec.SegmentBytes; b > 0 && k.rec.Bytes() >= b || k.spec.SegmentTime > 0 && time.Since(k.began) >= k.spec.SegmentTime {
		if err := k.rotate(nil); err != nil {
			k.fail(err)
		}
	}
}

// listed are the events that the kernel has now.
func listed() []tracefs.Event {
	fs, err := tracefs.Find()
	if err != nil {
		return nil
	}
	defer fs.Close()
	all, err := fs.Events()
	if err != nil {
		return nil
	}
	return all
}

// open says if a pattern may mean events that are not there yet.
func open(s record.Spec) bool { return strings.ContainsAny(s.Pattern, "*?[") }

// newEvents records events that came since, of a module or a program, where a pattern means them.
func (k *keeper) newEvents() {
	if k.rec == nil && k.state != waiting || !slices.ContainsFunc(k.want, open) {
		return
	}
	now := listed()
	if slices.Equal(now, k.known) {
		return
	}
	k.known = now
	if k.state == waiting {
		if err := k.start(); err != nil {
			k.fail(err)
		}
		return
	}
	specs, later, err := matching(k.want)
	if err == nil {
		k.waiting = later
		specs, err = k.rec.New(specs)
	}
	if err == nil && len(specs) > 0 {
		err = k.more(specs)
	}
	if err != nil {
		k.fail(err)
	}
}

func (k *keeper) status() Status {
	s := Status{Name: k.spec.Name, Dir: k.spec.Dir, State: k.state, Flight: k.spec.Flight, PID: os.Getpid(), Since: k.since, Events: k.want, Waiting: k.waiting}
	s.Segments, s.Removed = k.finisher.list()
	if k.rec != nil {
		s.Kinds = len(k.rec.Meta().Events)
		if !k.spec.Flight {
			s.Segments = append(s.Segments, Segment{Dir: k.seg, Bytes: k.rec.Bytes()})
		}
	}
	if k.err != nil {
		s.Error = k.err.Error()
	}
	return s
}
