package verifier_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/rlimit"

	"github.com/fathom-trace/fathom/bpf/verifier"
	"github.com/fathom-trace/fathom/internal/ktest"
)

var guests = ktest.Config{}

func TestMain(m *testing.M)  { ktest.Main(m, guests) }
func TestGuest(t *testing.T) { ktest.Guests(t, guests) }

// broken are programs that break one rule each.
func broken(m *ebpf.Map) []struct {
	name  string
	kind  verifier.Kind
	typ   ebpf.ProgramType
	insns asm.Instructions
} {
	ret := asm.Return()
	zero := asm.Mov.Imm(asm.R0, 0)
	// lookup leaves in r0 the address of an element, or NULL.
	lookup := asm.Instructions{
		asm.StoreImm(asm.RFP, -4, 0, asm.Word), asm.LoadMapPtr(asm.R1, m.FD()), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
	}
	value := append(append(asm.Instructions{}, lookup...), asm.JEq.Imm(asm.R0, 0, "out"))
	end := asm.Instructions{zero.WithSymbol("out"), ret}
	with := func(parts ...asm.Instructions) asm.Instructions {
		var all asm.Instructions
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	var long asm.Instructions // a loop with a branch in it that the verifier has to walk
	long = append(long, asm.FnKtimeGetNs.Call(), asm.Mov.Reg(asm.R6, asm.R0), asm.Mov.Imm(asm.R7, 0),
		asm.Add.Imm(asm.R7, 1).WithSymbol("again"), asm.JLT.Imm(asm.R7, 2_000_000, "again"), zero, ret)
	return []struct {
		name  string
		kind  verifier.Kind
		typ   ebpf.ProgramType
		insns asm.Instructions
	}{
		{"helper", verifier.HelperHere, ebpf.SocketFilter, asm.Instructions{asm.Mov.Imm(asm.R2, 0), asm.FnOverrideReturn.Call(), ret}},
		{"helper here", verifier.HelperHere, ebpf.Tracing, asm.Instructions{
			asm.Mov.Imm(asm.R2, 0), asm.StoreMem(asm.RFP, -8, asm.R2, asm.DWord), asm.LoadMem(asm.R1, asm.R1, 8, asm.DWord), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -8), asm.Mov.Imm(asm.R3, 8), asm.FnDPath.Call(), zero, ret}},
		{"loop", verifier.TooLong, ebpf.RawTracepoint, long},
		{"endless", verifier.Loop, ebpf.RawTracepoint, asm.Instructions{zero, asm.JNE.Imm(asm.R0, 5, "a").WithSymbol("a"), ret}},
		{"null", verifier.NullPointer, ebpf.RawTracepoint, with(lookup, asm.Instructions{asm.LoadMem(asm.R0, asm.R0, 0, asm.DWord), ret})},
		{"number", verifier.NotPointer, ebpf.RawTracepoint, asm.Instructions{asm.Mov.Imm(asm.R1, 4096), asm.LoadMem(asm.R0, asm.R1, 0, asm.DWord), ret}},
		{"index", verifier.Unbounded, ebpf.RawTracepoint, with(value, asm.Instructions{asm.Mov.Reg(asm.R6, asm.R0), asm.FnGetPrandomU32.Call(), asm.Add.Reg(asm.R6, asm.R0), asm.LoadMem(asm.R0, asm.R6, 0, asm.Byte)}, end)},
		{"negative", verifier.Negative, ebpf.RawTracepoint, with(value, asm.Instructions{asm.Mov.Reg(asm.R6, asm.R0), asm.FnKtimeGetNs.Call(), asm.JSGT.Imm(asm.R0, 3, "out"), asm.JSLT.Imm(asm.R0, -8, "out"), asm.Add.Reg(asm.R6, asm.R0), asm.LoadMem(asm.R0, asm.R6, 0, asm.Byte)}, end)},
		{"value", verifier.OutOfMap, ebpf.RawTracepoint, with(value, asm.Instructions{asm.LoadMem(asm.R0, asm.R0, 8, asm.DWord)}, end)},
		{"stack", verifier.OutOfStack, ebpf.RawTracepoint, asm.Instructions{zero, asm.StoreMem(asm.RFP, -520, asm.R0, asm.DWord), ret}},
		{"unwritten", verifier.Unwritten, ebpf.RawTracepoint, asm.Instructions{asm.LoadMapPtr(asm.R1, m.FD()), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4), asm.FnMapLookupElem.Call(), zero, ret}},
		{"register", verifier.NoValue, ebpf.RawTracepoint, asm.Instructions{asm.Mov.Reg(asm.R0, asm.R3), ret}},
		{"context", verifier.OutOfContext, ebpf.PerfEvent, asm.Instructions{asm.LoadMem(asm.R0, asm.R1, 4096, asm.DWord), ret}},
		{"read only", verifier.ReadOnly, ebpf.Tracing, asm.Instructions{zero, asm.LoadMem(asm.R1, asm.R1, 8, asm.DWord), asm.StoreMem(asm.R1, 0, asm.R0, asm.DWord), ret}},
		{"arithmetic", verifier.Arithmetic, ebpf.RawTracepoint, asm.Instructions{asm.Mul.Imm(asm.R1, 2), zero, ret}},
		{"argument", verifier.ArgType, ebpf.RawTracepoint, asm.Instructions{asm.Mov.Imm(asm.R1, 0), asm.Mov.Reg(asm.R2, asm.RFP), asm.FnMapLookupElem.Call(), zero, ret}},
		{"unreachable", verifier.Unreachable, ebpf.RawTracepoint, asm.Instructions{zero, ret, zero, ret}},
		{"return value", verifier.ReturnValue, ebpf.CGroupSKB, asm.Instructions{asm.Mov.Imm(asm.R0, 7), ret}},
		{"no return", verifier.BadInsn, ebpf.RawTracepoint, asm.Instructions{zero, asm.Mov.Imm(asm.R1, 0)}},
	}
}

// hole is a part of a text that was not filled in.
var hole = regexp.MustCompile(`\{(\d|helper)\}`)

// TestKernel breaks the rules on a real kernel: each refusal must be understood, whatever words this version has.
func TestKernel(t *testing.T) {
	ktest.Need(t, ktest.BTF, ktest.RawTracepoint)
	_ = rlimit.RemoveMemlock()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for _, b := range broken(m) {
		t.Run(b.name, func(t *testing.T) {
			if b.kind == verifier.TooLong && ktest.InGuest() {
				t.Skip("a million instructions take minutes in an emulated guest; the words have been the same since 5.2")
			}
			spec := &ebpf.ProgramSpec{Type: b.typ, License: "GPL", Instructions: b.insns}
			switch b.typ {
			case ebpf.Tracing:
				spec.AttachType, spec.AttachTo = ebpf.AttachTraceRawTp, "sched_switch"
			case ebpf.CGroupSKB:
				spec.AttachType = ebpf.AttachCGroupInetEgress
			}
			p, err := ebpf.NewProgram(spec)
			if err == nil {
				p.Close()
				if b.kind == verifier.Unwritten { // allowed to those with CAP_PERFMON since 6.3
					return
				}
				t.Fatal("the kernel takes it")
			}
			var ve *ebpf.VerifierError
			if !errors.As(err, &ve) {
				t.Fatal(err)
			}
			r := verifier.Parse(ve.Log)
			why, fix, ok := r.Explain()
			if !ok || r.Kind != b.kind || hole.MatchString(why+fix) {
				t.Errorf("%q is kind %q, want %q: %s; %s\n%s", r.Message, r.Kind, b.kind, why, fix, strings.Join(ve.Log, "\n"))
			}
		})
	}
}
