package vm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/rlimit"
)

// The differential tests run random programs in this machine and in the kernel
// (BPF_PROG_TEST_RUN of a BPF_PROG_TYPE_SYSCALL program, whose context comes
// back) and compare every register, the stack, a map value and r0.

const sleepable = 1 << 4 // BPF_F_SLEEPABLE, which the type demands

// needKernel skips where programs may not be loaded; under FATHOM_ORACLES=require it fails.
func needKernel(t testing.TB) {
	t.Helper()
	_ = rlimit.RemoveMemlock()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.Syscall, Flags: sleepable, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}})
	if err == nil {
		p.Close()
		return
	}
	if os.Getenv("FATHOM_ORACLES") == "require" {
		t.Fatalf("FATHOM_ORACLES=require: the kernel takes no syscall program: %v", err)
	}
	t.Skipf("the kernel takes no syscall program: %v", err)
}

// generator makes random programs that the verifier accepts: r0..r7 and 64
// bytes of stack are scalars, r8 is a 64-byte map value, r9 the context.
type generator struct {
	*rand.Rand
	insns  asm.Instructions
	labels int
}

const (
	scalars  = 8
	slots    = 8 // of 8 bytes, on the stack and in the map value
	ctxBytes = 8 * (scalars + slots)
)

func (g *generator) emit(ins ...asm.Instruction) { g.insns = append(g.insns, ins...) }
func (g *generator) reg() asm.Register           { return asm.Register(g.IntN(scalars)) }

// imm prefers the numbers where things go wrong.
func (g *generator) imm() int32 {
	edge := []int32{0, 1, -1, 2, 31, 32, 63, 64, 127, 128, -128, 255, 256, 32767, 32768, -32768, 65535, 65536, 1<<31 - 1, -1 << 31}
	if g.IntN(2) == 0 {
		return edge[g.IntN(len(edge))]
	}
	return int32(g.Uint32())
}

func (g *generator) wide() int64 {
	edge := []int64{0, 1, -1, 1 << 31, 1 << 32, -1 << 31, -1 << 63, 1<<63 - 1, 1<<32 - 1}
	if g.IntN(2) == 0 {
		return edge[g.IntN(len(edge))]
	}
	return int64(g.Uint64())
}

func (g *generator) program(n int) asm.Instructions {
	g.insns, g.labels = nil, 0
	g.emit(asm.Mov.Reg(asm.R9, asm.R1), asm.LoadMapValue(asm.R8, 0, 0).WithReference("m"))
	for i := range slots {
		g.emit(asm.LoadImm(asm.R0, g.wide(), asm.DWord), asm.StoreMem(asm.RFP, slotOff(i), asm.R0, asm.DWord))
	}
	for i := range scalars {
		g.emit(asm.LoadMem(asm.Register(i), asm.R9, int16(8*i), asm.DWord))
	}
	for range n {
		g.step()
	}
	for i := range scalars {
		g.emit(asm.StoreMem(asm.R9, int16(8*i), asm.Register(i), asm.DWord))
	}
	for i := range slots {
		g.emit(asm.LoadMem(asm.R0, asm.RFP, slotOff(i), asm.DWord), asm.StoreMem(asm.R9, int16(8*(scalars+i)), asm.R0, asm.DWord))
	}
	g.emit(asm.LoadMem(asm.R0, asm.R9, 0, asm.DWord), asm.Return())
	if strings.Contains(fmt.Sprint(g.insns), "<sub>") {
		g.emit(subprogram()...)
	}
	return g.insns
}

func slotOff(i int) int16 { return int16(-8 * (i + 1)) }

// subprogram computes with a frame of its own and all callee-saved registers.
func subprogram() asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1).WithSymbol("sub"), asm.Mov.Reg(asm.R7, asm.R2), asm.Xor.Reg(asm.R6, asm.R7),
		asm.StoreMem(asm.RFP, -8, asm.R6, asm.DWord), asm.StoreMem(asm.RFP, -16, asm.R7, asm.Word),
		asm.LoadMem(asm.R0, asm.RFP, -8, asm.DWord), asm.LoadMem(asm.R8, asm.RFP, -16, asm.Word), asm.Mul.Reg(asm.R0, asm.R8), asm.Return(),
	}
}

func (g *generator) step() {
	switch k := g.IntN(100); {
	case k < 45:
		g.alu()
	case k < 52:
		g.swap()
	case k < 64:
		g.jump()
	case k < 76:
		g.memory()
	case k < 94:
		g.atomic()
	case k < 97:
		g.call()
	default:
		g.emit(asm.LoadImm(g.reg(), g.wide(), asm.DWord))
	}
}

var aluKinds = []asm.ALUOp{asm.Add, asm.Sub, asm.Mul, asm.Div, asm.SDiv, asm.Or, asm.And, asm.LSh, asm.RSh, asm.Neg,
	asm.Mod, asm.SMod, asm.Xor, asm.Mov, asm.MovSX8, asm.MovSX16, asm.MovSX32, asm.ArSh}

func (g *generator) alu() {
	k, wide, imm := aluKinds[g.IntN(len(aluKinds))], g.IntN(2) == 0, g.imm()
	switch k {
	case asm.LSh, asm.RSh, asm.ArSh:
		imm = int32(g.IntN(32))
	case asm.Div, asm.Mod, asm.SDiv, asm.SMod:
		imm |= 1
	case asm.MovSX8, asm.MovSX16:
		g.emit(pick(wide, k.Reg(g.reg(), g.reg()), k.Reg32(g.reg(), g.reg())))
		return
	case asm.MovSX32:
		g.emit(k.Reg(g.reg(), g.reg()))
		return
	case asm.Neg:
		g.emit(pick(wide, k.Imm(g.reg(), 0), k.Imm32(g.reg(), 0)))
		return
	}
	if g.IntN(2) == 0 {
		g.emit(pick(wide, k.Imm(g.reg(), imm), k.Imm32(g.reg(), imm)))
		return
	}
	g.emit(pick(wide, k.Reg(g.reg(), g.reg()), k.Reg32(g.reg(), g.reg())))
}

func pick[T any](first bool, a, b T) T {
	if first {
		return a
	}
	return b
}

func (g *generator) swap() {
	size := []asm.Size{asm.Half, asm.Word, asm.DWord}[g.IntN(3)]
	switch g.IntN(3) {
	case 0:
		g.emit(asm.BSwap(g.reg(), size))
	case 1:
		g.emit(asm.HostTo(asm.BE, g.reg(), size))
	default:
		g.emit(asm.HostTo(asm.LE, g.reg(), size))
	}
}

var jumpKinds = []asm.JumpOp{asm.JEq, asm.JGT, asm.JGE, asm.JSet, asm.JNE, asm.JSGT, asm.JSGE, asm.JLT, asm.JLE, asm.JSLT, asm.JSLE}

// jump skips one to three computations.
func (g *generator) jump() {
	g.labels++
	label := fmt.Sprintf("l%d", g.labels)
	k := jumpKinds[g.IntN(len(jumpKinds))]
	switch g.IntN(9) {
	case 0, 1:
		g.emit(k.Imm(g.reg(), g.imm(), label))
	case 2, 3:
		g.emit(k.Imm32(g.reg(), g.imm(), label))
	case 4, 5:
		g.emit(k.Reg(g.reg(), g.reg(), label))
	case 6, 7:
		g.emit(k.Reg32(g.reg(), g.reg(), label))
	default: // both ways must be reachable
		g.emit(asm.JNE.Imm(g.reg(), g.imm(), label+"x"), asm.LongJump(label), asm.Mov.Imm(g.reg(), 7).WithSymbol(label+"x"))
	}
	for range 1 + g.IntN(3) {
		g.alu()
	}
	g.emit(asm.Mov.Imm(g.reg(), g.imm()).WithSymbol(label))
}

var sizes = []asm.Size{asm.Byte, asm.Half, asm.Word, asm.DWord}

// place is an aligned address on the stack or in the map value.
func (g *generator) place(size asm.Size) (asm.Register, int16) {
	n := size.Sizeof()
	off := int16(g.IntN(8*slots/n) * n)
	return pick(g.IntN(2) == 0, asm.RFP, asm.R8), off
}

func (g *generator) memory() {
	size := sizes[g.IntN(4)]
	base, off := g.place(size)
	if base == asm.RFP {
		off -= 8 * slots
	}
	switch g.IntN(4) {
	case 0:
		g.emit(asm.LoadMem(g.reg(), base, off, size))
	case 1:
		if size == asm.DWord {
			size = asm.Word
		}
		g.emit(asm.LoadMemSX(g.reg(), base, off, size))
	case 2:
		g.emit(asm.StoreMem(base, off, g.reg(), size))
	default:
		g.emit(asm.Instruction{OpCode: asm.StoreImmOp(size), Dst: base, Offset: off, Constant: int64(g.imm())})
	}
}

var atomics = []asm.AtomicOp{asm.AddAtomic, asm.FetchAdd, asm.AndAtomic, asm.FetchAnd, asm.OrAtomic, asm.FetchOr,
	asm.XorAtomic, asm.FetchXor, asm.Xchg, asm.CmpXchg}

func (g *generator) atomic() {
	size := pick(g.IntN(2) == 0, asm.Word, asm.DWord)
	base, off := g.place(size)
	if base == asm.RFP {
		off -= 8 * slots
	}
	if haveAcquire && g.IntN(5) == 0 {
		g.emit(withOp(pick(g.IntN(2) == 0, asm.LoadAcquire(g.reg(), base, size, off), asm.StoreRelease(base, g.reg(), size, off))))
		return
	}
	g.emit(withOp(atomics[g.IntN(len(atomics))].Mem(base, g.reg(), size, off)))
}

// withOp puts an atomic instruction's operation where the encoder takes it from.
func withOp(ins asm.Instruction) asm.Instruction {
	ins.Constant = int64(ins.OpCode.AtomicOp() >> 8)
	return ins
}

// haveAcquire: load-acquire and store-release came with 6.15; tried once.
var haveAcquire = func() bool {
	_ = rlimit.RemoveMemlock()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SocketFilter, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R0, 0), asm.StoreMem(asm.RFP, -8, asm.R0, asm.DWord),
		withOp(asm.LoadAcquire(asm.R0, asm.RFP, asm.DWord, -8)), asm.Return()}})
	if err == nil {
		p.Close()
	}
	return err == nil
}()

// call calls the subprogram and makes r1..r5 scalars again.
func (g *generator) call() {
	g.emit(asm.Call.Label("sub"))
	for r := asm.R1; r <= asm.R5; r++ {
		g.emit(asm.Mov.Imm(r, g.imm()))
	}
}

// kernelRun executes insns in the kernel over ctx, which is overwritten.
func kernelRun(insns asm.Instructions, maps map[string]*ebpf.Map, ctx []byte) (uint32, error) {
	insns = append(asm.Instructions(nil), insns...)
	for name, m := range maps {
		if err := insns.AssociateMap(name, m); err != nil && !errors.Is(err, asm.ErrUnreferencedSymbol) {
			return 0, err
		}
	}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "diff", Type: ebpf.Syscall, Flags: sleepable, License: "GPL", Instructions: insns})
	if err != nil {
		return 0, err
	}
	defer p.Close()
	return p.Run(&ebpf.RunOptions{Context: ctx, ContextOut: ctx})
}

func TestDifferentialKernel(t *testing.T) {
	needKernel(t)
	n := 3000
	if testing.Short() {
		n = 300
	}
	spec := &ebpf.MapSpec{Name: "m", Type: ebpf.Array, KeySize: 4, ValueSize: 8 * slots, MaxEntries: 1}
	km, err := ebpf.NewMap(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer km.Close()
	rejected, insns := 0, 0
	for seed := range n {
		g := &generator{Rand: rand.New(rand.NewPCG(uint64(seed), 1))}
		prog := g.program(5 + g.IntN(60))
		ctx, value := make([]byte, ctxBytes), make([]byte, 8*slots)
		for i := 0; i < len(ctx); i += 8 {
			binary.LittleEndian.PutUint64(ctx[i:], uint64(g.wide()))
		}
		for i := range value {
			value[i] = byte(g.Uint32())
		}
		ours := runOurs(t, prog, spec, bytes.Clone(ctx), bytes.Clone(value))
		if err := km.Put(uint32(0), value); err != nil {
			t.Fatal(err)
		}
		r0, err := kernelRun(prog, map[string]*ebpf.Map{"m": km}, ctx)
		if err != nil {
			rejected++
			if rejected < 4 {
				t.Logf("seed %d: %v", seed, err)
			}
			continue
		}
		if err := km.Lookup(uint32(0), &value); err != nil {
			t.Fatal(err)
		}
		if uint32(ours.r0) != r0 || !bytes.Equal(ours.ctx, ctx) || !bytes.Equal(ours.value, value) {
			t.Fatalf("seed %d: r0 %#x, kernel %#x\nctx    %x\nkernel %x\nmap    %x\nkernel %x\n%v", seed, ours.r0, r0, ours.ctx, ctx, ours.value, value, prog)
		}
		insns += len(prog)
	}
	t.Logf("%d programs of %d instructions equal, %d rejected by the verifier", n-rejected, insns, rejected)
	if rejected > n/20 {
		t.Errorf("%d of %d programs rejected", rejected, n)
	}
}

type outcome struct {
	r0         uint64
	ctx, value []byte
}

func runOurs(t *testing.T, prog asm.Instructions, spec *ebpf.MapSpec, ctx, value []byte) outcome {
	t.Helper()
	m, err := New(Config{Programs: map[string]asm.Instructions{"p": prog}, Maps: map[string]*ebpf.MapSpec{"m": spec}})
	if err != nil {
		t.Fatalf("%v\n%v", err, prog)
	}
	key := make([]byte, 4)
	if err := m.Map("m").Update(key, value, 0); err != nil {
		t.Fatal(err)
	}
	r0, err := m.Run("p", ctx)
	if err != nil {
		t.Fatalf("%v\n%v", err, prog)
	}
	value, _ = m.Map("m").Lookup(key)
	return outcome{r0, ctx, value}
}
