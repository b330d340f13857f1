package shm

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/fathom-trace/fathom/internal/ktest"
)

func create(t testing.TB, c Config) *Memory {
	t.Helper()
	m, err := Create(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// again opens memory as another process does.
func again(t testing.TB, m *Memory) *Memory {
	t.Helper()
	o, err := Open(m.Path())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := o.Close(); err != nil {
			t.Error(err)
		}
	})
	return o
}

func writer(t testing.TB, m *Memory, w Wait) *Writer {
	t.Helper()
	x, err := m.Writer(w)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func reader(t testing.TB, m *Memory, w Wait) *Reader {
	t.Helper()
	x, err := m.Reader(w)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// numbered is a message that tells if it is torn: its number again and again.
func numbered(b []byte, n uint64) []byte {
	for at := 0; at+8 <= len(b); at += 8 {
		binary.LittleEndian.PutUint64(b[at:], n)
	}
	return b
}

func number(t testing.TB, b []byte) uint64 {
	t.Helper()
	n := binary.LittleEndian.Uint64(b)
	for at := 8; at+8 <= len(b); at += 8 {
		if m := binary.LittleEndian.Uint64(b[at:]); m != n {
			t.Fatalf("a torn message: %d and %d", n, m)
		}
	}
	return n
}

func messages() uint64 {
	if ktest.Soak() {
		return 10_000_000
	}
	return 200_000
}

// TestOneToOne: every message arrives once, in order, whole, however both sides wait.
func TestOneToOne(t *testing.T) {
	for _, w := range []Wait{Mixed, Spin, Futex} {
		m := create(t, Config{Slots: 64, Slot: 48})
		wr, rd := writer(t, again(t, m), w), reader(t, again(t, m), w)
		n := messages() / 4
		var wg sync.WaitGroup
		wg.Go(func() {
			var b [48]byte
			for i := range n {
				if err := wr.Send(t.Context(), numbered(b[:8*(1+i%6)], i)); err != nil {
					t.Error(err)
					return
				}
			}
			if err := wr.Close(); err != nil {
				t.Error(err)
			}
		})
		var b [48]byte
		for i := range n {
			k, err := rd.Receive(t.Context(), b[:])
			if err != nil || k != int(8*(1+i%6)) || number(t, b[:k]) != i {
				t.Fatalf("%v: message %d: %d bytes, %v", w, i, k, err)
			}
		}
		if _, err := rd.Receive(t.Context(), b[:]); err != io.EOF {
			t.Errorf("%v: at the end: %v", w, err)
		}
		wg.Wait()
		if err := rd.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestManyToOne: messages of each of several writers arrive in their order.
func TestManyToOne(t *testing.T) {
	const writers = 5
	m := create(t, Config{Writers: writers, Slots: 64, Slot: 16})
	rd := reader(t, m, Mixed)
	n := messages() / 10
	var wg sync.WaitGroup
	for id := range writers {
		w := writer(t, m, Mixed)
		wg.Go(func() {
			defer w.Close()
			var b [16]byte
			b[8] = byte(id)
			for i := range n {
				binary.LittleEndian.PutUint64(b[:], i)
				if err := w.Send(t.Context(), b[:]); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	var next [writers]uint64
	var b [16]byte
	for range writers * n {
		if _, err := rd.Receive(t.Context(), b[:]); err != nil {
			t.Fatal(err)
		}
		if got := binary.LittleEndian.Uint64(b[:]); got != next[b[8]] {
			t.Fatalf("writer %d: %d, not %d", b[8], got, next[b[8]])
		}
		next[b[8]]++
	}
	if _, err := rd.Receive(t.Context(), b[:]); err != io.EOF {
		t.Error(err)
	}
	wg.Wait()
	if _, err := m.Reader(Mixed); !errors.Is(err, ErrTaken) {
		t.Error(err)
	}
	if err := rd.Close(); err != nil {
		t.Error(err)
	}
}

// TestOneToMany: to each of eight readers each message comes, is dropped for all, or is lost to that reader, and the counts say so.
func TestOneToMany(t *testing.T) {
	const readers = 8
	for _, p := range []Policy{Block, Drop, Overwrite} {
		m := create(t, Config{Readers: readers, Slots: 64, Slot: 32, Policy: p})
		n := messages() / 10
		w := writer(t, m, Mixed)
		var wg sync.WaitGroup
		var got, lost [readers]uint64
		for id := range readers {
			r := reader(t, again(t, m), Mixed)
			wg.Go(func() {
				defer r.Close()
				var b [32]byte
				for last := uint64(0); ; {
					k, err := r.Receive(t.Context(), b[:])
					if err == io.EOF {
						lost[id] = r.Lost()
						return
					} else if err != nil {
						t.Error(err)
						return
					}
					i := number(t, b[:k])
					if got[id] > 0 && i <= last {
						t.Errorf("%v: %d after %d", p, i, last)
						return
					}
					last = i
					got[id]++
					if id == 0 && i%100 == 0 {
						time.Sleep(time.Microsecond) // a slow one
					}
				}
			})
		}
		var b [32]byte
		for i := range n {
			if err := w.Send(t.Context(), numbered(b[:], i)); err != nil {
				t.Fatal(err)
			}
		}
		dropped := w.Dropped()
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
		for id := range readers {
			if got[id]+lost[id]+dropped != n || p != Drop && dropped > 0 || p != Overwrite && lost[id] > 0 {
				t.Errorf("%v: of %d messages reader %d got %d, lost %d; %d dropped", p, n, id, got[id], lost[id], dropped)
			}
		}
	}
}

func TestLimits(t *testing.T) {
	m := create(t, Config{Slots: 2, Slot: 8})
	w, r := writer(t, m, Futex), reader(t, m, Futex)
	if err := w.TrySend(make([]byte, 9)); !errors.Is(err, ErrTooLong) {
		t.Error(err)
	}
	var b [8]byte
	if _, err := r.TryReceive(b[:]); !errors.Is(err, ErrEmpty) {
		t.Error(err)
	}
	for range 2 {
		if err := w.TrySend([]byte("12345678")); err != nil {
			t.Error(err)
		}
	}
	if err := w.TrySend(nil); !errors.Is(err, ErrFull) {
		t.Error(err)
	}
	if n, err := r.TryReceive(b[:4]); n != 8 || !errors.Is(err, ErrTooLong) {
		t.Error(n, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := w.Send(ctx, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if n, err := r.TryReceive(b[:]); n != 8 || err != nil {
		t.Error(n, err)
	}
	if err := errors.Join(w.Close(), r.Close()); err != nil {
		t.Error(err)
	}
	if _, err := m.Writer(Spin); err != nil {
		t.Error("a place that was given back is not free:", err)
	}
	for _, c := range []Config{{Slots: 3}, {Slot: -1}, {Writers: 65}, {Readers: 100}, {Policy: 9}, {Policy: Overwrite, Writers: 2}} {
		if m, err := Create(c); err == nil {
			t.Errorf("%+v is made", c)
			m.Close()
		}
	}
}

func FuzzDecode(f *testing.F) {
	var b [64]byte
	c := Config{}.withDefaults()
	c.encode(b[:])
	f.Add(b[:], int64(c.size()))
	f.Add(b[:5], int64(5))
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		c, err := decode(b, size)
		if err != nil || size > 1<<20 {
			return
		}
		mem := make([]byte, size)
		for i := range c.Writers {
			l := newLane(mem, c, i)
			l.slot(0)
			l.slot(uint64(c.Slots - 1))
		}
	})
}
