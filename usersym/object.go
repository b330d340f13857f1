package usersym

import (
	"bytes"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/debuginfo/elf"
)

// fileID tells files apart, and versions of a file that was written over.
type fileID struct {
	dev, ino    uint64
	size, mtime int64
}

// object is a file that some process has mapped, or was asked for by path.
type object struct {
	id     fileID
	path   string   // under which it was opened, for the debug link
	file   *os.File // held open until the symbols are read
	loaded bool
	syms   *symbols // nil if it is no ELF file
}

// buildKey tells contents apart: a stripped file has the build id of the whole one.
type buildKey struct {
	id   string
	full bool
}

// symbols is what was read from a file and its debug files.
type symbols struct {
	id    string    // the build id
	file  *elf.File // headers only; its reader may be closed
	funcs *elf.Table
	data  *elf.Table
	lines *elf.GoTable // nil without Options.Lines
}

// object returns the object of a mapping, opening it if it is new.
func (r *Resolver) object(pid int, m mapping) *object {
	if m.path == "[vdso]" {
		return r.vdso(pid, m)
	}
	if !strings.HasPrefix(m.path, "/") {
		return nil
	}
	for _, c := range r.candidates(pid, m) {
		var st unix.Stat_t
		if unix.Stat(c.path, &st) != nil || c.same && (st.Dev != m.dev || st.Ino != m.ino) {
			continue
		}
		if o := r.openObject(c.path, &st); o != nil {
			return o
		}
	}
	return nil
}

func (r *Resolver) openObject(path string, st *unix.Stat_t) *object {
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil
	}
	if o := r.files[identifyFile(st)]; o != nil {
		return o
	}
	f, st, err := openRegular(path)
	if err != nil {
		return nil
	}
	return r.add(&object{id: identifyFile(st), path: path, file: f})
}

func identifyFile(st *unix.Stat_t) fileID {
	return fileID{st.Dev, st.Ino, st.Size, st.Mtim.Nano()}
}

// openRegular opens without waiting for the other end of a FIFO that has taken the file's place.
func openRegular(path string) (*os.File, *unix.Stat_t, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = unix.EINVAL
	}
	if err != nil {
		unix.Close(fd)
		return nil, nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), &st, nil
}

// add takes a new object in. If too many hold their files open, it is read now.
func (r *Resolver) add(o *object) *object {
	if len(r.files) >= maxFiles {
		for id, old := range r.files { // any: mappings that use it keep it alive
			if old.file != nil {
				r.load(old)
			}
			delete(r.files, id)
			break
		}
	}
	r.files[o.id] = o
	if o.file != nil {
		r.open++
	}
	if r.open > maxOpen {
		r.load(o)
	}
	return o
}

// release closes an object that nobody will ask any more.
func (r *Resolver) release(o *object) {
	if o.file != nil {
		o.file.Close()
		o.file, o.loaded = nil, true
	}
}

// load reads the symbols of an object once, and closes its file. It returns nil for what is no ELF file.
func (r *Resolver) load(o *object) *symbols {
	if o.loaded {
		return o.syms
	}
	o.loaded = true
	f, err := elf.Read(o.file)
	if err == nil {
		o.syms = r.symbols(f, o.path)
	}
	o.file.Close()
	o.file = nil
	r.open--
	return o.syms
}

// symbols reads the symbols of a file, and of its debug files if it has no symbol table of its own. A table that is damaged
// gives what could be read.
func (r *Resolver) symbols(f *elf.File, path string) *symbols {
	key := buildKey{f.BuildID(), f.HasSymtab()}
	if s := r.builds[key]; s != nil && key.id != "" {
		return s
	}
	syms, _ := f.Symbols()
	if !key.full {
		if m, err := f.MiniDebug(); err == nil && m != nil {
			more, _ := m.Symbols()
			syms = append(syms, more...)
		}
		syms = append(syms, r.separate(f, path, key.id)...)
	}
	s := &symbols{id: key.id, file: f}
	s.funcs, s.data = split(syms)
	if r.o.Lines {
		s.lines = f.Go()
	}
	if len(r.builds) >= maxFiles {
		clear(r.builds)
	}
	if key.id != "" {
		r.builds[key] = s
	}
	return s
}

func split(syms []elf.Sym) (funcs, data *elf.Table) {
	var fs, ds []elf.Sym
	for _, s := range syms {
		if s.Data {
			ds = append(ds, s)
		} else {
			fs = append(fs, s)
		}
	}
	return elf.NewTable(fs), elf.NewTable(ds)
}

// debugPaths names where a debug file that belongs to f may be.
func (r *Resolver) debugPaths(f *elf.File, path, id string) []string {
	name, _, linked := f.DebugLink()
	var paths []string
	for _, d := range r.o.DebugInfo {
		paths = append(paths, d) // perhaps the file itself
		if len(id) > 2 {
			paths = append(paths, filepath.Join(d, ".build-id", id[:2], id[2:]+".debug"))
		}
		if linked {
			paths = append(paths, filepath.Join(d, name))
		}
		paths = append(paths, filepath.Join(d, filepath.Base(path)+".debug"))
	}
	if len(id) > 2 {
		paths = append(paths, filepath.Join(r.o.Debug, ".build-id", id[:2], id[2:]+".debug"))
	}
	if linked {
		dir := filepath.Dir(path)
		in := r.inside(dir) // which is there when the process is not
		for _, d := range []string{dir, in} {
			paths = append(paths, filepath.Join(d, name), filepath.Join(d, ".debug", name))
		}
		paths = append(paths, filepath.Join(r.o.Debug, in, name))
	}
	return paths
}

// separate reads the symbols of the first debug file that belongs to f.
func (r *Resolver) separate(f *elf.File, path, id string) []elf.Sym {
	_, crc, _ := f.DebugLink()
	for _, p := range r.debugPaths(f, path, id) {
		if syms := debugFile(p, id, crc); len(syms) > 0 {
			return syms
		}
	}
	return nil
}

// inside takes /proc/PID/root off a path.
func (r *Resolver) inside(dir string) string {
	if rest, ok := strings.CutPrefix(dir, r.o.Proc+"/"); ok {
		if pid, in, ok := strings.Cut(rest, "/root"); ok {
			if _, err := strconv.Atoi(pid); err == nil {
				return in
			}
		}
	}
	return dir
}

// debugFile reads the symbols of a debug file if it belongs to the program.
func debugFile(path, id string, crc uint32) []elf.Sym {
	r, f := openDebug(path, id, crc)
	if r == nil {
		return nil
	}
	defer r.Close()
	syms, _ := f.Symbols()
	return syms
}

// vdso reads the code that the kernel maps into every process from the memory of one of them. There is one for each ABI; the
// size tells them apart well enough.
func (r *Resolver) vdso(pid int, m mapping) *object {
	const maxVDSO = 1 << 20
	size := m.end - m.start
	id := fileID{size: int64(size)}
	if o := r.files[id]; o != nil {
		return o
	}
	mem, err := os.Open(r.pid(pid, "mem"))
	if err != nil || size > maxVDSO {
		return nil
	}
	defer mem.Close()
	b := make([]byte, size)
	n, _ := mem.ReadAt(b, int64(m.start))
	f, err := elf.Read(bytes.NewReader(b[:n]))
	if err != nil {
		return nil
	}
	return r.add(&object{id: id, path: m.path, loaded: true, syms: r.symbols(f, "")})
}

// openDebug opens a debug file if its build id is id or, where there is none, its checksum is crc. The caller closes it.
func openDebug(path, id string, crc uint32) (*os.File, *elf.File) {
	r, _, err := openRegular(path)
	if err != nil {
		return nil, nil
	}
	f, err := elf.Read(r)
	if err != nil || f.BuildID() != id {
		r.Close()
		return nil, nil
	}
	if id == "" {
		sum := crc32.NewIEEE()
		if _, err := io.Copy(sum, r); err != nil || sum.Sum32() != crc {
			r.Close()
			return nil, nil
		}
	}
	return r, f
}
