package traceevent

import (
	"errors"
	"fmt"
	"io"
)

// Pages reads the events of one CPU out of pages of the kernel's ring buffer. It implements [Stream].
type Pages struct {
	r      io.Reader
	cpu    int
	header PageHeader
	byID   []*Format
	buf    []byte // pages read, not yet taken apart
	at     int
	cur    Cursor
	last   uint64
	gap    bool   // events are missing before the first event of this page
	lost   uint64 // so many
	unsure bool   // of one gap the kernel did not tell the number
	eof    bool
	err    error
	// Unknown counts records of events without a format.
	Unknown uint64
}

// readAhead is how much is read at once, in bytes.
const readAhead = 256 << 10

// NewPages reads pages one behind the other, until the end of r.
func NewPages(r io.Reader, cpu int, h PageHeader, formats []*Format) *Pages {
	p := &Pages{r: r, cpu: cpu, header: h, buf: make([]byte, 0, max(readAhead/h.Size, 1)*h.Size)}
	for _, f := range formats {
		for len(p.byID) <= f.ID && f.ID < 1<<16 {
			p.byID = append(p.byID, nil)
		}
		if f.ID < len(p.byID) {
			p.byID[f.ID] = f
		}
	}
	return p
}

// Err implements [Stream].
func (p *Pages) Err() error { return p.err }

// Next implements [Stream].
func (p *Pages) Next(e *Event) bool {
	for {
		rec := p.cur.Next()
		if rec == nil {
			if p.cur.Err != nil && p.err == nil {
				p.err = fmt.Errorf("CPU %d: %w", p.cpu, p.cur.Err)
			}
			if !p.page() {
				return false
			}
			continue
		}
		if p.gap {
			// The record is given next: the cursor does not go on in between.
			p.gap = false
			*e = Event{Time: p.cur.Time, CPU: p.cpu, Lost: p.lost, Since: p.last}
			if p.unsure {
				e.Lost = 0
			}
			p.cur = p.cur.Again(rec)
			return true
		}
		p.last = p.cur.Time
		var f *Format
		if len(rec) >= 2 {
			if id := int(rec[0]) | int(rec[1])<<8; id < len(p.byID) {
				f = p.byID[id]
			}
		}
		if f == nil {
			p.Unknown++
			continue
		}
		e.Time, e.CPU, e.Format, e.Rec, e.Lost, e.Since = p.cur.Time, p.cpu, f, rec, 0, 0
		return true
	}
}

// page goes on to the next page.
func (p *Pages) page() bool {
	for {
		if p.at+p.header.Size > len(p.buf) && !p.fill() {
			return false
		}
		b := p.buf[p.at : p.at+p.header.Size]
		p.at += p.header.Size
		page, err := ParsePage(b, p.header)
		if err != nil {
			if p.err == nil {
				p.err = fmt.Errorf("CPU %d: %w", p.cpu, err)
			}
			continue // the pages behind it have their own times
		}
		if !p.gap {
			p.lost, p.unsure = 0, false
		}
		if page.Missed {
			p.gap = true
			p.lost += page.Lost
			p.unsure = p.unsure || page.Lost == 0
		}
		p.cur = page.Cursor()
		return true
	}
}

func (p *Pages) fill() bool {
	if p.eof {
		return false
	}
	n, err := io.ReadFull(p.r, p.buf[:cap(p.buf)])
	if err != nil {
		p.eof = true
		if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && p.err == nil {
			p.err = fmt.Errorf("read CPU %d: %w", p.cpu, err)
		}
	}
	if cut := n % p.header.Size; cut != 0 { // the file ends within a page: what is there is not whole
		clear(p.buf[n:cap(p.buf)][:p.header.Size-cut])
		n += p.header.Size - cut
	}
	p.buf, p.at = p.buf[:n], 0
	return n > 0
}
