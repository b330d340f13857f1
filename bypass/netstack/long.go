package netstack

// longQueue is AF_XDP where packets to send may be longer than a frame: they are written into as many as it takes.
type longQueue struct {
	xskQueue
	size  int    // bytes of the longest packet, with Ethernet
	parts int    // frames that it takes
	out   []byte // what is being written, size bytes for each packet
}

func newLongQueue(x xskQueue, size int) *longQueue {
	parts := (size + frameSize - 1) / frameSize
	return &longQueue{xskQueue: x, size: size, parts: parts, out: make([]byte, burst/parts*size)}
}

func (x *longQueue) room(n int) [][]byte {
	n = min(n, burst/x.parts)
	x.given = x.q.Alloc(x.frames[:n*x.parts])
	n = x.given / x.parts
	for i := range n {
		x.bytes[i] = x.out[i*x.size:][:x.size]
	}
	return x.bytes[:n]
}

func (x *longQueue) put(packets [][]byte) (sent int, err error) {
	var ends [burst]int // of packets, in frames
	used := 0
	for i, p := range packets {
		for len(p) > 0 {
			f := &x.frames[used]
			f.SetLen(len(p))
			p = p[copy(f.Bytes(), p):]
			f.SetMore(len(p) > 0)
			used++
		}
		ends[i] = used
	}
	taken := 0
	if used > 0 {
		taken, err = x.q.Put(x.frames[:used])
	}
	for sent < len(packets) && ends[sent] <= taken {
		sent++
	}
	x.q.Free(x.frames[taken:x.given])
	x.given = 0
	return sent, err
}
