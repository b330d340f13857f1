package sockets

import (
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/bypass/netstack"
)

// Options say what is run and which of its connections go past the kernel.
type Options struct {
	Ports []uint16      // connections and datagrams that come to these
	To    []Destination // connections and datagrams that go to those
	// Command is the program and its arguments. It runs in the network namespace of the stack's device.
	Command []string
	// Self starts a process of ours that calls Enter with Command, whose words are put behind: usually this executable and a hidden verb.
	Self []string
	// Streams, environment and folder of the program, as in os/exec.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Env            []string
	Dir            string
	// Note is told, once for each reason and one at a time, what stays the kernel's, and why.
	Note func(reason string)
}

// Result is what a run came to.
type Result struct {
	Accepted  uint64            `json:"accepted"`  // connections that came past the kernel
	Connected uint64            `json:"connected"` // and that went
	Received  uint64            `json:"received_bytes"`
	Sent      uint64            `json:"sent_bytes"`
	Elsewhere uint64            `json:"by_other_devices"` // connections to the ports that came through the kernel
	Kernel    map[string]uint64 `json:"kernel"`           // what stayed the kernel's, by reason

	DatagramsIn        uint64 `json:"datagrams_received"` // of UDP, past the kernel
	DatagramsOut       uint64 `json:"datagrams_sent"`
	DatagramsElsewhere uint64 `json:"datagrams_by_other_devices"` // of sockets that are carried, through the kernel
	Code               int    `json:"exit_code"`                  // of the program; 128 and the signal that ended it
}

// run is a program that runs.
type run struct {
	Options
	s   *netstack.Stack
	ask asker
	wg  sync.WaitGroup // goroutines
	ctx context.Context

	mu    sync.Mutex
	known map[string]any // *listening, *carried or *datagrams, by the socket that the program has

	notes  sync.Mutex
	kernel map[string]uint64

	accepted, connected, received, sent, elsewhere atomic.Uint64
	datagramsIn, datagramsOut, datagramsElse       atomic.Uint64
	scan, listens                                  sync.Mutex // one at a time
	udp                                            udp
}

// Run runs a program until it ends. When ctx ends the program gets SIGTERM. The stack stays the caller's.
func Run(ctx context.Context, s *netstack.Stack, o Options) (Result, error) {
	if len(o.Command) == 0 || len(o.Self) == 0 {
		return Result{}, errors.New("no program to run")
	}
	r := &run{Options: o, s: s, known: map[string]any{}, kernel: map[string]uint64{}}
	var res Result
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // the program ends with the thread that started it
		err = s.Device().In(func() error {
			res, err = r.run(ctx)
			return err
		})
	}()
	<-done
	return res, err
}

func (r *run) run(ctx context.Context) (res Result, err error) {
	cmd, ask, err := start(r.Options)
	if err != nil {
		return res, err
	}
	defer unix.Close(ask.fd)
	r.ask = ask
	inside, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	r.ctx = inside
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(unix.SIGTERM) }) // it may have ended
	defer stop()
	served := make(chan error, 1)
	go func() { served <- r.serve() }()
	werr := cmd.Wait()
	serr := <-served // children that the program left behind go on
	cancel()
	r.end()
	r.endDatagrams()
	r.wg.Wait()
	if r.udp.m != nil {
		serr = errors.Join(serr, r.udp.m.close())
	}
	var exit *exec.ExitError
	if errors.As(werr, &exit) {
		werr = nil
	}
	res = Result{
		Accepted: r.accepted.Load(), Connected: r.connected.Load(), Received: r.received.Load(), Sent: r.sent.Load(),
		Elsewhere: r.elsewhere.Load(), Kernel: r.kernel, Code: code(cmd.ProcessState),
		DatagramsIn: r.datagramsIn.Load(), DatagramsOut: r.datagramsOut.Load(), DatagramsElsewhere: r.datagramsElse.Load(),
	}
	return res, errors.Join(werr, serr)
}

// code is the exit code as a shell has it.
func code(p *os.ProcessState) int {
	if w, ok := p.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return 128 + int(w.Signal())
	}
	return p.ExitCode()
}

// end closes what the program left to listen: it is gone. What it sent last is still carried.
func (r *run) end() {
	r.mu.Lock()
	left := slices.Collect(maps.Values(r.known))
	r.mu.Unlock()
	for _, x := range left {
		if l, ok := x.(*listening); ok {
			l.close()
		}
	}
}

// stays notes that something stays the kernel's.
func (r *run) stays(reason string) {
	r.notes.Lock()
	defer r.notes.Unlock()
	r.kernel[reason]++
	if r.kernel[reason] == 1 && r.Note != nil {
		r.Note(reason)
	}
}

func (r *run) find(inode string) any {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.known[inode]
}

func (r *run) remember(inode string, x any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known[inode] = x
}

func (r *run) forget(inode string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.known, inode)
}

// serve answers until nobody is left to ask.
func (r *run) serve() error {
	for {
		n, err := r.ask.next()
		if err != nil {
			if errors.Is(err, errGone) {
				return nil
			}
			return err
		}
		r.wg.Go(func() { r.handle(n) })
	}
}

// handle answers one question.
func (r *run) handle(n notification) {
	fd := int(int32(n.args[0]))
	switch n.nr {
	case unix.SYS_BIND:
		r.bind(n, fd)
	case unix.SYS_LISTEN:
		r.listen(n, fd)
	case unix.SYS_CONNECT:
		r.connect(n, fd)
	case unix.SYS_ACCEPT:
		r.accept(n, fd, 0)
	case unix.SYS_ACCEPT4:
		r.accept(n, fd, int(int32(n.args[3])))
	case unix.SYS_SENDTO, unix.SYS_SENDMSG, unix.SYS_SENDMMSG:
		r.sends(n, fd)
	case unix.SYS_GETSOCKNAME:
		r.name(n, fd, false)
	case unix.SYS_GETPEERNAME:
		r.name(n, fd, true)
	case unix.SYS_SETSOCKOPT:
		r.setOption(n, fd)
	case unix.SYS_GETSOCKOPT:
		r.getOption(n, fd)
	default:
		r.ask.pass(n.id)
	}
}
