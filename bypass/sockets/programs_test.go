package sockets_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/fathom-trace/fathom/bypass/netstack"
	"github.com/fathom-trace/fathom/bypass/sockets"
	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/internal/oracle"
)

// others is a program that is not ours, run under the filter.
type others struct {
	t      *testing.T
	lines  chan string
	cancel context.CancelFunc
	ended  chan sockets.Result
}

// program starts one, with connections to port 8080 and to the other host carried.
func (w site) program(t *testing.T, in io.Reader, argv ...string) *others {
	t.Helper()
	w.t = t
	self, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	all, err := sockets.ParseDestination("10.77.0.0/24")
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.ctx)
	p := &others{t: w.t, lines: make(chan string, 1000), cancel: cancel, ended: make(chan sockets.Result, 1)}
	r, wr := io.Pipe()
	go func() {
		io.Copy(&liner{to: p.lines}, r)
		close(p.lines)
	}()
	go func() {
		defer close(p.ended)
		res, err := sockets.Run(ctx, w.s, sockets.Options{
			Ports: []uint16{8080}, To: []sockets.Destination{all}, Self: []string{self}, Command: argv,
			Env: append(os.Environ(), roleEnv+"=enter", actorEnv+"=", "PYTHONUNBUFFERED=1"), Stdin: in, Stdout: wr, Stderr: wr,
		})
		wr.Close()
		if err != nil {
			w.t.Error(err)
		}
		p.ended <- res
	}()
	w.t.Cleanup(func() { cancel(); <-p.ended })
	return p
}

// says waits for a line that begins so.
func (p *others) says(prefix string) {
	p.t.Helper()
	var all []string
	for deadline := time.After(time.Minute); ; {
		select {
		case line, ok := <-p.lines:
			if strings.HasPrefix(line, prefix) {
				return
			}
			if all = append(all, line); !ok {
				p.t.Fatalf("the program ends with\n%s", strings.Join(all, "\n"))
			}
		case <-deadline:
			p.t.Fatalf("no line %q in\n%s", prefix, strings.Join(all, "\n"))
		}
	}
}

// command runs a program on the other host, through the kernel.
func (w site) command(t *testing.T, argv ...string) []byte {
	t.Helper()
	w.t = t
	var out []byte
	w.far(func() (err error) {
		cmd := exec.CommandContext(w.ctx, argv[0], argv[1:]...)
		cmd.Stderr = os.Stderr
		out, err = cmd.Output()
		return err
	})
	return out
}

// TestPrograms: programs of others, as they are, talk to the kernel's TCP through ours.
func TestPrograms(t *testing.T) {
	for _, b := range []netstack.Backend{netstack.XDP, netstack.Packet} {
		t.Run(b.String(), func(t *testing.T) { overPrograms(t, b) })
	}
}

func overPrograms(t *testing.T, b netstack.Backend) {
	if ktest.InGuest() {
		t.Skip("a guest has no programs")
	}
	python, curl, iperf3, nc := oracle.Path(t, "python3"), oracle.Path(t, "curl"), oracle.Path(t, "iperf3"), oracle.Path(t, "nc")
	w := newSite(t, b)
	data := make([]byte, 1<<20)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/file", data, 0o644); err != nil {
		t.Fatal(err)
	}

	t.Run("python serves curl", func(t *testing.T) {
		p := w.program(t, nil, python, "-m", "http.server", "-d", dir, port)
		p.says("Serving HTTP")
		for range 3 {
			if out := w.command(t, curl, "-sS", "http://"+ours+":"+port+"/file"); !bytes.Equal(out, data) {
				t.Errorf("%d bytes", len(out))
			}
		}
		p.cancel()
		if res := <-p.ended; res.Accepted != 3 || res.Sent < 3<<20 || len(res.Kernel) > 0 {
			t.Errorf("%+v", res)
		}
	})

	t.Run("iperf3", func(t *testing.T) {
		p := w.program(t, nil, iperf3, "-s", "-p", port, "--forceflush")
		for way, least := range map[string]float64{"--forceflush": 1 << 20, "--reverse": 8 << 20} { // whoever is told to end has not read all yet
			p.says("Server listening")
			var r struct {
				End struct {
					Received struct{ Bytes float64 } `json:"sum_received"`
				} `json:"end"`
			}
			if err := json.Unmarshal(w.command(t, iperf3, "-c", ours, "-p", port, "-n", "8M", "-J", way), &r); err != nil || r.End.Received.Bytes < least {
				t.Errorf("%s: %+v, %v", way, r, err)
			}
		}
		p.says("Server listening")
		p.cancel()
		if res := <-p.ended; res.Accepted != 4 || res.Sent < 8<<20 || res.Received < 1<<20 || len(res.Kernel) > 0 {
			t.Errorf("%+v", res)
		}
	})

	t.Run("nc", func(t *testing.T) {
		p := w.program(t, bytes.NewReader(data), nc, "-n", "-v", "-N", "-l", port)
		p.says("Listening on")
		if out := w.command(t, nc, "-d", ours, port); !bytes.Equal(out, data) {
			t.Errorf("%d bytes", len(out))
		}
		if res := <-p.ended; res.Accepted != 1 || res.Sent != 1<<20 || res.Code != 0 {
			t.Errorf("%+v", res)
		}
	})

	// A signal whose handler has no SA_RESTART ends what waits.
	t.Run("interrupted", func(t *testing.T) {
		p := w.program(t, nil, python, "-c", `import signal, socket
class Alarm(Exception): pass
def ring(*_): raise Alarm
signal.signal(signal.SIGALRM, ring)
l = socket.create_server(("0.0.0.0", 8080))
for wait in lambda: l.accept(), lambda: socket.create_connection(("10.77.0.99", 8080)):
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try: wait()
    except Alarm: print("rang")
`)
		p.says("rang")
		p.says("rang")
		if res := <-p.ended; res.Code != 0 {
			t.Errorf("%+v", res)
		}
	})
}
