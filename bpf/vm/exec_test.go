package vm

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// run executes one program with r0 = 0 and no input.
func run(t *testing.T, insns ...asm.Instruction) (uint64, error) {
	t.Helper()
	m, err := New(Config{Programs: map[string]asm.Instructions{"p": insns}})
	if err != nil {
		t.Fatal(err)
	}
	return m.Run("p", nil)
}

// TestALU computes r1 = a; r2 = b; r1 op= r2, with the operand in a register
// and, where it fits, as a constant.
func TestALU(t *testing.T) {
	const m64, min64 = ^uint64(0), uint64(1) << 63
	tests := []struct {
		op         asm.ALUOp
		wide       bool
		a, b, want uint64
	}{
		{asm.Add, true, m64, 2, 1},
		{asm.Add, false, 0xffffffff, 2, 1},
		{asm.Sub, true, 1, 2, m64},
		{asm.Sub, false, 1, 2, 0xffffffff},
		{asm.Mul, true, 1 << 40, 3, 3 << 40},
		{asm.Mul, false, 1 << 31, 2, 0},
		{asm.Div, true, m64, 2, m64 >> 1},
		{asm.Div, true, 7, 0, 0},
		{asm.Div, false, m64, 2, 0x7fffffff},
		{asm.Div, false, 7, 1 << 32, 0},
		{asm.SDiv, true, m64 - 6, 2, m64 - 2},
		{asm.SDiv, true, min64, m64, min64},
		{asm.SDiv, true, 7, 0, 0},
		{asm.SDiv, false, 0xfffffff9, 2, 0xfffffffd},
		{asm.SDiv, false, 0x80000000, 0xffffffff, 0x80000000},
		{asm.Mod, true, 7, 0, 7},
		{asm.Mod, true, m64, 10, 5},
		{asm.Mod, false, m64, 0, 0xffffffff},
		{asm.SMod, true, m64 - 6, 4, m64 - 2},
		{asm.SMod, true, min64, m64, 0},
		{asm.SMod, false, 0xfffffff9, 4, 0xfffffffd},
		{asm.SMod, false, 0xfffffff9, 0, 0xfffffff9},
		{asm.Or, true, 1 << 40, 1, 1<<40 | 1},
		{asm.Or, false, 1 << 40, 1, 1},
		{asm.And, true, m64, 0xff, 0xff},
		{asm.And, false, m64, m64, 0xffffffff},
		{asm.Xor, true, m64, 1, m64 - 1},
		{asm.Xor, false, m64, 1, 0xfffffffe},
		{asm.LSh, true, 1, 63, min64},
		{asm.LSh, false, 1, 31, 1 << 31},
		{asm.RSh, true, min64, 63, 1},
		{asm.RSh, false, m64, 31, 1},
		{asm.ArSh, true, min64, 63, m64},
		{asm.ArSh, false, 1 << 31, 31, 0xffffffff},
		{asm.Mov, true, 0, m64, m64},
		{asm.Mov, false, 0, m64, 0xffffffff},
	}
	for _, tt := range tests {
		ins := []asm.Instruction{tt.op.Reg32(asm.R1, asm.R2), tt.op.Imm32(asm.R1, int32(tt.b))}
		if tt.wide {
			ins = []asm.Instruction{tt.op.Reg(asm.R1, asm.R2), tt.op.Imm(asm.R1, int32(tt.b))}
		}
		for i, in := range ins {
			if i == 1 && uint64(int64(int32(tt.b))) != tt.b {
				continue
			}
			got, err := run(t, asm.LoadImm(asm.R1, int64(tt.a), asm.DWord), asm.LoadImm(asm.R2, int64(tt.b), asm.DWord), in, asm.Mov.Reg(asm.R0, asm.R1), asm.Return())
			if err != nil || got != tt.want {
				t.Errorf("%v of %#x, %#x = %#x, %v; want %#x", in, tt.a, tt.b, got, err, tt.want)
			}
		}
	}
}

// TestUnary applies one instruction to r0 = 0x80c4_a2b1_f0e1_d2c3.
func TestUnary(t *testing.T) {
	in := uint64(0x80c4_a2b1_f0e1_d2c3)
	tests := []struct {
		ins  asm.Instruction
		want uint64
	}{
		{asm.Neg.Imm(asm.R0, 0), 0x7f3b_5d4e_0f1e_2d3d},
		{asm.Neg.Imm32(asm.R0, 0), 0x0f1e_2d3d},
		{asm.BSwap(asm.R0, asm.Half), 0xc3d2},
		{asm.BSwap(asm.R0, asm.Word), 0xc3d2_e1f0},
		{asm.BSwap(asm.R0, asm.DWord), 0xc3d2_e1f0_b1a2_c480},
		{asm.HostTo(asm.BE, asm.R0, asm.Half), 0xc3d2},
		{asm.HostTo(asm.BE, asm.R0, asm.Word), 0xc3d2_e1f0},
		{asm.HostTo(asm.BE, asm.R0, asm.DWord), 0xc3d2_e1f0_b1a2_c480},
		{asm.HostTo(asm.LE, asm.R0, asm.Half), 0xd2c3},
		{asm.HostTo(asm.LE, asm.R0, asm.Word), 0xf0e1_d2c3},
		{asm.HostTo(asm.LE, asm.R0, asm.DWord), in},
		{asm.MovSX8.Reg(asm.R0, asm.R0), 0xffff_ffff_ffff_ffc3},
		{asm.MovSX16.Reg(asm.R0, asm.R0), 0xffff_ffff_ffff_d2c3},
		{asm.MovSX32.Reg(asm.R0, asm.R0), 0xffff_ffff_f0e1_d2c3},
		{asm.MovSX8.Reg32(asm.R0, asm.R0), 0xffff_ffc3},
		{asm.MovSX16.Reg32(asm.R0, asm.R0), 0xffff_d2c3},
	}
	for _, tt := range tests {
		got, err := run(t, asm.LoadImm(asm.R0, int64(in), asm.DWord), tt.ins, asm.Return())
		if err != nil || got != tt.want {
			t.Errorf("%v (%d) = %#x, %v; want %#x", tt.ins, tt.ins.Constant, got, err, tt.want)
		}
	}
}

func TestJumps(t *testing.T) {
	const neg = ^uint64(0)
	tests := []struct {
		op       asm.JumpOp
		a, b     uint64
		want     bool // 64-bit
		wantHalf bool // 32-bit
	}{
		{asm.JEq, 1 << 32, 0, false, true},
		{asm.JNE, 1 << 32, 0, true, false},
		{asm.JGT, 1 << 32, 1, true, false},
		{asm.JGE, 5, 5, true, true},
		{asm.JLT, 1, 1 << 32, true, false},
		{asm.JLE, 5, 5, true, true},
		{asm.JSGT, 1, neg, true, true},
		{asm.JSGE, neg, 0, false, false},
		{asm.JSLT, neg, 0, true, true},
		{asm.JSLE, 0x80000000, 0, false, true},
		{asm.JSet, 6, 4, true, true},
		{asm.JSet, 1 << 33, 1 << 33, true, false},
	}
	for _, tt := range tests {
		for i, in := range []asm.Instruction{tt.op.Reg(asm.R1, asm.R2, "yes"), tt.op.Reg32(asm.R1, asm.R2, "yes")} {
			got, err := run(t, asm.LoadImm(asm.R1, int64(tt.a), asm.DWord), asm.LoadImm(asm.R2, int64(tt.b), asm.DWord), in,
				asm.Mov.Imm(asm.R0, 0), asm.Return(), asm.Mov.Imm(asm.R0, 1).WithSymbol("yes"), asm.Return())
			if want := []bool{tt.want, tt.wantHalf}[i]; err != nil || (got == 1) != want {
				t.Errorf("%v of %#x, %#x: %d, %v; want %v", in, tt.a, tt.b, got, err, want)
			}
		}
	}
}

// TestAtomics applies each operation to a word of 10 with source 3 and r0 = 10.
func TestAtomics(t *testing.T) {
	tests := []struct {
		op           asm.AtomicOp
		word, r1, r0 uint64
	}{
		{asm.AddAtomic, 13, 3, 10},
		{asm.FetchAdd, 13, 10, 10},
		{asm.AndAtomic, 2, 3, 10},
		{asm.FetchAnd, 2, 10, 10},
		{asm.OrAtomic, 11, 3, 10},
		{asm.FetchOr, 11, 10, 10},
		{asm.XorAtomic, 9, 3, 10},
		{asm.FetchXor, 9, 10, 10},
		{asm.Xchg, 3, 10, 10},
		{asm.CmpXchg, 3, 3, 10},
	}
	for _, tt := range tests {
		for _, size := range []asm.Size{asm.Word, asm.DWord} {
			ctx := make([]byte, 24)
			m, err := New(Config{Programs: map[string]asm.Instructions{"p": {
				asm.Mov.Reg(asm.R9, asm.R1), asm.StoreImm(asm.R9, 0, 10, asm.Word), asm.Mov.Imm(asm.R0, 10), asm.Mov.Imm(asm.R1, 3),
				withOp(tt.op.Mem(asm.R9, asm.R1, size, 0)), asm.StoreMem(asm.R9, 8, asm.R1, asm.DWord), asm.StoreMem(asm.R9, 16, asm.R0, asm.DWord), asm.Return(),
			}}})
			if err != nil {
				t.Fatal(err)
			}
			_, err = m.Run("p", ctx)
			u := binary.LittleEndian.Uint64
			if w, r1, r0 := u(ctx), u(ctx[8:]), u(ctx[16:]); err != nil || w != tt.word || r1 != tt.r1 || r0 != tt.r0 {
				t.Errorf("%v %v: word %d, r1 %d, r0 %d, %v; want %d, %d, %d", tt.op, size, w, r1, r0, err, tt.word, tt.r1, tt.r0)
			}
		}
	}
}

// TestRejected: what a verifier would not load is an error that says where.
func TestRejected(t *testing.T) {
	ret := asm.Return()
	zero := asm.Mov.Imm(asm.R0, 0)
	tests := []struct {
		name  string
		insns asm.Instructions
		pc    int
		want  string
	}{
		{"below the stack", asm.Instructions{zero, asm.StoreMem(asm.RFP, -520, asm.R0, asm.DWord), ret}, 1, "stack fp-520"},
		{"above the stack", asm.Instructions{asm.LoadMem(asm.R0, asm.RFP, 0, asm.Byte), ret}, 0, "stack fp+0"},
		{"across the top", asm.Instructions{asm.LoadMem(asm.R0, asm.RFP, -4, asm.DWord), ret}, 0, "stack fp-4"},
		{"behind the context", asm.Instructions{asm.LoadMem(asm.R0, asm.R1, 8, asm.Word), ret}, 0, "context+8, outside its 8 bytes"},
		{"before the context", asm.Instructions{asm.LoadMem(asm.R0, asm.R1, -1, asm.Byte), ret}, 0, "context-1"},
		{"store to the kernel", asm.Instructions{asm.LoadImm(asm.R1, -4096, asm.DWord), asm.StoreMem(asm.R1, 0, asm.R1, asm.Word), ret}, 2, "does not own"},
		{"store to null", asm.Instructions{zero, asm.StoreMem(asm.R0, 8, asm.R0, asm.Word), ret}, 1, "does not own"},
		{"register lost over a call", asm.Instructions{asm.FnKtimeGetNs.Call(), asm.LoadMem(asm.R0, asm.R1, 0, asm.Word), ret}, 1, "do not survive a call"},
		{"no exit", asm.Instructions{zero}, 1, "ends without exit"},
		{"endless", asm.Instructions{asm.Ja.Label("l").WithSymbol("l")}, 0, "budget"},
		{"recursion", asm.Instructions{zero, asm.Call.Label("f"), ret, asm.Call.Label("f").WithSymbol("f"), ret}, 3, "deeper than 8"},
		{"map behind its end", asm.Instructions{
			asm.LoadMapValue(asm.R1, 0, 0).WithReference("one"), asm.LoadMem(asm.R0, asm.R1, 9, asm.DWord), ret,
		}, 2, "map value one+9"},
		{"helper argument", asm.Instructions{
			asm.Mov.Reg(asm.R1, asm.RFP), asm.Mov.Imm(asm.R2, 16), asm.FnGetCurrentComm.Call(), ret,
		}, 2, "write of 16 bytes at stack fp+0"},
		{"map instead of memory", asm.Instructions{asm.LoadMapPtr(asm.R1, 0).WithReference("one"), asm.LoadMem(asm.R0, asm.R1, 0, asm.Word), ret}, 2, "not memory"},
	}
	for _, tt := range tests {
		m, err := New(Config{Programs: map[string]asm.Instructions{"p": tt.insns}, Budget: 10000, Maps: oneMap})
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		_, err = m.Run("p", make([]byte, 8))
		var e *Error
		if !errors.As(err, &e) || e.PC != tt.pc || !strings.Contains(e.Msg, tt.want) {
			t.Errorf("%s: %v; want instruction %d: %s", tt.name, err, tt.pc, tt.want)
		}
	}
}

var oneMap = map[string]*ebpf.MapSpec{"one": {Type: ebpf.Array, KeySize: 4, ValueSize: 16, MaxEntries: 1}}

// TestUndecodable: New refuses what the machine does not have.
func TestUndecodable(t *testing.T) {
	ret := asm.Return()
	kfunc := asm.Instruction{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.Call), Src: asm.PseudoKfuncCall}.WithReference("bpf_nosuch")
	tests := []struct {
		insns asm.Instructions
		want  string
	}{
		{asm.Instructions{asm.FnTailCall.Call(), ret}, "no helper"},
		{asm.Instructions{kfunc, ret}, "no kfunc bpf_nosuch"},
		{asm.Instructions{asm.Ja.Label("nosuch"), ret}, "no symbol nosuch"},
		{asm.Instructions{asm.LoadMapPtr(asm.R1, 0).WithReference("nosuch"), ret}, `no map "nosuch"`},
		{asm.Instructions{asm.LoadMapValue(asm.R1, 0, 16).WithReference("one"), ret}, "no address for its value at 16"},
		{asm.Instructions{asm.Mov.Imm(asm.RFP, 0), ret}, "frame pointer"},
		{asm.Instructions{{OpCode: asm.Ja.Op(asm.ImmSource), Offset: 7}, ret}, "leads to no instruction"},
		{asm.Instructions{{OpCode: asm.Ja.Op(asm.ImmSource), Offset: 1}, asm.LoadImm(asm.R0, 0, asm.DWord), ret}, "leads to no instruction"},
		{asm.Instructions{asm.Xchg.Mem(asm.RFP, asm.R0, asm.DWord, -8), ret}, "the kernel wants the operation"},
		{asm.Instructions{{OpCode: asm.LoadMemSXOp(asm.DWord)}, ret}, "unknown instruction"},
	}
	for _, tt := range tests {
		_, err := New(Config{Programs: map[string]asm.Instructions{"p": tt.insns}, Maps: oneMap})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: error %v; want %s", tt.insns, err, tt.want)
		}
	}
}

// TestFrames: a function sees its caller's stack through a pointer and has its own.
func TestFrames(t *testing.T) {
	got, err := run(t,
		asm.StoreImm(asm.RFP, -8, 5, asm.Word), asm.Mov.Imm(asm.R6, 100),
		asm.Mov.Reg(asm.R1, asm.RFP), asm.Add.Imm(asm.R1, -8), asm.Call.Label("f"),
		asm.LoadMem(asm.R1, asm.RFP, -8, asm.Word), asm.Add.Reg(asm.R0, asm.R1), asm.Add.Reg(asm.R0, asm.R6), asm.Return(),
		asm.StoreImm(asm.RFP, -8, 1, asm.Word).WithSymbol("f"), asm.StoreImm(asm.R1, 0, 6, asm.Word),
		asm.Mov.Imm(asm.R6, 0), asm.LoadMem(asm.R0, asm.RFP, -8, asm.Word), asm.Return())
	if err != nil || got != 107 {
		t.Errorf("r0 = %d, %v; want 107", got, err)
	}
}

// TestPacket: the packet through xdp_md's fields and through classic BPF's loads.
func TestPacket(t *testing.T) {
	m, err := New(Config{Programs: map[string]asm.Instructions{
		"xdp": {
			asm.LoadMem(asm.R2, asm.R1, 0, asm.Word), asm.LoadMem(asm.R3, asm.R1, 4, asm.Word),
			asm.LoadMem(asm.R0, asm.R2, 2, asm.Half), asm.Sub.Reg(asm.R3, asm.R2), asm.LSh.Imm(asm.R3, 16), asm.Or.Reg(asm.R0, asm.R3), asm.Return(),
		},
		"abs": {asm.Mov.Reg(asm.R6, asm.R1), asm.LoadAbs(1, asm.Half), asm.Return()},
		"out": {asm.Mov.Reg(asm.R6, asm.R1), asm.LoadAbs(3, asm.Half), asm.Mov.Imm(asm.R0, 9), asm.Return()},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		prog string
		want uint64
	}{{"xdp", 4<<16 | 0x4433}, {"abs", 0x2233}, {"out", 0}} {
		got, err := m.RunInput(tt.prog, Input{Ctx: make([]byte, 24), Packet: []byte{0x11, 0x22, 0x33, 0x44}, Kind: CtxXDP})
		if err != nil || got != tt.want {
			t.Errorf("%s: %#x, %v; want %#x", tt.prog, got, err, tt.want)
		}
	}
}
