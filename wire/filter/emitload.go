package filter

import "github.com/fathom-trace/fathom/ir"

// maxOffset bounds the offsets of direct reads (MAX_PACKET_OFF in kernel/bpf/verifier.c), maxDisplacement what an
// instruction can add to an address.
const (
	maxOffset       = 0xffff
	maxDisplacement = 0x7fff
)

// load reads size bytes at a constant offset into dst.
func (e *emitter) load(dst ir.Reg, off uint32, size uint8) {
	if off >= metaBase {
		v := ir.Imm(0)
		if r := e.src.meta(off); r != 0 {
			v = ir.R(r)
		}
		e.put(ir.Ins{Op: ir.Mov, Dst: dst, A: v})
		return
	}
	end := uint64(off) + uint64(size)
	if e.src.Len == 0 {
		e.loadDirect(dst, off, size)
		return
	}
	if end > uint64(e.known) {
		e.unless(ir.Lt, ir.R(e.src.Len), ir.Imm(int64(end)), e.drop)
		e.known = uint32(min(end, maxOffset))
	}
	if v := e.src.View; end <= uint64(v.Size) {
		e.viewAt(dst, e.view, v.At+off, size)
		return
	}
	if end <= uint64(e.size) {
		e.loadWindow(dst, int32(off)+e.bias, size)
		return
	}
	e.loadPiece(dst, e.bin(ir.Add, ir.R(e.src.Base), ir.Imm(int64(off))), size)
}

// loadDirect reads through a packet pointer.
func (e *emitter) loadDirect(dst ir.Reg, off uint32, size uint8) {
	if uint64(off)+uint64(size) > maxDisplacement {
		r := e.fn.NewReg()
		e.put(ir.Ins{Op: ir.Const, Dst: r, A: ir.Imm(int64(off))})
		e.directAt(dst, r, size)
		return
	}
	if end := off + uint32(size); end > e.known {
		p := e.bin(ir.Add, ir.R(e.src.Base), ir.Imm(int64(end)))
		e.unless(ir.Gt, ir.R(p), ir.R(e.src.End), e.drop)
		e.known = end
	}
	e.put(ir.Ins{Op: ir.Load, Size: size, Dst: dst, Base: e.src.Base, Off: int32(off)})
	e.swap(dst, size)
}

// directAt reads at the offset in a register, which the verifier wants bounded.
func (e *emitter) directAt(dst, off ir.Reg, size uint8) {
	e.unless(ir.Gt, ir.R(off), ir.Imm(maxOffset-int64(size)), e.drop)
	p := e.bin(ir.Add, ir.R(e.src.Base), ir.R(off))
	q := e.bin(ir.Add, ir.R(p), ir.Imm(int64(size)))
	e.unless(ir.Gt, ir.R(q), ir.R(e.src.End), e.drop)
	e.put(ir.Ins{Op: ir.Load, Size: size, Dst: dst, Base: p})
	e.swap(dst, size)
}

// loadIndexed reads size bytes at the offset in a register into A.
func (e *emitter) loadIndexed(off ir.Reg, size uint8) {
	if e.src.Len == 0 {
		e.directAt(e.a, off, size)
		return
	}
	end := e.bin(ir.Add, ir.R(off), ir.Imm(int64(size)))
	e.unless(ir.Gt, ir.R(end), ir.R(e.src.Len), e.drop)
	e.loadPiece(e.a, e.bin(ir.Add, ir.R(e.src.Base), ir.R(off)), size)
}

// look gives a view whose bytes begin at an address.
func (e *emitter) look(addr ir.Reg) ir.Reg {
	p := e.fn.NewReg()
	from := e.bin(ir.Add, ir.R(addr), ir.Imm(-int64(e.src.View.At)))
	e.put(ir.Ins{Op: ir.Call, Dst: p, Name: "bpf_rdonly_cast", Args: []ir.Val{ir.R(from), ir.Imm(int64(e.src.View.Type))}})
	return p
}

// viewAt reads through a view.
func (e *emitter) viewAt(dst, view ir.Reg, off uint32, size uint8) {
	e.put(ir.Ins{Op: ir.Load, Size: size, Dst: dst, Base: view, Off: int32(off)})
	e.swap(dst, size)
}

// loadPiece reads size bytes at an address, through the helper if there is no view.
func (e *emitter) loadPiece(dst, addr ir.Reg, size uint8) {
	if e.src.View.Size > 0 {
		e.viewAt(dst, e.look(addr), e.src.View.At, size)
		return
	}
	buf, ret := e.fn.NewReg(), e.fn.NewReg()
	e.put(ir.Ins{Op: ir.Addr, Dst: buf, Slot: e.piece})
	e.put(ir.Ins{Op: ir.Call, Dst: ret, Fn: ir.FnProbeReadKernel, Args: []ir.Val{ir.R(buf), ir.Imm(int64(size)), ir.R(addr)}})
	e.unless(ir.Ne, ir.R(ret), ir.Imm(0), e.drop)
	e.put(ir.Ins{Op: ir.Load, Size: size, Dst: dst, Slot: e.piece})
	e.swap(dst, size)
}

// loadWindow reads from the window at off, in aligned pieces.
func (e *emitter) loadWindow(dst ir.Reg, off int32, size uint8) {
	part := size
	for off%int32(part) != 0 {
		part /= 2
	}
	if part == size {
		e.put(ir.Ins{Op: ir.Load, Size: size, Dst: dst, Slot: e.window, Off: off})
		e.swap(dst, size)
		return
	}
	all := ir.Imm(0)
	for at := uint8(0); at < size; at += part {
		r := e.fn.NewReg()
		e.put(ir.Ins{Op: ir.Load, Size: part, Dst: r, Slot: e.window, Off: off + int32(at)})
		e.swap(r, part)
		if at > 0 {
			all = ir.R(e.bin(ir.Shl, all, ir.Imm(8*int64(part))))
			r = e.bin(ir.Or, all, ir.R(r))
		}
		all = ir.R(r)
	}
	e.put(ir.Ins{Op: ir.Mov, Dst: dst, A: all})
}

// swap turns what was read into a number: packets are big-endian.
func (e *emitter) swap(r ir.Reg, size uint8) {
	if size > 1 {
		e.put(ir.Ins{Op: ir.Bswap, Size: size, Dst: r, A: ir.R(r)})
	}
}
