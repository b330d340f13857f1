package usersym

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/debuginfo/elf"
)

// Probe is one place of a USDT probe in a file. A probe that was inlined has several.
type Probe struct {
	Provider, Name string
	Offset         uint64 // in the file, for uprobes
	Semaphore      uint64 // offset in the file of the counter that turns the probe on; 0 for none
	// Args are its operands (package usdt). Symbols are resolved: what counts from one counts from the probe itself.
	Args string
}

// USDT lists the statically defined probes of a file, in the order of its notes.
func (r *Resolver) USDT(path string) ([]Probe, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read probes: %w", err)
	}
	defer file.Close()
	f, err := elf.Read(file)
	if err != nil {
		return nil, fmt.Errorf("read probes of %s: %w", path, err)
	}
	notes, err := f.USDT()
	if err != nil {
		return nil, fmt.Errorf("read probes of %s: %w", path, err)
	}
	var out []Probe
	for _, n := range notes {
		p := Probe{Provider: n.Provider, Name: n.Name, Args: n.Args}
		var ok bool
		if p.Offset, ok = f.Offset(n.PC); !ok {
			continue
		}
		if n.Semaphore != 0 {
			p.Semaphore, _ = f.Offset(n.Semaphore)
		}
		if strings.Contains(p.Args, "(%rip)") {
			p.Args = r.relative(path, n.PC, p.Args)
		}
		out = append(out, p)
	}
	return out, nil
}

// relative rewrites operands like sym+8(%rip) as the distance from pc, which is where the program will be.
func (r *Resolver) relative(path string, pc uint64, args string) string {
	fields := strings.Fields(args)
	for i, s := range fields {
		size, op, _ := strings.Cut(s, "@")
		sym, ok := strings.CutSuffix(op, "(%rip)")
		if !ok {
			continue
		}
		off := int64(0)
		if at := strings.LastIndexAny(sym, "+-"); at > 0 {
			n, err := strconv.ParseInt(sym[at:], 0, 64)
			if err != nil {
				continue
			}
			sym, off = sym[:at], n
		}
		if _, addr, _, ok := r.SymbolAddr(path, sym); ok {
			fields[i] = fmt.Sprintf("%s@%d(%%rip)", size, int64(addr-pc)+off)
		}
	}
	return strings.Join(fields, " ")
}

// Files lists the files a process executes code of, as paths that can be opened from here, sorted.
func (r *Resolver) Files(pid int) ([]string, error) {
	b, err := os.ReadFile(r.pid(pid, "maps"))
	if err != nil {
		return nil, fmt.Errorf("read mappings of process %d: %w", pid, err)
	}
	var out []string
	for _, m := range parseMaps(b) {
		if !strings.HasPrefix(m.path, "/") || m.deleted {
			continue
		}
		if p, ok := r.reach(pid, m); ok {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// reach gives a path from here to the file of a mapping: its own, if that is the same file, else through the process's root.
func (r *Resolver) reach(pid int, m mapping) (string, bool) {
	inRoot := filepath.Join(r.pid(pid, "root"), m.path)
	var here, there unix.Stat_t
	if unix.Stat(inRoot, &there) != nil {
		return "", false
	}
	if unix.Stat(m.path, &here) == nil && here.Dev == there.Dev && here.Ino == there.Ino {
		return m.path, true
	}
	return inRoot, true
}

// Running lists the files all processes execute code of, sorted; a file that several mount namespaces reach by different
// paths may be there more than once.
func (r *Resolver) Running() []string {
	var out []string
	ents, _ := os.ReadDir(r.o.Proc)
	for _, e := range ents {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			files, _ := r.Files(pid) // a process may end meanwhile
			out = append(out, files...)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
