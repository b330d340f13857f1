package held

import (
	"bufio"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// pinOf finds the name of a link, or if it is 0 of a program, in the bpffs that are mounted where this process sees them; "" if
// there is none.
func pinOf(prog, linkID uint32) (found string) {
	for _, root := range bpffs("/proc/self/mountinfo") {
		_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error { // what cannot be read has no name here
			if err != nil || d.IsDir() {
				return nil
			}
			if pinned(path, prog, linkID) {
				found = path
				return filepath.SkipAll
			}
			return nil
		})
		if found != "" {
			return found
		}
	}
	return ""
}

// pinned says whether a file of a bpffs is a link, or a program. Opening one that is neither fails.
func pinned(path string, prog, linkID uint32) bool {
	ro := &ebpf.LoadPinOptions{ReadOnly: true}
	if linkID != 0 {
		l, err := link.LoadPinnedLink(path, nil) // links have no read-only descriptors
		if err != nil {
			return false
		}
		defer l.Close()
		info, err := l.Info()
		return err == nil && uint32(info.ID) == linkID
	}
	p, err := ebpf.LoadPinnedProgram(path, ro)
	if err != nil {
		return false
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return false
	}
	id, ok := info.ID()
	return ok && uint32(id) == prog
}

// bpffs lists where file systems of type bpf are mounted (proc_pid_mountinfo(5)).
func bpffs(mountinfo string) (out []string) {
	f, err := os.Open(mountinfo)
	if err != nil {
		return nil
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		before, after, ok := strings.Cut(sc.Text(), " - ")
		fields := strings.Fields(before)
		if ok && strings.HasPrefix(after, "bpf ") && len(fields) > 4 && !slices.Contains(out, fields[4]) {
			out = append(out, fields[4])
		}
	}
	return out
}
