package vmcore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A flattened file is makedumpfile -F's and QEMU's form of a file that was written with seeks: a header of 4096 bytes,
// then records of two big-endian 64-bit numbers (offset, size) and size bytes; offset −1 ends it (struct
// makedumpfile_header and makedumpfile_data_header).
const (
	flatMagic  = "makedumpfile\x00\x00\x00\x00"
	flatHeader = 4096
	flatRecord = 16
)

// maxFlatRecords bounds the index to 24 bytes × 2²⁶.
const maxFlatRecords = 1 << 26

// flat reads the file that a flattened one describes. What no record wrote is a hole and reads as zeroes, as in the file
// that makedumpfile -R makes of it; behind the last record the file ends.
type flat struct {
	f    File
	ext  []extent
	size int64
}

// unflatten indexes a flattened file; it is nil if f is none.
func unflatten(f File) (*flat, error) {
	var h [32]byte
	n, err := f.R.ReadAt(h[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read dump: %w", err)
	}
	if n < len(h) || string(h[:16]) != flatMagic {
		return nil, nil
	}
	r := &flat{f: f}
	var recs []extent
	for at := int64(flatHeader); len(recs) < maxFlatRecords; {
		var rec [flatRecord]byte
		if _, err := f.R.ReadAt(rec[:], at); err != nil {
			break // cut short: what came before is readable
		}
		off, size := int64(binary.BigEndian.Uint64(rec[:])), int64(binary.BigEndian.Uint64(rec[8:]))
		if off < 0 || size < 0 {
			break
		}
		have := min(size, f.Size-at-flatRecord)
		if off+have < off || have < 0 {
			break
		}
		recs = append(recs, extent{at: uint64(off), n: uint64(have), off: at + flatRecord})
		r.size = max(r.size, off+have)
		if have < size || size == 0 && off == 0 {
			break
		}
		at += flatRecord + size
	}
	r.ext = disjoint(recs)
	return r, nil
}

// ReadAt implements io.ReaderAt over the file as it was meant.
func (r *flat) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= r.size {
		return 0, io.EOF
	}
	n := 0
	for n < len(p) {
		at := uint64(off) + uint64(n)
		if int64(at) >= r.size {
			return n, io.EOF
		}
		e, ok := find(r.ext, at)
		if !ok {
			p[n] = 0
			n++
			continue
		}
		in := at - e.at
		want := p[n:min(len(p), n+int(min(e.n-in, uint64(len(p)))))]
		k, err := r.f.R.ReadAt(want, e.off+int64(in))
		n += k
		if k < len(want) {
			return n, err
		}
	}
	return n, nil
}
