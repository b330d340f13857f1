package check

import (
	"fmt"
	"strings"

	"github.com/fathom-trace/fathom/lang/types"
)

// Format is a parsed format string of printf and its relatives: Lits[0] Convs[0] Lits[1] … Convs[n-1] Lits[n].
type Format struct {
	Lits  []string // text between conversions, %% already %; one more than Convs
	Convs []Conv
}

// Conv is one conversion. Width and Prec are -1 when not given; a * is taken as not given, as bpftrace does.
type Conv struct {
	Left, Plus, Blank, Alt, Zero bool
	Width, Prec                  int
	Len                          string // "", hh, h, l, ll, j, z, t, L
	Verb                         string // d i u o x X c p s r rh rx gr, and C's floating-point ones, which no value has
	Text                         string // as written
}

// lengths are the length modifiers as bpftrace's regular expression takes them: any run of these letters.
const lengths = "hlLjzt"

// verbs, longest first.
var verbs = []string{"gr", "rh", "rx", "r", "d", "i", "o", "u", "x", "X", "e", "E", "f", "F", "g", "G", "a", "A", "c", "s", "p", "n", "%"}

// ParseFormat reads a format string. What is no conversion is text.
func ParseFormat(s string) Format {
	var f Format
	var text strings.Builder
	for s != "" {
		i := strings.IndexByte(s, '%')
		if i < 0 {
			break
		}
		text.WriteString(s[:i])
		s = s[i:]
		c, n := parseConv(s)
		switch {
		case n == 0:
			text.WriteByte('%')
			n = 1
		case c.Verb == "%":
			text.WriteByte('%')
		default:
			f.Lits = append(f.Lits, text.String())
			f.Convs = append(f.Convs, c)
			text.Reset()
		}
		s = s[n:]
	}
	text.WriteString(s)
	f.Lits = append(f.Lits, text.String())
	return f
}

// parseConv reads the conversion s begins with; n is its length, 0 if it is none.
func parseConv(s string) (c Conv, n int) {
	c.Width, c.Prec = -1, -1
	n = 1
	for _, flag := range []struct {
		ch  byte
		set *bool
	}{{'-', &c.Left}, {'+', &c.Plus}, {' ', &c.Blank}, {'#', &c.Alt}, {'0', &c.Zero}} {
		if n < len(s) && s[n] == flag.ch {
			*flag.set = true
			n++
		}
	}
	c.Width, n = number(s, n)
	if n < len(s) && s[n] == '.' {
		var m int
		if c.Prec, m = number(s, n+1); m == n+1 {
			return c, 0
		} else {
			n = m
		}
	}
	from := n
	for n < len(s) && strings.IndexByte(lengths, s[n]) >= 0 {
		n++
	}
	c.Len = s[from:n]
	for _, v := range verbs {
		if strings.HasPrefix(s[n:], v) {
			c.Verb, c.Text = v, s[:n+len(v)]
			return c, n + len(v)
		}
	}
	return c, 0
}

// number reads digits or * at s[n:].
func number(s string, n int) (v, next int) {
	if n < len(s) && s[n] == '*' {
		return -1, n + 1
	}
	v = -1
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		v = min(max(v, 0)*10+int(s[n]-'0'), 1<<20)
		n++
	}
	return v, n
}

// Check compares the conversions with the types of the arguments. The message is "" when all is well.
func (f Format) Check(args []*types.Type) string {
	if n, want := len(args), len(f.Convs); n != want {
		word := "not enough"
		if n > want {
			word = "too many"
		}
		return fmt.Sprintf("%s arguments for format string (%d supplied, %d expected)", word, n, want)
	}
	for i, c := range f.Convs {
		if msg := c.check(args[i]); msg != "" {
			return msg
		}
	}
	return ""
}

func (c Conv) check(t *types.Type) string {
	if t.Kind == types.None || t.Kind == types.Void {
		return "unable to print none type for specifier: " + c.Verb
	}
	ok := false
	switch c.Verb {
	case "s":
		ok = true
	case "r", "rx", "rh":
		ok = t.Kind == types.Buffer
	case "d", "i", "u", "o", "x", "X", "c", "p", "gr":
		ok = t.IsInt() || t.Kind == types.Ptr || readable(t)
	default:
		return "unsupported format specifier: " + c.Verb
	}
	if !ok {
		return fmt.Sprintf("unsupported format specifier for type '%v': %s", t, c.Verb)
	}
	return ""
}

// render fills in constants, for messages given while compiling.
func (f Format) render(args []Const) string {
	var b strings.Builder
	for i, lit := range f.Lits {
		b.WriteString(lit)
		if i < len(args) && i < len(f.Convs) {
			b.WriteString(args[i].render(f.Convs[i].Verb))
		}
	}
	return b.String()
}

func (c Const) render(verb string) string {
	switch {
	case c.IsStr:
		return c.Str
	case verb == "x" || verb == "X" || verb == "o" || verb == "c":
		return fmt.Sprintf("%"+verb, c.Int)
	case c.big || verb == "u":
		return fmt.Sprint(uint64(c.Int))
	}
	return fmt.Sprint(c.Int)
}
