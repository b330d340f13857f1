package live

import (
	"cmp"
	"path/filepath"

	"github.com/fathom-trace/fathom/internal/netns"
	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/netstate"
)

// OpenAll opens every namespace that can be found, at most so many: those with names, of processes, and those that someone
// holds open; the ones with names first. It looks through /proc once. What ends meanwhile is left out. The caller closes
// them.
func OpenAll(most int) []*Reader {
	const proc = "/proc"
	found := map[uint64]*space{}
	var order []*space
	for s := range spaces(proc, true) {
		was := found[s.inode]
		if was == nil {
			was = &s
			found[s.inode], order = was, append(order, was)
		}
		if was.name == "" && s.pid != 0 && (was.pid == 0 || s.pid < was.pid) {
			was.pid = s.pid
		}
	}
	sorting.Stable(order, func(a, b *space) int {
		if named := a.name != ""; named != (b.name != "") {
			if named {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.inode, b.inode)
	})
	first, _ := linkInode(filepath.Join(proc, "1/ns/net"))
	var out []*Reader
	for _, s := range order[:min(most, len(order))] {
		ns, err := netns.Open(s.path)
		if err != nil {
			continue
		}
		if ino, err := inodeOf(ns.FD()); err != nil || ino != s.inode {
			ns.Close()
			continue
		}
		r := open(ns, proc, netstate.Namespace{Inode: s.inode, Name: s.name})
		switch {
		case s.inode == first:
			r.id.Name = "init"
		case s.name == "" && s.pid != 0:
			r.id.Name = owner(proc, s.pid)
		}
		out = append(out, r)
	}
	return out
}
