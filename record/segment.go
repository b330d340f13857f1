package record

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Segment is a part of a recording, in a folder of its own that can be opened by itself. It is written by its [Recorder] until
// the next one begins; [Segment.Finish] makes the trace of it.
type Segment struct {
	Dir     string
	r       *Recorder
	own     string
	meta    Meta
	files   []*os.File   // pages of each CPU, as rings has them
	made    bool         // the folder was not there before
	counted []CPUAccount // by the kernel up to its end, where that can be told
	err     error        // why it ended before it should
	users   *users       // that the recorder had, to be released
}

// ErrRecorded says that a folder holds a recording.
var ErrRecorded = errors.New("there is a recording already")

// newSegment makes the folder of a segment, and writes what is known.
func (r *Recorder) newSegment(dir string) (_ *Segment, err error) {
	s := &Segment{Dir: dir, r: r, own: filepath.Join(dir, ownDir), meta: r.meta, users: r.users.hold()}
	s.meta.Started, s.meta.UUID = time.Now(), make([]byte, 16)
	rand.Read(s.meta.UUID)
	for _, f := range []string{filepath.Join(dir, "metadata"), filepath.Join(s.own, metaFile)} {
		if _, err := os.Stat(f); err == nil {
			return nil, errors.Join(s.users.release(), fmt.Errorf("record into %s: %w", dir, ErrRecorded))
		}
	}
	_, err = os.Stat(dir)
	s.made = err != nil
	if err := os.MkdirAll(s.own, 0o755); err != nil {
		return nil, errors.Join(s.users.release(), fmt.Errorf("make recording: %w", err))
	}
	if err := s.begin(); err != nil {
		s.undo()
		return nil, err
	}
	return s, nil
}

func (s *Segment) begin() error {
	if err := s.reserve(); err != nil {
		return err
	}
	for _, cpu := range s.meta.CPUs {
		f, err := os.Create(filepath.Join(s.own, rawName(cpu)))
		if err != nil {
			return fmt.Errorf("make recording: %w", err)
		}
		s.files = append(s.files, f)
	}
	if err := writeJSON(filepath.Join(s.own, tasksFile), s.r.tasks.first()); err != nil {
		return err
	}
	return writeJSON(filepath.Join(s.own, metaFile), s.meta)
}

// reserved is room on the disk, in bytes, for what must be said at the end even if the pages have filled it: the account, the
// metadata, the names.
const (
	reserveFile = "reserve"
	reserved    = 1 << 20
)

func (s *Segment) reserve() error {
	f, err := os.Create(filepath.Join(s.own, reserveFile))
	if err != nil {
		return fmt.Errorf("make recording: %w", err)
	}
	defer f.Close()
	err = unix.EINTR
	for err == unix.EINTR { // the runtime's own signals end it on a tmpfs
		err = unix.Fallocate(int(f.Fd()), 0, 0, reserved)
	}
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) { // such a file system promises nothing
		return nil
	}
	if err != nil {
		return fmt.Errorf("make recording: %w", err)
	}
	return nil
}

// bytes is how much of pages was written.
func (s *Segment) bytes() (n int64) {
	for _, f := range s.files {
		if st, err := f.Stat(); err == nil {
			n += st.Size()
		}
	}
	return n
}

func (s *Segment) close() error {
	var errs []error
	for _, f := range s.files {
		errs = append(errs, f.Close())
	}
	s.files = nil
	return errors.Join(errs...)
}

// undo removes what was made.
func (s *Segment) undo() {
	_ = errors.Join(s.close(), s.users.release())
	os.RemoveAll(s.own)
	if s.made {
		os.Remove(s.Dir)
	}
}

// Rotate ends the segment that is being recorded and goes on in the folder dir; no event is lost between them. more are events
// to record from then on, beside those that are. The segment that ended is to be finished, after those before it.
func (r *Recorder) Rotate(dir string, more []Spec) (*Segment, error) {
	if r.o.Flight {
		return nil, errors.New("rotate: a flight recorder has snapshots, no segments")
	}
	added, undo, err := r.add(more)
	if err != nil {
		return nil, err
	}
	next, err := r.newSegment(dir)
	if err != nil {
		undo()
		return nil, err
	}
	done := make(chan struct{}, len(r.rings))
	for i, g := range r.rings {
		g.turn <- turn{next.files[i], done} // has room for one
	}
	for range r.rings {
		<-done
	}
	old := r.seg
	r.seg = next
	return old, r.enableAll(added)
}

// add takes events into what the next segment says of itself. undo takes them out again.
func (r *Recorder) add(more []Spec) (added []Event, undo func(), err error) {
	was := r.meta.Events
	undo = func() { r.meta.Events = was }
	more, err = r.expand(more)
	if err == nil {
		added, err = selectEvents(r.fs, more)
	}
	if err != nil {
		return nil, undo, err
	}
	added = r.named(added)
	r.meta.Events = slices.Clone(was)
	for i := range added {
		e := &added[i]
		e.Format = resolve(e.Format, r.o.Constant)
		same := func(o Event) bool { return o.System == e.System && o.Name == e.Name }
		if at := slices.IndexFunc(r.meta.Events, same); at >= 0 {
			r.meta.Events[at] = *e
		} else {
			r.meta.Events = append(r.meta.Events, *e)
		}
	}
	return added, undo, nil
}

func (r *Recorder) enableAll(events []Event) error {
	for _, e := range events {
		if err := enable(r.inst, e); err != nil {
			return err
		}
	}
	return nil
}

// Add records more events from now on, where there is no segment that would have to tell of them: in a flight recorder.
func (r *Recorder) Add(more []Spec) error {
	added, undo, err := r.add(more)
	if err != nil {
		return err
	}
	if err := r.enableAll(added); err != nil {
		undo()
		return err
	}
	return nil
}

// New gives those events that specs mean and that are not recorded as yet, each with the filter of its spec.
func (r *Recorder) New(specs []Spec) ([]Spec, error) {
	specs = slices.DeleteFunc(slices.Clone(specs), func(s Spec) bool { return s.kind() != "" })
	events, err := selectEvents(r.fs, specs)
	if err != nil {
		return nil, err
	}
	var out []Spec
	for _, e := range events {
		if !slices.ContainsFunc(r.meta.Events, func(o Event) bool { return o.System == e.System && o.Name == e.Name }) {
			out = append(out, Spec{Pattern: e.System + ":" + e.Name, Filter: e.Filter})
		}
	}
	return out, nil
}

// Snapshot takes what a flight recorder's rings hold into the folder dir, and goes on. Nothing is recorded meanwhile.
func (r *Recorder) Snapshot(dir string) (*Segment, error) {
	s, err := r.newSegment(dir)
	if err != nil {
		return nil, err
	}
	if err := r.inst.Write("tracing_on", "0"); err != nil {
		s.undo()
		return nil, err
	}
	r.write(s)
	for _, g := range r.rings {
		if err := g.mover.Rest(); err != nil && s.err == nil {
			s.err = fmt.Errorf("take CPU %d: %w", g.cpu, err)
		}
		s.counted = append(s.counted, r.count(g.cpu))
	}
	return s, r.inst.Write("tracing_on", "1")
}

// Finish makes the trace of a segment that has ended, and gives its account. Segments are finished in their order, one at a time;
// one that is not can be opened all the same.
func (s *Segment) Finish() (*Account, error) {
	r := s.r
	errs := []error{s.close(), os.Remove(filepath.Join(s.own, reserveFile))}
	r.tasks.snapshot(now())
	if s.users != nil {
		s.users.drain()
	}
	acc := &Account{}
	for i, cpu := range s.meta.CPUs {
		a := CPUAccount{CPU: cpu}
		if i < len(s.counted) {
			a = s.counted[i].less(r.before[cpu])
		}
		if r.o.Flight { // all that is missing was overwritten before the snapshot
			a.Before, a.Missed = a.Missed, 0
			a.Written -= min(a.Written, a.Before)
		}
		acc.CPUs = append(acc.CPUs, a)
	}
	if s.err != nil {
		acc.Error = s.err.Error()
	}
	errs = append(errs, s.err, finish(s.Dir, &s.meta, &r.tasks, r.o.Symbol, s.users, acc, how{counted: len(s.counted) > 0, flight: r.o.Flight}))
	for _, a := range acc.CPUs {
		b := r.before[a.CPU]
		b.Written += a.Written + a.Before
		b.Missed += a.Missed + a.Before
		r.before[a.CPU] = b
	}
	r.tasks.forget()
	errs = append(errs, s.users.release())
	return acc, errors.Join(errs...)
}

// less is what the kernel counted since b.
func (a CPUAccount) less(b CPUAccount) CPUAccount {
	a.Written -= min(a.Written, b.Written)
	a.Missed -= min(a.Missed, b.Missed)
	return a
}
