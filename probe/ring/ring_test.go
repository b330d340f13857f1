package ring

import (
	"encoding/binary"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"
)

const page = 4096

// writer fills a ring as kernel/bpf/ringbuf.c does.
type writer struct {
	cons, prod *atomic.Uint64
	data       []byte
}

func memory(size int) (*Reader, *writer) {
	align := func(n int) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(&make([]uint64, n/8)[0])), n) }
	c, p := align(page), align(page+size)
	r := newReader(-1, c, p, page)
	return r, &writer{r.cons, r.prod, p[page:]}
}

// reserve gives the position of a record of that size, which is busy; false if the ring is full.
func (w *writer) reserve(size int) (uint64, bool) {
	at := w.prod.Load()
	total := uint64(headerSize + (size+7)&^7)
	if at+total-w.cons.Load() > uint64(len(w.data)) {
		return 0, false
	}
	w.header(at).Store(uint32(size) | busyBit)
	w.prod.Store(at + total)
	return at, true
}

func (w *writer) header(at uint64) *atomic.Uint32 {
	return (*atomic.Uint32)(unsafe.Pointer(&w.data[at&uint64(len(w.data)-1)]))
}

func (w *writer) fill(at uint64, b []byte) {
	for i, c := range b {
		w.data[(at+headerSize+uint64(i))&uint64(len(w.data)-1)] = c
	}
}

func (w *writer) commit(at uint64, flags uint32) {
	h := w.header(at)
	h.Store(h.Load()&^busyBit | flags)
}

// TestRounds: records of all sizes, over many rounds, come out whole and in order, without those that were discarded.
func TestRounds(t *testing.T) {
	r, w := memory(1 << 14)
	rnd := rand.New(rand.NewPCG(1, 2))
	const total = 200_000
	done := make(chan int)
	go func() {
		sent := 0
		for i := range uint64(total) {
			b := make([]byte, 8+rnd.IntN(200))
			binary.LittleEndian.PutUint64(b, i)
			for k := 8; k < len(b); k++ {
				b[k] = byte(i)
			}
			var at uint64
			for ok := false; !ok; {
				if at, ok = w.reserve(len(b)); !ok {
					time.Sleep(time.Microsecond)
				}
			}
			w.fill(at, b)
			if i%7 == 3 {
				w.commit(at, discardBit)
			} else {
				w.commit(at, 0)
				sent++
			}
		}
		done <- sent
	}()
	got, want, sent := 0, uint64(0), -1
	for sent < 0 || got < sent {
		select {
		case sent = <-done:
		default:
		}
		b, err := r.Next(time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		if b == nil {
			time.Sleep(time.Microsecond)
			continue
		}
		for want%7 == 3 {
			want++
		}
		if n := binary.LittleEndian.Uint64(b); n != want {
			t.Fatalf("record %d, want %d", n, want)
		}
		for _, c := range b[8:] {
			if c != byte(want) {
				t.Fatalf("record %d holds %d", want, c)
			}
		}
		want++
		got++
	}
	if b, _ := r.Next(time.Time{}); b != nil || !r.Empty() {
		t.Error("something is left")
	}
}

// TestBusy: a record that is being written holds back those after it, and the writer sees that we wait for it.
func TestBusy(t *testing.T) {
	r, w := memory(1 << 12)
	a, _ := w.reserve(16)
	b, _ := w.reserve(0)
	w.commit(b, 0)
	if got, _ := r.Next(time.Time{}); got != nil {
		t.Fatalf("got %x", got)
	}
	w.commit(a, 0)
	if got, _ := r.Next(time.Time{}); len(got) != 16 {
		t.Fatalf("got %x", got)
	}
	if got, _ := r.Next(time.Time{}); got == nil || len(got) != 0 {
		t.Fatalf("got %v, want an empty record", got)
	}
	c, _ := w.reserve(8)
	if got, _ := r.Next(time.Time{}); got != nil || w.cons.Load() != c {
		t.Errorf("got %x, and told the position %d: want %d, where the next record begins", got, w.cons.Load(), c)
	}
}
