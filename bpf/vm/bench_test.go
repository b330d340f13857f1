package vm

import (
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// benchmark reports time per executed instruction. Budgets: 5 ns for
// computation, 0 allocations everywhere.
func benchmark(b *testing.B, insns asm.Instructions) {
	m, err := New(Config{Programs: map[string]asm.Instructions{"p": insns}, Maps: map[string]*ebpf.MapSpec{
		"m": {Type: ebpf.Hash, KeySize: 4, ValueSize: 8, MaxEntries: 64},
	}})
	if err != nil {
		b.Fatal(err)
	}
	if err := m.Map("m").Update(make([]byte, 4), make([]byte, 8), 0); err != nil {
		b.Fatal(err)
	}
	ctx := make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Run("p", ctx); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(m.Stats().Insns), "ns/insn")
}

func repeat(body ...asm.Instruction) asm.Instructions {
	insns := asm.Instructions{asm.Mov.Imm(asm.R7, 1000), asm.Mov.Imm(asm.R0, 0), asm.Mov.Imm(asm.R2, 3)}
	body[0] = body[0].WithSymbol("loop")
	return append(append(insns, body...), asm.Sub.Imm(asm.R7, 1), asm.JNE.Imm(asm.R7, 0, "loop"), asm.Return())
}

func BenchmarkALU(b *testing.B) {
	benchmark(b, repeat(asm.Add.Reg(asm.R0, asm.R2), asm.LSh.Imm(asm.R2, 1), asm.Xor.Reg32(asm.R0, asm.R2), asm.Mov.Reg(asm.R3, asm.R0)))
}

func BenchmarkStack(b *testing.B) {
	benchmark(b, repeat(asm.StoreMem(asm.RFP, -8, asm.R0, asm.DWord), asm.LoadMem(asm.R3, asm.RFP, -8, asm.DWord), asm.StoreMem(asm.RFP, -16, asm.R3, asm.Word), asm.LoadMem(asm.R4, asm.RFP, -16, asm.Word)))
}

func BenchmarkMap(b *testing.B) {
	benchmark(b, append(addOne("m", "x"), asm.Return()))
}

func BenchmarkUpdate(b *testing.B) {
	benchmark(b, repeat(asm.StoreImm(asm.RFP, -4, 0, asm.Word), asm.LoadMapPtr(asm.R1, 0).WithReference("m"), asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4), asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, -16), asm.Mov.Imm(asm.R4, 0), asm.FnMapUpdateElem.Call()))
}

func BenchmarkEmpty(b *testing.B) {
	benchmark(b, asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()})
}

// TestNoAllocs: a run allocates nothing.
func TestNoAllocs(t *testing.T) {
	m := bench(t, &Env{KernelStack: []uint64{1, 2}, Comm: "x"}, append(addOne("one", "x"), append(buf(16), asm.FnGetCurrentComm.Call(), asm.Mov.Imm(asm.R0, 0), asm.Return())...)...)
	if n := testing.AllocsPerRun(100, func() { _, _ = m.Run("p", nil) }); n != 0 {
		t.Errorf("%v allocations per run", n)
	}
}
