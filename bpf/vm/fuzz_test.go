package vm

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// FuzzRun: bytes that decode as instructions never panic the machine and end
// within the budget. The first half of the tagged address space is reachable
// through constants, so every bounds check is.
func FuzzRun(f *testing.F) {
	for _, insns := range []asm.Instructions{
		{asm.Mov.Imm(asm.R0, 0), asm.Return()},
		{asm.LoadImm(asm.R1, int64(address(kindValue, 1, 8)), asm.DWord), asm.LoadMem(asm.R0, asm.R1, 0, asm.DWord), asm.Return()},
		{asm.LoadImm(asm.R1, int64(address(kindMap, 0, 0)), asm.DWord), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -8), asm.FnMapLookupElem.Call(), asm.Return()},
		{asm.Mov.Imm(asm.R1, 100), asm.LoadImm(asm.R2, int64(address(kindFunc, 0, 4)), asm.DWord), asm.Mov.Imm(asm.R4, 0), asm.FnLoop.Call(), asm.Return()},
		append(buf(8), asm.LoadImm(asm.R3, kernelBase-1<<63<<1, asm.DWord), asm.FnProbeReadKernelStr.Call(), asm.Return()),
	} {
		var b bytes.Buffer
		if err := insns.Marshal(&b, binary.LittleEndian); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	maps := map[string]*ebpf.MapSpec{
		"a":  {Type: ebpf.Hash, KeySize: 4, ValueSize: 8, MaxEntries: 4},
		"b":  {Type: ebpf.Array, KeySize: 4, ValueSize: 24, MaxEntries: 2},
		"rb": {Type: ebpf.RingBuf, MaxEntries: 4096},
		"st": {Type: ebpf.StackTrace, KeySize: 4, ValueSize: 32, MaxEntries: 4},
		"pe": {Type: ebpf.PerfEventArray},
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		insns, err := asm.AppendInstructions(nil, bytes.NewReader(b), binary.LittleEndian, "linux")
		if err != nil {
			return
		}
		m, err := New(Config{Programs: map[string]asm.Instructions{"p": insns}, Maps: maps, Budget: 20000, Target: pages{kernel: []byte("text\x00")}})
		if err != nil {
			return
		}
		start := time.Now()
		for range 2 {
			_, _ = m.RunInput("p", Input{Ctx: make([]byte, 64), Packet: b, Kind: CtxKind(len(b) % 3)})
		}
		for _, mp := range m.maps {
			mp.Drain()
			for range mp.All() {
			}
		}
		if d := time.Since(start); d > 5*time.Second {
			t.Fatalf("took %v", d)
		}
	})
}
