package usersym

import (
	"archive/zip"
	"fmt"
	"io"
	"os"

	"github.com/fathom-trace/fathom/debuginfo/elf"
)

// InArchive finds a function, or with an empty name an address, of a program in a ZIP archive, from which Android's loader
// maps libraries: the place in the archive, for uprobes. The member must be stored, not compressed.
func (r *Resolver) InArchive(archive, member, name string, addr uint64) (off uint64, ok bool, err error) {
	file, err := os.Open(archive)
	if err != nil {
		return 0, false, fmt.Errorf("read archive: %w", err)
	}
	defer file.Close()
	st, err := file.Stat()
	if err != nil {
		return 0, false, fmt.Errorf("read archive: %w", err)
	}
	z, err := zip.NewReader(file, st.Size())
	if err != nil {
		return 0, false, fmt.Errorf("read archive %s: %w", archive, err)
	}
	for _, m := range z.File {
		if m.Name != member {
			continue
		}
		if m.Method != zip.Store {
			return 0, false, fmt.Errorf("%s is compressed in %s: it cannot be mapped from there", member, archive)
		}
		start, err := m.DataOffset()
		if err != nil {
			return 0, false, fmt.Errorf("read archive %s: %w", archive, err)
		}
		off, ok, err := inProgram(io.NewSectionReader(file, start, int64(m.UncompressedSize64)), name, addr)
		return off + uint64(start), ok, err
	}
	return 0, false, nil
}

// inProgram finds a function or an address in a program.
func inProgram(r io.ReaderAt, name string, addr uint64) (off uint64, ok bool, err error) {
	f, err := elf.Read(r)
	if err != nil {
		return 0, false, err
	}
	if name == "" {
		off, ok = f.Offset(addr)
		return off, ok, nil
	}
	syms, err := f.Symbols()
	for _, s := range syms {
		if s.Name == name && !s.Data {
			off, ok = f.Offset(s.Addr)
			return off, ok, nil
		}
	}
	return 0, false, err
}
