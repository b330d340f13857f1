package vm_test

import (
	"encoding/binary"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/fathom-trace/fathom/bpf/vm"
)

// A program counts events per first word of its context.
func Example() {
	m, err := vm.New(vm.Config{
		Maps: map[string]*ebpf.MapSpec{"count": {Type: ebpf.Hash, KeySize: 4, ValueSize: 8, MaxEntries: 64}},
		Programs: map[string]asm.Instructions{"prog": {
			asm.LoadMem(asm.R6, asm.R1, 0, asm.Word),
			asm.StoreMem(asm.RFP, -4, asm.R6, asm.Word),
			asm.LoadMapPtr(asm.R1, 0).WithReference("count"),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, -4),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "new"),
			asm.Mov.Imm(asm.R1, 1),
			asm.AddAtomic.Mem(asm.R0, asm.R1, asm.DWord, 0),
			asm.Ja.Label("out"),
			asm.StoreImm(asm.RFP, -16, 1, asm.Word).WithSymbol("new"),
			asm.StoreImm(asm.RFP, -12, 0, asm.Word),
			asm.LoadMapPtr(asm.R1, 0).WithReference("count"),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, -4),
			asm.Mov.Reg(asm.R3, asm.RFP),
			asm.Add.Imm(asm.R3, -16),
			asm.Mov.Imm(asm.R4, 0),
			asm.FnMapUpdateElem.Call(),
			asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
			asm.Return(),
		}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, event := range []byte{7, 3, 7, 7} {
		if _, err := m.Run("prog", []byte{event, 0, 0, 0}); err != nil {
			fmt.Println(err)
			return
		}
	}
	for k, v := range m.Map("count").All() {
		fmt.Println(binary.LittleEndian.Uint32(k), binary.LittleEndian.Uint64(v))
	}
	fmt.Println(m.Stats().Runs, "runs")
	// Output:
	// 3 1
	// 7 3
	// 4 runs
}
