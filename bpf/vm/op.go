package vm

// op is the machine's own opcode. d is r[dst]; s is r[src]+imm, where an
// instruction with an immediate has src = regZero and one with a register has
// imm = 0. So one opcode serves both forms.
type op uint8

const (
	opTrap op = iota // end of code: falling into it is an error

	opAdd64    // d += s
	opSub64    // d -= s
	opMul64    // d *= s
	opDiv64    // d /= s     0 if s == 0
	opSDiv64   // d /= s     signed
	opOr64     // d |= s
	opAnd64    // d &= s
	opLsh64    // d <<= s    modulo 64
	opRsh64    // d >>= s
	opNeg64    // d = -d
	opMod64    // d %= s     unchanged if s == 0
	opSMod64   // d %= s     signed
	opXor64    // d ^= s
	opMov64    // d = s      also every 64-bit constant and address
	opArsh64   // d >>= s    arithmetic
	opMovSX8   // d = (s64)(s8)s
	opMovSX16  // d = (s64)(s16)s
	opMovSX32  // d = (s64)(s32)s
	opAdd32    // as above on the low half; the high half becomes 0
	opSub32    //
	opMul32    //
	opDiv32    //
	opSDiv32   //
	opOr32     //
	opAnd32    //
	opLsh32    //
	opRsh32    //
	opNeg32    //
	opMod32    //
	opSMod32   //
	opXor32    //
	opMov32    //
	opArsh32   //
	opMovSX8w  // d = (u32)(s8)s
	opMovSX16w // d = (u32)(s16)s
	opSwap16   // d = bswap16(d)
	opSwap32   // d = bswap32(d)
	opSwap64   // d = bswap64(d)
	opZext16   // d = (u16)d
	opZext32   // d = (u32)d
	opNop      //

	opJa     // pc = off
	opJEq    // pc = off if d == s
	opJNe    // pc = off if d != s
	opJGt    // pc = off if d > s
	opJGe    // pc = off if d >= s
	opJLt    // pc = off if d < s
	opJLe    // pc = off if d <= s
	opJSGt   // pc = off if d > s, signed
	opJSGe   // pc = off if d >= s, signed
	opJSLt   // pc = off if d < s, signed
	opJSLe   // pc = off if d <= s, signed
	opJSet   // pc = off if d & s
	opJEq32  // as above on the low half
	opJNe32  //
	opJGt32  //
	opJGe32  //
	opJLt32  //
	opJLe32  //
	opJSGt32 //
	opJSGe32 //
	opJSLt32 //
	opJSLe32 //
	opJSet32 //
	opMayJmp // pc = off after 2^23 times

	opLd8   // d = *(u8 *)(s + off)
	opLd16  // d = *(u16 *)(s + off)
	opLd32  // d = *(u32 *)(s + off)
	opLd64  // d = *(u64 *)(s + off)
	opLdSX8 // d = *(s8 *)(s + off)
	opLdSX16
	opLdSX32
	opSt8    // *(u8 *)(d + off) = s
	opSt16   // *(u16 *)(d + off) = s
	opSt32   // *(u32 *)(d + off) = s
	opSt64   // *(u64 *)(d + off) = s
	opAtom32 // read-modify-write *(u32 *)(d + off); imm is the operation
	opAtom64 // read-modify-write *(u64 *)(d + off)
	opPkt8   // r0 = packet[s]              legacy LD_ABS and LD_IND; past the end: exit 0
	opPkt16  // r0 = ntohs(packet[s])
	opPkt32  // r0 = ntohl(packet[s])

	opCall   // bpf-to-bpf: pc = off in a new frame
	opHelper // r0 = Machine.calls[imm](r1..r5): a helper or a kfunc
	opExit   // leave the frame
)

// insn is a decoded instruction. off is a byte offset for memory and an index
// into the code for jumps and calls.
type insn struct {
	op       op
	dst, src uint8
	off      int32
	imm      uint64
}

const (
	regZero = 15 // always 0: the source register of an instruction with an immediate
	regFP   = 10
)
