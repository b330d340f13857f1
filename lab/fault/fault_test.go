package fault_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/internal/lease"
	"github.com/fathom-trace/fathom/lab/fault"
	"github.com/fathom-trace/fathom/lab/topology"
)

// envSeed makes the names that are drawn the same again; the log of a test that fails has it.
const envSeed = "FATHOM_SEED"

var guests = ktest.Config{
	Modules: []string{
		"veth", "bridge", "dummy", "8021q", "nf_tables", "nf_conntrack", "nft_ct?", "nft_limit?", "nft_reject_inet", "nft_nat", "nft_chain_nat",
		"sch_tbf", "sch_netem", "sch_ingress", "cls_matchall", "act_gact", "xfrm_user", "af_packet?",
		"inet_diag?", "udp_diag?", "tcp_diag?", "raw_diag?", "af_packet_diag?", "xsk_diag?", // as modprobe would load them
	},
	Env:     []string{"PATH=/usr/bin:/bin"},
	Timeout: 20 * time.Minute,
}

// lacking is what the kernels under test do not have, of what faults need.
var lacking = map[string][]fault.Need{"debian-6.1": {fault.TCX}}

func TestMain(m *testing.M) { ktest.Main(m, guests) }

func TestGuest(t *testing.T) {
	if os.Getenv(ktest.EnvGuests) == "" || ktest.InGuest() {
		t.Skip(ktest.EnvGuests + " is not set")
	}
	c := guests
	c.Files = append(c.Files, ktest.Fathom(t))
	ktest.Guests(t, c)
}

// fathomBinary is the command: in a guest it is there, else it is built.
func fathomBinary(t *testing.T) string {
	t.Helper()
	if ktest.InGuest() {
		return "/usr/bin/fathom"
	}
	return ktest.Fathom(t).Path
}

func release(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// seed is that of the n-th fault.
func seed(t *testing.T, n int) uint64 {
	s := uint64(time.Now().UnixNano())
	if v := os.Getenv(envSeed); v != "" {
		var err error
		if s, err = strconv.ParseUint(v, 0, 64); err != nil {
			t.Fatal(err)
		}
	} else {
		s += uint64(n)
	}
	t.Logf("%s=%d", envSeed, s)
	return s
}

// build builds a fault, or skips the test with what this kernel lacks. A kernel whose table says that it has it fails.
func build(t *testing.T, leases lease.Dir, f fault.Fault, n int) *fault.Scene {
	t.Helper()
	if f.Machine && !ktest.InGuest() {
		t.Skip("it changes a setting of the machine: runs in guests only")
	}
	s, err := f.Build(leases, seed(t, n))
	var missing *fault.MissingError
	if errors.As(err, &missing) && (!ktest.InGuest() || slices.Contains(lacking[ktest.Where()], missing.Need)) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func closeScene(t *testing.T, s *fault.Scene) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// batch is how many faults one run of fathom packet looks at. There are others on the machine then, each in namespaces of
// its own.
const batch = 28

// TestPacket: the kernel says of each fault what the answer has, and fathom packet answers the four questions about it.
func TestPacket(t *testing.T) {
	ktest.Need(t, ktest.NetNS, ktest.Tracepoint, ktest.DropReasons)
	bin, kernel, leases := fathomBinary(t), release(t), lease.Dir{Path: filepath.Join(t.TempDir(), "run")}
	var total fault.Tally
	var table strings.Builder
	tw := tabwriter.NewWriter(&table, 0, 8, 2, ' ', 0)
	run := func(t *testing.T, scenes []*fault.Scene) {
		if len(scenes) == 0 {
			return
		}
		defer func() {
			for _, s := range scenes {
				closeScene(t, s)
			}
		}()
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
		defer cancel()
		out, said, err := fault.Packet(ctx, bin, kernel, scenes)
		if err != nil {
			t.Error(err)
			return
		}
		for i, s := range scenes {
			total.Add(out[i].Score)
			fault.PrintScore(tw, out[i].Score, true)
			t.Run(s.Answer.ID, func(t *testing.T) { check(t, s, out[i], said) })
		}
	}
	var scenes []*fault.Scene
	for i, f := range fault.All() {
		t.Run("build "+f.Name, func(t *testing.T) {
			s := build(t, leases, f, i)
			if f.Machine { // alone: others would feel it
				run(t, []*fault.Scene{s})
				return
			}
			scenes = append(scenes, s)
		})
		if len(scenes) == batch {
			run(t, scenes)
			scenes = nil
		}
	}
	run(t, scenes)
	tw.Flush()
	t.Logf("\n%s%v", table.String(), total)
	if !ktest.InGuest() { // emulated, nobody sends fast enough
		t.Run("flood", func(t *testing.T) { flood(t, bin) })
	}
}

// flood: far more packets match than can be told of. Memory stays bounded, what was not seen is counted, and what was seen is
// told right.
func flood(t *testing.T, bin string) {
	p, err := topology.NewPair("va", "vb")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	sent := 0
	ns := func(fd int) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd) }
	r, err := fault.Watch(ctx, bin, []string{ns(p.A.NS.FD()), ns(p.B.NS.FD())}, []string{"--plain", "udp dst port 9 and not icmp"}, func(context.Context) error {
		return p.A.NS.Do(func() error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			for range 300_000 {
				if unix.Sendto(fd, make([]byte, 20), 0, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{10, 77, 0, 2}}) == nil { // an answer refuses some
					sent++
				}
			}
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	var end struct {
		Type     string
		Sent     int
		LostRing int `json:"lost_ring"`
	}
	if err := json.Unmarshal([]byte(r.Records[len(r.Records)-1]), &end); err != nil || end.Type != "end" {
		t.Fatal(err, r.Records[len(r.Records)-1])
	}
	t.Logf("%d sent, %d seen, %d events not; %d bytes of memory, where 60 MB are the goal", sent, end.Sent, end.LostRing, r.Memory)
	if end.Sent > sent || end.LostRing == 0 && end.Sent != sent {
		t.Errorf("%d packets seen of %d, and %d events lost", end.Sent, sent, end.LostRing)
	}
	for _, v := range r.Verdicts {
		if v.Class != "drop" || v.Culprit["kind"] != "socket" || v.Sent == nil || *v.Count+*v.Delivered+v.InFlight+v.Unknown != *v.Sent {
			t.Errorf("%+v", v.All)
		}
	}
	if len(r.Verdicts) == 0 {
		t.Error("no verdict")
	}
}

// check reports what is wrong about one fault.
func check(t *testing.T, s *fault.Scene, o fault.Outcome, said fault.Run) {
	if o.Seen.Err != nil {
		t.Error("send: ", o.Seen.Err)
	}
	for _, m := range o.Seen.Missing {
		t.Errorf("the kernel did not tell of %s; %d sent, events: %v", m, s.Answer.Sent, o.Seen.Events)
	}
	if o.Score.Points() == 4 {
		return
	}
	var own []string // records that name one of its namespaces
	for _, r := range said.Records {
		for _, ns := range s.Namespaces() {
			if strings.Contains(r, ns) {
				own = append(own, r)
				break
			}
		}
	}
	if n := len(said.Records); n > 0 {
		own = append(own, said.Records[n-1]) // what was not seen
	}
	t.Errorf("%s\n%s\n%s", strings.Join(o.Score.Why, "\n"), strings.Join(own, "\n"), said.Stderr)
}
