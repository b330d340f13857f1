package verbs

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"unsafe"

	"github.com/fathom-trace/fathom/netstate/rdma"
)

// Op is a kind of work.
type Op uint32

// Kinds of work.
const (
	OpSend    Op = iota // a message, which takes one of the peer's receives
	OpWrite             // RDMA WRITE: bytes go to the peer's memory, of which its program is told nothing
	OpRead              // RDMA READ: bytes come from the peer's memory, of which its program is told nothing
	OpReceive           // room for a message
)

// String gives the name.
func (o Op) String() string {
	switch o {
	case OpSend:
		return "send"
	case OpWrite:
		return "write"
	case OpRead:
		return "read"
	case OpReceive:
		return "receive"
	}
	return fmt.Sprintf("Op(%d)", uint32(o))
}

// opcodes are enum ib_uverbs_wr_opcode.
var opcodes = [...]uint32{OpSend: 2, OpWrite: 0, OpRead: 4}

// Send is work for the send queue.
type Send struct {
	ID       uint64 // comes back with the completion
	Op       Op     // OpSend, OpWrite or OpRead
	Segments []Segment
	Remote   Remote // of OpWrite and OpRead: the peer's memory
}

// Receive is room for one message.
type Receive struct {
	ID       uint64 // comes back with the completion
	Segments []Segment
}

// QueuePairOptions say how a queue pair is to be.
type QueuePairOptions struct {
	Send, Receive           *CompletionQueue // where work comes out; they may be the same
	SendDepth, ReceiveDepth int              // how much work can be under way; 64 if 0
	Segments                int              // of a piece of work; 1 if 0
	From                    netip.Addr       // address of the device that packets come from; if it is none, the first IPv4 one, else the first
	Peer                    Access           // what the peer may do, with memory that is registered for it
}

// Endpoint is what the other end of a connection must know. It is to be told by other means, such as TCP.
type Endpoint struct {
	GID netip.Addr `json:"gid"` // address; IPv4 as ::ffff:10.0.0.1
	QP  uint32     `json:"qp"`  // 24 bits
	PSN uint32     `json:"psn"` // number of the first packet, 24 bits
}

// Path says how packets go. The zero value is what libibverbs' examples use: a packet that is not answered within 67 ms is sent again, and a
// peer that has posted no receive is tried again, both without end. Who wants to know that a peer is gone sets Retries, or asks by other means.
type Path struct {
	MTU      int  // bytes of a message in a packet: 256, 512, 1024, 2048 or 4096; both ends need the same. The port's if 0
	Timeout  int  // an answer is waited for 4.096 µs · 2^Timeout; 14 if 0
	Retries  int  // how often packets are sent again, up to 6; rxe takes 7, and so 0 does here, for no end (COMPST_ERROR_RETRY in rxe_comp.c)
	NotReady int  // how often a peer without receives is tried again, up to 6; without end if 0
	NoWait   bool // a peer without receives is not tried again at all
}

// QueuePair is one end of a reliable connection: what is sent arrives once and in order, or the pair fails and says why. Work of one
// direction completes in the order in which it was posted.
type QueuePair struct {
	d        *ProtectionDomain
	handle   uint32
	number   uint32
	psn      uint32
	from     rdma.GID
	sendCQ   *CompletionQueue
	recvCQ   *CompletionQueue
	segments int

	send, recv side
	failed     atomic.Bool // a completion said so

	made bool // in the kernel
	// The doorbell: a command without work, which has the kernel look at the send queue.
	bell   postSend
	answer postSendResp
}

// side is one direction of a queue pair: its queue, and the work that was posted and has not been polled.
type side struct {
	ring ring
	// posted has the work by slot, slots being taken in turns. One goroutine posts, another may poll: under counts what is between
	// them, and each adds to it after it is done with a slot and looks at it before it begins with one.
	posted []posted
	under  atomic.Int64
	next   uint64 // of the one who posts
}

type posted struct {
	id uint64
	op Op
	at uint32 // index of its element in the ring
}

// receiveBit says, in the identity by which the kernel knows work, that it is a receive; below it stands the slot.
const receiveBit = 1 << 63

// Values of commands: enum ib_uverbs_qp_type, enum ib_qp_state, enum ib_qp_attr_mask, enum ib_send_flags (include/rdma/ib_verbs.h).
const (
	reliable = 2 // IB_QPT_RC

	stateInit  = 1
	stateRTR   = 2
	stateRTS   = 3
	stateError = 6

	maskState       = 1 << 0
	maskAccess      = 1 << 3
	maskPKey        = 1 << 4
	maskPort        = 1 << 5
	maskTo          = 1 << 7
	maskMTU         = 1 << 8
	maskTimeout     = 1 << 9
	maskRetries     = 1 << 10
	maskNotReady    = 1 << 11
	maskReceivePSN  = 1 << 12
	maskReads       = 1 << 13
	maskMinRNRTimer = 1 << 15
	maskSendPSN     = 1 << 16
	maskPeerReads   = 1 << 17
	maskPeerQP      = 1 << 20

	signaled = 1 << 1 // IB_SEND_SIGNALED
)

// What connections use without asking.
const (
	readsInFlight = 16
	hopLimit      = 64
	minRNRTimer   = 12 // 0.64 ms: how long a peer shall wait before it tries again to send to us, who have posted no receive
	bits24        = 1<<24 - 1
)

// NewQueuePair makes a queue pair. Receives can be posted to it at once; what is sent needs Connect first.
func (d *ProtectionDomain) NewQueuePair(o QueuePairOptions) (p *QueuePair, err error) {
	const op = "make a queue pair on"
	for _, n := range []*int{&o.SendDepth, &o.ReceiveDepth} {
		if *n == 0 {
			*n = 64
		}
	}
	if o.Segments == 0 {
		o.Segments = 1
	}
	if o.Send == nil || o.Receive == nil || o.SendDepth < 1 || o.ReceiveDepth < 1 || o.Segments < 1 || max(o.SendDepth, o.ReceiveDepth, o.Segments) > 1<<16 {
		return nil, fmt.Errorf("%s RDMA device %s: both completion queues are needed, depths from 1 to 65536, and as many segments at most", op, d.x.device.Name)
	}
	p = &QueuePair{d: d, psn: rand.Uint32() & bits24, sendCQ: o.Send, recvCQ: o.Receive, segments: o.Segments}
	p.send.posted, p.recv.posted = make([]posted, o.SendDepth), make([]posted, o.ReceiveDepth)
	if p.from, err = d.x.source(o.From); err != nil {
		return nil, err
	}
	if err := o.Send.join(p, o.SendDepth); err != nil {
		return nil, d.x.fail(op, err)
	}
	if err := o.Receive.join(p, o.ReceiveDepth); err != nil {
		o.Send.leave(p, o.SendDepth)
		return nil, d.x.fail(op, err)
	}
	if err := p.create(&o); err != nil {
		return nil, errors.Join(d.x.fail(op, err), p.destroy())
	}
	d.x.keep(p)
	return p, nil
}

// create makes the pair in the kernel, maps its queues, and brings it to the state in which receives can be posted.
func (p *QueuePair) create(o *QueuePairOptions) error {
	x := p.d.x
	c := createQP{Domain: p.d.handle, SendCQ: o.Send.handle, ReceiveCQ: o.Receive.handle, MaxSend: uint32(o.SendDepth), MaxReceive: uint32(o.ReceiveDepth),
		MaxSendSegments: uint32(o.Segments), MaxReceiveSegments: uint32(o.Segments), SignalAll: 1, Type: reliable}
	var r createQPResp
	if err := x.ask(cmdCreateQP, &c.asking, unsafe.Sizeof(c), unsafe.Pointer(&r), unsafe.Sizeof(r)); err != nil {
		return err
	}
	p.handle, p.number = r.Handle, r.Number
	p.made, p.bell = true, postSend{Handle: r.Handle, Size: sendWorkLen}
	var err error
	segments := uintptr(o.Segments) * unsafe.Sizeof(Segment{})
	if p.send.ring, err = x.mapRing(r.SendQueue, unsafe.Sizeof(sendWork{})+segments, o.SendDepth, true); err != nil {
		return err
	}
	if p.recv.ring, err = x.mapRing(r.ReceiveQueue, unsafe.Sizeof(receiveWork{})+segments, o.ReceiveDepth, true); err != nil {
		return err
	}
	return p.modify(&modifyQP{State: stateInit, Mask: maskState | maskPKey | maskPort | maskAccess, Port: firstPort, Access: uint32(o.Peer)})
}

// modify changes the pair's state.
func (p *QueuePair) modify(c *modifyQP) error {
	c.Handle = p.handle
	return p.d.x.tell(cmdModifyQP, &c.header, unsafe.Sizeof(*c))
}

// Close ends the pair. Work under way is given up, and completions that were not polled are gone.
func (p *QueuePair) Close() error {
	if !p.d.x.drop(p) {
		return ErrClosed
	}
	if err := p.destroy(); err != nil {
		return p.d.x.fail("close a queue pair on", err)
	}
	return nil
}

func (p *QueuePair) destroy() (err error) {
	if p.made {
		c := destroyQP{Handle: p.handle}
		var r destroyQPResp
		err = p.d.x.ask(cmdDestroyQP, &c.asking, unsafe.Sizeof(c), unsafe.Pointer(&r), unsafe.Sizeof(r))
	}
	p.sendCQ.leave(p, len(p.send.posted))
	p.recvCQ.leave(p, len(p.recv.posted))
	return errors.Join(err, p.send.ring.unmap(), p.recv.ring.unmap())
}

// Number gives the pair's number, by which its device knows it. It has 24 bits.
func (p *QueuePair) Number() uint32 { return p.number }

// Endpoint gives what the other end must know of this one.
func (p *QueuePair) Endpoint() Endpoint { return Endpoint{p.from.Addr, p.number, p.psn} }

// Connect connects the pair with the peer's: it is ready to receive and to send then. The peer may send once this returned; what it sends
// before it tries again, as its path says.
func (p *QueuePair) Connect(to Endpoint, path Path) error {
	if err := p.ReadyToReceive(to, path); err != nil {
		return err
	}
	return p.ReadyToSend(path)
}

// ReadyToReceive is the first half of Connect: what the peer sends is received from now on.
func (p *QueuePair) ReadyToReceive(to Endpoint, path Path) error {
	op := "connect a queue pair with " + to.GID.String() + " through"
	if path.MTU == 0 {
		path.MTU = p.d.x.MTU()
	}
	mtu := mtuCode(path.MTU)
	if mtu == 0 || !to.GID.IsValid() || to.QP > bits24 || to.PSN > bits24 {
		return fmt.Errorf("%s RDMA device %s: an address is needed, numbers of 24 bits, and an MTU of 256, 512, 1024, 2048 or 4096", op, p.d.x.device.Name)
	}
	c := &modifyQP{State: stateRTR, Mask: maskState | maskTo | maskMTU | maskPeerQP | maskReceivePSN | maskPeerReads | maskMinRNRTimer,
		MTU: mtu, PeerQP: to.QP, ReceivePSN: to.PSN, PeerReads: readsInFlight, MinRNRTimer: minRNRTimer,
		To: destination{GID: gid(to.GID), GIDIndex: uint8(p.from.Index), HopLimit: hopLimit, Global: 1, Port: firstPort}}
	if err := p.modify(c); err != nil {
		return p.d.x.fail(op, err)
	}
	return nil
}

// ReadyToSend is the second half of Connect: work can be posted from now on.
func (p *QueuePair) ReadyToSend(path Path) error {
	if path.Timeout == 0 {
		path.Timeout = 14
	}
	if path.Retries == 0 {
		path.Retries = 7
	}
	notReady := path.NotReady
	if notReady == 0 && !path.NoWait {
		notReady = 7 // without end
	}
	if path.Timeout < 0 || path.Timeout > 31 || path.Retries < 0 || path.Retries > 7 || path.NotReady < 0 || path.NotReady > 6 {
		return fmt.Errorf("connect a queue pair: a timeout is 1 to 31, retries are 1 to 7, those of a peer without receives 1 to 6")
	}
	c := &modifyQP{State: stateRTS, Mask: maskState | maskTimeout | maskRetries | maskNotReady | maskSendPSN | maskReads,
		Timeout: uint8(path.Timeout), Retries: uint8(path.Retries), RNRRetries: uint8(notReady), SendPSN: p.psn, Reads: readsInFlight}
	if err := p.modify(c); err != nil {
		return p.d.x.fail("connect a queue pair through", err)
	}
	return nil
}

// Fail has the pair fail: all work that is under way completes as Flushed. The peer learns it when it sends the next time.
func (p *QueuePair) Fail() error {
	p.failed.Store(true)
	if err := p.modify(&modifyQP{State: stateError, Mask: maskState}); err != nil {
		return p.d.x.fail("stop a queue pair on", err)
	}
	return nil
}

// PostSend posts work, and says how much of it was. The memory it names is the device's until the work completes. ErrFull: completions are
// to be polled first. ErrFailed: the pair does no more.
func (p *QueuePair) PostSend(works ...Send) (n int, err error) {
	for n < len(works) {
		if err = p.postSend(&works[n]); err != nil {
			break
		}
		n++
	}
	if n > 0 {
		p.send.ring.publish()
		if rung := p.d.x.ask(cmdPostSend, &p.bell.asking, unsafe.Sizeof(p.bell), unsafe.Pointer(&p.answer), unsafe.Sizeof(p.answer)); rung != nil {
			err = errors.Join(err, p.d.x.fail("send through", rung))
		}
	}
	return n, err
}

func (p *QueuePair) postSend(w *Send) error {
	if int(w.Op) >= len(opcodes) {
		return fmt.Errorf("post to a send queue: %s does not go there", w.Op)
	}
	length, err := p.lengthOf(w.Segments)
	if err != nil {
		return err
	}
	slot, err := p.send.slot(p, posted{id: w.ID, op: w.Op})
	if err != nil {
		return err
	}
	e := p.send.ring.element()
	put(e, 0, &sendWork{ID: slot, Opcode: opcodes[w.Op], Flags: signaled, RemoteAddr: w.Remote.Addr, RemoteKey: w.Remote.Key, Addr: w.Remote.Addr,
		DMA: progress{Length: length, Left: length, Segments: uint32(len(w.Segments))}})
	putSegments(e, unsafe.Sizeof(sendWork{}), w.Segments)
	p.send.ring.next()
	return nil
}

// PostReceive posts room for messages, and says how much of it was: each message takes one Receive, the oldest. The memory is the device's
// until the receive completes. Errors are those of PostSend.
func (p *QueuePair) PostReceive(works ...Receive) (n int, err error) {
	for n < len(works) {
		if err = p.postReceive(&works[n]); err != nil {
			break
		}
		n++
	}
	if n > 0 {
		p.recv.ring.publish() // the device looks there by itself when a message comes
	}
	return n, err
}

func (p *QueuePair) postReceive(w *Receive) error {
	length, err := p.lengthOf(w.Segments)
	if err != nil {
		return err
	}
	slot, err := p.recv.slot(p, posted{id: w.ID, op: OpReceive})
	if err != nil {
		return err
	}
	e := p.recv.ring.element()
	put(e, 0, &receiveWork{ID: slot | receiveBit, DMA: progress{Length: length, Left: length, Segments: uint32(len(w.Segments))}})
	putSegments(e, unsafe.Sizeof(receiveWork{}), w.Segments)
	p.recv.ring.next()
	return nil
}

// mostBytes is the longest message (RXE_PORT_MAX_MSG_SZ).
const mostBytes = 1 << 23

// lengthOf adds up segments, and refuses what the queues have no room for.
func (p *QueuePair) lengthOf(segments []Segment) (uint32, error) {
	if len(segments) > p.segments {
		return 0, fmt.Errorf("post work of %d segments: the queue pair was made for %d", len(segments), p.segments)
	}
	n := uint64(0)
	for _, s := range segments {
		n += uint64(s.Length)
	}
	if n > mostBytes {
		return 0, fmt.Errorf("post work of %d bytes: the device takes %d", n, mostBytes)
	}
	return uint32(n), nil
}

func putSegments(element []byte, off uintptr, segments []Segment) {
	for i := range segments {
		put(element, off+uintptr(i)*unsafe.Sizeof(Segment{}), &segments[i])
	}
}

// slot takes the next slot for work, if there is one, and room in the ring: the kernel gives an element back before it tells of it.
func (s *side) slot(p *QueuePair, w posted) (uint64, error) {
	switch {
	case p.failed.Load():
		return 0, ErrFailed
	case s.ring.mem == nil:
		return 0, ErrClosed
	case s.under.Load() >= int64(len(s.posted)) || s.ring.room() == 0:
		return 0, ErrFull
	}
	slot := s.next % uint64(len(s.posted))
	w.at = s.ring.own
	s.posted[slot] = w
	s.next++
	s.under.Add(1)
	return slot, nil
}

// complete makes a completion of what the kernel put into a completion queue. It is none if there is no such work.
func (p *QueuePair) complete(w *work) (c Completion, ok bool) {
	s := &p.send
	if w.ID&receiveBit != 0 {
		s = &p.recv
	}
	slot := w.ID &^ receiveBit
	if s.under.Load() <= 0 || slot >= uint64(len(s.posted)) {
		return c, false
	}
	was := s.posted[slot]
	c = Completion{ID: was.id, QP: p, Op: was.op, Status: Status(w.Status), Vendor: w.Vendor}
	if c.Status == Flushed && c.Op != OpReceive {
		c.Status = s.cause(was.at)
	}
	s.under.Add(-1)
	if c.Status != Success {
		p.failed.Store(true)
	} else if c.Op == OpReceive {
		c.Bytes = int(w.Bytes)
	}
	return c, true
}

// cause says why work was flushed, out of its element in the send queue. When rxe cannot read what is to be sent it writes why there and
// has the pair fail, and Linux 6.12 then tells of all work as flushed, this one too (flush_send_wqe in rxe_comp.c); 6.1 tells the cause.
// The element is the kernel's no more, and is not used again before the work is counted as polled.
func (s *side) cause(at uint32) Status {
	was := get[sendWork](s.ring.elementAt(at))
	if st := Status(was.Status); st != Success && st <= lastStatus {
		return st
	}
	return Flushed
}

// mtuBytes and mtuCode convert enum ib_mtu: 1 is 256 bytes, 5 is 4096.
func mtuBytes(code uint8) int {
	if code < 1 || code > 5 {
		return 0
	}
	return 128 << code
}

func mtuCode(bytes int) uint8 {
	for code := uint8(1); code <= 5; code++ {
		if mtuBytes(code) == bytes {
			return code
		}
	}
	return 0
}
