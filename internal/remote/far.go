package remote

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fathom-trace/fathom/internal/lease"
)

// FarArg is the first argument of the binary where it runs on the far side of a connection.
const FarArg = "__far"

// Env is set, to "1", for verbs that the far side runs: they say in JSON what only a reader who joins hosts needs.
const Env = "FATHOM_FAR"

// Far says if the process was started to be the far side, with the folder it was copied to.
func Far(args []string) (dir string, ok bool) {
	if len(args) == 3 && args[1] == FarArg {
		return args[2], true
	}
	return "", false
}

// Start is what a host is to run.
type Start struct {
	Args []string `json:"args"`
	// Fetch is the flag, with =, by which the verb is given a folder to write into, which is sent when it has ended; "" if it
	// writes none. It stands behind the verb's name, Args[0].
	Fetch string `json:"fetch,omitempty"`
}

// exit is how the verb ended.
type exit struct {
	Code   int    `json:"code"`
	Signal string `json:"signal,omitempty"`
	Error  string `json:"error,omitempty"` // it could not be run
}

// hello is what the far side says first.
type hello struct {
	Version int    `json:"version"` // of the frames
	PID     int    `json:"pid"`
	Arch    string `json:"arch"`
}

const version = 1

// How long the far side waits: silent is without a word from the near side, which says something several times a second,
// until it takes the connection for cut; ending until what was told to end is killed.
const (
	silent = 30 * time.Second
	ending = 10 * time.Second
)

// ServeFar is the far side of a connection. It removes the folder it was copied to at once: the kernel keeps what runs. It
// ends when the verb has, or when in does, which is when the connection was cut; then the verb is ended too.
func ServeFar(dir string, in io.Reader, out io.Writer) (err error) {
	if err := removeOwn(dir); err != nil {
		return err
	}
	f := &far{out: newSender(out), start: make(chan Start, 1), interrupt: make(chan struct{}, 4), heard: make(chan struct{}, 1), cut: make(chan struct{}), lost: make(chan struct{})}
	b, _ := json.Marshal(hello{version, os.Getpid(), runtime.GOARCH})
	if err := f.out.send(frameHello, false, b); err != nil {
		return err
	}
	go f.listen(in)
	select {
	case s := <-f.start:
		return f.serve(s)
	case <-f.cut:
		return errors.New("the connection was cut before anything was asked")
	}
}

// serve runs the verb. It does not wait for ever to tell a near side that takes nothing any more.
func (f *far) serve(s Start) error {
	if s.Fetch != "" && len(s.Args) > 0 {
		remove, err := f.folder()
		if err != nil {
			return f.exit(exit{Error: err.Error()})
		}
		defer remove()
		s.Args = slices.Insert(s.Args, 1, s.Fetch+filepath.Join(f.dir, fetched))
	}
	done := make(chan error, 1)
	go func() { done <- f.run(s) }()
	select {
	case err := <-done:
		return err
	case <-f.lost:
		return errors.New("the connection is dead")
	}
}

// LeaseKind is the kind of the lease on a folder that a verb on the far side writes into.
const LeaseKind = "folder"

// ownPrefix begins the names of our folders on the far side.
const ownPrefix = "fathom-"

// folder makes the folder that the verb writes into, which is an orphan when this process is killed.
func (f *far) folder() (remove func(), err error) {
	dir := filepath.Join(os.TempDir(), ownPrefix+rand.Text())
	l, err := lease.Default(lease.User(), os.Getenv).New(LeaseKind, dir, nil)
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, errors.Join(err, l.Release())
	}
	f.dir = dir
	return func() {
		if os.RemoveAll(dir) == nil { // else who cleans will try again
			_ = l.Release()
		}
	}, nil
}

// Clean removes such a folder.
func Clean(r lease.Record) error {
	if !filepath.IsAbs(r.Name) || !strings.HasPrefix(filepath.Base(r.Name), ownPrefix) {
		return fmt.Errorf("%s is no folder of a verb on the far side", r.Name)
	}
	return os.RemoveAll(r.Name)
}

// removeOwn removes the folder that the program was copied to, and only such a one.
func removeOwn(dir string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if filepath.Dir(self) != dir || !strings.HasPrefix(filepath.Base(dir), ownPrefix) {
		return fmt.Errorf("%s is not the folder that this program was copied to", dir)
	}
	return os.RemoveAll(dir)
}

type far struct {
	out       *sender
	start     chan Start
	interrupt chan struct{}
	heard     chan struct{}
	cut       chan struct{} // closed when the near side is gone
	lost      chan struct{} // closed when the verb was killed since
	dir       string        // that the verb writes into; "" if none
}

// listen takes what the near side says, until it is gone. It is not waited for: a read cannot be ended.
func (f *far) listen(in io.Reader) {
	defer close(f.cut)
	r := newFrames(in)
	for {
		kind, body, err := r.next()
		if err != nil {
			return
		}
		now := uint64(bootTime())
		select {
		case f.heard <- struct{}{}:
		default:
		}
		switch kind {
		case framePing:
			if len(body) != 8 {
				return
			}
			p := pong{Sent: binary.BigEndian.Uint64(body), Received: now, Real: uint64(realTime())}
			p.Answered = uint64(bootTime())
			if f.out.send(framePong, false, p.bytes()) != nil {
				return
			}
		case frameInterrupt:
			select {
			case f.interrupt <- struct{}{}:
			default:
			}
		case frameStart:
			var s Start
			if json.Unmarshal(body, &s) != nil {
				return
			}
			select {
			case f.start <- s:
			default:
			}
		}
	}
}

// run runs the verb and tells what it says.
func (f *far) run(s Start) error {
	runtime.LockOSThread() // what is started goes with the thread that started it
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/proc/self/exe", s.Args...)
	cmd.Env = append(os.Environ(), Env+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return f.exit(exit{Error: err.Error()})
	}
	var told sync.WaitGroup
	told.Add(2)
	go func() { defer told.Done(); f.lines(stdout) }()
	go func() { defer told.Done(); f.errors(stderr) }()
	ended := make(chan struct{})
	var watched sync.WaitGroup
	watched.Add(1)
	go func() { defer watched.Done(); f.watch(cmd.Process, ended) }()
	told.Wait()
	err = cmd.Wait()
	close(ended)
	watched.Wait()
	x := exitOf(cmd, err)
	if f.dir != "" {
		if err := f.files(f.dir); err != nil {
			x.Error = err.Error()
		}
	}
	return f.exit(x)
}

// fetched is the name of the folder that a verb writes into.
const fetched = "out"

func exitOf(cmd *exec.Cmd, err error) (x exit) {
	var ee *exec.ExitError
	switch {
	case err == nil:
	case errors.As(err, &ee):
		x.Code = cmd.ProcessState.ExitCode()
		if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			x.Signal = ws.Signal().String()
		}
	default:
		x.Error = err.Error()
	}
	return x
}

func (f *far) exit(x exit) error {
	b, err := json.Marshal(x)
	if err != nil {
		return err
	}
	return f.out.send(frameExit, false, b)
}

// watch passes Ctrl-C on, and ends the verb when the near side is gone, until the verb has ended.
func (f *far) watch(p *os.Process, ended <-chan struct{}) {
	timer := time.NewTimer(silent)
	defer timer.Stop()
	cut := f.cut
	end := func() {
		cut = nil
		_ = p.Signal(syscall.SIGTERM) // it may have ended
		timer.Reset(ending)
	}
	for {
		select {
		case <-ended:
			return
		case <-f.interrupt:
			_ = p.Signal(os.Interrupt)
		case <-f.heard:
			if cut != nil {
				timer.Reset(silent)
			}
		case <-cut:
			end()
		case <-timer.C:
			if cut == nil {
				_ = p.Kill()
				close(f.lost)
				return
			}
			end()
		}
	}
}

// lines tells the verb's standard output. Where the near side is gone it is read all the same: the verb must not wait.
func (f *far) lines(r io.Reader) {
	br := bufio.NewReaderSize(r, mostFrame/2)
	for {
		b, err := br.ReadSlice('\n')
		switch {
		case err == bufio.ErrBufferFull:
			_ = f.out.send(framePart, true, b)
			continue
		case len(b) == 0 && err != nil:
			return
		}
		_ = f.out.line(uint64(bootTime()), bytes.TrimSuffix(b, []byte{'\n'}), br.Buffered() > 0)
		if err != nil {
			return
		}
	}
}

func (f *far) errors(r io.Reader) {
	br := bufio.NewReaderSize(r, 64<<10)
	for {
		b, err := br.ReadSlice('\n')
		if len(b) > 0 {
			_ = f.out.send(frameError, false, bytes.TrimSuffix(b, []byte{'\n'}))
		}
		if err != nil && err != bufio.ErrBufferFull {
			return
		}
	}
}

// file is a file that is sent: its bytes follow.
type file struct {
	Name string `json:"name"` // below the folder, with slashes
	Size int64  `json:"size"`
}

// files sends what the verb wrote.
func (f *far) files(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), fetched, func(name string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && name == fetched {
			return nil // the verb wrote nothing
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		return f.file(root, name)
	})
}

func (f *far) file(root *os.Root, name string) error {
	r, err := root.Open(name)
	if err != nil {
		return err
	}
	defer r.Close()
	st, err := r.Stat()
	if err != nil {
		return err
	}
	b, err := json.Marshal(file{strings.TrimPrefix(name, fetched+"/"), st.Size()})
	if err != nil {
		return err
	}
	if err := f.out.send(frameFile, true, b); err != nil {
		return err
	}
	buf := make([]byte, 256<<10)
	for left := st.Size(); left > 0; {
		n, err := r.Read(buf[:min(int64(len(buf)), left)])
		if n > 0 {
			if err := f.out.send(frameBytes, true, buf[:n]); err != nil {
				return err
			}
			left -= int64(n)
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
	}
	return nil
}
