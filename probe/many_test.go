package probe_test

import (
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/internal/script"
	"github.com/fathom-trace/fathom/ir/build"
	"github.com/fathom-trace/fathom/kernel/live"
	"github.com/fathom-trace/fathom/lang/check"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/probe"
	"github.com/fathom-trace/fathom/usersym"
)

var guests = ktest.Config{Kernels: ktest.EveryGuest()}

func TestMain(m *testing.M)  { ktest.Main(m, guests) }
func TestGuest(t *testing.T) { ktest.Guests(t, guests) }

// TestManyKprobes attaches to more than a thousand functions: in one call where the kernel has kprobe.multi. How long it
// takes, beside the bare call, is logged.
func TestManyKprobes(t *testing.T) {
	ktest.Need(t, ktest.Kprobe, ktest.Ringbuf, ktest.BTF)
	l, err := live.Open(live.Options{})
	if err != nil {
		t.Fatal(err)
	}
	users := usersym.New(usersym.Options{})
	defer users.Close()
	w := probe.NewWorld(l, users, 0)
	defer w.Close()
	cfg := check.Config{MaxProbes: 8192}
	src, least := `kprobe:tcp_*, kprobe:ip_*, kprobe:inet_*, kprobe:nf_*, kprobe:neigh_*, kprobe:sock_*, kprobe:skb_*, kprobe:vfs_*, kprobe:dev_*, kprobe:net*, kprobe:bpf_* { @ = count(); }`, 1000
	if ktest.Detect(ktest.KprobeMulti) != nil { // one by one: each waits for grace periods
		src, least = `kprobe:tcp_v4_*, kprobe:vfs_* { @ = count(); }`, 60
	}
	c, ds := script.Compile(&syntax.Source{Name: "stdin", Text: src},
		check.Options{World: w, Config: cfg}, build.Options{NumCPU: 2})
	for _, d := range ds {
		if d.Severity == syntax.Error {
			t.Fatal(d)
		}
	}
	start := time.Now()
	s, err := probe.Load(c.Info, c.Prog, c.Obj, probe.Options{World: w, Missing: "ignore"})
	if err != nil {
		t.Fatal(err)
	}
	loaded := time.Since(start)
	start = time.Now()
	n, err := s.Attach()
	if err != nil {
		t.Fatal(err)
	}
	attached := time.Since(start)
	plans := s.Plans()
	start = time.Now()
	s.Close()
	t.Logf("%d functions: loaded in %v, attached in %v, detached in %v; %v", n, loaded, attached, time.Since(start), plans)
	if n < least {
		t.Errorf("only %d functions", n)
	}
	bare(t, c.Info.Instances[0].Targets)
}

// bare attaches an empty program to the same functions.
func bare(t *testing.T, ts []check.Target) {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.Kprobe, AttachType: ebpf.AttachTraceKprobeMulti, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}})
	if err != nil {
		return // there is none here
	}
	defer p.Close()
	var o link.KprobeMultiOptions
	for _, t := range ts {
		o.Symbols = append(o.Symbols, t.Func)
	}
	start := time.Now()
	lk, err := link.KprobeMulti(p, o)
	if err != nil {
		t.Log(err)
		return
	}
	attached := time.Since(start)
	start = time.Now()
	lk.Close()
	t.Logf("the bare call: attached in %v, detached in %v", attached, time.Since(start))
}
