package netstack

import (
	"context"

	"github.com/fathom-trace/fathom/bypass/tpacket"
	"github.com/fathom-trace/fathom/bypass/xsk"
)

// queue is where a lane's packets come from and go to, at most burst at a time. park alone may run beside the others.
type queue interface {
	// recv takes packets that have come, and does not wait; free gives them back.
	recv() ([]arrived, error)
	free()
	// room gives buffers for packets to send; put has the first of them sent, cut to what was written, as many as it says. The rest is given back.
	room(n int) [][]byte
	put(packets [][]byte) (sent int, err error)
	// kick tells the kernel.
	kick()
	prepare() (ready bool, err error)
	park(context.Context) error
	calm() // has the next park sleep at once
	stats() (xsk.Stats, error)
}

// arrived is a packet that came.
type arrived struct {
	b     []byte
	sound bool // its checksum need not be verified
}

// xskQueue is AF_XDP.
type xskQueue struct {
	q       *xsk.Queue
	got     [burst]xsk.Frame
	n       int
	in      []byte // to put packets of several frames together; nil: none come
	packets [burst]arrived
	frames  [burst]xsk.Frame // to send
	bytes   [burst][]byte
	given   int
}

func (x *xskQueue) recv() (_ []arrived, err error) {
	x.n, err = x.q.Recv(x.got[:])
	room, packets := x.in, 0
	for rest := x.got[:x.n]; len(rest) > 0; packets++ {
		b := rest[0].Bytes()
		if rest[0].More() {
			used := copy(room, b)
			for rest[0].More() {
				rest = rest[1:]
				used += copy(room[used:], rest[0].Bytes())
			}
			b, room = room[:used], room[used:]
		}
		x.packets[packets].b, rest = b, rest[1:]
	}
	return x.packets[:packets], err
}

func (x *xskQueue) free() {
	x.q.Free(x.got[:x.n])
	x.n = 0
}

func (x *xskQueue) room(n int) [][]byte {
	x.given = x.q.Alloc(x.frames[:n])
	for i := range x.frames[:x.given] {
		f := &x.frames[i]
		f.SetLen(f.Cap())
		x.bytes[i] = f.Bytes()
	}
	return x.bytes[:x.given]
}

func (x *xskQueue) put(packets [][]byte) (sent int, err error) {
	for i, p := range packets {
		x.frames[i].SetLen(len(p))
	}
	if len(packets) > 0 {
		sent, err = x.q.Put(x.frames[:len(packets)])
	}
	x.q.Free(x.frames[sent:x.given])
	x.given = 0
	return sent, err
}

// kick leaves an error of the device's to receiving, which meets it, too.
func (x *xskQueue) kick() {
	_ = x.q.Kick()
	if x.q.Outstanding() >= burst {
		x.q.Reap()
	}
}

func (x *xskQueue) prepare() (bool, error)         { return x.q.Prepare() }
func (x *xskQueue) park(ctx context.Context) error { return x.q.Park(ctx) }
func (x *xskQueue) calm()                          { x.q.Calm() }
func (x *xskQueue) stats() (xsk.Stats, error)      { return x.q.Stats() }

// packetQueue is AF_PACKET.
type packetQueue struct {
	q       *tpacket.Queue
	got     [burst]tpacket.Packet
	n       int
	packets [burst]arrived
	bytes   [burst][]byte
	sizes   [burst]int
}

func (x *packetQueue) recv() (_ []arrived, err error) {
	x.n, err = x.q.Recv(x.got[:])
	for i, p := range x.got[:x.n] {
		x.packets[i] = arrived{p.Bytes, p.Sound}
	}
	return x.packets[:x.n], err
}

func (x *packetQueue) free() {
	x.q.Free(x.got[:x.n])
	x.n = 0
}

func (x *packetQueue) room(n int) [][]byte { return x.bytes[:x.q.Room(x.bytes[:n])] }

func (x *packetQueue) put(packets [][]byte) (int, error) {
	for i, p := range packets {
		x.sizes[i] = len(p)
	}
	x.q.Put(x.sizes[:len(packets)])
	return len(packets), nil
}

func (x *packetQueue) kick()                          { x.q.Kick() }
func (x *packetQueue) prepare() (bool, error)         { return x.q.Prepare() }
func (x *packetQueue) park(ctx context.Context) error { return x.q.Park(ctx) }
func (x *packetQueue) calm()                          { x.q.Calm() }
func (x *packetQueue) stats() (xsk.Stats, error)      { return x.q.Stats() }
