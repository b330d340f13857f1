package shm

import (
	"context"
	"encoding/binary"
	"io"
	"sync/atomic"
)

// Writer sends messages. It belongs to one goroutine at a time.
type Writer struct {
	m     *Memory
	l     lane
	id    int
	head  uint64   // of the lane, which nobody else writes
	tails []uint64 // of readers, when they were last looked at
	sleep []*atomic.Uint32
	wait  Wait
}

// Writer takes a place for writing. wait is how it waits for room, under Block.
func (m *Memory) Writer(wait Wait) (*Writer, error) {
	id, err := m.claim(0, m.cfg.Writers)
	if err != nil {
		return nil, err
	}
	w := &Writer{m: m, l: newLane(m.mem, m.cfg, id), id: id, tails: make([]uint64, m.cfg.Readers), wait: wait}
	for i := range m.cfg.Readers {
		w.sleep = append(w.sleep, sleepsOf(m, i))
	}
	w.head = w.l.head.Load()
	if w.l.sequence(w.head).Load() == 2*w.head+2 { // one that died after it
		w.head++
		w.l.head.Store(w.head)
	}
	w.l.state.Store(laneOpen)
	return w, nil
}

// full says if a reader has no room for one more message. A single reader counts also before it comes: what it is sent waits.
func (w *Writer) full() bool {
	for i := range w.l.readers {
		if w.head-w.tails[i] <= w.l.mask {
			continue
		}
		r := &w.l.readers[i]
		if len(w.l.readers) > 1 && r.active.Load() == 0 {
			continue
		}
		w.tails[i] = r.tail.Load()
		if w.head-w.tails[i] > w.l.mask {
			return true
		}
	}
	return false
}

// TrySend sends a message if there is room. Under Drop it is counted as dropped otherwise; ErrFull says so in any case.
func (w *Writer) TrySend(msg []byte) error {
	if len(msg) > w.m.cfg.Slot {
		return ErrTooLong
	}
	if w.m.cfg.Policy != Overwrite && w.full() {
		if w.m.cfg.Policy == Drop {
			w.l.dropped.Store(w.l.dropped.Load() + 1) // the only writer
		}
		return ErrFull
	}
	s := w.l.slot(w.head)
	seq := u64(s, 0)
	if w.m.cfg.Policy == Overwrite {
		seq.Store(2*w.head + 1)
		put(s[8:], msg)
	} else {
		binary.NativeEndian.PutUint32(s[8:], uint32(len(msg)))
		copy(s[slotHead:], msg)
	}
	seq.Store(2*w.head + 2)
	w.head++
	w.l.head.Store(w.head)
	for _, s := range w.sleep {
		wake(s)
	}
	return nil
}

// sleepsOf is the word on which a reader sleeps, whichever lane a message comes by: that of lane 0.
func sleepsOf(m *Memory, reader int) *atomic.Uint32 {
	return u32(m.mem[headerLen+lineLen*(1+reader):], offSleeps)
}

// Send sends a message. Under Block it waits for room; ErrPeerGone says that the only reader died. Under Drop a message without
// room is counted, and no error.
func (w *Writer) Send(ctx context.Context, msg []byte) error {
	err := w.TrySend(msg)
	switch {
	case err != ErrFull:
		return err
	case w.m.cfg.Policy == Drop:
		return nil
	}
	if err := w.wait.until(ctx, w.l.room, func() bool { return !w.full() }, w.gone); err != nil {
		return err
	}
	return w.TrySend(msg)
}

// gone looks for readers that died. One of several is left out from then on; the only one is missed.
func (w *Writer) gone() error {
	for i := range w.l.readers {
		r := &w.l.readers[i]
		if r.active.Load() == 0 || w.m.held(maxLanes+i) || r.active.Load() == 0 { // who closes says so first, and then gives its place back
			continue
		}
		if len(w.l.readers) == 1 {
			return ErrPeerGone
		}
		r.active.Store(0)
	}
	return nil
}

// Dropped says how many messages were dropped.
func (w *Writer) Dropped() uint64 { return w.l.dropped.Load() }

// Close tells readers that no more messages come.
func (w *Writer) Close() error {
	w.l.state.Store(laneClosed)
	for _, s := range w.sleep {
		wake(s)
	}
	return w.m.unlock(w.id)
}

// Reader receives messages. It belongs to one goroutine at a time.
type Reader struct {
	m     *Memory
	lanes []lane
	lines []readerLine // its own, of each lane
	tails []uint64
	id    int
	next  int // lane that is looked at first
	wait  Wait
}

// Reader takes a place for reading. The only reader gets what was sent before, and what one before it did not read; of several,
// each gets what is sent from now on.
func (m *Memory) Reader(wait Wait) (*Reader, error) {
	id, err := m.claim(maxLanes, m.cfg.Readers)
	if err != nil {
		return nil, err
	}
	r := &Reader{m: m, id: id, wait: wait}
	for i := range m.cfg.Writers {
		l := newLane(m.mem, m.cfg, i)
		line := l.readers[id]
		if m.cfg.Readers > 1 {
			line.active.Store(0) // of one that died: it was at another tail
			line.tail.Store(l.head.Load())
			line.active.Store(1)
			line.tail.Store(l.head.Load()) // the writer heeds it from here on, and wrote no more than this before
		} else {
			line.active.Store(1)
		}
		r.lanes, r.lines = append(r.lanes, l), append(r.lines, line)
		r.tails = append(r.tails, line.tail.Load())
	}
	return r, nil
}

// TryReceive reads a message into b, if there is one: else ErrEmpty. A message longer than b is ErrTooLong, and stays.
func (r *Reader) TryReceive(b []byte) (int, error) {
	for range r.lanes {
		i := r.next
		if r.next++; r.next == len(r.lanes) {
			r.next = 0
		}
		if !r.has(i) {
			continue
		}
		n, err := r.read(i, b)
		if err == ErrEmpty {
			continue
		}
		return n, err
	}
	return 0, ErrEmpty
}

// has says if there is a message in a lane, or was: another may be in its place.
func (r *Reader) has(i int) bool {
	n := r.tails[i]
	return r.lanes[i].sequence(n).Load() > 2*n+1
}

// read reads the next message of a lane, which has one.
func (r *Reader) read(i int, b []byte) (int, error) {
	l := &r.lanes[i]
	if r.m.cfg.Policy == Overwrite {
		return r.readOver(i, b)
	}
	s := l.slot(r.tails[i])
	n := min(int(binary.NativeEndian.Uint32(s[8:])), r.m.cfg.Slot)
	if n > len(b) {
		return n, ErrTooLong
	}
	copy(b, s[slotHead:slotHead+n])
	r.tails[i]++
	r.lines[i].tail.Store(r.tails[i])
	if r.m.cfg.Policy == Block {
		wake(l.room)
	}
	return n, nil
}

// readOver reads a message that may be overwritten meanwhile; those that were are counted as lost.
func (r *Reader) readOver(i int, b []byte) (int, error) {
	l, line := &r.lanes[i], &r.lines[i]
	for {
		if head := l.head.Load(); head > r.tails[i]+l.mask+1 {
			skip := head - r.tails[i] - (l.mask + 1)
			line.lost.Store(line.lost.Load() + skip)
			r.tails[i] += skip
		}
		if !r.has(i) {
			line.tail.Store(r.tails[i])
			return 0, ErrEmpty
		}
		s := l.slot(r.tails[i])
		want := 2*r.tails[i] + 2
		seq := u64(s, 0)
		if seq.Load() == want {
			n, ok := get(s[8:], b, r.m.cfg.Slot)
			if seq.Load() == want {
				if !ok {
					return n, ErrTooLong
				}
				r.tails[i]++
				line.tail.Store(r.tails[i])
				return n, nil
			}
		}
		line.lost.Store(line.lost.Load() + 1) // it was overwritten while it was read
		r.tails[i]++
	}
}

// Receive reads a message into b and waits for one: io.EOF when all writers that came have closed, ErrPeerGone if one of them died
// instead.
func (r *Reader) Receive(ctx context.Context, b []byte) (int, error) {
	n, err := r.TryReceive(b)
	if err != ErrEmpty {
		return n, err
	}
	if err := r.wait.until(ctx, sleepsOf(r.m, r.id), r.any, r.over); err != nil {
		return 0, err
	}
	return r.TryReceive(b)
}

// any says if there is a message.
func (r *Reader) any() bool {
	for i := range r.lanes {
		if r.has(i) {
			return true
		}
	}
	return false
}

// over says if no writer is left that could send.
func (r *Reader) over() error {
	came, dead := false, false
	for i := range r.lanes {
		switch r.lanes[i].state.Load() {
		case laneOpen:
			if r.m.held(i) {
				return nil
			}
			came = true
			dead = dead || r.lanes[i].state.Load() == laneOpen // who closes says so first, and then gives its place back
		case laneClosed:
			came = true
		}
	}
	switch {
	case dead:
		return ErrPeerGone
	case came:
		return io.EOF
	}
	return nil
}

// Lost says how many messages were overwritten before they were read.
func (r *Reader) Lost() (n uint64) {
	for _, l := range r.lines {
		n += l.lost.Load()
	}
	return n
}

// Close gives the place back. Of a single reader, what it did not read waits for the next.
func (r *Reader) Close() error {
	for i := range r.lines {
		r.lines[i].active.Store(0)
		wake(r.lanes[i].room)
	}
	return r.m.unlock(maxLanes + r.id)
}

// put writes length and message in words, each an atomic: a reader may be reading.
func put(s, msg []byte) {
	u64(s, 0).Store(uint64(len(msg)))
	for at := 0; at < len(msg); at += 8 {
		var w [8]byte
		copy(w[:], msg[at:])
		u64(s, 8+at).Store(binary.NativeEndian.Uint64(w[:]))
	}
}

// get reads what put wrote, or parts of two messages. It says false, and how long the message is, if that is more than b takes.
func get(s, b []byte, most int) (int, bool) {
	n := int(min(u64(s, 0).Load(), uint64(most)))
	if n > len(b) {
		return n, false
	}
	for at := 0; at < n; at += 8 {
		var w [8]byte
		binary.NativeEndian.PutUint64(w[:], u64(s, 8+at).Load())
		copy(b[at:n], w[:])
	}
	return n, true
}
