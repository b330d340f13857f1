package xsk

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Stats are what a queue and the kernel counted, and how full the rings are.
type Stats struct {
	RxPackets    uint64 `json:"rx_packets"`
	RxBytes      uint64 `json:"rx_bytes"`
	TxPackets    uint64 `json:"tx_packets"` // given to the kernel
	TxBytes      uint64 `json:"tx_bytes"`
	TxCompleted  uint64 `json:"tx_completed"`  // frames that came back
	Kicks        uint64 `json:"kicks"`         // system calls that had the kernel send
	KicksRefused uint64 `json:"kicks_refused"` // which it could not do at once
	Waits        uint64 `json:"waits"`         // how often nothing was there
	NotOwned     uint64 `json:"not_owned"`     // frames given back twice, or that are nobody's

	Fill       Level `json:"fill"`
	Completion Level `json:"completion"`
	RX         Level `json:"rx"`
	TX         Level `json:"tx"`

	Kernel KernelStats `json:"kernel"`
}

// Level is how full a ring is.
type Level struct {
	Used uint32 `json:"used"`
	Size uint32 `json:"size"`
}

// Stats may be called by anyone at any time; after Close, what this process counted is all there is.
func (q *Queue) Stats() (Stats, error) {
	q.mu.RLock()
	defer q.mu.RUnlock()
	c := &q.count
	s := Stats{
		RxPackets: c.rxPackets.Load(), RxBytes: c.rxBytes.Load(), TxPackets: c.txPackets.Load(), TxBytes: c.txBytes.Load(),
		TxCompleted: c.completed.Load(), Kicks: c.kicks.Load(), KicksRefused: c.kicksRefused.Load(), Waits: c.waits.Load(), NotOwned: c.notOwned.Load(),
	}
	if q.closed.Load() {
		return s, ErrClosed
	}
	s.Fill, s.Completion, s.RX, s.TX = q.fill.level(), q.comp.level(), q.rx.level(), q.tx.level()
	b, err := getsockopt(q.fd, unix.XDP_STATISTICS, statsLen)
	if err != nil {
		return s, q.explain("read statistics", err)
	}
	s.Kernel = decodeStats(b)
	return s, nil
}

// level looks at both indices, of which either may move meanwhile.
func (r *ring[T]) level() Level {
	if len(r.slots) == 0 {
		return Level{}
	}
	a, b := r.mine.Load(), r.theirs.Load()
	return Level{min(a-b, b-a, r.size()), r.size()}
}

// Sub gives what was counted since an earlier reading; levels are as they are now.
func (s Stats) Sub(old Stats) Stats {
	for _, p := range []struct{ now, then *uint64 }{
		{&s.RxPackets, &old.RxPackets}, {&s.RxBytes, &old.RxBytes}, {&s.TxPackets, &old.TxPackets}, {&s.TxBytes, &old.TxBytes},
		{&s.TxCompleted, &old.TxCompleted}, {&s.Kicks, &old.Kicks}, {&s.KicksRefused, &old.KicksRefused}, {&s.Waits, &old.Waits},
		{&s.NotOwned, &old.NotOwned},
		{&s.Kernel.RxDropped, &old.Kernel.RxDropped}, {&s.Kernel.RxInvalidDescs, &old.Kernel.RxInvalidDescs},
		{&s.Kernel.TxInvalidDescs, &old.Kernel.TxInvalidDescs}, {&s.Kernel.RxRingFull, &old.Kernel.RxRingFull},
		{&s.Kernel.RxFillRingEmpty, &old.Kernel.RxFillRingEmpty}, {&s.Kernel.TxRingEmpty, &old.Kernel.TxRingEmpty},
	} {
		*p.now -= *p.then
	}
	return s
}

// getsockopt reads an option of SOL_XDP of at most n bytes.
func getsockopt(fd, opt, n int) ([]byte, error) {
	b := make([]byte, n)
	size := uint32(n)
	// The kernel writes at most size bytes to b, and to size; both are kept by this frame until the call is over.
	if _, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_XDP, uintptr(opt),
		uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&size)), 0); errno != 0 {
		return nil, fmt.Errorf("getsockopt %d: %w", opt, errno)
	}
	return b[:min(int(size), n)], nil
}

// Add gives the sum of what two queues counted; levels add up, too.
func (s Stats) Add(o Stats) Stats {
	zero := Stats{}.Sub(o) // counters wrap: minus minus is plus
	t := s.Sub(zero)
	for _, p := range []struct{ to, a, b *Level }{{&t.Fill, &s.Fill, &o.Fill}, {&t.Completion, &s.Completion, &o.Completion}, {&t.RX, &s.RX, &o.RX}, {&t.TX, &s.TX, &o.TX}} {
		*p.to = Level{p.a.Used + p.b.Used, p.a.Size + p.b.Size}
	}
	return t
}
