package xsk

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestOffsets(t *testing.T) {
	b := make([]byte, offsetsLen)
	for i := range offsetsLen / 8 {
		binary.NativeEndian.PutUint64(b[8*i:], uint64(i))
	}
	for _, tt := range []struct {
		name string
		in   []byte
		want offsets
		err  string
	}{
		{"today", b, offsets{ringOffsets{0, 1, 2, 3}, ringOffsets{4, 5, 6, 7}, ringOffsets{8, 9, 10, 11}, ringOffsets{12, 13, 14, 15}}, ""},
		{"before flags", b[:offsetsV1Len], offsets{ringOffsets{0, 1, 2, 0}, ringOffsets{3, 4, 5, 0}, ringOffsets{6, 7, 8, 0}, ringOffsets{9, 10, 11, 0}}, ""},
		{"short", b[:12], offsets{}, "12 bytes"},
	} {
		got, err := decodeOffsets(tt.in)
		if d := cmp.Diff(tt.want, got); d != "" || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %s %v", tt.name, d, err)
		}
	}
	want := KernelStats{RxDropped: 0, RxInvalidDescs: 1, TxInvalidDescs: 2}
	if d := cmp.Diff(want, decodeStats(b[:24])); d != "" {
		t.Error(d)
	}
}

func FuzzLayout(f *testing.F) {
	f.Add(make([]byte, offsetsLen), uint32(64))
	f.Add([]byte("\x00\x01"), uint32(3))
	f.Fuzz(func(t *testing.T, b []byte, size uint32) {
		decodeStats(b)
		o, err := decodeOffsets(b)
		if err != nil {
			return
		}
		mem := words(4096)
		for _, r := range []ringOffsets{o.RX, o.TX, o.Fill, o.Completion} {
			if got, err := newRing[Desc](mem, r, size, true); err == nil {
				got.put(Desc{})
				got.publish()
			}
		}
	})
}

// TestRingSides runs producer and consumer at once: the race detector says whether slots are ever both sides' at a time.
func TestRingSides(t *testing.T) {
	const n = 200_000
	ours, theirs := pair[Desc](t, 64, true)
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := uint64(0); i < n; {
			room := ours.room(1)
			if room == 0 {
				runtime.Gosched()
				continue
			}
			for range min(uint64(room), n-i) {
				ours.put(Desc{Addr: i, Len: uint32(i), Options: ^uint32(i)})
				i++
			}
			ours.publish()
		}
	})
	for i := uint64(0); i < n; {
		ready := theirs.ready(1)
		if ready == 0 {
			runtime.Gosched()
			continue
		}
		for range ready {
			if d := theirs.get(); d != (Desc{i, uint32(i), ^uint32(i)}) {
				t.Fatalf("entry %d is %+v", i, d)
			}
			i++
		}
		theirs.publish()
	}
	wg.Wait()
	if ours.used() != 0 || theirs.ready(1) != 0 {
		t.Error("the ring is not empty")
	}
}

// TestRingWraps starts the indices just before they wrap.
func TestRingWraps(t *testing.T) {
	ours, theirs := pair[uint64](t, 4, true)
	for _, r := range []*ring[uint64]{&ours, &theirs} {
		r.own, r.seen = ^uint32(1), ^uint32(1)
		r.mine.Store(^uint32(1))
	}
	for i := range uint64(10) {
		if got := ours.room(4); got != 4 {
			t.Fatalf("room %d", got)
		}
		ours.put(i)
		ours.publish()
		if got := theirs.ready(1); got != 1 || theirs.get() != i {
			t.Fatalf("%d: %d ready", i, got)
		}
		theirs.publish()
	}
}

// TestRingHostile: an index that makes no sense never leads out of the slots.
func TestRingHostile(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	ours, theirs := pair[Desc](t, 8, false)
	for range 1000 {
		theirs.mine.Store(r.Uint32())
		n := ours.ready(8)
		if n > 8 {
			t.Fatalf("%d ready in a ring of 8", n)
		}
		for range n {
			ours.get()
		}
		ours.publish()
		if l := ours.level(); l.Used > 8 {
			t.Fatalf("level %+v", l)
		}
	}
}

// TestLoop sends frames to a kernel that sends them back: none is lost, changed or there twice, and all frames are free at the end.
func TestLoop(t *testing.T) {
	for _, m := range []Memory{{Frames: 512, FrameSize: 2048}, {Frames: 32, FrameSize: 2048}, {Frames: 4096, FrameSize: 2048}} {
		loop(t, m, 100_000, 64)
	}
	loop(t, Memory{Frames: 64, FrameSize: 2048}, 10_000, 1)
}

func loop(t *testing.T, m Memory, n uint64, batch int) {
	q, k := fakeQueue(t, m, 256)
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { k.run(done) })
	var sent, got uint64
	out, in := make([]Frame, batch), make([]Frame, batch)
	for got < n {
		c := q.Alloc(out[:min(uint64(batch), n-sent)])
		for i := range out[:c] {
			out[i].SetLen(60)
			binary.BigEndian.PutUint64(out[i].Bytes(), sent+uint64(i))
		}
		k, err := q.Send(out[:c])
		if err != nil {
			t.Fatal(err)
		}
		q.Free(out[k:c])
		sent += uint64(k)
		r, err := q.Recv(in)
		if err != nil {
			t.Fatal(err)
		}
		for i := range in[:r] {
			if v := binary.BigEndian.Uint64(in[i].Bytes()); v != got || len(in[i].Bytes()) != 60 {
				t.Fatalf("packet %d is %d", got, v)
			}
			got++
		}
		q.Free(in[:r])
		if r == 0 {
			runtime.Gosched()
		}
	}
	for q.Outstanding() > 0 {
		q.Reap()
		runtime.Gosched()
	}
	close(done)
	wg.Wait()
	s := &q.count
	if s.rxPackets.Load() != n || s.txPackets.Load() != n || s.completed.Load() != n || s.notOwned.Load() != 0 {
		t.Errorf("%+v: counted %d in, %d out, %d back, %d not owned", m, s.rxPackets.Load(), s.txPackets.Load(), s.completed.Load(), s.notOwned.Load())
	}
	if free := len(q.cache) + len(q.umem.free) + int(q.fill.level().Used); free != m.Frames {
		t.Errorf("%+v: %d frames of %d are left", m, free, m.Frames)
	}
}

// TestNoRing: a queue that was opened without a ring receives nothing, and sends nothing.
func TestNoRing(t *testing.T) {
	q, _ := fakeQueue(t, Memory{Frames: 8, FrameSize: 2048}, 8)
	q.rx, q.tx, q.fillTo = noRing[Desc](), noRing[Desc](), 0
	var f [2]Frame
	if n, err := q.Recv(f[:]); n != 0 || err != nil {
		t.Errorf("received: %d, %v", n, err)
	}
	if ready, err := q.Prepare(); ready || err != nil {
		t.Errorf("ready: %t, %v", ready, err)
	}
	n := q.Alloc(f[:])
	if k, err := q.Send(f[:n]); n == 0 || k != 0 || err != nil {
		t.Errorf("%d of %d sent: %v", k, n, err)
	}
}

// TestOwners: a frame that is not the caller's is neither sent nor freed.
func TestOwners(t *testing.T) {
	q, _ := fakeQueue(t, Memory{Frames: 64, FrameSize: 2048}, 16)
	var f [2]Frame
	if q.Alloc(f[:]) != 2 {
		t.Fatal("no frames")
	}
	q.Free(f[:1])
	q.Free(f[:1])
	if n := q.count.notOwned.Load(); n != 1 {
		t.Errorf("%d frames not owned", n)
	}
	if n, err := q.Send([]Frame{f[1], f[0]}); n != 1 || !errors.Is(err, ErrNotOwned) {
		t.Errorf("sent %d, %v", n, err)
	}
	if n, err := q.Send(f[1:]); n != 0 || !errors.Is(err, ErrNotOwned) {
		t.Errorf("sent again: %d, %v", n, err)
	}
}

// TestPackets: a packet of several frames is sent and received whole.
func TestPackets(t *testing.T) {
	q, k := fakeQueue(t, Memory{Frames: 64, FrameSize: 2048}, 16)
	var f [6]Frame
	if q.Alloc(f[:]) != 6 {
		t.Fatal("no frames")
	}
	for i := range f {
		f[i].SetLen(100)
		f[i].SetMore(i%3 != 2)
	}
	if n, err := q.Send(f[:5]); n != 3 || err != nil { // the second packet has no end
		t.Fatalf("sent %d, %v", n, err)
	}
	if n, err := q.Send(f[3:5]); n != 0 || !errors.Is(err, ErrShort) {
		t.Fatalf("sent %d of a packet without an end, %v", n, err)
	}
	if n, err := q.Send(f[3:]); n != 3 || err != nil {
		t.Fatalf("sent %d, %v", n, err)
	}
	k.step()
	var in [8]Frame
	if n, err := q.Recv(in[:2]); n != 0 || !errors.Is(err, ErrShort) {
		t.Errorf("into two: %d, %v", n, err)
	}
	if n, err := q.Recv(in[:5]); n != 3 || err != nil || !in[1].More() || in[2].More() {
		t.Errorf("into five: %d, %v", n, err)
	}
	if n, err := q.Recv(in[:3]); n != 3 || err != nil {
		t.Errorf("the rest: %d, %v", n, err)
	}
	if c := &q.count; c.rxPackets.Load() != 2 || c.rxBytes.Load() != 600 || c.txPackets.Load() != 2 {
		t.Errorf("counted %d packets, %d bytes", c.rxPackets.Load(), c.rxBytes.Load())
	}
}

func TestMetadata(t *testing.T) {
	q, _ := fakeQueue(t, Memory{Frames: 64, FrameSize: 2048, TxMetadata: true}, 16)
	var f [1]Frame
	q.Alloc(f[:])
	f[0].SetLen(64)
	if err := errors.Join(f[0].AskChecksum(34, 6), f[0].AskTimestamp()); err != nil {
		t.Fatal(err)
	}
	m := f[0].metadata()
	if got := binary.NativeEndian.Uint64(m); got != txmdChecksum|txmdTimestamp || m[8] != 34 || m[10] != 6 {
		t.Errorf("metadata % x", m)
	}
	binary.NativeEndian.PutUint64(m[8:], 12345)
	if d, ok := f[0].TxTime(); !ok || d != 12345 {
		t.Errorf("sent at %v, %v", d, ok)
	}
	if f[0].Cap() != 2048-txMetadataLen {
		t.Errorf("room for %d", f[0].Cap())
	}
	q2, _ := fakeQueue(t, Memory{Frames: 64, FrameSize: 2048}, 16)
	q2.Alloc(f[:])
	if err := f[0].AskChecksum(0, 0); !errors.Is(err, ErrNoMetadata) {
		t.Error(err)
	}
}

func TestWaitEnds(t *testing.T) {
	for _, w := range []Wait{Spin, SpinYield} {
		q, _ := fakeQueue(t, Memory{Frames: 64, FrameSize: 2048}, 16)
		q.sleep = &Sleeper{how: w, look: q.look, closed: q.err}

		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		if err := q.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v: %v", w, err)
		}
		cancel()
	}
	for w := Netpoll; w <= BusyPoll; w++ {
		if got, err := ParseWait(w.String()); got != w || err != nil {
			t.Errorf("%v is read as %v, %v", w, got, err)
		}
	}
	if _, err := ParseWait("never"); err == nil {
		t.Error("never is a way to wait")
	}
}

func TestExplain(t *testing.T) {
	q := &Queue{dev: Device{"eth0", "a"}, key: Key{Queue: 3}, opts: Options{Copying: ZeroCopy}}
	err := q.explain("bind", unix.EOPNOTSUPP)
	if want := "bind AF_XDP socket, eth0@a queue 3: operation not supported: zero copy was asked for"; !strings.HasPrefix(err.Error(), want) || !errors.Is(err, unix.EOPNOTSUPP) {
		t.Error(err)
	}
	for _, e := range []unix.Errno{unix.EPERM, unix.EBUSY, unix.EOPNOTSUPP, unix.EINVAL, unix.ENETDOWN, unix.EBADF} {
		if x := new(Error); !errors.As(q.explain("bind", e), &x) || x.Why == "" {
			t.Errorf("bind: %v is not explained", e)
		}
	}
	if x := new(Error); !errors.As(q.explain("register memory", unix.ENOBUFS), &x) || x.Why == "" {
		t.Error("ENOBUFS is not explained")
	}
}

func TestMemory(t *testing.T) {
	for _, m := range []Memory{{FrameSize: 1024}, {FrameSize: 3000}, {FrameSize: 1 << 20}, {Frames: 1}} {
		if u, err := NewUMEM(m); err == nil {
			t.Errorf("%+v is taken", m)
			u.Close()
		}
	}
	u, err := NewUMEM(Memory{Frames: 64})
	if err != nil {
		t.Fatal(err)
	}
	if err := u.Close(); err != nil {
		t.Error(err)
	}
	if u.Close() == nil {
		t.Error("closed twice")
	}
}

func TestStatsAdd(t *testing.T) {
	a := Stats{RxPackets: 1, Kernel: KernelStats{RxRingFull: 5}, TX: Level{1, 8}}
	b := Stats{RxPackets: 2, Kernel: KernelStats{RxRingFull: 7}, TX: Level{2, 8}}
	want := Stats{RxPackets: 3, Kernel: KernelStats{RxRingFull: 12}, TX: Level{3, 16}}
	if d := cmp.Diff(want, a.Add(b)); d != "" {
		t.Error(d)
	}
}

// BenchmarkRing is the cost of a frame's way through the rings, in batches of 64.
func BenchmarkRing(b *testing.B) {
	q, k := fakeQueue(b, Memory{Frames: 512, FrameSize: 2048}, 256)
	var f [64]Frame
	b.ReportAllocs()
	for range b.N / 64 {
		n := q.Alloc(f[:])
		for i := range f[:n] {
			f[i].SetLen(60)
		}
		if _, err := q.Send(f[:n]); err != nil {
			b.Fatal(err)
		}
		k.step()
		n, _ = q.Recv(f[:])
		q.Free(f[:n])
	}
}
