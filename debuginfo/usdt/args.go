package usdt

import (
	"fmt"
	"strconv"
	"strings"
)

// Kind says where an argument is.
type Kind uint8

// Kinds of operands.
const (
	Const Kind = iota // the number Off
	Reg               // in a register
	Mem               // at Reg + Index*Scale + Off
)

// Arg is one argument: how large it is and where.
type Arg struct {
	Size   int // bytes: 1, 2, 4 or 8
	Signed bool
	Float  bool
	Kind   Kind
	Reg    string // 64-bit register as struct pt_regs names it: "ax", "r8", "ip"; on arm64 "r0" … "r30", "sp"
	High   bool   // Reg: the second byte of the register (ah)
	Index  string // Mem: a further register, or ""
	Scale  int64
	Off    int64
	Sym    string // Mem at an address relative to "ip": the symbol Off counts from, "" if Off is all
}

// ParseArgs reads the operands of a note ("-4@%edi 8@-16(%rbp)") of an architecture (GOARCH).
func ParseArgs(text, arch string) ([]Arg, error) {
	var out []Arg
	for _, s := range split(text) {
		a, err := parseArg(s, arch)
		if err != nil {
			return out, fmt.Errorf("argument %q: %w", s, err)
		}
		out = append(out, a)
	}
	return out, nil
}

// split cuts at blanks outside of brackets: arm64 writes [sp, 8].
func split(s string) []string {
	var out []string
	depth, from := 0, 0
	for i := 0; i <= len(s); i++ {
		switch {
		case i < len(s) && (s[i] == '[' || s[i] == '('):
			depth++
		case i < len(s) && (s[i] == ']' || s[i] == ')'):
			depth--
		case i == len(s) || s[i] == ' ' && depth <= 0:
			if f := strings.TrimSpace(s[from:i]); f != "" {
				out = append(out, f)
			}
			from = i
		}
	}
	return out
}

// parseArg reads N@operand: N bytes, negative if signed, with f if floating.
func parseArg(s, arch string) (Arg, error) {
	size, op, ok := strings.Cut(s, "@")
	if !ok { // older notes leave the size out
		size, op = "8", s
	}
	a := Arg{Scale: 1}
	size, a.Float = strings.CutSuffix(size, "f")
	n, err := strconv.Atoi(size)
	if n < 0 {
		a.Signed, n = true, -n
	}
	if a.Size = n; err != nil || n != 1 && n != 2 && n != 4 && n != 8 {
		return a, fmt.Errorf("bad size %q", size)
	}
	if arch == "arm64" {
		return a, a.arm64(op)
	}
	return a, a.amd64(op)
}

// amd64 reads an operand in the syntax of AT&T: $1, %rax, 8(%rbp), sym+8(%rip), (%rax,%rbx,8).
func (a *Arg) amd64(op string) error {
	switch {
	case strings.HasPrefix(op, "$"):
		return a.number(op[1:])
	case strings.HasPrefix(op, "%"):
		a.Kind = Reg
		return a.register(op, &a.Reg)
	}
	disp, inside, ok := strings.Cut(op, "(")
	inside, closed := strings.CutSuffix(inside, ")")
	if !ok || !closed {
		return fmt.Errorf("operand of unknown form")
	}
	a.Kind = Mem
	if err := a.displacement(disp); err != nil {
		return err
	}
	parts := strings.Split(inside, ",")
	if base := strings.TrimSpace(parts[0]); base != "" {
		if err := a.register(base, &a.Reg); err != nil {
			return err
		}
	}
	if len(parts) > 1 {
		if err := a.register(strings.TrimSpace(parts[1]), &a.Index); err != nil {
			return err
		}
	}
	if len(parts) > 2 {
		n, err := strconv.ParseInt(strings.TrimSpace(parts[2]), 10, 64)
		if a.Scale = n; err != nil || n != 1 && n != 2 && n != 4 && n != 8 {
			return fmt.Errorf("bad scale %q", parts[2])
		}
	}
	if len(parts) > 3 || a.Sym != "" && a.Reg != "ip" {
		return fmt.Errorf("operand of unknown form")
	}
	return nil
}

// displacement reads "", a number, a symbol, or a symbol and a number.
func (a *Arg) displacement(s string) error {
	if s == "" {
		return nil
	}
	if n, err := strconv.ParseInt(s, 0, 64); err == nil {
		a.Off = n
		return nil
	}
	at := len(s)
	if i := strings.LastIndexAny(s, "+-"); i > 0 {
		n, err := strconv.ParseInt(s[i:], 0, 64)
		if err != nil {
			return fmt.Errorf("bad displacement %q", s)
		}
		a.Off, at = n, i
	}
	a.Sym = s[:at]
	return nil
}

func (a *Arg) number(s string) error {
	n, err := strconv.ParseInt(s, 0, 64)
	if err != nil {
		u, uerr := strconv.ParseUint(s, 0, 64)
		if uerr != nil {
			return fmt.Errorf("bad number %q", s)
		}
		n = int64(u)
	}
	a.Off = n
	return nil
}

// low are the names of the sixteen registers by their kernel name; r8 … r15 follow one pattern.
var low = map[string][]string{
	"ax": {"rax", "eax", "ax", "al"}, "bx": {"rbx", "ebx", "bx", "bl"}, "cx": {"rcx", "ecx", "cx", "cl"}, "dx": {"rdx", "edx", "dx", "dl"},
	"si": {"rsi", "esi", "si", "sil"}, "di": {"rdi", "edi", "di", "dil"}, "bp": {"rbp", "ebp", "bp", "bpl"}, "sp": {"rsp", "esp", "sp", "spl"},
	"ip": {"rip", "eip"},
}

// registers give the 64-bit register of every name it has.
var registers = func() map[string]string {
	m := map[string]string{}
	for reg, names := range low {
		for _, n := range names {
			m[n] = reg
		}
	}
	for i := 8; i < 16; i++ {
		r := "r" + strconv.Itoa(i)
		for _, suffix := range []string{"", "d", "w", "b"} {
			m[r+suffix] = r
		}
	}
	return m
}()

func (a *Arg) register(s string, dst *string) error {
	name, ok := strings.CutPrefix(s, "%")
	reg, known := registers[name]
	if len(name) == 2 && name[1] == 'h' && strings.IndexByte("abcd", name[0]) >= 0 {
		reg, known, a.High = name[:1]+"x", true, true
	}
	if !ok || !known {
		return fmt.Errorf("no register %q", s)
	}
	*dst = reg
	return nil
}

// arm64 reads an operand of AArch64: 5, x0, w1, [sp], [x0, 8], [x0, x1, lsl 3].
func (a *Arg) arm64(op string) error {
	inside, ok := strings.CutPrefix(op, "[")
	if !ok {
		if err := a.number(strings.TrimPrefix(op, "#")); err == nil {
			return nil
		}
		a.Kind = Reg
		return a.armRegister(op, &a.Reg)
	}
	a.Kind = Mem
	inside, ok = strings.CutSuffix(inside, "]")
	if !ok {
		return fmt.Errorf("operand of unknown form")
	}
	parts := strings.Split(inside, ",")
	for i := range parts {
		parts[i] = strings.TrimPrefix(strings.TrimSpace(parts[i]), "#")
	}
	if err := a.armRegister(parts[0], &a.Reg); err != nil || len(parts) == 1 {
		return err
	}
	if err := a.number(parts[1]); err == nil && len(parts) == 2 {
		return nil
	}
	if err := a.armRegister(parts[1], &a.Index); err != nil || len(parts) == 2 {
		return err
	}
	shift, err := strconv.Atoi(strings.TrimPrefix(strings.TrimSpace(strings.TrimPrefix(parts[2], "lsl")), "#"))
	if err != nil || len(parts) > 3 || shift < 0 || shift > 4 {
		return fmt.Errorf("operand of unknown form")
	}
	a.Scale = 1 << shift
	return nil
}

func (a *Arg) armRegister(s string, dst *string) error {
	switch s {
	case "sp":
		*dst = "sp"
		return nil
	case "":
		return fmt.Errorf("a register is missing")
	}
	n, err := strconv.Atoi(s[1:])
	if err != nil || n < 0 || n > 30 || s[0] != 'x' && s[0] != 'w' {
		return fmt.Errorf("no register %q", s)
	}
	*dst = "r" + strconv.Itoa(n)
	return nil
}
