package keep

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/lease"
	"github.com/fathom-trace/fathom/lab/guest"
	"github.com/fathom-trace/fathom/lab/guest/pid1"
)

// keeper is the process that a guest belongs to.
type keeper struct {
	spec  Spec
	data  Data
	g     *guest.Guest
	log   consoleLog
	asked chan struct{}

	sayMu sync.Mutex
	say   *json.Encoder
	told  bool // that the guest is up: nobody reads on

	mu       sync.Mutex // guards sessions
	next     uint16
	sessions map[uint16]*relay
}

// report tells who started us, until the guest is up.
func (k *keeper) report(n news) {
	k.sayMu.Lock()
	defer k.sayMu.Unlock()
	if !k.told {
		k.say.Encode(n) // if nobody reads, it is for us to end: asked is never closed
		k.told = n.Ready
	}
}

// run is the keeper's life.
func (k *keeper) run(ctx context.Context) (err error) {
	s := k.spec
	folder := s.Guests.folder(s.Name)
	o := s.Options
	k.data = Data{Person: s.Guests.Person, Folder: folder, Kernel: o.Kernel, View: o.View, Mem: o.Mem, CPUs: o.CPUs, While: s.While, Disk: s.Disk}
	own, err := s.Guests.Dir.Claim(LeaseKind, s.Guests.Person+"/"+s.Name, k.data, func() error { return os.RemoveAll(folder) })
	if errors.Is(err, lease.ErrTaken) {
		return &guest.SetupError{What: "boot guest " + s.Name, Because: "a guest of that name is up", Try: []string{"fathom lab down " + s.Name, "fathom lab list"}}
	} else if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder), own.Release()) }()
	if err := os.Mkdir(folder, 0o700); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if s.While != 0 {
		if err := endWith(ctx, s.While, cancel); err != nil {
			return err
		}
	}
	dir, done, err := openFolder(folder)
	if err != nil {
		return err
	}
	defer done()
	k.sessions = map[uint16]*relay{}
	k.log.tee = func(b []byte) { k.report(news{Console: b}) }
	o.Serve, o.Console, o.OnSession = true, &k.log, k.fromGuest
	o.QEMUArgs = append(o.QEMUArgs, "-gdb", fmt.Sprintf("unix:%s/%s,server=on,wait=off", dir, gdbSocket))
	if k.g, err = guest.Start(ctx, o); err != nil {
		return err
	}
	return k.attend(ctx, cancel)
}

// attend answers from the moment the guest is ready until it is over.
func (k *keeper) attend(ctx context.Context, cancel func()) error {
	booting := time.AfterFunc(bootTime, cancel)
	over := func() error {
		_, err := k.g.Wait()
		select {
		case <-k.asked: // however it went, it was up
			return nil
		default:
			return err
		}
	}
	select {
	case <-k.g.Ended():
	case <-k.g.Panicked():
		console := k.log.String()
		k.g.Quit()
		if _, err := k.g.Wait(); err != nil {
			return err
		}
		return &guest.PanicError{Line: "it panicked while it booted", Console: console}
	case <-k.g.Done():
		return over()
	}
	booting.Stop()
	k.g.Patient()
	if err := k.loud(ctx); err != nil {
		k.g.Quit()
		return errors.Join(err, over())
	}
	l, err := listen(k.data.Folder + "/" + ctlSocket)
	if err != nil {
		k.g.Quit()
		return errors.Join(err, over())
	}
	go func() {
		<-k.g.Done()
		l.Close()
	}()
	k.report(news{Ready: true})
	go func() {
		select {
		case <-k.asked:
		case <-time.After(askTime):
			cancel()
		}
	}()
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return over()
		}
		go k.answer(c)
	}
}

// loud raises the console's log level, which is low during the boot for speed: what SysRq shows has a level of its own.
func (k *keeper) loud(ctx context.Context) error {
	_, said, done := k.log.listen()
	defer done()
	if err := k.press(ctx, "7"); err != nil {
		return err
	}
	select { // the next key must not come before this one is let go
	case <-said:
	case <-time.After(2 * time.Second): // SysRq is masked
	}
	return nil
}

// bootTime bounds a boot, askTime the silence of who started us after it.
const (
	bootTime = 5 * time.Minute
	askTime  = 10 * time.Second
)

// endWith calls end when a process has ended. It must run now.
func endWith(ctx context.Context, pid int, end func()) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("watch process %d: %w", pid, err)
	}
	go func() {
		defer unix.Close(fd)
		for ctx.Err() == nil {
			fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			if n, err := unix.Poll(fds, 1000); n > 0 || err != nil && err != unix.EINTR {
				end()
				return
			}
		}
	}()
	return nil
}

// openFolder gives QEMU a short name of the folder while it starts.
func openFolder(folder string) (name string, done func(), err error) {
	if len(folder)+len("/"+ctlSocket) <= maxPath {
		return folder, func() {}, nil
	}
	fd, err := unix.Open(folder, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, fmt.Errorf("open %s: %w", folder, err)
	}
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd), func() { unix.Close(fd) }, nil
}

// consoleLog keeps the end of the console, and passes on what comes to who listens.
type consoleLog struct {
	mu   sync.Mutex
	buf  []byte
	tee  func([]byte)
	subs map[chan []byte]bool
}

// consoleKept is how much of a console a keeper remembers.
const consoleKept = 1 << 20

// Write never fails and never waits: who listens too slowly loses a piece.
func (c *consoleLog) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.buf = append(c.buf, p...)
	if len(c.buf) > 2*consoleKept {
		c.buf = append(c.buf[:0], c.buf[len(c.buf)-consoleKept:]...)
	}
	for s := range c.subs {
		select {
		case s <- append([]byte(nil), p...):
		default:
		}
	}
	c.tee(p)
	return len(p), nil
}

func (c *consoleLog) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.buf[max(0, len(c.buf)-consoleKept):])
}

// listen gives what was said and a channel of what will be.
func (c *consoleLog) listen() (before string, ch chan []byte, done func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch = make(chan []byte, 1024)
	if c.subs == nil {
		c.subs = map[chan []byte]bool{}
	}
	c.subs[ch] = true
	return string(c.buf[max(0, len(c.buf)-consoleKept):]), ch, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.subs, ch)
	}
}

// relay carries the frames of one session to its client, without holding up the guest's: the window bounds what waits.
type relay struct {
	mu    sync.Mutex
	cond  *sync.Cond
	queue []pid1.Frame
	gone  bool // the client is
}

func newRelay() *relay {
	r := &relay{}
	r.cond = sync.NewCond(&r.mu)
	return r
}

// maxQueue bounds frames that wait for a client: a window of the smallest ones that make sense, and a guest that sends more
// is not to be trusted.
const maxQueue = pid1.Window

func (r *relay) put(f pid1.Frame) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gone || len(r.queue) >= maxQueue {
		return
	}
	f.Data = append([]byte(nil), f.Data...)
	r.queue = append(r.queue, f)
	r.cond.Signal()
}

// get waits for a frame; ok is false when the relay has ended.
func (r *relay) get() (f pid1.Frame, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.queue) == 0 && !r.gone {
		r.cond.Wait()
	}
	if r.gone {
		return f, false
	}
	f, r.queue = r.queue[0], r.queue[1:]
	return f, true
}

func (r *relay) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gone = true
	r.cond.Broadcast()
}

// fromGuest hands a frame to the session it belongs to. A session's number is free again after its end.
func (k *keeper) fromGuest(f pid1.Frame) {
	k.mu.Lock()
	r := k.sessions[f.Cmd]
	if f.Kind == pid1.Exit {
		delete(k.sessions, f.Cmd)
	}
	k.mu.Unlock()
	if r != nil {
		r.put(f)
	}
}
