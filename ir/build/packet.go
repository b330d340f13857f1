package build

import (
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/lang/types"
)

// PacketRecord is what stands before the bytes of a packet, in bytes: the event's index, the time since boot in ns, the
// number of bytes that follow, and how many of them to leave out at the start; uint64 each.
const PacketRecord = 32

// maxPacket is what bpf_skb_output takes from a packet (BPF_F_CTXLEN_MASK in include/uapi/linux/bpf.h), currentCPU the part
// of its flags that names the buffer (BPF_F_CURRENT_CPU).
const (
	maxPacket  = 0xfffff
	currentCPU = 0xffffffff
)

// skbOutput sends a packet's bytes through a perf buffer, since only that helper reads all of a packet. It wants the
// pointer as the context has it: the verifier must know its type.
func skbOutput(x *fn, c *syntax.Call, t *types.Type) value {
	x.u.Typed = true
	if x.b.packets == nil {
		x.b.packets = &ir.Map{Name: ".packets", BPFName: "packets", Kind: ir.PerfArray}
		x.b.prog.Maps = append(x.b.prog.Maps, x.b.packets)
	}
	file, _ := x.literalOf(c.Args[0])
	skb := x.address(c.Args[1])
	n := x.bin(ir.And, x.val(c.Args[2]), ir.Imm(maxPacket))
	m := slotMem(x.temp(PacketRecord))
	x.store(m, 8, ir.Imm(int64(x.b.event(&ir.Event{Kind: ir.EvPacket, Fmt: file, Span: c.Span}))))
	x.store(m.at(8), 8, x.call(ir.FnKtimeGetBootNs))
	x.store(m.at(16), 8, n)
	x.store(m.at(24), 8, x.val(c.Args[3]))
	flags := x.bin(ir.Or, x.bin(ir.Shl, n, ir.Imm(32)), x.wide(currentCPU))
	ret := x.call(ir.FnSkbOutput, skb, x.mapPtr(x.b.packets), flags, x.addr(m), ir.Imm(PacketRecord))
	return scalarOf(t, x.ext(ret, t.Size, t.Signed))
}
