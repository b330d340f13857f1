package view

import (
	"strconv"
	"strings"
	"syscall"

	"github.com/fathom-trace/fathom/lang/check"
	"github.com/fathom-trace/fathom/lang/types"
)

// format appends what printf makes of an event's payload.
func (o *Output) format(dst []byte, id int, data []byte) []byte {
	f := o.fmts[id]
	if f == nil {
		p := check.ParseFormat(o.o.Program.Events[id].Fmt)
		f = &p
		o.fmts[id] = f
	}
	return o.apply(dst, f, o.o.Program.Events[id].Payload, data)
}

// Format gives what printf makes of a payload of type t.
func (o *Output) Format(f string, t *types.Type, payload []byte) string {
	p := check.ParseFormat(f)
	return string(o.apply(nil, &p, t, payload))
}

func (o *Output) apply(dst []byte, f *check.Format, t *types.Type, data []byte) []byte {
	for i := range f.Convs {
		dst = append(dst, f.Lits[i]...)
		if t != nil && i < len(t.Fields) {
			a := t.Fields[i]
			dst = o.conv(dst, &f.Convs[i], a.Type, data[a.Off:])
		}
	}
	return append(dst, f.Lits[len(f.Convs)]...)
}

// conv appends one conversion.
func (o *Output) conv(dst []byte, c *check.Conv, t *types.Type, b []byte) []byte {
	from := len(dst)
	switch c.Verb {
	case "s":
		if t.Kind == types.Int && c.Prec < 0 {
			dst = appendNumber(dst, t, b)
		} else {
			dst = o.value(dst, t, b)
		}
		if c.Prec >= 0 && len(dst)-from > c.Prec {
			dst = dst[:from+c.Prec]
		}
	case "r":
		dst = escapeBuffer(dst, buffer(t, b), true, true)
	case "rx":
		dst = escapeBuffer(dst, buffer(t, b), false, true)
	case "rh":
		dst = escapeBuffer(dst, buffer(t, b), false, false)
	case "gr":
		dst = append(dst, gfpFlags(uint64(o.integer(t, b)))...)
	case "c":
		dst = append(dst, byte(o.integer(t, b)))
	case "p":
		dst = append(append(dst, "0x"...), strconv.FormatUint(uint64(o.integer(t, b)), 16)...)
	default:
		return o.intConv(dst, c, t, b)
	}
	return pad(dst, from, c.Width, c.Left, ' ')
}

// integer gives a value as the 64 bits C would pass.
func (o *Output) integer(t *types.Type, b []byte) int64 {
	switch {
	case t.Kind == types.Bool:
		return int64(b[0])
	case t.IsInt():
		return number(t, b)
	case len(b) >= 8:
		return int64(le.Uint64(b))
	}
	return 0
}

// intConv appends d i u o x X with C's flags, width, precision and length modifiers.
func (o *Output) intConv(dst []byte, c *check.Conv, t *types.Type, b []byte) []byte {
	n := o.integer(t, b)
	size := map[string]int{"hh": 1, "h": 2}[c.Len]
	if size == 0 {
		size = 8
		if c.Len == "" && c.Verb != "d" && c.Verb != "i" && c.Verb != "u" {
			size = 4 // as C's unsigned int
		}
	}
	u := uint64(n)
	if size < 8 {
		u &= 1<<(8*size) - 1
	}
	sign, digits := "", ""
	switch c.Verb {
	case "d", "i":
		if size < 8 {
			sh := uint(64 - 8*size)
			n = n << sh >> sh
		}
		if n < 0 && (t.Signed || size < 8 || t.Size < 8 || c.Len != "" || t.Kind != types.Int) || n < 0 && t.Kind == types.Int && !t.Signed {
			sign, digits = "-", strconv.FormatUint(-uint64(n), 10)
		} else {
			digits = strconv.FormatUint(uint64(n), 10)
			if c.Plus {
				sign = "+"
			} else if c.Blank {
				sign = " "
			}
		}
	case "u":
		digits = strconv.FormatUint(u, 10)
	case "o":
		digits = strconv.FormatUint(u, 8)
		if c.Alt {
			sign = "0"
		}
	case "x", "X":
		digits = strconv.FormatUint(u, 16)
		if c.Alt && u != 0 {
			sign = "0x"
		}
		if c.Verb == "X" {
			digits, sign = strings.ToUpper(digits), strings.ToUpper(sign)
		}
	}
	for len(digits) < c.Prec {
		digits = "0" + digits
	}
	if c.Zero && !c.Left && c.Prec < 0 {
		for len(sign)+len(digits) < c.Width {
			digits = "0" + digits
		}
	}
	from := len(dst)
	dst = append(append(dst, sign...), digits...)
	return pad(dst, from, c.Width, c.Left, ' ')
}

// pad fills what was appended since from to width.
func pad(dst []byte, from, width int, left bool, fill byte) []byte {
	n := width - (len(dst) - from)
	if n <= 0 {
		return dst
	}
	for range n {
		dst = append(dst, fill)
	}
	if !left {
		copy(dst[from+n:], dst[from:len(dst)-n])
		for i := range n {
			dst[from+i] = fill
		}
	}
	return dst
}

// gfp are the allocation flags by bit, and the combinations that have names (include/linux/gfp_types.h, since 6.10).
var gfp = []struct {
	mask uint64
	name string
}{
	{0x1000d00 | 0xc0, "GFP_KERNEL_ACCOUNT"}, {0xcc0, "GFP_KERNEL"}, {0x820, "GFP_ATOMIC"}, {0x800, "GFP_NOWAIT"},
	{0x01, "GFP_DMA"}, {0x02, "__GFP_HIGHMEM"}, {0x04, "GFP_DMA32"}, {0x08, "__GFP_MOVABLE"}, {0x10, "__GFP_RECLAIMABLE"},
	{0x20, "__GFP_HIGH"}, {0x40, "__GFP_IO"}, {0x80, "__GFP_FS"}, {0x100, "__GFP_ZERO"}, {0x400, "__GFP_DIRECT_RECLAIM"},
	{0x800, "__GFP_KSWAPD_RECLAIM"}, {0x1000, "__GFP_WRITE"}, {0x2000, "__GFP_NOWARN"}, {0x4000, "__GFP_RETRY_MAYFAIL"},
	{0x8000, "__GFP_NOFAIL"}, {0x10000, "__GFP_NORETRY"}, {0x20000, "__GFP_MEMALLOC"}, {0x40000, "__GFP_COMP"},
	{0x80000, "__GFP_NOMEMALLOC"}, {0x100000, "__GFP_HARDWALL"}, {0x200000, "__GFP_THISNODE"}, {0x400000, "__GFP_ACCOUNT"},
	{0x800000, "__GFP_ZEROTAGS"},
}

func gfpFlags(n uint64) string {
	if n == 0 {
		return "none"
	}
	var out []string
	for _, g := range gfp {
		if n&g.mask == g.mask {
			out = append(out, g.name)
			n &^= g.mask
		}
	}
	if n != 0 {
		out = append(out, "0x"+strconv.FormatUint(n, 16))
	}
	return strings.Join(out, "|")
}

// strerror gives an errno's text with a capital letter, as the C library prints it.
func strerror(n int) string {
	s := syscall.Errno(n).Error()
	if n == 0 {
		return "Success"
	}
	if s != "" && s[0] >= 'a' && s[0] <= 'z' {
		return string(s[0]-32) + s[1:]
	}
	return s
}
