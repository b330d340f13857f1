package asmtext

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/asm"
)

// SyntaxError is a line that Parse does not understand.
type SyntaxError struct {
	Line int // from 1
	Msg  string
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Msg) }

// Parse reads what Format writes. Numbers in front are ignored, references are
// resolved to numbers and keep their names; comment lines become sources.
func Parse(text string) (asm.Instructions, error) {
	var insns asm.Instructions
	var symbol, source string
	n := 0
	for line := range strings.SplitSeq(text, "\n") {
		n++
		line = strings.TrimSpace(line)
		switch {
		case line == "":
			continue
		case strings.HasPrefix(line, ";"):
			if source != "" {
				source += "\n"
			}
			source += strings.TrimSpace(line[1:])
			continue
		case strings.HasSuffix(line, ":"):
			symbol = line[:len(line)-1]
			continue
		}
		ins, err := parseLine(line)
		if err != nil {
			return nil, &SyntaxError{n, err.Error()}
		}
		if symbol != "" {
			ins = ins.WithSymbol(symbol)
		}
		if source != "" {
			ins = ins.WithSource(asm.Comment(source))
		}
		insns, symbol, source = append(insns, ins), "", ""
	}
	return insns, nil
}

func parseLine(line string) (asm.Instruction, error) {
	f, ok := match("@: (@) @", line)
	if !ok {
		return asm.Instruction{}, fmt.Errorf("%q is not \"number: (opcode) text\"", line)
	}
	code, err := strconv.ParseUint(f[1], 16, 8)
	if err != nil {
		return asm.Instruction{}, fmt.Errorf("opcode %q: %w", f[1], err)
	}
	l := lineParser{ins: asm.Instruction{OpCode: asm.OpCode(code)}, text: f[2]}
	l.text, l.ref = cutSymbol(l.text)
	if !l.parse() || l.err != nil {
		return asm.Instruction{}, fmt.Errorf("opcode %02x does not read %q", code, f[2])
	}
	if l.ref != "" {
		l.ins = l.ins.WithReference(l.ref)
	}
	return l.ins, nil
}

// cutSymbol splits "goto pc+2 <out>" into the instruction and the symbol.
func cutSymbol(text string) (body, symbol string) {
	at := strings.LastIndex(text, " <")
	if at < 0 || !strings.HasSuffix(text, ">") {
		return text, ""
	}
	return text[:at], text[at+2 : len(text)-1]
}

// match splits text at the literals of a pattern in which @ stands for anything.
func match(pattern, text string) ([]string, bool) {
	parts := strings.Split(pattern, "@")
	if !strings.HasPrefix(text, parts[0]) {
		return nil, false
	}
	text = text[len(parts[0]):]
	var fields []string
	for i, lit := range parts[1:] {
		at := strings.Index(text, lit)
		if i == len(parts)-2 { // the last one takes the rest
			if at = len(text) - len(lit); !strings.HasSuffix(text, lit) {
				return nil, false
			}
		}
		if at < 0 {
			return nil, false
		}
		fields = append(fields, text[:at])
		text = text[at+len(lit):]
	}
	return fields, true
}

// lineParser fills an instruction from its opcode byte and its text.
type lineParser struct {
	ins  asm.Instruction
	text string
	ref  string
	err  error
}

func (l *lineParser) parse() bool {
	switch l.ins.OpCode.Class() {
	case asm.ALUClass, asm.ALU64Class:
		return l.alu()
	case asm.JumpClass, asm.Jump32Class:
		return l.jump()
	case asm.LdClass:
		return l.loadImm()
	case asm.LdXClass:
		return l.fields("r@ = *(@ *)(r@ @)", &l.ins.Dst, nil, &l.ins.Src, &l.ins.Offset)
	case asm.StClass:
		return l.fields("*(@ *)(r@ @) = @", nil, &l.ins.Dst, &l.ins.Offset, &l.ins.Constant)
	}
	if l.ins.OpCode.Mode() == asm.AtomicMode {
		return l.atomic()
	}
	return l.fields("*(@ *)(r@ @) = r@", nil, &l.ins.Dst, &l.ins.Offset, &l.ins.Src)
}

// fields matches the text and stores the fields by the type of where to.
func (l *lineParser) fields(pattern string, to ...any) bool {
	f, ok := match(pattern, l.text)
	if !ok || len(f) != len(to) {
		return false
	}
	for i, p := range to {
		switch p := p.(type) {
		case *asm.Register:
			v := l.number(f[i], 8)
			if v < 0 || v > 15 {
				return false
			}
			*p = asm.Register(v)
		case *int16:
			*p = int16(l.number(f[i], 16))
		case *int64:
			*p = l.number(f[i], 64)
		case *string:
			*p = f[i]
		}
	}
	return l.err == nil
}

// number reads a decimal or 0x number; a 0x number may use all bits.
func (l *lineParser) number(s string, bits int) int64 {
	if hex, ok := strings.CutPrefix(s, "0x"); ok {
		v, err := strconv.ParseUint(hex, 16, bits)
		l.fail(err)
		return int64(v)
	}
	v, err := strconv.ParseInt(s, 10, bits)
	l.fail(err)
	return v
}

func (l *lineParser) fail(err error) {
	if l.err == nil {
		l.err = err
	}
}

// operand reads a register of either file, or a constant of 32 bits.
func (l *lineParser) operand(s string) {
	if l.ins.OpCode.Source() == asm.RegSource {
		l.ins.Src = l.register(s)
		return
	}
	l.ins.Constant = int64(int32(l.number(s, 32)))
}

func (l *lineParser) register(s string) asm.Register {
	if !strings.HasPrefix(s, "r") && !strings.HasPrefix(s, "w") {
		l.fail(strconv.ErrSyntax)
		return 0
	}
	v, err := strconv.ParseUint(s[1:], 10, 4)
	l.fail(err)
	return asm.Register(v)
}

func (l *lineParser) alu() bool {
	var dst, op, src string
	switch kind := l.ins.OpCode.ALUOp(); {
	case kind == asm.Swap:
		if !l.fields("@ = @ @", &dst, &op, &src) {
			return false
		}
		l.ins.Constant = l.number(strings.TrimLeft(op, "abceilpsw"), 16)
	case kind == asm.Neg:
		if !l.fields("@ = -@", &dst, &src) {
			return false
		}
	default:
		if !l.fields("@ @= @", &dst, &op, &src) {
			return false
		}
		if strings.HasPrefix(op, "s") && kind != asm.ArSh {
			l.ins.OpCode = l.ins.OpCode.SetALUOp(kind + 0x100)
		}
		if aluOps[l.ins.OpCode.ALUOp()] != op+"=" {
			return false
		}
		for sx, name := range signExtend {
			if rest, ok := strings.CutPrefix(src, name); ok && kind == asm.Mov {
				l.ins.OpCode, src = l.ins.OpCode.SetALUOp(sx), rest
			}
		}
		l.operand(src)
	}
	l.ins.Dst = l.register(dst)
	return true
}

func (l *lineParser) loadImm() bool {
	ins := &l.ins
	switch ins.OpCode.Mode() {
	case asm.AbsMode:
		return l.fields("r0 = *(@ *)skb[@]", nil, &ins.Constant)
	case asm.IndMode:
		return l.fields("r0 = *(@ *)skb[r@ + @]", nil, &ins.Src, &ins.Constant)
	}
	var name string
	var off int64
	switch {
	case l.fields("r@ = map[@][0]+@", &ins.Dst, &name, &off):
		ins.Src, ins.Constant = asm.PseudoMapValue, off<<32
		return l.mapName(name)
	case l.fields("r@ = map[@]", &ins.Dst, &name):
		ins.Src, ins.Constant = asm.PseudoMapFD, 0
		return l.mapName(name)
	case l.fields("r@ = subprog[@]", &ins.Dst, &off):
		ins.Src, ins.Constant = asm.PseudoFunc, off
		return true
	}
	return l.fields("r@ = @", &ins.Dst, &ins.Constant)
}

// mapName is the reference, or the file descriptor if it has that form.
func (l *lineParser) mapName(name string) bool {
	fd, ok := strings.CutPrefix(name, "fd:")
	if !ok {
		l.ref = name
		return true
	}
	l.ins.Constant |= l.number(fd, 32)
	return true
}

func (l *lineParser) jump() bool {
	ins := &l.ins
	switch kind := ins.OpCode.JumpOp(); {
	case kind == asm.Exit:
		return l.text == "exit"
	case kind == asm.Call:
		return l.call()
	case kind == asm.Ja && ins.OpCode.Class() == asm.Jump32Class:
		return l.fields("gotol pc@", &ins.Constant)
	case kind == asm.Ja:
		return l.fields("goto pc@", &ins.Offset)
	case kind == asm.JCOND:
		return l.fields("may_goto pc@", &ins.Offset)
	}
	var dst, src string
	if !l.fields("if @ @ @ goto pc@", &dst, nil, &src, &ins.Offset) {
		return false
	}
	ins.Dst = l.register(dst)
	l.operand(src)
	return true
}

func (l *lineParser) call() bool {
	ins := &l.ins
	if l.fields("call kfunc @#@", &l.ref, &ins.Constant) {
		ins.Src = asm.PseudoKfuncCall
		return true
	}
	if l.fields("call pc@", &ins.Constant) {
		ins.Src = asm.PseudoCall
		return true
	}
	return l.fields("call bpf_@#@", nil, &ins.Constant)
}

func (l *lineParser) atomic() bool {
	ins := &l.ins
	var name string
	var op asm.AtomicOp
	switch {
	case l.fields("r0 = atomic@_cmpxchg((@ *)(r@ @), r0, r@)", nil, nil, &ins.Dst, &ins.Offset, &ins.Src):
		op = asm.CmpXchg
	case l.fields("lock *(@ *)(r@ @) @ r@", nil, &ins.Dst, &ins.Offset, &name, &ins.Src),
		l.fields("r@ = atomic64_@((@ *)(r@ @), r@)", nil, &name, nil, &ins.Dst, &ins.Offset, &ins.Src),
		l.fields("r@ = atomic_@((@ *)(r@ @), r@)", nil, &name, nil, &ins.Dst, &ins.Offset, &ins.Src):
		op = asm.InvalidAtomic
		for o, n := range atomicOps {
			if n == name {
				op = o
			}
		}
	case l.fields("r@ = load_acquire((@ *)(r@ @))", &ins.Dst, nil, &ins.Src, &ins.Offset):
		op = loadAcquire
	case l.fields("store_release((@ *)(r@ @), r@)", nil, &ins.Dst, &ins.Offset, &ins.Src):
		op = storeRelease
	default:
		return false
	}
	if op == asm.InvalidAtomic {
		return false
	}
	ins.OpCode = ins.OpCode.SetAtomicOp(op)
	ins.Constant = int64(op >> 8) // what the encoder takes
	return true
}
