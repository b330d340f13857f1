// Package vmcore reads the physical memory of a Linux machine out of a dump of it:
//
//   - ELF cores: QEMU's and libvirt's with and without paging, /proc/vmcore of a capture kernel, /proc/kcore;
//   - kdump-compressed files (makedumpfile, QEMU), header versions 1 to 6, with zlib, lzo, snappy and zstd;
//   - both flattened, kdump-compressed also split into several files, and all of them incomplete.
//
// It knows nothing of kernels beyond the text VMCOREINFO that they leave ([Info]). Nothing is loaded: a [Core] keeps an
// index of the file and a bounded number of decompressed pages, and reads on demand.
//
// A page that is not there is a *[MissingError] that says why; it never reads as zeroes.
//
// The formats' authorities are the ELF specification, makedumpfile's diskdump_mod.h and IMPLEMENTATION, and QEMU's
// docs/specs/vmcoreinfo and dump/dump.c.
package vmcore

import (
	"errors"
	"fmt"
	"io"
)

// Format is the kind of file.
type Format string

// The formats.
const (
	FormatELF   Format = "ELF core"
	FormatKdump Format = "kdump-compressed"
)

// ErrFormat says that a file is no dump that we know.
var ErrFormat = errors.New("no ELF core and no kdump-compressed file")

// Reason is why memory is missing.
type Reason string

// The reasons.
const (
	NotDumped Reason = "not in the dump"          // no segment, or no memory of the machine
	Excluded  Reason = "excluded from the dump"   // the dump says that the page exists and was left out
	FileEnds  Reason = "behind the end of a file" // the file was cut short
	Damaged   Reason = "damaged"                  // its bytes do not decompress
)

// MissingError is memory that the dump does not have.
type MissingError struct {
	Addr   uint64 // physical
	Reason Reason
	Err    error // detail, may be nil
}

// Error gives the address and the reason.
func (e *MissingError) Error() string {
	s := fmt.Sprintf("physical memory at %#x is %s", e.Addr, e.Reason)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap gives the detail.
func (e *MissingError) Unwrap() error { return e.Err }

// Range is physical memory [Start, End).
type Range struct{ Start, End uint64 }

// Segment is memory with the virtual address that an ELF core gives it.
type Segment struct{ Virt, Phys, Size uint64 }

// Core is an open dump. It may be used from one goroutine at a time.
type Core struct {
	Format     Format
	Detail     string // what else the format says: compression, header version
	Flattened  bool
	Incomplete bool   // the writer said that it did not finish, or the file is shorter than it says
	Machine    string // "x86_64", "aarch64", or "" if the file does not say
	CPUs       []Regs // registers by CPU, in the dump's order
	Info       *Info  // VMCOREINFO; nil if the file has none: see [Core.FindInfo]

	mem    memory
	ranges []Range
	virt   []Segment
}

// memory reads whole runs within one page or more; its error is a *MissingError.
type memory interface {
	readPhys(p []byte, addr uint64) error
}

// Open reads the index of a dump: one file, or all files of a split one. size is each file's length in bytes. The files
// stay the caller's, and must stay open while the Core is used.
func Open(files ...File) (*Core, error) {
	if len(files) == 0 {
		return nil, fmt.Errorf("open dump: %w", ErrFormat)
	}
	flat := false
	for i, f := range files {
		r, err := unflatten(f)
		if err != nil {
			return nil, err
		}
		flat = flat || r != nil
		if r != nil {
			files[i] = File{r, r.size}
		}
	}
	c, err := open(files)
	if err != nil {
		return nil, err
	}
	c.Flattened = flat
	return c, nil
}

// File is a dump's bytes.
type File struct {
	R    io.ReaderAt
	Size int64
}

func open(files []File) (*Core, error) {
	var magic [8]byte
	if _, err := files[0].R.ReadAt(magic[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read dump: %w", err)
	}
	switch {
	case string(magic[:4]) == "\x7fELF":
		return openELF(files[0])
	case string(magic[:]) == "KDUMP   " || string(magic[:]) == "DISKDUMP":
		return openKdump(files)
	}
	return nil, fmt.Errorf("open dump: %w: it begins with %q", ErrFormat, magic[:])
}

// ReadPhys reads all of p from physical address addr, or returns a *[MissingError] for the first byte that is missing.
func (c *Core) ReadPhys(p []byte, addr uint64) error {
	if len(p) > 0 && addr+uint64(len(p))-1 < addr {
		return &MissingError{Addr: addr, Reason: NotDumped}
	}
	return c.mem.readPhys(p, addr)
}

// Ranges are where physical memory may be found, ascending: what was left out of a compressed dump is not cut out of them.
func (c *Core) Ranges() []Range { return c.ranges }

// Segments are an ELF core's segments that have a virtual address, as the file has them.
func (c *Core) Segments() []Segment { return c.virt }
