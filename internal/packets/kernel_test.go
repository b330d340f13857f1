package packets

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/answers/packet"
	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/internal/netns"
	"github.com/fathom-trace/fathom/lab/topology"
)

var guests = ktest.Config{Modules: []string{"veth", "udp_diag?", "tcp_diag?", "inet_diag?", "nf_tables?"}, Env: []string{"PATH=/usr/bin:/bin"}}

func TestMain(m *testing.M)  { ktest.Main(m, guests) }
func TestGuest(t *testing.T) { ktest.Guests(t, guests) }

func newPair(t testing.TB) *topology.Pair {
	t.Helper()
	p, err := topology.NewPair("va", "vb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// ref is a namespace as Options.Netns takes it.
func ref(ns netns.NS) string { return fmt.Sprintf("/proc/self/fd/%d", ns.FD()) }

// watch follows packets while do runs. It gives what was seen and by which means.
func watch(t testing.TB, o Options, do func()) (rec *packet.Recording, level string) {
	t.Helper()
	ready, stop, done := make(chan string, 1), make(chan os.Signal, 1), make(chan error, 1)
	o.Ready = func(level string, _ []string) {
		if o.Plain || o.Losses {
			ready <- level
		}
	}
	o.More = func(level string, _ []string) { ready <- level }
	o.Interrupt = stop
	go func() {
		var err error
		rec, err = Run(context.Background(), o)
		done <- err
	}()
	select {
	case level = <-ready:
	case err := <-done:
		t.Fatalf("before it was ready: %v", err)
	}
	do()
	time.Sleep(100 * time.Millisecond)
	stop <- os.Interrupt
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return rec, level
}

// send sends datagrams from a namespace to the other end's port, with a mark.
func send(t testing.TB, from netns.NS, dst string, n, size int, mark int) (last error) {
	t.Helper()
	to := netip.MustParseAddrPort(dst)
	err := from.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, mark); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO); err != nil {
			return err
		}
		for range n {
			if err := unix.Sendto(fd, make([]byte, size), 0, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != nil {
				last = err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return last
}

// flows is how many packets each flow of UDP has, by its destination.
func flows(rec *packet.Recording) map[string]uint64 {
	out := map[string]uint64{}
	for _, f := range rec.Flows {
		if f.Tuple.Proto == unix.IPPROTO_UDP {
			out[f.Tuple.Dst.String()] += f.Packets
		}
	}
	return out
}

// verdict is the first that blames someone.
func verdict(t testing.TB, rec *packet.Recording) *packet.Verdict {
	t.Helper()
	for _, v := range packet.Explain(rec) {
		if v.Class != packet.ClassDelivered {
			return v
		}
	}
	t.Fatalf("nothing was lost: %+v", flows(rec))
	return nil
}

var watched = regexp.MustCompile(`^tracepoints and (\d+) functions \(kprobe\.multi\), attached in [0-9.]+ s$`)

// TestLevels: every program loads, the level says what is used, and functions are in the path where they are watched.
func TestLevels(t *testing.T) {
	ktest.Need(t, ktest.BTF, ktest.RawTracepoint, ktest.NetNS)
	p := newPair(t)
	for _, plain := range []bool{true, false} {
		rec, level := watch(t, Options{Netns: []string{ref(p.A.NS), ref(p.B.NS)}, Filter: "udp port 9", Plain: plain}, func() { send(t, p.A.NS, "10.77.0.2:9", 3, 20, 0) })
		if diff := cmp.Diff(map[string]uint64{"10.77.0.2:9": 3}, flows(rec)); diff != "" {
			t.Errorf("%s: -want +got\n%s", level, diff)
		}
		v := verdict(t, rec)
		if !receivesUDP(v.Function) || v.Count != 3 || v.Culprit.Kind() != "socket" {
			t.Errorf("%s: %s: %+v", level, v.Cause, v)
		}
		steps := map[string]bool{}
		for _, h := range rec.Flows[0].Losses[0].Sample.Hops {
			if h.Kind == packet.Step {
				steps[h.Func] = true
			}
		}
		m := watched.FindStringSubmatch(level)
		if multi := ktest.Detect(ktest.KprobeMulti) == nil && !plain; !multi {
			if level != "tracepoints" || len(steps) > 0 {
				t.Errorf("level %q, functions %v", level, steps)
			}
			continue
		}
		if m == nil {
			t.Fatalf("level %q", level)
		}
		if n, _ := strconv.Atoi(m[1]); n < 45 {
			t.Errorf("%d functions", n)
		}
		for _, fn := range []string{"dev_hard_start_xmit", "ip_rcv", "ip_local_deliver", "__udp4_lib_rcv"} {
			if !steps[fn] && !steps[packet.CompiledInto(fn)] {
				t.Errorf("%s is not among the functions seen: %v", fn, steps)
			}
		}
	}
}

// receivesUDP says if a function is that which takes UDP from IP, as a kernel has it (net/ipv4/udp.c).
func receivesUDP(fn string) bool {
	return slices.Contains([]string{"__udp4_lib_rcv", "udp4_lib_rcv", "udp_rcv"}, fn)
}

// TestFilters: each word lets those packets through that it names, and no others.
func TestFilters(t *testing.T) {
	ktest.Need(t, ktest.BTF, ktest.RawTracepoint, ktest.NetNS)
	p := newPair(t)
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	both := map[string]uint64{"10.77.0.2:4109": 2, "10.77.0.2:4110": 3}
	only := map[string]uint64{"10.77.0.2:4109": 2}
	for expr, want := range map[string]map[string]uint64{
		"udp":                                    both,
		"udp port 4109":                          only,
		"udp and mark 77":                        only,
		"udp and skb.mark == 77":                 only,
		"udp and skb.mark & 64":                  only,
		"udp and skb.mark < 70 and skb.mark > 0": {"10.77.0.2:4110": 3},
		"udp and skb.dev.mtu == 1500 and skb.len > 40":     both,
		"udp and skb.dev.mtu < 1500":                       {},
		"dev va and udp":                                   both,
		"dev lo and udp":                                   {},
		"udp and pid " + strconv.Itoa(os.Getpid()):         both,
		"udp and pid 4194303":                              {},
		"udp and comm " + string(comm[:len(comm)-1]):       both,
		"udp and comm nobody":                              {},
		"netns " + ref(p.A.NS) + " and udp":                both,
		"udp dst port 4109 and netns " + ref(p.B.NS):       only,
		"netns " + ref(p.A.NS) + " and mark 77 and dev va": only,
	} {
		if ktest.InGuest() && len(want) == 0 {
			continue // emulated, each start takes seconds; those with packets show the same there
		}
		t.Run(strings.ReplaceAll(expr, "/", "|"), func(t *testing.T) { // a slash would begin another test below it
			o := Options{Plain: true}
			if o.Filter, err = o.Split(expr); err != nil {
				t.Fatal(err)
			}
			if len(o.Netns) == 0 { // others have packets too
				o.Filter = "(" + o.Filter + ") and net 10.77.0.0/24 and portrange 4109-4110"
			}
			rec, _ := watch(t, o, func() {
				send(t, p.A.NS, "10.77.0.2:4109", 2, 20, 77)
				send(t, p.A.NS, "10.77.0.2:4110", 3, 20, 5)
			})
			if diff := cmp.Diff(want, flows(rec)); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// TestRefused: calls that fail are told with the address.
func TestRefused(t *testing.T) {
	ktest.Need(t, ktest.BTF, ktest.RawTracepoint, ktest.NetNS)
	p := newPair(t)
	rec, _ := watch(t, Options{Netns: []string{ref(p.A.NS)}, Filter: "udp", Plain: true}, func() {
		if err := send(t, p.A.NS, "203.0.113.9:5", 2, 20, 0); err != unix.ENETUNREACH {
			t.Errorf("no route: %v", err)
		}
		if err := send(t, p.A.NS, "10.77.0.2:6", 3, 3000, 0); err != unix.EMSGSIZE {
			t.Errorf("too long: %v", err)
		}
	})
	type row struct {
		Flow, Errno, Kind string
		Count             uint64
	}
	got := map[row]bool{}
	for _, v := range packet.Explain(rec) {
		got[row{v.Flow, v.Errno, v.Culprit.Kind(), v.Count}] = true
	}
	for _, want := range []row{{"udp 203.0.113.9:5", "ENETUNREACH", "route", 2}, {"udp 10.77.0.2:6", "EMSGSIZE", "link", 3}} {
		if !got[want] {
			t.Errorf("%v is not among %v", want, got)
		}
	}
}

// TestXDPError: a program of XDP that fails is told with its number, device and action.
func TestXDPError(t *testing.T) {
	ktest.Need(t, ktest.BTF, ktest.RawTracepoint, ktest.NetNS, ktest.XDP)
	p := newPair(t)
	send(t, p.A.NS, "10.77.0.2:9", 1, 20, 0) // finds the neighbour while it can
	const aborted = 0                        // XDP_ABORTED
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, aborted), asm.Return()}})
	if err != nil {
		t.Fatal(err)
	}
	defer prog.Close()
	if err := p.B.NS.Do(func() error {
		dev, err := net.InterfaceByName("vb")
		if err != nil {
			return err
		}
		l, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: dev.Index, Flags: link.XDPGenericMode})
		if err == nil {
			t.Cleanup(func() { l.Close() })
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	rec, _ := watch(t, Options{Netns: []string{ref(p.A.NS), ref(p.B.NS)}, Filter: "udp", Plain: true}, func() { send(t, p.A.NS, "10.77.0.2:9", 4, 20, 0) })
	info, err := prog.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	var told uint64
	for _, x := range rec.Troubles {
		if x.Arg == uint64(id) && x.Dev == "vb" && x.Reason == aborted {
			told += x.Count
		}
	}
	if v := verdict(t, rec); told < 4 || v.Culprit.Kind() != "xdp" || v.Count != 4 {
		t.Errorf("%d errors of program %d; %+v", told, id, v)
	}
}

// TestKilled: nothing stays in the kernel when the process that follows is killed. In a guest the check at the end of all
// tests sees programs and links of anybody.
func TestKilled(t *testing.T) {
	ktest.NeedGuest(t, ktest.BTF, ktest.RawTracepoint)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run", "^TestFollowForever$", "-test.v")
	cmd.Env = append(os.Environ(), envForever+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	sc := bufio.NewScanner(out)
	for sc.Scan() && !strings.Contains(sc.Text(), "ready:") {
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
}

// envForever makes TestFollowForever do what its name says.
const envForever = "FATHOM_TEST_FOREVER"

func TestFollowForever(t *testing.T) {
	if os.Getenv(envForever) == "" {
		t.Skip("TestKilled runs it")
	}
	o := Options{Filter: "udp port 9", Ready: func(level string, _ []string) { fmt.Println("ready:", level) }}
	if _, err := Run(context.Background(), o); err != nil {
		t.Fatal(err)
	}
}

// TestFlood: of more packets than there is room for, all that was seen is right, and what was not is a number.
func TestFlood(t *testing.T) {
	ktest.Need(t, ktest.BTF, ktest.RawTracepoint, ktest.NetNS)
	p := newPair(t)
	n := 50_000 // lab/fault has a greater one
	if ktest.InGuest() {
		n = 20_000
	}
	rec, _ := watch(t, Options{Netns: []string{ref(p.A.NS), ref(p.B.NS)}, Filter: "udp dst port 9 and not icmp", Plain: true}, func() { send(t, p.A.NS, "10.77.0.2:9", n, 20, 0) })
	got := flows(rec)["10.77.0.2:9"]
	t.Logf("%d of %d packets, %d events not seen", got, n, rec.LostRing)
	if got > uint64(n) || rec.LostRing == 0 && got != uint64(n) {
		t.Errorf("%d packets of %d, and %d events lost", got, n, rec.LostRing)
	}
	v := verdict(t, rec)
	if !receivesUDP(v.Function) || v.Culprit.Kind() != "socket" || v.Count+v.Delivered+v.Unknown != v.Sent {
		t.Errorf("%+v", v)
	}
}

// BenchmarkOpen is the time from start to readiness and to the end again.
func BenchmarkOpen(b *testing.B) {
	ktest.Need(b, ktest.BTF, ktest.RawTracepoint)
	for b.Loop() {
		watch(b, Options{Filter: "udp port 9"}, func() {})
	}
}
