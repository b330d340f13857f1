package core

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/kernel"
)

// printer writes values as C initialisers.
type printer struct {
	w    io.Writer
	t    kernel.Target
	errs *kernel.Errors
	hex  bool // numbers are hexadecimal
}

// Bounds of what is printed of one value.
const (
	maxNesting  = 12
	maxElements = 64
	maxText     = 4096
)

func (p *printer) value(v kernel.Value, indent string, depth int) {
	switch t := ctype.Strip(v.Type).(type) {
	case *ctype.Struct:
		p.structure(v, t, indent, depth)
	case *ctype.Array:
		p.array(v, t, indent, depth)
	case *ctype.Enum:
		n := int64(v.Uint())
		for _, e := range t.Values {
			if e.Value == n {
				fmt.Fprint(p.w, e.Name)
				return
			}
		}
		fmt.Fprint(p.w, n)
	case *ctype.Ptr:
		p.pointer(v.Uint())
		if depth == 0 {
			p.text(v.Uint(), t)
		}
	case *ctype.Int:
		p.integer(v.Uint(), t)
	default:
		fmt.Fprintf(p.w, "<%s>", ctype.Name(v.Type))
	}
}

func (p *printer) pointer(n uint64) {
	fmt.Fprintf(p.w, "%#x", n)
	if y, ok := p.t.Symbols().At(n); ok && n != 0 {
		if off := n - y.Addr; off == 0 {
			fmt.Fprintf(p.w, " <%s>", y.Name)
		} else if y.IsText() || off < 4096 {
			fmt.Fprintf(p.w, " <%s+%d>", y.Name, off)
		}
	}
}

// text prints what a pointer to characters points to.
func (p *printer) text(at uint64, t *ctype.Ptr) {
	if i, ok := ctype.Strip(t.Elem).(*ctype.Int); !ok || i.Size != 1 || !i.Char && !strings.Contains(i.Name, "char") || at == 0 {
		return
	}
	if s, err := kernel.ReadString(p.t, at, maxText); err == nil {
		fmt.Fprintf(p.w, " %q", s)
	}
}

// number prints a number of a type that stands nowhere.
func (p *printer) number(n uint64, t ctype.Type) {
	switch t := ctype.Strip(t).(type) {
	case *ctype.Ptr:
		p.pointer(n)
		p.text(n, t)
	case *ctype.Int:
		p.integer(n, t)
	case *ctype.Enum:
		p.integer(n, &ctype.Int{Size: t.Size, Signed: t.Signed})
	default:
		fmt.Fprintf(p.w, "%#x", n)
	}
}

func (p *printer) integer(n uint64, t *ctype.Int) {
	switch {
	case p.hex:
		if bits := 8 * t.Size; bits < 64 {
			n &= 1<<bits - 1
		}
		fmt.Fprintf(p.w, "%#x", n)
	case t.Bool && n <= 1:
		fmt.Fprint(p.w, n == 1)
	case t.Signed:
		fmt.Fprint(p.w, int64(n))
	default:
		fmt.Fprint(p.w, n)
	}
}

func (p *printer) structure(v kernel.Value, t *ctype.Struct, indent string, depth int) {
	if depth > maxNesting {
		fmt.Fprint(p.w, "{…}")
		return
	}
	fmt.Fprint(p.w, "{\n")
	for _, m := range t.Members() {
		fmt.Fprintf(p.w, "%s  ", indent)
		if m.Name != "" {
			fmt.Fprintf(p.w, "%s = ", m.Name)
		}
		p.value(v.Part(m), indent+"  ", depth+1)
		fmt.Fprint(p.w, ",\n")
	}
	fmt.Fprintf(p.w, "%s}", indent)
}

func (p *printer) array(v kernel.Value, t *ctype.Array, indent string, depth int) {
	if i, ok := ctype.Strip(t.Elem).(*ctype.Int); ok && i.Size == 1 && (i.Char || strings.Contains(i.Name, "char")) {
		fmt.Fprint(p.w, strconv.Quote(v.String()))
		return
	}
	fmt.Fprint(p.w, "{")
	for i := range min(t.Len, maxElements) {
		if i > 0 {
			fmt.Fprint(p.w, ", ")
		}
		p.value(v.At(i), indent, depth+1)
	}
	if t.Len > maxElements {
		fmt.Fprintf(p.w, ", … %d more", t.Len-maxElements)
	}
	fmt.Fprint(p.w, "}")
}
