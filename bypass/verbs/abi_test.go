package verbs

import (
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"unsafe"
)

// TestLayout holds our structs to sizes and offsets that a C program printed out of Debian's headers of Linux 6.1 and 6.12, which agree:
// include/uapi/rdma/ib_user_verbs.h and rdma_user_rxe.h. Commands have their header besides.
func TestLayout(t *testing.T) {
	const head = unsafe.Sizeof(header{})
	for _, tt := range []struct {
		what      string
		got, want uintptr
	}{
		{"ib_uverbs_cmd_hdr", head, 8},
		{"ib_uverbs_get_context", unsafe.Sizeof(getContext{}) - head, 8},
		{"ib_uverbs_get_context_resp", unsafe.Sizeof(getContextResp{}), 8},
		{"ib_uverbs_query_port", unsafe.Sizeof(queryPort{}) - head, 16},
		{"ib_uverbs_query_port_resp", unsafe.Sizeof(queryPortResp{}), 40},
		{"ib_uverbs_query_port_resp.state", unsafe.Offsetof(queryPortResp{}.State), 26},
		{"ib_uverbs_query_port_resp.active_mtu", unsafe.Offsetof(queryPortResp{}.ActiveMTU), 28},
		{"ib_uverbs_alloc_pd", unsafe.Sizeof(allocPD{}) - head, 8},
		{"ib_uverbs_alloc_pd_resp", unsafe.Sizeof(allocPDResp{}), 4},
		{"ib_uverbs_dealloc_pd", unsafe.Sizeof(deallocPD{}) - head, 4},
		{"ib_uverbs_reg_mr", unsafe.Sizeof(regMR{}) - head, 40},
		{"ib_uverbs_reg_mr_resp", unsafe.Sizeof(regMRResp{}), 12},
		{"ib_uverbs_dereg_mr", unsafe.Sizeof(deregMR{}) - head, 4},
		{"ib_uverbs_create_comp_channel", unsafe.Sizeof(createChannel{}) - head, 8},
		{"ib_uverbs_create_comp_channel_resp", unsafe.Sizeof(createChannelResp{}), 4},
		{"ib_uverbs_create_cq", unsafe.Sizeof(createCQ{}) - head, 32},
		{"ib_uverbs_create_cq_resp and rxe_create_cq_resp", unsafe.Sizeof(createCQResp{}), 8 + 16},
		{"ib_uverbs_destroy_cq", unsafe.Sizeof(destroyCQ{}) - head, 16},
		{"ib_uverbs_destroy_cq_resp", unsafe.Sizeof(destroyCQResp{}), 8},
		{"ib_uverbs_req_notify_cq", unsafe.Sizeof(reqNotifyCQ{}) - head, 8},
		{"ib_uverbs_create_qp", unsafe.Sizeof(createQP{}) - head, 56},
		{"ib_uverbs_create_qp.sq_sig_all", unsafe.Offsetof(createQP{}.SignalAll) - head, 52},
		{"ib_uverbs_create_qp_resp and rxe_create_qp_resp", unsafe.Sizeof(createQPResp{}), 32 + 32},
		{"ib_uverbs_qp_dest", unsafe.Sizeof(destination{}), 32},
		{"ib_uverbs_qp_dest.sgid_index", unsafe.Offsetof(destination{}.GIDIndex), 24},
		{"ib_uverbs_modify_qp", unsafe.Sizeof(modifyQP{}) - head, 112},
		{"ib_uverbs_modify_qp.qp_handle", unsafe.Offsetof(modifyQP{}.Handle) - head, 64},
		{"ib_uverbs_modify_qp.qp_state", unsafe.Offsetof(modifyQP{}.State) - head, 96},
		{"ib_uverbs_modify_qp.timeout", unsafe.Offsetof(modifyQP{}.Timeout) - head, 105},
		{"ib_uverbs_destroy_qp", unsafe.Sizeof(destroyQP{}) - head, 16},
		{"ib_uverbs_destroy_qp_resp", unsafe.Sizeof(destroyQPResp{}), 4},
		{"ib_uverbs_post_send", unsafe.Sizeof(postSend{}) - head, 24},
		{"ib_uverbs_post_send_resp", unsafe.Sizeof(postSendResp{}), 4},
		{"ib_uverbs_send_wr", sendWorkLen, 56},
		{"ib_uverbs_wc", completionLen, 48},
		{"ib_uverbs_wc.qp_num", unsafe.Offsetof(work{}.QP), 28},
		{"ib_uverbs_wc.wc_flags", unsafe.Offsetof(work{}.Flags), 36},
		{"mminfo", unsafe.Sizeof(mapInfo{}), 16},
		{"rxe_send_wqe", unsafe.Sizeof(sendWork{}), 208},
		{"rxe_send_wqe.wr.opcode", unsafe.Offsetof(sendWork{}.Opcode), 12},
		{"rxe_send_wqe.wr.send_flags", unsafe.Offsetof(sendWork{}.Flags), 16},
		{"rxe_send_wqe.wr.wr.rdma.remote_addr", unsafe.Offsetof(sendWork{}.RemoteAddr), 24},
		{"rxe_send_wqe.wr.wr.rdma.rkey", unsafe.Offsetof(sendWork{}.RemoteKey), 32},
		{"rxe_send_wqe.status", unsafe.Offsetof(sendWork{}.Status), 144},
		{"rxe_send_wqe.iova", unsafe.Offsetof(sendWork{}.Addr), 152},
		{"rxe_send_wqe.dma", unsafe.Offsetof(sendWork{}.DMA), 184},
		{"rxe_recv_wqe", unsafe.Sizeof(receiveWork{}), 40},
		{"rxe_recv_wqe.dma", unsafe.Offsetof(receiveWork{}.DMA), 16},
		{"rxe_dma_info", unsafe.Sizeof(progress{}), 24},
		{"rxe_dma_info.resid", unsafe.Offsetof(progress{}.Left), 4},
		{"rxe_dma_info.num_sge", unsafe.Offsetof(progress{}.Segments), 12},
		{"rxe_sge", unsafe.Sizeof(Segment{}), 16},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %d, not %d", tt.what, tt.got, tt.want)
		}
	}
	for code, want := range []int{0, 256, 512, 1024, 2048, 4096, 0} {
		if got := mtuBytes(uint8(code)); got != want || want != 0 && mtuCode(got) != uint8(code) {
			t.Errorf("MTU code %d: %d bytes, code %d", code, got, mtuCode(got))
		}
	}
	for s := Success; s <= lastStatus+1; s++ {
		if s.String() == "" {
			t.Errorf("status %d has no words", s)
		}
	}
}

// queue is memory as rxe makes it: elements of 1<<shift bytes, mask+1 of them.
func queue(shift, mask uint32, n int) []byte {
	w := make([]uint64, (n+7)/8)
	mem := unsafe.Slice((*byte)(unsafe.Pointer(&w[0])), n)
	put(mem, atShift, &shift)
	put(mem, atMask, &mask)
	return mem
}

// sides are both ends of a ring.
func sides(t testing.TB, shift, mask uint32) (producer, consumer ring) {
	t.Helper()
	mem := queue(shift, mask, atElements+int(mask+1)<<shift)
	producer, err := newRing(mem, 8, int(mask), true)
	if err == nil {
		consumer, err = newRing(mem, 8, int(mask), false)
	}
	if err != nil {
		t.Fatal(err)
	}
	return producer, consumer
}

// TestRingSides runs producer and consumer at once, many times around: the race detector says whether an element is ever both sides'.
func TestRingSides(t *testing.T) {
	const n = 200_000
	p, c := sides(t, 6, 15)
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := uint64(0); i < n; {
			room := p.room()
			if room == 0 {
				runtime.Gosched()
			}
			for range min(uint64(room), n-i) {
				put(p.element(), 8, &i)
				p.next()
				i++
			}
			p.publish()
		}
	})
	for i := uint64(0); i < n; {
		ready := c.ready()
		if ready == 0 {
			runtime.Gosched()
		}
		for range ready {
			if got := get[uint64](c.element()[8:]); got != i {
				t.Fatalf("element %d is %d", i, got)
			}
			c.next()
			i++
		}
		c.publish()
	}
	wg.Wait()
	if p.room() != 15 || c.ready() != 0 {
		t.Errorf("room %d, ready %d in an empty ring", p.room(), c.ready())
	}
}

// TestRingFull: one element stays free, wherever the indices are.
func TestRingFull(t *testing.T) {
	p, c := sides(t, 4, 7)
	for turn := range 20 {
		for i := range 7 {
			if p.room() != 7-i || c.ready() != i {
				t.Fatalf("turn %d: room %d, ready %d after %d", turn, p.room(), c.ready(), i)
			}
			p.next()
			p.publish()
		}
		if p.room() != 0 || c.ready() != 7 {
			t.Fatalf("turn %d: room %d, ready %d in a full ring", turn, p.room(), c.ready())
		}
		for range 7 {
			c.next()
			c.publish()
		}
	}
}

// TestRingHostile: an index that makes no sense leads nowhere outside, nor does what the memory says of itself later.
func TestRingHostile(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	p, c := sides(t, 6, 7)
	for range 1000 {
		junk := r.Uint32()
		put(c.mem, atMask, &junk)
		put(c.mem, atShift, &junk)
		p.mine.Store(r.Uint32())
		if n := c.ready(); n > 7 {
			t.Fatalf("%d ready in a ring of 8", n)
		}
		c.mine.Store(r.Uint32())
		if n := p.room(); n > 7 {
			t.Fatalf("room for %d in a ring of 8", n)
		}
		if len(c.element()) != 64 {
			t.Fatal("an element of another size")
		}
		c.next()
		p.next()
	}
}

func TestRingRefuses(t *testing.T) {
	for _, tt := range []struct {
		name        string
		shift, mask uint32
		n           int
		least       uintptr
		entries     int
		want        string
	}{
		{"short", 6, 7, 64, 48, 7, "its indices alone"},
		{"small elements", 5, 7, 4096, 48, 7, "48 are needed"},
		{"large elements", 31, 7, 4096, 48, 7, "elements of 2^31"},
		{"no power", 6, 8, 4096, 48, 7, "indices up to 8"},
		{"few", 6, 7, 4096, 48, 8, "room for 8"},
		{"many", 6, 1<<32 - 1, 4096, 48, 8, "indices up to"},
		{"cut", 6, 63, atElements + 64*64 - 1, 48, 8, "does not lie in"},
	} {
		_, err := newRing(queue(tt.shift, tt.mask, tt.n), tt.least, tt.entries, true)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// FuzzQueue gives a completion queue whatever the kernel might: no access leaves the memory, no work completes twice.
func FuzzQueue(f *testing.F) {
	good := queue(6, 7, atElements+8*64)
	put(good[atElements:], 0, &work{QP: 17, Bytes: 5, ID: receiveBit | 1})
	f.Add(good, uint32(1))
	f.Add(queue(6, 7, 100), uint32(0))
	f.Fuzz(func(t *testing.T, b []byte, index uint32) {
		mem := queue(0, 0, max(8, len(b)))
		copy(mem, b)
		q := &CompletionQueue{entries: 4}
		var err error
		if q.ring, err = newRing(mem, completionLen, 4, false); err != nil {
			return
		}
		q.ring.theirs.Store(index)
		p := &QueuePair{number: 17}
		p.send.posted, p.recv.posted = make([]posted, 4), make([]posted, 4)
		p.send.under.Store(2)
		p.recv.under.Store(2)
		q.pairs = append(q.pairs, p)
		var to [64]Completion
		if n := q.Poll(to[:]); n > 4 {
			t.Errorf("%d completions of 4 pieces of work", n)
		}
	})
}

// fake makes a queue pair without a device, its completion queue, and the kernel's sides of its rings.
func fake(t *testing.T) (p *QueuePair, q *CompletionQueue, sends, receives, completions ring) {
	t.Helper()
	p = &QueuePair{number: 17, segments: 2}
	p.send.posted, p.recv.posted = make([]posted, 4), make([]posted, 4)
	q = &CompletionQueue{entries: 8, pairs: []*QueuePair{p}, used: 8}
	p.sendCQ, p.recvCQ = q, q
	p.send.ring, sends = sides(t, 8, 7)
	p.recv.ring, receives = sides(t, 7, 7)
	completions, q.ring = sides(t, 6, 15)
	return p, q, sends, receives, completions
}

// TestWork follows work to a kernel of our own and back, around the rings, with the identities that the caller gave.
func TestWork(t *testing.T) {
	p, q, _, receives, completions := fake(t)
	segments := []Segment{{Addr: 0x1000, Length: 7, Key: 5}, {Addr: 0x2000, Length: 9, Key: 6}}
	for i := range uint64(50) {
		n, err := p.PostReceive(Receive{ID: i, Segments: segments}, Receive{ID: ^i, Segments: segments[:1]})
		if n != 2 || err != nil {
			t.Fatal(n, err)
		}
		for j := range 2 {
			if receives.ready() != 2-j {
				t.Fatalf("%d receives arrived", receives.ready())
			}
			e := receives.element()
			got := get[receiveWork](e)
			want := receiveWork{ID: got.ID, DMA: progress{Length: 16, Left: 16, Segments: 2}}
			if j == 1 {
				want.DMA = progress{Length: 7, Left: 7, Segments: 1}
			}
			if got != want || got.ID&receiveBit == 0 || get[Segment](e[40:]) != segments[0] || j == 0 && get[Segment](e[56:]) != segments[1] {
				t.Fatalf("receive %d: %+v", i, got)
			}
			receives.next()
			receives.publish()
			put(completions.element(), 0, &work{ID: got.ID, QP: 17, Bytes: uint32(i)})
			completions.next()
			completions.publish()
		}
		var to [4]Completion
		if n := q.Poll(to[:]); n != 2 || to[0] != (Completion{ID: i, QP: p, Op: OpReceive, Bytes: int(i)}) || to[1].ID != ^i {
			t.Fatalf("%d: %d completions: %+v", i, n, to)
		}
	}
}

// TestRoom: no more work is taken than completions have room for, also if the kernel is done with it; a failed pair takes none.
func TestRoom(t *testing.T) {
	p, q, _, receives, completions := fake(t)
	if _, err := p.PostReceive(Receive{Segments: make([]Segment, 3)}); err == nil || !strings.Contains(err.Error(), "3 segments") {
		t.Error(err)
	}
	if _, err := p.PostReceive(Receive{Segments: []Segment{{Length: 1 << 31}, {Length: 1 << 31}}}); err == nil {
		t.Error("a message of 4 GiB was taken")
	}
	if _, err := p.PostSend(Send{Op: OpReceive}); err == nil {
		t.Error("a receive was taken by the send queue")
	}
	for i := range uint64(4) {
		if _, err := p.PostReceive(Receive{ID: i}); err != nil {
			t.Fatal(err)
		}
		receives.next()
		receives.publish()
	}
	if n, err := p.PostReceive(Receive{}); n != 0 || err != ErrFull {
		t.Fatalf("%d receives posted beyond the depth: %v", n, err)
	}
	put(completions.element(), 0, &work{ID: receiveBit, QP: 17, Status: uint32(Flushed), Opcode: 99})
	completions.next()
	put(completions.element(), 0, &work{ID: receiveBit, QP: 18}) // of a pair that is not ours
	completions.next()
	put(completions.element(), 0, &work{ID: receiveBit | 4, QP: 17}) // of no slot
	completions.next()
	put(completions.element(), 0, &work{ID: 0, QP: 17}) // a send, of which none was posted
	completions.next()
	completions.publish()
	var to [8]Completion
	if n := q.Poll(to[:]); n != 1 || to[0].Status != Flushed || to[0].Op != OpReceive || to[0].Err() == nil {
		t.Fatalf("%d completions: %+v", n, to[0])
	}
	if n, err := p.PostReceive(Receive{}); n != 0 || err != ErrFailed {
		t.Fatalf("%d receives posted to a failed pair: %v", n, err)
	}
	if err := q.join(p, 1); err == nil {
		t.Error("a completion queue took more work than it has entries")
	}
	put(completions.element(), 0, &work{ID: receiveBit | 1, QP: 17})
	completions.next()
	completions.publish()
	q.leave(p, 8)
	if n := q.Poll(to[:]); n != 0 || q.used != 0 {
		t.Errorf("%d completions of a pair that is closed, %d entries used", n, q.used)
	}
}
