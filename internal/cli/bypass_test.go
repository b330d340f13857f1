package cli

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/bypass/compare"
	"github.com/fathom-trace/fathom/bypass/steer"
	"github.com/fathom-trace/fathom/bypass/traffic"
	"github.com/fathom-trace/fathom/bypass/xsk"
	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/lab/topology"
)

// addressed makes the request's network: veth1, 10.0.0.1, 00:00:00:00:00:01, and veth2, 10.0.0.2, 00:00:00:00:00:02.
func addressed(t *testing.T) *topology.Pair {
	t.Helper()
	ktest.Need(t, ktest.NetNS, ktest.XDP, ktest.AFXDP)
	p, err := topology.Join(topology.Config{A: topology.End{Dev: "veth1", Addr: netip.MustParsePrefix("10.0.0.1/24")}, B: topology.End{Dev: "veth2", Addr: netip.MustParsePrefix("10.0.0.2/24")}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	for i, h := range []topology.Host{p.A, p.B} {
		if err := h.Do(func() error {
			nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
			if err != nil {
				return err
			}
			defer nl.Close()
			l, err := nl.LinkByName(h.Dev)
			if err != nil {
				return err
			}
			return nl.LinkSetHardwareAddr(l, net.HardwareAddr{0, 0, 0, 0, 0, byte(1 + i)})
		}); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// output runs a command line and gives what it wrote to a file that stands for the standard output.
func output(t *testing.T, args ...string) (code int, out string) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c := root()
	c.SetOut(f)
	c.SetArgs(args)
	c.SilenceErrors, c.SilenceUsage = true, true
	err = execute(t.Context(), c, args)
	if err != nil {
		t.Log(err)
	}
	b, rerr := os.ReadFile(f.Name())
	if rerr != nil {
		t.Fatal(rerr)
	}
	return report(os.Stderr, err, ""), string(b)
}

// TestXdpsockLine runs the request's line, in the namespace, as it is: datagrams reach a socket of the kernel's on 10.0.0.2:4096.
func TestXdpsockLine(t *testing.T) {
	p := addressed(t)
	var c *net.UDPConn
	if err := p.B.Do(func() (err error) {
		c, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(10, 0, 0, 2), Port: 4096})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	line := strings.Fields("bypass -t -i veth1 -S -c -G 00:00:00:00:00:02 -H 00:00:00:00:00:01 -C 100 -Q")
	if err := p.A.Do(func() error {
		if code, out := output(t, line...); code != 0 || !strings.Contains(out, "tx 100 packets") {
			t.Errorf("exit code %d\n%s", code, out)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	var b [100]byte
	for i := range 100 {
		if n, from, err := c.ReadFromUDPAddrPort(b[:]); err != nil || n != 18 || from.String() != "10.0.0.1:4096" {
			t.Fatalf("datagram %d: %d bytes from %v, %v", i, n, from, err)
		}
	}
}

// TestTick: in each way every tick is answered by its order, or told to be lost.
func TestTick(t *testing.T) {
	ktest.Need(t, ktest.NetNS, ktest.XDP, ktest.AFXDP)
	const count = 40
	out, err := exec.Command(ktest.Fathom(t).Path, "bypass", "tick", "-S", "-j", "--rounds", "1", "--count", strconv.Itoa(count)).Output()
	if err != nil {
		t.Fatal(err)
	}
	var r compare.Report
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatal(err)
	}
	if r.Type != "tick" || len(r.Rows) != len(compare.TickWays()) {
		t.Fatalf("%s", out)
	}
	for _, row := range r.Rows {
		n := 0
		for _, b := range row.Hist {
			n += b.N
		}
		if len(row.Errs) > 0 || n == 0 || n+int(row.Lost) != count {
			t.Errorf("%s: %d of %d ticks, %d lost, %q", row.Way, n, count, row.Lost, row.Errs)
		}
	}
}

// TestBypassExplain: the calls come in the order in which they must be made.
func TestBypassExplain(t *testing.T) {
	p := addressed(t)
	code, out := output(t, "bypass", "explain", "-i", "veth1", "--netns", fmt.Sprintf("/proc/self/fd/%d", p.A.FD()), "-j")
	var calls []string
	for l := range strings.Lines(out) {
		var x bypassCall
		if err := json.Unmarshal([]byte(l), &x); err != nil || x.Why == "" || x.Error != "" {
			t.Errorf("%s: %v", l, err)
		}
		calls = append(calls, x.Call)
	}
	at := 0
	for _, want := range []string{"mmap(", "socket(AF_XDP", "XDP_UMEM_REG", "XDP_UMEM_FILL_RING", "XDP_UMEM_COMPLETION_RING", "XDP_RX_RING", "XDP_TX_RING", "XDP_MMAP_OFFSETS",
		"XDP_UMEM_PGOFF_FILL_RING", "XDP_UMEM_PGOFF_COMPLETION_RING", "XDP_PGOFF_RX_RING", "XDP_PGOFF_TX_RING", "bind(", "XSKMAP", "BPF_PROG_LOAD", "BPF_LINK_CREATE", "BPF_MAP_UPDATE_ELEM"} {
		for at < len(calls) && !strings.Contains(calls[at], want) {
			at++
		}
	}
	if code != 0 || at == len(calls) {
		t.Errorf("exit code %d\n%s", code, strings.Join(calls, "\n"))
	}
}

// TestBypassWhy: a socket to which nothing comes is found, judged and told with the program on its device; where there is none, that is said.
func TestBypassWhy(t *testing.T) {
	ktest.Need(t, ktest.BTF, ktest.RawTracepoint)
	p := addressed(t)
	ns := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), p.B.FD())
	if code, _ := output(t, "bypass", "why", "--pid", strconv.Itoa(os.Getpid()), "--for", "10ms"); code != exitNegative {
		t.Errorf("without a socket: exit code %d", code)
	}
	rule, err := steer.Flow{Proto: "udp", DstPort: steer.Ports{First: 4096}}.Rule(steer.ToSocket)
	if err != nil {
		t.Fatal(err)
	}
	s, err := traffic.Open(t.Context(), traffic.Config{Device: xsk.Device{Name: "veth2", NetNS: ns}, Queues: []int{0}, Rules: []steer.Rule{rule}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	args := []string{"bypass", "why", "-q", "-i", "veth2", "--netns", ns, "--pid", strconv.Itoa(os.Getpid()), "--for", "100ms"}
	code, out := output(t, append(args, "-j")...)
	var j struct {
		Type, Verdict, Dev string
		PID, Looks         int
		Rings              map[string]struct{ Used, Size int }
		XDP                []string
	}
	if err := json.Unmarshal([]byte(out), &j); err != nil || code != 0 {
		t.Fatalf("exit code %d, %v: %s", code, err, out)
	}
	if j.Type != "xsk" || j.Verdict != "nothing-comes" || j.Dev != "veth2" || j.PID != os.Getpid() || j.Looks == 0 || j.Rings["fill"].Used != 2048 || j.Rings["receive"].Size != 2048 ||
		len(j.XDP) != 1 || !strings.Contains(j.XDP[0], "fathom_steer") {
		t.Errorf("%s", out)
	}
	if code, out := output(t, args...); code != 0 || !strings.Contains(out, "veth2 in ") || !strings.Contains(out, "nothing was redirected into it on veth2") {
		t.Errorf("exit code %d\n%s", code, out)
	}
}

// TestBypassRefuses: command lines that mean nothing, and flags that a direction does not heed.
func TestBypassRefuses(t *testing.T) {
	for _, tt := range []struct{ line, want string }{
		{"bypass -t -r -i veth1", "one of -t, -r, -l"},
		{"bypass -i veth1", "one of -t, -r, -l"},
		{"bypass tx", "name a device"},
		{"bypass tx -i lo", "say where packets go"},
		{"bypass tx -i lo -S -N --to 10.0.0.2", "-S or -N"},
		{"bypass rx -i lo -c -z", "-c or -z"},
		{"bypass rx -i lo -S -z", "generic mode copies"},
		{"bypass rx -i lo -p -B", "one way to wait"},
		{"bypass rx -i lo --wait never", "no way to wait"},
		{"bypass rx -i lo -q x", "queues are"},
		{"bypass rx -i lo --all --filter udp", "--all or --filter"},
		{"bypass rx -i lo -d 3 --for 4s", "-d or --for"},
		{"bypass -r -i lo -G 00:00:00:00:00:02", "nothing of one's own is sent: --tx-dmac"},
		{"bypass -l -i lo -C 5", "-C is about tx and rx"},
		{"bypass -t -i lo --all --to 10.0.0.1", "about what is received"},
		{"bypass tx -i lo -G 1 -C 1", "address 1"},
		{"bypass rtt -i lo", "--to says who answers"},
		{"bypass rtt -i lo --to 10.0.0.2 -q all", "one queue"},
		{"bypass rtt -i lo --to 10.0.0.2 -b 3", "one packet is sent at a time"},
		{"bypass rdma --size 7", "nothing is measured without"},
		{"bypass rdma --to 10.0.0.2", "name a device"},
		{"bypass rdma -i rxe0 --to 10.0.0.2 --listen :1", "--listen or --to"},
		{"bypass rdma -i rxe0 --listen :1 --count 7", "the client's"},
		{"bypass rdma -i rxe0 --to 10.0.0.2 --size 9999999", "--size 1 to"},
		{"bypass rdma -i rxe0 --to 10.0.0.2 --wait poll", "netpoll or yield"},
		{"bypass explain -i lo -n 3", "nothing is sent or received: --interval"},
		{"bypass compare --ways sctp", `no way "sctp"`},
		{"bypass compare --cpus x", "--cpus is A,B"},
		{"bypass compare --rounds 0", "--rounds"},
		{"bypass tick --ways udp", `no way "udp"`},
		{"bypass tick --count 0", "--count"},
		{"bypass run -i lo --port 1 --backend raw -- true", `no backend "raw"`},
		{"bypass run -i lo --port 1 --backend packet -S -- true", "are of AF_XDP"},
		{"bypass prog attach x.o -i lo --at tc", "no place"},
		{"bypass prog attach x.o -i lo --mode warp", "no mode"},
		{"bypass prog attach x.o -i lo --at egress --mode native", "--mode is of XDP"},
		{"bypass prog attach x.o -i lo --pin --for 3s", "no --for"},
		{"bypass prog run x.o -i lo true false", "FILE.o, then --"},
		{"bypass prog detach -i lo --at egress --id 3", "--id is of XDP"},
	} {
		args := strings.Fields(tt.line)
		c := root()
		c.SetArgs(args)
		c.SilenceErrors, c.SilenceUsage = true, true
		err := execute(t.Context(), c, args)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.line, err, tt.want)
		}
	}
}
