package initramfs

import (
	"compress/gzip"
	"fmt"
	"io"
)

// Compression is how an archive is packed. The kernel finds out by itself.
type Compression string

// The compressions offered. Plain boots fastest under emulation, where the guest unpacks slowly and memory is cheap.
const (
	Plain Compression = ""
	Gzip  Compression = "gzip"
)

// Compress returns a writer that packs what is written to it into w. Closing it ends the packed stream, not w.
func Compress(w io.Writer, c Compression) (io.WriteCloser, error) {
	switch c {
	case Plain:
		return nopCloser{w}, nil
	case Gzip:
		return gzip.NewWriterLevel(w, gzip.BestSpeed)
	}
	return nil, fmt.Errorf("compress initramfs: no compression %q; there is gzip", c)
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }
