package complete

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNarrow(t *testing.T) {
	many := []string{"ab"}
	for i := range 30 {
		many = append(many, fmt.Sprintf("tcp_%02d", i))
	}
	for i := range 30 {
		many = append(many, fmt.Sprintf("udp_%02d", i))
	}
	for _, c := range []struct {
		prefix string
		want   []string
		whole  bool
	}{
		{"a", []string{"ab"}, true},
		{"", []string{"ab", "tcp_", "udp_"}, false},
		{"tc", []string{"tcp"}, false},
		{"tcp_10", []string{"tcp_10"}, true},
		{"x", nil, true},
	} {
		got, whole := Narrow(many, c.prefix, 9)
		if diff := cmp.Diff(c.want, append([]string(nil), got...)); diff != "" || whole != c.whole {
			t.Errorf("%q: whole %v, %s", c.prefix, whole, diff)
		}
	}
}

// TestNarrowLosesNothing follows proposals letter by letter: every name is reached.
func TestNarrowLosesNothing(t *testing.T) {
	var names []string
	for i := range 3000 {
		names = append(names, fmt.Sprintf("%05d_%d.x", i*7, i%3))
	}
	var reach func(prefix string, depth int) int
	reach = func(prefix string, depth int) int {
		if depth > 20 {
			t.Fatalf("%q: no end", prefix)
		}
		list, whole := Narrow(names, prefix, 50)
		if len(list) > 50 {
			t.Errorf("%q: %d proposals", prefix, len(list))
		}
		if whole {
			return len(list)
		}
		n := 0
		for _, p := range list {
			if len(p) <= len(prefix) {
				t.Fatalf("%q proposes %q", prefix, p)
			}
			n += reach(p, depth+1)
		}
		return n
	}
	if n := reach("", 0); n != len(names) {
		t.Errorf("%d of %d names are reached", n, len(names))
	}
}

func TestMachine(t *testing.T) {
	root := t.TempDir()
	m := Machine{Proc: root + "/proc", Sys: root + "/sys", Run: root + "/run", Cache: root + "/cache"}
	for name, text := range map[string]string{
		"proc/7/comm": "cat\n", "proc/12/comm": "sh\n", "proc/meminfo": "", "proc/modules": "veth 1 0 - Live 0x0\n",
		"proc/sys/kernel/random/boot_id": "boot\n", "sys/class/net/eth0": "", "sys/class/net/lo": "", "run/netns/web": "",
	} {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, pid := range []string{"7", "12"} {
		if err := os.Symlink("/bin/true", filepath.Join(root, "proc", pid, "exe")); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]Choice{{"12", "sh"}, {"7", "cat"}}, m.Processes()); diff != "" {
		t.Error(diff)
	}
	got := strings.Join([]string{fmt.Sprint(m.Devices()), fmt.Sprint(m.Namespaces()), fmt.Sprint(m.Comms()), fmt.Sprint(m.Functions())}, " ")
	if want := "[eth0 lo] [web] [cat sh] []"; got != want {
		t.Errorf("%s, want %s", got, want)
	}

	reads := 0
	read := func() []string { reads++; return []string{"a", "b"} }
	for range 2 {
		if diff := cmp.Diff([]string{"a", "b"}, m.cached("things", read)); diff != "" {
			t.Error(diff)
		}
	}
	if reads != 1 {
		t.Errorf("read %d times", reads)
	}
	if err := os.WriteFile(filepath.Join(root, "proc/sys/kernel/random/boot_id"), []byte("next\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if m.cached("things", read); reads != 2 {
		t.Error("another boot has the old list")
	}
	if dirs, _ := os.ReadDir(m.Cache); len(dirs) != 1 {
		t.Errorf("the cache holds %v", dirs)
	}
}
