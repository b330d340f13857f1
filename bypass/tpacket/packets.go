package tpacket

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/bypass/xsk"
)

// Recv takes packets that have come, at most len(b), and does not wait. They are the caller's until Free.
func (q *Queue) Recv(b []Packet) (n int, err error) {
	if err := q.err(); err != nil {
		return 0, err
	}
	for n < len(b) && q.out < q.rx.slots && q.ready() { // those that are out have the same status
		i := q.rx.at
		q.rx.at = q.rx.next(i)
		p, ok := q.packet(i)
		if !ok {
			status(q.rx.slot(i)).Store(unix.TP_STATUS_KERNEL)
			continue
		}
		q.count.rxPackets.Add(1)
		q.count.rxBytes.Add(uint64(len(p.Bytes)))
		b[n] = p
		n++
		q.out++
	}
	if n > 0 {
		q.down.Store(false)
	}
	return n, nil
}

// packet reads slot i, which is ours; false if there is nothing in it for us.
func (q *Queue) packet(i uint32) (p Packet, ok bool) {
	slot := q.rx.slot(i)
	ne := binary.NativeEndian
	flags, size, snap, mac := status(slot).Load(), ne.Uint32(slot[offLen:]), ne.Uint32(slot[offSnaplen:]), uint32(ne.Uint16(slot[offMac:]))
	p = Packet{slot: i, Sound: flags&(unix.TP_STATUS_CSUMNOTREADY|unix.TP_STATUS_CSUM_VALID) != 0}
	if flags&unix.TP_STATUS_COPY != 0 { // it waits in the socket's queue, in the order of the ring
		p.Bytes = q.whole()
	} else if snap == size && mac+snap <= uint32(len(slot)) {
		p.Bytes = slot[mac : mac+snap : mac+snap]
	}
	if len(p.Bytes) == 0 || uint32(len(p.Bytes)) != size {
		q.count.cut.Add(1)
		return p, false
	}
	return p, slot[offPktType] != unix.PACKET_OUTGOING && flags&unix.TP_STATUS_VLAN_VALID == 0
}

// whole reads a packet that is longer than a slot; nil if there is none.
func (q *Queue) whole() []byte {
	var b []byte
	if n := len(q.long); n > 0 {
		b, q.long = q.long[n-1], q.long[:n-1]
	} else {
		b = make([]byte, longest)
	}
	for {
		n, _, err := unix.Recvfrom(q.fd, b[:longest], unix.MSG_DONTWAIT)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			n = 0
		}
		return b[:n]
	}
}

// Free gives packets back.
func (q *Queue) Free(b []Packet) {
	q.out -= uint32(len(b))
	for i := range b {
		if cap(b[i].Bytes) == longest {
			q.long = append(q.long, b[i].Bytes)
		}
		status(q.rx.slot(b[i].slot)).Store(unix.TP_STATUS_KERNEL)
	}
}

// Prepare has the kernel send what it was not told of, and says if packets are there. The error is that the device is gone.
func (q *Queue) Prepare() (ready bool, err error) {
	if err := q.err(); err != nil {
		return false, err
	}
	if q.ready() {
		return true, nil
	}
	q.count.waits.Add(1)
	if q.unsent {
		q.Kick()
	}
	if q.down.Load() {
		return false, q.gone()
	}
	return false, nil
}

// Room gives buffers for packets to send, at most len(b), and says how many. They are the caller's until Put, or the next call of Room.
func (q *Queue) Room(b [][]byte) (n int) {
	for i := q.tx.at; n < len(b); n++ {
		slot := q.tx.slot(i)
		if status(slot).Load() != unix.TP_STATUS_AVAILABLE {
			break
		}
		b[n] = slot[offLink:]
		i = q.tx.next(i)
	}
	return n
}

// Put has packets sent that were written into the first buffers of Room: how long each is. The kernel is told by Kick.
func (q *Queue) Put(sizes []int) {
	for _, n := range sizes {
		slot := q.tx.slot(q.tx.at)
		binary.NativeEndian.PutUint32(slot[offLen:], uint32(n))
		status(slot).Store(unix.TP_STATUS_SEND_REQUEST)
		q.tx.at = q.tx.next(q.tx.at)
		q.count.txPackets.Add(1)
		q.count.txBytes.Add(uint64(n))
		q.unsent = true
	}
}

// Kick has the kernel send what was put. What it cannot take now stays in the ring, for the next one.
func (q *Queue) Kick() {
	q.count.kicks.Add(1)
	q.unsent = false
	if _, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(q.fd), 0, 0, unix.MSG_DONTWAIT, 0, 0); errno != 0 {
		q.count.refused.Add(1)
		q.unsent = true
	}
}

// Stats are what was counted, in the words of AF_XDP: RxRingFull is what found no room, RxDropped what was longer than a slot and found none
// beside.
func (q *Queue) Stats() (s xsk.Stats, err error) {
	q.mu.RLock()
	defer q.mu.RUnlock()
	c := &q.count
	if err = q.err(); err == nil {
		st, serr := unix.GetsockoptTpacketStats(q.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS) // since it was read last
		if err = serr; err == nil {
			c.dropped.Add(uint64(st.Drops))
		}
	}
	s = xsk.Stats{
		RxPackets: c.rxPackets.Load(), RxBytes: c.rxBytes.Load(), TxPackets: c.txPackets.Load(), TxBytes: c.txBytes.Load(),
		Kicks: c.kicks.Load(), KicksRefused: c.refused.Load(), Waits: c.waits.Load(),
	}
	s.Kernel.RxRingFull, s.Kernel.RxDropped = c.dropped.Load(), c.cut.Load()
	return s, err
}
