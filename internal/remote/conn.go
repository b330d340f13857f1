package remote

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Options say how hosts are reached.
type Options struct {
	Program string // the binary that is copied; "" is the running one
	Root    bool   // the verb needs root: where the user is not, sudo is tried, without a password
	// Said is called with what ssh, the far side and the verb there say beside their output, line by line, from any goroutine.
	Said func(Host, string)
}

// Error is a host that could not be reached, or on which the binary cannot run.
type Error struct {
	Host    Host
	What    string
	Because string
	Try     []string
}

func (e *Error) Error() string {
	return fmt.Sprintf("host %s: %s: %s", e.Host.Name, e.What, e.Because)
}

// Conn is a connection to a host, on which the binary runs and waits. Its owner closes it.
type Conn struct {
	Host Host
	Sudo bool // it runs as root there because sudo let it

	said   func(Host, string)
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *sender
	lines  *bufio.Reader // before the frames begin
	frames *frames
	cancel context.CancelFunc
	stderr sync.WaitGroup

	first Clock // as it was known when the connection was made

	over atomic.Bool // nothing more is read of it

	mu    sync.Mutex
	guess estimate
	heard int64 // when something came last
	busy  bool  // what came is being passed on
}

// Dial connects to a host and starts the binary there.
func Dial(ctx context.Context, h Host, o Options) (c *Conn, err error) {
	if o.Said == nil {
		o.Said = func(Host, string) {}
	}
	// ctx is for connecting; a connection that stands is ended in order, by Close.
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer context.AfterFunc(ctx, cancel)()
	c = &Conn{Host: h, said: o.Said, cancel: cancel}
	mark, err := c.start(life)
	if err == nil {
		if err = c.install(mark, o); err != nil {
			err = c.cause(err)
		}
	}
	if err != nil {
		c.Close() // its error is the one there is
		return nil, err
	}
	return c, nil
}

// sshArgs are for the user's own ssh: their configuration says the rest. Nothing of this side is offered to the far one.
func sshArgs(h Host, mark string) []string {
	args := []string{"-T", "-a", "-x", "-o", "ClearAllForwardings=yes", "-o", "RemoteCommand=none"}
	if h.Port != 0 {
		args = append(args, "-p", strconv.Itoa(h.Port))
	}
	return append(args, h.Dest, command(mark))
}

// start starts ssh. Ctrl-C, which the terminal gives it too, must not cut the connection before the verb has ended there.
func (c *Conn) start(ctx context.Context) (mark string, err error) {
	ssh, err := exec.LookPath("ssh")
	if err != nil {
		return "", &Error{c.Host, "connect", "there is no program ssh in $PATH", []string{"apt install openssh-client"}}
	}
	var b [12]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", err
	}
	mark = "fathom-" + hex.EncodeToString(b[:])
	args := append([]string{"-c", `trap "" INT; exec "$0" "$@"`, ssh}, sshArgs(c.Host, mark)...)
	c.cmd = exec.CommandContext(ctx, "sh", args...)
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return "", err
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	stderr, err := c.cmd.StderrPipe()
	if err != nil {
		return "", err
	}
	if err := c.cmd.Start(); err != nil {
		c.cmd = nil
		return "", fmt.Errorf("start ssh: %w", err)
	}
	c.out, c.lines = newSender(c.in), bufio.NewReaderSize(stdout, 64<<10)
	c.stderr.Add(1)
	go func() {
		defer c.stderr.Done()
		sc := bufio.NewScanner(stderr)
		for sc.Scan() {
			c.said(c.Host, strings.TrimRight(sc.Text(), "\r"))
		}
		io.Copy(io.Discard, stderr) // a line that is too long
	}()
	return mark, nil
}

// mostGreeting is how much may be said before the far side's first line.
const mostGreeting = 1 << 20

// answer reads the next line that begins with mark. What a login shell says is passed over.
func (c *Conn) answer(mark string) (string, error) {
	for n := 0; n < mostGreeting; {
		b, err := c.lines.ReadSlice('\n')
		if err == bufio.ErrBufferFull {
			err = nil
		}
		n += len(b)
		if rest, ok := bytes.CutPrefix(b, []byte(mark+" ")); ok {
			return strings.TrimSpace(string(rest)), nil
		}
		if err != nil {
			return "", err
		}
	}
	return "", errors.New("its shell does not stop greeting")
}

// install copies the binary and starts it.
func (c *Conn) install(mark string, o Options) error {
	words, err := c.answer(mark)
	if err != nil {
		return err
	}
	s, err := readSystem(words)
	if err != nil {
		return &Error{c.Host, "connect", err.Error(), nil}
	}
	name, err := c.fits(s, o.Program)
	if err != nil {
		return err
	}
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	sum := sha256.New()
	size, err := io.Copy(sum, file)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	as := "self"
	if c.Sudo = o.Root && s.UID != "0"; c.Sudo {
		as = "sudo"
	}
	if _, err := fmt.Fprintf(c.in, "%d %x %s\n", size, sum.Sum(nil), as); err != nil {
		return err
	}
	if _, err := io.Copy(c.in, file); err != nil {
		return err
	}
	words, err = c.answer(mark)
	if err != nil {
		return err
	}
	switch what, why, _ := strings.Cut(words, " "); what {
	case "ready":
	case "refused":
		return &Error{c.Host, "become root", fmt.Sprintf("user %s there, and sudo -n says: %s", s.UID, why), []string{"--host root@" + c.Host.short()}}
	default:
		return &Error{c.Host, "copy this program there", fmt.Sprintf("%d bytes were sent to %s, which came to something else: %s", size, s.Dir, why), nil}
	}
	return c.greet()
}

// fits says which binary runs on a system.
func (c *Conn) fits(s system, program string) (string, error) {
	self := program
	if self == "" {
		self = "/proc/self/exe"
	}
	cannot := func(because string, try ...string) error {
		return &Error{c.Host, "run there", because, try}
	}
	switch {
	case s.OS != "Linux":
		return "", cannot("its system is " + s.OS + " (uname -s), not Linux")
	case s.Dir == "":
		return "", cannot("there is no folder in which a copy could be run; these were tried: "+strings.Join(s.Tried, " "), "ssh "+c.Host.Dest+" mount -o remount,exec /tmp")
	case slices.Contains(machines[runtime.GOARCH], s.Machine):
		return self, nil
	}
	// make dist puts the binaries of all architectures into one folder.
	if exe, err := os.Executable(); err == nil {
		for arch, names := range machines {
			other := filepath.Join(filepath.Dir(exe), "fathom-linux-"+arch)
			if _, err := os.Stat(other); err == nil && slices.Contains(names, s.Machine) {
				return other, nil
			}
		}
	}
	return "", cannot(fmt.Sprintf("it is %s (uname -m), and this program is for %s", s.Machine, runtime.GOARCH), "put fathom-linux-ARCH of make dist beside this program")
}

// trips is how many pings the first estimate of a clock is made of.
const trips = 12

// greet reads the far side's hello, and how far its clock is from ours.
func (c *Conn) greet() error {
	c.frames = newFrames(c.lines)
	kind, body, err := c.frames.next()
	if err != nil {
		return err
	}
	var h hello
	if kind != frameHello || json.Unmarshal(body, &h) != nil || h.Version != version {
		return &Error{c.Host, "start this program there", fmt.Sprintf("it says %q", body), nil}
	}
	for range trips {
		if err := c.ping(); err != nil {
			return err
		}
		kind, body, err := c.frames.next()
		if err != nil {
			return err
		}
		if kind != framePong {
			return &FrameError{c.frames.off, "that is no answer to a ping"}
		}
		c.pong(body)
	}
	c.first = c.Clock()
	return nil
}

func (c *Conn) ping() error {
	return c.out.send(framePing, false, binary.BigEndian.AppendUint64(nil, uint64(bootTime())))
}

// pong takes an answer. It gives the moment of the answer by the far side's clock.
func (c *Conn) pong(body []byte) (there uint64, ok bool) {
	now, real := bootTime(), realTime()
	p, ok := readPong(body)
	if !ok {
		return 0, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.guess.add(p, now, real)
	return p.Answered, true
}

// hears notes that something came, which may have to wait until it is taken: then it is busy. silence is for how long nothing has
// come.
func (c *Conn) hears(busy bool) {
	c.mu.Lock()
	c.heard, c.busy = bootTime(), busy
	c.mu.Unlock()
}

func (c *Conn) silence() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.busy {
		return 0
	}
	return time.Duration(bootTime() - c.heard)
}

// Clock is what is known of the host's clock so far.
func (c *Conn) Clock() Clock {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.guess.now(bootTime())
}

// cause says why a connection ended before it was one: ssh has said the rest by now.
func (c *Conn) cause(err error) error {
	var known *Error
	if errors.As(err, &known) {
		return err
	}
	c.in.Close()
	because := err.Error()
	switch werr := c.wait(); {
	case werr != nil:
		because = "ssh ended: " + werr.Error()
	case errors.Is(err, io.EOF):
		because = "it ended before it answered"
	}
	return &Error{c.Host, "connect", because, []string{"ssh " + c.Host.Dest + " true"}}
}

// leaving is how long ssh is given to end once nothing is said to it any more.
const leaving = 15 * time.Second

// wait waits for ssh.
func (c *Conn) wait() error {
	if c.cmd == nil {
		return nil
	}
	defer time.AfterFunc(leaving, c.cancel).Stop()
	c.stderr.Wait()
	err := c.cmd.Wait()
	c.cmd = nil
	return err
}

// Close cuts the connection: the far side ends what it runs, and itself.
func (c *Conn) Close() error {
	defer c.cancel()
	if c.cmd == nil {
		return nil
	}
	c.in.Close()
	// Nobody reads what still comes: ssh must not wait for that.
	go io.Copy(io.Discard, c.lines)
	return c.wait()
}
