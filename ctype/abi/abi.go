// Package abi says where the arguments of a C function are when it is entered, by the calling conventions of Linux: the
// System V ABI's supplement for x86-64, section 3.2.3, and AAPCS64, section 6.8. Variable arguments are not covered.
package abi

import "github.com/fathom-trace/fathom/ctype"

// Convention is a calling convention.
type Convention struct {
	regs   int  // integer argument registers
	hidden bool // the address for a result in memory takes the first of them
	copies bool // large arguments are passed by the address of a copy
}

// The conventions of Linux.
var (
	AMD64 = Convention{regs: 6, hidden: true}
	ARM64 = Convention{regs: 8, copies: true}
)

// For gives the convention by GOARCH.
func For(arch string) Convention {
	if arch == "arm64" {
		return ARM64
	}
	return AMD64
}

// Place is where an argument is at the function's entry.
type Place struct {
	// Index counts 64-bit words: first the integer argument registers in their order, then the words that the caller left
	// on the stack. It is -1 for what is in vector registers, if only in part, and for what has no bytes.
	Index int
	Words int
	ByRef bool // there is its address
}

// vectors is how many vector registers carry arguments, in both conventions.
const vectors = 8

// Place gives the arguments of a function their places.
func (c Convention) Place(f *ctype.Func) []Place {
	reg, vec, stack := 0, 0, 0
	if c.hidden && c.needs(f.Result).memory {
		reg++
	}
	out := make([]Place, len(f.Params))
	for i, p := range f.Params {
		n := c.needs(p.Type)
		at := &out[i]
		at.Words, at.ByRef = n.words, n.byRef
		switch fits := !n.memory && reg+n.ints <= c.regs && vec+n.vecs <= vectors; {
		case n.words == 0:
			at.Index = -1
		case fits && n.vecs > 0:
			at.Index = -1
			reg, vec = reg+n.ints, vec+n.vecs
		case fits:
			at.Index = reg
			reg += n.ints
		default:
			if c.copies && n.vecs > 0 { // AAPCS64: after the first that does not fit, none is in a register
				vec = vectors
			} else if c.copies {
				reg = c.regs
			}
			at.Index = c.regs + stack
			stack += n.words
		}
	}
	return out
}

// needs is what a value takes.
type needs struct {
	words      int // in memory
	ints, vecs int // of registers, if there are enough of both
	memory     bool
	byRef      bool
}

func (c Convention) needs(t ctype.Type) needs {
	size := ctype.Size(t)
	n := needs{words: (size + 7) / 8}
	switch t := ctype.Strip(t).(type) {
	case *ctype.Int, *ctype.Enum, *ctype.Ptr:
		n.ints = n.words
	case *ctype.Float:
		n.vecs = 1
		n.memory = size > 8 && !c.copies // long double of x86-64, class X87
	case *ctype.Struct:
		if c.copies {
			return c.aapcs(t, n)
		}
		n.memory = size > 16
		for w := 0; w < n.words && !n.memory; w++ { // each eightbyte has a class of its own
			if onlyFloats(t, 0, w, 0) {
				n.vecs++
			} else {
				n.ints++
			}
		}
	default:
		n.words = 0
	}
	return n
}

// aapcs gives what a struct takes on arm64: up to four numbers of one floating-point type a vector register each, others
// of up to 16 bytes integer registers, larger ones the register of their address.
func (c Convention) aapcs(t *ctype.Struct, n needs) needs {
	if kind, count := alike(t, 0); kind > 0 && count <= 4 {
		n.vecs = count
		return n
	}
	if n.words > 2 {
		return needs{words: 1, ints: 1, byRef: true}
	}
	n.ints = n.words
	return n
}

// maxDepth bounds structs within structs.
const maxDepth = 32

// onlyFloats reports that word w of a value holds nothing but floating-point numbers; t begins at byte off of it.
func onlyFloats(t ctype.Type, off, w, depth int) bool {
	if off >= 8*w+8 || off+ctype.Size(t) <= 8*w || depth > maxDepth {
		return true
	}
	switch t := ctype.Strip(t).(type) {
	case *ctype.Float:
		return true
	case *ctype.Array:
		for i := range min(t.Len, 16) {
			if !onlyFloats(t.Elem, off+i*ctype.Size(t.Elem), w, depth+1) {
				return false
			}
		}
		return true
	case *ctype.Struct:
		for _, m := range t.Members() {
			if !onlyFloats(m.Type, off+m.BitOff/8, w, depth+1) {
				return false
			}
		}
		return true
	}
	return false
}

// alike counts the floating-point numbers in a type that has nothing else and all of one size, size; 0 otherwise. Of a
// union the largest member counts.
func alike(t ctype.Type, depth int) (size, count int) {
	switch t := ctype.Strip(t).(type) {
	case *ctype.Float:
		return t.Size, 1
	case *ctype.Array:
		size, count = alike(t.Elem, depth+1)
		return size, count * t.Len
	case *ctype.Struct:
		for _, m := range t.Members() {
			if depth > maxDepth {
				return 0, 0
			}
			s, n := alike(m.Type, depth+1)
			switch {
			case s == 0 || size != 0 && s != size:
				return 0, 0
			case t.Union:
				size, count = s, max(count, n)
			default:
				size, count = s, count+n
			}
		}
	}
	return size, count
}
