package pid1

import (
	"io"
	"sync"
)

// Window is how many bytes of one direction of a session may be under way: a sender waits until [Ack] frames say that the
// receiver took some. So nobody who reads slowly holds up the port for others, or makes anyone keep more than this.
const Window = 256 << 10

// Flow is the sender's side of a window.
type Flow struct {
	mu    sync.Mutex
	cond  *sync.Cond
	left  int
	ended bool
}

// NewFlow returns a window that is open.
func NewFlow() *Flow {
	f := &Flow{left: Window}
	f.cond = sync.NewCond(&f.mu)
	return f
}

// Take waits until something may be sent and gives how much, at most n; 0 once the receiver is gone.
func (f *Flow) Take(n int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.left <= 0 && !f.ended {
		f.cond.Wait()
	}
	if f.ended {
		return 0
	}
	n = min(n, f.left)
	f.left -= n
	return n
}

// Open says that something may be sent now.
func (f *Flow) Open() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.left > 0 || f.ended
}

// Give returns n bytes that the receiver took.
func (f *Flow) Give(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left = min(f.left+max(n, 0), Window)
	f.cond.Broadcast()
}

// End says that the receiver is gone.
func (f *Flow) End() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	f.cond.Broadcast()
}

// Queue is the receiver's side: what came and was not read. took, which may be nil, is told how much was read.
type Queue struct {
	mu    sync.Mutex
	cond  *sync.Cond
	buf   []byte
	ended bool
	took  func(n int)
}

// NewQueue returns an empty queue.
func NewQueue(took func(n int)) *Queue {
	q := &Queue{took: took}
	q.cond = sync.NewCond(&q.mu)
	return q
}

// Put keeps a copy of b. It reports false, and keeps nothing, if the sender did not keep to the window.
func (q *Queue) Put(b []byte) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.buf)+len(b) > Window {
		return false
	}
	if !q.ended {
		q.buf = append(q.buf, b...)
	}
	q.cond.Broadcast()
	return true
}

// End says that nothing follows.
func (q *Queue) End() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
	q.cond.Broadcast()
}

// Read waits for bytes; io.EOF after the last.
func (q *Queue) Read(p []byte) (int, error) {
	q.mu.Lock()
	for len(q.buf) == 0 && !q.ended {
		q.cond.Wait()
	}
	n := copy(p, q.buf)
	q.buf = append(q.buf[:0], q.buf[n:]...)
	q.mu.Unlock()
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	if q.took != nil {
		q.took(n)
	}
	return n, nil
}
