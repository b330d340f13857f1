package xsk

import (
	"fmt"
	"sync/atomic"
	"unsafe"
)

// A ring is one producer and one consumer over shared memory, as net/xdp/xsk_queue.h has it. Two indices count entries since
// the start, modulo 2³²; entry i lies in slots[i & mask]. One side is this process, the other the kernel.
//
// Why every access is right, on amd64 and on arm64:
//
//   - An index is written by its own side only. Each side keeps a copy of its own index (own) and needs no load to know it.
//   - The producer writes slots[own…] with plain stores, then the index with atomic Store. The consumer loads that index
//     atomically before it reads the slots. The kernel pairs smp_store_release with smp_load_acquire; Go's atomics are
//     sequentially consistent (XCHG on amd64; STLR and LDAR on arm64), which includes release and acquire. So whoever sees
//     the index sees the slots, and, in the frames they name, the packets.
//   - The consumer reads slots[own…], then stores its index. The producer loads that index before it writes over the slots: as
//     above, the reads are over by then.
//   - So a slot is accessed plainly by one side at a time: between the two indices it is the consumer's, outside the
//     producer's. The race detector sees this too, since it knows the atomics (xsk_test.go runs both sides as goroutines).
//   - The kernel sets the flag that it must be woken and only then looks at the ring once more; this process stores an index
//     and only then loads the flag. That a store must not be passed by a later load is more than release and acquire give;
//     sequential consistency gives it (XCHG is a full barrier; an LDAR does not pass an earlier STLR).
//
// The kernel may be wrong about an index only if somebody else wrote into the memory; a distance beyond the size of the ring
// is cut to it, so that no access leaves the slots.
type ring[T uint64 | Desc] struct {
	mine   *atomic.Uint32 // the index this process writes
	theirs *atomic.Uint32 // the index the kernel writes
	flags  *atomic.Uint32 // nil if the kernel has none
	slots  []T
	mask   uint32
	own    uint32 // value of mine, and of entries that are not published yet
	seen   uint32 // value of theirs when it was last looked at
	mem    []byte // the mapping
}

// ringBytes is how long the mapping of a ring is.
func ringBytes[T uint64 | Desc](o ringOffsets, size uint32) int {
	var t T
	return int(o.Desc) + int(size)*int(unsafe.Sizeof(t))
}

// newRing makes a ring of memory that both sides see. producer says that this process puts entries in.
func newRing[T uint64 | Desc](mem []byte, o ringOffsets, size uint32, producer bool) (r ring[T], err error) {
	n := ringBytes[T](o, size)
	if size == 0 || size&(size-1) != 0 || n > len(mem) || o.Producer+4 > o.Desc || o.Consumer+4 > o.Desc || o.Flags+4 > o.Desc {
		return r, fmt.Errorf("ring of %d entries at %+v does not lie in %d bytes", size, o, len(mem))
	}
	if (o.Producer|o.Consumer|o.Flags)%4 != 0 || o.Desc%8 != 0 {
		return r, fmt.Errorf("ring at %+v is not aligned", o)
	}
	// The pointers lie in mem, which the ring keeps, and are aligned: both were checked above.
	index := func(off uint64) *atomic.Uint32 { return (*atomic.Uint32)(unsafe.Pointer(&mem[off])) }
	r = ring[T]{slots: unsafe.Slice((*T)(unsafe.Pointer(&mem[o.Desc])), size), mask: size - 1, mem: mem}
	r.mine, r.theirs = index(o.Consumer), index(o.Producer)
	if producer {
		r.mine, r.theirs = r.theirs, r.mine
	}
	if o.Flags != 0 {
		r.flags = index(o.Flags)
	}
	r.own, r.seen = r.mine.Load(), r.theirs.Load()
	return r, nil
}

// noRing is what a queue has for a ring that was left out: nothing is in it, and nothing goes in.
func noRing[T uint64 | Desc]() ring[T] {
	return ring[T]{mine: new(atomic.Uint32), theirs: new(atomic.Uint32)}
}

// size is the number of slots.
func (r *ring[T]) size() uint32 { return uint32(len(r.slots)) }

// room says how many entries can be put, looking at the other side's index only if less than want is known to be free.
func (r *ring[T]) room(want uint32) uint32 {
	used := r.own - r.seen
	if used > r.size() || r.size()-used < want {
		r.seen = r.theirs.Load()
		used = min(r.own-r.seen, r.size())
	}
	return r.size() - used
}

// used says how many entries of a producer the other side has not taken.
func (r *ring[T]) used() uint32 {
	r.seen = r.theirs.Load()
	return min(r.own-r.seen, r.size())
}

// put writes an entry; there is room. publish shows it.
func (r *ring[T]) put(v T) {
	r.slots[r.own&r.mask] = v
	r.own++
}

// publish shows what was put, or gives back what was got.
func (r *ring[T]) publish() { r.mine.Store(r.own) }

// ready says how many entries can be got, looking at the other side's index only if there are fewer than want.
func (r *ring[T]) ready(want uint32) uint32 {
	n := r.seen - r.own
	if n < want || n > r.size() {
		r.seen = r.theirs.Load()
		n = r.seen - r.own
	}
	return min(n, r.size())
}

// get reads an entry; one is ready. publish gives its slot back.
func (r *ring[T]) get() T {
	v := r.slots[r.own&r.mask]
	r.own++
	return v
}

// wantsWakeup says that the kernel does not look at the ring by itself.
func (r *ring[T]) wantsWakeup() bool { return r.flags != nil && r.flags.Load()&needWakeup != 0 }

// needWakeup is XDP_RING_NEED_WAKEUP.
const needWakeup = 1
