package kallsyms

import (
	"encoding/binary"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/fathom-trace/fathom/internal/bin"
)

// Embedded is the symbol list as a kernel carries it in its own memory, the tables that scripts/kallsyms.c writes. Where
// they are, VMCOREINFO says since Linux 6.0.
type Embedded struct {
	N          int       // kallsyms_num_syms
	Names      io.Reader // at kallsyms_names; as much of it is read as N names need
	TokenTable []byte    // kallsyms_token_table: NUL-terminated; what follows it may be there too
	TokenIndex []byte    // kallsyms_token_index: 256 16-bit offsets
	Offsets    []byte    // kallsyms_offsets: N 32-bit numbers
	Base       uint64    // kallsyms_relative_base; 0 if there is none, as offsets are from their own places (Linux 7)
	At         uint64    // where Offsets are, for that

	// Check is a symbol whose address is known: which of the two forms with a base Offsets have, is told by what gives that
	// address (KALLSYMS_ABSOLUTE_PERCPU; gone from x86 with 6.15).
	Check     string
	CheckAddr uint64
}

// Builder collects symbols for a [Table].
type Builder struct {
	Expect []string // names of 3 bytes or more that will be asked for: they are found without an index of all names

	names names
	syms  []entry
}

// Add appends a symbol; those beyond 4 GiB of names are left out. Names with control characters are not from a kernel and
// are left out too: they would end the symbol.
func (b *Builder) Add(s Sym) {
	if s.Name == "" || strings.ContainsAny(s.Name, "\n\t") || strings.ContainsAny(s.Module, "\n]") {
		return
	}
	if at, ok := b.names.add(s.Type, []byte(s.Name), s.Module); ok {
		b.syms = append(b.syms, entry{s.Addr, at})
	}
}

// Table sorts what was added. The Builder must not be used any more.
func (b *Builder) Table() *Table {
	t := newTable(b.names.sealed(), b.syms)
	t.expected = map[string][]uint32{"_end": nil}
	for _, n := range b.Expect {
		if len(n) >= 3 {
			t.expected[n] = nil
		}
	}
	t.expect(0)
	for s := range t.Named("_end") {
		if s.Module == "" {
			t.end = s.Addr
		}
	}
	return t
}

// maxName is KSYM_NAME_LEN with room: the compressed form has a length of two bytes at most.
const maxName = 1 << 14

// Decode adds the symbols of a kernel's own tables.
func (b *Builder) Decode(e Embedded) error {
	tokens, err := e.tokens()
	if err != nil {
		return err
	}
	if e.N < 0 || e.N > len(e.Offsets)/4 {
		return &bin.FormatError{What: "kallsyms_num_syms", Msg: "more symbols than offsets"}
	}
	b.syms = make([]entry, 0, e.N+e.N/8)
	first := len(b.syms)
	if err := b.expand(e, tokens); err != nil {
		return err
	}
	mode := e.mode(b, first)
	for i := range b.syms[first:] {
		b.syms[first+i].addr = mode(i, e.offset(i))
	}
	return nil
}

// expand adds the names; their addresses follow.
func (b *Builder) expand(e Embedded, tokens [256]string) error {
	r := &nameReader{r: e.Names}
	x := newExpander(tokens)
	for i := range e.N {
		n := int(r.byte())
		if n&0x80 != 0 { // since 6.1
			n = n&0x7f | int(r.byte())<<7
		}
		if r.err != nil || n == 0 || n > maxName {
			return &bin.FormatError{What: "kallsyms_names", Off: r.off, Msg: "symbol " + strconv.Itoa(i) + " of " + strconv.Itoa(e.N) + " is not readable"}
		}
		name := x.name(r.take(n))
		if r.err != nil || len(name) == 0 {
			return &bin.FormatError{What: "kallsyms_names", Off: r.off, Msg: "symbol " + strconv.Itoa(i) + " is empty"}
		}
		at, ok := b.names.add(name[0], name[1:], "") // the first character is the type
		if !ok {
			return &bin.FormatError{What: "kallsyms_names", Off: r.off, Msg: "the names are too long"}
		}
		b.syms = append(b.syms, entry{name: at})
	}
	return nil
}

// expander makes names of tokens, which are mostly a few bytes: they are copied by eight, and what is too many is overwritten.
type expander struct {
	tokens [256]string
	first  [256][8]byte // the first bytes of each token
	buf    []byte
}

func newExpander(tokens [256]string) *expander {
	x := &expander{tokens: tokens, buf: make([]byte, 256)}
	for i, t := range tokens {
		copy(x.first[i][:], t)
	}
	return x
}

// name gives the type and the name that tokens stand for, valid until the next call.
func (x *expander) name(tokens []byte) []byte {
	n := 0
	for _, i := range tokens {
		t := x.tokens[i]
		if len(x.buf)-n < max(len(t), 8) {
			x.buf = append(x.buf, make([]byte, len(x.buf)+len(t))...)
		}
		*(*[8]byte)(x.buf[n:]) = x.first[i]
		if len(t) > 8 {
			copy(x.buf[n:], t)
		}
		n += len(t)
	}
	return x.buf[:n]
}

func (e *Embedded) offset(i int) int32 { return int32(binary.LittleEndian.Uint32(e.Offsets[4*i:])) }

// mode tells the forms of offsets apart: it gives the function that makes the address of symbol i.
func (e *Embedded) mode(b *Builder, first int) func(i int, off int32) uint64 {
	if e.Base == 0 {
		return func(i int, off int32) uint64 { return e.At + 4*uint64(i) + uint64(int64(off)) }
	}
	relative := func(_ int, off int32) uint64 { return e.Base + uint64(uint32(off)) }
	percpu := func(_ int, off int32) uint64 {
		if off >= 0 {
			return uint64(off)
		}
		return e.Base - 1 - uint64(int64(off))
	}
	names := b.names.sealed()
	for i, s := range b.syms[first:] {
		if strings.HasPrefix(at(names, s.name)[1:], e.Check+"\n") {
			if percpu(i, e.offset(i)) == e.CheckAddr {
				return percpu
			}
			break
		}
	}
	return relative
}

func (e *Embedded) tokens() (t [256]string, err error) {
	if len(e.TokenIndex) < 512 {
		return t, &bin.FormatError{What: "kallsyms_token_index", Msg: "shorter than 256 entries"}
	}
	for i := range t {
		at := int(binary.LittleEndian.Uint16(e.TokenIndex[2*i:]))
		if at >= len(e.TokenTable) {
			return t, &bin.FormatError{What: "kallsyms_token_index", Off: int64(2 * i), Msg: "points behind the tokens"}
		}
		c := bin.NewCursor(e.TokenTable[at:], binary.LittleEndian)
		if t[i] = c.CString(); !c.OK() {
			return t, c.Err("kallsyms_token_table")
		}
	}
	return t, nil
}

// nameReader reads bytes through a buffer and counts them.
type nameReader struct {
	r   io.Reader
	buf [4096 + maxName]byte
	b   []byte
	off int64
	err error
}

func (r *nameReader) byte() byte { return r.take(1)[0] }

// take gives the next n bytes, at most maxName, valid until the next call. They are zeroes where err is set.
func (r *nameReader) take(n int) []byte {
	if len(r.b) < n && !r.more(n) {
		return make([]byte, n)
	}
	b := r.b[:n]
	r.b = r.b[n:]
	r.off += int64(n)
	return b
}

// more reads until n bytes are there.
func (r *nameReader) more(n int) bool {
	have := copy(r.buf[:], r.b)
	for have < n && r.err == nil {
		k, err := r.r.Read(r.buf[have : have+4096])
		have += k
		if k == 0 {
			if r.err = err; err == nil {
				r.err = io.ErrNoProgress
			}
		}
	}
	r.b = r.buf[:have]
	return have >= n
}

// With gives a table of t's symbols and those that were added to b, which must not be used any more; t stays as it is.
func (t *Table) With(b *Builder) *Table {
	if len(b.syms) == 0 {
		return t
	}
	more := b.names.sealed()
	if len(t.names)+len(more) > mostPieces {
		return t
	}
	n := &Table{names: slices.Concat(t.names, more), end: t.end, high: t.high, hidden: t.hidden}
	n.syms = append(make([]entry, 0, len(t.syms)+len(b.syms)), t.syms...)
	for _, e := range b.syms {
		n.syms = append(n.syms, entry{e.addr, e.name + uint32(len(t.names)<<pieceBits)})
	}
	sortTail(n.syms)
	n.index = sync.OnceValue(n.buildIndex)
	n.expected = make(map[string][]uint32, len(t.expected))
	k := len(t.syms)
	behind := k > 0 && n.syms[k-1] == t.syms[k-1] // what is new is all behind, as modules of most machines are
	if behind {
		n.index = sync.OnceValue(func() nameIndex { return n.extend(t.index(), k) })
	} else {
		k = 0
	}
	for name, ids := range t.expected {
		n.expected[name] = nil
		if behind {
			n.expected[name] = slices.Clone(ids)
		}
	}
	n.expect(k)
	return n
}

// extend makes the index of a table of that of another, whose symbols are the first k here.
func (t *Table) extend(old nameIndex, k int) nameIndex {
	ix := nameIndex{seed: old.seed, head: slices.Clone(old.head), next: append(make([]uint32, 0, len(t.syms)), old.next...)}
	for i, e := range t.syms[k:] {
		name, _ := t.name(e)
		ix.next = append(ix.next, 0)
		at := &ix.head[ix.bucket(name)]
		for *at != 0 { // chains are ascending
			at = &ix.next[*at-1]
		}
		*at = uint32(k + i + 1)
	}
	return ix
}
