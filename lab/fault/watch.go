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
	"strings"
	"sync"
	"time"

	"github.com/fathom-trace/fathom/lab/fault/expect"
)

// Times of a run of fathom packet.
const (
	readyTime = 60 * time.Second        // until it is ready; a guest without acceleration is slow
	endTime   = 30 * time.Second        // from the signal to its end
	aftermath = 1200 * time.Millisecond // for what happens late: a timer that expires, a counter that is read
)

// Run is what fathom packet said while traffic was sent.
type Run struct {
	Verdicts []expect.Verdict
	Records  []string // all of its lines
	Stderr   string
}

// Watch runs fathom packet over namespaces while do sends the traffic, and collects what it says. flags are further
// arguments for it. It must end by itself after SIGINT.
func Watch(ctx context.Context, fathom string, netns, flags []string, do func(context.Context) error) (r Run, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, fathom, append([]string{"packet", "-j", "--netns", strings.Join(netns, ",")}, flags...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return r, err
	}
	if err := cmd.Start(); err != nil {
		return r, fmt.Errorf("start fathom packet: %w", err)
	}
	lines := reader{ready: make(chan struct{}), end: make(chan struct{})}
	go lines.read(out)
	defer func() {
		cancel() // kills it if it has not ended
		<-lines.end
		werr := cmd.Wait()
		r.Records, r.Stderr = lines.all, stderr.String()
		if err == nil && werr != nil {
			err = fmt.Errorf("fathom packet: %w: %s", werr, strings.TrimSpace(r.Stderr))
		}
		for _, l := range lines.all {
			v, ok, verr := expect.ParseVerdict([]byte(l))
			if verr != nil {
				err = errors.Join(err, verr)
			} else if ok {
				r.Verdicts = append(r.Verdicts, v)
			}
		}
	}()
	select {
	case <-lines.ready:
	case <-lines.end:
		return r, nil // cmd.Wait says why
	case <-time.After(readyTime):
		return r, fmt.Errorf("fathom packet is not ready after %v: %w", readyTime, os.ErrDeadlineExceeded)
	}
	if err := do(ctx); err != nil {
		return r, err
	}
	select {
	case <-time.After(aftermath):
	case <-ctx.Done():
		return r, context.Cause(ctx)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return r, err
	}
	select {
	case <-lines.end:
	case <-time.After(endTime):
		return r, fmt.Errorf("fathom packet has not ended %v after SIGINT: %w", endTime, os.ErrDeadlineExceeded)
	}
	return r, nil
}

// reader takes lines until their end and says when the one comes that tells of readiness.
type reader struct {
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
		if strings.HasPrefix(l, `{"type":"ready"`) {
			r.once.Do(func() { close(r.ready) })
		}
		r.all = append(r.all, l)
	}
}
