package xsk

import (
	"runtime"
	"testing"
	"unsafe"
)

// fakeKernel is the other side of a queue's rings: what is sent arrives again.
type fakeKernel struct {
	mem    []byte
	size   uint64
	fill   ring[uint64]
	comp   ring[uint64]
	rx, tx ring[Desc]
}

// words is memory that is aligned as a mapping is, and that the race detector and checkptr watch.
func words(n int) []byte {
	w := make([]uint64, (n+7)/8)
	return unsafe.Slice((*byte)(unsafe.Pointer(&w[0])), n)
}

// fakeOffsets are where parts of a ring are; the indices lie in cache lines of their own, as the kernel's do.
var fakeOffsets = ringOffsets{Producer: 0, Consumer: 64, Flags: 72, Desc: 128}

// pair makes both sides of a ring; ours is the producer or not.
func pair[T uint64 | Desc](t testing.TB, size uint32, producer bool) (ours, theirs ring[T]) {
	t.Helper()
	mem := words(ringBytes[T](fakeOffsets, size))
	ours, err := newRing[T](mem, fakeOffsets, size, producer)
	if err == nil {
		theirs, err = newRing[T](mem, fakeOffsets, size, !producer)
	}
	if err != nil {
		t.Fatal(err)
	}
	return ours, theirs
}

// fakeQueue makes a queue without a socket, and its kernel.
func fakeQueue(t testing.TB, m Memory, entries uint32) (*Queue, *fakeKernel) {
	t.Helper()
	mem := words(m.Frames * m.FrameSize)
	u := newUMEM(mem, m)
	q := &Queue{umem: u, fd: -1, opts: Options{Wait: SpinYield}, caps: Caps{NeedWakeup: true}} // the flag is never set: no system calls
	k := &fakeKernel{mem: mem, size: uint64(m.FrameSize)}
	q.fill, k.fill = pair[uint64](t, entries, true)
	q.comp, k.comp = pair[uint64](t, entries, false)
	q.rx, k.rx = pair[Desc](t, entries, false)
	q.tx, k.tx = pair[Desc](t, entries, true)
	q.start(u)
	return q, k
}

// step loops frames back, whole packets at a time, as far as there is room and frames; it says how many it moved.
func (k *fakeKernel) step() int {
	n := 0
	for {
		// A packet of several frames moves whole.
		var descs []Desc
		ready := k.tx.ready(1 << 30)
		for i := uint32(0); i < ready; i++ {
			d := k.tx.slots[(k.tx.own+i)&k.tx.mask]
			descs = append(descs, d)
			if d.Options&pktContinued == 0 {
				break
			}
		}
		want := uint32(len(descs))
		if want == 0 || k.fill.ready(want) < want || k.rx.room(want) < want || k.comp.room(want) < want {
			break
		}
		for _, d := range descs {
			k.tx.get()
			to := k.fill.get()
			to += k.size / 4 // headroom, as a driver leaves it
			copy(k.mem[to:to+uint64(d.Len)], k.mem[d.Addr:d.Addr+uint64(d.Len)])
			k.rx.put(Desc{to, d.Len, d.Options})
			k.comp.put(d.Addr)
			n++
		}
		k.tx.publish()
		k.fill.publish()
		k.rx.publish()
		k.comp.publish()
	}
	return n
}

// run loops frames back until done is closed.
func (k *fakeKernel) run(done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		default:
		}
		if k.step() == 0 {
			runtime.Gosched()
		}
	}
}
