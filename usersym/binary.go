package usersym

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	delf "debug/elf"

	"github.com/fathom-trace/fathom/debuginfo/elf"
	"github.com/fathom-trace/fathom/internal/bin"
)

// Sym is a function of a file.
type Sym struct {
	Name   string // as in the file, not demangled
	Addr   uint64 // virtual address as linked
	Size   uint64 // bytes; 0 if the file does not say
	Offset uint64 // in the file, for uprobes
}

func (r *Resolver) byPath(path string) (*symbols, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return nil, fmt.Errorf("read symbols of %s: %w", path, err)
	}
	o := r.openObject(path, &st)
	if o == nil {
		return nil, fmt.Errorf("read symbols of %s: not a file, or not readable", path)
	}
	s := r.load(o)
	if s == nil {
		return nil, fmt.Errorf("read symbols of %s: not an ELF file", path)
	}
	return s, nil
}

// SymbolAddr finds a function or variable of a file: its place in the file (0 for a variable that has none, as in .bss),
// its address as linked, its size. path is a path or what [Resolver.FindBinary] understands. Of several functions with
// the name, a global one is taken, then the first.
func (r *Resolver) SymbolAddr(path, name string) (off, addr, size uint64, ok bool) {
	if p, ok := r.FindBinary(path, 0); ok {
		path = p
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s, err := r.byPath(path)
	if err != nil {
		return 0, 0, 0, false
	}
	best := -1
	var sym elf.Sym
	for _, c := range append(s.funcs.Named(name), s.data.Named(name)...) {
		if int(c.Rank) > best {
			best, sym = int(c.Rank), c
		}
	}
	if best < 0 {
		return 0, 0, 0, false
	}
	off, inFile := s.file.Offset(sym.Addr)
	return off, sym.Addr, sym.Size, inFile || sym.Data
}

// FileOffset gives the place in the file of an address as linked.
func (r *Resolver) FileOffset(path string, addr uint64) (uint64, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, err := r.byPath(path)
	if err != nil {
		return 0, false
	}
	return s.file.Offset(addr)
}

// Addr gives the address as linked of a place in the file.
func (r *Resolver) Addr(path string, off uint64) (uint64, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, err := r.byPath(path)
	if err != nil {
		return 0, false
	}
	return s.file.Addr(off)
}

// Functions lists the functions of a file by name, labels of assembly left out. Names need not be unique.
func (r *Resolver) Functions(path string) ([]Sym, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, err := r.byPath(path)
	if err != nil {
		return nil, err
	}
	out := make([]Sym, 0, len(s.funcs.All()))
	for _, f := range s.funcs.All() {
		if off, ok := s.file.Offset(f.Addr); ok && !f.Label {
			out = append(out, Sym{f.Name, f.Addr, f.Size, off})
		}
	}
	slices.SortFunc(out, func(a, b Sym) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Addr, b.Addr)) })
	return out, nil
}

// libDirs are where the dynamic loader looks by default, on Debian and elsewhere.
var libDirs = []string{"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu",
	"/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib"}

// FindBinary finds the file a name means: a path (of process pid's root, if given and there), a program in PATH, or a
// library by its bare name ("libc", "c"), or SONAME ("libc.so.6"). Names that look like libraries are tried as such first.
func (r *Resolver) FindBinary(name string, pid int) (string, bool) {
	if strings.Contains(name, "/") {
		if pid != 0 {
			if p := r.pid(pid, "root") + name; exists(p) {
				return p, true
			}
		}
		p, err := filepath.Abs(name)
		return p, err == nil && exists(p)
	}
	if name == "" {
		return "", false
	}
	find := []func(string) (string, bool){r.program, r.library}
	if strings.HasPrefix(name, "lib") || strings.Contains(name, ".so") {
		slices.Reverse(find)
	}
	for _, f := range find {
		if p, ok := f(name); ok {
			return p, true
		}
	}
	return r.library("lib" + name)
}

// program looks in PATH. Reading the environment here and not in the command is against the house rules for libraries;
// a shell user's "bash" means the one in PATH whoever calls us, and Options.Path overrides it.
func (r *Resolver) program(name string) (string, bool) {
	path := r.o.Path
	if path == "" {
		path = os.Getenv("PATH")
	}
	for _, dir := range filepath.SplitList(path) {
		p := filepath.Join(dir, name)
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return p, true
		}
	}
	return "", false
}

// library looks into the dynamic loader's cache and then where the loader looks itself.
func (r *Resolver) library(name string) (string, bool) {
	b, _ := os.ReadFile(r.o.Cache)
	for _, p := range parseCache(b, name) {
		if native(p) {
			return p, true
		}
	}
	for _, dir := range libDirs {
		if p := filepath.Join(dir, name); strings.Contains(name, ".so") && native(p) {
			return p, true
		}
		ms, _ := filepath.Glob(filepath.Join(dir, name+".so*"))
		for _, m := range ms { // sorted
			if native(m) {
				return m, true
			}
		}
	}
	return "", false
}

// parseCache lists the paths that an ld.so.cache has for a library, in its order (struct cache_file_new of glibc's
// sysdeps/generic/dl-cache.h). A wrong cache has none.
func parseCache(b []byte, name string) []string {
	const magic = "glibc-ld.so.cache1.1"
	at := strings.Index(string(b), magic)
	if at < 0 {
		return nil
	}
	b = b[at:] // an older format may stand before it; offsets count from here
	c := bin.NewCursor(b, binary.NativeEndian)
	c.Skip(len(magic))
	n := int(c.U32())
	c.Seek(48)
	if n > c.Len()/24 {
		return nil
	}
	var paths []string
	for range n {
		c.Skip(4) // flags
		key, value := c.U32(), c.U32()
		c.Skip(12) // osversion, hwcap
		if k := cstring(b, key); k == name || strings.HasPrefix(k, name+".so") {
			paths = append(paths, cstring(b, value))
		}
	}
	return paths
}

func cstring(b []byte, off uint32) string {
	if uint64(off) >= uint64(len(b)) {
		return ""
	}
	s, _, _ := strings.Cut(string(b[off:min(len(b), int(off)+4096)]), "\x00")
	return s
}

func exists(p string) bool {
	st, err := os.Stat(p)
	return err == nil && !st.IsDir()
}

// native reports an ELF file for the machine we run on, which a linker script (libc.so) or a 32-bit library is not.
func native(path string) bool {
	f, _, err := openRegular(path)
	if err != nil {
		return false
	}
	defer f.Close()
	e, err := elf.Read(f)
	if err != nil {
		return false
	}
	want := map[string]delf.Machine{"amd64": delf.EM_X86_64, "arm64": delf.EM_AARCH64, "riscv64": delf.EM_RISCV, "s390x": delf.EM_S390}
	m, ok := want[runtime.GOARCH]
	return !ok || m == e.Machine() && e.Class() == delf.ELFCLASS64
}
