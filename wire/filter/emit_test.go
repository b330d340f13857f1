package filter_test

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/rlimit"

	"github.com/fathom-trace/fathom/bpf"
	"github.com/fathom-trace/fathom/bpf/gen"
	"github.com/fathom-trace/fathom/bpf/vm"
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/ir/opt"
	"github.com/fathom-trace/fathom/wire/filter"
)

// Verdicts of the programs here.
const (
	noMatch = 2 // XDP_PASS
	isMatch = 1 // XDP_DROP
)

// direct makes an XDP program of a filter.
func direct(f *filter.Filter) *ir.Unit {
	u := &ir.Unit{Name: "direct", Provider: "xdp", Target: -1}
	fn := &ir.Func{Name: "direct", Unit: u, Entry: true}
	u.Entry = fn
	at := fn.NewBlock()
	ctx, data, end := fn.NewReg(), fn.NewReg(), fn.NewReg()
	at.Ins = append(at.Ins, ir.Ins{Op: ir.Ctx, Dst: ctx},
		ir.Ins{Op: ir.Load, Size: 4, Dst: data, Base: ctx}, ir.Ins{Op: ir.Load, Size: 4, Dst: end, Base: ctx, Off: 4})
	finish(f.Emit(u, fn, at, filter.Source{Base: data, End: end}))
	return u
}

// probed makes a program that is given the packet's address and length, as a probe finds them in an skb.
func probed(f *filter.Filter) *ir.Unit {
	u := &ir.Unit{Name: "probed", Provider: "test", Target: -1}
	fn := &ir.Func{Name: "probed", Unit: u, Entry: true}
	u.Entry = fn
	at := fn.NewBlock()
	ctx, data, n := fn.NewReg(), fn.NewReg(), fn.NewReg()
	at.Ins = append(at.Ins, ir.Ins{Op: ir.Ctx, Dst: ctx}, ir.Ins{Op: ir.Load, Size: 8, Dst: data, Base: ctx},
		ir.Ins{Op: ir.Load, Size: 8, Dst: n, Base: ctx, Off: 8}, ir.Ins{Op: ir.Ext, Size: 4, Dst: n, A: ir.R(n)})
	finish(f.Emit(u, fn, at, filter.Source{Base: data, Len: n}))
	return u
}

func finish(match, drop *ir.Block) {
	match.Ins = []ir.Ins{{Op: ir.Ret, A: ir.Imm(isMatch)}}
	drop.Ins = []ir.Ins{{Op: ir.Ret, A: ir.Imm(noMatch)}}
}

// compile checks, optimises and binds a unit.
func compile(t *testing.T, u *ir.Unit) (*bpf.Program, *bpf.Object) {
	t.Helper()
	if err := u.Check(); err != nil {
		t.Fatal(err)
	}
	if err := opt.Unit(u, opt.Options{}); err != nil {
		t.Fatal(err)
	}
	obj, err := gen.Compile(&ir.Program{Units: []*ir.Unit{u}}, gen.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return obj.Programs[0], obj
}

// machine makes a BPF machine of a program.
func machine(t *testing.T, u *ir.Unit, target vm.Target) *vm.Machine {
	t.Helper()
	p, obj := compile(t, u)
	maps := map[string]*ebpf.MapSpec{}
	for _, m := range obj.Maps {
		maps[m.Spec.Name] = m.Spec
	}
	m, err := vm.New(vm.Config{Programs: map[string]asm.Instructions{"p": p.Insns}, Maps: maps, Target: target})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// kernelMemory is a packet at an address of the kernel's.
type kernelMemory struct{ pkt []byte }

const packetAt = 0xffff888012345670

func (k *kernelMemory) ReadKernel(p []byte, addr uint64) error {
	off := addr - packetAt
	if off > uint64(len(k.pkt)) || off+uint64(len(p)) > uint64(len(k.pkt)) {
		return errors.New("fault")
	}
	copy(p, k.pkt[off:])
	return nil
}

func (k *kernelMemory) ReadUser([]byte, uint64) error { return errors.New("fault") }

// TestEmit compares the emitted programs, run by the BPF machine, with Match.
func TestEmit(t *testing.T) {
	const perExpression = 24
	verdicts, insns, n := 0, 0, 0
	for i, e := range filter.Accepted(t) {
		f, err := filter.Compile(e.Text, filter.Options{Link: e.Link})
		if err != nil {
			continue // no packet matches
		}
		p, _ := compile(t, direct(f))
		insns, n = insns+len(p.Insns), n+1
		mem := &kernelMemory{}
		xdp, probe := machine(t, direct(f), nil), machine(t, probed(f), mem)
		pkts := filter.Packets(rand.New(rand.NewPCG(uint64(i), 3)), e.Link, perExpression)
		for _, pkt := range pkts {
			want := uint64(noMatch)
			if f.Match(pkt, len(pkt)) {
				want = isMatch
			}
			got, err := xdp.RunInput("p", vm.Input{Ctx: make([]byte, 24), Packet: pkt, Kind: vm.CtxXDP})
			if err != nil || got != want {
				t.Errorf("%q, direct: got %d, %v, want %d\n% x", e.Text, got, err, want, pkt)
				break
			}
			mem.pkt = pkt
			ctx := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, packetAt), uint64(len(pkt)))
			got, err = probe.Run("p", ctx)
			if err != nil || got != want {
				t.Errorf("%q, probed: got %d, %v, want %d\n% x", e.Text, got, err, want, pkt)
				break
			}
			verdicts += 2
		}
	}
	t.Logf("%d verdicts, %d instructions of eBPF per expression", verdicts, insns/max(n, 1))
}

// TestVerifier has the kernel check the programs, and run those that read directly.
func TestVerifier(t *testing.T) {
	needKernel(t)
	for i, e := range filter.Accepted(t) {
		f, err := filter.Compile(e.Text, filter.Options{Link: e.Link})
		if err != nil || i%3 != 0 {
			continue
		}
		p, _ := compile(t, direct(f))
		xdp, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: p.Type, Instructions: p.Insns, License: "GPL"})
		if err != nil {
			t.Errorf("%q, direct: %v", e.Text, err)
			continue
		}
		for _, pkt := range filter.Packets(rand.New(rand.NewPCG(uint64(i), 4)), e.Link, 8) {
			if len(pkt) < 14 {
				continue // the kernel runs no XDP program on less than an Ethernet header
			}
			want := uint32(noMatch)
			if f.Match(pkt, len(pkt)) {
				want = isMatch
			}
			if got, err := xdp.Run(&ebpf.RunOptions{Data: pkt}); err != nil || got != want {
				t.Errorf("%q in the kernel: got %d, %v, want %d\n% x", e.Text, got, err, want, pkt)
				break
			}
		}
		xdp.Close()
		p, _ = compile(t, probed(f))
		probe, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: p.Type, Instructions: p.Insns, License: "GPL"})
		if err != nil {
			t.Errorf("%q, probed: %v", e.Text, err)
			continue
		}
		probe.Close()
	}
}

// needKernel skips where programs may not be loaded.
func needKernel(t *testing.T) {
	t.Helper()
	_ = rlimit.RemoveMemlock()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}})
	if err == nil {
		p.Close()
		return
	}
	if os.Getenv("FATHOM_ORACLES") == "require" && !strings.Contains(err.Error(), "not permitted") {
		t.Fatalf("FATHOM_ORACLES=require: the kernel takes no XDP program: %v", err)
	}
	t.Skipf("the kernel takes no XDP program: %v", err)
}

// TestEmitMetadata gives a program what is known of a packet in registers.
func TestEmitMetadata(t *testing.T) {
	for i, text := range []string{"vlan 100 and ip", "vlan and vlan", "inbound and udp", "ifindex 2 or vlan 5", "vlan and tcp[13] & 2 != 0"} {
		f, err := filter.Compile(text, filter.Options{Metadata: true})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range []filter.Meta{{}, {Tagged: true, TCI: 0x6064, Type: 4, Ifindex: 2}, {Tagged: true, TCI: 5}} {
			u := &ir.Unit{Name: "meta", Provider: "xdp", Target: -1}
			fn := &ir.Func{Name: "meta", Unit: u, Entry: true}
			u.Entry = fn
			at := fn.NewBlock()
			ctx, data, end := fn.NewReg(), fn.NewReg(), fn.NewReg()
			at.Ins = append(at.Ins, ir.Ins{Op: ir.Ctx, Dst: ctx},
				ir.Ins{Op: ir.Load, Size: 4, Dst: data, Base: ctx}, ir.Ins{Op: ir.Load, Size: 4, Dst: end, Base: ctx, Off: 4})
			known := func(n int64) ir.Reg {
				r := fn.NewReg()
				at.Ins = append(at.Ins, ir.Ins{Op: ir.Const, Dst: r, A: ir.Imm(n)})
				return r
			}
			src := filter.Source{Base: data, End: end, TCI: known(int64(m.TCI)), Type: known(int64(m.Type)), Ifindex: known(int64(m.Ifindex))}
			if m.Tagged {
				src.Tagged = known(1)
			}
			finish(f.Emit(u, fn, at, src))
			mach := machine(t, u, nil)
			for _, pkt := range filter.Packets(rand.New(rand.NewPCG(uint64(i), 6)), filter.Ethernet, 100) {
				want := uint64(noMatch)
				if f.MatchMeta(pkt, len(pkt), m) {
					want = isMatch
				}
				got, err := mach.RunInput("p", vm.Input{Ctx: make([]byte, 24), Packet: pkt, Kind: vm.CtxXDP})
				if err != nil || got != want {
					t.Fatalf("%q with %+v: got %d, %v, want %d\n% x", text, m, got, err, want, pkt)
				}
			}
		}
	}
}
