package vm

import "encoding/binary"

// ring is a ring buffer with the kernel's accounting (kernel/bpf/ringbuf.c):
// an 8-byte header before each record, records rounded up to 8.
type ring struct {
	size       uint64
	prod, cons uint64
	data       []byte // twice size, so that no record wraps
	open       []reservation
	lost       uint64
}

// reservation is a record that is reserved and not yet submitted.
type reservation struct{ off, n int }

const (
	ringHeader  = 8
	ringBusy    = 1 << 31
	ringDiscard = 1 << 30
)

// reserve makes room for n bytes and gives their offset, or false if full.
func (r *ring) reserve(n int) (int, bool) {
	total := (uint64(n) + ringHeader + 7) &^ 7
	if total > r.size || r.prod+total-r.cons > r.size-1 {
		r.lost++
		return 0, false
	}
	if r.data == nil {
		r.data = make([]byte, 2*r.size)
	}
	off := int(r.prod & (r.size - 1))
	binary.LittleEndian.PutUint32(r.data[off:], uint32(n)|ringBusy)
	r.prod += total
	r.open = append(r.open, reservation{off + ringHeader, n})
	return off + ringHeader, true
}

// reserved is the n bytes at off if they lie in an open reservation, or nil.
func (r *ring) reserved(off, n int) []byte {
	if r == nil {
		return nil
	}
	for _, o := range r.open {
		if off >= o.off && off <= o.off+o.n && n <= o.off+o.n-off {
			return sub(r.data, off, n)
		}
	}
	return nil
}

// commit ends the reservation at off; false if there is none.
func (r *ring) commit(off int, discard bool) bool {
	if r == nil {
		return false
	}
	for i, o := range r.open {
		if o.off != off {
			continue
		}
		r.open = append(r.open[:i], r.open[i+1:]...)
		length := uint32(o.n)
		if discard {
			length |= ringDiscard
		}
		binary.LittleEndian.PutUint32(r.data[off-ringHeader:], length)
		return true
	}
	return false
}

// drain calls fn for every submitted record up to the first open one. The
// bytes are valid during the call.
func (r *ring) drain(fn func([]byte)) {
	for r.cons < r.prod {
		off := int(r.cons & (r.size - 1))
		head := binary.LittleEndian.Uint32(r.data[off:])
		if head&ringBusy != 0 {
			return
		}
		n := int(head &^ ringDiscard)
		if head&ringDiscard == 0 {
			fn(r.data[off+ringHeader : off+ringHeader+n])
		}
		r.cons += uint64(n+ringHeader+7) &^ 7
	}
}
