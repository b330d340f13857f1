package usersym

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Mapping is an executable part of a process's memory, as the kernel reports it when it is made (PERF_RECORD_MMAP2).
type Mapping struct {
	Start, Len, Offset uint64
	Major, Minor       uint32 // of the file's device
	Inode              uint64
	Path               string
}

// Exec says that a process ran a new program: what it had mapped is over, but still names older addresses. when is any clock
// that all three methods are given.
func (r *Resolver) Exec(pid int, when uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.told(pid, when)
	p.newer(when, nil)
}

// Mapped says that a process mapped something to execute, and holds the file: the process may end before anybody asks.
func (r *Resolver) Mapped(pid int, when uint64, m Mapping) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.told(pid, when)
	n := mapping{start: m.Start, end: m.Start + m.Len, off: m.Offset, dev: unix.Mkdev(m.Major, m.Minor), ino: m.Inode, path: m.Path}
	if n.end <= n.start {
		return
	}
	n.obj = r.object(pid, n)
	if len(p.maps) == 0 {
		p.maps = []memory{{since: p.since}}
	}
	over := func(o mapping) bool { return o.start < n.end && n.start < o.end }
	if slices.ContainsFunc(p.maps[0].maps, func(o mapping) bool { return over(o) && o.obj != nil && o.obj != n.obj }) {
		p.newer(when, p.maps[0].maps) // a library in the place of another
	}
	gen := slices.DeleteFunc(slices.Clone(p.maps[0].maps), over)
	i, _ := slices.BinarySearchFunc(gen, n.start, func(o mapping, at uint64) int {
		if o.start < at {
			return -1
		}
		return 1
	})
	p.maps[0].maps = slices.Insert(gen, i, n)
}

// Forked says that a process was made: it has its parent's memory. What the child did since may have been told before, as
// CPUs report for themselves.
func (r *Resolver) Forked(parent, child int, when uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.procs[child]; p != nil && p.told > when {
		return
	}
	from := r.procs[parent]
	if from == nil {
		r.note(parent)
		from = r.procs[parent]
	}
	p := r.remember(child, identity{})
	p.looked, p.told, p.since = time.Now(), when, when
	if from != nil {
		p.maps = slices.Clone(from.maps)
	}
}

// told gives a process something was told of.
func (r *Resolver) told(pid int, when uint64) *process {
	p := r.procs[pid]
	if p == nil {
		p = r.remember(pid, identity{})
	}
	p.told = max(p.told, when)
	p.looked = time.Now() // it is as it was just said to be
	if p.who == (identity{}) {
		p.who, _ = r.identify(pid)
	}
	return p
}
