package usersym

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// process is what is known of a process's memory.
type process struct {
	pid    int
	who    identity
	maps   []memory  // newest first: before and after execve
	since  uint64    // when it began, as it was told; 0 if nobody told
	before *process  // that had the number before; nil if nobody knows of one
	missed time.Time // when an address was in no mapping, and they were read again
	looked time.Time // at who it is
	told   uint64    // when the last event was that somebody told of; 0 for none
	jit    perfMap
}

// identity tells processes apart that had the same number.
type identity struct{ start uint64 }

// memory is what a process had mapped, most often of one program.
type memory struct {
	since uint64 // as it was told; 0 is from the beginning, as far as anybody knows
	maps  []mapping
}

// mapping is an executable part of memory.
type mapping struct {
	start, end, off uint64
	dev             uint64 // as unix.Mkdev
	ino             uint64
	path            string // as the process sees it; "" for anonymous memory
	deleted         bool
	obj             *object // nil if it is no file, or cannot be opened
}

// again is how long a process is believed to be the same, and not to have mapped more.
const again = 100 * time.Millisecond

// maxGenerations is how many execve of one process are remembered, and how many processes of one number.
const maxGenerations = 4

func (p *process) find(addr uint64) (mapping, bool) {
	for _, gen := range p.maps {
		if m, ok := gen.find(addr); ok {
			return m, true
		}
	}
	return mapping{}, false
}

func (g memory) find(addr uint64) (mapping, bool) {
	i, ok := slices.BinarySearchFunc(g.maps, addr, func(m mapping, a uint64) int {
		switch {
		case m.end <= a:
			return -1
		case m.start > a:
			return 1
		}
		return 0
	})
	if !ok {
		return mapping{}, false
	}
	return g.maps[i], true
}

func (p *process) close() { p.jit.close() }

// process returns what is known, reading it if that is nothing, or if the number has gone to another process. nil if there
// never was such a process.
func (r *Resolver) process(pid int) *process {
	p := r.procs[pid]
	if p == nil {
		r.note(pid)
		return r.procs[pid]
	}
	if time.Since(p.looked) > again {
		p.looked = time.Now()
		if who, ok := r.identify(pid); ok && who != p.who {
			r.note(pid)
			return r.procs[pid]
		}
	}
	return p
}

// identify reads when the process started, field 22 of /proc/PID/stat. The name before it may hold anything.
func (r *Resolver) identify(pid int) (identity, bool) {
	b, err := os.ReadFile(r.pid(pid, "stat"))
	i := bytes.LastIndexByte(b, ')')
	if err != nil || i < 0 {
		return identity{}, false
	}
	f := strings.Fields(string(b[i+1:]))
	if len(f) < 20 {
		return identity{}, false
	}
	start, err := strconv.ParseUint(f[19], 10, 64)
	return identity{start}, err == nil
}

func (r *Resolver) pid(pid int, name string) string {
	return r.o.Proc + "/" + strconv.Itoa(pid) + "/" + name
}

// note reads the mappings of a process. One that has ended keeps what it had: its maps are empty or gone.
func (r *Resolver) note(pid int) {
	b, err := os.ReadFile(r.pid(pid, "maps"))
	p := r.procs[pid]
	if err != nil || len(b) == 0 {
		return
	}
	who, _ := r.identify(pid)
	switch {
	case p == nil:
		p = r.remember(pid, who)
	case p.who == identity{}: // it was told of, and had ended or not begun when it was looked for
		p.who = who
	case p.who != who:
		told := p.told
		p = r.remember(pid, who)
		p.since = told + 1
	}
	p.looked = time.Now()
	maps := parseMaps(b)
	for i := range maps {
		maps[i].obj = r.object(pid, maps[i])
	}
	switch {
	case len(p.maps) == 0:
		p.maps = []memory{{p.since, maps}}
	case sameProgram(p.maps[0].maps, maps):
		p.maps[0].maps = maps
	default:
		p.newer(p.maps[0].since, maps)
	}
	p.jit.hold(r.o.Proc, pid)
}

// sameProgram reports that no mapping of a went away or changed: b replaces a. Otherwise (execve, dlclose, code of a JIT
// compiler unmapped) a still names older addresses.
func sameProgram(a, b []mapping) bool {
	return !slices.ContainsFunc(a, func(m mapping) bool { return !slices.Contains(b, m) })
}

// newer adds what a process has mapped now; what it had stays beneath.
func (p *process) newer(since uint64, maps []mapping) {
	p.maps = slices.Insert(p.maps, 0, memory{since, maps})
	p.maps = p.maps[:min(len(p.maps), maxGenerations)]
}

func (r *Resolver) remember(pid int, who identity) *process {
	old := r.procs[pid]
	if old != nil {
		old.close()
		old.forget(maxGenerations - 1)
	} else {
		r.ended = append(r.ended, pid)
	}
	if len(r.ended) > maxProcs {
		if old := r.procs[r.ended[0]]; old != nil {
			old.close()
		}
		delete(r.procs, r.ended[0])
		r.ended = r.ended[1:]
	}
	p := &process{pid: pid, who: who, before: old}
	r.procs[pid] = p
	return p
}

// forget keeps only so many processes that had the number before.
func (p *process) forget(keep int) {
	for ; keep > 1 && p.before != nil; keep-- {
		p = p.before
	}
	p.before = nil
}

// parseMaps reads the executable mappings of a /proc/PID/maps (Documentation/filesystems/proc.rst). Lines that are not as
// described there are left out.
func parseMaps(b []byte) []mapping {
	var maps []mapping
	for line := range bytes.Lines(b) {
		if m, ok := parseMapping(string(bytes.TrimSuffix(line, []byte("\n")))); ok {
			maps = append(maps, m)
		}
	}
	slices.SortFunc(maps, func(a, b mapping) int {
		if a.start < b.start {
			return -1
		}
		return 1
	})
	return maps
}

// parseMapping reads "55d0-55d1 r-xp 00001000 fe:00 1234    /path with spaces (deleted)".
func parseMapping(line string) (m mapping, ok bool) {
	var f [5]string
	rest := line
	for i := range f {
		f[i], rest, _ = strings.Cut(strings.TrimLeft(rest, " "), " ")
	}
	if len(f[1]) < 3 || f[1][2] != 'x' {
		return m, false
	}
	lo, hi, _ := strings.Cut(f[0], "-")
	maj, mnr, _ := strings.Cut(f[3], ":")
	var nums [6]uint64
	for i, s := range []string{lo, hi, f[2], maj, mnr} {
		n, err := strconv.ParseUint(s, 16, 64)
		if err != nil {
			return m, false
		}
		nums[i] = n
	}
	ino, err := strconv.ParseUint(f[4], 10, 64)
	if err != nil || nums[0] >= nums[1] {
		return m, false
	}
	m = mapping{start: nums[0], end: nums[1], off: nums[2], dev: unix.Mkdev(uint32(nums[3]), uint32(nums[4])), ino: ino}
	m.path, m.deleted = strings.CutSuffix(strings.TrimLeft(rest, " "), " (deleted)")
	m.path = strings.ReplaceAll(m.path, `\012`, "\n")
	return m, true
}

// candidates names where the file of a mapping can be opened, best first, and if what is found there must be the same inode.
// The path is as seen from the process's root, or from ours if it only called chroot. An overlay's files have another
// inode number in maps than in stat before Linux 6.8, which is what the last row is for.
func (r *Resolver) candidates(pid int, m mapping) []candidate {
	inRoot := filepath.Join(r.pid(pid, "root"), m.path)
	cs := []candidate{{inRoot, true}, {m.path, true},
		{r.pid(pid, "map_files/") + strconv.FormatUint(m.start, 16) + "-" + strconv.FormatUint(m.end, 16), false}}
	if !m.deleted {
		cs = append(cs, candidate{inRoot, false})
	}
	return cs
}

type candidate struct {
	path string
	same bool
}
