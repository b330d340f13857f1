package xsk

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/feature"
	"github.com/fathom-trace/fathom/internal/netns"
)

// Device is a network device.
type Device struct {
	Name string
	// NetNS is its network namespace: a name, the number of a process in it, or a path. "" is that of the calling thread.
	NetNS string
}

// String gives name@namespace.
func (d Device) String() string {
	if d.NetNS == "" {
		return d.Name
	}
	return d.Name + "@" + d.NetNS
}

// In runs f in the device's namespace, on a thread that is there.
func (d Device) In(f func() error) error {
	if d.NetNS == "" {
		return f()
	}
	ns, err := netns.Open(d.NetNS)
	if err != nil {
		return err
	}
	return errors.Join(ns.Do(f), ns.Close())
}

// Present says if there is such a device; an error, that its namespace cannot be looked into.
func (d Device) Present() (there bool, err error) {
	err = d.In(func() error {
		ifs, err := net.Interfaces()
		there = slices.ContainsFunc(ifs, func(i net.Interface) bool { return i.Name == d.Name })
		return err
	})
	return there, err
}

// Copying says whether the kernel copies packets between its own memory and the UMEM.
type Copying int

// Ways to copy.
const (
	CopyAuto Copying = iota // not if the driver can do without
	Copy
	ZeroCopy
)

// Options say how a queue is to be; the zero value is 2048 entries in each ring, copies only if it must be, and waits by Go's
// netpoller.
type Options struct {
	// Entries of the rings, powers of two; 2048 if 0. NoRX and NoTX leave a ring out.
	Fill, Completion, RX, TX int
	NoRX, NoTX               bool
	Copying                  Copying
	Wait                     Wait
	// NoNeedWakeup has the kernel look at the rings without being told.
	NoNeedWakeup bool
	// MultiBuffer lets packets be longer than a frame (XDP_USE_SG, Linux 6.6). The XDP program must know of it, too.
	MultiBuffer bool
	// BusyBudget is how many packets one poll of Wait BusyPoll handles, 64 if 0, and BusyFor how long it polls, 20 µs if 0.
	BusyBudget int
	BusyFor    time.Duration
	// Completed is called with each frame that was sent, before it is free again: TxTime can be read then.
	Completed func(*Frame)
	// Trace is called with each system call of opening, to show how it is done.
	Trace func(Call)
	// RetryFor bounds how long binding is tried again while the queue is busy: the kernel takes a closed socket apart later. 2 s if 0.
	RetryFor time.Duration
}

// Caps says what a queue has.
type Caps struct {
	ZeroCopy    bool `json:"zero_copy"`
	NeedWakeup  bool `json:"need_wakeup"`
	MultiBuffer bool `json:"multi_buffer"`
	TxMetadata  bool `json:"tx_metadata"`
	Shared      bool `json:"shared_umem"` // with a queue that was opened earlier
	Retries     int  `json:"retries"`     // of binding, while the queue was busy
}

// Open makes an AF_XDP socket with frames of the UMEM, and binds it to a queue of a device. The error is an *Error.
func (u *UMEM) Open(dev Device, queue int, o Options) (*Queue, error) {
	return u.OpenContext(context.Background(), dev, queue, o)
}

// OpenContext is Open that ends trying when the context does.
func (u *UMEM) OpenContext(ctx context.Context, dev Device, queue int, o Options) (q *Queue, err error) {
	o.defaults()
	q = &Queue{umem: u, dev: dev, opts: o, fd: -1, key: Key{Queue: queue}}
	if err := dev.In(func() error { return q.socket() }); err != nil {
		return nil, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if err = q.setUp(ctx); err != nil {
		return nil, errors.Join(err, q.tearDown())
	}
	if u.owner < 0 {
		u.owner = q.fd
	}
	u.queues[q.key] = q
	if q.sleep, err = NewSleeper(q.fd, "AF_XDP", o.Wait, q.look, q.wakeRx, q.err); err != nil {
		delete(u.queues, q.key)
		return nil, errors.Join(q.explain("wait", err), q.unmap())
	}
	q.start(u)
	return q, nil
}

func (o *Options) defaults() {
	for _, p := range []*int{&o.Fill, &o.Completion, &o.RX, &o.TX} {
		if *p == 0 {
			*p = 2048
		}
	}
	if o.BusyBudget == 0 {
		o.BusyBudget = 64
	}
	if o.BusyFor == 0 {
		o.BusyFor = 20 * time.Microsecond
	}
	if o.RetryFor == 0 {
		o.RetryFor = 2 * time.Second
	}
}

// socket opens the socket, on a thread in the device's namespace.
func (q *Queue) socket() error {
	ifi, err := net.InterfaceByName(q.dev.Name)
	if err != nil {
		return q.explain("find device", err)
	}
	q.key.Ifindex = ifi.Index
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if q.note(err, "a socket, which belongs to the network namespace of the thread that makes it", "socket(AF_XDP, SOCK_RAW|SOCK_CLOEXEC|SOCK_NONBLOCK, 0) = %d", fd) != nil {
		return q.explain("open socket", err)
	}
	q.fd = fd
	if q.key.NetNS, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE); err != nil && !errors.Is(err, unix.ENOPROTOOPT) {
		return errors.Join(q.explain("read namespace's cookie", err), unix.Close(fd)) // Linux 5.13 and earlier have none
	}
	return nil
}

// setUp makes the rings and binds the socket. The UMEM is locked.
func (q *Queue) setUp(ctx context.Context) error {
	u := q.umem
	if u.mem == nil {
		return q.explain("open queue", errors.New("the UMEM is closed"))
	}
	if _, ok := u.queues[q.key]; ok {
		return q.explain("bind", fmt.Errorf("%w: this UMEM has the queue already", unix.EBUSY))
	}
	q.caps.Shared = u.owner >= 0
	if !q.caps.Shared {
		err := u.register(q.fd)
		if q.note(err, "memory for frames: the kernel pins its pages", "setsockopt(%d, SOL_XDP, XDP_UMEM_REG, {len=%d, chunk_size=%d, tx_metadata_len=%d, flags=%#x})", q.fd, len(u.mem), u.size, u.metadata, u.flags) != nil {
			return q.explain("register memory", err)
		}
	}
	q.caps.TxMetadata = u.metadata > 0
	for _, r := range rings {
		if r.not != nil && r.not(&q.opts) {
			continue
		}
		n := r.size(&q.opts)
		err := unix.SetsockoptInt(q.fd, unix.SOL_XDP, r.opt, n)
		if q.note(err, r.why, "setsockopt(%d, SOL_XDP, %s, %d)", q.fd, r.name, n) != nil {
			return q.explain("make ring", err)
		}
	}
	if err := q.mapRings(); err != nil {
		return err
	}
	if err := q.bind(ctx); err != nil {
		return err
	}
	if b, err := getsockopt(q.fd, unix.XDP_OPTIONS, 4); err == nil && len(b) == 4 { // Linux 5.3
		q.caps.ZeroCopy = b[0]&unix.XDP_OPTIONS_ZEROCOPY != 0
	}
	if q.opts.Wait == BusyPoll {
		return q.busyPoll()
	}
	return nil
}

// register is setsockopt(XDP_UMEM_REG).
func (u *UMEM) register(fd int) error {
	reg := unix.XDPUmemReg{Addr: uint64(uintptr(unsafe.Pointer(&u.mem[0]))), Len: uint64(len(u.mem)), Size: uint32(u.size), Flags: u.flags, Tx_metadata_len: u.metadata}
	// The kernel pins the pages of u.mem, a mapping that stays until Close, and reads reg during the call.
	if _, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_XDP, unix.XDP_UMEM_REG,
		uintptr(unsafe.Pointer(&reg)), unsafe.Sizeof(reg), 0); errno != 0 {
		if errno == unix.EINVAL && u.metadata > 0 {
			return feature.Unsupported("metadata of sent packets", "XDP_UMEM_REG with XDP_UMEM_TX_METADATA_LEN", errno)
		}
		return errno
	}
	return nil
}

// mapRings maps the rings that were made.
func (q *Queue) mapRings() error {
	b, err := getsockopt(q.fd, unix.XDP_MMAP_OFFSETS, offsetsLen)
	if q.note(err, "where the indices, flags and entries lie in the rings' mappings", "getsockopt(%d, SOL_XDP, XDP_MMAP_OFFSETS)", q.fd) != nil {
		return q.explain("ask where rings are", err)
	}
	o, err := decodeOffsets(b)
	if err != nil {
		return q.explain("ask where rings are", err)
	}
	if q.fill, err = mapRing[uint64](q, "XDP_UMEM_PGOFF_FILL_RING", unix.XDP_UMEM_PGOFF_FILL_RING, o.Fill, q.opts.Fill, true); err == nil {
		q.comp, err = mapRing[uint64](q, "XDP_UMEM_PGOFF_COMPLETION_RING", unix.XDP_UMEM_PGOFF_COMPLETION_RING, o.Completion, q.opts.Completion, false)
	}
	q.rx, q.tx = noRing[Desc](), noRing[Desc]()
	if err == nil && !q.opts.NoRX {
		q.rx, err = mapRing[Desc](q, "XDP_PGOFF_RX_RING", unix.XDP_PGOFF_RX_RING, o.RX, q.opts.RX, false)
	}
	if err == nil && !q.opts.NoTX {
		q.tx, err = mapRing[Desc](q, "XDP_PGOFF_TX_RING", unix.XDP_PGOFF_TX_RING, o.TX, q.opts.TX, true)
	}
	if err != nil {
		return q.explain("map ring", err)
	}
	return nil
}

func mapRing[T uint64 | Desc](q *Queue, name string, pgoff int64, o ringOffsets, size int, producer bool) (ring[T], error) {
	n := ringBytes[T](o, uint32(size))
	mem, err := unix.Mmap(q.fd, pgoff, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if q.note(err, "the ring, in this process", "mmap(%d bytes, PROT_READ|PROT_WRITE, MAP_SHARED|MAP_POPULATE, %d, %s)", n, q.fd, name) != nil {
		return ring[T]{}, err
	}
	r, err := newRing[T](mem, o, uint32(size), producer)
	if err != nil {
		return r, errors.Join(err, unix.Munmap(mem))
	}
	return r, nil
}

// bind tries what was asked, without what only some kernels have and nobody asked for; a busy queue is tried again.
func (q *Queue) bind(ctx context.Context) error {
	flags := uint16(0)
	switch {
	case q.caps.Shared: // the rest is as the first queue has it, and must not be said again
		flags = unix.XDP_SHARED_UMEM
	default:
		flags = [...]uint16{0, unix.XDP_COPY, unix.XDP_ZEROCOPY}[q.opts.Copying]
		if !q.opts.NoNeedWakeup {
			flags |= unix.XDP_USE_NEED_WAKEUP
		}
		if q.opts.MultiBuffer {
			flags |= unix.XDP_USE_SG
		}
	}
	errno := q.bindRetry(ctx, flags)
	if errno == unix.EINVAL && flags&unix.XDP_USE_NEED_WAKEUP != 0 { // Linux 5.3
		if again := q.bindRetry(ctx, flags&^unix.XDP_USE_NEED_WAKEUP); again == nil {
			flags, errno = flags&^unix.XDP_USE_NEED_WAKEUP, nil
		}
	}
	if errno != nil {
		return q.explain("bind", errno)
	}
	q.caps.NeedWakeup = flags&unix.XDP_USE_NEED_WAKEUP != 0
	q.caps.MultiBuffer = flags&unix.XDP_USE_SG != 0
	if q.caps.Shared {
		for _, other := range q.umem.queues {
			q.caps.NeedWakeup, q.caps.MultiBuffer = other.caps.NeedWakeup, other.caps.MultiBuffer
		}
	}
	return nil
}

// firstRetry is how long a busy queue is left alone at first, then twice as long each time.
const firstRetry = 2 * time.Millisecond

func (q *Queue) bindRetry(ctx context.Context, flags uint16) error {
	sa := &unix.SockaddrXDP{Flags: flags, Ifindex: uint32(q.key.Ifindex), QueueID: uint32(q.key.Queue)}
	if q.caps.Shared {
		sa.SharedUmemFD = uint32(q.umem.owner)
	}
	until := time.Now().Add(q.opts.RetryFor)
	for pause := firstRetry; ; pause = min(2*pause, 100*time.Millisecond) {
		err := unix.Bind(q.fd, sa)
		_ = q.note(err, "from here on the socket is the queue's", "bind(%d, {AF_XDP, ifindex=%d, queue_id=%d, flags=%s})", q.fd, sa.Ifindex, sa.QueueID, bindFlags(flags))
		if err != unix.EBUSY || time.Now().After(until) {
			return err
		}
		q.caps.Retries++
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

// busyPoll has the kernel leave polling to this process.
func (q *Queue) busyPoll() error {
	for _, o := range []struct {
		name   string
		opt, v int
	}{{"SO_PREFER_BUSY_POLL", unix.SO_PREFER_BUSY_POLL, 1}, {"SO_BUSY_POLL", unix.SO_BUSY_POLL, max(1, int(q.opts.BusyFor.Microseconds()))}, {"SO_BUSY_POLL_BUDGET", unix.SO_BUSY_POLL_BUDGET, q.opts.BusyBudget}} {
		err := unix.SetsockoptInt(q.fd, unix.SOL_SOCKET, o.opt, o.v)
		if q.note(err, "the kernel polls the device when this process asks, and leaves it alone otherwise", "setsockopt(%d, SOL_SOCKET, %s, %d)", q.fd, o.name, o.v) != nil {
			return q.explain("ask for busy polling", err)
		}
	}
	return nil
}

// start fills the fill ring: with half of the queue's share of frames, so that the rest can be sent. The UMEM is locked.
func (q *Queue) start(u *UMEM) {
	share := len(u.owners) / u.share
	if !q.opts.NoTX {
		share /= 2
	}
	q.fillTo = min(q.fill.size(), uint32(max(1, share)))
	q.step = max(1, min(batch, q.fillTo/4))
	q.lot = uint32(max(1, min(batch, share/8)))
	if q.opts.NoRX {
		q.fillTo = 0
		return
	}
	n := min(int(q.fillTo), len(u.free))
	for _, a := range u.free[len(u.free)-n:] {
		u.pass(a, ownPool, ownKernel)
		q.fill.put(a)
	}
	u.free = u.free[:len(u.free)-n]
	q.fill.publish()
}

// FD is the socket's descriptor, for an XSKMAP. It is valid until Close.
func (q *Queue) FD() int { return q.fd }

// Key names the queue.
func (q *Queue) Key() Key { return q.key }

// Device gives the device.
func (q *Queue) Device() Device { return q.dev }

// Caps says what the queue has.
func (q *Queue) Caps() Caps { return q.caps }

// UMEM gives the memory.
func (q *Queue) UMEM() *UMEM { return q.umem }

// Close unmaps the rings and closes the socket. The goroutine that the queue belongs to calls it. Frames that the kernel had are
// free again when the UMEM's last queue is closed.
func (q *Queue) Close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed.Swap(true) {
		return ErrClosed
	}
	u := q.umem
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.queues, q.key)
	if u.owner == q.fd {
		u.owner = -1
		for _, other := range u.queues { // any bound socket of the UMEM will do
			u.owner = other.fd
			break
		}
	}
	err := q.tearDown()
	u.free = append(u.free, q.cache...)
	q.cache = nil
	if len(u.queues) == 0 {
		u.reset()
	}
	return err
}

// reset makes all frames free that the kernel had: no socket has them any more.
func (u *UMEM) reset() {
	u.free = u.free[:0]
	for i := len(u.owners) - 1; i >= 0; i-- {
		if u.owners[i] != ownCaller {
			u.owners[i] = ownPool
			u.free = append(u.free, uint64(i)*u.size)
		}
	}
}

// tearDown unmaps rings, which keep the socket alive, then closes it.
func (q *Queue) tearDown() error {
	err := q.unmap()
	if q.sleep != nil {
		return errors.Join(err, q.sleep.Close())
	}
	return errors.Join(err, unix.Close(q.fd))
}

func (q *Queue) unmap() error {
	var errs []error
	for _, m := range [][]byte{q.fill.mem, q.comp.mem, q.rx.mem, q.tx.mem} {
		if m != nil {
			errs = append(errs, unix.Munmap(m))
		}
	}
	return errors.Join(errs...)
}

// Options gives what the queue was opened with, defaults filled in.
func (q *Queue) Options() Options { return q.opts }
