package walk

import (
	"encoding/binary"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/fathom-trace/fathom/kernel"
)

// Message is one record of the kernel's log.
type Message struct {
	Seq      uint64
	Time     time.Duration // since boot
	Level    int           // 0 (emergency) to 7 (debug)
	Facility int
	Text     string
	Caller   string // "T123" or "C0", where the kernel keeps it
}

// Log goes over the messages of the printk ring buffer (kernel/printk/printk_ringbuffer.h, since 5.10), oldest first.
// Records that were being written or have been overwritten are left out, as in dmesg.
func Log(t kernel.Target) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		r, err := openRing(t)
		if err != nil {
			yield(Message{}, err)
			return
		}
		for id := r.tail; ; id = (id + 1) & idMask {
			m, ok, err := r.message(id)
			if err != nil {
				yield(Message{}, fmt.Errorf("read log record %d: %w", id, err))
				return
			}
			if ok && !yield(m, nil) || id == r.head {
				return
			}
		}
	}
}

// A descriptor's state is in the two top bits of its state_var, its identity in the others.
const (
	idMask    = 1<<62 - 1
	committed = 1
	finalized = 2
)

type ring struct {
	t           kernel.Target
	descs       kernel.Value
	infos       kernel.Value
	descMask    uint64
	tail, head  uint64
	data, dsize uint64
	errs        *kernel.Errors
}

func openRing(t kernel.Target) (*ring, error) {
	errs := &kernel.Errors{}
	prb := kernel.Global(t, errs, "struct printk_ringbuffer *", "prb").Deref()
	d, x := prb.Get("desc_ring"), prb.Get("text_data_ring")
	r := &ring{t: t, errs: errs, descs: d.Get("descs"), infos: d.Get("infos"), data: x.Get("data").Uint()}
	bits, dbits := d.Get("count_bits").Uint(), x.Get("size_bits").Uint()
	r.head, r.tail = d.Get("head_id.counter").Uint()&idMask, d.Get("tail_id.counter").Uint()&idMask
	if bits > 30 || dbits > 32 {
		return nil, fmt.Errorf("read log: sizes of 2^%d records and 2^%d bytes", bits, dbits)
	}
	r.descMask, r.dsize = 1<<bits-1, 1<<dbits
	if (r.head-r.tail)&idMask > r.descMask {
		r.tail = (r.head - r.descMask) & idMask
	}
	if err := errs.Take(); err != nil {
		return nil, fmt.Errorf("read log: %w", err)
	}
	return r, nil
}

func (r *ring) message(id uint64) (m Message, ok bool, err error) {
	d := r.descs.At(int(id & r.descMask))
	state := d.Get("state_var.counter").Uint()
	begin, next := d.Get("text_blk_lpos.begin").Uint(), d.Get("text_blk_lpos.next").Uint()
	if err := r.errs.Take(); err != nil {
		return m, false, err
	}
	if st := state >> 62; state&idMask != id || st != committed && st != finalized {
		return m, false, nil
	}
	i := r.infos.At(int(id & r.descMask))
	m = Message{Seq: i.Get("seq").Uint(), Time: time.Duration(i.Get("ts_nsec").Uint()), Level: i.Get("level").Int(), Facility: i.Get("facility").Int()}
	if c := uint32(i.Get("caller_id").Uint()); c>>31 != 0 {
		m.Caller = fmt.Sprintf("C%d", c&^(1<<31))
	} else {
		m.Caller = fmt.Sprintf("T%d", c)
	}
	n := i.Get("text_len").Uint()
	if err := r.errs.Take(); err != nil {
		return m, false, err
	}
	m.Text, err = r.text(id, begin, next, n)
	return m, err == nil, err
}

// text reads a data block: its descriptor's identity, then the text. A block that does not fit before the end of the ring
// stands at its start.
func (r *ring) text(id, begin, next, n uint64) (string, error) {
	if begin&1 != 0 { // a record without text
		return "", nil
	}
	at := begin & (r.dsize - 1)
	if begin/r.dsize != next/r.dsize && next&(r.dsize-1) != 0 {
		at = 0
	}
	n = min(n, r.dsize-at, 64<<10)
	b := make([]byte, 8+n)
	if err := r.t.ReadVirt(b, r.data+at); err != nil {
		return "", err
	}
	if binary.LittleEndian.Uint64(b)&idMask != id {
		return "", nil // overwritten
	}
	return strings.TrimRight(string(b[8:]), "\x00"), nil
}

// String is the line that dmesg prints.
func (m Message) String() string {
	return fmt.Sprintf("[%5d.%06d] %s", m.Time/time.Second, m.Time%time.Second/time.Microsecond, m.Text)
}
