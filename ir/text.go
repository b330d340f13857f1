package ir

import (
	"fmt"
	"strings"
)

var (
	aluText     = [...]string{"+", "-", "*", "/", "s/", "%", "s%", "&", "|", "^", "<<", ">>", "s>>"}
	counterText = [NumCounters]string{"ring full", "map full", "filtered", "read failed"}
	condText    = [...]string{"==", "!=", "<", "<=", ">", ">=", "s<", "s<=", "s>", "s>=", "&"}
)

// String gives a program as text: maps, events, then the units.
func (p *Program) String() string {
	var b strings.Builder
	for _, m := range p.Maps {
		fmt.Fprintf(&b, "map %s: %s, key %d, value %d, max %d\n", m.Name, kindText[m.Kind], m.KeySize, m.ValueSize, m.MaxEntries)
	}
	for i, e := range p.Events {
		fmt.Fprintf(&b, "event %d: kind %d %q %v\n", i, e.Kind, e.Fmt, e.Payload)
	}
	for _, u := range p.Units {
		fmt.Fprintf(&b, "\nunit %s (%s)\n", u.Name, u.Provider)
		for _, f := range u.Funcs() {
			b.WriteString(f.String())
		}
	}
	return b.String()
}

var kindText = [...]string{"hash", "lru_hash", "percpu_hash", "lru_percpu_hash", "array", "percpu_array", "ringbuf", "perf_event_array"}

// String gives a function as text.
func (f *Func) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "func %s", f.Name)
	for _, p := range f.Params {
		fmt.Fprintf(&b, " v%d", p)
	}
	b.WriteString(":\n")
	for _, blk := range f.Blocks {
		fmt.Fprintf(&b, "b%d:\n", blk.ID)
		for i := range blk.Ins {
			fmt.Fprintf(&b, "\t%s\n", blk.Ins[i].String())
		}
	}
	return b.String()
}

func (v Val) String() string {
	if v.R != 0 {
		return fmt.Sprintf("v%d", v.R)
	}
	return fmt.Sprint(v.Imm)
}

func (n *Ins) mem() string {
	base := fmt.Sprintf("v%d", n.Base)
	if n.Slot != nil {
		base = n.Slot.Name
	}
	return fmt.Sprintf("[%s%+d]", base, n.Off)
}

// String gives an instruction as text, destination first.
func (n *Ins) String() string {
	s := n.effect()
	if n.Dst != 0 {
		return fmt.Sprintf("v%d = %s", n.Dst, s)
	}
	return s
}

func (n *Ins) effect() string {
	sign := map[bool]string{true: "s", false: "u"}[n.Signed]
	width := fmt.Sprintf("%s%d", sign, 8*int(n.Size))
	switch n.Op {
	case Nop:
		return "nop"
	case Const, Mov:
		return n.A.String()
	case Bin:
		return fmt.Sprintf("%v %s %v", n.A, aluText[n.Alu], n.B)
	case Ext:
		return fmt.Sprintf("%s(%v)", width, n.A)
	case Bswap:
		return fmt.Sprintf("bswap%d(%v)", 8*int(n.Size), n.A)
	case Addr:
		return "&" + n.mem()
	case Load:
		return width + n.mem()
	case Store:
		return fmt.Sprintf("%s%s = %v", width, n.mem(), n.A)
	case AtomicAdd:
		return fmt.Sprintf("lock %s%s += %v", width, n.mem(), n.A)
	case Zero:
		return fmt.Sprintf("zero %s, %d", n.mem(), n.Imm)
	case Copy:
		return fmt.Sprintf("copy %s, [%v], %d", n.mem(), n.A, n.Imm)
	case Call:
		switch {
		case n.Callee != nil:
			return fmt.Sprintf("call %s%v", n.Callee.Name, n.Args)
		case n.Name != "":
			return fmt.Sprintf("call %s%v", n.Name, n.Args)
		}
		return fmt.Sprintf("call #%d%v", n.Fn, n.Args)
	case MapPtr:
		return "map " + n.Map.Name
	case MapValue:
		return fmt.Sprintf("&%s%+d", n.Map.Name, n.Off)
	case FuncPtr:
		return "func " + n.Callee.Name
	case Ctx:
		return "ctx"
	case Frame:
		return "frame"
	case Arg:
		return fmt.Sprintf("arg %d", n.Imm)
	case Retval:
		return "retval"
	case Field:
		return fmt.Sprintf("field %s %s%+d", n.Name, width, n.Off)
	case FuncIP:
		return "func_ip"
	case CPUReg:
		return "reg " + n.Name
	case Stack:
		return fmt.Sprintf("stack %s, %d, flags %v", n.mem(), n.Imm, n.A)
	case Output:
		size := Val{R: n.B.R, Imm: n.Imm}
		return fmt.Sprintf("output %s, %v", n.mem(), size)
	case Cookie:
		return "cookie"
	case Given:
		return fmt.Sprintf("given %d", n.Imm)
	case Count:
		return "count " + counterText[n.Imm]
	case Jump:
		return fmt.Sprintf("goto b%d", n.Then.ID)
	case Branch:
		return fmt.Sprintf("if %v %s %v goto b%d else b%d", n.A, condText[n.Cond], n.B, n.Then.ID, n.Else.ID)
	case Ret:
		return fmt.Sprintf("return %v", n.A)
	}
	return fmt.Sprintf("op%d", n.Op)
}
