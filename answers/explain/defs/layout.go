package defs

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/internal/sorting"
)

// Layout is how a struct or union lies in memory. Offsets and sizes are in bytes unless they say bits.
type Layout struct {
	Type     string `json:"name"` // "struct file"
	Size     int    `json:"size"`
	Members  []Slot `json:"members"`
	Holes    int    `json:"holes"`     // bytes between members that belong to none
	BitHoles int    `json:"bit_holes"` // bits, beside those
	Padding  int    `json:"padding"`   // bytes behind the last member
	// BitPadding are bits behind the last member, beside those bytes.
	BitPadding int `json:"bit_padding"`
}

// Slot is a member of a [Layout].
type Slot struct {
	Name    string `json:"name,omitempty"` // "" of an anonymous struct or union
	Decl    string `json:"decl"`           // as C declares it
	Off     int    `json:"offset"`
	Size    int    `json:"size"`
	BitOff  int    `json:"bit_offset,omitempty"` // of a bitfield, from Off
	BitSize int    `json:"bit_size,omitempty"`   // 0 unless it is a bitfield
	Hole    int    `json:"hole,omitempty"`       // bytes between it and the next
	BitHole int    `json:"bit_hole,omitempty"`   // bits, beside those
	Members []Slot `json:"members,omitempty"`    // of a struct or union without a name
}

// maxNesting bounds how deep structs without names are shown; C compilers take 63.
const maxNesting = 63

// NewLayout lays a struct out.
func NewLayout(s *ctype.Struct) *Layout {
	l := &Layout{Type: ctype.Name(s), Size: s.Size}
	end := 0
	l.Members, end = slots(s, 0, 0)
	if ms := s.Members(); len(ms) > 0 && !s.Union {
		l.Holes, l.BitHoles = ms[0].BitOff/8, ms[0].BitOff%8
	}
	for _, m := range l.Members {
		l.Holes += m.Hole
		l.BitHoles += m.BitHole
	}
	if pad := 8*s.Size - end; len(l.Members) > 0 && pad > 0 && !s.Union {
		l.Padding, l.BitPadding = pad/8, pad%8
	}
	return l
}

// slots lists the members of a struct that lies base bytes from where offsets are counted. end is the bit behind the last one.
func slots(s *ctype.Struct, base, depth int) (out []Slot, end int) {
	for _, m := range s.Members() {
		if !s.Union && len(out) > 0 && m.BitOff > end {
			gap := m.BitOff - end
			prev := &out[len(out)-1]
			prev.Hole, prev.BitHole = gap/8, gap%8
		}
		size := ctype.Size(m.Type)
		x := Slot{Name: m.Name, Off: base + m.BitOff/8, Size: size}
		if m.BitSize > 0 {
			x.bitfield(m, base, size)
			end = max(end, m.BitOff+m.BitSize)
		} else {
			end = max(end, m.BitOff+8*size)
		}
		x.Decl = Declare(m.Type, m.Name)
		if in, pointed, ok := anonymous(m.Type); ok && depth < maxNesting {
			at := x.Off
			if pointed {
				at = 0
			}
			x.Members, _ = slots(in, at, depth+1)
		}
		out = append(out, x)
	}
	return out, end
}

// bitfield places a bitfield in the unit of its type that it is in, as compilers do.
func (x *Slot) bitfield(m ctype.Member, base, size int) {
	unit := 8 * max(size, 1)
	at := m.BitOff / unit * unit
	x.Off, x.BitOff, x.BitSize = base+at/8, m.BitOff-at, m.BitSize
}

// anonymous gives the struct or union that a member is declared with on the spot; pointed says that the member points there.
func anonymous(t ctype.Type) (s *ctype.Struct, pointed, ok bool) {
	for {
		switch in := t.(type) {
		case *ctype.Array:
			t = in.Elem
			continue
		case *ctype.Ptr:
			t, pointed = in.Elem, true
			continue
		}
		s, ok = t.(*ctype.Struct)
		return s, pointed, ok && s.Name == ""
	}
}

// cacheline is the size of a line of the cache on the architectures we know.
const cacheline = 64

// Text writes the layout as C with comments, in pahole's manner: offset and size of each member, what belongs to nobody, and
// where lines of the cache begin.
func (l *Layout) Text(w io.Writer) error {
	p := &layoutPrinter{w: w}
	p.printf("%s {\n", l.Type)
	p.slots(l.Members, 1, strings.HasPrefix(l.Type, "struct"))
	p.printf("\n\t/* size: %d, cachelines: %d, members: %d */\n", l.Size, (l.Size+cacheline-1)/cacheline, len(l.Members))
	if l.Holes > 0 || l.BitHoles > 0 {
		p.printf("\t/* in holes: %d bytes, %d bits */\n", l.Holes, l.BitHoles)
	}
	if l.Padding > 0 || l.BitPadding > 0 {
		p.printf("\t/* padding: %d bytes, %d bits */\n", l.Padding, l.BitPadding)
	}
	p.printf("};\n")
	return p.err
}

type layoutPrinter struct {
	w    io.Writer
	line int // of the cache
	err  error
}

func (p *layoutPrinter) printf(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format, args...)
	}
}

// slots writes members; lines says if marks of the cache's lines may stand between them.
func (p *layoutPrinter) slots(ms []Slot, depth int, lines bool) {
	tab := strings.Repeat("\t", depth)
	for _, m := range ms {
		if n := m.Off / cacheline; lines && n > p.line {
			p.line = n
			if in := m.Off % cacheline; in > 0 {
				p.printf("%s/* --- cacheline %d boundary (%d bytes) was %d bytes ago --- */\n", tab, n, n*cacheline, in)
			} else {
				p.printf("%s/* --- cacheline %d boundary (%d bytes) --- */\n", tab, n, n*cacheline)
			}
		}
		place := fmt.Sprintf("/* %5d %5d */", m.Off, m.Size)
		decl := m.Decl
		if m.BitSize > 0 {
			decl += fmt.Sprintf(":%d", m.BitSize)
			place = fmt.Sprintf("/* %5d:%2d %2d */", m.Off, m.BitOff, m.Size)
		}
		if m.Members != nil {
			word, rest, _ := strings.Cut(decl, " ")
			p.printf("%s%s {\n", tab, word)
			p.slots(m.Members, depth+1, false)
			p.column(tab, strings.TrimSpace("} "+rest)+";", place)
		} else {
			p.column(tab, decl+";", place)
		}
		switch {
		case m.Hole > 0 && m.BitHole > 0:
			p.printf("\n%s/* %d bytes and %d bits hole */\n\n", tab, m.Hole, m.BitHole)
		case m.Hole > 0:
			p.printf("\n%s/* %d bytes hole */\n\n", tab, m.Hole)
		case m.BitHole > 0:
			p.printf("\n%s/* %d bits hole */\n\n", tab, m.BitHole)
		}
	}
}

// column writes what is declared, and its place from column 57 on.
func (p *layoutPrinter) column(tab, decl, place string) {
	const at = 56
	p.printf("%s%s%s %s\n", tab, decl, strings.Repeat(" ", max(0, at-8*len(tab)-len(decl))), place)
}

// Enum writes an enum's values, the smallest first.
func Enum(w io.Writer, e *ctype.Enum) error {
	vs := slices.Clone(e.Values)
	sorting.Stable(vs, func(a, b ctype.EnumValue) int {
		switch {
		case a.Value < b.Value:
			return -1
		case a.Value > b.Value:
			return 1
		}
		return 0
	})
	p := &layoutPrinter{w: w}
	p.printf("%s { /* %d bytes */\n", ctype.Name(e), e.Size)
	for _, v := range vs {
		p.printf("\t%-40s = %d,\n", v.Name, v.Value)
	}
	p.printf("};\n")
	return p.err
}
