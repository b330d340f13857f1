package fault

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/lab/fault/expect"
)

// Times of a run of fathom packet.
const (
	readyTime = 2 * time.Minute         // until it is ready; a guest without acceleration on a busy machine is slow
	endTime   = 2 * time.Minute         // from the signal to its end
	aftermath = 1200 * time.Millisecond // for what happens late: a timer that expires, a counter that is read
)

// Run is what fathom packet said while traffic was sent.
type Run struct {
	Verdicts []expect.Verdict
	Records  []string // all of its lines
	Stderr   string
	Memory   int // the most that was in memory of it when it was told to end, in bytes
}

// Watch runs fathom packet over namespaces while do sends the traffic, and collects what it says. flags are further
// arguments for it. It must end by itself after SIGINT.
func Watch(ctx context.Context, fathom string, netns, flags []string, do func(context.Context) error) (r Run, err error) {
	args := append([]string{"packet", "-j", "--netns", strings.Join(netns, ",")}, flags...)
	r.Records, r.Stderr, err = beside(ctx, fathom, args, `"type":"ready"`, func(ctx context.Context, pid int) error {
		if err := do(ctx); err != nil {
			return err
		}
		if err := wait(ctx, aftermath); err != nil {
			return err
		}
		r.Memory, err = peak(pid)
		return err
	})
	for _, l := range r.Records {
		v, ok, verr := expect.ParseVerdict([]byte(l))
		if verr != nil {
			err = errors.Join(err, verr)
		} else if ok {
			r.Verdicts = append(r.Verdicts, v)
		}
	}
	return r, err
}

// peak is the most of a process that was in memory so far (proc_pid_status(5)).
func peak(pid int) (bytes int, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for l := range strings.Lines(string(b)) {
		if f := strings.Fields(l); len(f) == 3 && f[0] == "VmHWM:" {
			kb, err := strconv.Atoi(f[1])
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("read status of process %d: no VmHWM", pid)
}

// beside runs fathom while do works: from the line on that has what ready says, until do is done. It gives the lines that it
// printed.
func beside(ctx context.Context, fathom string, args []string, ready string, do func(ctx context.Context, pid int) error) (lines []string, said string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, fathom, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, "", err
	}
	if err := cmd.Start(); err != nil {
		return nil, "", fmt.Errorf("start fathom: %w", err)
	}
	in := reader{mark: ready, ready: make(chan struct{}), end: make(chan struct{})}
	go in.read(out)
	err = in.during(ctx, cmd.Process, do)
	if err != nil {
		cancel() // kills it
	}
	<-in.end
	werr := cmd.Wait()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("%w: %s", err, stderr.String())
	}
	if err == nil && werr != nil {
		err = fmt.Errorf("fathom %s: %w: %s", strings.Join(args[:min(2, len(args))], " "), werr, strings.TrimSpace(stderr.String()))
	}
	return in.all, stderr.String(), err
}

// during waits for readiness, does what is to be done, and ends the process.
func (r *reader) during(ctx context.Context, p *os.Process, do func(ctx context.Context, pid int) error) error {
	select {
	case <-r.ready:
	case <-r.end:
		return nil // its exit code says why
	case <-time.After(readyTime):
		return fmt.Errorf("fathom is not ready after %v: %w", readyTime, os.ErrDeadlineExceeded)
	}
	if err := do(ctx, p.Pid); err != nil {
		return err
	}
	if err := p.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-r.end:
		return nil
	case <-time.After(endTime):
		_ = p.Signal(unix.SIGQUIT) // it says what it is doing
		select {
		case <-r.end:
		case <-time.After(time.Second):
		}
		return fmt.Errorf("fathom has not ended %v after SIGINT: %w", endTime, os.ErrDeadlineExceeded)
	}
}

// reader takes lines until their end and says when the one comes that tells of readiness.
type reader struct {
	mark       string // what that line has
	ready, end chan struct{}
	once       sync.Once
	all        []string
}

func (r *reader) read(in io.Reader) {
	defer close(r.end)
	s := bufio.NewScanner(in)
	s.Buffer(nil, 16<<20)
	for s.Scan() {
		l := s.Text()
		if strings.Contains(l, r.mark) {
			r.once.Do(func() { close(r.ready) })
		}
		r.all = append(r.all, l)
	}
}

// atOnce is how many scenes send at a time.
const atOnce = 4

// together calls f with 0 to n-1, some of them at a time.
func together(n int, f func(i int)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			f(i)
		})
	}
	wg.Wait()
}

// Outcome is what was said of a scene, by the kernel and by fathom packet.
type Outcome struct {
	Seen  Seen
	Score expect.Score
}

// Packet sends the traffic of scenes, some at a time, while fathom packet looks at the namespaces of all and the kernel itself
// is asked beside it, and scores what is said of each. fathom is the command, release that of the kernel.
func Packet(ctx context.Context, fathom, release string, scenes []*Scene) ([]Outcome, Run, error) {
	var names []string
	for _, s := range scenes {
		names = append(names, s.Namespaces()...)
	}
	out := make([]Outcome, len(scenes))
	var r Run
	err := asKernel(ctx, fathom, release, scenes, out, func(ctx context.Context) (err error) {
		r, err = Watch(ctx, fathom, names, nil, func(ctx context.Context) error {
			together(len(scenes), func(i int) { out[i].Seen.Err = scenes[i].Send(ctx) })
			return nil
		})
		return err
	})
	if err != nil {
		return nil, r, err
	}
	for i, s := range scenes {
		s.Settle()
		var own []expect.Verdict
		for _, v := range r.Verdicts {
			if slices.Contains(s.Namespaces(), v.Netns) {
				own = append(own, v)
			}
		}
		out[i].Score = s.Answer.Score(expect.Lab{Netns: s.Netns, Kernel: release}, own)
	}
	return out, r, nil
}
