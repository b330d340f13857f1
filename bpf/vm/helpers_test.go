package vm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/google/go-cmp/cmp"
)

// pages is a target of two readable ranges: the kernel's and the user's.
type pages struct{ kernel, user []byte }

const (
	kernelBase = 0xffff_8880_0000_1000
	userBase   = 0x0000_7f00_0000_2000
)

var errHole = errors.New("hole")

func (p pages) ReadKernel(b []byte, addr uint64) error { return readAt(b, p.kernel, addr-kernelBase) }
func (p pages) ReadUser(b []byte, addr uint64) error   { return readAt(b, p.user, addr-userBase) }

func readAt(b, from []byte, off uint64) error {
	if off > uint64(len(from)) || uint64(len(b)) > uint64(len(from))-off {
		return errHole
	}
	copy(b, from[off:])
	return nil
}

// bench is a machine with one of each map over pages, running one program.
func bench(t testing.TB, e *Env, insns ...asm.Instruction) *Machine {
	t.Helper()
	m, err := New(Config{
		Programs: map[string]asm.Instructions{"p": insns}, Env: e, CPUs: 4,
		Target: pages{kernel: []byte("hello\x00world"), user: []byte("user\x00")},
		Maps: map[string]*ebpf.MapSpec{
			"rb":     {Type: ebpf.RingBuf, MaxEntries: 4096},
			"pe":     {Type: ebpf.PerfEventArray, KeySize: 4, ValueSize: 4, MaxEntries: 4},
			"stacks": {Type: ebpf.StackTrace, KeySize: 4, ValueSize: 8 * 4, MaxEntries: 16},
			"one":    {Type: ebpf.Array, KeySize: 4, ValueSize: 16, MaxEntries: 1},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// buf is the address of a 16-byte buffer on the stack, in r1.
func buf(size int32) asm.Instructions {
	return asm.Instructions{asm.Mov.Reg(asm.R1, asm.RFP), asm.Add.Imm(asm.R1, -16), asm.Mov.Imm(asm.R2, size)}
}

// TestReads: what the readers return, what they leave behind, what is counted.
func TestReads(t *testing.T) {
	tests := []struct {
		name   string
		fn     asm.BuiltinFunc
		size   int32
		addr   uint64
		r0     int64
		buf    string // the first 8 bytes, 1s before
		faults [numFaults]uint64
	}{
		{"kernel", asm.FnProbeReadKernel, 4, kernelBase, 0, "hell\x01\x01\x01\x01", [numFaults]uint64{}},
		{"kernel hole", asm.FnProbeReadKernel, 8, kernelBase + 8, -14, "\x00\x00\x00\x00\x00\x00\x00\x00", [numFaults]uint64{FaultKernel: 1}},
		{"kernel reader, user address", asm.FnProbeReadKernel, 4, userBase, -14, "\x00\x00\x00\x00\x01\x01\x01\x01", [numFaults]uint64{FaultKernel: 1}},
		{"user", asm.FnProbeReadUser, 4, userBase, 0, "user\x01\x01\x01\x01", [numFaults]uint64{}},
		{"user hole", asm.FnProbeReadUser, 8, userBase, -14, "\x00\x00\x00\x00\x00\x00\x00\x00", [numFaults]uint64{FaultUser: 1}},
		{"copy_from_user", asm.FnCopyFromUser, 5, userBase, 0, "user\x00\x01\x01\x01", [numFaults]uint64{}},
		{"either, kernel", asm.FnProbeRead, 5, kernelBase, 0, "hello\x01\x01\x01", [numFaults]uint64{}},
		{"either, user", asm.FnProbeRead, 4, userBase, 0, "user\x01\x01\x01\x01", [numFaults]uint64{}},
		{"string", asm.FnProbeReadKernelStr, 16, kernelBase, 6, "hello\x00\x01\x01", [numFaults]uint64{}},
		{"string cut", asm.FnProbeReadKernelStr, 4, kernelBase, 4, "hel\x00\x01\x01\x01\x01", [numFaults]uint64{}},
		{"string to the hole", asm.FnProbeReadKernelStr, 16, kernelBase + 6, -14, "\x00\x00\x00\x00\x00\x00\x00\x00", [numFaults]uint64{FaultKernel: 1}},
		{"user string", asm.FnProbeReadUserStr, 16, userBase, 5, "user\x00\x01\x01\x01", [numFaults]uint64{}},
		{"null", asm.FnProbeReadStr, 16, 0, -14, "\x00\x00\x00\x00\x00\x00\x00\x00", [numFaults]uint64{FaultUser: 1}},
		{"no room", asm.FnProbeReadKernelStr, 0, kernelBase, 0, "\x01\x01\x01\x01\x01\x01\x01\x01", [numFaults]uint64{}},
	}
	for _, tt := range tests {
		insns := append(asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1), asm.LoadImm(asm.R0, 0x0101010101010101, asm.DWord),
			asm.StoreMem(asm.RFP, -16, asm.R0, asm.DWord)}, buf(tt.size)...)
		insns = append(insns, asm.LoadImm(asm.R3, int64(tt.addr), asm.DWord), tt.fn.Call(),
			asm.LoadMem(asm.R1, asm.RFP, -16, asm.DWord), asm.StoreMem(asm.R6, 0, asm.R1, asm.DWord), asm.Return())
		m := bench(t, nil, insns...)
		ctx := make([]byte, 8)
		r0, err := m.Run("p", ctx)
		got := string(ctx)
		if err != nil || int64(r0) != tt.r0 || got != tt.buf {
			t.Errorf("%s: %d, %q, %v; want %d, %q", tt.name, int64(r0), got, err, tt.r0, tt.buf)
		}
		if diff := cmp.Diff(tt.faults, m.Stats().Faults); diff != "" {
			t.Errorf("%s: faults %s", tt.name, diff)
		}
	}
}

// TestPath: the name of a path, one that does not fit, and none.
func TestPath(t *testing.T) {
	for _, tt := range []struct {
		size   int32
		addr   uint64
		r0     int64
		buf    string
		faults uint64
	}{
		{16, kernelBase, 6, "/a/bc\x00", 0},
		{6, kernelBase, 6, "/a/bc\x00", 0},
		{5, kernelBase, -int64(ENAMETOOLONG), "\x01\x01\x01\x01\x01\x01", 0},
		{16, kernelBase + 8, -int64(EFAULT), "\x00\x00\x00\x00\x00\x00", 1},
	} {
		e := &Env{Path: func(addr uint64) (string, bool) { return "/a/bc", addr == kernelBase }}
		insns := asm.Instructions{asm.LoadImm(asm.R1, 0x0101010101010101, asm.DWord), asm.StoreMem(asm.RFP, -16, asm.R1, asm.DWord),
			asm.LoadImm(asm.R1, int64(tt.addr), asm.DWord), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -16), asm.Mov.Imm(asm.R3, tt.size),
			asm.FnDPath.Call(), asm.Return()}
		m := bench(t, e, insns...)
		r0, err := m.Run("p", nil)
		if got := string(m.stack[frameSize-16 : frameSize-10]); err != nil || int64(r0) != tt.r0 || got != tt.buf || m.Stats().Faults[FaultKernel] != tt.faults {
			t.Errorf("%+v: %d, %q, %v, %v", tt, int64(r0), got, m.Stats().Faults, err)
		}
	}
}

// TestProbeMem: load instructions from target memory.
func TestProbeMem(t *testing.T) {
	for _, tt := range []struct {
		addr   uint64
		want   uint64
		faults [numFaults]uint64
	}{
		{kernelBase, 0x6c6c6568, [numFaults]uint64{}},
		{kernelBase + 1<<20, 0, [numFaults]uint64{FaultLoad: 1}},
		{16, 0, [numFaults]uint64{FaultNull: 1}},
	} {
		m := bench(t, nil, asm.LoadImm(asm.R1, int64(tt.addr), asm.DWord), asm.LoadMem(asm.R0, asm.R1, 0, asm.Word), asm.Return())
		got, err := m.Run("p", nil)
		if err != nil || got != tt.want || m.Stats().Faults != tt.faults {
			t.Errorf("%#x: %#x, %v, %v; want %#x, %v", tt.addr, got, err, m.Stats().Faults, tt.want, tt.faults)
		}
	}
}

// TestEnv: helpers without arguments, and those over a context of 8, 9, 10.
func TestEnv(t *testing.T) {
	e := &Env{Pid: 7, Tgid: 8, UID: 1, GID: 2, Comm: "a-long-name-of-a-task", Task: 0xffff888000000000, CgroupID: 5, CPU: 3, NUMANode: 1,
		Mono: 100, Boot: 200, Coarse: 96, TAI: 400, Jiffies: 500, FuncIP: 0x1234, AttachCookie: 42, FuncArgCnt: 2}
	for _, tt := range []struct {
		fn   asm.BuiltinFunc
		want uint64
	}{
		{asm.FnGetCurrentPidTgid, 8<<32 | 7},
		{asm.FnGetCurrentUidGid, 2<<32 | 1},
		{asm.FnGetCurrentTask, 0xffff888000000000},
		{asm.FnGetCurrentCgroupId, 5},
		{asm.FnGetSmpProcessorId, 3},
		{asm.FnGetNumaNodeId, 1},
		{asm.FnKtimeGetNs, 100},
		{asm.FnKtimeGetBootNs, 200},
		{asm.FnKtimeGetCoarseNs, 96},
		{asm.FnKtimeGetTaiNs, 400},
		{asm.FnJiffies64, 500},
		{asm.FnGetFuncIp, 0x1234},
		{asm.FnGetAttachCookie, 42},
		{asm.FnGetFuncArgCnt, 2},
	} {
		got, err := bench(t, e, tt.fn.Call(), asm.Return()).Run("p", nil)
		if err != nil || got != tt.want {
			t.Errorf("%v = %d, %v; want %d", tt.fn, got, err, tt.want)
		}
	}

	m := bench(t, e, asm.Mov.Imm(asm.R2, 1), asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, -8), asm.FnGetFuncArg.Call(),
		asm.LoadMem(asm.R0, asm.RFP, -8, asm.DWord), asm.Return())
	if got, err := m.Run("p", bytes.Join([][]byte{u64(8), u64(9), u64(10)}, nil)); err != nil || got != 9 {
		t.Errorf("get_func_arg 1 = %d, %v; want 9", got, err)
	}
	m = bench(t, e, asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -8), asm.FnGetFuncRet.Call(), asm.LoadMem(asm.R0, asm.RFP, -8, asm.DWord), asm.Return())
	if got, err := m.Run("p", bytes.Join([][]byte{u64(8), u64(9), u64(10)}, nil)); err != nil || got != 10 {
		t.Errorf("get_func_ret = %d, %v; want 10", got, err)
	}
	m = bench(t, e, append(buf(16), asm.FnGetCurrentComm.Call(), asm.LoadMem(asm.R0, asm.RFP, -8, asm.DWord), asm.Return())...)
	if got, err := m.Run("p", nil); err != nil || got != binary.LittleEndian.Uint64([]byte("ame-of-\x00")) {
		t.Errorf("comm ends in %q, %v", u64(got), err)
	}
}

// TestOutput: records, prints and effects are captured.
func TestOutput(t *testing.T) {
	e := &Env{CPU: 2}
	m := bench(t, e,
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMapPtr(asm.R1, 0).WithReference("rb"), asm.Mov.Imm(asm.R2, 8), asm.Mov.Imm(asm.R3, 0), asm.FnRingbufReserve.Call(),
		asm.StoreImm(asm.R0, 0, 1, asm.Word), asm.StoreImm(asm.R0, 4, 2, asm.Word),
		asm.Mov.Reg(asm.R1, asm.R0), asm.Mov.Imm(asm.R2, 0), asm.FnRingbufSubmit.Call(),
		asm.StoreImm(asm.RFP, -16, 3, asm.Word),
		asm.LoadMapPtr(asm.R1, 0).WithReference("rb"), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -16), asm.Mov.Imm(asm.R3, 4), asm.Mov.Imm(asm.R4, 0), asm.FnRingbufOutput.Call(),
		asm.Mov.Reg(asm.R1, asm.R6), asm.LoadMapPtr(asm.R2, 0).WithReference("pe"), asm.LoadImm(asm.R3, 0xffffffff, asm.DWord),
		asm.Mov.Reg(asm.R4, asm.RFP), asm.Add.Imm(asm.R4, -16), asm.Mov.Imm(asm.R5, 4), asm.FnPerfEventOutput.Call(),
		asm.LoadImm(asm.R0, int64(binary.LittleEndian.Uint64([]byte("n=%d\x00\x00\x00\x00"))), asm.DWord), asm.StoreMem(asm.RFP, -16, asm.R0, asm.DWord),
		asm.Mov.Reg(asm.R1, asm.RFP), asm.Add.Imm(asm.R1, -16), asm.Mov.Imm(asm.R2, 5), asm.Mov.Imm(asm.R3, -4), asm.FnTracePrintk.Call(),
		asm.Mov.Imm(asm.R1, 9), asm.FnSendSignal.Call(),
		asm.Mov.Imm(asm.R0, 0), asm.Return())
	if _, err := m.Run("p", nil); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Record{{Data: append(u32(1), u32(2)...)}, {Data: u32(3)}}, m.Map("rb").Drain()); diff != "" {
		t.Error("ring buffer", diff)
	}
	if diff := cmp.Diff([]Record{{CPU: 2, Data: u32(3)}}, m.Map("pe").Drain()); diff != "" {
		t.Error("perf event array", diff)
	}
	if diff := cmp.Diff([]string{"n=-4"}, m.TakeTrace()); diff != "" {
		t.Error("trace", diff)
	}
	if diff := cmp.Diff([]Effect{{"signal", 9}}, m.TakeEffects()); diff != "" {
		t.Error("effects", diff)
	}
}

// TestStacks: the numbers of stacks, and the bytes of get_stack.
func TestStacks(t *testing.T) {
	e := &Env{KernelStack: []uint64{1, 2, 3, 4, 5, 6}, UserStack: []uint64{7, 8}}
	id := func(flags int32) asm.Instructions {
		return asm.Instructions{asm.LoadMapPtr(asm.R2, 0).WithReference("stacks"), asm.Mov.Imm(asm.R3, flags), asm.FnGetStackid.Call(), asm.Return()}
	}
	for _, tt := range []struct {
		flags int32
		want  []uint64
	}{{0, []uint64{1, 2, 3, 4}}, {4, []uint64{5, 6, 0, 0}}, {stackUser, []uint64{7, 8, 0, 0}}} {
		m := bench(t, e, id(tt.flags)...)
		n, err := m.Run("p", nil)
		again, _ := m.Run("p", nil)
		if err != nil || n > 15 || n != again {
			t.Fatalf("flags %#x: id %d, then %d, %v", tt.flags, int64(n), int64(again), err)
		}
		var want []byte
		for _, ip := range tt.want {
			want = append(want, u64(ip)...)
		}
		if got, err := m.Map("stacks").Lookup(u32(uint32(n))); err != nil || !bytes.Equal(got, want) {
			t.Errorf("flags %#x: stack %x, %v", tt.flags, got, err)
		}
	}
	m := bench(t, e, asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -16), asm.Mov.Imm(asm.R3, 16), asm.Mov.Imm(asm.R4, 1), asm.FnGetStack.Call(), asm.Return())
	if n, err := m.Run("p", nil); err != nil || n != 16 {
		t.Errorf("get_stack = %d, %v; want 16", n, err)
	}
	for task, want := range map[int32]int64{5: 16, 6: -95} { // the current one, another
		e.Task = 5
		m = bench(t, e, asm.Mov.Imm(asm.R1, task), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -16), asm.Mov.Imm(asm.R3, 16), asm.Mov.Imm(asm.R4, 0), asm.FnGetTaskStack.Call(), asm.Return())
		if n, err := m.Run("p", nil); err != nil || int64(n) != want {
			t.Errorf("get_task_stack of %d = %d, %v; want %d", task, int64(n), err, want)
		}
	}
	m = bench(t, &Env{}, id(0)...)
	if n, _ := m.Run("p", nil); int64(n) != -14 {
		t.Errorf("without a stack: %d; want -EFAULT", int64(n))
	}
}

// TestUnsubmitted: a reservation that is left open is an error and does not block the ring.
func TestUnsubmitted(t *testing.T) {
	m := bench(t, nil, asm.LoadMapPtr(asm.R1, 0).WithReference("rb"), asm.Mov.Imm(asm.R2, 8), asm.Mov.Imm(asm.R3, 0), asm.FnRingbufReserve.Call(), asm.Mov.Imm(asm.R0, 0), asm.Return())
	if _, err := m.Run("p", nil); err == nil {
		t.Error("no error")
	}
	if n := len(m.Map("rb").Drain()); n != 0 {
		t.Errorf("%d records", n)
	}
}

// TestRandom: equal seeds, equal numbers.
func TestRandom(t *testing.T) {
	draw := func(seed uint64) uint64 {
		v, _ := bench(t, &Env{Seed: seed}, asm.FnGetPrandomU32.Call(), asm.Return()).Run("p", nil)
		return v
	}
	if a, b, c := draw(1), draw(1), draw(2); a != b || a == c || a>>32 != 0 {
		t.Errorf("%#x, %#x, %#x", a, b, c)
	}
}

// TestNumIterator sums bpf_iter_num over 3..6.
func TestNumIterator(t *testing.T) {
	kfunc := func(name string) asm.Instruction {
		return asm.Instruction{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.Call), Src: asm.PseudoKfuncCall, Constant: -1}.WithReference(name)
	}
	it := asm.Instructions{asm.Mov.Reg(asm.R1, asm.RFP), asm.Add.Imm(asm.R1, -8)}
	insns := append(it[:2:2], asm.Mov.Imm(asm.R2, 3), asm.Mov.Imm(asm.R3, 7), kfunc("bpf_iter_num_new"), asm.Mov.Imm(asm.R6, 0),
		asm.Mov.Reg(asm.R1, asm.RFP).WithSymbol("next"), it[1], kfunc("bpf_iter_num_next"), asm.JEq.Imm(asm.R0, 0, "end"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.Word), asm.Add.Reg(asm.R6, asm.R1), asm.Ja.Label("next"),
		asm.Mov.Reg(asm.R0, asm.R6).WithSymbol("end"), asm.Return())
	if got, err := bench(t, nil, insns...).Run("p", nil); err != nil || got != 18 {
		t.Errorf("sum %d, %v; want 18", got, err)
	}
}
