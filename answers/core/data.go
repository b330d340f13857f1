package core

import (
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

// address reads a number or the name of a symbol, what is added to it or taken off, and for a per-CPU variable the CPU:
// init_task+16, runqueues:1.
func (s *Session) address(arg string) (uint64, error) {
	cpus, name, err := s.cpuSpec(arg)
	switch {
	case err != nil:
		return 0, err
	case len(cpus) > 1:
		return 0, &Usage{fmt.Sprintf("%s is several addresses", arg)}
	}
	sign, add := uint64(1), ""
	if i := strings.IndexAny(name, "+-"); i > 0 {
		if name[i] == '-' {
			sign = ^uint64(0)
		}
		name, add = name[:i], name[i+1:]
	}
	at, ok := number(name)
	if !ok {
		all := s.t.Symbols().ByName(name)
		if len(all) == 0 {
			return 0, fmt.Errorf("no symbol %s", name)
		}
		at = all[0]
	}
	if len(cpus) == 1 {
		at += s.t.PerCPU(cpus[0])
	}
	if add == "" {
		return at, nil
	}
	off, ok := number(add)
	if !ok {
		return 0, fmt.Errorf("%s is no number", add)
	}
	return at + sign*off, nil
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

// maxCode is how much of a function is disassembled when no count is given.
const maxCode = 64 << 10

// dis prints instructions: of a function, or so many; -r from the function's begin to the address, -f from there to its end;
// -l with source lines.
func (s *Session) dis(w io.Writer, args []string) error {
	o, err := parse(args, "rfl", "")
	if err != nil {
		return err
	}
	if args = o.rest; len(args) == 0 || o.on['r'] && (len(args) > 1 || o.on['f']) {
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
	last := uint64(0)
	if o.on['r'] {
		y, ok := s.t.Symbols().At(at)
		if !ok {
			return fmt.Errorf("%#x is in no function", at)
		}
		at, last = y.Addr, at
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
		if last != 0 && in.Addr > last {
			break
		}
		if reached[in.Addr] {
			clear(types)
		}
		if o.on['l'] {
			if y, ok := s.t.Symbols().At(in.Addr); ok {
				s.sourceAt(w, y.Name, y.Module, in.Addr, in.Addr-y.Addr)
			}
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

// structure prints a type, or values of it: -o with addresses of the members, -l for the address of a member in it or behind an
// offset, -x and -d with hexadecimal and decimal numbers, -r as words; a count for as many in a row; :CPUS for per-CPU variables.
func (s *Session) structure(w io.Writer, args []string) error {
	o, err := parse(args, "oxdr", "l")
	if err != nil {
		return err
	}
	if args = o.rest; len(args) == 0 || len(args) > 3 {
		return &Usage{}
	}
	name, member, _ := strings.Cut(args[0], ".")
	t, err := s.typeNamed(name)
	if err != nil {
		return err
	}
	if len(args) == 1 {
		return layout(w, t, member, 0)
	}
	off, err := s.offset(o)
	if err != nil {
		return err
	}
	n, err := count(args[1:], 1)
	if err != nil {
		return err
	}
	cpus, symbol, err := s.cpuSpec(args[1])
	if err != nil || cpus == nil {
		cpus = []int{-1}
	}
	for _, cpu := range cpus {
		where := symbol
		if cpu >= 0 {
			where = fmt.Sprintf("%s:%d", symbol, cpu)
		}
		at, err := s.address(where)
		if err != nil {
			return err
		}
		if at -= off; len(cpus) > 1 {
			fmt.Fprintf(w, "[%d]: %016x\n", cpu, at)
		}
		if err := s.objects(w, o, t, member, at, n); err != nil {
			return err
		}
	}
	return nil
}

// objects prints so many values of a type in a row.
func (s *Session) objects(w io.Writer, o options, t ctype.Type, member string, at uint64, n int) (err error) {
	for range n {
		switch {
		case o.on['o']:
			err = layout(w, t, member, at)
		case o.on['r']:
			err = s.words(w, s.t.ReadVirt, at, (ctype.Size(t)+7)/8, 8, options{}, nil)
		default:
			err = s.object(w, t, member, at, o.on['x'])
		}
		if err != nil {
			return err
		}
		at += uint64(ctype.Size(t))
	}
	return nil
}

// offset is what -l says: a number, or where a member stands in its type.
func (s *Session) offset(o options) (uint64, error) {
	if !o.on['l'] {
		return 0, nil
	}
	if n, ok := number(o.val['l']); ok {
		return n, nil
	}
	i := strings.LastIndexByte(o.val['l'], '.')
	if i < 0 {
		return 0, &Usage{"-l takes an offset or TYPE.MEMBER"}
	}
	t, err := s.typeNamed(o.val['l'][:i])
	if err != nil {
		return 0, err
	}
	st, ok := ctype.Strip(t).(*ctype.Struct)
	if !ok {
		return 0, fmt.Errorf("%s has no members", ctype.Name(t))
	}
	m, ok := st.Member(o.val['l'][i+1:])
	if !ok {
		return 0, fmt.Errorf("%s has no member %s", ctype.Name(t), o.val['l'][i+1:])
	}
	return uint64(m.BitOff / 8), nil
}

// object prints a value of a type, or members of it.
func (s *Session) object(w io.Writer, t ctype.Type, member string, at uint64, hex bool) error {
	errs := &kernel.Errors{}
	v := kernel.Object(s.t, errs, ctype.Name(t), at)
	if member == "" {
		p := printer{w: w, t: s.t, errs: errs, hex: hex}
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
		p := printer{w: w, t: s.t, errs: errs, hex: hex}
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

// layout prints the members with their offsets, as crash's struct -o; of a value that is somewhere, with their addresses.
func layout(w io.Writer, t ctype.Type, only string, at uint64) error {
	place := func(bits int) string {
		if at == 0 {
			return fmt.Sprintf("[%d]", bits/8)
		}
		return fmt.Sprintf("[%x]", at+uint64(bits/8))
	}
	if e, ok := ctype.Strip(t).(*ctype.Enum); ok && only == "" {
		fmt.Fprintf(w, "%s {\n", ctype.Name(t))
		for _, v := range e.Values {
			fmt.Fprintf(w, "  %s = %d\n", v.Name, v.Value)
		}
		fmt.Fprintln(w, "}")
		return nil
	}
	s, ok := ctype.Strip(t).(*ctype.Struct)
	if !ok {
		fmt.Fprintf(w, "%s\nSIZE: %d\n", ctype.Name(t), ctype.Size(t))
		return nil
	}
	if only == "" {
		fmt.Fprintf(w, "%s {\n", ctype.Name(t))
		members(w, s, 0, "", place)
		fmt.Fprintf(w, "}\nSIZE: %d\n", s.Size)
		return nil
	}
	for name := range strings.SplitSeq(only, ",") {
		m, ok := s.Member(name)
		if !ok {
			return fmt.Errorf("%s has no member %s", ctype.Name(t), name)
		}
		fmt.Fprintf(w, "%s {\n  %s %s\n}\n", ctype.Name(t), place(m.BitOff), declare(m))
	}
	return nil
}

// members prints the members of a struct that begins at so many bits, those of members without a name too.
func members(w io.Writer, s *ctype.Struct, from int, indent string, place func(int) string) {
	for _, m := range s.Members() {
		in, ok := ctype.Strip(m.Type).(*ctype.Struct)
		if m.Name != "" || !ok {
			fmt.Fprintf(w, "%8s %s%s\n", place(from+m.BitOff), indent, declare(m))
			continue
		}
		fmt.Fprintf(w, "%8s %s%s {\n", "", indent, ctype.Name(in))
		members(w, in, from+m.BitOff, indent+"    ", place)
		fmt.Fprintf(w, "%8s %s};\n", "", indent)
	}
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
	o, err := parse(args, "o", "") // offsets are always shown
	if err != nil {
		return err
	}
	if args = o.rest; len(args) == 0 {
		return &Usage{}
	}
	name := strings.Join(args, " ")
	if f, err := s.t.Types().Func("", name); err == nil {
		fmt.Fprintf(w, "%s %s(%s);\n", ctype.Name(f.Result), name, params(f))
		return nil
	}
	t, err := s.typeNamed(name)
	if err != nil {
		if at := s.t.Symbols().ByName(name); len(at) > 0 {
			if v := s.typeOfVariable(name, at[0]); v != (ctype.Void{}) {
				fmt.Fprintln(w, declare(ctype.Member{Name: name, Type: v}))
				return nil
			}
			return fmt.Errorf("%s is a symbol at %#x whose type is not known", name, at[0])
		}
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
	return layout(w, t, "", 0)
}

func params(f *ctype.Func) string {
	var out []string
	for _, p := range f.Params {
		out = append(out, strings.TrimSuffix(declare(ctype.Member{Name: p.Name, Type: p.Type}), ";"))
	}
	return strings.Join(out, ", ")
}
