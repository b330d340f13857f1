package remote

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Line is a line that a host's verb wrote to its standard output.
type Line struct {
	Host int   // which of the hosts
	Time int64 // ns since boot here at which it was read there, as far as the clocks are known
	Text []byte
}

// Ask says what hosts are to run, and who takes what they say.
type Ask struct {
	Start Start
	Hold  time.Duration // how long a line waits for those of others that may be earlier; 0 is Hold
	Line  func(Line) error
	// Dir is where the files go that a verb wrote, each host's below its name; with Start.Fetch only.
	Dir       string
	Interrupt <-chan os.Signal
}

// Hold is how long lines wait for earlier ones if nothing else is asked.
const Hold = 500 * time.Millisecond

// Result is how a host's run ended.
type Result struct {
	Host  Host
	Code  int    // the verb's exit code
	Err   error  // it did not end by itself, or the connection did
	Late  uint64 // lines that came after later ones of others had been given
	Clock Clock  // as it was known at the end
	Moved int64  // by how much its offset is another than in the beginning: as much as clocks parted, and as they are uncertain
	Sudo  bool
}

// DialAll connects to hosts, all at a time. It fails if one of them does.
func DialAll(ctx context.Context, hosts []Host, o Options) ([]*Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conns, errs := make([]*Conn, len(hosts)), make([]error, len(hosts))
	var wg sync.WaitGroup
	for i, h := range hosts {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if conns[i], errs[i] = Dial(ctx, h, o); errs[i] != nil {
				cancel() // the others are not needed
			}
		}()
	}
	wg.Wait()
	var first error
	for _, err := range errs {
		var known *Error
		if err != nil && (first == nil || errors.As(err, &known) && known.Because != cancelled) {
			first = err
		}
	}
	if first != nil {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
		return nil, first
	}
	return conns, nil
}

// cancelled is why ssh ends when it is no longer needed.
const cancelled = "ssh ended: signal: killed"

// said is what a host's reader passes on.
type said struct {
	host int
	kind byte
	time uint64 // by its clock
	text []byte
	err  error
}

// beat is how often hosts are asked for the time: a line waits for one answer of each other host at least.
const beat = 50 * time.Millisecond

// Run has hosts run a verb, and gives what they say to ask.Line in the order of its time, from one goroutine. It ends when
// all have, and when ctx does or a line is not taken, which ends them.
func Run(ctx context.Context, conns []*Conn, ask Ask) ([]Result, error) {
	if ask.Hold == 0 {
		ask.Hold = Hold
	}
	r := &running{conns: conns, ask: ask, merge: newMerger(len(conns), int64(ask.Hold)), said: make(chan said, 256), stop: make(chan struct{}),
		results: make([]Result, len(conns))}
	var wg sync.WaitGroup
	for i, c := range conns {
		r.results[i] = Result{Host: c.Host, Sudo: c.Sudo, Err: errors.New("it did not say how it ended")}
		b, err := json.Marshal(ask.Start)
		if err != nil {
			return nil, err
		}
		if err := c.out.send(frameStart, false, b); err != nil {
			r.results[i].Err = err // its reader will see that it has ended
		}
		c.hears(false)
		wg.Add(1)
		go func() { defer wg.Done(); r.read(i) }()
	}
	wg.Add(1)
	go func() { defer wg.Done(); r.beat() }()
	err := r.loop(ctx)
	close(r.stop)
	for i, c := range conns {
		c.Close()
		clock := c.Clock()
		r.results[i].Clock, r.results[i].Moved, r.results[i].Late = clock, max(clock.Offset-c.first.Offset, c.first.Offset-clock.Offset), r.merge.late[i]
	}
	wg.Wait()
	return r.results, err
}

type running struct {
	conns   []*Conn
	ask     Ask
	merge   *merger
	said    chan said
	stop    chan struct{}
	results []Result
}

// read passes on what a host says, until the connection ends or nobody listens.
func (r *running) read(host int) {
	c := r.conns[host]
	files := &receiver{dir: r.ask.Dir, host: c.Host}
	defer c.over.Store(true)
	defer files.close() // a file that is cut short was told of by the connection's end
	pass := func(s said) bool {
		s.host = host
		c.hears(true)
		defer c.hears(false)
		select {
		case r.said <- s:
			return true
		case <-r.stop:
			return false
		}
	}
	var part []byte
	for {
		kind, body, err := c.frames.next()
		if err != nil {
			pass(said{err: err})
			return
		}
		c.hears(false)
		s := said{kind: kind}
		switch kind {
		case framePart:
			if len(part)+len(body) > mostLine {
				pass(said{err: fmt.Errorf("a line of more than %d bytes", mostLine)})
				return
			}
			part = append(part, body...)
			continue
		case frameLine:
			if len(body) < 8 {
				continue
			}
			s.time, s.text = binary.BigEndian.Uint64(body), append(part, body[8:]...)
			part = nil
		case framePong:
			var ok bool
			if s.time, ok = c.pong(body); !ok {
				continue
			}
		case frameError:
			c.said(c.Host, string(body))
			continue
		case frameFile, frameBytes:
			if err := files.take(kind, body); err != nil {
				pass(said{err: err})
				return
			}
			continue
		case frameExit:
			if err := files.closeFile(); err != nil {
				pass(said{err: err})
				return
			}
			fallthrough
		default:
			s.text = append(s.text, body...)
		}
		if !pass(s) {
			return
		}
	}
}

// mostLine bounds a line of a verb.
const mostLine = 512 << 20

func (r *running) loop(ctx context.Context) error {
	wake := time.NewTimer(time.Hour)
	defer wake.Stop()
	alive, done := len(r.conns), ctx.Done()
	for alive > 0 {
		select {
		case s := <-r.said:
			alive -= r.take(s)
		case <-wake.C:
		case <-r.ask.Interrupt:
			r.interrupt()
		case <-done:
			done = nil
			r.interrupt()
		}
		if err := r.give(bootTime()); err != nil {
			return err
		}
		if at := r.merge.next(); at != 0 {
			wake.Reset(time.Duration(max(0, at-bootTime())))
		}
	}
	return r.give(bootTime() + int64(r.ask.Hold))
}

// beat asks hosts for the time until nobody listens any more, whether or not what they say is taken meanwhile. A host of which
// nothing is heard is given up: its reader sees that the connection ends.
func (r *running) beat() {
	beats := time.NewTicker(beat)
	defer beats.Stop()
	for {
		select {
		case <-r.stop:
			return
		case <-beats.C:
		}
		for _, c := range r.conns {
			switch {
			case c.over.Load():
			case c.silence() > silent:
				c.said(c.Host, fmt.Sprintf("nothing was heard of it for %v", silent))
				c.over.Store(true)
				c.cancel()
			default:
				_ = c.ping() // its reader sees that it has ended
			}
		}
	}
}

// interrupt is Ctrl-C for all.
func (r *running) interrupt() {
	for i, c := range r.conns {
		if !r.merge.ended[i] {
			_ = c.out.send(frameInterrupt, false) // as a ping
		}
	}
}

// take takes what a host said. It gives 1 if that was its last word.
func (r *running) take(s said) (ended int) {
	res := &r.results[s.host]
	switch {
	case r.merge.ended[s.host]:
		return 0
	case s.err != nil:
		r.merge.end(s.host)
		if errors.Is(s.err, io.EOF) {
			s.err = errors.New("the connection was cut")
		}
		res.Err = s.err
		r.conns[s.host].said(res.Host, s.err.Error()+": what it would have said is missing")
		return 1
	}
	here := r.conns[s.host].Clock().Here(s.time)
	switch s.kind {
	case frameLine:
		r.merge.push(item{s.host, here, bootTime(), s.text})
	case framePong:
		r.merge.mark(s.host, here)
	case frameExit:
		r.merge.end(s.host)
		res.Code, res.Err = exited(s.text)
		return 1
	}
	return 0
}

// exited reads how a verb ended.
func exited(text []byte) (code int, err error) {
	var x exit
	switch err := json.Unmarshal(text, &x); {
	case err != nil:
		return 0, fmt.Errorf("how it ended: %w", err)
	case x.Error != "":
		return 0, errors.New(x.Error)
	case x.Signal != "":
		return 0, fmt.Errorf("it was ended by a signal: %s", x.Signal)
	}
	return x.Code, nil
}

// give hands out what need not wait any more.
func (r *running) give(now int64) error {
	for {
		it, ok := r.merge.pop(now)
		if !ok {
			return nil
		}
		if err := r.ask.Line(Line{it.host, it.time, it.line}); err != nil {
			return err
		}
	}
}

// receiver writes the files of a host.
type receiver struct {
	dir  string
	host Host
	root *os.Root
	file *os.File
	left int64
}

// Folder is the name of the folder for what a host wrote.
func (h Host) Folder() string {
	b := []byte(h.Name)
	for i, c := range b {
		if c == '/' || c == ':' || c == 0 {
			b[i] = '_'
		}
	}
	return string(b)
}

func (r *receiver) take(kind byte, body []byte) error {
	if kind == frameBytes {
		if r.file == nil || int64(len(body)) > r.left {
			return errors.New("bytes of no file")
		}
		r.left -= int64(len(body))
		if _, err := r.file.Write(body); err != nil {
			return err
		}
		return nil
	}
	if err := r.closeFile(); err != nil {
		return err
	}
	var f file
	if err := json.Unmarshal(body, &f); err != nil {
		return fmt.Errorf("name of a file: %w", err)
	}
	if r.dir == "" {
		return errors.New("a file that nobody asked for")
	}
	if r.root == nil {
		where := filepath.Join(r.dir, r.host.Folder())
		if err := os.MkdirAll(where, 0o755); err != nil {
			return err
		}
		var err error
		if r.root, err = os.OpenRoot(where); err != nil {
			return err
		}
	}
	// A Root lets no name lead out of the folder.
	if dir := filepath.Dir(f.Name); dir != "." {
		if err := r.root.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	var err error
	r.file, err = r.root.OpenFile(f.Name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	r.left = f.Size
	return err
}

// closeFile ends a file, whose bytes must all have come.
func (r *receiver) closeFile() error {
	if r.file == nil {
		return nil
	}
	name, err := r.file.Name(), r.file.Close()
	r.file = nil
	if err == nil && r.left > 0 {
		err = fmt.Errorf("%s: %d bytes are missing", name, r.left)
	}
	return err
}

func (r *receiver) close() error {
	err := r.closeFile()
	if r.root != nil {
		err = errors.Join(err, r.root.Close())
	}
	return err
}
