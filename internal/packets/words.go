package packets

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/packets/capture"
)

// words are the primitives that a filter may have beside tcpdump's: what is not in a packet's bytes.
var words = map[string]func(o *Options, arg string) error{
	"netns":  func(o *Options, a string) error { o.Netns = append(o.Netns, a); return nil },
	"dev":    func(o *Options, a string) error { o.Devs = append(o.Devs, a); return nil },
	"comm":   func(o *Options, a string) error { o.Comm = a; return nil },
	"cgroup": func(o *Options, a string) (err error) { o.Cgroup, err = cgroupID(a); return err },
	"mark": func(o *Options, a string) error {
		n, err := strconv.ParseUint(a, 0, 32)
		m := uint32(n)
		o.Mark = &m
		return err
	},
	"pid": func(o *Options, a string) error {
		n, err := strconv.ParseUint(a, 10, 32)
		o.PIDs = append(o.PIDs, uint32(n))
		return err
	},
}

// cgroupID is the number of a cgroup, as bpf_get_current_cgroup_id gives it: the inode of its folder.
func cgroupID(name string) (uint64, error) {
	path := name
	if !filepath.IsAbs(path) || !strings.HasPrefix(path, "/sys/fs/cgroup") {
		path = filepath.Join("/sys/fs/cgroup", name)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Ino, nil
}

var conjunction = regexp.MustCompile(`\s+(?:and|&&)\s+`)

// Split takes our own words and conditions on the sk_buff from a filter and gives what is left of it for tcpdump's language.
// They stand in front of the rest or behind it, joined by "and".
func (o *Options) Split(expr string) (string, error) {
	parts := conjunction.Split(strings.TrimSpace(expr), -1)
	for len(parts) > 0 {
		ours, err := o.word(parts[0])
		if err != nil {
			return "", err
		}
		if !ours {
			break
		}
		parts = parts[1:]
	}
	for len(parts) > 0 {
		ours, err := o.word(parts[len(parts)-1])
		if err != nil {
			return "", err
		}
		if !ours {
			break
		}
		parts = parts[:len(parts)-1]
	}
	return strings.Join(parts, " and "), nil
}

// word takes one part of a filter, if it is ours.
func (o *Options) word(part string) (bool, error) {
	if t, ok, err := capture.ParseTerm(part); ok || err != nil {
		o.Terms = append(o.Terms, t)
		return true, err
	}
	f := strings.Fields(part)
	if len(f) != 2 || words[f[0]] == nil {
		return false, nil
	}
	if err := words[f[0]](o, f[1]); err != nil {
		return true, fmt.Errorf("%s: %w", part, err)
	}
	return true, nil
}
