package traceevent

import (
	"errors"
	"math"
	"net/netip"
	"strconv"
	"strings"
)

// Env is what print fmts need beside the record. The zero Env has nothing.
type Env struct {
	// Symbol names a kernel address; ok is false where there is none.
	Symbol func(addr uint64) (name string, off, size uint64, module string, ok bool)
	// Text gives the text at a kernel address, which the kernel lists in printk_formats.
	Text func(addr uint64) (string, bool)
	HZ   uint64 // ticks per second of the kernel that recorded; 0 leaves jiffies as they are
}

// Printer renders records of one event as the kernel does. One goroutine may use it at a time.
type Printer struct {
	scope scope
	f     *Format
	parts []part
	why   error
}

// part is literal text, then perhaps a conversion.
type part struct {
	text                            string
	verb                            byte // 0: text only
	minus, plus, space, sharp, zero bool
	width, prec                     int // -1: none
	widthArg, precArg               *expr
	size                            int // bytes of the argument of an integer verb
	arg                             expr
	ext                             string // behind %p
}

// maxWidth bounds widths and precisions.
const maxWidth = 4096

// NewPrinter compiles the print fmt of f. One that is not understood is rendered as name=value of all fields, and
// [Printer.Incomplete] says why.
func NewPrinter(f *Format) *Printer {
	p := &Printer{f: f}
	p.parts, p.why = compile(f)
	return p
}

// Incomplete says why the fields are listed in place of the print fmt; nil if they are not.
func (p *Printer) Incomplete() error { return p.why }

func compile(f *Format) (parts []part, err error) {
	defer func() {
		if e := recover(); e != nil {
			fe, ok := e.(fmtError)
			if !ok {
				panic(e)
			}
			parts, err = nil, errors.New(fe.msg)
		}
	}()
	toks, err := scan(f.Print)
	if err != nil {
		return nil, err
	}
	p := &exprParser{f: f, toks: toks}
	if p.peek().kind != tokString {
		p.fail("no format")
	}
	var text strings.Builder
	for p.peek().kind == tokString {
		text.WriteString(p.next().text)
	}
	parts = p.conversions(text.String())
	if p.peek().kind != tokEnd {
		p.fail("%q after the last argument", p.peek().text)
	}
	return parts, nil
}

// conversions splits a format, and reads an argument for each conversion.
func (p *exprParser) conversions(s string) []part {
	var out []part
	var lit []byte
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			lit = append(lit, s[i])
			continue
		}
		if i+1 < len(s) && s[i+1] == '%' {
			lit = append(lit, '%')
			i++
			continue
		}
		c := part{text: string(lit), width: -1, prec: -1}
		lit = nil
		i = p.conversion(&c, s, i+1)
		out = append(out, c)
	}
	if len(lit) > 0 {
		out = append(out, part{text: string(lit)})
	}
	return out
}

// argument is "," expr.
func (p *exprParser) argument() expr {
	p.expect(",")
	return p.expr()
}

// conversion reads one conversion of s behind its %, and gives the offset of its last character.
func (p *exprParser) conversion(c *part, s string, i int) int {
	for ; i < len(s) && strings.IndexByte("-+ #0", s[i]) >= 0; i++ {
		switch s[i] {
		case '-':
			c.minus = true
		case '+':
			c.plus = true
		case ' ':
			c.space = true
		case '#':
			c.sharp = true
		case '0':
			c.zero = true
		}
	}
	c.width, c.widthArg, i = p.measure(s, i)
	if i < len(s) && s[i] == '.' {
		if c.prec, c.precArg, i = p.measure(s, i+1); c.prec < 0 && c.precArg == nil {
			c.prec = 0
		}
	}
	c.size = 4
	for ; i < len(s) && strings.IndexByte("hlLztj", s[i]) >= 0; i++ {
		if s[i] == 'h' {
			c.size /= 2
		} else {
			c.size = 8
		}
	}
	if i >= len(s) {
		p.fail("a %% at the end")
	}
	c.verb = s[i]
	if strings.IndexByte("diuxXocsp", c.verb) < 0 {
		p.fail("the conversion %%%c", c.verb)
	}
	if c.verb == 'p' {
		n := i + 1
		for n < len(s) && isPointerExt(s[n]) {
			n++
		}
		c.ext, i = s[i+1:n], n-1
	}
	c.arg = p.argument()
	return i
}

// measure reads a width or a precision: digits or a star.
func (p *exprParser) measure(s string, i int) (int, *expr, int) {
	if i < len(s) && s[i] == '*' {
		e := p.argument()
		return -1, &e, i + 1
	}
	n := i
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	if n == i {
		return -1, nil, i
	}
	v, err := strconv.Atoi(s[i:n])
	if err != nil || v > maxWidth {
		p.fail("a width of %s", s[i:n])
	}
	return v, nil, n
}

// Append renders a record.
func (p *Printer) Append(dst, rec []byte, env *Env) []byte {
	if p.why != nil {
		return p.f.AppendFields(dst, rec)
	}
	s := &p.scope
	s.rec, s.env, s.made = rec, env, s.made[:0]
	for i := range p.parts {
		c := &p.parts[i]
		dst = append(dst, c.text...)
		if c.verb != 0 {
			dst = c.append(dst, s)
		}
	}
	return dst
}

// AppendFields renders a record's own fields, those that are there, as name=value.
func (f *Format) AppendFields(dst, rec []byte) []byte {
	sep := false
	for i := range f.Fields {
		d := &f.Fields[i]
		if d.Common || !d.There(rec) {
			continue
		}
		if sep {
			dst = append(dst, ' ')
		}
		sep = true
		dst = append(dst, d.Name...)
		dst = append(dst, '=')
		dst = d.AppendValue(dst, rec)
	}
	return dst
}

func (c *part) append(dst []byte, s *scope) []byte {
	width, prec, minus := c.width, c.prec, c.minus
	if c.widthArg != nil {
		if width = int(int32(c.widthArg.eval(s).n)); width < 0 {
			width, minus = -width, true
		}
		width = min(width, maxWidth)
	}
	if c.precArg != nil {
		prec = max(-1, min(int(int32(c.precArg.eval(s).n)), math.MaxInt16))
	}
	v := c.arg.eval(s)
	start := len(dst)
	switch c.verb {
	case 's':
		b := upToNul(v.b)
		if v.b == nil {
			b = kernelText(v.n, s.env)
		}
		if prec >= 0 && prec < len(b) {
			b = b[:prec]
		}
		dst = append(dst, b...)
	case 'c':
		dst = append(dst, byte(v.n))
	case 'p':
		dst = c.pointer(dst, v, s, width)
		if c.ext == "h" || c.ext == "b" || c.ext == "bl" {
			width = -1
		}
	default:
		if width < 0 && prec < 0 && !c.plus && !c.space && !c.sharp {
			return c.plain(dst, v.n)
		}
		return c.number(dst, v.n, width, prec, minus)
	}
	return justify(dst, start, width, minus)
}

// kernelText is %s of an address.
func kernelText(addr uint64, env *Env) []byte {
	if addr == 0 {
		return []byte("(null)")
	}
	if env != nil && env.Text != nil {
		if t, ok := env.Text(addr); ok {
			return []byte(t)
		}
	}
	return strconv.AppendUint([]byte("0x"), addr, 16)
}

// justify pads what was written since start with spaces.
func justify(dst []byte, start, width int, left bool) []byte {
	n := width - (len(dst) - start)
	if n <= 0 {
		return dst
	}
	for range n {
		dst = append(dst, ' ')
	}
	if !left {
		copy(dst[start+n:], dst[start:len(dst)-n])
		for i := range n {
			dst[start+i] = ' '
		}
	}
	return dst
}

// narrow takes an integer argument to the size its conversion says.
func (c *part) narrow(n uint64) uint64 {
	return ctyp{size: c.size, uns: c.verb != 'd' && c.verb != 'i'}.wrap(n)
}

// plain is an integer without width, precision and flags.
func (c *part) plain(dst []byte, n uint64) []byte {
	n = c.narrow(n)
	switch c.verb {
	case 'd', 'i':
		return strconv.AppendInt(dst, int64(n), 10)
	case 'u':
		return strconv.AppendUint(dst, n, 10)
	}
	return c.digits(dst, n)
}

func (c *part) digits(dst []byte, n uint64) []byte {
	switch c.verb {
	case 'x':
		return strconv.AppendUint(dst, n, 16)
	case 'o':
		return strconv.AppendUint(dst, n, 8)
	case 'X':
		at := len(dst)
		dst = strconv.AppendUint(dst, n, 16)
		for i := at; i < len(dst); i++ {
			if dst[i] >= 'a' {
				dst[i] -= 'a' - 'A'
			}
		}
		return dst
	}
	return strconv.AppendUint(dst, n, 10)
}

// number is number of lib/vsprintf.c.
func (c *part) number(dst []byte, n uint64, width, prec int, minus bool) []byte {
	n = c.narrow(n)
	var sign, prefix string
	if c.verb == 'd' || c.verb == 'i' {
		switch {
		case int64(n) < 0:
			sign, n = "-", -n
		case c.plus:
			sign = "+"
		case c.space:
			sign = " "
		}
	}
	if c.sharp {
		switch c.verb {
		case 'x':
			prefix = "0x"
		case 'X':
			prefix = "0X"
		case 'o':
			prefix = "0"
		}
	}
	var tmp [24]byte
	d := c.digits(tmp[:0], n)
	zeros := max(0, prec-len(d))
	if c.zero && !minus {
		zeros = max(zeros, width-len(sign)-len(prefix)-len(d))
	}
	start := len(dst)
	dst = append(dst, sign...)
	dst = append(dst, prefix...)
	for range zeros {
		dst = append(dst, '0')
	}
	dst = append(dst, d...)
	return justify(dst, start, width, minus)
}

// pointer is pointer of lib/vsprintf.c for what can be known outside of that kernel. A bare %p, which the kernel replaces by
// a hash unless told otherwise, is the address.
func (c *part) pointer(dst []byte, v value, s *scope, width int) []byte {
	b := v.b
	if b == nil || !pointerKind(c.ext) {
		return c.address(dst, v.n, s)
	}
	switch {
	case c.ext == "M" || c.ext == "m" || c.ext == "MF" || c.ext == "MR":
		sep := map[string]string{"M": ":", "m": "", "MF": "-", "MR": ":"}[c.ext]
		b = b[:min(6, len(b))]
		if c.ext == "MR" {
			b = []byte{at(b, 5), at(b, 4), at(b, 3), at(b, 2), at(b, 1), at(b, 0)}
		}
		return appendHex(dst, b, sep)
	case c.ext == "I4" && len(b) >= 4:
		return netip.AddrFrom4([4]byte(b)).AppendTo(dst)
	case (c.ext == "I6c") && len(b) >= 16:
		return appendIPv6(dst, [16]byte(b))
	case (c.ext == "I6" || c.ext == "i6") && len(b) >= 16:
		for i := 0; i < 16; i += 2 {
			if i > 0 && c.ext == "I6" {
				dst = append(dst, ':')
			}
			dst = appendHex(dst, b[i:i+2], "")
		}
		return dst
	case strings.HasPrefix(c.ext, "U") && len(b) >= 16:
		return appendUUID(dst, [16]byte(b), c.ext[1:])
	case strings.HasPrefix(c.ext, "IS") || strings.HasPrefix(c.ext, "iS"):
		return appendSockaddr(dst, b, c.ext[2:])
	case strings.HasPrefix(c.ext, "h"):
		sep := map[string]string{"h": " ", "hC": ":", "hD": "-", "hN": ""}[c.ext]
		if width > 0 && width < len(b) {
			b = b[:width]
		}
		return appendHex(dst, b, sep)
	case c.ext == "b" || c.ext == "bl":
		if n := (width + 7) / 8; width > 0 && n < len(b) {
			b = b[:n]
		}
		if c.ext == "bl" {
			return appendBitList(dst, b)
		}
		return appendBitmask(dst, b)
	case c.ext == "a" && len(b) >= 8:
		dst = append(dst, "0x"...)
		return pad(dst, strconv.AppendUint(nil, load(b, 8), 16), 16, '0')
	}
	return appendHex(dst, b, "")
}

func at(b []byte, i int) byte {
	if i < len(b) {
		return b[i]
	}
	return 0
}

// address is a number: named where a name is asked for.
func (c *part) address(dst []byte, n uint64, s *scope) []byte {
	if c.ext != "" && strings.IndexByte("sSBfF", c.ext[0]) >= 0 && s.env != nil && s.env.Symbol != nil {
		if name, off, size, mod, ok := s.env.Symbol(n); ok {
			dst = append(dst, name...)
			if c.ext[0] != 's' && c.ext[0] != 'f' {
				dst = append(dst, "+0x"...)
				dst = strconv.AppendUint(dst, off, 16)
				dst = append(dst, "/0x"...)
				dst = strconv.AppendUint(dst, size, 16)
			}
			if mod != "" {
				dst = append(dst, " ["...)
				dst = append(dst, mod...)
				dst = append(dst, ']')
			}
			return dst
		}
		dst = append(dst, "0x"...)
		return strconv.AppendUint(dst, n, 16)
	}
	return pad(dst, strconv.AppendUint(nil, n, 16), 16, '0')
}

// appendIPv6 is ip6_compressed_string: netip writes the same, but for addresses that hold an IPv4 address.
func appendIPv6(dst []byte, b [16]byte) []byte {
	isatap := b[8]|2 == 2 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe
	if !isatap {
		return netip.AddrFrom16(b).AppendTo(dst)
	}
	low := netip.AddrFrom4([4]byte(b[12:]))
	b[12], b[13], b[14], b[15] = 1, 1, 1, 1
	dst = netip.AddrFrom16(b).AppendTo(dst)
	dst = dst[:len(dst)-len("101:101")]
	return low.AppendTo(dst)
}

// appendUUID is uuid_string: l and L are stored with the first three parts in little endian, B and L print in capitals.
func appendUUID(dst []byte, b [16]byte, kind string) []byte {
	if kind == "l" || kind == "L" {
		b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7] = b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6]
	}
	start := len(dst)
	for i, c := range b {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			dst = append(dst, '-')
		}
		dst = appendHex(dst, []byte{c}, "")
	}
	if kind == "B" || kind == "L" {
		copy(dst[start:], strings.ToUpper(string(dst[start:])))
	}
	return dst
}

// Families of struct sockaddr (include/linux/socket.h).
const (
	afINET  = 2
	afINET6 = 10
)

// appendSockaddr is ip_addr_string for %pIS: p prints the port, c compresses.
func appendSockaddr(dst, b []byte, flags string) []byte {
	port := strings.Contains(flags, "p")
	if len(b) < 8 {
		return append(dst, "(invalid address)"...)
	}
	switch family := load(b, 2); {
	case family == afINET:
		dst = netip.AddrFrom4([4]byte(b[4:8])).AppendTo(dst)
	case family == afINET6 && len(b) >= 24:
		if port {
			dst = append(dst, '[')
		}
		dst = appendIPv6(dst, [16]byte(b[8:24]))
		if port {
			dst = append(dst, ']')
		}
	default:
		return append(dst, "(invalid address)"...)
	}
	if port {
		dst = append(dst, ':')
		dst = strconv.AppendUint(dst, uint64(b[2])<<8|uint64(b[3]), 10)
	}
	return dst
}
