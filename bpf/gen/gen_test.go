package gen

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/bpf"
	"github.com/fathom-trace/fathom/bpf/asmtext"
	"github.com/fathom-trace/fathom/bpf/vm"
	"github.com/fathom-trace/fathom/ir"
)

// oneFunc makes a program of one function that fn fills.
func oneFunc(fn func(f *ir.Func)) *ir.Program {
	u := &ir.Unit{Name: "p", Provider: "begin"}
	u.Entry = &ir.Func{Name: "p", Unit: u, Entry: true}
	fn(u.Entry)
	c := &ir.Map{Name: ".counters", BPFName: "counters", Kind: ir.Array, KeySize: 4, ValueSize: 2 * ir.CounterBytes(1), MaxEntries: 1}
	return &ir.Program{Units: []*ir.Unit{u}, Maps: []*ir.Map{c}, Counters: c}
}

func compiled(t *testing.T, p *ir.Program, o Options) asm.Instructions {
	t.Helper()
	o.After = func(pass string, u *ir.Unit) error { return u.Check() }
	obj, err := Compile(p, o)
	if err != nil {
		t.Fatal(err)
	}
	return obj.Programs[0].Insns
}

func run(t *testing.T, insns asm.Instructions) uint64 {
	t.Helper()
	m, err := vm.New(vm.Config{Programs: map[string]asm.Instructions{"p": insns}, Maps: map[string]*ebpf.MapSpec{
		"counters": {Name: "counters", Type: ebpf.Array, KeySize: 4, ValueSize: uint32(2 * ir.CounterBytes(1)), MaxEntries: 1},
		"scratch0": {Name: "scratch0", Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 32 << 10, MaxEntries: 1},
	}, Env: &vm.Env{Pid: 7, Tgid: 5}})
	if err != nil {
		t.Fatalf("%v\n%s", err, asmtext.Format(insns))
	}
	r, err := m.Run("p", nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, asmtext.Format(insns))
	}
	return r
}

// code gives a listing without places.
func code(insns asm.Instructions) string {
	var out []string
	for l := range strings.Lines(asmtext.Format(insns)) {
		if l = strings.TrimSpace(l); l != "" && l[0] != ';' {
			if _, after, ok := strings.Cut(l, ") "); ok {
				l = after
			}
			out = append(out, l)
		}
	}
	return strings.Join(out, "\n")
}

func TestSelect(t *testing.T) {
	tests := []struct {
		name string
		fn   func(f *ir.Func)
		want string
	}{
		{"a result is used where it is", func(f *ir.Func) {
			r, p, k := f.NewReg(), f.NewReg(), f.Unit.NewSlot("k", 8)
			b, c, d := f.NewBlock(), f.NewBlock(), f.NewBlock()
			b.Ins = []ir.Ins{
				{Op: ir.Call, Dst: r, Fn: ir.FnCurrentPidTgid}, {Op: ir.Bin, Alu: ir.Shr, Dst: p, A: ir.R(r), B: ir.Imm(32)},
				{Op: ir.Store, Size: 4, Slot: k, A: ir.R(p)},
				{Op: ir.Branch, Cond: ir.Eq, A: ir.R(p), B: ir.Imm(1), Then: c, Else: d}}
			c.Ins = []ir.Ins{{Op: ir.Ret, A: ir.Imm(1)}}
			d.Ins = []ir.Ins{{Op: ir.Ret, A: ir.R(p)}}
		}, `p:
			call bpf_get_current_pid_tgid#14
			r0 >>= 32
			if r0 == 0x1 goto pc+1 <p.2>
			exit
			p.2:
			r0 = 1
			exit`},
		{"constants are stored as they are", func(f *ir.Func) {
			p, q, r := f.NewReg(), f.NewReg(), f.NewReg()
			b := f.NewBlock()
			b.Ins = []ir.Ins{{Op: ir.Ctx, Dst: p},
				{Op: ir.Store, Size: 8, Base: p, Off: 8, A: ir.Imm(-1)}, {Op: ir.Store, Size: 4, Base: p, A: ir.Imm(0xffffffff)},
				{Op: ir.Load, Dst: q, Size: 4, Base: p, Off: 16}, {Op: ir.Bin, Alu: ir.Sub, Dst: r, A: ir.Imm(0), B: ir.R(q)},
				{Op: ir.Ret, A: ir.R(r)}}
		}, `p:
			*(u64 *)(r1 +8) = -1
			*(u32 *)(r1 +0) = -1
			r0 = *(u32 *)(r1 +16)
			r0 = -r0
			exit`},
		{"what survives a call", func(f *ir.Func) {
			c, a, n, s := f.NewReg(), f.NewReg(), f.NewReg(), f.NewReg()
			b := f.NewBlock()
			b.Ins = []ir.Ins{{Op: ir.Ctx, Dst: c}, {Op: ir.Load, Dst: a, Size: 8, Base: c},
				{Op: ir.Call, Dst: n, Fn: ir.FnKtimeGetNs}, {Op: ir.Bin, Alu: ir.Sub, Dst: s, A: ir.R(n), B: ir.R(a)}, {Op: ir.Ret, A: ir.R(s)}}
		}, `p:
			r6 = *(u64 *)(r1 +0)
			call bpf_ktime_get_ns#5
			r0 -= r6
			exit`},
		{"a loss is counted at one place inline", func(f *ir.Func) {
			b := f.NewBlock()
			b.Ins = []ir.Ins{{Op: ir.Count, Imm: ir.Filtered}, {Op: ir.Ret}}
		}, `p:
			call bpf_get_smp_processor_id#8
			r0 &= 1
			r0 <<= 6
			r4 = map[counters][0]+16
			r4 += r0
			r5 = *(u64 *)(r4 +0)
			r5 += 1
			*(u64 *)(r4 +0) = r5
			r0 = 0
			exit`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var want []string
			for l := range strings.Lines(tt.want) {
				want = append(want, strings.TrimSpace(l))
			}
			if d := cmp.Diff(want, strings.Split(code(compiled(t, oneFunc(tt.fn), Options{})), "\n")); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

// TestSpill keeps more values over a call than there are registers for.
func TestSpill(t *testing.T) {
	for _, n := range []int{3, 4, 5, 20, 60} {
		p := oneFunc(func(f *ir.Func) {
			b := f.NewBlock()
			var rs []ir.Reg
			for i := range n {
				a, r := f.NewReg(), f.NewReg()
				b.Ins = append(b.Ins, ir.Ins{Op: ir.Call, Dst: a, Fn: ir.FnCurrentPidTgid},
					ir.Ins{Op: ir.Bin, Alu: ir.Add, Dst: r, A: ir.R(a), B: ir.Imm(int64(i * i))})
				rs = append(rs, r)
			}
			sum := f.NewReg()
			b.Ins = append(b.Ins, ir.Ins{Op: ir.Const, Dst: sum})
			for _, r := range rs {
				b.Ins = append(b.Ins, ir.Ins{Op: ir.Call, Fn: ir.FnKtimeGetNs, Dst: f.NewReg()},
					ir.Ins{Op: ir.Bin, Alu: ir.Xor, Dst: sum, A: ir.R(sum), B: ir.R(r)})
			}
			b.Ins = append(b.Ins, ir.Ins{Op: ir.Ret, A: ir.R(sum)})
		})
		want := uint64(0)
		for i := range uint64(n) {
			want ^= 5<<32 + 7 + i*i
		}
		for _, o := range []Options{{}, {NoOpt: true}} {
			if got := run(t, compiled(t, p, o)); got != want {
				t.Errorf("%d values, %+v: %#x, want %#x", n, o, got, want)
			}
		}
	}
}

// TestParallel executes random parallel moves.
func TestParallel(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		var ms []move
		for i := range 5 {
			m := move{dst: asm.R1 + asm.Register(i), src: asm.Register(r.IntN(10))}
			if r.IntN(5) == 0 {
				m = move{dst: m.dst, isImm: true, imm: int64(100 + i)}
			}
			ms = append(ms, m)
		}
		e := &emitter{}
		for i := range 10 {
			e.constant(asm.Register(i), int64(i))
		}
		e.parallel(ms)
		want := uint64(0)
		e.add(asm.Mov.Imm(asm.R0, 0))
		for _, m := range ms {
			e.add(asm.Mul.Imm(asm.R0, 1000))
			e.add(asm.Add.Reg(asm.R0, m.dst))
			v := uint64(m.src)
			if m.isImm {
				v = uint64(m.imm)
			}
			want = want*1000 + v
		}
		e.add(asm.Return())
		e.out[0] = e.out[0].WithSymbol("p")
		if got := run(t, e.out); got != want {
			t.Fatalf("%s: %d, want %d\n%s", fmt.Sprint(ms), got, want, asmtext.Format(e.out))
		}
	}
}

// TestZero clears what a loop clears, in one function and at odd offsets, and nothing beside.
func TestZero(t *testing.T) {
	for _, size := range []int64{1, 64, 256, 257, 300, 1024, 1000} {
		for _, off := range []int32{8, 12, 17} {
			p := oneFunc(func(f *ir.Func) {
				b := f.NewBlock()
				s := f.Unit.NewSlot("s", 2048)
				one := func(at int32) { b.Ins = append(b.Ins, ir.Ins{Op: ir.Store, Size: 1, Slot: s, Off: at, A: ir.Imm(1)}) }
				places := []int32{off - 1, off, off + int32(size) - 1, off + int32(size)}
				for _, at := range places {
					one(at)
				}
				b.Ins = append(b.Ins, ir.Ins{Op: ir.Zero, Imm: size, Slot: s, Off: off})
				sum := f.NewReg()
				b.Ins = append(b.Ins, ir.Ins{Op: ir.Const, Dst: sum})
				for _, at := range places {
					v := f.NewReg()
					b.Ins = append(b.Ins, ir.Ins{Op: ir.Load, Dst: v, Size: 1, Slot: s, Off: at},
						ir.Ins{Op: ir.Bin, Alu: ir.Mul, Dst: sum, A: ir.R(sum), B: ir.Imm(10)},
						ir.Ins{Op: ir.Bin, Alu: ir.Add, Dst: sum, A: ir.R(sum), B: ir.R(v)})
				}
				b.Ins = append(b.Ins, ir.Ins{Op: ir.Ret, A: ir.R(sum)})
			})
			if got := run(t, compiled(t, p, Options{})); got != 1001 {
				t.Errorf("%d bytes at %d: %04d is left, want 1001", size, off, got)
			}
		}
	}
}

// TestGiven: numbers of a target are found among the instructions, once for each place that asks, and the rest is as it was.
func TestGiven(t *testing.T) {
	insns := compiled(t, oneFunc(func(f *ir.Func) {
		b, yes, no := f.NewBlock(), f.NewBlock(), f.NewBlock()
		first, second := f.NewReg(), f.NewReg()
		b.Ins = []ir.Ins{{Op: ir.Given, Dst: first}, {Op: ir.Branch, Cond: ir.Eq, A: ir.R(first), B: ir.Imm(3), Then: yes, Else: no}}
		yes.Ins = []ir.Ins{{Op: ir.Given, Dst: second, Imm: 12}, {Op: ir.Ret, A: ir.R(second)}}
		no.Ins = []ir.Ins{{Op: ir.Ret, A: ir.Imm(1)}}
	}), Options{})
	for _, c := range []struct {
		numbers map[int]int64
		want    uint64
	}{{map[int]int64{0: 3, 12: 1 << 40}, 1 << 40}, {map[int]int64{0: 4, 12: 5}, 1}} {
		var found []int
		loaded := append(asm.Instructions(nil), insns...)
		for i := range loaded {
			if n, ok := bpf.Given(&loaded[i]); ok {
				loaded[i].Constant = c.numbers[n]
				found = append(found, n)
			}
		}
		if diff := cmp.Diff([]int{0, 12}, found); diff != "" {
			t.Errorf("numbers: %s", diff)
		}
		if got := run(t, loaded); got != c.want {
			t.Errorf("with %v: %d, want %d", c.numbers, got, c.want)
		}
	}
}
