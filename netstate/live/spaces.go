package live

import (
	"encoding/binary"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/netns"
	"github.com/fathom-trace/fathom/netstate/nlattr"
)

// space is a network namespace that can be opened by a path.
type space struct {
	inode uint64
	path  string
	pid   int    // of a process in it; 0 if it was found otherwise
	name  string // below netns.RunDir
}

// spaces finds namespaces: those with names, those of processes, and with held those that someone only has open. The same
// one can come several times.
func spaces(proc string, held bool) iter.Seq[space] {
	return func(yield func(space) bool) {
		names, _ := os.ReadDir(netns.RunDir)
		for _, e := range names {
			path := filepath.Join(netns.RunDir, e.Name())
			var st unix.Stat_t
			if unix.Stat(path, &st) == nil && !yield(space{inode: st.Ino, path: path, name: e.Name()}) {
				return
			}
		}
		procs, _ := os.ReadDir(proc)
		for _, e := range procs {
			pid, err := strconv.Atoi(e.Name())
			if err != nil {
				continue
			}
			path := filepath.Join(proc, e.Name(), "ns/net")
			if ino, ok := linkInode(path); ok && !yield(space{inode: ino, path: path, pid: pid}) {
				return
			}
		}
		if held {
			heldSpaces(proc, procs, yield)
		}
	}
}

// heldSpaces looks at open descriptors, and at threads that are elsewhere than their process.
func heldSpaces(proc string, procs []os.DirEntry, yield func(space) bool) {
	for _, e := range procs {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		for _, sub := range []string{"fd", "task"} {
			entries, _ := os.ReadDir(filepath.Join(proc, e.Name(), sub))
			for _, x := range entries {
				path := filepath.Join(proc, e.Name(), sub, x.Name())
				if sub == "task" {
					path = filepath.Join(path, "ns/net")
				}
				if ino, ok := linkInode(path); ok && !yield(space{inode: ino, path: path, pid: pid}) {
					return
				}
			}
		}
	}
}

// linkInode reads a link such as net:[4026531840].
func linkInode(path string) (uint64, bool) {
	s, err := os.Readlink(path)
	if err != nil {
		return 0, false
	}
	s, ok := strings.CutPrefix(s, "net:[")
	n, err := strconv.ParseUint(strings.TrimSuffix(s, "]"), 10, 64)
	return n, ok && err == nil
}

// nameOf is what people call a namespace: "init", its name below /run/netns, or "comm[pid]" of its first process.
func nameOf(proc string, inode uint64) string {
	if ino, ok := linkInode(filepath.Join(proc, "1/ns/net")); ok && ino == inode {
		return "init"
	}
	first := 0
	for s := range spaces(proc, false) {
		if s.inode != inode {
			continue
		}
		if s.name != "" {
			return s.name
		}
		if first == 0 || s.pid < first {
			first = s.pid
		}
	}
	if first == 0 {
		return ""
	}
	return owner(proc, first)
}

// owner is "comm[pid]".
func owner(proc string, pid int) string {
	b, _ := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "comm"))
	return fmt.Sprintf("%s[%d]", strings.TrimSpace(string(b)), pid)
}

// peer is a namespace that this one has a number for.
type peer struct {
	inode uint64
	path  string
}

const (
	rtmGetNSID = 90
	netnsaNSID = 1
	netnsaFD   = 3
)

// nsid asks which number the namespace at a path has here; −1 is none.
func (r *Reader) nsid(s space) (int, error) {
	ns, err := netns.Open(s.path)
	if err != nil {
		return -1, err
	}
	defer ns.Close()
	if ino, err := inodeOf(ns.FD()); err != nil || ino != s.inode {
		return -1, err
	}
	c, err := r.conn(unix.NETLINK_ROUTE)
	if err != nil {
		return -1, err
	}
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		return -1, err
	}
	msgs, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: rtmGetNSID, Flags: netlink.Request},
		Data:   nlattr.AppendU32(make([]byte, 4), netnsaFD, uint32(ns.FD())),
	})
	if err != nil || len(msgs) == 0 || len(msgs[0].Data) < 4 {
		return -1, err
	}
	a, err := nlattr.Parse(msgs[0].Data[4:])
	if d := a.Get(netnsaNSID); len(d) == 4 {
		return int(int32(binary.LittleEndian.Uint32(d))), nil
	}
	return -1, err
}

// resolve finds the namespaces behind numbers. What it found before it asks the kernel about again: a number may be given
// to another namespace.
func (r *Reader) resolve(ids map[int]bool) {
	left := map[int]bool{}
	for id := range ids {
		p, ok := r.peers[id]
		if n, err := r.nsid(space{inode: p.inode, path: p.path}); !ok || err != nil || n != id {
			delete(r.peers, id)
			left[id] = true
		}
	}
	asked := map[uint64]bool{}
	for s := range spaces(r.Proc, true) {
		if len(left) == 0 {
			return
		}
		if asked[s.inode] {
			continue
		}
		asked[s.inode] = true
		if id, err := r.nsid(s); err == nil && left[id] {
			r.peers[id] = peer{s.inode, s.path}
			delete(left, id)
		}
	}
}
