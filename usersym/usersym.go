// Package usersym names addresses of user programs: process and address to function and offset; and finds functions in
// files, for uprobes.
//
// Names come from the symbol tables of the files that a process has mapped (.symtab, .dynsym, .gnu_debugdata, separate
// debug files by build id or debug link, the function table of Go programs), from the vDSO, and from the
// /tmp/perf-PID.map that JIT compilers write. Places in memory are turned into places in files by the mappings and the
// program headers, so that it does not matter where a file was linked to or loaded.
//
// A [Resolver] remembers: what was seen of a process by [Resolver.Note] holds after it ended and its files were removed.
package usersym

import (
	"strings"
	"sync"
	"time"

	"github.com/ianlancetaylor/demangle"

	"github.com/fathom-trace/fathom/ctype/dwarftypes"
)

// Options steer a Resolver.
type Options struct {
	Proc  string // default /proc
	Debug string // root of separate debug files; default /usr/lib/debug
	Cache string // of the dynamic loader; default /etc/ld.so.cache
	Path  string // list of directories to find programs in; default: the environment's PATH
	// DebugInfo are folders, or files, looked at first for separate debug files.
	DebugInfo  []string
	NoDemangle bool // give C++ and Rust names as they stand in files
	Lines      bool // fill Source and Line, which costs memory; Go programs only so far
}

// Frame is a named address.
type Frame struct {
	Name   string // demangled; "" if only the file is known
	Symbol string // the name in the symbol table
	Offset uint64 // from the start of the function
	File   string // path of the mapped file as the process sees it, "[vdso]", or "" for code of a JIT compiler
	Addr   uint64 // the address as linked in File, for tools like addr2line; 0 if not known
	Build  string // build id of File, in hex; "" if it has none
	Source string // source file, see Options.Lines
	Line   int
}

// Resolver names user addresses. Many goroutines may use it.
type Resolver struct {
	o Options
	// types are those of files asked for by path.
	types map[string]fileTypes
	// inlined are the sources of addresses that were asked for.
	inlined map[place][]dwarftypes.Frame

	mu     sync.Mutex
	procs  map[int]*process
	ended  []int // processes in the order they were first seen, for forgetting
	files  map[fileID]*object
	builds map[buildKey]*symbols
	names  map[string]string // demangled
	open   int               // objects that hold a file open
}

// Bounds on what is remembered. What goes beyond is forgotten, oldest first, and read again when needed.
const (
	maxProcs = 16384
	maxFiles = 4096
	maxNames = 1 << 16
	maxOpen  = 256
)

// New returns a Resolver.
func New(o Options) *Resolver {
	if o.Proc == "" {
		o.Proc = "/proc"
	}
	if o.Debug == "" {
		o.Debug = "/usr/lib/debug"
	}
	if o.Cache == "" {
		o.Cache = "/etc/ld.so.cache"
	}
	r := &Resolver{o: o}
	r.reset()
	return r
}

func (r *Resolver) reset() {
	r.procs, r.files, r.builds, r.names = map[int]*process{}, map[fileID]*object{}, map[buildKey]*symbols{}, map[string]string{}
	r.ended, r.open = nil, 0
}

// Close forgets everything and closes files. The Resolver can be used on, from the start.
func (r *Resolver) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.procs {
		p.close()
	}
	for _, o := range r.files {
		r.release(o)
	}
	r.reset()
	return nil
}

// Note reads a process's mappings and holds their files now, so that its addresses can be named after it ended. It is to be
// called when a process is first seen and after it called execve; what was known before is kept beneath.
func (r *Resolver) Note(pid int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.note(pid)
}

// Resolve names an address of a process. It is false if the address is in no mapping and no JIT map that is known.
func (r *Resolver) Resolve(pid int, addr uint64) (Frame, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.resolve(pid, addr)
}

// Frames names the addresses of a stack. All but the first are return addresses, which may stand behind the end of the
// function that called: they are looked up at one less, and Offset counts to the address itself. Frames that are not
// known have no Name.
func (r *Resolver) Frames(pid int, addrs []uint64) []Frame {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Frame, len(addrs))
	for i, a := range addrs {
		back := uint64(min(i, 1))
		f, ok := r.resolve(pid, a-back)
		if ok && f.Name != "" {
			f.Offset += back
		}
		out[i] = f
	}
	return out
}

func (r *Resolver) resolve(pid int, addr uint64) (Frame, bool) {
	p := r.process(pid)
	if p == nil {
		return Frame{}, false
	}
	m, ok := p.find(addr)
	if !ok && time.Since(p.missed) > again {
		p.missed = time.Now()
		r.note(pid) // dlopen, mmap, or execve since
		p = r.procs[pid]
		m, ok = p.find(addr)
	}
	return r.frame(p, m, ok, addr)
}

// frame names an address of a mapping; mapped is false if it is in none.
func (r *Resolver) frame(p *process, m mapping, mapped bool, addr uint64) (Frame, bool) {
	if !mapped || m.obj == nil {
		if f, ok := r.jit(p, addr); ok {
			return f, true
		}
		return Frame{File: m.path}, mapped && m.path != ""
	}
	f := Frame{File: m.path}
	s := r.load(m.obj)
	if s == nil {
		if j, ok := r.jit(p, addr); ok {
			return j, true
		}
		return f, true
	}
	f.Build = s.id
	at, ok := s.file.Addr(addr - m.start + m.off)
	if !ok {
		return f, true
	}
	f.Addr = at
	if sym, ok := s.funcs.Find(at); ok {
		f.Name, f.Symbol, f.Offset = r.name(sym.Name), sym.Name, at-sym.Addr
	}
	f.Source, f.Line, _ = s.lines.Line(at)
	return f, true
}

func (r *Resolver) jit(p *process, addr uint64) (Frame, bool) {
	name, off, ok := p.jit.find(addr)
	if !ok {
		p.jit.reload(r.o.Proc, p.pid)
		name, off, ok = p.jit.find(addr)
	}
	return Frame{Name: name, Symbol: name, Offset: off}, ok
}

// name demangles, remembering what it did: hot functions come again and again.
func (r *Resolver) name(s string) string {
	if r.o.NoDemangle || !mangled(s) {
		return s
	}
	d, ok := r.names[s]
	if !ok {
		if len(r.names) >= maxNames {
			clear(r.names)
		}
		d = Demangle(s)
		r.names[s] = d
	}
	return d
}

func mangled(s string) bool { return strings.HasPrefix(s, "_Z") || strings.HasPrefix(s, "_R") }

// maxMangled bounds the work on hostile names; the longest in a large C++ program have some 4,000 characters.
const maxMangled = 1 << 14

// Demangle gives a C++ or Rust name as written, others unchanged.
func Demangle(s string) string {
	if !mangled(s) || len(s) > maxMangled {
		return s
	}
	return demangle.Filter(s, demangle.MaxLength(16))
}
