package session

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/fathom-trace/fathom/record"
)

// finisher finishes segments beside the recording, in their order, and removes the oldest when there are too many.
type finisher struct {
	spec  Spec
	queue chan *record.Segment
	open  sync.WaitGroup // segments that are not finished
	ended chan struct{}

	mu      sync.Mutex // guards what follows
	done    []Segment
	removed int
	err     string
	total   record.Account // of all segments, of those too that were removed
}

// waiting segments are so many before a rotation waits for them, too.
const queued = 64

func newFinisher(spec Spec) *finisher {
	f := &finisher{spec: spec, queue: make(chan *record.Segment, queued), ended: make(chan struct{}), total: record.Account{Exact: true}}
	go func() {
		defer close(f.ended)
		for s := range f.queue {
			f.finish(s)
			f.open.Done()
		}
	}()
	return f
}

func (f *finisher) add(s *record.Segment) {
	f.mu.Lock()
	f.done = append(f.done, Segment{Dir: s.Dir})
	f.mu.Unlock()
	f.open.Add(1)
	f.queue <- s
}

// wait waits until all are finished.
func (f *finisher) wait() { f.open.Wait() }

// close waits and ends the goroutine.
func (f *finisher) close() {
	close(f.queue)
	<-f.ended
}

func (f *finisher) finish(s *record.Segment) {
	acc, err := s.Finish()
	size := sizeOf(s.Dir)
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.IndexFunc(f.done, func(g Segment) bool { return g.Dir == s.Dir })
	f.done[i].Account, f.done[i].Bytes = acc, size
	if acc != nil {
		f.total.Add(acc)
	}
	if err != nil {
		f.done[i].Error, f.err = err.Error(), err.Error()
	}
	f.cap()
}

// cap removes the oldest segments that are too many, never the last.
func (f *finisher) cap() {
	over := func() bool {
		total := int64(0)
		for _, g := range f.done {
			total += g.Bytes
		}
		return f.spec.Keep > 0 && len(f.done) > f.spec.Keep || f.spec.MaxBytes > 0 && total > f.spec.MaxBytes
	}
	for len(f.done) > 1 && f.done[0].Account != nil && over() {
		if err := os.RemoveAll(f.done[0].Dir); err != nil {
			f.err = err.Error()
			return
		}
		f.done = f.done[1:]
		f.removed++
	}
}

// sizeOf is how much the files of a folder hold, in bytes.
func sizeOf(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error { // what cannot be read counts nothing
		if err != nil || d.IsDir() {
			return nil
		}
		if st, err := d.Info(); err == nil {
			n += st.Size()
		}
		return nil
	})
	return n
}

func (f *finisher) list() ([]Segment, int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.done), f.removed
}

func (f *finisher) lastError() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}
