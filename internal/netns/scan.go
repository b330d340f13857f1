package netns

import (
	"bufio"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Found is a network namespace that someone uses or named.
type Found struct {
	Inode uint64   // its number, as in net:[4026531840]
	Names []string // where it is mounted
	PIDs  []int    // processes in it, with any of their threads, ascending
	Comm  string   // of the first
	Held  []int    // processes that are not in it but have it open
	Own   bool     // this process is in it
}

// Scan finds namespaces by the processes in them, by open descriptors, and by mounts that can be seen from here. proc is
// the root of procfs, "/proc". What other users' processes hide is left out.
func Scan(proc string) ([]Found, error) {
	found := map[uint64]*Found{}
	get := func(ino uint64) *Found {
		if found[ino] == nil {
			found[ino] = &Found{Inode: ino}
		}
		return found[ino]
	}
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		scanProcess(filepath.Join(proc, e.Name()), pid, get)
	}
	if ino, ok := nsInode(filepath.Join(proc, "self/ns/net")); ok {
		get(ino).Own = true
	}
	if err := scanMounts(filepath.Join(proc, "self/mountinfo"), get); err != nil {
		return nil, err
	}
	var out []Found
	for _, ino := range slices.Sorted(maps.Keys(found)) {
		f := found[ino]
		slices.Sort(f.PIDs)
		if len(f.PIDs) > 0 {
			b, _ := os.ReadFile(filepath.Join(proc, strconv.Itoa(f.PIDs[0]), "comm"))
			f.Comm = strings.TrimSpace(string(b))
		}
		out = append(out, *f)
	}
	return out, nil
}

// scanProcess looks at the threads of a process, each of which may be elsewhere, and at its descriptors.
func scanProcess(dir string, pid int, get func(uint64) *Found) {
	in := map[uint64]bool{}
	tasks, _ := os.ReadDir(filepath.Join(dir, "task")) // it may have ended
	for _, t := range tasks {
		if ino, ok := nsInode(filepath.Join(dir, "task", t.Name(), "ns/net")); ok && !in[ino] {
			in[ino] = true
			f := get(ino)
			f.PIDs = append(f.PIDs, pid)
		}
	}
	fds, _ := os.ReadDir(filepath.Join(dir, "fd"))
	for _, fd := range fds {
		if ino, ok := nsInode(filepath.Join(dir, "fd", fd.Name())); ok && !in[ino] {
			in[ino] = true
			f := get(ino)
			f.Held = append(f.Held, pid)
		}
	}
}

// nsInode reads a link such as net:[4026531840].
func nsInode(path string) (uint64, bool) {
	s, err := os.Readlink(path)
	if err != nil {
		return 0, false
	}
	return parseInode(s)
}

func parseInode(s string) (uint64, bool) {
	s, ok := strings.CutPrefix(s, "net:[")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.TrimSuffix(s, "]"), 10, 64)
	return n, err == nil
}

// scanMounts finds namespaces that are mounted somewhere: their root in mountinfo is net:[…] (proc_pid_mountinfo(5)).
func scanMounts(path string, get func(uint64) *Found) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		fields := strings.Fields(sc.Text())
		if len(fields) < 5 {
			continue
		}
		if ino, ok := parseInode(fields[3]); ok {
			ns := get(ino)
			if name := unescape(fields[4]); !slices.Contains(ns.Names, name) {
				ns.Names = append(ns.Names, name)
			}
		}
	}
	return sc.Err()
}

// unescape undoes the octal escapes of blanks in mountinfo.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace
