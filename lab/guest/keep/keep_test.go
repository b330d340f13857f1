package keep

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/internal/lease"
	"github.com/fathom-trace/fathom/lab/guest"
	"github.com/fathom-trace/fathom/lab/guest/pid1"
)

// TestSocketNames: a socket is reached under a path that is longer than an address can be.
func TestSocketNames(t *testing.T) {
	for _, n := range []int{1, 40} {
		dir := filepath.Join(append([]string{t.TempDir()}, strings.Split(strings.Repeat("long,", n), ",")...)...)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		l, err := listen(filepath.Join(dir, ctlSocket))
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			if c, err := l.Accept(); err == nil {
				io.WriteString(c, "here")
				c.Close()
			}
		}()
		c, err := dial(filepath.Join(dir, ctlSocket))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(c); string(b) != "here" {
			t.Errorf("%q: %v", b, err)
		}
		c.Close()
		l.Close()
	}
}

// TestList: the guests of a person are listed, those of others and of dead keepers are not.
func TestList(t *testing.T) {
	g := Guests{Dir: lease.Dir{Path: filepath.Join(t.TempDir(), "run")}, Person: "7"}
	for _, person := range []string{"7", "8"} {
		if _, err := g.Dir.New(LeaseKind, person+"/g", Data{Person: person, Folder: g.folder("g"), Mem: 4096}); err != nil {
			t.Fatal(err)
		}
	}
	all, err := g.List()
	if err != nil || len(all) != 1 || all[0].Name != "g" || all[0].Keeper != os.Getpid() {
		t.Errorf("%+v: %v", all, err)
	}
	if d := cmp.Diff([][2]uint64{{0, 3 << 30}, {4 << 30, 5 << 30}}, all[0].Memory()); d != "" {
		t.Error(d)
	}
	if _, err := g.Find("h"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// TestClean removes a guest's folder, and nothing that is none.
func TestClean(t *testing.T) {
	dir := t.TempDir()
	folder := filepath.Join(dir, "guest-7-g")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		folder string
		ok     bool
	}{{dir, false}, {"/", false}, {folder, true}, {folder, true}} {
		data, _ := json.Marshal(Data{Folder: tt.folder})
		if err := Clean(lease.Record{Data: data}); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.folder, err)
		}
	}
	if _, err := os.Stat(dir); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(folder); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the folder stays")
	}
}

func TestCheckName(t *testing.T) {
	for name, ok := range map[string]bool{"g": true, "A-1_b": true, "": false, "a/b": false, "..": false, strings.Repeat("a", 33): false} {
		if err := CheckName(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// TestFailure: an error comes out of a keeper as what it was.
func TestFailure(t *testing.T) {
	for _, err := range []error{
		&guest.SetupError{What: "a", Because: "b", Try: []string{"c"}}, &guest.PanicError{Line: "Kernel panic", Console: "x"},
		&guest.HangError{After: 7}, fmt.Errorf("open x: %w", syscall.ENOENT), errors.New("plain"),
	} {
		b, jerr := json.Marshal(fail(err))
		var f failure
		if jerr = errors.Join(jerr, json.Unmarshal(b, &f)); jerr != nil {
			t.Fatal(jerr)
		}
		back := f.error()
		if back.Error() != err.Error() || errors.Is(err, syscall.ENOENT) != errors.Is(back, syscall.ENOENT) {
			t.Errorf("got %#v, want %#v", back, err)
		}
	}
}

// TestConsole: who listens gets what was said and what is said, and a slow listener holds nobody up.
func TestConsole(t *testing.T) {
	c := consoleLog{tee: func([]byte) {}}
	io.WriteString(&c, "before")
	before, said, done := c.listen()
	for range 2000 {
		io.WriteString(&c, "x")
	}
	if before != "before" || string(<-said) != "x" {
		t.Error("not heard")
	}
	done()
	c.Write(bytes.Repeat([]byte("y"), 3*consoleKept))
	if s := c.String(); len(s) != consoleKept || s[0] != 'y' {
		t.Errorf("%d bytes kept", len(s))
	}
}

func TestRelay(t *testing.T) {
	r := newRelay()
	data := []byte("one") // the relay keeps a copy
	r.put(pid1.Frame{Kind: pid1.Stdout, Data: data})
	clear(data)
	if f, ok := r.get(); !ok || string(f.Data) != "one" {
		t.Errorf("%q %v", f.Data, ok)
	}
	go r.end()
	if _, ok := r.get(); ok {
		t.Error("a frame after the end")
	}
}

func TestSysRqKey(t *testing.T) {
	for letter, want := range map[string]bool{"c": true, "0": true, "C": false, "": false, "cc": false, "?": false} {
		if _, ok := SysRqKey(letter); ok != want {
			t.Errorf("%q: %v", letter, ok)
		}
	}
}
