package lease

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// child, as environment, makes the test binary take a lease and wait to be killed.
const child = "FATHOM_LEASE_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(child); dir != "" {
		l, err := (Dir{Path: dir}).New("thing", "x", map[string]int{"old": 7})
		if err != nil {
			panic(err)
		}
		if os.Getenv(child+"_KEEP") != "" {
			if err := l.Keep(); err != nil {
				panic(err)
			}
		}
		os.Stdout.WriteString("ready\n")
		time.Sleep(time.Minute)
	}
	os.Exit(m.Run())
}

// killed runs a child that takes a lease in dir, and kills it.
func killed(t *testing.T, dir string, env ...string) {
	t.Helper()
	before, _ := (Dir{Path: dir}).Orphans() // none where there is no folder
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), child+"="+dir), env...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	if o, err := (Dir{Path: dir}).Orphans(); len(o) != len(before) || err != nil {
		t.Errorf("its owner lives, but: %v %v", o, err)
	}
	cmd.Process.Kill()
	cmd.Wait()
}

func TestOrphan(t *testing.T) {
	d := Dir{Path: filepath.Join(t.TempDir(), "run")}
	killed(t, d.Path)
	var got []string
	clean := map[string]Cleaner{"thing": func(r Record) error {
		got = append(got, r.Name+" "+string(r.Data))
		return nil
	}}
	cleaned, err := d.Clean(clean)
	if err != nil || len(cleaned) != 1 {
		t.Fatal(cleaned, err)
	}
	if diff := cmp.Diff([]string{`x {"old":7}`}, got); diff != "" {
		t.Error(diff)
	}
	if left, err := d.List(); len(left) != 0 || err != nil {
		t.Error(left, err)
	}
	if cleaned, err := d.Clean(clean); len(cleaned) != 0 || err != nil {
		t.Error("cleaned twice:", cleaned, err)
	}
}

func TestKeep(t *testing.T) {
	d := Dir{Path: t.TempDir()}
	os.Chmod(d.Path, 0o700)
	killed(t, d.Path, child+"_KEEP=1")
	if o, err := d.Orphans(); len(o) != 0 || err != nil {
		t.Error("kept, but an orphan:", o, err)
	}
	if all, err := d.List(); len(all) != 1 || err != nil || !all[0].Kept {
		t.Error(all, err)
	}
}

func TestRelease(t *testing.T) {
	d := Dir{Path: filepath.Join(t.TempDir(), "run")}
	a, err := d.New("thing", "a", nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := d.New("thing", "b", nil)
	if err != nil {
		t.Fatal(err)
	}
	if all, err := d.List(); err != nil || len(all) != 2 || all[0].Name != "a" {
		t.Fatal(all, err)
	}
	if err := errors.Join(a.Release(), b.Release(), b.Release()); err != nil {
		t.Error(err)
	}
	if all, err := d.List(); err != nil || len(all) != 0 {
		t.Error(all, err)
	}
}

// TestReused: a process with the owner's number that started at another time is not the owner.
func TestReused(t *testing.T) {
	d := Dir{Path: t.TempDir()}
	self, err := d.owner(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	other, rebooted, elsewhere := self, self, self
	other.Start++
	rebooted.Boot = "another"
	elsewhere.PIDNS = "pid:[1]"
	for _, tt := range []struct {
		name string
		o    Owner
		want bool
	}{{"self", self, true}, {"number used again", other, false}, {"rebooted", rebooted, false}, {"another PID namespace", elsewhere, true}} {
		if got := d.alive(tt.o); got != tt.want {
			t.Errorf("%s: alive is %v", tt.name, got)
		}
	}
}

func TestBroken(t *testing.T) {
	d := Dir{Path: filepath.Join(t.TempDir(), "run")}
	killed(t, d.Path)
	for name, text := range map[string]string{"1-1.json": "{", "1-2.json": "{}", ".999999999-1.json": "{", "note.txt": "x"} {
		if err := os.WriteFile(filepath.Join(d.Path, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cleaned, err := d.Clean(map[string]Cleaner{"thing": func(Record) error { return nil }})
	if len(cleaned) != 1 || err == nil || !strings.Contains(err.Error(), "1-1.json") || !strings.Contains(err.Error(), "1-2.json") {
		t.Error(cleaned, err)
	}
	if _, err := os.Lstat(filepath.Join(d.Path, ".999999999-1.json")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("half a record stays:", err)
	}
}

func TestCleanFails(t *testing.T) {
	d := Dir{Path: filepath.Join(t.TempDir(), "run")}
	killed(t, d.Path)
	for _, by := range []map[string]Cleaner{nil, {"thing": func(Record) error { return errors.New("busy") }}} {
		if cleaned, err := d.Clean(by); len(cleaned) != 0 || err == nil {
			t.Error(cleaned, err)
		}
	}
	if o, err := d.Orphans(); len(o) != 1 || err != nil {
		t.Error("the record must stay:", o, err)
	}
}

// TestCleanBusy: what something older uses goes when that has gone; what is free a little later, then.
func TestCleanBusy(t *testing.T) {
	d := Dir{Path: filepath.Join(t.TempDir(), "run")}
	killed(t, d.Path)
	killed(t, d.Path)
	first, asked := "", map[string]int{}
	cleaned, err := d.Clean(map[string]Cleaner{"thing": func(r Record) error {
		if asked[r.file]++; first == "" {
			first = r.file
		}
		switch {
		case r.file == first && len(asked) < 2: // the other is tried later
			return fmt.Errorf("remove events: %w", unix.EBUSY)
		case r.file != first && asked[r.file] < 3:
			return unix.EBUSY
		}
		return nil
	}})
	if err != nil || len(cleaned) != 2 || asked[first] != 2 {
		t.Error(cleaned, err, asked)
	}
	if o, err := d.Orphans(); len(o) != 0 || err != nil {
		t.Error(o, err)
	}
}

func TestUntrusted(t *testing.T) {
	d := Dir{Path: t.TempDir()}
	if err := os.Chmod(d.Path, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := d.New("thing", "x", nil); !errors.Is(err, fs.ErrPermission) {
		t.Error(err)
	}
	if _, err := d.Clean(nil); !errors.Is(err, fs.ErrPermission) {
		t.Error(err)
	}
}

func TestOutside(t *testing.T) {
	for _, tt := range []struct {
		text      string
		uid, want int
	}{
		{"         0          0 4294967295\n", 0, 0}, {"         0       1000          1\n", 0, 1000}, {"0 1000 1\n1 100000 65536\n", 7, 100006}, {"0 1000 1\n", 65534, 65534}, {"no numbers\n", 0, 0}, {"", 5, 5},
	} {
		if got := outside(tt.text, tt.uid); got != tt.want {
			t.Errorf("%q: user %d is %d outside, want %d", tt.text, tt.uid, got, tt.want)
		}
	}
}

func TestDefault(t *testing.T) {
	env := func(v string) func(string) string { return func(string) string { return v } }
	for _, tt := range []struct {
		uid  int
		run  string
		want string
	}{{0, "/run/user/0", "/run/fathom"}, {7, "/run/user/7", "/run/user/7/fathom"}, {7, "", "/tmp/fathom-7"}} {
		if got := Default(tt.uid, env(tt.run)).Path; got != tt.want {
			t.Errorf("%+v: %s", tt, got)
		}
	}
	if cleaned, err := (Dir{Path: "/nonexistent/run"}).Clean(nil); cleaned != nil || err != nil {
		t.Error(cleaned, err)
	}
}

// TestGive: what was given to a process stays as long as that runs.
func TestGive(t *testing.T) {
	d := Dir{Path: filepath.Join(t.TempDir(), "run")}
	l, err := d.New("thing", "x", nil)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := l.Give(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if o, err := d.Orphans(); len(o) != 0 || err != nil {
		t.Error("its owner lives:", o, err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if o, err := d.Orphans(); len(o) != 1 || !o[0].Given || err != nil {
		t.Error("its owner is gone:", o, err)
	}
	if err := l.Give(cmd.Process.Pid); err == nil {
		t.Error("given to nobody")
	}
}
