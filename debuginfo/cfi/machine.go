package cfi

import (
	"bytes"

	"github.com/fathom-trace/fathom/internal/bin"
)

// rule says where the caller's value of a register is.
type rule struct {
	where Where
	off   int64
}

// state is what holds at an instruction.
type state struct {
	reg    uint64 // of the canonical frame address
	off    int64
	known  bool   // reg and off say it
	expr   []byte // this expression says it
	fp, ra rule
	signal bool
}

// maxRemembered bounds the states that are kept for later; compilers nest few.
const maxRemembered = 256

// machine runs the instructions of an entry.
type machine struct {
	d    *decoder
	k    *cie
	s    state
	kept []state
	c    *bin.Cursor
	pc   uint64
	base int // offset in the section of the first byte of c
}

// Instructions of call frames: DW_CFA_*. Of the first three, the low six bits are an operand.
const (
	cfaAdvance     = 0x40
	cfaOffset      = 0x80
	cfaRestore     = 0xc0
	cfaNop         = 0x00
	cfaSetLoc      = 0x01
	cfaAdvance1    = 0x02
	cfaAdvance2    = 0x03
	cfaAdvance4    = 0x04
	cfaOffsetExt   = 0x05
	cfaRestoreExt  = 0x06
	cfaUndefined   = 0x07
	cfaSame        = 0x08
	cfaRegister    = 0x09
	cfaRemember    = 0x0a
	cfaRestoreAll  = 0x0b
	cfaDef         = 0x0c
	cfaDefReg      = 0x0d
	cfaDefOff      = 0x0e
	cfaDefExpr     = 0x0f
	cfaExpr        = 0x10
	cfaOffsetSF    = 0x11
	cfaDefSF       = 0x12
	cfaDefOffSF    = 0x13
	cfaValOffset   = 0x14
	cfaValOffsetSF = 0x15
	cfaValExpr     = 0x16
	cfaAdvance8    = 0x1d // MIPS
	cfaNegateRAPC  = 0x2c // arm64
	cfaNegateRA    = 0x2d // arm64: the return address is signed from here on, or no more; SPARC: windows
	cfaArgsSize    = 0x2e // GNU
	cfaOffsetNeg   = 0x2f // GNU
)

// run goes through the instructions. Before the address moves it calls step with the new one.
func (m *machine) run(step func(next uint64)) {
	for m.c.Len() > 0 {
		op := m.c.U8()
		if low := uint64(op & 0x3f); op >= cfaAdvance {
			switch op & 0xc0 {
			case cfaAdvance:
				m.advance(low, step)
			case cfaOffset:
				m.set(low, rule{Saved, m.data(m.c.Uvarint())})
			case cfaRestore:
				m.restore(low)
			}
			continue
		}
		if !m.move(op, step) && !m.cfa(op) && !m.register(op) {
			m.c.Fail("instruction %#x", op)
			return
		}
	}
}

func (m *machine) advance(n uint64, step func(uint64)) { m.to(m.pc+n*m.k.codeAlign, step) }

// to moves the address on. Back it never goes: such entries would say two things of one instruction.
func (m *machine) to(pc uint64, step func(uint64)) {
	if !m.c.OK() {
		return
	}
	if pc < m.pc {
		m.c.Fail("goes back to %#x from %#x", pc, m.pc)
		return
	}
	step(pc)
	m.pc = pc
}

// move does the instructions that change the address.
func (m *machine) move(op uint8, step func(uint64)) bool {
	switch op {
	case cfaNop, cfaNegateRA, cfaNegateRAPC:
	case cfaSetLoc:
		m.to(m.d.pointer(m.c, m.k.enc, m.base), step)
	case cfaAdvance1:
		m.advance(uint64(m.c.U8()), step)
	case cfaAdvance2:
		m.advance(uint64(m.c.U16()), step)
	case cfaAdvance4:
		m.advance(uint64(m.c.U32()), step)
	case cfaAdvance8:
		m.advance(m.c.U64(), step)
	case cfaArgsSize:
		m.c.Uvarint()
	case cfaRemember:
		if len(m.kept) == maxRemembered {
			m.c.Fail("more than %d states remembered", maxRemembered)
			return true
		}
		m.kept = append(m.kept, m.s)
	case cfaRestoreAll:
		n := len(m.kept)
		if n == 0 {
			m.c.Fail("restores a state that was not remembered")
			return true
		}
		m.s, m.kept = m.kept[n-1], m.kept[:n-1]
	default:
		return false
	}
	return true
}

// cfa does the instructions that say what the canonical frame address is.
func (m *machine) cfa(op uint8) bool {
	s := &m.s
	switch op {
	case cfaDef:
		s.reg, s.off = m.c.Uvarint(), int64(m.c.Uvarint())
	case cfaDefSF:
		s.reg, s.off = m.c.Uvarint(), sleb(m.c)*m.k.dataAlign
	case cfaDefReg:
		s.reg = m.c.Uvarint()
	case cfaDefOff:
		s.off = int64(m.c.Uvarint())
	case cfaDefOffSF:
		s.off = sleb(m.c) * m.k.dataAlign
	case cfaDefExpr:
		s.known, s.expr = false, m.block()
		return true
	default:
		return false
	}
	// After an expression, half a rule is none: only an instruction with both halves ends it.
	if op == cfaDef || op == cfaDefSF {
		s.known, s.expr = true, nil
	}
	return true
}

// register does the instructions that say where a register is.
func (m *machine) register(op uint8) bool {
	r := m.c.Uvarint()
	switch op {
	case cfaOffsetExt:
		m.set(r, rule{Saved, m.data(m.c.Uvarint())})
	case cfaOffsetSF:
		m.set(r, rule{Saved, sleb(m.c) * m.k.dataAlign})
	case cfaOffsetNeg:
		m.set(r, rule{Saved, -m.data(m.c.Uvarint())})
	case cfaRestoreExt:
		m.restore(r)
	case cfaUndefined:
		m.set(r, rule{where: Undefined})
	case cfaSame:
		m.set(r, rule{where: Same})
	case cfaRegister, cfaValOffset:
		m.c.Uvarint()
		m.set(r, rule{where: Lost})
	case cfaValOffsetSF:
		sleb(m.c)
		m.set(r, rule{where: Lost})
	case cfaExpr, cfaValExpr:
		m.block()
		m.set(r, rule{where: Lost})
	default:
		return false
	}
	return true
}

func (m *machine) data(n uint64) int64 { return int64(n) * m.k.dataAlign }

// block reads an expression.
func (m *machine) block() []byte {
	n := m.c.Uvarint()
	if n > uint64(m.c.Len()) {
		m.c.Fail("expression of %d bytes, have %d", n, m.c.Len())
		return nil
	}
	return m.c.Bytes(int(n))
}

func (m *machine) set(reg uint64, r rule) {
	switch reg {
	case m.d.regs.FP:
		m.s.fp = r
	case m.d.regs.RA:
		m.s.ra = r
	}
}

// restore gives a register the rule it has at the function's start.
func (m *machine) restore(reg uint64) {
	switch reg {
	case m.d.regs.FP:
		m.s.fp = m.k.start.fp
	case m.d.regs.RA:
		m.s.ra = m.k.start.ra
	}
}

// rows appends what holds from the machine's address up to next.
func (m *machine) rows(rows []Row, next uint64) []Row {
	if m.pc >= next {
		return rows
	}
	s := m.s
	r := Row{PC: m.pc, Off: s.off, FP: s.fp.where, FPOff: s.fp.off, RA: s.ra.where, RAOff: s.ra.off, Signal: s.signal}
	switch {
	case s.known && s.reg == m.d.regs.SP:
		r.Base = SP
	case s.known && s.reg == m.d.regs.FP:
		r.Base = FP
	case s.ra.where == Undefined: // the outermost frame needs no base
		r.Off = 0
	default:
		if at, ok := pltAt(s.expr); ok && m.d.regs.RA == 16 && next-m.pc <= maxPLT-m.d.plt {
			m.d.plt += next - m.pc
			return pltRows(rows, r, next, at)
		}
		r.Off = 0
	}
	return appendRow(rows, r)
}

// maxPLT bounds the bytes of a section's linkage tables that are written out in rows.
const maxPLT = 1 << 20

// pltAt recognises the expression that linkers write for the x86-64 procedure linkage table, rsp + 8 + ((rip & 15) >= at)
// * 8: its entries have 16 bytes and push one word on their way (binutils bfd/elfxx-x86.c, elf_x86_64_eh_frame_plt).
func pltAt(expr []byte) (at uint64, ok bool) {
	want := []byte{
		0x77, 8, // breg7 (rsp) + 8
		0x80, 0, // breg16 (rip) + 0
		0x3f, 0x1a, // lit15, and
		0x30, 0x2a, // lit0 and up, ge
		0x33, 0x24, 0x22, // lit3, shl, plus
	}
	if len(expr) != len(want) || expr[6] < 0x30 || expr[6] > 0x3f {
		return 0, false
	}
	want[6] = expr[6]
	return uint64(expr[6] - 0x30), bytes.Equal(expr, want)
}

// pltRows writes the rule of a linkage table out, two rows for each of its entries.
func pltRows(rows []Row, r Row, next, at uint64) []Row {
	r.Base = SP
	for pc := r.PC; pc < next; {
		stage := pc &^ 15
		r.PC, r.Off = pc, 8
		if pc&15 >= at {
			r.Off, pc = 16, stage+16
		} else {
			pc = stage + at
		}
		rows = appendRow(rows, r)
	}
	return rows
}
