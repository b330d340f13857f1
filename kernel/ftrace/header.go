package ftrace

import (
	"encoding/binary"

	"github.com/fathom-trace/fathom/traceevent"
)

// sizeBits are the bits of a page's commit that are its size; those above say what was lost before it.
const sizeBits = 1<<20 - 1

// committed is how many bytes of records a page has.
func committed(b []byte, h traceevent.PageHeader) uint64 {
	n := binary.LittleEndian.Uint64(b[h.CommitOff:]) & sizeBits
	return min(n, uint64(len(b)-h.DataOff))
}

// putHeader writes the header of a page whose first record is at a time.
func putHeader(b []byte, h traceevent.PageHeader, time, size uint64) {
	binary.LittleEndian.PutUint64(b, time)
	binary.LittleEndian.PutUint64(b[h.CommitOff:], size)
}
