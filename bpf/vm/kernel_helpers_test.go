package vm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// pinCPU keeps the test's goroutine on CPU 0, so that per-CPU maps can be compared.
func pinCPU(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	var old, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &old); err != nil {
		t.Fatal(err)
	}
	one.Set(0)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Skipf("cannot stay on CPU 0: %v", err)
	}
	t.Cleanup(func() {
		_ = unix.SchedSetaffinity(0, &old)
		runtime.UnlockOSThread()
	})
}

// mapProgram makes n random operations with keys 0..7 on the map "m"; what
// each gave goes to a word of the context.
func mapProgram(g *generator, n int) asm.Instructions {
	g.insns = nil
	g.emit(asm.Mov.Reg(asm.R9, asm.R1))
	for i := range n {
		out := int16(8 * i)
		g.emit(asm.StoreImm(asm.RFP, -8, int64(g.IntN(8)), asm.Word),
			asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -8), asm.LoadMapPtr(asm.R1, 0).WithReference("m"))
		switch g.IntN(5) {
		case 0, 1:
			g.emit(asm.LoadImm(asm.R0, g.wide(), asm.DWord), asm.StoreMem(asm.RFP, -16, asm.R0, asm.DWord),
				asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, -16), asm.Mov.Imm(asm.R4, int32(g.IntN(4)+4*(g.IntN(20)/19)*2)),
				asm.FnMapUpdateElem.Call(), asm.StoreMem(asm.R9, out, asm.R0, asm.DWord))
		case 2:
			g.emit(asm.FnMapDeleteElem.Call(), asm.StoreMem(asm.R9, out, asm.R0, asm.DWord))
		default:
			label := fmt.Sprintf("null%d", i)
			g.emit(asm.FnMapLookupElem.Call(), asm.JEq.Imm(asm.R0, 0, label), asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord),
				asm.Add.Imm(asm.R1, 1), asm.StoreMem(asm.R0, 0, asm.R1, asm.DWord), asm.Mov.Reg(asm.R0, asm.R1),
				asm.StoreMem(asm.R9, out, asm.R0, asm.DWord).WithSymbol(label))
		}
	}
	g.emit(asm.Mov.Imm(asm.R0, 0), asm.Return())
	return g.insns
}

func TestDifferentialMaps(t *testing.T) {
	needKernel(t)
	cpus := ebpf.MustPossibleCPU()
	const ops = 40
	for _, typ := range []ebpf.MapType{ebpf.Hash, ebpf.Array, ebpf.PerCPUHash, ebpf.PerCPUArray} {
		t.Run(typ.String(), func(t *testing.T) {
			pinCPU(t)
			for seed := range 150 {
				spec := &ebpf.MapSpec{Name: "m", Type: typ, KeySize: 4, ValueSize: 8, MaxEntries: 5}
				km, err := ebpf.NewMap(spec)
				if err != nil {
					t.Fatal(err)
				}
				prog := mapProgram(&generator{Rand: rand.New(rand.NewPCG(uint64(seed), 2))}, ops)
				m, err := New(Config{Programs: map[string]asm.Instructions{"p": prog}, Maps: map[string]*ebpf.MapSpec{"m": spec}, CPUs: cpus})
				if err != nil {
					t.Fatal(err)
				}
				ours, kernel := make([]byte, 8*ops), make([]byte, 8*ops)
				if _, err := m.Run("p", ours); err != nil {
					t.Fatal(err)
				}
				if _, err := kernelRun(prog, map[string]*ebpf.Map{"m": km}, kernel); err != nil {
					t.Fatalf("seed %d: %+v", seed, err)
				}
				if !bytes.Equal(ours, kernel) {
					t.Fatalf("seed %d: results\nours   %x\nkernel %x", seed, ours, kernel)
				}
				compareMaps(t, seed, m.Map("m"), km, cpus)
				km.Close()
			}
		})
	}
}

func compareMaps(t *testing.T, seed int, ours *Map, kernel *ebpf.Map, cpus int) {
	t.Helper()
	for k := range uint32(8) {
		v, err := ours.Lookup(u32(k))
		var raw []byte
		var kerr error
		if ours.perCPU() {
			words := make([]uint64, cpus)
			kerr = kernel.Lookup(k, &words)
			for _, w := range words {
				raw = append(raw, u64(w)...)
			}
		} else {
			kerr = kernel.Lookup(k, &raw)
		}
		if (err == nil) != (kerr == nil) || err == nil && !bytes.Equal(v, raw) {
			t.Fatalf("seed %d: key %d: %x, %v; kernel %x, %v", seed, k, v, err, raw, kerr)
		}
	}
}

// TestDifferentialFormat compares bpf_snprintf.
func TestDifferentialFormat(t *testing.T) {
	needKernel(t)
	neg := ^uint64(0) - 41
	formats := []struct {
		f    string
		args []uint64
	}{
		{"plain %%", nil},
		{"%d %i %u", []uint64{neg, 7, neg}},
		{"%ld|%lld|%llu", []uint64{neg, neg, neg}},
		{"%x %X %lx", []uint64{0xabc, 0xabc, neg}},
		{"%#x", []uint64{255}},
		{"%+d % d %+d", []uint64{5, 5, neg}},
		{"[%5d] [%-5d] [%05d]", []uint64{42, 42, neg}},
		{"[%8x] [%08x] [%-8x]|", []uint64{0xbeef, 0xbeef, 0xbeef}},
		{"%c%c", []uint64{'o', 'k'}},
		{"%d", nil},
		{"%f", []uint64{1}},
		{"%px", []uint64{0xffff888012345678}},
		{"tail %", nil},
		{"%lu and more text than fits into the buffer of the program, which has 64 bytes", []uint64{1 << 40}},
	}
	for _, tt := range formats {
		spec := &ebpf.MapSpec{Name: "fmt", Type: ebpf.Array, KeySize: 4, ValueSize: 128, MaxEntries: 1, Flags: 1 << 7}
		value := append([]byte(tt.f), make([]byte, 128-len(tt.f))...)
		km, err := ebpf.NewMap(spec)
		if err != nil {
			t.Fatal(err)
		}
		if err := km.Put(uint32(0), value); err != nil {
			t.Fatal(err)
		}
		if err := km.Freeze(); err != nil {
			t.Fatal(err)
		}
		prog := formatProgram(tt.args)
		m, err := New(Config{Programs: map[string]asm.Instructions{"p": prog}, Maps: map[string]*ebpf.MapSpec{"fmt": spec}})
		if err != nil {
			t.Fatal(err)
		}
		_ = m.Map("fmt").Update(u32(0), value, 0)
		ours, kernel := make([]byte, 72), make([]byte, 72)
		if _, err := m.Run("p", ours); err != nil {
			t.Fatal(err)
		}
		_, err = kernelRun(prog, map[string]*ebpf.Map{"fmt": km}, kernel)
		km.Close()
		if err != nil { // the verifier checks formats where it can
			if int64(binary.LittleEndian.Uint64(ours[64:])) >= 0 {
				t.Errorf("%q: kernel: %v; ours %q", tt.f, err, ours)
			}
			continue
		}
		if !bytes.Equal(ours, kernel) {
			t.Errorf("%q %x:\nours   %q\nkernel %q", tt.f, tt.args, ours, kernel)
		}
	}
}

// formatProgram is ctx[64] = snprintf(buf, 64, fmt, args); ctx[0..63] = buf.
func formatProgram(args []uint64) asm.Instructions {
	insns := asm.Instructions{asm.Mov.Reg(asm.R9, asm.R1), asm.Mov.Imm(asm.R0, 0)}
	for i := range 8 {
		insns = append(insns, asm.StoreMem(asm.RFP, int16(-64+8*i), asm.R0, asm.DWord))
	}
	for i, a := range args {
		insns = append(insns, asm.LoadImm(asm.R0, int64(a), asm.DWord), asm.StoreMem(asm.RFP, int16(-160+8*i), asm.R0, asm.DWord))
	}
	insns = append(insns, asm.Mov.Reg(asm.R1, asm.RFP), asm.Add.Imm(asm.R1, -64), asm.Mov.Imm(asm.R2, 64),
		asm.LoadMapValue(asm.R3, 0, 0).WithReference("fmt"), asm.Mov.Reg(asm.R4, asm.RFP), asm.Add.Imm(asm.R4, -160), asm.Mov.Imm(asm.R5, int32(8*len(args))))
	if len(args) == 0 {
		insns = append(insns, asm.Mov.Imm(asm.R4, 0))
	}
	insns = append(insns, asm.FnSnprintf.Call(), asm.StoreMem(asm.R9, 64, asm.R0, asm.DWord))
	for i := range 8 {
		insns = append(insns, asm.LoadMem(asm.R0, asm.RFP, int16(-64+8*i), asm.DWord), asm.StoreMem(asm.R9, int16(8*i), asm.R0, asm.DWord))
	}
	return append(insns, asm.Mov.Imm(asm.R0, 0), asm.Return())
}

// callbackProgram sums, in bpf_loop and bpf_for_each_map_elem: ctx[0] and ctx[8]
// are what the helpers return, ctx[16] and ctx[24] the sums.
func callbackProgram(n, stopAt int32) asm.Instructions {
	u := &btf.Int{Name: "long", Size: 8, Encoding: btf.Signed}
	fn := func(name string, linkage btf.FuncLinkage, params ...string) *btf.Func {
		p := &btf.FuncProto{Return: u}
		for _, n := range params {
			p.Params = append(p.Params, btf.FuncParam{Name: n, Type: u})
		}
		return &btf.Func{Name: name, Type: p, Linkage: linkage}
	}
	load := func(r asm.Register, f string) asm.Instruction {
		return asm.Instruction{OpCode: asm.LoadImmOp(asm.DWord), Dst: r, Src: asm.PseudoFunc, Constant: -1}.WithReference(f)
	}
	return asm.Instructions{
		btf.WithFuncMetadata(asm.Mov.Reg(asm.R9, asm.R1).WithSymbol("main"), fn("main", btf.GlobalFunc, "ctx")),
		asm.Mov.Imm(asm.R0, 0), asm.StoreMem(asm.RFP, -8, asm.R0, asm.DWord), asm.StoreMem(asm.RFP, -16, asm.R0, asm.DWord),
		asm.Mov.Imm(asm.R1, n), load(asm.R2, "each"), asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, -8), asm.Mov.Imm(asm.R4, 0),
		asm.FnLoop.Call(), asm.StoreMem(asm.R9, 0, asm.R0, asm.DWord),
		asm.LoadMapPtr(asm.R1, 0).WithReference("m"), load(asm.R2, "elem"), asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, -16), asm.Mov.Imm(asm.R4, 0),
		asm.FnForEachMapElem.Call(), asm.StoreMem(asm.R9, 8, asm.R0, asm.DWord),
		asm.LoadMem(asm.R0, asm.RFP, -8, asm.DWord), asm.StoreMem(asm.R9, 16, asm.R0, asm.DWord),
		asm.LoadMem(asm.R0, asm.RFP, -16, asm.DWord), asm.StoreMem(asm.R9, 24, asm.R0, asm.DWord),
		asm.Mov.Imm(asm.R0, 0), asm.Return(),

		btf.WithFuncMetadata(asm.LoadMem(asm.R3, asm.R2, 0, asm.DWord).WithSymbol("each"), fn("each", btf.StaticFunc, "i", "sum")),
		asm.Add.Reg(asm.R3, asm.R1), asm.StoreMem(asm.R2, 0, asm.R3, asm.DWord), asm.Mov.Imm(asm.R0, 0),
		asm.JNE.Imm(asm.R1, stopAt, "go"), asm.Mov.Imm(asm.R0, 1), asm.Return().WithSymbol("go"),

		btf.WithFuncMetadata(asm.LoadMem(asm.R5, asm.R4, 0, asm.DWord).WithSymbol("elem"), fn("elem", btf.StaticFunc, "map", "k", "v", "sum")),
		asm.LoadMem(asm.R2, asm.R2, 0, asm.Word), asm.LoadMem(asm.R3, asm.R3, 0, asm.DWord), asm.Mul.Reg(asm.R2, asm.R3),
		asm.Add.Reg(asm.R5, asm.R2), asm.StoreMem(asm.R4, 0, asm.R5, asm.DWord), asm.Mov.Imm(asm.R0, 0), asm.Return(),
	}
}

func TestDifferentialCallbacks(t *testing.T) {
	needKernel(t)
	for _, typ := range []ebpf.MapType{ebpf.Hash, ebpf.Array} {
		for _, n := range []int32{0, 1, 10, 1000, 8<<20 + 1} {
			spec := &ebpf.MapSpec{Name: "m", Type: typ, KeySize: 4, ValueSize: 8, MaxEntries: 5}
			km, err := ebpf.NewMap(spec)
			if err != nil {
				t.Fatal(err)
			}
			prog := callbackProgram(n, 100)
			m, err := New(Config{Programs: map[string]asm.Instructions{"p": prog}, Maps: map[string]*ebpf.MapSpec{"m": spec}})
			if err != nil {
				t.Fatal(err)
			}
			for k := range uint32(4) {
				_ = m.Map("m").Update(u32(k), u64(uint64(k)*3+1), 0)
				_ = km.Put(k, uint64(k)*3+1)
			}
			ours, kernel := make([]byte, 32), make([]byte, 32)
			if _, err := m.Run("p", ours); err != nil {
				t.Fatal(err)
			}
			_, err = kernelRun(prog, map[string]*ebpf.Map{"m": km}, kernel)
			km.Close()
			if err != nil {
				t.Fatalf("%+v", err)
			}
			if !bytes.Equal(ours, kernel) {
				t.Errorf("%v, %d: ours %x, kernel %x", typ, n, ours, kernel)
			}
		}
	}
}
