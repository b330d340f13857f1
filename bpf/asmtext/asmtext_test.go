package asmtext

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/rlimit"
	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/bpf/vm"
)

func withOp(ins asm.Instruction) asm.Instruction {
	ins.Constant = int64(ins.OpCode.AtomicOp() >> 8)
	return ins
}

// every instruction with its text; in this order the program passes the verifier.
var every = []struct {
	ins  asm.Instruction
	text string
}{
	{asm.Mov.Imm(asm.R0, 0), "(b7) r0 = 0"},
	{asm.Mov.Imm(asm.R2, -7), "(b7) r2 = -7"},
	{asm.LoadImm(asm.R3, -2, asm.DWord), "(18) r3 = 0xfffffffffffffffe"},
	{asm.Add.Reg(asm.R0, asm.R2), "(0f) r0 += r2"},
	{asm.Sub.Imm(asm.R0, 5), "(17) r0 -= 5"},
	{asm.Mul.Reg32(asm.R0, asm.R2), "(2c) w0 *= w2"},
	{asm.Div.Imm(asm.R0, 3), "(37) r0 /= 3"},
	{asm.SDiv.Reg(asm.R0, asm.R2), "(3f) r0 s/= r2"},
	{asm.SDiv.Imm32(asm.R0, -3), "(34) w0 s/= -3"},
	{asm.Or.Reg(asm.R0, asm.R3), "(4f) r0 |= r3"},
	{asm.And.Imm32(asm.R0, 255), "(54) w0 &= 255"},
	{asm.LSh.Imm(asm.R0, 3), "(67) r0 <<= 3"},
	{asm.RSh.Reg(asm.R0, asm.R2), "(7f) r0 >>= r2"},
	{asm.ArSh.Imm(asm.R0, 2), "(c7) r0 s>>= 2"},
	{asm.ArSh.Reg32(asm.R0, asm.R2), "(cc) w0 s>>= w2"},
	{asm.Neg.Imm(asm.R0, 0), "(87) r0 = -r0"},
	{asm.Neg.Imm32(asm.R0, 0), "(84) w0 = -w0"},
	{asm.Mod.Reg(asm.R0, asm.R2), "(9f) r0 %= r2"},
	{asm.SMod.Imm(asm.R0, 7), "(97) r0 s%= 7"},
	{asm.Xor.Reg(asm.R0, asm.R2), "(af) r0 ^= r2"},
	{asm.Mov.Reg32(asm.R4, asm.R0), "(bc) w4 = w0"},
	{asm.MovSX8.Reg(asm.R4, asm.R0), "(bf) r4 = (s8)r0"},
	{asm.MovSX16.Reg32(asm.R4, asm.R0), "(bc) w4 = (s16)w0"},
	{asm.MovSX32.Reg(asm.R4, asm.R0), "(bf) r4 = (s32)r0"},
	{asm.HostTo(asm.BE, asm.R4, asm.Half), "(dc) r4 = be16 r4"},
	{asm.HostTo(asm.LE, asm.R4, asm.Word), "(d4) r4 = le32 r4"},
	{asm.BSwap(asm.R4, asm.DWord), "(d7) r4 = bswap64 r4"},
	{asm.StoreMem(asm.RFP, -8, asm.R2, asm.DWord), "(7b) *(u64 *)(r10 -8) = r2"},
	{asm.StoreMem(asm.RFP, -9, asm.R2, asm.Byte), "(73) *(u8 *)(r10 -9) = r2"},
	{asm.StoreImm(asm.RFP, -16, -1, asm.Word), "(62) *(u32 *)(r10 -16) = -1"},
	{asm.StoreImm(asm.RFP, -12, 9, asm.Half), "(6a) *(u16 *)(r10 -12) = 9"},
	{asm.LoadMem(asm.R5, asm.RFP, -8, asm.DWord), "(79) r5 = *(u64 *)(r10 -8)"},
	{asm.LoadMem(asm.R5, asm.RFP, -8, asm.Byte), "(71) r5 = *(u8 *)(r10 -8)"},
	{asm.LoadMemSX(asm.R5, asm.RFP, -8, asm.Half), "(89) r5 = *(s16 *)(r10 -8)"},
	{withOp(asm.AddAtomic.Mem(asm.RFP, asm.R2, asm.DWord, -8)), "(db) lock *(u64 *)(r10 -8) += r2"},
	{withOp(asm.XorAtomic.Mem(asm.RFP, asm.R2, asm.Word, -8)), "(c3) lock *(u32 *)(r10 -8) ^= r2"},
	{withOp(asm.FetchAdd.Mem(asm.RFP, asm.R2, asm.DWord, -8)), "(db) r2 = atomic64_fetch_add((u64 *)(r10 -8), r2)"},
	{withOp(asm.FetchOr.Mem(asm.RFP, asm.R2, asm.Word, -8)), "(c3) r2 = atomic_fetch_or((u32 *)(r10 -8), r2)"},
	{withOp(asm.Xchg.Mem(asm.RFP, asm.R2, asm.DWord, -8)), "(db) r2 = atomic64_xchg((u64 *)(r10 -8), r2)"},
	{withOp(asm.CmpXchg.Mem(asm.RFP, asm.R2, asm.Word, -8)), "(c3) r0 = atomic_cmpxchg((u32 *)(r10 -8), r0, r2)"},
	{withOp(asm.LoadAcquire(asm.R2, asm.RFP, asm.DWord, -8)), "(db) r2 = load_acquire((u64 *)(r10 -8))"},
	{withOp(asm.StoreRelease(asm.RFP, asm.R2, asm.Word, -8)), "(c3) store_release((u32 *)(r10 -8), r2)"},
	{asm.Mov.Reg(asm.R6, asm.R1), "(bf) r6 = r1"},
	{asm.LoadAbs(12, asm.Half), "(28) r0 = *(u16 *)skb[12]"},
	{asm.Mov.Imm(asm.R7, 1), "(b7) r7 = 1"},
	{asm.LoadInd(asm.R0, asm.R7, 2, asm.Byte), "(50) r0 = *(u8 *)skb[r7 + 2]"},
	{asm.FnKtimeGetNs.Call(), "(85) call bpf_ktime_get_ns#5"},
	{asm.JEq.Imm(asm.R0, -1, "x"), "(15) if r0 == 0xffffffff goto pc+4 <x>"},
	{asm.JSGT.Reg(asm.R0, asm.R7, "x"), "(6d) if r0 s> r7 goto pc+3 <x>"},
	{asm.JLE.Imm32(asm.R0, 16, "x"), "(b6) if w0 <= 0x10 goto pc+2 <x>"},
	{asm.JSet.Reg32(asm.R0, asm.R7, "x"), "(4e) if w0 & w7 goto pc+1 <x>"},
	{asm.LongJump("x"), "(06) gotol pc+0 <x>"},
	{asm.Ja.Label("y").WithSymbol("x"), "(05) goto pc+0 <y>"},
	{asm.Mov.Imm(asm.R0, 0).WithSymbol("y"), "(b7) r0 = 0"},
	{asm.Return(), "(95) exit"},
}

func everyInsn() asm.Instructions {
	var insns asm.Instructions
	for _, e := range every {
		insns = append(insns, e.ins)
	}
	return insns
}

// lines drops labels, comments and numbers.
func lines(text string) []string {
	var out []string
	for l := range strings.SplitSeq(text, "\n") {
		if _, after, ok := strings.Cut(l, ": ("); ok {
			out = append(out, "("+after)
		}
	}
	return out
}

func TestEvery(t *testing.T) {
	var want []string
	for _, e := range every {
		want = append(want, e.text)
	}
	if diff := cmp.Diff(want, lines(Format(everyInsn()))); diff != "" {
		t.Error(diff)
	}
}

// more is what needs symbols: maps, functions, kfuncs.
func more() asm.Instructions {
	return asm.Instructions{
		asm.LoadMapPtr(asm.R1, 0).WithReference("count").WithSymbol("main").WithSource(asm.Comment("x = @count[1]")),
		asm.LoadMapValue(asm.R2, 0, 8).WithReference("data"),
		asm.LoadMapPtr(asm.R1, 7),
		asm.Instruction{OpCode: asm.LoadImmOp(asm.DWord), Dst: asm.R2, Src: asm.PseudoFunc, Constant: -1}.WithReference("each"),
		asm.Call.Label("each"),
		asm.Instruction{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.Call), Src: asm.PseudoKfuncCall}.WithReference("bpf_strlen"),
		asm.Instruction{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.JCOND), Offset: 1},
		asm.Return(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("each"),
		asm.Return(),
	}
}

const moreText = `main:
  ; x = @count[1]
  0: (18) r1 = map[count]
  2: (18) r2 = map[data][0]+8
  4: (18) r1 = map[fd:7]
  6: (18) r2 = subprog[+5] <each>
  8: (85) call pc+3 <each>
  9: (85) call kfunc bpf_strlen#0
  10: (e5) may_goto pc+1
  11: (95) exit
each:
  12: (b7) r0 = 0
  13: (95) exit
`

func TestSymbols(t *testing.T) {
	if diff := cmp.Diff(moreText, Format(more())); diff != "" {
		t.Error(diff)
	}
}

// TestRoundTrip: text → instructions → text is the identity, and the bytes are the kernel's.
func TestRoundTrip(t *testing.T) {
	for _, insns := range []asm.Instructions{everyInsn(), more()} {
		text := Format(insns)
		back, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(text, Format(back)); diff != "" {
			t.Error(diff)
		}
		var a, b bytes.Buffer
		if err := errors.Join(insns.Marshal(&a, binary.LittleEndian), back.Marshal(&b, binary.LittleEndian)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a.Bytes(), b.Bytes()) {
			t.Errorf("bytes differ:\n%x\n%x", a.Bytes(), b.Bytes())
		}
	}
}

func TestSyntaxErrors(t *testing.T) {
	for _, text := range []string{"nonsense", "0: (zz) r0 = 0", "0: (b7) r0 += 0", "0: (b7) r0 = r1", "0: (b7) r99 = 1", "0: (95) leave", "0: (db) r1 = atomic64_fetch_nand((u64 *)(r1 +0), r1)"} {
		var e *SyntaxError
		if _, err := Parse("\n" + text); !errors.As(err, &e) || e.Line != 2 {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestHelperNames: the derived names are the kernel's for all that the machine has.
func TestHelperNames(t *testing.T) {
	for id := asm.BuiltinFunc(1); id < 220; id++ {
		if want := vm.HelperName(id); want != "" && want != HelperName(id) {
			t.Errorf("%v: %s; want %s", id, HelperName(id), want)
		}
	}
}

var logLine = regexp.MustCompile(`(?m)^\d+: (\([0-9a-f]{2}\) [^;\n]*?)\s*(;.*)?$`)

// TestVerifierLog compares with the log of the kernel for the same program.
func TestVerifierLog(t *testing.T) {
	_ = rlimit.RemoveMemlock()
	p, err := ebpf.NewProgramWithOptions(&ebpf.ProgramSpec{Type: ebpf.SocketFilter, License: "GPL", Instructions: everyInsn()},
		ebpf.ProgramOptions{LogLevel: ebpf.LogLevelInstruction, LogSizeStart: 1 << 20})
	if err != nil {
		if os.Getenv("FATHOM_ORACLES") == "require" {
			t.Fatalf("FATHOM_ORACLES=require: %+v", err)
		}
		t.Skipf("the kernel does not take the program: %v", err)
	}
	defer p.Close()
	want := map[string]bool{}
	for _, m := range logLine.FindAllStringSubmatch(p.VerifierLog, -1) {
		want[m[1]] = true
	}
	compared := 0
	for _, l := range lines(Format(everyInsn())) {
		l, _ = cutSymbol(l)
		if want[l] {
			compared++
			continue
		}
		t.Errorf("the verifier has no line %q", l)
	}
	t.Logf("%d lines as the verifier's", compared)
	if t.Failed() {
		t.Log(p.VerifierLog)
	}
}

// FuzzParse: any text is an error or instructions that print and read the same.
func FuzzParse(f *testing.F) {
	f.Add(Format(everyInsn()))
	f.Add(moreText)
	f.Fuzz(func(t *testing.T, text string) {
		insns, err := Parse(text)
		if err != nil {
			return
		}
		out := Format(insns)
		back, err := Parse(out)
		if err != nil {
			t.Skip() // names may hold what separates fields
		}
		_ = Format(back)
	})
}
