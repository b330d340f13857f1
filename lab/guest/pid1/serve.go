package pid1

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"sync"
	"syscall"
	"time"
)

// The frames of a session, in which the host asks something of a guest that serves ([Job].Serve). Their Cmd is the
// session's number, from FirstSession on. What the guest has to say comes as Stdout, Stderr and, last, Exit.
const (
	Ask    Kind = 'Q' // a [Request] as JSON
	Input  Kind = 'I' // bytes for the command's standard input, or of the file to be put
	NoMore Kind = 'N' // empty: the input ends
	Signal Kind = 'K' // u32: a signal for the command and its children; SIGKILL also ends the session's output
	Ack    Kind = 'A' // u32: bytes of output, or input, that were taken (both ways)
)

// FirstSession is the lowest number of a session: those below are indices of the job's commands.
const FirstSession = 0x8000

// Op is what a [Request] asks for.
type Op string

// What can be asked.
const (
	OpRun  Op = "run"  // a command, with the session's input
	OpPut  Op = "put"  // the session's input becomes a file
	OpGet  Op = "get"  // a file becomes the session's output
	OpLoad Op = "load" // a module file is loaded
	OpDrop Op = "drop" // a module is unloaded
)

// Request begins a session.
type Request struct {
	Op      Op
	Command Command // of OpRun
	Root    string  // where Name is: the initramfs if empty
	Name    string  // file of OpPut, OpGet and OpLoad, absolute; module of OpDrop
	Mode    uint32  // of OpPut
	Params  string  // of OpLoad
}

// U32 is the payload of Ack and Signal frames.
func U32(n int) []byte { return binary.LittleEndian.AppendUint32(nil, uint32(n)) }

// ParseU32 reads it; a payload of another length is 0.
func ParseU32(b []byte) int {
	if len(b) != 4 {
		return 0
	}
	return int(binary.LittleEndian.Uint32(b) & (1<<31 - 1))
}

// server answers requests, several at a time.
type server struct {
	p       *process
	started chan struct{} // a child was started: there is someone to wait for

	mu       sync.Mutex // guards what follows, and starting children: none is reaped before its number is known
	sessions map[uint16]*session
	kids     map[int]chan syscall.WaitStatus
}

// session is one request under way.
type session struct {
	id  uint16
	in  *Queue
	out *Flow

	mu     sync.Mutex
	pid    int // of the command while it runs
	killed bool
}

// serve takes requests until the host is gone.
func (p *process) serve() {
	s := &server{p: p, started: make(chan struct{}, 1), sessions: map[uint16]*session{}, kids: map[int]chan syscall.WaitStatus{}}
	go s.reap()
	r := NewFrameReader(p.port)
	for {
		f, err := r.Next()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				p.log(fmt.Errorf("serve: %w", err))
			}
			return
		}
		s.take(f)
	}
}

func (s *server) take(f Frame) {
	s.mu.Lock()
	c := s.sessions[f.Cmd]
	s.mu.Unlock()
	if c == nil {
		if f.Kind == Ask && f.Cmd >= FirstSession {
			s.begin(f)
		}
		return // the session is over: what was still under way comes too late
	}
	switch f.Kind {
	case Input:
		if !c.in.Put(f.Data) {
			c.signal(s.p.sys, syscall.SIGKILL)
		}
	case NoMore:
		c.in.End()
	case Ack:
		c.out.Give(ParseU32(f.Data))
	case Signal:
		c.signal(s.p.sys, syscall.Signal(ParseU32(f.Data)))
	}
}

// signal sends a signal to the command and what it started. With SIGKILL nobody waits for the session any more.
func (c *session) signal(sys System, sig syscall.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if sig == syscall.SIGKILL {
		c.killed = true
		c.in.End()
		c.out.End()
	}
	if c.pid != 0 {
		sys.Kill(-c.pid, sig)
	}
}

func (s *server) begin(f Frame) {
	c := &session{id: f.Cmd, out: NewFlow()}
	c.in = NewQueue(func(n int) { s.p.out.Send(Ack, c.id, U32(n)) })
	var r Request
	if err := json.Unmarshal(f.Data, &r); err != nil {
		s.p.out.SendJSON(Exit, c.id, Exited{Code: 127, Err: err.Error()})
		return
	}
	s.mu.Lock()
	s.sessions[c.id] = c
	s.mu.Unlock()
	go func() {
		e := s.do(c, r)
		s.mu.Lock()
		delete(s.sessions, c.id)
		s.mu.Unlock()
		s.p.out.SendJSON(Exit, c.id, e)
	}()
}

// do is one request from its beginning to its end.
func (s *server) do(c *session, r Request) Exited {
	var err error
	e := Exited{}
	name := path.Join("/", r.Root, r.Name)
	switch r.Op {
	case OpRun:
		return s.command(c, r.Command)
	case OpPut:
		err = s.put(c, name, os.FileMode(r.Mode).Perm())
	case OpGet:
		e.Mode, err = s.get(c, name)
	case OpLoad:
		err = s.p.sys.LoadModule(name, r.Params)
	case OpDrop:
		err = s.p.sys.UnloadModule(r.Name)
	default:
		err = fmt.Errorf("unknown request %q", r.Op)
	}
	if err != nil {
		e.Code, e.Err = 1, err.Error()
	}
	return e
}

func (s *server) put(c *session, name string, mode os.FileMode) error {
	w, err := s.p.sys.Create(name, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, c.in)
	if c.dead() {
		err = errors.New("the sender is gone")
	}
	return errors.Join(err, w.Close())
}

func (c *session) dead() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.killed
}

func (s *server) get(c *session, name string) (mode uint32, err error) {
	f, err := s.p.sys.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if st.IsDir() {
		return 0, fmt.Errorf("%s: %w", name, syscall.EISDIR)
	}
	return uint32(st.Mode().Perm()), s.send(c, Stdout, f)
}

// send sends what r gives, as fast as the host takes it. If nobody does, it is read all the same: a command that writes
// must come to its end.
func (s *server) send(c *session, kind Kind, r io.Reader) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		for b := buf[:n]; len(b) > 0; {
			m := c.out.Take(len(b))
			if m == 0 {
				break
			}
			s.p.out.Send(kind, c.id, b[:m])
			b = b[m:]
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// command runs a program with the session's input and output.
func (s *server) command(c *session, cmd Command) Exited {
	begin := time.Now()
	ws, err := s.run(c, cmd)
	if err != nil {
		return Exited{Code: 127, Err: err.Error()}
	}
	e := Exited{Code: ws.ExitStatus(), Secs: time.Since(begin).Seconds()}
	if ws.Signaled() {
		e.Signal = int(ws.Signal())
		e.Code = 128 + e.Signal
	}
	return e
}

func (s *server) run(c *session, cmd Command) (ws syscall.WaitStatus, err error) {
	if len(cmd.Args) == 0 {
		return 0, errors.New("run: empty command")
	}
	cmd.Env = environ(cmd.Env)
	var ends []*os.File // the command's
	defer func() {
		for _, f := range ends {
			f.Close()
		}
	}()
	stdin, feed, err := os.Pipe()
	if err != nil {
		return 0, fmt.Errorf("run %s: %w", cmd.Args[0], err)
	}
	ends = append(ends, stdin)
	go func() { // ends when the command's end closes the reading side, or when nothing more comes
		io.Copy(feed, c.in)
		feed.Close()
	}()
	defer c.in.End()
	var sent [2]chan struct{}
	for i, kind := range []Kind{Stdout, Stderr} {
		r, w, err := s.p.sys.Pipe()
		if err != nil {
			return 0, fmt.Errorf("run %s: %w", cmd.Args[0], err)
		}
		ends = append(ends, w)
		sent[i] = make(chan struct{})
		go func() {
			defer close(sent[i])
			defer r.Close()
			s.send(c, kind, r)
		}()
	}
	exited, err := s.start(c, cmd, ends)
	if err != nil {
		return 0, fmt.Errorf("run %s: %w", cmd.Args[0], err)
	}
	for _, f := range ends {
		f.Close()
	}
	ws = <-exited
	c.mu.Lock()
	c.pid = 0
	c.mu.Unlock()
	late := time.NewTimer(drain)
	defer late.Stop()
	for _, done := range sent {
		s.await(c, done, late)
	}
	return ws, nil
}

// await waits until a stream is sent. An orphan may hold it: then until there was nothing for some time, while a host that
// takes slowly is waited for.
func (s *server) await(c *session, done chan struct{}, late *time.Timer) {
	for {
		select {
		case <-done:
			return
		case <-late.C:
			late.Reset(drain)
			if c.out.Open() {
				return
			}
		}
	}
}

// start starts the child; who reaps knows it before it can be reaped.
func (s *server) start(c *session, cmd Command, ends []*os.File) (chan syscall.WaitStatus, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.killed {
		return nil, syscall.EINTR
	}
	pid, err := s.p.sys.Start(cmd, ends[0], ends[1], ends[2])
	if err != nil {
		return nil, err
	}
	c.pid = pid
	ch := make(chan syscall.WaitStatus, 1)
	s.kids[pid] = ch
	select {
	case s.started <- struct{}{}:
	default:
	}
	return ch, nil
}

// reap buries all children, ours and adopted ones.
func (s *server) reap() {
	for {
		pid, ws, err := s.p.sys.Wait()
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil: // there are none
			<-s.started
		default:
			s.mu.Lock()
			if ch := s.kids[pid]; ch != nil {
				ch <- ws
				delete(s.kids, pid)
			}
			s.mu.Unlock()
		}
	}
}
