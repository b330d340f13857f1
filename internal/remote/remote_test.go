package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fathom-trace/fathom/internal/ktest"
)

// TestMain has the test binary be what it copies: the far side, and the verb that runs there.
func TestMain(m *testing.M) {
	if dir, ok := Far(os.Args); ok {
		if err := ServeFar(dir, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if os.Getenv(Env) != "" {
		os.Exit(verb(os.Args[1:]))
	}
	ktest.Main(m, ktest.Config{})
}

// verb is what hosts run in these tests.
func verb(args []string) int {
	switch args[0] {
	case "version":
	case "say":
		for _, s := range args[1:] {
			fmt.Println(s)
		}
		fmt.Fprintln(os.Stderr, "said")
	case "long":
		fmt.Println(strings.Repeat("x", 3*mostFrame))
	case "wait":
		in := make(chan os.Signal, 1)
		signal.Notify(in, os.Interrupt)
		fmt.Println("waiting")
		<-in
		fmt.Println("interrupted")
		return 5
	case "write":
		dir := strings.TrimPrefix(args[1], "--output=")
		if err := errors.Join(os.MkdirAll(filepath.Join(dir, "sub"), 0o755), os.WriteFile(filepath.Join(dir, "sub", "f"), bytes.Repeat([]byte("abc"), 1<<20), 0o644),
			os.WriteFile(filepath.Join(dir, "empty"), nil, 0o644)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return 0
}

// fakeSSH puts a program ssh into $PATH that runs the command on this machine, with other programs before those of $PATH there, each a
// text of sh. Temporary files there go into the folder it gives.
func fakeSSH(t *testing.T, programs map[string]string) (tmp string) {
	t.Helper()
	bin, there := t.TempDir(), t.TempDir()
	tmp = t.TempDir()
	write := func(dir, name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range programs {
		write(there, name, text)
	}
	write(bin, "ssh", fmt.Sprintf("for a; do last=$a; done\necho welcome to this machine\necho a banner >&2\nPATH=%s:$PATH TMPDIR=%s\nexport PATH TMPDIR\nexec sh -c \"$last\"", there, tmp))
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	return tmp
}

// empty waits until a folder is.
func empty(t *testing.T, dir string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		list, err := os.ReadDir(dir)
		if err == nil && len(list) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left on the host: %v, %v", list, err)
		}
	}
}

func hosts(t *testing.T, list ...string) []Host {
	t.Helper()
	hs, err := Parse(list)
	if err != nil {
		t.Fatal(err)
	}
	return hs
}

// ran runs a verb on hosts and gives what each said.
func ran(t *testing.T, hs []Host, ask Ask) (lines map[string][]string, results []Result) {
	t.Helper()
	conns, err := DialAll(t.Context(), hs, Options{})
	if err != nil {
		t.Fatal(err)
	}
	lines = map[string][]string{}
	then := ask.Line
	ask.Line = func(l Line) error {
		name := hs[l.Host].Name
		lines[name] = append(lines[name], string(l.Text))
		if then != nil {
			return then(l)
		}
		return nil
	}
	if results, err = Run(context.WithoutCancel(t.Context()), conns, ask); err != nil {
		t.Fatal(err)
	}
	return lines, results
}

func TestRun(t *testing.T) {
	tmp := fakeSSH(t, nil)
	lines, results := ran(t, hosts(t, "a", "root@b:22"), Ask{Start: Start{Args: []string{"say", "one", "two words"}}})
	for _, name := range []string{"a", "b"} {
		if !slices.Equal(lines[name], []string{"one", "two words"}) {
			t.Errorf("%s said %q", name, lines[name])
		}
	}
	for _, r := range results {
		if r.Err != nil || r.Code != 0 || r.Clock.Trips < trips {
			t.Errorf("%s: %+v", r.Host.Name, r)
		}
	}
	empty(t, tmp)
}

func TestLongLine(t *testing.T) {
	tmp := fakeSSH(t, nil)
	lines, _ := ran(t, hosts(t, "a"), Ask{Start: Start{Args: []string{"long"}}})
	if got := lines["a"]; len(got) != 1 || len(got[0]) != 3*mostFrame || strings.Trim(got[0], "x") != "" {
		t.Errorf("%d lines", len(got))
	}
	empty(t, tmp)
}

func TestInterrupt(t *testing.T) {
	tmp := fakeSSH(t, nil)
	in := make(chan os.Signal, 1)
	n := 0
	lines, results := ran(t, hosts(t, "a", "b"), Ask{Start: Start{Args: []string{"wait"}}, Interrupt: in, Line: func(l Line) error {
		if n++; n == 2 {
			in <- os.Interrupt
		}
		return nil
	}})
	for _, r := range results {
		if got := lines[r.Host.Name]; r.Code != 5 || r.Err != nil || !slices.Equal(got, []string{"waiting", "interrupted"}) {
			t.Errorf("%s: %q, %+v", r.Host.Name, got, r)
		}
	}
	empty(t, tmp)
}

// TestLineRefused: who listens to hosts gives up, and they end.
func TestLineRefused(t *testing.T) {
	tmp := fakeSSH(t, nil)
	conns, err := DialAll(t.Context(), hosts(t, "a", "b"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	enough := errors.New("enough")
	if _, err := Run(t.Context(), conns, Ask{Start: Start{Args: []string{"wait"}}, Line: func(Line) error { return enough }}); !errors.Is(err, enough) {
		t.Errorf("error %v", err)
	}
	empty(t, tmp)
}

func TestFetch(t *testing.T) {
	tmp := fakeSSH(t, nil)
	dir := t.TempDir()
	_, results := ran(t, hosts(t, "a", "b"), Ask{Start: Start{Args: []string{"write"}, Fetch: "--output="}, Dir: dir})
	for _, r := range results {
		if r.Err != nil || r.Code != 0 {
			t.Errorf("%+v", r)
		}
		b, err := os.ReadFile(filepath.Join(dir, r.Host.Folder(), "sub", "f"))
		if err != nil || !bytes.Equal(b, bytes.Repeat([]byte("abc"), 1<<20)) {
			t.Errorf("%s: %d bytes, %v", r.Host.Name, len(b), err)
		}
		if st, err := os.Stat(filepath.Join(dir, r.Host.Folder(), "empty")); err != nil || st.Size() != 0 {
			t.Errorf("%s: empty: %v", r.Host.Name, err)
		}
	}
	empty(t, tmp)
}

// TestDialFails: what is in the way is said, and nothing is left there.
func TestDialFails(t *testing.T) {
	for _, c := range []struct {
		name     string
		programs map[string]string
		root     bool
		want     string
	}{
		{"system", map[string]string{"uname": "echo Plan9"}, false, "host a: run there: its system is Plan9 (uname -s), not Linux"},
		{"machine", map[string]string{"uname": `[ "$1" = -s ] && echo Linux || echo riscv64`}, false, "host a: run there: it is riscv64 (uname -m), and this program is for"},
		{"no folder", map[string]string{"mktemp": "exit 1"}, false, "there is no folder in which a copy could be run; these were tried: "},
		{"hash", map[string]string{"sha256sum": "echo 0123 x"}, false, "came to something else: copy "},
		{"no sha256sum", map[string]string{"sha256sum": "exit 127"}, false, "came to something else: sha256sum"},
		{"no sudo", map[string]string{"id": "echo 1000", "sudo": "echo sudo: a password is required >&2; exit 1"}, true, "host a: become root: user 1000 there, and sudo -n says: sudo: a password is required"},
		{"greeting", map[string]string{"uname": "kill $PPID"}, false, "host a: connect: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			tmp := fakeSSH(t, c.programs)
			_, err := DialAll(t.Context(), hosts(t, "a"), Options{Root: c.root})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			empty(t, tmp)
		})
	}
}

// TestSudo: who is not root becomes it, and that is known.
func TestSudo(t *testing.T) {
	tmp := fakeSSH(t, map[string]string{"id": "echo 1000", "sudo": `[ "$1" = -n ] && shift; exec "$@"`})
	t.Setenv(Env, "1") // for the question if the program runs
	conns, err := DialAll(t.Context(), hosts(t, "a"), Options{Root: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range conns {
		if !c.Sudo {
			t.Error("it is not said that sudo was used")
		}
		c.Close()
	}
	empty(t, tmp)
}

func TestParse(t *testing.T) {
	for _, c := range []struct {
		in   []string
		want string
	}{
		{[]string{"a", "b"}, "[{a a 0} {b b 0}]"},
		{[]string{"root@a:2222"}, "[{a root@a 2222}]"},
		{[]string{"x@a", "y@a"}, "[{x@a x@a 0} {y@a y@a 0}]"},
		{[]string{"[fe80::1]:22", "fe80::2"}, "[{fe80::1 fe80::1 22} {fe80::2 fe80::2 0}]"},
		{[]string{"a", "a"}, "host a is named twice"},
		{[]string{""}, `host "": write [user@]host[:port]`},
		{[]string{"@a"}, `host "@a": write [user@]host[:port]`},
		{[]string{"a:"}, `host "a:": no port ""`},
		{[]string{"a:0"}, `host "a:0": no port "0"`},
		{[]string{"-oProxyCommand=x"}, `host "-oProxyCommand=x": that is no name of a host`},
		{[]string{"a@-x"}, `host "a@-x": that is no name of a host`},
		{[]string{".."}, `host "..": that is no name of a host`},
		{[]string{"a b"}, `host "a b": that is no name of a host`},
		{[]string{"[::1"}, `host "[::1": no ] behind the address`},
		{[]string{"[::1]x"}, `host "[::1]x": behind ] stands :PORT`},
	} {
		hs, err := Parse(c.in)
		got := fmt.Sprint(hs)
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%q: %s, want %s", c.in, got, c.want)
		}
	}
}

// TestMerger: lines come in the order of their time, wait no longer than they may, and are counted where they come too late.
func TestMerger(t *testing.T) {
	m := newMerger(2, 100)
	var got []string
	pop := func(now int64) {
		for {
			it, ok := m.pop(now)
			if !ok {
				return
			}
			got = append(got, string(it.line))
		}
	}
	push := func(host int, at, now int64, text string) {
		m.push(item{host, at, now, []byte(text)})
		pop(now)
	}
	push(0, 10, 10, "a10")
	push(0, 30, 30, "a30") // b may still say something earlier
	push(1, 20, 40, "b20") // … and does
	if want := "[a10 b20]"; fmt.Sprint(got) != want {
		t.Fatalf("%v, want %s", got, want)
	}
	m.mark(1, 35)
	pop(41)
	push(0, 50, 50, "a50")
	if at := m.next(); at != 150 {
		t.Errorf("the first line waits until %d, not 150", at)
	}
	pop(149)
	if want := "[a10 b20 a30]"; fmt.Sprint(got) != want {
		t.Fatalf("%v, want %s", got, want)
	}
	pop(150) // b is silent
	push(1, 40, 160, "b40")
	m.end(0)
	push(1, 60, 170, "b60")
	if want := "[a10 b20 a30 a50 b40 b60]"; fmt.Sprint(got) != want || m.late[1] != 1 || m.late[0] != 0 {
		t.Errorf("%v, want %s; late: %v", got, want, m.late)
	}
}

// TestEstimate: the clock is never further off than is said.
func TestEstimate(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		offset := r.Int64N(1 << 50) // of theirs from ours
		var e estimate
		now := int64(1 << 51)
		for range 50 {
			there, busy, back := 1+r.Int64N(1_000_000), r.Int64N(1000), 1+r.Int64N(1_000_000)
			p := pong{Sent: uint64(now), Received: uint64(now + there - offset), Answered: uint64(now + there + busy - offset)}
			now += there + busy + back
			p.Real = p.Answered
			e.add(p, now, now)
			c := e.now(now)
			if d := c.Offset - offset; d > c.Error || -d > c.Error {
				t.Fatalf("offset %d by estimate, %d in truth, ± %d", c.Offset, offset, c.Error)
			}
			if d := c.Real + offset; d > c.Error || -d > c.Error {
				t.Fatalf("dates differ by %d by estimate, %d in truth, ± %d", c.Real, -offset, c.Error)
			}
			now += r.Int64N(1_000_000_000)
		}
	}
}

func FuzzFrames(f *testing.F) {
	var b bytes.Buffer
	s := newSender(&b)
	_ = s.line(7, []byte("a line"), false)
	_ = s.send(framePong, false, pong{1, 2, 3, 4}.bytes())
	_ = s.send(frameExit, false, []byte(`{"code":3}`))
	f.Add(b.Bytes())
	f.Add(b.Bytes()[:b.Len()-1])
	f.Add([]byte{frameLine, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, in []byte) {
		r := newFrames(bytes.NewReader(in))
		read := 0
		for {
			kind, body, err := r.next()
			if err != nil {
				var fe *FrameError
				if err != io.EOF && !errors.As(err, &fe) {
					t.Fatal(err)
				}
				return
			}
			if read += 5 + len(body); read > len(in) {
				t.Fatalf("%d bytes out of %d", read, len(in))
			}
			switch kind {
			case framePong:
				readPong(body)
			case frameExit:
				exited(body)
			case frameFile, frameBytes:
				rc := &receiver{host: Host{Name: "h"}}
				if rc.take(kind, body) == nil {
					t.Fatal("a file that nobody asked for was taken")
				}
				rc.close()
			}
		}
	})
}

// TestFilesStayBelow: no name leads out of a host's folder.
func TestFilesStayBelow(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"../x", "/etc/x", "a/../../x"} {
		r := &receiver{dir: filepath.Join(dir, "out"), host: Host{Name: "h"}}
		if err := r.take(frameFile, fmt.Appendf(nil, `{"name":%q,"size":1}`, name)); err == nil {
			t.Errorf("%s was taken", name)
		}
		r.close()
	}
	if _, err := os.Stat(filepath.Join(dir, "x")); err == nil {
		t.Error("a file is outside")
	}
}
