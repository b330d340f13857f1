package script

import (
	"fmt"
	"io/fs"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/kernel/live"
	"github.com/fathom-trace/fathom/lang/types"
	"github.com/fathom-trace/fathom/usersym"
)

// resolver names for the printing side what only this system knows.
type resolver struct {
	live  *live.Live
	users *usersym.Resolver
	drain func() // has users know what was mapped until now
	// source asks for lines and inlined functions of user frames (show_debug_info).
	source bool
	names  map[uint64]string // users
	cgs    map[uint64]string // cgroup paths
	// binaries are the files that are probed: what is left to ask when a process has ended.
	binaries []string
	boot     int64 // real time minus boot time, ns
}

func newResolver(l *live.Live, u *usersym.Resolver) *resolver {
	return &resolver{live: l, users: u, names: map[uint64]string{}, boot: int64(clock(unix.CLOCK_REALTIME)) - int64(clock(unix.CLOCK_BOOTTIME))}
}

// KernelStack implements view.Resolver.
func (r *resolver) KernelStack(addrs []uint64, mode types.StackMode) []string {
	out := make([]string, 0, len(addrs))
	for _, f := range r.live.Stack(addrs) {
		out = append(out, frame(f.Addr, f.Name, f.Off, f.Name != "", mode))
	}
	return out
}

func frame(a uint64, name string, off uint64, ok bool, mode types.StackMode) string {
	switch {
	case mode == types.StackRaw || mode == types.StackBuildID:
		return strconv.FormatUint(a, 16)
	case mode == types.StackPerf && ok:
		return fmt.Sprintf("%x %s+%d", a, name, off)
	case mode == types.StackPerf:
		return fmt.Sprintf("%x 0x%x", a, a)
	case ok:
		return fmt.Sprintf("%s+%d", name, off)
	}
	return fmt.Sprintf("0x%x", a)
}

// UserStack implements view.Resolver.
func (r *resolver) UserStack(pid int, addrs []uint64, mode types.StackMode) []string {
	out := make([]string, 0, len(addrs))
	r.drain()
	for n, f := range r.users.Frames(pid, addrs) {
		a := addrs[n]
		for i := 0; i < len(r.binaries) && f.Name == ""; i++ {
			f, _ = r.users.AtFile(r.binaries[i], a)
		}
		s := frame(a, f.Name, f.Offset, f.Name != "", mode)
		if r.source && f.Name != "" && (mode == types.StackBpftrace || mode == types.StackPerf) {
			for _, in := range r.users.Inlined(f) {
				at := ""
				if in.Line > 0 && mode == types.StackBpftrace {
					at = fmt.Sprintf("@%s:%d", in.File, in.Line)
				}
				switch {
				case !in.Inlined:
					s += at
				case mode == types.StackPerf:
					out = append(out, fmt.Sprintf("%x %s (inlined)", a, in.Name))
				default:
					out = append(out, "[inlined] "+in.Name+at)
				}
			}
		}
		s += inFile(f.File, mode)
		out = append(out, s)
	}
	return out
}

// inFile is what perf's form says of a frame's file.
func inFile(file string, mode types.StackMode) string {
	if file == "" || mode != types.StackPerf {
		return ""
	}
	return " (" + file + ")"
}

// KernelSym implements view.Resolver.
func (r *resolver) KernelSym(addr uint64) string {
	if name, _, ok := r.live.Symbolise(addr); ok {
		return name
	}
	return fmt.Sprintf("0x%x", addr)
}

// UserSym implements view.Resolver.
func (r *resolver) UserSym(pid int, addr uint64) string {
	r.drain()
	if f, ok := r.users.Resolve(pid, addr); ok && f.Name != "" {
		return f.Name
	}
	return fmt.Sprintf("0x%x", addr)
}

// Username implements view.Resolver.
func (r *resolver) Username(uid uint64) string {
	if n, ok := r.names[uid]; ok {
		return n
	}
	n := strconv.FormatUint(uid, 10)
	if u, err := user.LookupId(n); err == nil {
		n = u.Username
	}
	r.names[uid] = n
	return n
}

// CgroupPath implements view.Resolver: a cgroup's id is the inode number of its directory.
func (r *resolver) CgroupPath(_, id uint64) string {
	if r.cgs == nil {
		r.cgs = map[uint64]string{}
		for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
			filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
				if err != nil || !d.IsDir() {
					return nil
				}
				var st unix.Stat_t
				if unix.Stat(p, &st) == nil {
					r.cgs[st.Ino] = "unified:/" + strings.TrimPrefix(strings.TrimPrefix(p, root), "/")
				}
				return nil
			})
		}
	}
	return r.cgs[id]
}

// cgroupID gives the id of a cgroup: the inode number of its directory.
func cgroupID(path string) (uint64, bool) {
	for _, p := range []string{path, "/sys/fs/cgroup/" + strings.TrimPrefix(path, "/")} {
		var st unix.Stat_t
		if unix.Stat(p, &st) == nil {
			return st.Ino, true
		}
	}
	return 0, false
}

// Strftime implements view.Resolver: clock is 0 boot time, 1 monotonic, 2 TAI, 3 TAI by software; -1 is now.
func (r *resolver) Strftime(format string, ns uint64, id int) string {
	t := int64(ns)
	switch id {
	case -1: // now
		t = time.Now().UnixNano()
	case 0:
		t += r.boot
	case 1:
		t += int64(clock(unix.CLOCK_REALTIME)) - int64(clock(unix.CLOCK_MONOTONIC))
	default: // TAI is whole seconds away; the two clocks are read one after the other
		t -= time.Duration(int64(clock(unix.CLOCK_TAI)) - int64(clock(unix.CLOCK_REALTIME))).Round(time.Second).Nanoseconds()
	}
	return strftime(format, time.Unix(0, t))
}

// strftime formats as strftime(3) does, with %f for microseconds and %k-less: unknown conversions stay as written.
func strftime(f string, t time.Time) string {
	var b strings.Builder
	for i := 0; i < len(f); i++ {
		if f[i] != '%' || i+1 == len(f) {
			b.WriteByte(f[i])
			continue
		}
		i++
		if layout, ok := layouts[f[i]]; ok {
			b.WriteString(t.Format(layout))
			continue
		}
		switch f[i] {
		case 's':
			fmt.Fprint(&b, t.Unix())
		case 'f':
			fmt.Fprintf(&b, "%06d", t.Nanosecond()/1000)
		case 'j':
			fmt.Fprintf(&b, "%03d", t.YearDay())
		case 'u':
			fmt.Fprint(&b, (int(t.Weekday())+6)%7+1)
		case 'w':
			fmt.Fprint(&b, int(t.Weekday()))
		case 'n':
			b.WriteByte('\n')
		case 't':
			b.WriteByte('\t')
		case '%':
			b.WriteByte('%')
		default:
			b.WriteByte('%')
			b.WriteByte(f[i])
		}
	}
	return b.String()
}

// layouts has the conversions of strftime(3) that package time can do.
var layouts = map[byte]string{
	'Y': "2006", 'm': "01", 'd': "02", 'H': "15", 'M': "04", 'S': "05", 'y': "06", 'e': "_2", 'I': "03", 'p': "PM",
	'b': "Jan", 'h': "Jan", 'B': "January", 'a': "Mon", 'A': "Monday", 'F': "2006-01-02", 'T': "15:04:05", 'R': "15:04",
	'D': "01/02/06", 'Z': "MST", 'z': "-0700", 'c': "Mon Jan _2 15:04:05 2006", 'x': "01/02/06", 'X': "15:04:05", 'r': "03:04:05 PM",
}
