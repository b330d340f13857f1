package topology_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/internal/lease"
	"github.com/fathom-trace/fathom/internal/netns"
	"github.com/fathom-trace/fathom/lab/topology"
	"github.com/fathom-trace/fathom/lab/topology/traffic"
)

// child, as environment, makes the test binary build a named pair and wait to be killed.
const child = "FATHOM_TOPOLOGY_CHILD"

var guests = ktest.Config{Modules: []string{
	"veth", "bridge", "8021q", "dummy", "tun", "sch_netem", "sch_tbf", "nf_tables", "nft_reject_inet", "nft_nat", "nft_masq", "nft_chain_nat",
}}

func TestMain(m *testing.M) {
	if step := os.Getenv(pinChild); step != "" {
		os.Exit(pinStep(step))
	}
	if dir := os.Getenv(labChild); dir != "" {
		upAndDown(dir, os.Getenv(labChild+"_PERSON"))
	}
	if dir := os.Getenv(child); dir != "" {
		if _, err := topology.Join(named(&lease.Dir{Path: dir}, os.Getppid())); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("ready")
		time.Sleep(time.Minute)
	}
	ktest.Main(m, guests)
}

func TestGuest(t *testing.T) { ktest.Guests(t, guests) }

// named is a pair in namespaces whose names hold a process number.
func named(d *lease.Dir, pid int) topology.Config {
	return topology.Config{
		A:   topology.End{Dev: "a0", Addr: netip.MustParsePrefix("192.0.2.1/30"), Name: fmt.Sprintf("fathom-a-%d", pid)},
		B:   topology.End{Dev: "b0", Addr: netip.MustParsePrefix("192.0.2.2/30"), Name: fmt.Sprintf("fathom-b-%d", pid)},
		MTU: 9000, Dir: d,
	}
}

func TestPair(t *testing.T) {
	ktest.Need(t, ktest.NetNS)
	p, err := topology.NewPair("veth0", "veth1")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for name, send := range map[string]func(context.Context, traffic.Flow) (traffic.Result, error){"UDP": traffic.UDP, "TCP": traffic.TCP} {
		r, err := send(ctx, traffic.Flow{From: p.A, To: p.B, Addr: netip.MustParseAddrPort("10.77.0.2:0"), Messages: 300, Size: 1200})
		want := traffic.Count{Messages: 300, Bytes: 360000}
		if err != nil || r.Sent != want || r.Received != want {
			t.Errorf("%s: %+v: %v", name, r, err)
		}
	}
	// What arrived came over the pair, and not by the machine's own loopback.
	_ = p.B.Do(func() error {
		b, err := os.ReadFile("/proc/thread-self/net/dev")
		if i := strings.Index(string(b), "veth1:"); i < 0 || strings.HasPrefix(strings.TrimSpace(string(b)[i+6:]), "0 ") {
			t.Errorf("%s: %v", b, err)
		}
		return err
	})
}

func TestIPv6(t *testing.T) {
	ktest.Need(t, ktest.NetNS)
	p, err := topology.Join(topology.Config{
		A: topology.End{Dev: "a0", Addr: netip.MustParsePrefix("2001:db8::1/64")},
		B: topology.End{Dev: "b0", Addr: netip.MustParsePrefix("2001:db8::2/64")},
	})
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EOPNOTSUPP) {
		t.Skip("no IPv6 here: ", err)
	} else if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	r, err := traffic.UDP(t.Context(), traffic.Flow{From: p.A, To: p.B, Addr: netip.MustParseAddrPort("[2001:db8::2]:0"), Messages: 20, Size: 100})
	if err != nil || r.Received.Messages != 20 {
		t.Errorf("%+v: %v", r, err)
	}
}

func TestNamed(t *testing.T) {
	ktest.Need(t, ktest.NetNS)
	d := lease.Dir{Path: filepath.Join(t.TempDir(), "run")}
	c := named(&d, os.Getpid())
	p, err := topology.Join(c)
	if err != nil {
		t.Fatal(err)
	}
	ns, err := netns.Open(c.A.Name)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	_ = ns.Do(func() error {
		dev, err := net.InterfaceByName("a0")
		if err != nil || dev.MTU != 9000 || dev.Flags&net.FlagUp == 0 {
			t.Errorf("%+v: %v", dev, err)
		}
		return nil
	})
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if all, err := d.List(); len(all) != 0 || err != nil {
		t.Error(all, err)
	}
	if names, _ := filepath.Glob(netns.RunDir + "/fathom-*-" + fmt.Sprint(os.Getpid())); len(names) != 0 {
		t.Error("left:", names)
	}
}

func TestRefused(t *testing.T) {
	good := topology.End{Dev: "a0", Addr: netip.MustParsePrefix("192.0.2.1/30")}
	for name, c := range map[string]topology.Config{
		"no address":         {A: topology.End{Dev: "a0"}, B: good},
		"name without lease": {A: topology.End{Dev: "a0", Addr: good.Addr, Name: "x"}, B: good},
	} {
		if _, err := topology.Join(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	ktest.Need(t, ktest.NetNS)
	bad := good
	bad.Dev = "a-name-that-is-too-long"
	if _, err := topology.Join(topology.Config{A: good, B: bad}); err == nil {
		t.Error("a long interface name is accepted") // and the leak check of TestMain sees what stays
	}
}

// TestKilled: kill -9 leaves names behind, and the next cleaning removes them and their links.
func TestKilled(t *testing.T) {
	ktest.Need(t, ktest.NetNS)
	d := lease.Dir{Path: filepath.Join(t.TempDir(), "run")}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), child+"="+d.Path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 200)
	if n, err := out.Read(line); err != nil || string(line[:n]) != "ready\n" {
		t.Errorf("%s: %v", line[:n], err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	pattern := netns.RunDir + "/fathom-*-" + fmt.Sprint(os.Getpid())
	if names, _ := filepath.Glob(pattern); len(names) != 2 {
		t.Error("before cleaning there are", names)
	}
	cleaned, err := d.Clean(map[string]lease.Cleaner{netns.Kind: netns.Clean})
	if err != nil || len(cleaned) != 2 {
		t.Error(cleaned, err)
	}
	if names, _ := filepath.Glob(pattern); len(names) != 0 {
		t.Error("left:", names)
	}
}
