package netns

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestScan: a process with a thread elsewhere, a descriptor, a mount without a process.
func TestScan(t *testing.T) {
	proc := t.TempDir()
	link := func(to string, elem ...string) {
		p := filepath.Join(append([]string{proc}, elem...)...)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, p); err != nil {
			t.Fatal(err)
		}
	}
	link("net:[1]", "10/task/10/ns/net")
	link("net:[2]", "10/task/11/ns/net")
	link("net:[3]", "10/fd/4")
	link("mnt:[9]", "10/fd/5")
	link("net:[1]", "self/ns/net")
	for name, text := range map[string]string{
		"10/comm":        "server\n",
		"self/mountinfo": "30 20 0:4 net:[3] /run/netns/with\\040blank rw - nsfs nsfs rw\n31 20 0:4 net:[4] /run/netns/b rw - nsfs nsfs rw\n32 20 0:5 / /x rw - tmpfs tmpfs rw\n",
	} {
		if err := os.WriteFile(filepath.Join(proc, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Scan(proc)
	if err != nil {
		t.Fatal(err)
	}
	want := []Found{
		{Inode: 1, PIDs: []int{10}, Comm: "server", Own: true},
		{Inode: 2, PIDs: []int{10}, Comm: "server"},
		{Inode: 3, Names: []string{"/run/netns/with blank"}, Held: []int{10}},
		{Inode: 4, Names: []string{"/run/netns/b"}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestScanHere: a namespace without a name, held by a descriptor, is found.
func TestScanHere(t *testing.T) {
	needRoot(t)
	ns, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	all, err := Scan("/proc")
	if err != nil {
		t.Fatal(err)
	}
	held := 0
	for _, f := range all {
		for _, pid := range f.Held {
			if pid == os.Getpid() && len(f.Names) == 0 {
				held++
			}
		}
	}
	if held != 1 {
		t.Errorf("%+v", all)
	}
}
