package verbs

import (
	"fmt"
	"sync/atomic"
	"unsafe"
)

// Where the parts of a queue are: struct rxe_queue_buf.
const (
	atShift    = 0   // log2 of the size of an element
	atMask     = 4   // number of elements − 1
	atProducer = 128 // index
	atConsumer = 256 // index
	atElements = 384
)

// A ring is a queue that rxe shares with a program: one producer and one consumer, one of them the kernel. Two indices say where the
// next element is put and where the next is taken; both are below the number of elements, and equal if the ring is empty. One element
// always stays free, so that a full ring is no empty one.
//
// Why every access is right, on amd64 and on arm64:
//
//   - An index is written by its own side only. This process keeps a copy of its own (own); so does the kernel since Linux 5.14
//     (struct rxe_queue.index), and it takes nobody else's word for it.
//   - The producer writes elements with plain stores, then the index with an atomic Store; the consumer loads that index atomically
//     before it reads them. The kernel has smp_store_release and smp_load_acquire there (rxe_queue.h); Go's atomics are sequentially
//     consistent, which includes both. So whoever sees an index sees the elements before it, and, of completions, also the bytes that
//     a message left in registered memory: rxe copies them before it posts.
//   - The consumer is done with an element before it stores its index, and the producer loads that index before it writes there again.
//   - So an element is accessed plainly by one side at a time. The race detector sees this too: TestRingSides runs both sides.
//   - A doorbell is a system call after the Store, so the kernel that answers it sees the index.
//
// The first two words of the memory are the kernel's description of it. They are checked once and copied: whatever stands there
// later, and whatever an index says, no access leaves the elements.
type ring struct {
	mem    []byte // the mapping
	mine   *atomic.Uint32
	theirs *atomic.Uint32
	shift  uint
	mask   uint32
	own    uint32 // value of mine, and of elements that are not published yet
}

// newRing finds a ring in memory. Elements must have least bytes, and there must be room for entries of them. producer says that this
// process puts elements in.
func newRing(mem []byte, least uintptr, entries int, producer bool) (r ring, err error) {
	if len(mem) < atElements {
		return r, fmt.Errorf("a queue of %d bytes: its indices alone take %d", len(mem), atElements)
	}
	// The addresses lie in mem, which the ring keeps; a mapping begins at a page, so they are aligned.
	word := func(off int) *atomic.Uint32 { return (*atomic.Uint32)(unsafe.Pointer(&mem[off])) }
	shift, mask := word(atShift).Load(), word(atMask).Load()
	switch {
	case shift > 16 || uintptr(1)<<shift < least:
		return r, fmt.Errorf("a queue with elements of 2^%d bytes: %d are needed", shift, least)
	case mask >= 1<<24 || mask&(mask+1) != 0 || int(mask) < entries:
		return r, fmt.Errorf("a queue with indices up to %d: there must be room for %d elements", mask, entries)
	case atElements+(uint64(mask)+1)<<shift > uint64(len(mem)):
		return r, fmt.Errorf("a queue of %d elements of 2^%d bytes does not lie in %d bytes", mask+1, shift, len(mem))
	}
	r = ring{mem: mem, mine: word(atConsumer), theirs: word(atProducer), shift: uint(shift), mask: mask}
	if producer {
		r.mine, r.theirs = r.theirs, r.mine
	}
	r.own = r.mine.Load() & mask
	return r, nil
}

// element is the memory of the element at this side's index.
func (r *ring) element() []byte { return r.elementAt(r.own) }

func (r *ring) elementAt(index uint32) []byte {
	at := atElements + int(index)<<(r.shift&31)
	return r.mem[at : at+1<<(r.shift&31)]
}

// next goes on to the next element. publish shows what was put, or gives back what was taken.
func (r *ring) next() { r.own = (r.own + 1) & r.mask }

func (r *ring) publish() { r.mine.Store(r.own) }

// room says, of a producer's ring, how many elements can be put.
func (r *ring) room() int { return int((r.theirs.Load() - r.own - 1) & r.mask) }

// ready says, of a consumer's ring, how many elements can be taken.
func (r *ring) ready() int { return int((r.theirs.Load() - r.own) & r.mask) }

// put writes a value to an element at an offset. The element is as long as newRing was told, or longer.
func put[T any](element []byte, off uintptr, v *T) { copy(element[off:], bytesOf(v)) }

// get reads a value at the start of an element.
func get[T any](element []byte) (v T) {
	copy(bytesOf(&v), element)
	return v
}
