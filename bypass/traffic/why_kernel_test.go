package traffic_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/fathom-trace/fathom/bypass/held"
	"github.com/fathom-trace/fathom/bypass/steer"
	"github.com/fathom-trace/fathom/bypass/traffic"
	"github.com/fathom-trace/fathom/bypass/xsk"
	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/internal/xskwhy"
	"github.com/fathom-trace/fathom/kernel/live"
	"github.com/fathom-trace/fathom/lab/topology"
	"github.com/fathom-trace/fathom/probe"
	"github.com/fathom-trace/fathom/usersym"
)

// patient is set in a process whose socket is to be judged: what is wrong with it, and the device.
const patient = "FATHOM_XSK_PATIENT"

// nap is how long the one that sleeps does.
const nap = 300 * time.Millisecond

// sicken receives datagrams to port 4096 on NAME@NETNS, and does something wrong.
func sicken(what string) error {
	how, at, _ := strings.Cut(what, " ")
	name, ns, _ := strings.Cut(at, "@")
	dev := xsk.Device{Name: name, NetNS: ns}
	frames := 4096
	if how == "starves" {
		frames = 64
	}
	u, err := xsk.NewUMEM(xsk.Memory{Frames: frames})
	if err != nil {
		return err
	}
	q, err := u.Open(dev, 0, xsk.Options{Wait: xsk.Spin})
	if err != nil {
		return err
	}
	rule, err := steer.Flow{Proto: "udp", DstPort: steer.Ports{First: 4096}}.Rule(steer.ToSocket)
	if err != nil {
		return err
	}
	p, err := steer.Attach(dev, []steer.Rule{rule}, steer.Options{})
	if err != nil {
		return err
	}
	if err := p.Add(q); err != nil {
		return err
	}
	if _, err := q.Prepare(); err != nil { // frames go to the fill ring
		return err
	}
	fmt.Println("ready")
	var got [256]xsk.Frame
	for {
		switch how {
		case "ignores":
			time.Sleep(time.Hour)
		case "sleeps":
			time.Sleep(nap)
		case "starves":
			time.Sleep(time.Millisecond)
		}
		for {
			n, err := q.Recv(got[:])
			if err != nil {
				return err
			}
			if n == 0 {
				break
			}
			if how != "starves" { // which keeps all that it gets
				q.Free(got[:n])
			}
		}
	}
}

// TestWhy: of a socket that nobody reads, of one whose fill ring nobody fills, and of one whose owner sleeps for a time, it is said that
// this is why packets are lost or late, and what was counted says it, too.
func TestWhy(t *testing.T) {
	ktest.Need(t, ktest.NetNS, ktest.XDP, ktest.AFXDP, ktest.BTF, ktest.RawTracepoint)
	l, err := live.Open(live.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	users := usersym.New(usersym.Options{})
	defer users.Close()
	w := probe.NewWorld(l, users, 0)
	defer w.Close()
	cpus, err := l.NumCPU()
	if err != nil {
		t.Fatal(err)
	}
	p, _, _ := pair(t)
	stop := flood(t, p)
	defer stop()
	for _, tt := range []struct {
		how, why string
		also     func(s *xskwhy.Seen) bool
	}{
		{"ignores", xskwhy.NotRead, func(s *xskwhy.Seen) bool { return s.Read() == 0 && s.Last.RX.Used() > 0 && s.Last.RX.Size == 2048 }},
		{"starves", xskwhy.NotFilled, func(s *xskwhy.Seen) bool {
			return s.Lost().NoFrame > 0 && s.Last.Fill.Used() == 0 && s.Filled() == 0 && s.Lost().Full == 0 && s.NoFrame == s.Samples
		}},
		{"sleeps", xskwhy.Sleeps, func(s *xskwhy.Seen) bool { return s.Read() > 0 && s.Unread > 10*time.Millisecond }},
	} {
		t.Run(tt.how, func(t *testing.T) {
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s vb@/proc/%d/fd/%d", patient, tt.how, os.Getpid(), p.B.FD()))
			var errs bytes.Buffer
			cmd.Stderr = &errs
			out, err := cmd.StdoutPipe()
			if err == nil {
				err = cmd.Start()
			}
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				_ = cmd.Process.Kill() // it may have ended
				_ = cmd.Wait()
			}()
			if line, _ := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
				_ = cmd.Wait()
				t.Fatalf("%q %s", line, errs.String())
			}
			judged(t, w, xskwhy.Options{CPUs: cpus, PID: cmd.Process.Pid, Device: "vb", Proc: "/proc"}, tt.why, tt.also)
		})
	}
}

// TestTaken: a socket is found by its rings, and whoever has taken a descriptor of it sees that its owner has closed it, and is in
// nobody's way then.
func TestTaken(t *testing.T) {
	_, a, _ := pair(t)
	s, err := traffic.Open(t.Context(), traffic.Config{Device: a, Queues: []int{0}, NoProgram: true})
	if err != nil {
		t.Fatal(err)
	}
	socks, unseen := held.Sockets("/proc", os.Getpid())
	if len(socks) != 1 || len(unseen) > 0 || socks[0].Gone() {
		t.Errorf("%+v, %v", socks, unseen)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	for _, k := range socks {
		if !k.Gone() {
			t.Error("that it was closed is not seen")
		}
		k.Close()
		k.Close() // as often as anybody likes
	}
	open(t, traffic.Config{Device: a, NoProgram: true, Queue: xsk.Options{RetryFor: time.Minute}})
	if socks, unseen := held.Sockets("/proc", 1<<22+1); len(socks)+len(unseen) > 0 {
		t.Errorf("of nobody: %+v, %v", socks, unseen)
	}
}

// judged watches until the verdict is as it should be: a window may begin before the first packet comes.
func judged(t *testing.T, w *probe.World, o xskwhy.Options, why string, also func(s *xskwhy.Seen) bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; {
		ctx, cancel := context.WithTimeout(t.Context(), 4*nap)
		seen, missing, err := xskwhy.Watch(ctx, w, o)
		cancel()
		if err != nil || len(seen) != 1 || len(missing) > 0 {
			t.Fatalf("%+v, missing %v: %v", seen, missing, err)
		}
		s := &seen[0]
		var text, lines bytes.Buffer
		if err := s.WriteText(&text, xskwhy.Place{NetNS: "ns1", Programs: []string{"program x"}}); err != nil {
			t.Fatal(err)
		}
		if err := s.WriteJSON(&lines, xskwhy.Place{NetNS: "ns1"}); err != nil {
			t.Fatal(err)
		}
		var j struct{ Verdict, Dev, NetNS string }
		if err := json.Unmarshal(lines.Bytes(), &j); err != nil {
			t.Fatal(err)
		}
		if fs := s.Judge(); fs[0].Why == why && fs[0].Turn != "" && j.Verdict == why && j.Dev == "vb" && strings.Contains(text.String(), fs[0].Words) && also(s) {
			if arrived := s.Redirects; len(arrived) == 0 {
				t.Errorf("no redirect was counted:\n%s", text.String())
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is not seen:\n%s%s", why, text.String(), lines.String())
		}
	}
}

// flood sends datagrams to port 4096 of the other host until stop, about one each millisecond.
func flood(t *testing.T, p *topology.Pair) (stop func()) {
	t.Helper()
	var c net.Conn
	err := p.A.Do(func() (err error) {
		c, err = net.Dial("udp", net.JoinHostPort(p.B.Addr.String(), "4096"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-end:
				return
			case <-time.After(time.Millisecond):
				_, _ = c.Write([]byte("here I am")) // refused while nobody listens
			}
		}
	}()
	return func() { close(end); <-ended; c.Close() }
}
