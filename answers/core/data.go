package core

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/debuginfo/disasm"
	"github.com/fathom-trace/fathom/kernel"
)

// number reads a number as crash does: hexadecimal with 0x or with letters, else decimal.
func number(s string) (uint64, bool) {
	if n, err := strconv.ParseUint(s, 0, 64); err == nil {
		return n, true
	}
	n, err := strconv.ParseUint(s, 16, 64)
	return n, err == nil && len(s) >= 8
}

// address reads a number or the name of a symbol, and what is added to it.
func (s *Session) address(arg string) (uint64, error) {
	name, add, _ := strings.Cut(arg, "+")
	at, ok := number(name)
	if !ok {
		all := s.t.Symbols().ByName(name)
		if len(all) == 0 {
			return 0, fmt.Errorf("no symbol %s", name)
		}
		at = all[0]
	}
	off := uint64(0)
	if add != "" {
		if off, ok = number(add); !ok {
			return 0, fmt.Errorf("%s is no number", add)
		}
	}
	return at + off, nil
}

// count reads the optional second argument.
func count(args []string, otherwise int) (int, error) {
	if len(args) < 2 {
		return otherwise, nil
	}
	n, ok := number(args[1])
	if !ok || n > 1<<20 || len(args) > 2 {
		return 0, &Usage{}
	}
	return int(n), nil
}

func (s *Session) sym(w io.Writer, args []string) error {
	if len(args) != 1 {
		return &Usage{}
	}
	if n, ok := number(args[0]); ok {
		if _, ok := s.t.Symbols().At(n); !ok {
			return fmt.Errorf("no symbol at %#x", n)
		}
		fmt.Fprintf(w, "%016x %s\n", n, s.name(n, n))
		return nil
	}
	at := s.t.Symbols().ByName(args[0])
	if len(at) == 0 {
		return fmt.Errorf("no symbol %s", args[0])
	}
	for _, a := range at {
		y, _ := s.t.Symbols().At(a)
		mod := ""
		if y.Module != "" {
			mod = " [" + y.Module + "]"
		}
		fmt.Fprintf(w, "%016x (%c) %s%s\n", a, y.Type, args[0], mod)
	}
	return nil
}

func (s *Session) rd(w io.Writer, args []string) error {
	if len(args) == 0 {
		return &Usage{}
	}
	at, err := s.address(args[0])
	if err != nil {
		return err
	}
	n, err := count(args, 1)
	if err != nil {
		return err
	}
	for i := 0; i < n; i += 2 {
		b := make([]byte, 8*min(2, n-i))
		if err := s.t.ReadVirt(b, at); err != nil {
			return err
		}
		fmt.Fprintf(w, "%016x: ", at)
		for j := 0; j < len(b); j += 8 {
			fmt.Fprintf(w, " %016x", binary.LittleEndian.Uint64(b[j:]))
		}
		fmt.Fprintf(w, "   %s\n", printable(b))
		at += uint64(len(b))
	}
	return nil
}

func printable(b []byte) string {
	out := make([]byte, len(b))
	for i, c := range b {
		if out[i] = '.'; c >= ' ' && c < 0x7f {
			out[i] = c
		}
	}
	return string(out)
}

// maxCode is how much of a function is disassembled when no count is given.
const maxCode = 64 << 10

func (s *Session) dis(w io.Writer, args []string) error {
	if len(args) == 0 {
		return &Usage{}
	}
	at, err := s.address(args[0])
	if err != nil {
		return err
	}
	n, err := count(args, -1)
	if err != nil {
		return err
	}
	size := 15 * n
	if n < 0 {
		size = maxCode
	}
	first, ok := s.t.Symbols().At(at)
	code := make([]byte, size)
	for s.t.ReadVirt(code, at) != nil { // the function may be the last thing that is mapped
		if len(code) < 16 {
			return s.t.ReadVirt(code, at)
		}
		code = code[:len(code)/2]
	}
	namer := func(a uint64) (string, uint64) {
		y, ok := s.t.Symbols().At(a)
		if !ok {
			return "", 0
		}
		return y.Name, a - y.Addr
	}
	types := s.arguments(first.Module, first.Name)
	if !ok || at != first.Addr {
		clear(types) // what was before the first instruction shown is not known
	}
	ins := disasm.Decode(disasm.AMD64, code, at, namer)
	reached := map[uint64]bool{} // by jumps, from where registers may hold other things
	for _, in := range ins {
		reached[in.To] = reached[in.To] || in.Jump
	}
	for i, in := range ins {
		y, here := s.t.Symbols().At(in.Addr)
		if n >= 0 && i == n || n < 0 && (!ok || !here || y.Addr != first.Addr) {
			break
		}
		if reached[in.Addr] {
			clear(types)
		}
		fmt.Fprintf(w, "%#x <%s>:\t%s", in.Addr, s.name(in.Addr, in.Addr), in.Text)
		if t, m, ok := member(in, types); ok {
			fmt.Fprintf(w, "\t# %s.%s", t, m)
		}
		fmt.Fprintln(w)
		if follow(in, types); strings.HasPrefix(in.Text, "jmp") || strings.HasPrefix(in.Text, "ret") {
			clear(types)
		}
	}
	return nil
}

func (s *Session) structure(w io.Writer, args []string) error {
	if len(args) == 0 || len(args) > 2 {
		return &Usage{}
	}
	name, member, _ := strings.Cut(args[0], ".")
	t, err := s.typeNamed(name)
	if err != nil {
		return err
	}
	if len(args) == 1 {
		return layout(w, t, member)
	}
	at, err := s.address(args[1])
	if err != nil {
		return err
	}
	errs := &kernel.Errors{}
	v := kernel.Object(s.t, errs, ctype.Name(t), at)
	if member == "" {
		p := printer{w: w, t: s.t, errs: errs}
		p.value(v, "", 0)
		fmt.Fprintln(w)
		return errs.Take()
	}
	for m := range strings.SplitSeq(member, ",") {
		f := v.Get(m)
		if err := errs.Take(); err != nil {
			return err
		}
		fmt.Fprintf(w, "  %s = ", m)
		p := printer{w: w, t: s.t, errs: errs}
		p.value(f, "  ", 0)
		fmt.Fprintln(w)
	}
	return errs.Take()
}

// typeNamed finds a type with or without the word struct.
func (s *Session) typeNamed(name string) (ctype.Type, error) {
	for _, prefix := range []string{"", "struct ", "union ", "enum "} {
		if t, err := kernel.TypeNamed(s.t.Types(), prefix+name); err == nil {
			return t, nil
		}
	}
	return nil, fmt.Errorf("no type %s", name)
}

// layout prints the members with their offsets, as crash's struct -o.
func layout(w io.Writer, t ctype.Type, only string) error {
	s, ok := ctype.Strip(t).(*ctype.Struct)
	if !ok {
		fmt.Fprintf(w, "%s\nSIZE: %d\n", ctype.Name(t), ctype.Size(t))
		return nil
	}
	if only != "" {
		m, ok := s.Member(only)
		if !ok {
			return fmt.Errorf("%s has no member %s", ctype.Name(t), only)
		}
		fmt.Fprintf(w, "%s {\n  [%d] %s\n}\n", ctype.Name(t), m.BitOff/8, declare(m))
		return nil
	}
	fmt.Fprintf(w, "%s {\n", ctype.Name(t))
	for _, m := range s.Members() {
		fmt.Fprintf(w, "%8s %s\n", fmt.Sprintf("[%d]", m.BitOff/8), declare(m))
	}
	fmt.Fprintf(w, "}\nSIZE: %d\n", s.Size)
	return nil
}

// declare writes a member as C does.
func declare(m ctype.Member) string {
	name, dims := ctype.Name(m.Type), ""
	if a, ok := m.Type.(*ctype.Array); ok {
		full := ctype.Name(a)
		if i := strings.IndexByte(full, '['); i >= 0 {
			name, dims = full[:i], full[i:]
		}
	}
	sep := " "
	if strings.HasSuffix(name, "*") {
		sep = ""
	}
	bits := ""
	if m.BitSize != 0 {
		bits = fmt.Sprintf(" : %d", m.BitSize)
	}
	return name + sep + m.Name + dims + bits + ";"
}

func (s *Session) whatis(w io.Writer, args []string) error {
	if len(args) == 0 {
		return &Usage{}
	}
	name := strings.Join(args, " ")
	if f, err := s.t.Types().Func("", name); err == nil {
		fmt.Fprintf(w, "%s %s(%s);\n", ctype.Name(f.Result), name, params(f))
		return nil
	}
	t, err := s.typeNamed(name)
	if err != nil {
		if _, v, ok := s.t.Types().EnumValue(name); ok {
			fmt.Fprintf(w, "%s = %d\n", name, v)
			return nil
		}
		return err
	}
	if td, ok := t.(*ctype.Typedef); ok {
		fmt.Fprintf(w, "typedef %s %s;\n", ctype.Name(td.Type), td.Name)
		return nil
	}
	return layout(w, t, "")
}

func params(f *ctype.Func) string {
	var out []string
	for _, p := range f.Params {
		out = append(out, strings.TrimSuffix(declare(ctype.Member{Name: p.Name, Type: p.Type}), ";"))
	}
	return strings.Join(out, ", ")
}

func (s *Session) list(w io.Writer, args []string) error {
	if len(args) != 2 {
		return &Usage{}
	}
	i := strings.LastIndexByte(args[0], '.')
	if i < 0 {
		return &Usage{}
	}
	t, err := s.typeNamed(args[0][:i])
	if err != nil {
		return err
	}
	head, err := s.address(args[1])
	if err != nil {
		return err
	}
	errs := &kernel.Errors{}
	n := 0
	for v := range kernel.Object(s.t, errs, "struct list_head", head).List(ctype.Name(t), args[0][i+1:]) {
		fmt.Fprintf(w, "%016x\n", v.Addr)
		n++
	}
	if err := errs.Take(); err != nil {
		return errors.Join(fmt.Errorf("after %d elements", n), err)
	}
	return nil
}
