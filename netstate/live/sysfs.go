package live

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/netns"
)

// sysTree is sysfs as a network namespace sees it: devices are shown by the namespace that it was mounted in.
type sysTree struct {
	root string
	fd   int // of a mount of our own, which is attached nowhere; -1 if root is /sys
}

// sysfs gives that of the namespace the thread is in. Where it may not be mounted it is what stands at /sys, which is
// another namespace's if the process was moved; err then says why.
func sysfs() (sysTree, error) {
	fd, err := netns.Sysfs(true)
	if err != nil {
		return sysTree{"/sys", -1}, err
	}
	return sysTree{"/proc/self/fd/" + strconv.Itoa(fd), fd}, nil
}

func (s sysTree) close() {
	if s.fd >= 0 {
		unix.Close(s.fd)
	}
}

func (s sysTree) path(parts ...string) string {
	return filepath.Join(append([]string{s.root}, parts...)...)
}

// text reads a short file; "" if it is not there or has nothing to say.
func (s sysTree) text(parts ...string) string {
	b, err := os.ReadFile(s.path(parts...))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// number reads a file with a number, else gives what is said.
func (s sysTree) number(otherwise int, parts ...string) int {
	if n, err := strconv.Atoi(s.text(parts...)); err == nil {
		return n
	}
	return otherwise
}

// names lists a folder.
func (s sysTree) names(parts ...string) (out []string) {
	es, _ := os.ReadDir(s.path(parts...))
	for _, e := range es {
		out = append(out, e.Name())
	}
	return out
}

// real is where a link leads to, from the root of the tree on; "" if nowhere.
func (s sysTree) real(parts ...string) string {
	fd, err := unix.Open(s.path(parts...), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	at, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd)) // of a mount of our own, the path in it
	if err != nil {
		return ""
	}
	if s.fd < 0 {
		at = strings.TrimPrefix(at, s.root)
	}
	return strings.TrimPrefix(at, "/")
}
