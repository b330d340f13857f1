package pid1

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"sync"

	"github.com/fathom-trace/fathom/internal/bin"
)

// Kind says what a [Frame] holds.
type Kind uint8

// The frames, in the order in which a good run sends them.
const (
	Hello  Kind = 'H' // a [Greeting] as JSON: PID 1 is ready
	Log    Kind = 'L' // text: something PID 1 could not do
	Start  Kind = 'S' // empty: the command is about to be started
	Stdout Kind = 'O' // bytes a command wrote
	Stderr Kind = 'E'
	Exit   Kind = 'X' // an [Exited] as JSON: the command is over and all it wrote was sent
	File   Kind = 'F' // a [FileHead] as JSON: a collected file begins
	Data   Kind = 'D' // its next bytes
	Beat   Kind = 'B' // empty, every second: PID 1 lives
	Done   Kind = 'Z' // empty: the job is over, power goes off
)

// magic starts every frame, so that a stray byte on the line is noticed at once.
const magic = 0xfa

const headLen = 8

// MaxData is the most one frame carries.
const MaxData = 64 << 10

// Frame is one message from PID 1 to the host: magic, kind, u16 command, u32 length, data; little endian.
type Frame struct {
	Kind Kind
	Cmd  uint16 // index of the command in the job, for Start, Stdout, Stderr, Exit
	Data []byte
}

// Greeting is what PID 1 says first.
type Greeting struct {
	Release string  // uname -r
	Uptime  float64 // seconds since the kernel started, when PID 1 had mounted everything
}

// Exited is how a command ended.
type Exited struct {
	Code   int     // exit code; 128 + Signal if a signal killed it; 127 if it did not start
	Signal int     // 0 if it exited by itself
	Secs   float64 // by the guest's clock
	Err    string  `json:",omitempty"` // why a session's request failed
	Mode   uint32  `json:",omitempty"` // of the file that OpGet sent
}

// FileHead announces a collected file.
type FileHead struct {
	Name string
	Mode uint32
}

// FrameWriter writes frames. It may be used by several goroutines.
type FrameWriter struct {
	mu  sync.Mutex
	w   io.Writer
	buf []byte
	err error
}

// NewFrameWriter writes to w, one Write per frame.
func NewFrameWriter(w io.Writer) *FrameWriter { return &FrameWriter{w: w} }

// Send writes data as one frame, or as several if it is long. After an error it does nothing but return it.
func (w *FrameWriter) Send(kind Kind, cmd uint16, data []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for first := true; first || len(data) > 0; first = false {
		n := min(len(data), MaxData)
		w.buf = append(w.buf[:0], magic, byte(kind))
		w.buf = binary.LittleEndian.AppendUint16(w.buf, cmd)
		w.buf = binary.LittleEndian.AppendUint32(w.buf, uint32(n))
		w.buf = append(w.buf, data[:n]...)
		data = data[n:]
		if w.err == nil {
			_, w.err = w.w.Write(w.buf)
		}
	}
	return w.err
}

// SendJSON sends v as JSON, which must fit one frame.
func (w *FrameWriter) SendJSON(kind Kind, cmd uint16, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return w.Send(kind, cmd, b)
}

// FrameReader reads frames; the guest is not trusted to send good ones.
type FrameReader struct {
	r   io.Reader
	off int64
	buf []byte
}

// NewFrameReader reads from r, which should be buffered.
func NewFrameReader(r io.Reader) *FrameReader { return &FrameReader{r: r} }

// Next returns the next frame, valid until the next call; io.EOF at the end of the stream between two frames.
func (r *FrameReader) Next() (Frame, error) {
	var head [headLen]byte
	if _, err := io.ReadFull(r.r, head[:]); err != nil {
		return Frame{}, r.fail(err)
	}
	c := bin.NewCursorAt(head[:], binary.LittleEndian, r.off)
	m, f, n := c.U8(), Frame{Kind: Kind(c.U8()), Cmd: c.U16()}, c.U32()
	if m != magic || n > MaxData {
		return Frame{}, &bin.FormatError{What: "guest frame", Off: r.off, Msg: fmt.Sprintf("bad head % x", head)}
	}
	if cap(r.buf) < int(n) {
		r.buf = make([]byte, MaxData)
	}
	f.Data = r.buf[:n]
	if _, err := io.ReadFull(r.r, f.Data); err != nil {
		return Frame{}, r.fail(noEOF(err))
	}
	r.off += headLen + int64(n)
	return f, nil
}

func (r *FrameReader) fail(err error) error {
	if err == io.EOF {
		return err
	}
	return fmt.Errorf("guest frame at %#x: %w", r.off, err)
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
