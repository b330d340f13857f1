package traceevent

import (
	"encoding/hex"
	"strconv"
	"strings"
)

// call compiles NAME "(" has been read. Arguments of helpers are fields by their bare name, tables, or expressions.
func (p *exprParser) call(name string) expr {
	switch name {
	case "__get_str", "__get_rel_str":
		f := p.located()
		return expr{t: charsType, eval: func(s *scope) value { return value{b: notNil(f.String(s.rec))} }}
	case "__get_dynamic_array", "__get_rel_dynamic_array", "__get_sockaddr", "__get_rel_sockaddr", "__get_sockaddr_rel":
		f := p.located()
		t := ctyp{size: f.ElemSize(), uns: !f.Signed, mem: true}
		return expr{t: t, eval: func(s *scope) value { return value{b: notNil(f.Bytes(s.rec))} }}
	case "__get_dynamic_array_len", "__get_rel_dynamic_array_len":
		f := p.located()
		return expr{t: intType, eval: func(s *scope) value { return value{n: uint64(len(f.Bytes(s.rec)))} }}
	case "__get_bitmask", "__get_cpumask", "__get_rel_bitmask", "__get_rel_cpumask":
		f := p.located()
		return madeText(func(dst []byte, s *scope) []byte { return appendBitmask(dst, f.Bytes(s.rec)) })
	case "__print_flags", "__print_flags_u64":
		return p.flags()
	case "__print_symbolic", "__print_symbolic_u64":
		return p.symbolic()
	case "__print_hex", "__print_hex_str":
		buf, n := p.pair()
		sep := " "
		if name == "__print_hex_str" {
			sep = ""
		}
		return madeText(func(dst []byte, s *scope) []byte { return appendHex(dst, first(buf.eval(s).b, n.eval(s).n, 1), sep) })
	case "__print_array":
		buf := p.expr()
		p.expect(",")
		n, size := p.pair()
		return madeText(func(dst []byte, s *scope) []byte {
			el := size.eval(s).n
			return appendArray(dst, first(buf.eval(s).b, n.eval(s).n, el), int(min(el, 8)))
		})
	case "__builtin_expect":
		x := p.expr()
		p.expect(",")
		p.expr()
		p.expect(")")
		return x
	case "jiffies_to_msecs", "jiffies_to_usecs":
		x := p.expr()
		p.expect(")")
		unit := uint64(1000)
		if name == "jiffies_to_usecs" {
			unit *= 1000
		}
		return expr{t: ctyp{size: 4, uns: true}, eval: func(s *scope) value {
			if s.env == nil || s.env.HZ == 0 {
				return x.eval(s)
			}
			return value{n: x.eval(s).n * unit / s.env.HZ}
		}}
	}
	p.fail("the function %s", name)
	return expr{}
}

// located is a field by name, and ")".
func (p *exprParser) located() *Field {
	name := p.next().text
	p.expect(")")
	f := p.f.Field(name)
	if f == nil {
		p.fail("no field %s", name)
	}
	return f
}

func (p *exprParser) pair() (a, b expr) {
	a = p.expr()
	p.expect(",")
	b = p.expr()
	p.expect(")")
	return a, b
}

// first gives the first n elements of b.
func first(b []byte, n, size uint64) []byte {
	if size == 0 || size > 8 || n > uint64(len(b))/size {
		return b
	}
	return b[:n*size]
}

// madeText is an expression whose value is text that is put together.
func madeText(f func(dst []byte, s *scope) []byte) expr {
	return expr{t: ctyp{pseudo: true, mem: true, size: 1}, eval: func(s *scope) value {
		at := len(s.made)
		s.made = f(s.made, s)
		return value{b: notNil(s.made[at:])}
	}}
}

// symbol is a row {value, "name"} of a table.
type symbol struct {
	n    uint64
	name string
}

// table reads {"," "{" value "," name "}"} ")". Rows whose value has only a name here are left out: the kernel's headers
// alone know them.
func (p *exprParser) table() []symbol {
	var out []symbol
	for p.accept(",") {
		if p.accept(")") {
			return out
		}
		p.expect("{")
		start := p.at
		v, ok := p.tableValue()
		if !ok {
			p.at = start
			for p.peek().kind != tokEnd && p.peek().text != "," {
				p.next()
			}
		}
		p.expect(",")
		if p.peek().kind != tokString { // NULL ends the kernel's tables
			p.expr()
			p.expect("}")
			continue
		}
		name := string(p.primary().eval(nil).b)
		p.expect("}")
		if ok {
			out = append(out, symbol{v, name})
		}
	}
	p.expect(")")
	return out
}

// tableValue is a constant; ok is false if it is none.
func (p *exprParser) tableValue() (n uint64, ok bool) {
	depth := p.depth
	defer func() {
		if e := recover(); e != nil {
			if _, is := e.(fmtError); !is {
				panic(e)
			}
			p.depth = depth
			n, ok = 0, false
		}
	}()
	x := p.expr()
	if !x.konst || x.t.mem {
		return 0, false
	}
	return x.eval(nil).n, true
}

// flags is trace_print_flags_seq of kernel/trace/trace_output.c.
func (p *exprParser) flags() expr {
	v := p.expr()
	p.expect(",")
	delim := p.expr()
	if !delim.t.mem {
		p.fail("a separator that is no text")
	}
	sep := string(delim.eval(&scope{}).b)
	table := p.table()
	return madeText(func(dst []byte, s *scope) []byte {
		left, start := v.eval(s).n, len(dst)
		for _, row := range table {
			if left == 0 {
				break
			}
			if left&row.n != row.n {
				continue
			}
			left &^= row.n
			if len(dst) > start {
				dst = append(dst, sep...)
			}
			dst = append(dst, row.name...)
		}
		if left != 0 {
			if len(dst) > start {
				dst = append(dst, sep...)
			}
			dst = append(dst, "0x"...)
			dst = strconv.AppendUint(dst, left, 16)
		}
		return dst
	})
}

// symbolic is trace_print_symbols_seq.
func (p *exprParser) symbolic() expr {
	v := p.expr()
	table := p.table()
	return madeText(func(dst []byte, s *scope) []byte {
		n := v.eval(s).n
		for _, row := range table {
			if row.n == n {
				return append(dst, row.name...)
			}
		}
		dst = append(dst, "0x"...)
		return strconv.AppendUint(dst, n, 16)
	})
}

func appendHex(dst, b []byte, sep string) []byte {
	for i, c := range b {
		if i > 0 {
			dst = append(dst, sep...)
		}
		dst = hex.AppendEncode(dst, []byte{c})
	}
	return dst
}

// appendBitmask is %*pb of lib/vsprintf.c: words of 32 bits, the highest first.
func appendBitmask(dst, b []byte) []byte {
	for i := (len(b)+3)/4 - 1; i >= 0; i-- {
		var w uint64
		for k := min(len(b), i*4+4) - 1; k >= i*4; k-- {
			w = w<<8 | uint64(b[k])
		}
		dst = pad(dst, strconv.AppendUint(nil, w, 16), 2*(min(len(b), i*4+4)-i*4), '0')
		if i > 0 {
			dst = append(dst, ',')
		}
	}
	return dst
}

// appendBitList is %*pbl: 0-3,7.
func appendBitList(dst, b []byte) []byte {
	set := func(i int) bool { return i < 8*len(b) && b[i/8]>>(i%8)&1 != 0 }
	sep := ""
	for i := 0; i < 8*len(b); i++ {
		if !set(i) {
			continue
		}
		from := i
		for set(i + 1) {
			i++
		}
		dst = append(dst, sep...)
		dst = strconv.AppendInt(dst, int64(from), 10)
		if i > from {
			dst = append(dst, '-')
			dst = strconv.AppendInt(dst, int64(i), 10)
		}
		sep = ","
	}
	return dst
}

func pad(dst, s []byte, width int, with byte) []byte {
	for n := width - len(s); n > 0; n-- {
		dst = append(dst, with)
	}
	return append(dst, s...)
}

// isPointerExt says if a character belongs to what follows %p.
func isPointerExt(c byte) bool {
	return c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9'
}

// pointerKinds are the forms behind %p that print what is in the record.
func pointerKind(ext string) bool {
	switch ext {
	case "M", "m", "MR", "MF", "I4", "i4", "I6", "i6", "I6c", "hC", "hD", "hN", "h", "b", "bl", "a":
		return true
	}
	return strings.HasPrefix(ext, "U") || strings.HasPrefix(ext, "IS") || strings.HasPrefix(ext, "iS")
}
