package promises

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// asked is fathom on several hosts, while it runs.
type asked struct {
	cmd    *exec.Cmd
	out    *bufio.Reader
	stderr bytes.Buffer
}

// ask starts fathom on hosts.
func (h *hosts) ask(t *testing.T, args ...string) *asked {
	t.Helper()
	a := &asked{cmd: h.command(t, args...)}
	stdout, err := a.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	a.out = bufio.NewReader(stdout)
	a.cmd.Stderr = &a.stderr
	if err := start(t, a.cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // it has ended, unless the test failed
		a.cmd.Process.Kill()
		a.cmd.Wait()
	})
	return a
}

// until reads lines until n of them have a text, and gives those.
func (a *asked) until(t *testing.T, n int, text string) (lines []string) {
	t.Helper()
	for len(lines) < n {
		l, err := a.out.ReadString('\n')
		if err != nil {
			a.cmd.Wait()
			t.Fatalf("%d of %d lines with %s, then %v\n%s", len(lines), n, text, err, a.stderr.String())
		}
		if strings.Contains(l, text) {
			lines = append(lines, l)
		}
	}
	return lines
}

// interrupt is Ctrl-C. It gives the rest of what fathom says, and its exit code.
func (a *asked) interrupt(t *testing.T) (string, int) {
	t.Helper()
	if err := a.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatalf("%v\n%s", err, a.stderr.String())
	}
	rest, err := io.ReadAll(a.out)
	if err != nil {
		t.Fatal(err)
	}
	a.cmd.Wait()
	return string(rest), a.cmd.ProcessState.ExitCode()
}

// lossRecord is what packet drops --host -j says, as far as it is looked at.
type lossRecord struct {
	Type, Class, Host string
	Count, Dropped    uint64
	Time              time.Time
	TimeError         int64   `json:"time_error_ns"`
	LostRing          *uint64 `json:"lost_ring"`
	Missed, Unkept    *uint64
	Untold            int
}

// TestHostsDrops: what three hosts lose is one table, counted as their rules do; a host that is cut off is missing and named.
func TestHostsDrops(t *testing.T) {
	h := newHosts(t, fmt.Sprintf(line, ""), "a", "b", "c")
	h.rule(t, "a", "output", "udp dport 9000 ip id 1-10 drop")
	h.rule(t, "b", "forward", "udp dport 9000 ip id 11-30 drop")
	h.rule(t, "c", "input", "udp dport 9000 ip id 31-35 drop")
	const n, lost = 100, 35
	receive, got := h.receiver(t), map[int]bool{}
	send := func() {
		t.Helper()
		clear(got)
		h.send(t, n)
		wait(t, "all packets have arrived or are lost", func() bool { receive(got); return len(got) == n-lost })
	}
	drops := func(args ...string) *asked {
		t.Helper()
		return h.ask(t, append([]string{"packet", "drops", "--host", "a,b,c", "--netns", "/proc/self/ns/net", "--within"}, append(args, "udp dst port 9000")...)...)
	}
	t.Run("json", func(t *testing.T) {
		a := drops("-j", "-v")
		for _, l := range a.until(t, 3, `"ready"`) {
			if !strings.Contains(l, `"host":`) {
				t.Errorf("no host: %s", l)
			}
		}
		begun := time.Now().UnixNano()
		send()
		said, code := a.interrupt(t)
		if code != 0 {
			t.Errorf("exit code %d\n%s", code, a.stderr.String())
		}
		verdicts, sums, missed, last := map[string]uint64{}, map[string]uint64{}, map[string]uint64{}, lossRecord{}
		for l := range strings.Lines(said) {
			var r lossRecord
			if err := json.Unmarshal([]byte(l), &r); err != nil {
				t.Fatalf("%s: %v", l, err)
			}
			if r.Host == "" && r.Type != "end" {
				t.Errorf("no host: %s", l)
			}
			switch r.Type {
			case "verdict":
				verdicts[r.Host] += r.Count
				if r.TimeError <= 0 || r.Time.UnixNano() < begun-r.TimeError || r.Time.UnixNano() > time.Now().UnixNano()+r.TimeError || r.Class != "drop" {
					t.Errorf("sent after %d: %s", begun, l)
				}
			case "host":
				sums[r.Host] = r.Dropped
				if r.TimeError <= 0 {
					t.Errorf("no error of the clock: %s", l)
				}
			case "end":
				last = r
			}
			if r.Type != "host" && r.Type != "end" {
				continue
			}
			if r.LostRing == nil || *r.LostRing != 0 || r.Unkept == nil || *r.Unkept != 0 || r.Missed == nil {
				t.Fatalf("its own losses are not told, or not none: %s", l)
			}
			missed[r.Host] = *r.Missed
		}
		for host, want := range map[string]uint64{"a": 10, "b": 20, "c": 5} {
			// A program that was interrupted by what it watches misses that, and it is told: of those some may be ours.
			if got := sums[host]; got > want || got+missed[host] < want || verdicts[host] != got {
				t.Errorf("%s lost %d, %d are told, %d in verdicts; %d were not seen\n%s", host, want, got, verdicts[host], missed[host], said)
			}
		}
		if last.Dropped != sums["a"]+sums["b"]+sums["c"] || last.Untold != 0 {
			t.Errorf("%d of all hosts, %v of each", last.Dropped, sums)
		}
	})
	t.Run("cut", func(t *testing.T) {
		a := drops("--color", "never")
		var mu sync.Mutex
		var said strings.Builder
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for {
				l, err := a.out.ReadString('\n')
				if err != nil {
					return
				}
				mu.Lock()
				said.WriteString(l)
				mu.Unlock()
			}
		}()
		has := func(text string) bool {
			mu.Lock()
			defer mu.Unlock()
			return strings.Contains(said.String(), text)
		}
		wait(t, "each host says the first of its losses", func() bool {
			send()
			return has("a: LOST  udp 10.91.1.1") && has("b: LOST  udp 10.91.1.1") && has("c: LOST  udp 10.91.1.1")
		})
		for _, pid := range childrenOf(t, h.sshd["b"].Process.Pid) {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
		h.nothingLeft(t, "b")
		if err := a.cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		<-ended
		a.cmd.Wait()
		text := said.String()
		t.Logf("what was said:\n%s", text)
		for _, part := range []string{"count  host  first", "  a     ", "  c     ", "a: ", " lost; not seen: 0 events found the ring full", "its clock is known within", "b: what it lost is not known"} {
			if !strings.Contains(text, part) {
				t.Errorf("no %q in\n%s", part, text)
			}
		}
		if a.cmd.ProcessState.ExitCode() == 0 || !strings.Contains(a.stderr.String(), "run on 1 of 3 hosts") {
			t.Errorf("exit code %d\n%s", a.cmd.ProcessState.ExitCode(), a.stderr.String())
		}
	})
	t.Run("packets and cut", func(t *testing.T) {
		a := h.ask(t, "packet", "--host", "a,b,c", "--netns", "/proc/self/ns/net", "--within", "-j", "udp dst port 9000")
		a.until(t, 3, `"ready"`)
		send()
		for _, pid := range childrenOf(t, h.sshd["c"].Process.Pid) {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
		h.nothingLeft(t, "c")
		said, code := a.interrupt(t)
		if code == 0 || !strings.Contains(a.stderr.String(), "run on 1 of 3 hosts") {
			t.Errorf("exit code %d\n%s", code, a.stderr.String())
		}
		for _, part := range []string{`"untold":1`, `"host":"c"`, "or that ended before it told", "udp dport 9000 ip id 1-10 drop", "udp dport 9000 ip id 11-30 drop"} {
			if !strings.Contains(said, part) {
				t.Errorf("no %s in\n%s", part, said)
			}
		}
	})
	for _, node := range []string{"a", "b", "c"} {
		h.nothingLeft(t, node)
	}
}
