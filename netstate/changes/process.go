package changes

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Process is what procfs says of a process that still is.
type Process struct {
	PID    int
	Comm   string
	UID    uint32
	Cgroup string // its path in the unified hierarchy, else in systemd's
	Parent int
}

// ReadProcess reads a process; ok is false if there is none.
func ReadProcess(pid int) (p Process, ok bool) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	b, err := os.ReadFile(dir + "/status")
	if err != nil {
		return p, false
	}
	p.PID = pid
	for line := range strings.Lines(string(b)) {
		key, v, _ := strings.Cut(strings.TrimSpace(line), ":")
		v = strings.TrimSpace(v)
		switch key {
		case "Name":
			p.Comm = v
		case "PPid":
			p.Parent, _ = strconv.Atoi(v)
		case "Uid": // real, effective, …
			if f := strings.Fields(v); len(f) > 0 {
				n, _ := strconv.ParseUint(f[0], 10, 32)
				p.UID = uint32(n)
			}
		}
	}
	if b, err := os.ReadFile(dir + "/cgroup"); err == nil {
		p.Cgroup = cgroupOf(string(b))
	}
	return p, true
}

// cgroupOf picks a path out of /proc/PID/cgroup (cgroups(7)): "0::/path" is the unified hierarchy's; where that is not used
// systemd's own says more.
func cgroupOf(text string) string {
	var unified, systemd string
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimRight(line, "\n"), ":", 3)
		switch {
		case len(f) < 3:
		case f[0] == "0":
			unified = f[2]
		case f[1] == "name=systemd":
			systemd = f[2]
		}
	}
	if (unified == "" || unified == "/") && systemd != "" {
		return systemd
	}
	return unified
}

// CgroupRoot finds where the unified hierarchy of cgroups is mounted; "" if it is not.
func CgroupRoot() string {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		before, after, ok := strings.Cut(line, " - ")
		f := strings.Fields(before)
		if ok && len(f) > 4 && strings.HasPrefix(after, "cgroup2 ") && f[3] == "/" {
			return f[4]
		}
	}
	return ""
}

// CgroupPath gives the path of a cgroup by its number, below root, which is where the hierarchy is mounted. The number is
// that of its folder, by which the kernel can open it (FILEID_KERNFS).
func CgroupPath(root string, id uint64) (string, bool) {
	const fileidKernfs = 0xfe // include/linux/exportfs.h
	if root == "" || id == 0 {
		return "", false
	}
	dir, err := os.Open(root)
	if err != nil {
		return "", false
	}
	defer dir.Close()
	fd, err := unix.OpenByHandleAt(int(dir.Fd()), unix.NewFileHandle(fileidKernfs, binary.NativeEndian.AppendUint64(nil, id)), unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return "", false
	}
	defer unix.Close(fd)
	p, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	rel, ok := strings.CutPrefix(p, strings.TrimRight(root, "/"))
	if err != nil || !ok {
		return "", false
	}
	return "/" + strings.TrimLeft(rel, "/"), true
}

// UserName gives the name that /etc/passwd has for a user; "" if it has none.
func UserName(uid uint32) string {
	b, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return ""
	}
	want := strconv.FormatUint(uint64(uid), 10)
	for line := range bytes.Lines(b) {
		if f := strings.SplitN(string(line), ":", 4); len(f) == 4 && f[2] == want {
			return f[0]
		}
	}
	return ""
}
