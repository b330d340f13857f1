package pid1

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// serving is a System whose commands are functions of ours.
type serving struct {
	fake
	net.Conn // the port

	mu      sync.Mutex
	pid     int
	dead    chan child
	asleep  chan struct{} // closed once a command sleeps
	signals map[int]chan syscall.Signal
	made    map[string]*bytes.Buffer
}

// Name conflicts of fake and Conn.
func (s *serving) Read(p []byte) (int, error)  { return s.Conn.Read(p) }
func (s *serving) Write(p []byte) (int, error) { return s.Conn.Write(p) }
func (s *serving) Close() error                { return s.Conn.Close() }

func (s *serving) LoadModule(path, params string) error {
	if path == "/m/bad.ko" {
		return syscall.ENOEXEC
	}
	return nil
}

func (s *serving) Open(name string) (fs.File, error) {
	return s.files.Open(strings.TrimPrefix(name, "/"))
}

type made struct{ *bytes.Buffer }

func (made) Close() error { return nil }

func (s *serving) Create(name string, _ fs.FileMode) (io.WriteCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if strings.HasPrefix(name, "/ro/") {
		return nil, syscall.EROFS
	}
	s.made[name] = &bytes.Buffer{}
	return made{s.made[name]}, nil
}

// Start plays a command: cat, sleep (until a signal), and flood, which writes more than a window.
func (s *serving) Start(c Command, stdin, stdout, stderr *os.File) (int, error) {
	if c.Args[0] == "/nosuch" {
		return 0, syscall.ENOENT
	}
	var ends [3]*os.File
	for i, f := range []*os.File{stdin, stdout, stderr} {
		fd, err := syscall.Dup(int(f.Fd()))
		if err != nil {
			return 0, err
		}
		ends[i] = os.NewFile(uintptr(fd), f.Name())
	}
	s.mu.Lock()
	s.pid++
	pid, sig := s.pid, make(chan syscall.Signal, 1)
	s.signals[pid] = sig
	s.mu.Unlock()
	go func() {
		var ws syscall.WaitStatus
		switch c.Args[0] {
		case "/cat":
			io.Copy(ends[1], ends[0])
			fmt.Fprint(ends[2], c.Dir)
			ws = 5 << 8
		case "/sleep":
			close(s.asleep)
			ws = syscall.WaitStatus(<-sig)
		case "/flood":
			ends[1].Write(bytes.Repeat([]byte("x"), 3*Window))
		}
		for _, f := range ends {
			f.Close()
		}
		s.dead <- child{pid: pid, ws: ws}
	}()
	return pid, nil
}

func (s *serving) Kill(pid int, sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.signals[-pid] <- sig
	return nil
}

func (s *serving) Wait() (int, syscall.WaitStatus, error) {
	c := <-s.dead
	return c.pid, c.ws, nil
}

// host is the other end of the port.
type host struct {
	t *testing.T
	w *FrameWriter
	r *FrameReader
}

func serve(t *testing.T) (*serving, *host) {
	t.Helper()
	a, b := net.Pipe()
	s := &serving{Conn: b, dead: make(chan child), asleep: make(chan struct{}), signals: map[int]chan syscall.Signal{}, made: map[string]*bytes.Buffer{}}
	s.files = fstest.MapFS{"v/x": {Data: bytes.Repeat([]byte("get"), Window), Mode: 0o640}, "v/dir": {Mode: fs.ModeDir}}
	p := &process{sys: s, port: s, out: NewFrameWriter(b)}
	go p.serve()
	a.SetDeadline(time.Now().Add(2 * time.Minute))
	t.Cleanup(func() { a.Close() })
	return s, &host{t, NewFrameWriter(a), NewFrameReader(a)}
}

// ask runs a session: it sends input as acks allow, takes output, and gives what came.
func (h *host) ask(id uint16, q Request, input []byte) (out [2]string, e Exited) {
	h.t.Helper()
	h.w.SendJSON(Ask, id, q)
	flow := NewFlow()
	go func() {
		for len(input) > 0 {
			n := flow.Take(min(len(input), 10_000))
			if n == 0 {
				return
			}
			h.w.Send(Input, id, input[:n])
			input = input[n:]
		}
		h.w.Send(NoMore, id, nil)
	}()
	defer flow.End()
	for {
		f, err := h.r.Next()
		if err != nil {
			h.t.Fatal(err)
		}
		switch f.Kind {
		case Stdout:
			out[0] += string(f.Data)
			go h.w.Send(Ack, id, U32(len(f.Data)))
		case Stderr:
			out[1] += string(f.Data)
		case Ack:
			flow.Give(ParseU32(f.Data))
		case Exit:
			if err := json.Unmarshal(f.Data, &e); err != nil {
				h.t.Fatal(err)
			}
			e.Secs = 0
			return out, e
		}
	}
}

func TestServe(t *testing.T) {
	s, h := serve(t)
	long := bytes.Repeat([]byte("0123456789"), Window/4)
	tests := []struct {
		name  string
		q     Request
		input []byte
		out   string
		want  Exited
	}{
		{"run", Request{Op: OpRun, Command: Command{Args: []string{"/cat"}, Dir: "/d"}}, long, string(long), Exited{Code: 5}},
		{"no such command", Request{Op: OpRun, Command: Command{Args: []string{"/nosuch"}}}, nil, "", Exited{Code: 127, Err: "run /nosuch: no such file or directory"}},
		{"no command", Request{Op: OpRun}, nil, "", Exited{Code: 127, Err: "run: empty command"}},
		{"output over a window", Request{Op: OpRun, Command: Command{Args: []string{"/flood"}}}, nil, strings.Repeat("x", 3*Window), Exited{}},
		{"get", Request{Op: OpGet, Root: "/v", Name: "/x"}, nil, strings.Repeat("get", Window), Exited{Mode: 0o640}},
		{"get nothing", Request{Op: OpGet, Root: "/v", Name: "/y"}, nil, "", Exited{Code: 1, Err: "open v/y: file does not exist"}},
		{"get a folder", Request{Op: OpGet, Root: "/v", Name: "/dir"}, nil, "", Exited{Code: 1, Err: "/v/dir: is a directory"}},
		{"put", Request{Op: OpPut, Root: "/v", Name: "/new"}, long, "", Exited{}},
		{"put where nothing can be", Request{Op: OpPut, Name: "/ro/new"}, nil, "", Exited{Code: 1, Err: "read-only file system"}},
		{"load", Request{Op: OpLoad, Name: "/m/good.ko"}, nil, "", Exited{}},
		{"load what does not fit", Request{Op: OpLoad, Name: "/m/bad.ko"}, nil, "", Exited{Code: 1, Err: "exec format error"}},
		{"drop", Request{Op: OpDrop, Name: "m"}, nil, "", Exited{}},
		{"unknown", Request{Op: "fly"}, nil, "", Exited{Code: 1, Err: `unknown request "fly"`}},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h.t = t
			out, e := h.ask(FirstSession+uint16(i), tt.q, tt.input)
			if d := cmp.Diff(tt.want, e); d != "" {
				t.Error(d)
			}
			if out[0] != tt.out {
				t.Errorf("%d bytes of output, want %d", len(out[0]), len(tt.out))
			}
			if tt.name == "run" && out[1] != "/d" {
				t.Errorf("stderr %q", out[1])
			}
		})
	}
	if got := s.made["/v/new"]; got == nil || !bytes.Equal(got.Bytes(), long) {
		t.Error("the file that was put differs")
	}
}

// TestServeSignals: a signal reaches the command; SIGKILL ends a session whose output nobody takes.
func TestServeSignals(t *testing.T) {
	s, h := serve(t)
	go func() {
		<-s.asleep
		h.w.Send(Signal, FirstSession, U32(int(syscall.SIGINT)))
	}()
	if _, e := h.ask(FirstSession, Request{Op: OpRun, Command: Command{Args: []string{"/sleep"}}}, nil); e.Code != 130 || e.Signal != 2 {
		t.Errorf("%+v", e)
	}
	h.w.SendJSON(Ask, FirstSession+1, Request{Op: OpRun, Command: Command{Args: []string{"/flood"}}})
	taken := 0
	for taken < Window { // without an ack nothing more comes
		f, err := h.r.Next()
		if err != nil {
			t.Fatal(err)
		}
		taken += len(f.Data)
	}
	// Another session is not held up by it.
	if _, e := h.ask(FirstSession+2, Request{Op: OpLoad, Name: "/m"}, nil); e.Err != "" {
		t.Error(e)
	}
	h.w.Send(Signal, FirstSession+1, U32(int(syscall.SIGKILL)))
	for {
		f, err := h.r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if f.Kind == Exit && f.Cmd == FirstSession+1 {
			return
		}
	}
}

func TestQueue(t *testing.T) {
	took := 0
	q := NewQueue(func(n int) { took += n })
	if !q.Put(make([]byte, Window)) || q.Put([]byte("x")) {
		t.Error("the window is not kept")
	}
	b := make([]byte, 10)
	if n, err := q.Read(b); n != 10 || err != nil || took != 10 {
		t.Error(n, err, took)
	}
	q.End()
	if rest, err := io.ReadAll(q); len(rest) != Window-10 || err != nil {
		t.Error(len(rest), err)
	}
	if _, err := q.Read(b); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}
