package xsk

import (
	"errors"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Errors of queues.
var (
	// ErrClosed says that the queue was closed.
	ErrClosed = errors.New("the queue is closed")
	// ErrNotOwned says that a frame that was to be sent is not the caller's: it was sent or given back before.
	ErrNotOwned = errors.New("the frame is not the caller's")
	// ErrShort says that a packet has more frames than the slice that Recv or Send was given.
	ErrShort = errors.New("the packet has more frames than the slice")
)

// batch is how many frames change between a queue and its UMEM, and how many the fill ring may lack before it gets more: an
// index that the kernel reads is not written for each packet.
const batch = 64

// Queue is an AF_XDP socket. It belongs to one goroutine at a time; Stats may be called by anyone.
type Queue struct {
	umem   *UMEM
	key    Key
	dev    Device
	opts   Options
	caps   Caps
	fd     int
	sleep  *Sleeper
	fill   ring[uint64]
	comp   ring[uint64]
	rx, tx ring[Desc]

	cache  []uint64     // free frames of this queue
	fillTo uint32       // entries the fill ring is kept at
	sent   uint64       // frames, ever
	step   uint32       // how many it may lack before it gets more
	begin  uint64       // where in their frames packets begin: as the first of the last ones did
	lot    uint32       // how many frames are kept at hand, and may be sent and not taken back
	mu     sync.RWMutex // held to read by Stats: rings are mapped
	closed atomic.Bool

	touched byte // see touch; nobody asks for it
	count   counters
}

// counters are read by others while the queue works: plain adds by the owner, stored atomically.
type counters struct {
	rxPackets, rxBytes, txPackets, txBytes, completed, kicks, kicksRefused, waits, notOwned atomic.Uint64
}

func add(c *atomic.Uint64, n uint64) { c.Store(c.Load() + n) } // the only writer

// Recv takes packets that have arrived, at most len(b), and does not wait. The frames belong to the caller. A packet of
// several frames is never cut: it comes with its last frame, or stays; one that is longer than b is ErrShort.
func (q *Queue) Recv(b []Frame) (int, error) {
	if q.rx.ready(1) > 0 {
		q.touch()
	}
	q.refill()
	n := min(q.rx.ready(1), uint32(len(b)))
	if n == 0 {
		return 0, q.err()
	}
	var bytes, packets uint64
	start, whole := q.rx.own, 0
	for i := range b[:n] {
		d := q.rx.get()
		b[i] = Frame{q.umem, d.Addr, d.Len, d.Options}
		bytes += uint64(d.Len)
		if d.Options&pktContinued == 0 {
			whole, packets = i+1, packets+1
		}
	}
	if whole < int(n) { // the rest of a packet is there, but not in b: the kernel shows whole packets
		q.rx.own = start + uint32(whole)
		for i := range b[whole:n] {
			bytes -= uint64(b[whole+i].len)
		}
		if whole == 0 {
			return 0, ErrShort
		}
	}
	for i := range b[:whole] {
		if !q.umem.pass(b[i].addr, ownKernel, ownCaller) {
			add(&q.count.notOwned, 1) // somebody wrote into the rings
		}
	}
	q.begin = b[0].addr - q.umem.base(b[0].addr)
	q.rx.publish()
	add(&q.count.rxPackets, packets)
	add(&q.count.rxBytes, bytes)
	return whole, nil
}

// touch reads a byte of the packet that is next, whose descriptor is read after that. Both lie in the cache of the CPU on which it arrived, and
// so both are under way at once, where else the packet would be asked for when the descriptor has come. Frames arrive in the order in
// which they were put into the fill ring, unless a driver has another one: then the byte is one of the kernel's frame, which may be
// writing it. Nothing depends on it.
func (q *Queue) touch() {
	if q.fill.own-q.rx.own > q.fill.size() {
		return // another frame took its place in the fill ring
	}
	at := q.fill.slots[q.rx.own&q.fill.mask] + q.begin
	if at < uint64(len(q.umem.mem)) {
		q.touched = q.umem.mem[at]
	}
}

// err says if the queue was closed.
func (q *Queue) err() error {
	if q.closed.Load() {
		return ErrClosed
	}
	return nil
}

// Alloc takes free frames to write packets into, at most len(b), and does not wait: what was sent meanwhile is free again.
// Each has the length 0.
func (q *Queue) Alloc(b []Frame) int {
	q.refill() // comes first: who sends must not take the frames that receiving needs
	if len(q.cache) < len(b) {
		q.Reap()
		if want := len(b) - len(q.cache); want > 0 {
			q.cache = q.umem.take(q.cache, max(want, int(q.lot)))
		}
	}
	n := min(len(b), len(q.cache))
	at := len(q.cache) - n
	for i, a := range q.cache[at:] {
		q.umem.pass(a, ownPool, ownCaller)
		b[i] = Frame{umem: q.umem, addr: a + q.umem.txRoom}
	}
	q.cache = q.cache[:at]
	return n
}

// Free gives frames back. Those that are not the caller's are counted and left alone.
func (q *Queue) Free(b []Frame) {
	for i := range b {
		if b[i].umem != q.umem || !q.umem.pass(b[i].addr, ownCaller, ownPool) {
			add(&q.count.notOwned, 1)
			continue
		}
		q.cache = append(q.cache, q.umem.base(b[i].addr))
	}
	q.spill()
}

// spill gives the UMEM what other queues may need.
func (q *Queue) spill() {
	if lot := int(q.lot); len(q.cache) > 2*lot {
		q.umem.give(q.cache[lot:])
		q.cache = q.cache[:lot]
	}
}

// Send gives packets to the device, at most as many as the transmit ring has room for, and says how many: those frames
// belong to the kernel now and become free when they are sent, the others are still the caller's. The kernel is told at once, if
// it has to be. A packet of several frames is sent whole or not at all.
func (q *Queue) Send(b []Frame) (int, error) {
	n, err := q.Put(b)
	if errors.Is(err, ErrShort) {
		return n, err
	}
	err = errors.Join(err, q.Kick())
	if n == 0 && len(b) > 0 || q.Outstanding() >= uint64(q.lot) {
		q.Reap() // who forwards never asks for free frames, but others of the UMEM need them
	}
	return n, err
}

// Put is Send that does not tell the kernel: [Queue.Kick] does, for all that was put.
func (q *Queue) Put(b []Frame) (int, error) {
	n := min(q.tx.room(uint32(len(b))), uint32(len(b)))
	room := n
	for n > 0 && b[n-1].More() {
		n--
	}
	if n == 0 && room == uint32(len(b)) && room > 0 {
		return 0, ErrShort
	}
	var bytes, packets, sent uint64
	var err error
	for i := range b[:n] {
		f := &b[i]
		if f.umem != q.umem || !q.umem.pass(f.addr, ownCaller, ownKernel) {
			err = ErrNotOwned
			break
		}
		q.tx.put(Desc{f.addr, f.len, f.options})
		bytes += uint64(f.len)
		sent++
		if f.options&pktContinued == 0 {
			packets++
		}
	}
	if sent > 0 {
		q.sent += sent
		q.tx.publish()
		add(&q.count.txPackets, packets)
		add(&q.count.txBytes, bytes)
	}
	return int(sent), err
}

// Reap takes back frames that were sent, and says how many there were.
func (q *Queue) Reap() int {
	n := q.comp.ready(batch)
	for range n {
		a := q.comp.get()
		if q.opts.Completed != nil {
			q.opts.Completed(&Frame{umem: q.umem, addr: a})
		}
		if !q.umem.pass(a, ownKernel, ownPool) {
			add(&q.count.notOwned, 1)
			continue
		}
		q.cache = append(q.cache, q.umem.base(a))
	}
	if n > 0 {
		q.comp.publish()
		add(&q.count.completed, uint64(n))
		q.spill()
	}
	return int(n)
}

// Pending says how many frames were given to Send that the device has not taken out of the transmit ring.
func (q *Queue) Pending() int { return int(q.tx.used()) }

// Outstanding says how many frames were sent that have not come back to Reap.
func (q *Queue) Outstanding() uint64 { return q.sent - q.count.completed.Load() }

// refill keeps frames in the fill ring.
func (q *Queue) refill() {
	if q.fillTo == 0 {
		return
	}
	in := q.fill.size() - q.fill.room(q.fill.size()-q.fillTo+q.step)
	if in+q.step > q.fillTo {
		return
	}
	want := int(q.fillTo - in)
	if len(q.cache) < want {
		q.Reap()
		if len(q.cache) < want {
			q.cache = q.umem.take(q.cache, want-len(q.cache))
		}
	}
	n := min(want, len(q.cache))
	if n == 0 {
		return
	}
	at := len(q.cache) - n
	for _, a := range q.cache[at:] {
		q.umem.pass(a, ownPool, ownKernel)
		q.fill.put(a)
	}
	q.cache = q.cache[:at]
	q.fill.publish()
	if q.caps.NeedWakeup && q.fill.wantsWakeup() {
		q.wakeRx()
	}
}

// Kick has the kernel look at the transmit ring, if there is something in it and it does not look by itself. What it cannot take
// now stays in the ring: the next Send, Alloc or Wait kicks again.
func (q *Queue) Kick() error {
	for {
		before := q.tx.used()
		if before == 0 || q.caps.NeedWakeup && !q.tx.wantsWakeup() {
			return nil
		}
		add(&q.count.kicks, 1)
		errno := q.sys(unix.SYS_SENDTO)
		switch errno {
		case 0:
			return nil
		case unix.EAGAIN: // its budget for one call is used up, or there is no room
			if q.tx.used() < before {
				continue
			}
			fallthrough
		case unix.EBUSY, unix.ENOBUFS, unix.EINTR:
			add(&q.count.kicksRefused, 1)
			q.Reap() // a full completion ring is one reason
			return nil
		}
		return q.explain("send", errno)
	}
}

// wakeRx has a driver look at the fill ring, and polls it.
func (q *Queue) wakeRx() { q.sys(unix.SYS_RECVFROM) }

// sys is sendto or recvfrom without data: what such a socket takes for "look now". It never sleeps (MSG_DONTWAIT), so the
// scheduler is not told: to tell it costs more than the call may.
func (q *Queue) sys(nr uintptr) syscall.Errno {
	_, _, errno := unix.RawSyscall6(nr, uintptr(q.fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
	return errno
}
