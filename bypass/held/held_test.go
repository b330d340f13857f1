package held

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// proc writes a procfs.
func proc(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestOwners(t *testing.T) {
	root := proc(t, map[string]string{
		"7/comm": "xdpsock\n", "7/fdinfo/3": "pos:\t0\nprog_type:\t6\nprog_id:\t42\n", "7/fdinfo/4": "pos:\t0\nlink_type:\txdp\nlink_id:\t9\nprog_tag:\tab\nprog_id:\t42\n",
		"8/comm": "other\n", "8/fdinfo/3": "prog_id:\t43\n", "9/comm": "twin\n", "9/fdinfo/3": "prog_id:\t42\n", "9/fdinfo/5": "prog_id:\t42\n",
	})
	for _, tt := range []struct {
		name       string
		prog, link uint32
		want       []string
	}{
		{"by link", 42, 9, []string{"xdpsock[7]"}},
		{"by program", 42, 0, []string{"xdpsock[7]", "twin[9]"}},
		{"nobody", 1, 0, nil},
	} {
		if d := cmp.Diff(tt.want, owners(root, tt.prog, tt.link)); d != "" {
			t.Errorf("%s: %s", tt.name, d)
		}
	}
}

func TestMapped(t *testing.T) {
	root := proc(t, map[string]string{
		"7/comm": "xdpsock\n", "7/maps": "7f00-7f01 rw-s 100000000 00:08 77 socket:[77]\n7f02-7f03 rw-s 180000000 00:08 77 socket:[77]\n7f04-7f05 rw-s 100000000 00:08 78 socket:[78]\n",
		"8/comm": "tcpdump\n", "8/maps": "7f00-7f01 rw-s 00000000 00:08 79 socket:[79]\n7f00-7f01 rw-s 100000000 08:01 5 /tmp/large\n",
	})
	if d := cmp.Diff([]string{"xdpsock[7]", "xdpsock[7]"}, Mapped(root)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]uint64{77, 77, 78}, socketsMapped(filepath.Join(root, "7/maps"), ringOffsets)); d != "" {
		t.Error(d)
	}
	if out, unseen := Sockets(root, 0); len(out)+len(unseen) > 0 { // none has a descriptor
		t.Errorf("%+v, %v", out, unseen)
	}
}

func TestBPFFS(t *testing.T) {
	root := proc(t, map[string]string{"mountinfo": "30 23 0:26 / /sys/fs/bpf rw,nosuid - bpf bpf rw,mode=700\n31 23 0:27 / /mnt rw - tmpfs none rw\n32 23 0:28 / /run/b rw shared:1 - bpf none rw\n"})
	if d := cmp.Diff([]string{"/sys/fs/bpf", "/run/b"}, bpffs(filepath.Join(root, "mountinfo"))); d != "" {
		t.Error(d)
	}
}

func TestError(t *testing.T) {
	e := &Error{Device: "eth0@ns1", Err: unix.EBUSY, Programs: []Program{
		{ID: 7, Name: "strat", Tag: "ab", Mode: "native", Link: 3, Owners: []string{"lll[9]"}},
		{ID: 8, Name: "old", Tag: "cd", Mode: "generic"},
		{ID: 9, Name: "kept", Tag: "ef", Mode: "native", Link: 4, Pin: "/run/x"},
		{ID: 9, Name: "ours", Tag: "ef", Mode: "native", Link: 6, Pin: "/run/fathom/bpf/xdp-1-2"},
		{ID: 10, Name: "far", Tag: "01", Mode: "native", Link: 5},
	}}
	for _, want := range []string{`program "strat" (id 7, tag ab, native), attached by link 3 of lll[9]`, "attached for good", "pinned as /run/x", "cannot be seen"} {
		if !strings.Contains(e.Error(), want) {
			t.Errorf("no %q in %v", want, e)
		}
	}
	want := []string{"fathom bypass status --netns ns1", "end lll[9]: the program goes with it", "fathom bypass prog detach -i eth0 --netns ns1 --id 8", "rm /run/x", "fathom bypass prog detach -i eth0 --netns ns1"}
	if d := cmp.Diff(want, e.Try()); d != "" || !errors.Is(e, unix.EBUSY) {
		t.Error(d)
	}
}
