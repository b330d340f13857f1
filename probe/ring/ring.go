// Package ring reads BPF ring buffers (kernel/bpf/ringbuf.c) where the kernel put them: records are not copied, but for the
// one in a round that wraps, and the data is mapped once, so that it counts once as our memory.
package ring

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// The word a record begins with (include/uapi/linux/bpf.h): its length, and these bits.
const (
	busyBit    = 1 << 31 // being written
	discardBit = 1 << 30 // its writer changed its mind
	headerSize = 8
)

// Reader reads one ring. One goroutine may use it, and nobody else may read that ring.
type Reader struct {
	fd        int
	consumer  []byte // a page: the position up to which was read
	producer  []byte // a page with the position up to which was reserved, then the data
	cons      *atomic.Uint64
	prod      *atomic.Uint64
	data      []byte
	pos       uint64 // where the next record begins
	published uint64 // the position the kernel was told
	wrapped   []byte // a record that wraps, put together
}

// Open maps a ring buffer map. The caller closes the reader before the map.
func Open(m *ebpf.Map) (*Reader, error) {
	if m.Type() != ebpf.RingBuf {
		return nil, fmt.Errorf("map ring: %s is not a ring buffer", m)
	}
	page := os.Getpagesize()
	cons, err := unix.Mmap(m.FD(), 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map a ring's read position: %w", err)
	}
	prod, err := unix.Mmap(m.FD(), int64(page), page+int(m.MaxEntries()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		_ = unix.Munmap(cons)
		return nil, fmt.Errorf("map a ring's data: %w", err)
	}
	return newReader(m.FD(), cons, prod, page), nil
}

// newReader reads a ring whose pages are given; those of producer are the write position and the data.
func newReader(fd int, consumer, producer []byte, page int) *Reader {
	r := &Reader{fd: fd, consumer: consumer, producer: producer, data: producer[page:]}
	r.cons = (*atomic.Uint64)(unsafe.Pointer(&consumer[0]))
	r.prod = (*atomic.Uint64)(unsafe.Pointer(&producer[0]))
	r.pos = r.cons.Load()
	r.published = r.pos
	return r
}

// Next gives the next record, valid until the next call; nil if there was none until then. The zero time does not wait.
func (r *Reader) Next(until time.Time) ([]byte, error) {
	for {
		if b := r.take(); b != nil {
			return b, nil
		}
		left := time.Until(until)
		if until.IsZero() || left <= 0 {
			return nil, nil
		}
		if err := r.wait(left); err != nil {
			return nil, err
		}
	}
}

// Empty says if everything that was sent was read, or is still being written.
func (r *Reader) Empty() bool { return r.pos == r.prod.Load() }

// take gives the record at our position; nil if there is none that is finished. Space is given back to the kernel now and
// then, and always before nothing is said to be there: a writer wakes us only if it sees that we came to its record
// (bpf_ringbuf_commit).
func (r *Reader) take() []byte {
	if r.pos-r.published >= uint64(len(r.data))/16 {
		r.publish()
	}
	for {
		n, ok := r.finished()
		if !ok && r.published != r.pos {
			r.publish()
			n, ok = r.finished()
		}
		if !ok {
			return nil
		}
		at := r.pos + headerSize
		size := uint64(n &^ (busyBit | discardBit))
		r.pos = at + (size+7)&^7
		if n&discardBit == 0 {
			return r.bytes(at, size)
		}
	}
}

// finished gives the first word of the record at our position, if there is one that is not being written.
func (r *Reader) finished() (uint32, bool) {
	if r.pos == r.prod.Load() {
		return 0, false
	}
	at := r.pos & uint64(len(r.data)-1)
	n := (*atomic.Uint32)(unsafe.Pointer(&r.data[at])).Load()
	return n, n&busyBit == 0
}

func (r *Reader) publish() {
	r.cons.Store(r.pos)
	r.published = r.pos
}

// bytes gives size bytes at a position. They are never nil.
func (r *Reader) bytes(at, size uint64) []byte {
	at &= uint64(len(r.data) - 1)
	if at+size <= uint64(len(r.data)) {
		return r.data[at : at+size : at+size]
	}
	r.wrapped = append(r.wrapped[:0], r.data[at:]...)
	r.wrapped = append(r.wrapped, r.data[:size-uint64(len(r.wrapped))]...)
	return r.wrapped
}

// wait sleeps until a writer wakes us, at most that long. Records sent without waking anybody are found when it ends.
func (r *Reader) wait(d time.Duration) error {
	ts := unix.NsecToTimespec(int64(d))
	_, err := unix.Ppoll([]unix.PollFd{{Fd: int32(r.fd), Events: unix.POLLIN}}, &ts, nil)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("wait for records: %w", err)
	}
	return nil
}

// Close unmaps the ring. Records that were given are gone with it.
func (r *Reader) Close() error {
	r.data = nil
	return errors.Join(unix.Munmap(r.consumer), unix.Munmap(r.producer))
}
