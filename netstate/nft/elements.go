package nft

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/fathom-trace/fathom/internal/sorting"
)

// lookup writes a match against a set, a verdict map, or puts a map's value into a register.
func (r *renderer) lookup(e Expr) {
	a := e.Attrs
	s := r.set.find(r.chain.Family, r.chain.Table, a.String(1))
	at := slot(a.BE32(2))
	n := 0
	if s != nil {
		n = s.KeyLen
	}
	if o, ok := r.regs[at]; ok && n <= o.len {
		n = o.len
	}
	left := r.concat(at, max(n, 1))
	if len(left) == 0 {
		left = []string{fmt.Sprintf("[reg %d]", a.BE32(2))}
	}
	text := "@" + a.String(1)
	if s != nil && s.Flags&setAnonymous != 0 {
		text = r.elements(s, at)
	}
	key := strings.Join(left, " . ")
	switch {
	case !a.Has(3):
		if a.BE32(5)&1 != 0 {
			key += " !="
		} else if o := r.regs[at]; o.mask != nil && o.isPl && r.parts(o) == nil {
			key += " & " + value(r.typeOf(o), o.big, o.mask)
		}
		r.add("%s %s", key, text)
	case slot(a.BE32(3)) < 0:
		r.add("%s vmap %s", key, text)
	default:
		o := operand{text: key + " map " + text, data: s}
		if s != nil {
			o.typ, o.len = s.DataType, s.DataLen
		}
		r.store(a.BE32(3), o)
	}
}

const (
	setAnonymous = 1
	setInterval  = 4
	setMap       = 8
	elemEnd      = 1
	elemCatchall = 2
)

// elements writes an anonymous set: { 22, 80-90 }.
func (r *renderer) elements(s *Set, at int) string {
	types := keyTypes(s.KeyType)
	if o, ok := r.regs[at]; ok && len(types) <= 1 {
		if t := r.typeOf(o); t != 0 {
			types = []uint32{t}
		}
	}
	field, shifted := r.bitField(r.regs[at], r.regs[at].mask)
	var w []string
	for _, x := range s.intervals(types) {
		if shifted && r.regs[at].isPl {
			x.Key = field.of(x.Key)
			if x.End != nil {
				x.End = field.of(x.End)
			}
		}
		text := s.keyText(types, x)
		switch {
		case x.Verdict != "":
			text += " : " + strings.TrimSpace(x.Verdict+" "+x.Target)
		case x.Object != "":
			text += fmt.Sprintf(" : %q", x.Object)
		case x.Data != nil:
			text += " : " + dataText(s.DataType, x.Data)
		}
		w = append(w, text)
	}
	return "{ " + strings.Join(w, ", ") + " }"
}

// dataText writes the value of a map, which may be a concatenation.
func dataText(typ uint32, d []byte) string {
	if n := typeLen(typ); n > 0 && len(d) == 2*n { // of a map to prefixes
		return rangeText(typ, true, d[:n], d[n:])
	}
	types := keyTypes(typ)
	if len(types) <= 1 {
		return value(typ, false, d)
	}
	return concatText(types, d)
}

func concatText(types []uint32, d []byte) string {
	var w []string
	for i, t := range types {
		n := typeLen(t)
		if n == 0 || i == len(types)-1 && n > len(d) {
			n = len(d)
		}
		if n > len(d) {
			break
		}
		w = append(w, value(t, false, d[:n]))
		d = d[min((n+3)&^3, len(d)):]
	}
	return strings.Join(w, " . ")
}

// intervals sorts the elements, and of a set of intervals joins each first key with what ends it.
func (s *Set) intervals(types []uint32) []Elem {
	elems := slices.Clone(s.Elems)
	host := len(types) == 1 && slices.Contains(hostOrder, types[0]) && s.Flags&setInterval == 0
	sorting.Stable(elems, func(a, b Elem) int {
		if host {
			return cmp.Compare(number(types[0], false, a.Key), number(types[0], false, b.Key))
		}
		return cmp.Or(cmp.Compare(a.Flags&elemCatchall, b.Flags&elemCatchall), slices.Compare(a.Key, b.Key), cmp.Compare(b.Flags&elemEnd, a.Flags&elemEnd))
	})
	if s.Flags&setInterval == 0 || len(types) > 1 {
		return elems
	}
	var out []Elem
	for i, e := range elems {
		if e.Flags&elemEnd != 0 {
			continue
		}
		if e.Flags&elemCatchall == 0 {
			e.End = last(elems[i+1:], len(e.Key))
		}
		out = append(out, e)
	}
	return out
}

// last is the last key of an interval: the one before what follows, or the greatest there is.
func last(rest []Elem, n int) []byte {
	for _, x := range rest {
		if x.Flags&elemCatchall == 0 {
			return step(x.Key, -1)
		}
	}
	end := make([]byte, n)
	for i := range end {
		end[i] = 0xff
	}
	return end
}

func (s *Set) keyText(types []uint32, e Elem) string {
	switch {
	case e.Flags&elemCatchall != 0:
		return "*"
	case len(types) > 1:
		return s.concatElem(types, e)
	case e.End == nil:
		return value(types[0], false, e.Key)
	}
	return rangeText(types[0], s.Flags&setInterval != 0, e.Key, e.End)
}

func rangeText(typ uint32, big bool, first, end []byte) string {
	if slices.Equal(first, end) {
		return value(typ, big, first)
	}
	if typ == tIfname {
		n := 0
		for n < min(len(first), len(end)) && first[n] == end[n] {
			n++
		}
		return ifname(first[:n])
	}
	if n := prefixLen(first, end); n >= 0 && (typ == tIPAddr || typ == tIP6Addr) {
		return fmt.Sprintf("%s/%d", value(typ, true, first), n)
	}
	return value(typ, big, first) + "-" + value(typ, big, end)
}

// concatElem writes an element whose key has parts, each perhaps an interval.
func (s *Set) concatElem(types []uint32, e Elem) string {
	if e.End == nil {
		return concatText(types, e.Key)
	}
	var w []string
	a, b := e.Key, e.End
	for i, t := range types {
		n := typeLen(t)
		if i < len(s.Fields) {
			n = s.Fields[i]
		}
		if n == 0 || n > len(a) || n > len(b) {
			break
		}
		w = append(w, rangeText(t, slices.Contains(hostOrder, t), a[:n], b[:n]))
		a, b = a[min((n+3)&^3, len(a)):], b[min((n+3)&^3, len(b)):]
	}
	return strings.Join(w, " . ")
}
