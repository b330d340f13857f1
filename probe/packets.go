package probe

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf/perf"

	"github.com/fathom-trace/fathom/ir"
)

// packetBytes is how many bytes of packets wait to be read, on each CPU, when nobody chose.
const packetBytes = 512 << 10

// PacketReader reads what skboutput sends. One goroutine may use it.
type PacketReader struct {
	r    *perf.Reader
	rec  perf.Record
	lost uint64
}

// Packets opens the buffers of skboutput, of size bytes for each CPU, 0 for a default; nil if no program uses it. The
// caller closes it before the session.
func (s *Session) Packets(size int) (*PacketReader, error) {
	if size == 0 {
		size = packetBytes
	}
	for m, km := range s.maps {
		if m.Kind != ir.PerfArray {
			continue
		}
		r, err := perf.NewReader(km, size)
		if err != nil {
			return nil, fmt.Errorf("open packet buffers: %w", err)
		}
		return &PacketReader{r: r}, nil
	}
	return nil, nil
}

// Next gives the next record, valid until the next call; nil after until with none.
func (p *PacketReader) Next(until time.Time) ([]byte, error) {
	p.r.SetDeadline(until)
	for {
		err := p.r.ReadInto(&p.rec)
		switch {
		case err == nil && p.rec.LostSamples > 0:
			p.lost += p.rec.LostSamples
		case err == nil:
			return p.rec.RawSample, nil
		case isTimeout(err) || errors.Is(err, perf.ErrFlushed):
			return nil, nil
		default:
			return nil, fmt.Errorf("read packet buffers: %w", err)
		}
	}
}

// Lost is how many packets found the buffer full so far.
func (p *PacketReader) Lost() uint64 { return p.lost }

// Close closes the buffers.
func (p *PacketReader) Close() error { return p.r.Close() }

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}
