package remote

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
)

// What goes over a connection is frames: a byte that says of what kind, the length of what follows as a uint32, most
// significant byte first, and that many bytes.
const (
	// To the far side.
	frameStart     = 'S' // JSON of a Start: what to run
	framePing      = 'P' // a moment of ours
	frameInterrupt = 'I' // as Ctrl-C

	// From the far side.
	frameHello = 'H' // JSON of a hello
	framePong  = 'Q' // pong
	framePart  = 'o' // the beginning of a line that is longer than a frame
	frameLine  = 'O' // when it was read, and a line of the verb's standard output, or the rest of one
	frameError = 'E' // a line of its standard error
	frameFile  = 'F' // JSON of a file's place and mode, whose bytes follow
	frameBytes = 'D' // some of a file's bytes
	frameExit  = 'X' // JSON of an exit
)

// mostFrame bounds one frame.
const mostFrame = 1 << 20

// FrameError is a frame that is none.
type FrameError struct {
	Off int64
	Msg string
}

func (e *FrameError) Error() string {
	return fmt.Sprintf("offset %d of the connection: %s", e.Off, e.Msg)
}

// frames reads frames.
type frames struct {
	r   *bufio.Reader
	off int64
	buf []byte
}

func newFrames(r io.Reader) *frames { return &frames{r: bufio.NewReaderSize(r, 64<<10)} }

// next gives a frame, which is valid until the next call; io.EOF where the connection ends between two.
func (f *frames) next() (kind byte, body []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(f.r, head[:]); err != nil {
		if err == io.ErrUnexpectedEOF {
			err = &FrameError{f.off, "it ends inside of a frame"}
		}
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > mostFrame {
		return 0, nil, &FrameError{f.off, fmt.Sprintf("a frame of %d bytes: at most %d", n, mostFrame)}
	}
	if cap(f.buf) < int(n) {
		f.buf = make([]byte, n)
	}
	body = f.buf[:n]
	if _, err := io.ReadFull(f.r, body); err != nil {
		return 0, nil, &FrameError{f.off, "it ends inside of a frame"}
	}
	f.off += 5 + int64(n)
	return head[0], body, nil
}

// sender writes frames, from any goroutine.
type sender struct {
	mu sync.Mutex
	w  *bufio.Writer
}

func newSender(w io.Writer) *sender { return &sender{w: bufio.NewWriterSize(w, 64<<10)} }

// send writes a frame of the parts; one frame goes on its way at once unless more says that others follow.
func (s *sender) send(kind byte, more bool, parts ...[]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	var head [5]byte
	head[0] = kind
	binary.BigEndian.PutUint32(head[1:], uint32(n))
	s.w.Write(head[:]) // a bufio.Writer keeps its error until Flush
	for _, p := range parts {
		s.w.Write(p)
	}
	if more {
		return nil
	}
	return s.w.Flush()
}

// line sends a line, in parts if it is long.
func (s *sender) line(at uint64, b []byte, more bool) error {
	for len(b) > mostFrame/2 {
		if err := s.send(framePart, true, b[:mostFrame/2]); err != nil {
			return err
		}
		b = b[mostFrame/2:]
	}
	return s.send(frameLine, more, binary.BigEndian.AppendUint64(nil, at), b)
}

// pong is the answer to a ping, in ns of the far side's clocks.
type pong struct {
	Sent     uint64 // of ours: what the ping said
	Received uint64 // CLOCK_BOOTTIME there
	Answered uint64
	Real     uint64 // CLOCK_REALTIME there, when it answered
}

func (p pong) bytes() []byte {
	b := make([]byte, 0, 32)
	for _, n := range []uint64{p.Sent, p.Received, p.Answered, p.Real} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return b
}

func readPong(b []byte) (p pong, ok bool) {
	if len(b) != 32 {
		return p, false
	}
	be := binary.BigEndian
	return pong{be.Uint64(b), be.Uint64(b[8:]), be.Uint64(b[16:]), be.Uint64(b[24:])}, true
}
