// Package term answers what a writer's other end can show: whether it is a terminal, how wide, with colours, with UTF-8.
// The environment is an argument, so that answers do not depend on where tests run.
package term

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// fallbackWidth is used where nothing says how wide lines may be.
const fallbackWidth = 80

// file is what has a descriptor, such as *os.File.
type file interface{ Fd() uintptr }

// IsTerminal reports whether w writes to a terminal.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(file)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// Width gives the columns of w's terminal, or what $COLUMNS says, or 80.
func Width(w io.Writer, getenv func(string) string) int {
	if f, ok := w.(file); ok {
		if ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && ws.Col > 0 {
			return int(ws.Col)
		}
	}
	if n, err := strconv.Atoi(getenv("COLUMNS")); err == nil && n > 0 {
		return n
	}
	return fallbackWidth
}

// When says when to use colours: the value of --color.
type When uint8

// Values of --color.
const (
	Auto When = iota
	Always
	Never
)

var whens = []string{"auto", "always", "never"}

func (w When) String() string { return whens[w] }

// Set parses a flag's value.
func (w *When) Set(s string) error {
	for i, name := range whens {
		if s == name {
			*w = When(i)
			return nil
		}
	}
	return fmt.Errorf("--color is %s, not %q", strings.Join(whens, ", "), s)
}

// Type names the flag's value in help texts.
func (*When) Type() string { return "when" }

// Color decides whether to write colours to w. --color decides if it was given; otherwise NO_COLOR (no-color.org: set and
// not empty) and TERM=dumb forbid them, and only terminals get them.
func Color(when When, w io.Writer, getenv func(string) string) bool {
	return decide(when, IsTerminal(w), getenv)
}

func decide(when When, tty bool, getenv func(string) string) bool {
	if when != Auto {
		return when == Always
	}
	return tty && getenv("NO_COLOR") == "" && getenv("TERM") != "dumb"
}

// UTF8 reports whether the locale's characters are UTF-8; otherwise drawings use ASCII. With no locale set at all, as in
// services and containers, they are taken to be: what reads the output later is.
func UTF8(getenv func(string) string) bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := getenv(name); v != "" {
			v = strings.ToLower(strings.ReplaceAll(v, "-", ""))
			return strings.Contains(v, "utf8")
		}
	}
	return true
}
