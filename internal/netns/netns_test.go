package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/lease"
)

// needRoot skips where namespaces cannot be made.
func needRoot(t *testing.T) {
	t.Helper()
	ns, err := New()
	if errors.Is(err, unix.EPERM) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	ns.Close()
}

func inode(t *testing.T, path string) string {
	t.Helper()
	s, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDo(t *testing.T) {
	needRoot(t)
	before := inode(t, "/proc/self/ns/net")
	mounts := inode(t, "/proc/self/ns/mnt")
	ns, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	var l net.Listener
	err = ns.Do(func() error {
		if got := inode(t, "/proc/thread-self/ns/net"); got == before {
			t.Error("not inside")
		}
		if got := inode(t, "/proc/thread-self/ns/mnt"); got != mounts {
			t.Error("the mounts changed")
		}
		ifs, err := net.Interfaces()
		if err != nil || len(ifs) == 0 || ifs[0].Name != "lo" {
			t.Error(ifs, err)
		}
		l, err = net.Listen("tcp", "0.0.0.0:1") // taken by no one in there
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	want := errors.New("mine")
	if err := ns.Do(func() error { return want }); err != want {
		t.Error(err)
	}
	for range 50 {
		if got := inode(t, "/proc/thread-self/ns/net"); got != before {
			t.Fatal("a thread of the namespace is used for others")
		}
	}
}

// TestThreads: threads that were inside end, and so do the namespaces.
func TestThreads(t *testing.T) {
	needRoot(t)
	count := func() int { e, _ := os.ReadDir("/proc/self/task"); return len(e) }
	fds := func() int { e, _ := os.ReadDir("/proc/self/fd"); return len(e) }
	threads, files := count(), fds()
	for range 30 {
		ns, err := New()
		if err != nil {
			t.Fatal(err)
		}
		if err := ns.Do(func() error { return nil }); err != nil {
			t.Error(err)
		}
		ns.Close()
	}
	for deadline := time.Now().Add(30 * time.Second); count() > threads+5 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if n := count(); n > threads+5 {
		t.Errorf("%d threads, before %d", n, threads)
	}
	if n := fds(); n > files+1 {
		t.Errorf("%d files, before %d", n, files)
	}
}

// TestMainThread: the process's own namespace, as others see it, stays what it was.
func TestMainThread(t *testing.T) {
	needRoot(t)
	before := inode(t, "/proc/self/ns/net")
	for range 200 {
		ns, err := New()
		if err != nil {
			t.Fatal(err)
		}
		ns.Close()
		if got := inode(t, "/proc/self/ns/net"); got != before {
			t.Fatal("the main thread is in another namespace")
		}
	}
}

func TestGoexit(t *testing.T) {
	if err := onThread(func() error { runtime.Goexit(); return nil }); err == nil {
		t.Error("no error")
	}
}

func TestOpen(t *testing.T) {
	self := strconv.Itoa(os.Getpid())
	for _, ref := range []string{self, "/proc/self/ns/net"} {
		ns, err := Open(ref)
		if err != nil {
			t.Fatal(err)
		}
		ns.Close()
	}
	ns, err := Current()
	if err != nil {
		t.Fatal(err)
	}
	ns.Close()
	for ref, want := range map[string]string{
		"": "invalid", "..": "invalid", "/dev/null": "not a namespace", "/proc/self/ns/mnt": "not of the network",
		"nosuchnamespace": "no such file", "2147483646": "no such file",
	} {
		if ns, err := Open(ref); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", ref, err, want)
			ns.Close()
		}
	}
}

func TestNamed(t *testing.T) {
	needRoot(t)
	d := lease.Dir{Path: filepath.Join(t.TempDir(), "run")}
	name := fmt.Sprintf("fathom-test-%d", os.Getpid())
	n, err := NewNamed(d, name)
	if errors.Is(err, unix.EPERM) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	if _, err := NewNamed(d, name); !errors.Is(err, fs.ErrExist) {
		t.Errorf("made twice: %v", err)
	}
	again, err := Open(name)
	if err != nil {
		t.Fatal(err)
	}
	var a, b unix.Stat_t
	if err := errors.Join(unix.Fstat(again.FD(), &a), unix.Fstat(n.FD(), &b)); err != nil || a.Ino != b.Ino {
		t.Errorf("%d and %d: %v", a.Ino, b.Ino, err)
	}
	again.Close()
	if all, err := d.List(); len(all) != 1 || err != nil {
		t.Error(all, err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Join(RunDir, name)); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the name stays:", err)
	}
	if all, err := d.List(); len(all) != 0 || err != nil {
		t.Error(all, err)
	}
	if err := Clean(lease.Record{Name: name}); err != nil {
		t.Error("cleaning what is gone:", err)
	}
}

func TestNames(t *testing.T) {
	for _, name := range []string{"", ".", "..", "a/b", "12", strings.Repeat("x", 300)} {
		if err := Remove(name); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
}
