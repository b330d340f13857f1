package verbs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Status says what became of work: enum ib_wc_status (include/rdma/ib_verbs.h), ibv_wc_status.
type Status uint32

// The statuses that a reliable connection through rxe gives.
const (
	Success          Status = 0
	LocalLength      Status = 1  // IBV_WC_LOC_LEN_ERR
	LocalOperation   Status = 2  // IBV_WC_LOC_QP_OP_ERR
	LocalProtection  Status = 4  // IBV_WC_LOC_PROT_ERR
	Flushed          Status = 5  // IBV_WC_WR_FLUSH_ERR
	LocalAccess      Status = 8  // IBV_WC_LOC_ACCESS_ERR
	RemoteInvalid    Status = 9  // IBV_WC_REM_INV_REQ_ERR
	RemoteAccess     Status = 10 // IBV_WC_REM_ACCESS_ERR
	RemoteOperation  Status = 11 // IBV_WC_REM_OP_ERR
	RetriesExceeded  Status = 12 // IBV_WC_RETRY_EXC_ERR
	ReceiverNotReady Status = 13 // IBV_WC_RNR_RETRY_EXC_ERR
	FatalError       Status = 19 // IBV_WC_FATAL_ERR
	GeneralError     Status = 21 // IBV_WC_GENERAL_ERR
	lastStatus              = 22 // IBV_WC_TM_ERR
)

// statuses are what they mean.
var statuses = [lastStatus + 1]string{
	Success:          "success",
	LocalLength:      "local length error: the message is longer than the memory that was posted for it",
	LocalOperation:   "local operation error: rxe says so if a segment's key, range or rights are wrong, and of a receive whose message was longer than its memory",
	3:                "local EE context error",
	LocalProtection:  "local protection error: a segment's key is none of this domain, or its range or rights are not those of the memory",
	Flushed:          "flushed: the queue pair had failed before this work was done",
	6:                "memory window bind error",
	7:                "bad response: the peer answered something that belongs to no request",
	LocalAccess:      "local access error: the peer's write met memory that may not be written",
	RemoteInvalid:    "remote invalid request: the peer could not take it, as it does if a message is longer than the memory it posted",
	RemoteAccess:     "remote access error: the peer's memory has another key, range or rights",
	RemoteOperation:  "remote operation error: the peer failed to do it, as with rxe if a message is longer than the memory it posted",
	RetriesExceeded:  "retries exceeded: the peer does not answer; is its queue pair there, and does UDP port 4791 reach it?",
	ReceiverNotReady: "receiver not ready: the peer had posted no receive, however often it was tried",
	14:               "local RDD violation",
	15:               "remote invalid RD request",
	16:               "remote aborted",
	17:               "invalid EE context number",
	18:               "invalid EE context state",
	FatalError:       "fatal error of the device",
	20:               "response timeout",
	GeneralError:     "general error",
	lastStatus:       "tag matching error",
}

// String gives the status in words: its name, and behind a colon what it means.
func (s Status) String() string {
	if s < Status(len(statuses)) {
		return statuses[s]
	}
	return fmt.Sprintf("status %d", uint32(s))
}

// Completion says that work is complete.
type Completion struct {
	ID     uint64 // of the Send or Receive
	QP     *QueuePair
	Op     Op
	Status Status
	Bytes  int    // of a receive: how long the message is
	Vendor uint32 // what the driver adds to an error
}

// Err gives an error unless the work was done.
func (c *Completion) Err() error {
	if c.Status == Success {
		return nil
	}
	return &WorkError{*c}
}

// WorkError is work that was not done.
type WorkError struct{ Completion }

// Error says which work, of which queue pair, and why.
func (e *WorkError) Error() string {
	return fmt.Sprintf("%s %d on queue pair %d: %s", e.Op, e.ID, e.QP.Number(), e.Status)
}

// CompletionQueue is where work comes out that is complete. Poll and Wait belong to one goroutine at a time.
type CompletionQueue struct {
	x       *Context
	handle  uint32
	file    *os.File // tells of completions; does not block
	entries int

	mu      sync.Mutex // closing a queue pair takes its completions out
	ring    ring
	pairs   []*QueuePair
	waiting []Completion // that were taken out of the ring when a queue pair was closed
	used    int          // entries that the work of queue pairs can take

	armed bool // the kernel tells of the next completion, or has told
}

// completionLen is the size of an entry of a completion queue.
const completionLen = unsafe.Sizeof(work{})

// NewCompletionQueue makes a queue with room for so many completions. The queue pairs that use it can have no more work under way, so
// that none is ever lost.
func (x *Context) NewCompletionQueue(entries int) (q *CompletionQueue, err error) {
	const op = "make a completion queue on"
	if entries < 1 || entries > 1<<20 {
		return nil, fmt.Errorf("%s RDMA device %s: %d entries: there are 1 to %d", op, x.device.Name, entries, 1<<20)
	}
	var channel createChannel
	var made createChannelResp
	if err := x.ask(cmdCreateChannel, &channel.asking, unsafe.Sizeof(channel), unsafe.Pointer(&made), unsafe.Sizeof(made)); err != nil {
		return nil, x.fail(op, err)
	}
	q = &CompletionQueue{x: x, entries: entries}
	err = unix.SetNonblock(int(made.FD), true) // so that Go's netpoller waits
	q.file = os.NewFile(uintptr(made.FD), "completions of "+x.device.Name)
	if err != nil {
		return nil, errors.Join(x.fail(op, err), q.file.Close())
	}
	c := createCQ{Entries: uint32(entries), Channel: int32(made.FD)}
	var r createCQResp
	if err := x.ask(cmdCreateCQ, &c.asking, unsafe.Sizeof(c), unsafe.Pointer(&r), unsafe.Sizeof(r)); err != nil {
		return nil, errors.Join(x.fail(op, err), q.file.Close())
	}
	q.handle = r.Handle
	if q.ring, err = x.mapRing(r.Queue, completionLen, entries, false); err != nil {
		return nil, errors.Join(x.fail(op, err), q.destroy())
	}
	x.keep(q)
	return q, nil
}

// mapRing maps a queue that the kernel made.
func (x *Context) mapRing(m mapInfo, least uintptr, entries int, producer bool) (r ring, err error) {
	if m.Size == 0 || m.Size > 1<<30 {
		return r, fmt.Errorf("the kernel made a queue of %d bytes", m.Size)
	}
	var mem []byte
	if err := x.do(func(fd int) (err error) {
		mem, err = unix.Mmap(fd, int64(m.Offset), int(m.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		return os.NewSyscallError("mmap", err)
	}); err != nil {
		return r, err
	}
	if r, err = newRing(mem, least, entries, producer); err != nil {
		return r, errors.Join(err, unix.Munmap(mem))
	}
	return r, nil
}

// unmap gives the memory of a ring back; it may have none.
func (r *ring) unmap() error {
	mem := r.mem
	if *r = (ring{}); mem == nil {
		return nil
	}
	return unix.Munmap(mem)
}

// Close ends the queue. It fails while queue pairs use it.
func (q *CompletionQueue) Close() error {
	q.mu.Lock()
	n := len(q.pairs)
	q.mu.Unlock()
	if n > 0 {
		return fmt.Errorf("close a completion queue on RDMA device %s: %d queue pairs use it", q.x.device.Name, n)
	}
	if !q.x.drop(q) {
		return ErrClosed
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.destroy(); err != nil {
		return q.x.fail("close a completion queue on", err)
	}
	return nil
}

func (q *CompletionQueue) destroy() error {
	c := destroyCQ{Handle: q.handle}
	var r destroyCQResp
	return errors.Join(q.x.ask(cmdDestroyCQ, &c.asking, unsafe.Sizeof(c), unsafe.Pointer(&r), unsafe.Sizeof(r)), q.ring.unmap(), q.file.Close())
}

// join counts the work of a queue pair, if there is room for it.
func (q *CompletionQueue) join(p *QueuePair, works int) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.used+works > q.entries {
		return fmt.Errorf("a completion queue of %d entries, %d of which queue pairs can fill, has no room for %d more", q.entries, q.used, works)
	}
	q.used += works
	if !slices.Contains(q.pairs, p) {
		q.pairs = append(q.pairs, p)
	}
	return nil
}

// leave takes what is there of a queue pair out of the queue, and the pair from its list. The pair is destroyed: no more comes.
func (q *CompletionQueue) leave(p *QueuePair, works int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.ring.ready() > 0 {
		if c, ok := q.take(); ok {
			q.waiting = append(q.waiting, c)
		}
	}
	q.waiting = slices.DeleteFunc(q.waiting, func(c Completion) bool { return c.QP == p })
	q.pairs = slices.DeleteFunc(q.pairs, func(o *QueuePair) bool { return o == p })
	q.used -= works
}

// take takes an entry from the ring. It is no completion if it belongs to work that was never posted.
func (q *CompletionQueue) take() (Completion, bool) {
	w := get[work](q.ring.element())
	q.ring.next()
	q.ring.publish()
	for _, p := range q.pairs {
		if p.number == w.QP {
			return p.complete(&w)
		}
	}
	return Completion{}, false
}

// Poll takes completions, as many as there are and fit, and says how many. It does not wait.
func (q *CompletionQueue) Poll(to []Completion) (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n = copy(to, q.waiting)
	q.waiting = slices.Delete(q.waiting, 0, n)
	if q.ring.mem == nil {
		return n
	}
	for ready := q.ring.ready(); n < len(to) && ready > 0; ready-- {
		if c, ok := q.take(); ok {
			to[n] = c
			n++
		}
	}
	return n
}

// ready says if Poll would find something.
func (q *CompletionQueue) ready() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting) > 0 || q.ring.mem != nil && q.ring.ready() > 0
}

// Spin returns when completions are there, or when the context ends, whose error it gives then. It takes a CPU meanwhile, but lets other
// goroutines have it in turns.
func (q *CompletionQueue) Spin(ctx context.Context) error {
	for i := 0; !q.ready(); i++ {
		if i%64 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		runtime.Gosched()
	}
	return nil
}

// Wait returns when completions are there, or when the context ends, whose error it gives then. The goroutine sleeps meanwhile.
func (q *CompletionQueue) Wait(ctx context.Context) error {
	if q.ready() {
		return nil
	}
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = q.file.SetReadDeadline(time.Unix(1, 0)) // if it is closed, Read says so
		close(woken)
	})
	defer func() {
		if !stop() {
			<-woken
			_ = q.file.SetReadDeadline(time.Time{})
		}
	}()
	for {
		// The kernel is asked to tell, and only then the ring is looked at again: what came before is seen, what comes after is told.
		if !q.armed {
			c := reqNotifyCQ{Handle: q.handle}
			if err := q.x.tell(cmdReqNotifyCQ, &c.header, unsafe.Sizeof(c)); err != nil {
				return q.x.fail("wait for", err)
			}
			q.armed = true
		}
		if q.ready() {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		var event [8]byte // struct ib_uverbs_comp_event_desc
		switch _, err := q.file.Read(event[:]); {
		case err == nil:
			q.armed = false
		case errors.Is(err, os.ErrDeadlineExceeded):
		case errors.Is(err, os.ErrClosed):
			return ErrClosed
		default:
			return q.x.fail("wait for", err)
		}
	}
}
