package promises

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/internal/netns"
	"github.com/fathom-trace/fathom/internal/remote"
	"github.com/fathom-trace/fathom/lab/topology/traffic"
)

// line is three hosts in a row, the one in the middle a router.
const line = `
host a { route default via 10.91.1.2 }
router b { %s }
host c { route default via 10.91.2.1 }
a:10.91.1.1/24{dev=ab} -- b:10.91.1.2/24{dev=ba}
b:10.91.2.1/24{dev=bc} -- c:10.91.2.2/24{dev=cb}
`

// TestHosts follows packets through three hosts by ssh, which lose some of them at known places.
func TestHosts(t *testing.T) {
	for _, c := range []struct{ name, router string }{{"routed", ""}, {"NAT", "nft postrouting oif bc snat 10.91.2.1"}} {
		t.Run(c.name, func(t *testing.T) {
			h := newHosts(t, fmt.Sprintf(line, c.router), "a", "b", "c")
			n := 3000
			if ktest.Soak() {
				n = 100_000
			}
			sent := h.flood(t, n)
			sent.check(t)
			for _, node := range []string{"a", "b", "c"} {
				h.nothingLeft(t, node)
			}
		})
	}
}

// flood is numbered packets from a to c, and what fathom said of them.
type flood struct {
	n        int
	arrived  map[int]bool
	out, err string
}

// perPort is how many packets have the same addresses and ports: numbers of IPv4 have 16 bits.
const perPort = 2500

const firstPort = 4000

// Where packets are lost, by their number of IPv4: a and c lose known ones, b others by chance, which a counter tells.
const (
	lostAtA = 77
	lostAtC = 233
	every   = 500
)

func ipID(i int) int { return i%perPort + 1 }

func lostAt(i, where int) bool { return ipID(i)%every == where }

func (h *hosts) rule(t *testing.T, node, hook, rule string) {
	t.Helper()
	file := h.write(t, "rules-"+node, fmt.Sprintf("table ip lossy {\n chain %s {\n  type filter hook %[1]s priority 0\n  %s\n }\n}\n", hook, rule), 0o600)
	do(t, "nsenter", "--net="+h.netns(t, node), "nft", "-f", file)
}

// flood sends packets and has fathom follow them.
func (h *hosts) flood(t *testing.T, n int) *flood {
	t.Helper()
	h.rule(t, "a", "output", fmt.Sprintf("udp dport 9000 ip id %s drop", ids(lostAtA)))
	h.rule(t, "c", "input", fmt.Sprintf("udp dport 9000 ip id %s drop", ids(lostAtC)))
	h.rule(t, "b", "forward", fmt.Sprintf("udp dport 9000 ip id != %s numgen random mod 1000 < 6 counter drop", ids(lostAtC)))
	f := &flood{n: n, arrived: map[int]bool{}}
	receive := h.receiver(t)
	a := h.ask(t, "packet", "--host", "a,b,c", "--netns", "/proc/self/ns/net", "--within", "--plain", "-j", "-v", "udp dst port 9000")
	a.until(t, 3, `"ready"`)
	h.send(t, n)
	known := 0
	for i := range n {
		if lostAt(i, lostAtA) || lostAt(i, lostAtC) {
			known++
		}
	}
	wait(t, "all packets have arrived or are lost", func() bool {
		receive(f.arrived)
		return len(f.arrived)+known+h.lostByChance(t) >= n
	})
	var code int
	if f.out, code = a.interrupt(t); code != 0 {
		t.Fatalf("fathom: exit code %d\n%s", code, a.stderr.String())
	}
	f.err = a.stderr.String()
	return f
}

// ids writes the numbers that are lost at a place as a set of nft.
func ids(where int) string {
	var list []string
	for i := range perPort {
		if lostAt(i, where) {
			list = append(list, strconv.Itoa(ipID(i)))
		}
	}
	return "{ " + strings.Join(list, ", ") + " }"
}

var counted = regexp.MustCompile(`counter packets (\d+)`)

// lostByChance is how many packets b has lost: of those that c would not.
func (h *hosts) lostByChance(t *testing.T) int {
	t.Helper()
	m := counted.FindStringSubmatch(do(t, "nsenter", "--net="+h.netns(t, "b"), "nft", "list", "table", "ip", "lossy"))
	if m == nil {
		t.Fatal("b's rule has no counter")
	}
	n, _ := strconv.Atoi(m[1])
	return n
}

// send sends numbered packets: some thousands a second, so that what reads of them keeps up.
func (h *hosts) send(t *testing.T, n int) {
	t.Helper()
	err := h.in(t, "a").Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for i := range n {
			payload := binary.BigEndian.AppendUint32(nil, uint32(i))
			frame := traffic.Frame{Dst: make([]byte, 6), Src: make([]byte, 6), From: addr("10.91.1.1", firstPort+i/perPort), To: addr("10.91.2.2", 9000), Proto: unix.IPPROTO_UDP,
				ID: uint16(ipID(i)), Payload: append(payload, "a payload of some length"...)}.Bytes()
			err := unix.Sendto(fd, frame[14:], 0, &unix.SockaddrInet4{Addr: [4]byte{10, 91, 2, 2}})
			if err != nil && !errors.Is(err, unix.EPERM) { // a's own rule has it
				return fmt.Errorf("packet %d: %w", i, err)
			}
			if i%50 == 49 {
				time.Sleep(30 * time.Millisecond)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func addr(ip string, port int) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(ip), uint16(port))
}

func (h *hosts) in(t *testing.T, node string) netns.NS {
	t.Helper()
	ns, ok := h.net.NS(node)
	if !ok {
		t.Fatalf("no node %s", node)
	}
	return ns
}

// receiver opens c's socket. The function it gives notes what has arrived since.
func (h *hosts) receiver(t *testing.T) func(map[int]bool) {
	t.Helper()
	fd := -1
	err := h.in(t, "c").Do(func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 256<<20); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrInet4{Port: 9000})
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return func(got map[int]bool) {
		b := make([]byte, 2048)
		for {
			n, err := unix.Read(fd, b)
			if err != nil || n < 4 {
				return
			}
			got[int(binary.BigEndian.Uint32(b))] = true
		}
	}
}

// packetRecord is a "packet" of fathom packet --host -j -v, and the other records as far as they are looked at.
type packetRecord struct {
	Type, Class, Host, Function, Reason string
	Legs                                []struct {
		Host, Flow string
		IPID       int `json:"ip_id"`
	}
	Way       []string
	Count     uint64
	Ambiguous uint64
	LostRing  uint64 `json:"lost_ring"`
	Culprit   map[string]any
}

var udpFlow = regexp.MustCompile(`^udp (\S+):(\d+) > (\S+):(\d+)$`)

// number gives which packet a leg is, by its port and its number of IPv4, which no router changes here.
func (p *packetRecord) number(leg int) int {
	m := udpFlow.FindStringSubmatch(p.Legs[leg].Flow)
	if m == nil {
		return -1
	}
	port, _ := strconv.Atoi(m[2])
	return (port-firstPort)*perPort + p.Legs[leg].IPID - 1
}

// check holds what was said to what happened.
func (f *flood) check(t *testing.T) {
	t.Helper()
	seen := map[int]bool{}
	var right, wrong, misplaced, shouldJoin int
	var end packetRecord
	blamed := map[string]uint64{}
	for _, l := range strings.Split(strings.TrimSpace(f.out), "\n") {
		var p packetRecord
		if err := json.Unmarshal([]byte(l), &p); err != nil {
			t.Fatalf("%s: %v", l, err)
		}
		switch p.Type {
		case "end":
			end = p
		case "verdict":
			if p.Class == "drop" && p.Culprit["kind"] == "nft" {
				blamed[p.Host] += p.Count
			}
		case "packet":
			i := p.number(0)
			if i < 0 || i >= f.n || seen[i] && p.Legs[0].Host == "a" {
				t.Errorf("packet %d is told twice, or is none: %s", i, l)
				continue
			}
			seen[i] = true
			way, last := f.way(i)
			for k := range p.Legs {
				if p.number(k) != i {
					wrong++
					t.Errorf("joined wrong: %s", l)
				}
			}
			var got []string
			for _, leg := range p.Legs {
				got = append(got, leg.Host)
			}
			ok := slices.Equal(got, way)
			lost := !f.arrived[i]
			if lost && (!ok || p.Class != "drop" || p.Host != last || p.Function != "nft_do_chain") {
				misplaced++
				t.Errorf("lost at %s, not placed there: %s", last, l)
			}
			if len(way) > 1 {
				shouldJoin++
				if ok {
					right++
				}
			}
		}
	}
	t.Logf("%d packets, %d arrived; of %d to be joined %d were, %d wrong; %d lost ones misplaced; rules blamed: %v\n%s",
		f.n, len(f.arrived), shouldJoin, right, wrong, misplaced, blamed, f.err)
	if len(seen) < f.n {
		t.Logf("what was said ends with\n%s", f.out[max(0, len(f.out)-4000):])
	}
	if end.Type == "" || end.LostRing > 0 {
		t.Errorf("%d events found the ring full", end.LostRing)
	}
	if float64(right) < 0.999*float64(shouldJoin) || len(seen) < f.n {
		t.Errorf("%d of %d packets were told, %d of %d joined right", len(seen), f.n, right, shouldJoin)
	}
	var blame uint64
	for _, n := range blamed {
		blame += n
	}
	if lost := f.n - len(f.arrived); blame != uint64(lost) || lost == 0 {
		t.Errorf("%d packets were lost, rules are blamed for %v", lost, blamed)
	}
}

// way is through which hosts a packet went, and where it ended.
func (f *flood) way(i int) (way []string, last string) {
	switch {
	case lostAt(i, lostAtA):
		return []string{"a"}, "a"
	case f.arrived[i] || lostAt(i, lostAtC):
		return []string{"a", "b", "c"}, "c"
	}
	return []string{"a", "b"}, "b"
}

// TestHostsKilled: nothing is left on hosts when whoever asked is killed, nor when a connection is cut.
func TestHostsKilled(t *testing.T) {
	h := newHosts(t, fmt.Sprintf(line, ""), "a", "b")
	for _, c := range []struct {
		name string
		end  func(t *testing.T, local *os.Process)
	}{
		{"fathom", func(t *testing.T, local *os.Process) {
			if err := local.Kill(); err != nil {
				t.Fatal(err)
			}
		}},
		{"connection", func(t *testing.T, local *os.Process) {
			for _, n := range []string{"a", "b"} {
				for _, pid := range childrenOf(t, h.sshd[n].Process.Pid) {
					if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
						t.Fatal(err)
					}
				}
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := h.command(t, "trace", "--host", "a,b", "-j", "-e", `BEGIN { printf("here\n"); } tracepoint:raw_syscalls:sys_enter { @[pid] = count(); }`)
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := start(t, cmd); err != nil {
				t.Fatal(err)
			}
			defer cmd.Wait()
			defer cmd.Process.Kill()
			out := bufio.NewReader(stdout)
			for here := 0; here < 2; {
				l, err := out.ReadString('\n')
				if err != nil {
					t.Fatal(err)
				}
				if strings.Contains(l, "here") {
					here++
				}
			}
			programs := map[ebpf.ProgramID]bool{}
			for _, n := range []string{"a", "b"} {
				for _, pid := range h.far(t, n) {
					for _, id := range programsOf(pid) {
						programs[id] = true
					}
				}
			}
			if len(programs) < 2 {
				t.Fatalf("only %d BPF programs are loaded on two hosts", len(programs))
			}
			c.end(t, cmd.Process)
			for _, n := range []string{"a", "b"} {
				h.nothingLeft(t, n)
			}
			wait(t, "its BPF programs are gone", func() bool { return !loaded(programs) })
		})
	}
	t.Run("agent", func(t *testing.T) { h.agentKilled(t) })
}

// agentKilled kills what runs on hosts that record: the folders that they record into go with the next start there.
func (h *hosts) agentKilled(t *testing.T) {
	cmd := h.command(t, "record", "--host", "a,b", "-q", "-e", "sched:sched_process_exit", "-o", filepath.Join(t.TempDir(), "here"))
	if err := start(t, cmd); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	for _, n := range []string{"a", "b"} {
		recording := func() bool {
			there, err := filepath.Glob(filepath.Join(h.tmp(n), "fathom-*", "out", "*"))
			return err == nil && len(there) > 0
		}
		wait(t, "it records on "+n, recording)
		for _, pid := range h.far(t, n) {
			if args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && bytes.Contains(args, []byte("fathom\x00"+remote.FarArg+"\x00")) {
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
		}
		wait(t, "no process on "+n, func() bool { return len(h.far(t, n)) == 0 })
		if !recording() {
			t.Errorf("nothing was left on %s: what is tested?", n)
		}
	}
	do(t, fathom(t), "doctor", "--clean")
	for _, n := range []string{"a", "b"} {
		h.nothingLeft(t, n)
	}
}

// TestHostsVerbs asks two hosts by each of the other verbs: one answer, from both, and nothing is left there.
func TestHostsVerbs(t *testing.T) {
	h := newHosts(t, fmt.Sprintf(line, ""), "a", "b")
	late := false // what a machine that has too much to do tells too late is not in order, and it says so
	records := func(args ...string) (out []map[string]any) {
		t.Helper()
		r := run(t, h.command(t, args...))
		if r.code != 0 {
			t.Fatalf("fathom %v: exit code %d\n%s%s", args, r.code, r.stdout, r.stderr)
		}
		late = strings.Contains(r.stderr, " late: ")
		for l := range strings.Lines(r.stdout) {
			var rec map[string]any
			if err := json.Unmarshal([]byte(l), &rec); err != nil {
				t.Fatalf("%s: %v", l, err)
			}
			out = append(out, rec)
		}
		return out
	}
	t.Run("trace", func(t *testing.T) {
		said, last, sum := map[any]int{}, time.Time{}, any(nil)
		for _, r := range records("trace", "--host", "a,b", "-j", "-e", `BEGIN { @n = count(); @v = 3; } interval:ms:50 { printf("%d\n", @v); if (@v == 0) { exit(); } @v--; }`) {
			if r["type"] == "printf" {
				said[r["host"]]++
				told, _ := r["time"].(string)
				at, err := time.Parse(time.RFC3339Nano, told)
				if err != nil {
					t.Errorf("no time of day: %v", r)
				}
				if at.Before(last) && !late {
					t.Errorf("%v comes after what was said at %v", r, last)
				}
				last = at
			}
			if data, ok := r["data"].(map[string]any); ok && r["type"] == "map" && data["@n"] != nil {
				if sum != nil || r["host"] != nil {
					t.Errorf("the counts are not one: %v", r)
				}
				sum = data["@n"]
			}
		}
		if said["a"] != 4 || said["b"] != 4 || sum != 2.0 {
			t.Errorf("hosts said %v, and counted %v", said, sum)
		}
	})
	t.Run("rank", func(t *testing.T) {
		hits := map[any]float64{}
		for _, r := range records("rank", "--host", "a,b", "-j", "raw_syscalls:sys_enter", "--by", "host,comm", "--if", `comm == "uname"`, "--", "uname") {
			if keys, ok := r["keys"].(map[string]any); ok {
				hits[keys["host"]] += r["hits"].(float64)
			}
		}
		if hits["a"] == 0 || hits["b"] == 0 {
			t.Errorf("system calls by host: %v", hits)
		}
	})
	t.Run("record", func(t *testing.T) {
		dir := h.dir + "/recorded"
		events := 0.0
		for _, r := range records("record", "--host", "a,b", "-j", "-e", "raw_syscalls:sys_enter", "-F", "-o", dir, "--", "uname") {
			if r["type"] == "recording" {
				events += r["events"].(float64)
			}
		}
		n := 0
		for l := range strings.Lines(do(t, fathom(t), "view", "-j", dir)) {
			if strings.Contains(l, "sys_enter") {
				n++
			}
		}
		if n == 0 || float64(n) != events {
			t.Errorf("%v events were recorded on two hosts, %d are shown", events, n)
		}
	})
	for _, node := range []string{"a", "b"} {
		h.nothingLeft(t, node)
	}
}
