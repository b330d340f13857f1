package term

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// env fakes an environment.
type env map[string]string

func (e env) get(name string) string { return e[name] }

func TestColor(t *testing.T) {
	for _, tt := range []struct {
		flag string
		tty  bool
		env  env
		want bool
	}{
		{"auto", true, nil, true},
		{"auto", false, nil, false},
		{"auto", true, env{"NO_COLOR": "1"}, false},
		{"auto", true, env{"NO_COLOR": ""}, true},
		{"auto", true, env{"TERM": "dumb"}, false},
		{"always", false, env{"NO_COLOR": "1"}, true},
		{"never", true, nil, false},
	} {
		var when When
		if err := when.Set(tt.flag); err != nil || when.String() != tt.flag {
			t.Fatal(tt.flag, when, err)
		}
		if got := decide(when, tt.tty, tt.env.get); got != tt.want {
			t.Errorf("--color=%s tty=%v %v: %v", tt.flag, tt.tty, tt.env, got)
		}
	}
	if new(When).Set("sometimes") == nil {
		t.Error("--color=sometimes")
	}
}

func TestNoTerminal(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if IsTerminal(w) || IsTerminal(&strings.Builder{}) || Color(Auto, w, env{}.get) {
		t.Error("a pipe is a terminal")
	}
	if got := Width(w, env{"COLUMNS": "132"}.get); got != 132 {
		t.Error(got)
	}
	if got := Width(w, env{"COLUMNS": "x"}.get); got != fallbackWidth {
		t.Error(got)
	}
}

func TestTerminal(t *testing.T) {
	pty, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer pty.Close()
	if err := unix.IoctlSetWinsize(int(pty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 97}); err != nil {
		t.Skip(err)
	}
	if !IsTerminal(pty) || !Color(Auto, pty, env{}.get) || Width(pty, env{}.get) != 97 {
		t.Error(IsTerminal(pty), Width(pty, env{}.get))
	}
}

func TestUTF8(t *testing.T) {
	for _, tt := range []struct {
		env  env
		want bool
	}{
		{nil, true}, {env{"LANG": "C"}, false}, {env{"LANG": "de_DE.UTF-8"}, true}, {env{"LANG": "C.utf8"}, true},
		{env{"LC_ALL": "POSIX", "LANG": "C.UTF-8"}, false},
	} {
		if got := UTF8(tt.env.get); got != tt.want {
			t.Errorf("%v: %v", tt.env, got)
		}
	}
}
