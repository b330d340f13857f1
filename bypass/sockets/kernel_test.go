package sockets_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fathom-trace/fathom/bypass/netstack"
	"github.com/fathom-trace/fathom/bypass/sockets"
	"github.com/fathom-trace/fathom/bypass/xsk"
	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/lab/topology"
)

var guests = ktest.Config{Modules: []string{"veth", "tun"}}

func TestMain(m *testing.M) {
	switch role := os.Getenv(roleEnv); {
	case role == "enter":
		os.Setenv(roleEnv, os.Getenv(actorEnv))
		fmt.Fprintln(os.Stderr, sockets.Enter(os.Args[1:]))
		os.Exit(1)
	case role == "runner":
		fmt.Fprintln(os.Stderr, runner(os.Stdin, os.Stdout))
		return
	case role != "":
		if err := actors[role](os.Stdin, os.Stdout); err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
		return
	}
	ktest.Main(m, guests)
}

func TestGuest(t *testing.T) { ktest.Guests(t, guests) }

// What this executable is when a test starts it: who enters the filter, or the program that becomes of it.
const (
	roleEnv  = "FATHOM_TEST_ROLE"
	actorEnv = "FATHOM_TEST_ACTOR"
)

const ours, theirs, port = "10.77.0.1", "10.77.0.2", "8080"

// site is two hosts on a veth pair; a's stack is ours.
type site struct {
	t   *testing.T
	a   xsk.Device
	p   *topology.Pair
	s   *netstack.Stack
	ctx context.Context
}

func newSite(t *testing.T, b netstack.Backend) *site {
	t.Helper()
	ktest.Need(t, ktest.NetNS, ktest.XDP, ktest.AFXDP)
	p, err := topology.NewPair("va", "vb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	t.Cleanup(cancel)
	w := &site{t: t, a: xsk.Device{Name: p.A.Dev, NetNS: fmt.Sprintf("/proc/self/fd/%d", p.A.FD())}, p: p, ctx: ctx}
	if w.s, err = netstack.Open(w.a, netstack.Options{Backend: b, Queues: []int{0}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.s.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// program is an actor that runs, to which a test says what comes next by lines.
type program struct {
	t     *testing.T
	in    *io.PipeWriter
	lines chan string
	done  chan struct{}
	res   sockets.Result
	err   error
	notes []string
}

// run starts an actor under the filter.
func (w *site) run(actor string, o sockets.Options) *program {
	w.t.Helper()
	self, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	pr, pw := io.Pipe()
	outr, outw := io.Pipe()
	p := &program{t: w.t, in: pw, lines: make(chan string, 100), done: make(chan struct{})}
	o.Self, o.Command = []string{self}, []string{self}
	o.Env = append(os.Environ(), roleEnv+"=enter", actorEnv+"="+actor)
	o.Stdin, o.Stdout, o.Stderr = pr, outw, os.Stderr
	o.Note = func(s string) { p.notes = append(p.notes, s) }
	go func() {
		io.Copy(&liner{to: p.lines}, outr)
		close(p.lines)
	}()
	go func() {
		defer close(p.done)
		p.res, p.err = sockets.Run(w.ctx, w.s, o)
		outw.Close()
		pr.Close()
	}()
	w.t.Cleanup(func() { pw.Close(); <-p.done })
	return p
}

// liner cuts what is written into lines.
type liner struct {
	to   chan string
	rest string
}

func (l *liner) Write(b []byte) (int, error) {
	l.rest += string(b)
	for {
		line, rest, ok := strings.Cut(l.rest, "\n")
		if !ok {
			return len(b), nil
		}
		l.to <- line
		l.rest = rest
	}
}

// says waits for the actor's next line, which must be as expected.
func (p *program) says(want string) {
	p.t.Helper()
	select {
	case got, ok := <-p.lines:
		if !ok || got != want {
			p.t.Fatalf("the program says %q, want %q", got, want)
		}
	case <-time.After(time.Minute):
		p.t.Fatalf("the program says nothing, want %q", want)
	}
}

func (p *program) tell(line string) { fmt.Fprintln(p.in, line) }

// ends waits for the program to end well.
func (p *program) ends() sockets.Result {
	p.t.Helper()
	p.in.Close()
	<-p.done
	if p.err != nil || p.res.Code != 0 {
		p.t.Fatalf("%v, exit code %d", p.err, p.res.Code)
	}
	return p.res
}

// far runs f on the other host.
func (w *site) far(f func() error) {
	w.t.Helper()
	if err := w.p.B.NS.Do(f); err != nil {
		w.t.Fatal(err)
	}
}

// dial connects from the other host, through the kernel.
func (w *site) dial() net.Conn {
	w.t.Helper()
	var c net.Conn
	w.far(func() (err error) {
		c, err = (&net.Dialer{}).DialContext(w.ctx, "tcp", ours+":"+port)
		return err
	})
	w.t.Cleanup(func() { c.Close() })
	d, _ := w.ctx.Deadline()
	c.SetDeadline(d)
	return c
}

// TestHTTPServer: net/http serves, unchanged, to the other host past the kernel and on lo through it.
func TestHTTPServer(t *testing.T) {
	w := newSite(t, netstack.XDP)
	p := w.run("http", sockets.Options{Ports: []uint16{8080}})
	p.says("listens at [::]:8080")
	var client *http.Client
	w.far(func() error {
		client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, addr string) (c net.Conn, err error) {
			_ = w.p.B.NS.Do(func() error { c, err = (&net.Dialer{}).DialContext(ctx, network, addr); return nil })
			return c, err
		}}}
		return nil
	})
	const n = 20
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			resp, err := client.Get("http://" + ours + ":" + port)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			if got := string(b); err != nil || !strings.HasPrefix(got, "at "+ours+":"+port+" from "+theirs+":") {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	all.Wait()
	if err := w.p.A.NS.Do(func() error {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			return err
		}
		defer c.Close()
		fmt.Fprintf(c, "GET / HTTP/1.0\r\n\r\n")
		b, err := io.ReadAll(c)
		if !bytes.Contains(b, []byte("at 127.0.0.1:8080 from 127.0.0.1:")) {
			return fmt.Errorf("%q: %w", b, err)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if st, err := w.s.Stats(); err != nil || st.Received < n*4 {
		t.Errorf("%+v, %v: they did not come past the kernel", st, err)
	}
	if res := p.ends(); res.Accepted != n || res.Elsewhere != 1 || len(res.Kernel) > 0 {
		t.Errorf("%+v", res)
	}
	w.far(func() error {
		c, err := net.Dial("tcp", ours+":"+port)
		if err == nil {
			c.Close()
			t.Error("the port is open after the program has ended")
		}
		return nil
	})
}

// TestStreams: megabytes both ways at once through a server, with half closing; both ends have the same sum.
func TestStreams(t *testing.T) {
	w := newSite(t, netstack.XDP)
	p := w.run("echo", sockets.Options{Ports: []uint16{8080}})
	p.says("listens at 0.0.0.0:8080")
	size := 4 << 20
	if ktest.Where() != "host" {
		size = 256 << 10
	}
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	c := w.dial()
	go func() {
		c.Write(data)
		c.(*net.TCPConn).CloseWrite()
	}()
	h := sha256.New()
	if n, err := io.Copy(h, c); err != nil || n != int64(size) || !bytes.Equal(h.Sum(nil), sum(data)) {
		t.Errorf("%d of %d bytes came back, %v", n, size, err)
	}
	if res := p.ends(); res.Received != uint64(size) || res.Sent != uint64(size) {
		t.Errorf("%+v", res)
	}
}

func sum(b []byte) []byte { s := sha256.Sum256(b); return s[:] }

// TestDials: package net connects, unchanged: to who listens, to who does not, and where we do not carry.
func TestDials(t *testing.T) {
	w := newSite(t, netstack.XDP)
	var l net.Listener
	w.far(func() (err error) { l, err = net.Listen("tcp", theirs+":"+port); return err })
	t.Cleanup(func() { l.Close() })
	d, err := sockets.ParseDestination(theirs)
	if err != nil {
		t.Fatal(err)
	}
	lo, _ := sockets.ParseDestination("127.0.0.0/8")
	p := w.run("dial", sockets.Options{To: []sockets.Destination{d, lo}})
	p.tell(theirs + ":" + port)
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	p.says("connected to " + c.LocalAddr().String() + " from " + c.RemoteAddr().String())
	p.says("sent")
	if b, err := io.ReadAll(c); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
	c.Write([]byte("bye"))
	c.Close()
	p.says("got bye")
	p.tell(theirs + ":9999")
	p.says("connection refused")
	p.tell("127.0.0.1:9999")
	p.says("connection refused")
	res := p.ends()
	if res.Connected != 1 || res.Accepted != 0 || res.Kernel["the route to 127.0.0.1 is by another device"] < 1 || len(p.notes) != 1 {
		t.Errorf("%+v, notes %q", res, p.notes)
	}
	if st, err := w.s.Stats(); err != nil || st.Sent < 5 {
		t.Errorf("%+v, %v: it did not go past the kernel", st, err)
	}
}

// TestBare: what programs ask the kernel of sockets by bare system calls is answered as it would be.
func TestBare(t *testing.T) {
	w := newSite(t, netstack.XDP)
	var l net.Listener
	w.far(func() (err error) { l, err = net.Listen("tcp", theirs+":"+port); return err })
	t.Cleanup(func() { l.Close() })
	d, _ := sockets.ParseDestination(theirs + ":" + port)
	p := w.run("bare", sockets.Options{Ports: []uint16{8080}, To: []sockets.Destination{d}})
	p.says("listens")                 // everything that is asked of a listener is right
	time.Sleep(30 * time.Millisecond) // a while in accept with signals: nothing is expected of how long
	c := w.dial()
	p.says("accepted from " + c.LocalAddr().String())
	b := make([]byte, 2)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "hi" {
		t.Fatalf("%q, %v", b, err)
	}
	p.says("nothing waits")
	second := w.dial()
	p.says("the second is there")
	second.Close()
	p.says("connected")
	p.says("connected later")
	p.says("closed and listens again")
	again := w.dial()
	p.says("accepted again")
	if _, err := again.Write([]byte("hi")); err != nil {
		t.Fatal(err)
	}
	if _, err := again.Read(b); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("what was closed by SO_LINGER of 0 ends with %v", err)
	}
	c.(*net.TCPConn).SetLinger(0)
	c.Close()
	p.says("connection reset by peer")
	if res := p.ends(); res.Accepted != 3 || res.Connected != 2 || len(res.Kernel) > 0 {
		t.Errorf("%+v", res)
	}
}

// TestStays: what cannot be carried goes through the kernel, and is said.
func TestStays(t *testing.T) {
	w := newSite(t, netstack.XDP)
	var l net.Listener
	w.far(func() (err error) { l, err = net.Listen("tcp", theirs+":"+port); return err })
	t.Cleanup(func() { l.Close() })
	d, _ := sockets.ParseDestination("10.77.0.0/24")
	p := w.run("stays", sockets.Options{Ports: []uint16{8080}, To: []sockets.Destination{d}})
	p.says("done")
	want := []string{"datagrams to port 8080: 127.0.0.1 is not an address of the device", "a socket was bound before it connected",
		"datagrams to " + theirs + ":" + port + ": its descriptor was duplicated before",
		"a socket that connects: its descriptor was in an epoll set before", "a socket that connects: its descriptor was duplicated before",
		"connections to 0.0.0.0:8080: its descriptor was duplicated before"}
	res := p.ends()
	for _, reason := range want {
		if res.Kernel[reason] < 1 { // a call that a signal interrupts comes again
			t.Errorf("not said: %s", reason)
		}
	}
	if len(res.Kernel) != len(want) || res.Connected+res.Accepted > 0 {
		t.Errorf("%+v", res)
	}
}

// TestEnds: exit codes are the program's, a context that ends asks it to end, and what cannot start is said.
func TestEnds(t *testing.T) {
	w := newSite(t, netstack.XDP)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o := func(role string) sockets.Options {
		return sockets.Options{Ports: []uint16{8080}, Self: []string{self}, Command: []string{self}, Env: append(os.Environ(), roleEnv+"=enter", actorEnv+"="+role)}
	}
	if res, err := sockets.Run(w.ctx, w.s, o("fails")); err != nil || res.Code != 1 {
		t.Errorf("%+v, %v", res, err)
	}
	ctx, cancel := context.WithCancel(w.ctx)
	sleeps := o("sleeps")
	r, wr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	sleeps.Stdout = wr
	go func() {
		r.Read(make([]byte, 1)) // it runs
		cancel()
	}()
	res, err := sockets.Run(ctx, w.s, sleeps)
	if err != nil || res.Code != 128+int(syscall.SIGTERM) {
		t.Errorf("%+v, %v", res, err)
	}
	cancel()
	r.Close()
	wr.Close()
	missing := o("sleeps")
	missing.Command = []string{"/does/not/exist"}
	var said bytes.Buffer
	missing.Stderr = &said
	if _, err := sockets.Run(w.ctx, w.s, missing); err == nil || !strings.Contains(said.String(), "/does/not/exist") {
		t.Errorf("%v, it says %q", err, said.String())
	}
}

// TestKilled: when who runs the program is killed, nothing stays: not the program, not the device's XDP program.
func TestKilled(t *testing.T) {
	w := newSite(t, netstack.XDP)
	if err := w.s.Close(); err != nil { // another process has the device
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), roleEnv+"=runner")
	cmd.Stderr = os.Stderr
	dup, err := syscall.Dup(w.p.A.FD())
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(dup), "namespace")
	cmd.ExtraFiles = []*os.File{theirs}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	b := make([]byte, 5)
	if _, err := io.ReadFull(out, b); err != nil || string(b) != "runs\n" {
		t.Errorf("it says %q, %v", b, err)
	}
	cmd.Process.Kill()
	if err := out.(*os.File).SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Error(err)
	}
	if rest, err := io.ReadAll(out); err != nil { // until the last that can write is gone
		t.Errorf("%q, %v", rest, err)
	}
	cmd.Wait()
	again, err := netstack.Open(w.a, netstack.Options{Queues: []int{0}})
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

// runner is who is killed.
func runner(_ io.Reader, out io.Writer) error {
	s, err := netstack.Open(xsk.Device{Name: "va", NetNS: "/proc/self/fd/3"}, netstack.Options{Queues: []int{0}})
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	_, err = sockets.Run(context.Background(), s, sockets.Options{
		Ports: []uint16{8080}, Self: []string{self}, Command: []string{self}, Stdout: out, Stderr: os.Stderr,
		Env: append(os.Environ(), roleEnv+"=enter", actorEnv+"=sleeps"),
	})
	return err
}
