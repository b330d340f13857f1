// Package initramfs writes the archives the kernel unpacks into its first root file system.
//
// The format is "newc" cpio (Documentation/driver-api/early-userspace/buffer-format.rst): per file a header of
// hexadecimal numbers, the name, the contents, each padded to four bytes; TRAILER!!! ends an archive. Archives may
// follow one another, compressed or not, each at a multiple of four bytes: a later file replaces an earlier one.
package initramfs

import (
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
)

// File types of a cpio mode word (the kernel's S_IF…).
const (
	typeDir  = 0o040000
	typeChar = 0o020000
	typeFile = 0o100000
	typeLink = 0o120000
)

// maxSize is what the format's 32-bit size field can say; the kernel reads it unsigned.
const maxSize = 1<<32 - 1

// Writer writes one newc archive. Parent folders are added when a file needs them, with mode 0755.
type Writer struct {
	w    io.Writer
	n    int64 // bytes written
	ino  uint32
	dirs map[string]bool
	err  error
}

// NewWriter writes an archive to w. Call [Writer.Close] to end it.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w, dirs: map[string]bool{".": true}} }

// Dir adds a folder.
func (w *Writer) Dir(name string, perm fs.FileMode) error {
	name = clean(name)
	w.parents(name)
	if w.dirs[name] {
		return w.err
	}
	w.dirs[name] = true
	w.header(entry{name: name, mode: typeDir | uint32(perm.Perm()), nlink: 2})
	return w.err
}

// File adds a regular file of size bytes read from r.
func (w *Writer) File(name string, perm fs.FileMode, size int64, r io.Reader) error {
	if size < 0 || size > maxSize {
		return fmt.Errorf("add %s: %d bytes do not fit a cpio archive", name, size)
	}
	name = clean(name)
	w.parents(name)
	w.header(entry{name: name, mode: typeFile | uint32(perm.Perm()), nlink: 1, size: uint32(size)})
	if w.err != nil {
		return w.err
	}
	n, err := io.CopyN(w.w, r, size)
	w.n += n
	if err != nil {
		w.err = fmt.Errorf("add %s: %d of %d bytes: %w", name, n, size, err)
	}
	w.pad()
	return w.err
}

// Bytes adds a regular file that holds b.
func (w *Writer) Bytes(name string, perm fs.FileMode, b []byte) error {
	return w.File(name, perm, int64(len(b)), strings.NewReader(string(b)))
}

// Symlink adds a symbolic link to target.
func (w *Writer) Symlink(name, target string) error {
	name = clean(name)
	w.parents(name)
	w.header(entry{name: name, mode: typeLink | 0o777, nlink: 1, size: uint32(len(target))})
	w.write([]byte(target))
	w.pad()
	return w.err
}

// Char adds a character device. The kernel opens /dev/console before any init can make it.
func (w *Writer) Char(name string, perm fs.FileMode, major, minor uint32) error {
	name = clean(name)
	w.parents(name)
	w.header(entry{name: name, mode: typeChar | uint32(perm.Perm()), nlink: 1, major: major, minor: minor})
	return w.err
}

// Close ends the archive, padded to 512 bytes so that another may follow. It does not close the underlying writer.
func (w *Writer) Close() error {
	w.ino = 0
	w.header(entry{name: "TRAILER!!!", nlink: 1})
	if r := w.n % 512; r != 0 {
		w.write(make([]byte, 512-r))
	}
	return w.err
}

type entry struct {
	name                            string
	mode, nlink, size, major, minor uint32
}

// header writes the fields in the format's order; ids, times and checksum are zero, so equal input gives equal bytes.
func (w *Writer) header(e entry) {
	if e.mode != 0 {
		w.ino++
	}
	h := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", w.ino, e.mode, 0, 0, e.nlink, 0, e.size,
		0, 0, e.major, e.minor, len(e.name)+1, 0)
	w.write([]byte(h + e.name + "\x00"))
	w.pad()
}

func (w *Writer) parents(name string) {
	if dir := path.Dir(name); !w.dirs[dir] {
		w.Dir(dir, 0o755)
	}
}

func (w *Writer) write(p []byte) {
	if w.err != nil {
		return
	}
	n, err := w.w.Write(p)
	w.n += int64(n)
	w.err = err
}

func (w *Writer) pad() { w.write(make([]byte, -w.n&3)) }

// clean makes a name relative to the root, as archives hold them.
func clean(name string) string {
	if c := strings.TrimPrefix(path.Clean("/"+name), "/"); c != "" {
		return c
	}
	return "."
}
