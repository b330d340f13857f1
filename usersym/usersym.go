// Package usersym names addresses of user programs: process and address to function and offset. It reads the symbol
// tables of the files a process has mapped, and remembers what it has seen of processes, so that one that ended can
// still be named.
package usersym

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"github.com/ianlancetaylor/demangle"
	"github.com/ulikunitz/xz"
)

// Options steer a Resolver.
type Options struct {
	Proc       string // default /proc
	Debug      string // default /usr/lib/debug
	NoDemangle bool
}

// Resolver names user addresses. One goroutine may use it. Close forgets everything.
type Resolver struct {
	o     Options
	procs map[int]*process
	files map[string]*File
}

// Frame is a named address.
type Frame struct {
	Name   string // "" if only the file is known
	Offset uint64
	File   string // path of the mapped file
}

// Sym is a symbol of a file.
type Sym struct {
	Name   string
	Addr   uint64 // virtual address as linked
	Size   uint64
	Offset uint64 // in the file
}

// New returns a Resolver.
func New(o Options) *Resolver {
	if o.Proc == "" {
		o.Proc = "/proc"
	}
	if o.Debug == "" {
		o.Debug = "/usr/lib/debug"
	}
	return &Resolver{o: o, procs: map[int]*process{}, files: map[string]*File{}}
}

// Close releases what is remembered.
func (r *Resolver) Close() error {
	r.procs, r.files = nil, nil
	return nil
}

// process is what is known of a process's memory.
type process struct {
	maps []mapping
}

// mapping is an executable part of a file in memory.
type mapping struct {
	start, end, off uint64
	path            string // as the process sees it
	open            string // how we can open it
}

// Note reads a process's mappings now, so that they are known after it ends.
func (r *Resolver) Note(pid int) { r.process(pid, true) }

func (r *Resolver) process(pid int, fresh bool) *process {
	p := r.procs[pid]
	if p != nil && !fresh {
		return p
	}
	b, err := os.ReadFile(fmt.Sprintf("%s/%d/maps", r.o.Proc, pid))
	if err != nil || len(b) == 0 {
		return p
	}
	n := &process{}
	for line := range strings.Lines(string(b)) {
		if m, ok := r.parseMapping(pid, line); ok {
			n.maps = append(n.maps, m)
			r.file(m.open, m.path)
		}
	}
	r.procs[pid] = n
	return n
}

// parseMapping reads a line of /proc/PID/maps (Documentation/filesystems/proc.rst).
func (r *Resolver) parseMapping(pid int, line string) (m mapping, ok bool) {
	f := strings.Fields(line)
	if len(f) < 6 || len(f[1]) < 3 || f[1][2] != 'x' {
		return m, false
	}
	lo, hi, _ := strings.Cut(f[0], "-")
	var err1, err2, err3 error
	m.start, err1 = strconv.ParseUint(lo, 16, 64)
	m.end, err2 = strconv.ParseUint(hi, 16, 64)
	m.off, err3 = strconv.ParseUint(f[2], 16, 64)
	m.path = strings.TrimSuffix(strings.Join(f[5:], " "), " (deleted)")
	if err1 != nil || err2 != nil || err3 != nil || !strings.HasPrefix(m.path, "/") {
		return m, false
	}
	m.open = fmt.Sprintf("%s/%d/root%s", r.o.Proc, pid, m.path)
	return m, true
}

// Resolve names an address of a process.
func (r *Resolver) Resolve(pid int, addr uint64) (Frame, bool) {
	for _, fresh := range []bool{false, true} {
		p := r.process(pid, fresh)
		if p == nil {
			continue
		}
		for _, m := range p.maps {
			if addr < m.start || addr >= m.end {
				continue
			}
			f := r.file(m.open, m.path)
			if f == nil {
				return Frame{File: m.path}, true
			}
			s, off, ok := f.at(addr - m.start + m.off)
			if !ok {
				return Frame{File: m.path}, true
			}
			return Frame{Name: r.name(s), Offset: off, File: m.path}, true
		}
	}
	return r.perfMap(pid, addr)
}

func (r *Resolver) name(s string) string {
	if r.o.NoDemangle {
		return s
	}
	return Demangle(s)
}

// Demangle gives a C++ or Rust name as written, others unchanged.
func Demangle(s string) string {
	if !strings.HasPrefix(s, "_Z") && !strings.HasPrefix(s, "_R") {
		return s
	}
	return demangle.Filter(s)
}

// perfMap names code that a JIT compiler described in /tmp/perf-PID.map: "start size name" a line, in hex.
func (r *Resolver) perfMap(pid int, addr uint64) (Frame, bool) {
	f, err := os.Open(fmt.Sprintf("%s/%d/root/tmp/perf-%d.map", r.o.Proc, pid, pid))
	if err != nil {
		return Frame{}, false
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 64<<20))
	if err != nil {
		return Frame{}, false
	}
	for line := range strings.Lines(string(b)) {
		p := strings.SplitN(strings.TrimSpace(line), " ", 3)
		if len(p) != 3 {
			continue
		}
		start, err1 := strconv.ParseUint(p[0], 16, 64)
		size, err2 := strconv.ParseUint(p[1], 16, 64)
		if err1 == nil && err2 == nil && addr >= start && addr-start < size {
			return Frame{Name: p[2], Offset: addr - start}, true
		}
	}
	return Frame{}, false
}

// File is the symbols of an ELF file.
type File struct {
	syms  []Sym // functions, by file offset
	progs []elf.ProgHeader
	all   map[string]Sym
}

// at finds the function that a file offset is in.
func (f *File) at(off uint64) (name string, in uint64, ok bool) {
	i := sort.Search(len(f.syms), func(i int) bool { return f.syms[i].Offset > off })
	for i--; i >= 0; i-- {
		s := f.syms[i]
		if off-s.Offset < s.Size || s.Size == 0 && i+1 < len(f.syms) {
			return s.Name, off - s.Offset, true
		}
		if off-s.Offset > 1<<20 {
			break
		}
	}
	return "", 0, false
}

// file reads a file's symbols once. path is its name in the process, by which separate debug files are found.
func (r *Resolver) file(open, path string) *File {
	if f, ok := r.files[open]; ok {
		return f
	}
	f, _ := r.load(open, path)
	r.files[open] = f
	return f
}

func (r *Resolver) load(open, path string) (f *File, err error) {
	defer func() {
		if e := recover(); e != nil { // debug/elf on hostile input
			err = fmt.Errorf("%s: %v", path, e)
		}
	}()
	e, err := elf.Open(open)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	f = &File{all: map[string]Sym{}}
	for _, p := range e.Progs {
		if p.Type == elf.PT_LOAD {
			f.progs = append(f.progs, p.ProgHeader)
		}
	}
	n := f.add(e)
	if n == 0 || !hasSymtab(e) {
		r.separate(e, path, f)
	}
	sort.SliceStable(f.syms, func(i, j int) bool { return f.syms[i].Offset < f.syms[j].Offset })
	return f, nil
}

func hasSymtab(e *elf.File) bool { return e.Section(".symtab") != nil }

// add takes the function symbols of e, whose addresses are those of the main file.
func (f *File) add(e *elf.File) int {
	n := 0
	for _, get := range []func() ([]elf.Symbol, error){e.Symbols, e.DynamicSymbols} {
		syms, err := get()
		if err != nil {
			continue
		}
		for _, s := range syms {
			typ := elf.ST_TYPE(s.Info)
			if s.Value == 0 || s.Section == elf.SHN_UNDEF || typ != elf.STT_FUNC && typ != elf.STT_OBJECT && typ != elf.STT_GNU_IFUNC && typ != elf.STT_NOTYPE {
				continue
			}
			off, ok := f.offset(s.Value)
			if !ok {
				continue
			}
			v := Sym{Name: s.Name, Addr: s.Value, Size: s.Size, Offset: off}
			if _, dup := f.all[s.Name]; !dup {
				f.all[s.Name] = v
				if typ == elf.STT_FUNC || typ == elf.STT_GNU_IFUNC {
					f.syms = append(f.syms, v)
					n++
				}
			}
		}
	}
	return n
}

// offset gives the place in the file of a virtual address.
func (f *File) offset(addr uint64) (uint64, bool) {
	for _, p := range f.progs {
		if addr >= p.Vaddr && addr-p.Vaddr < p.Memsz {
			return addr - p.Vaddr + p.Off, true
		}
	}
	return 0, false
}

// separate looks for symbols outside the file: .gnu_debugdata in it, or debug files by build-id and by name.
func (r *Resolver) separate(e *elf.File, path string, f *File) {
	if s := e.Section(".gnu_debugdata"); s != nil {
		if raw, err := s.Data(); err == nil {
			if x, err := xz.NewReader(bytes.NewReader(raw)); err == nil {
				if b, err := io.ReadAll(io.LimitReader(x, 256<<20)); err == nil {
					if mini, err := elf.NewFile(bytes.NewReader(b)); err == nil {
						f.add(mini)
					}
				}
			}
		}
	}
	for _, c := range r.debugFiles(e, path) {
		d, err := elf.Open(c)
		if err != nil {
			continue
		}
		n := f.add(d)
		d.Close()
		if n > 0 {
			return
		}
	}
}

// debugFiles names where separate symbols may be.
func (r *Resolver) debugFiles(e *elf.File, path string) []string {
	var out []string
	if id := buildID(e); len(id) > 2 {
		out = append(out, filepath.Join(r.o.Debug, ".build-id", id[:2], id[2:]+".debug"))
	}
	if s := e.Section(".gnu_debuglink"); s != nil {
		if b, err := s.Data(); err == nil {
			name, _, _ := strings.Cut(string(b), "\x00")
			dir := filepath.Dir(path)
			out = append(out, filepath.Join(dir, name), filepath.Join(dir, ".debug", name), filepath.Join(r.o.Debug, dir, name))
		}
	}
	return out
}

// buildID reads NT_GNU_BUILD_ID: name size, descriptor size, type, "GNU\0", the id.
func buildID(e *elf.File) string {
	s := e.Section(".note.gnu.build-id")
	if s == nil {
		return ""
	}
	b, err := s.Data()
	if err != nil || len(b) < 16 {
		return ""
	}
	n := int(e.ByteOrder.Uint32(b[4:]))
	if n > len(b)-16 {
		return ""
	}
	return fmt.Sprintf("%x", b[16:16+n])
}

// SymbolAddr finds a symbol of a file: its place in the file, its address as linked, its size.
func (r *Resolver) SymbolAddr(path, name string) (off, addr, size uint64, ok bool) {
	f := r.file(path, path)
	if f == nil {
		return 0, 0, 0, false
	}
	s, ok := f.all[name]
	return s.Offset, s.Addr, s.Size, ok
}

// FileOffset gives the place in the file of an address as linked.
func (r *Resolver) FileOffset(path string, addr uint64) (uint64, bool) {
	f := r.file(path, path)
	if f == nil {
		return 0, false
	}
	return f.offset(addr)
}

// Functions lists the functions of a file by name.
func (r *Resolver) Functions(path string) ([]Sym, error) {
	f := r.file(path, path)
	if f == nil {
		return nil, fmt.Errorf("read symbols of %s: not an ELF file, or not readable", path)
	}
	out := append([]Sym(nil), f.syms...)
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, nil
}

// libDirs are where the dynamic loader looks by default, on Debian and elsewhere.
var libDirs = []string{"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu",
	"/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib"}

// FindBinary finds the file a name means: a path (of process pid's root, if given), a program in PATH, or a library by
// its bare name ("libc") or SONAME.
func (r *Resolver) FindBinary(name string, pid int) (string, bool) {
	if strings.Contains(name, "/") {
		if pid != 0 {
			if p := fmt.Sprintf("%s/%d/root%s", r.o.Proc, pid, name); exists(p) {
				return p, true
			}
		}
		p, err := filepath.Abs(name)
		return p, err == nil && exists(p)
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if p := filepath.Join(dir, name); exists(p) {
			return p, true
		}
	}
	for _, dir := range libDirs {
		if p := filepath.Join(dir, name); strings.Contains(name, ".so") && exists(p) {
			return p, true
		}
		if ms, _ := filepath.Glob(filepath.Join(dir, name+".so*")); len(ms) > 0 {
			sort.Strings(ms)
			for _, m := range ms {
				if isELF(m) {
					return m, true
				}
			}
		}
	}
	return "", false
}

func exists(p string) bool {
	st, err := os.Stat(p)
	return err == nil && !st.IsDir()
}

func isELF(p string) bool {
	f, err := os.Open(p)
	if err != nil {
		return false
	}
	defer f.Close()
	var b [4]byte
	_, err = io.ReadFull(f, b[:])
	return err == nil && string(b[:]) == elf.ELFMAG
}
