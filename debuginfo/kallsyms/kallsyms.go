// Package kallsyms reads the kernel's symbol list in the text form of /proc/kallsyms (s_show in kernel/kallsyms.c), from a
// running kernel or from a copy of the file.
//
// A [Table] keeps the names and 16 bytes a symbol.
package kallsyms

import (
	"bytes"
	"cmp"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"sync"

	"github.com/fathom-trace/fathom/internal/bin"
)

// ErrHidden says that the list has no addresses: kptr_restrict hid them from who read it.
var ErrHidden error = hidden{}

// hidden is a permission that is lacking.
type hidden struct{}

func (hidden) Error() string {
	return "kernel addresses are hidden (kernel.kptr_restrict); read as root, or with CAP_SYSLOG"
}

func (hidden) Is(target error) bool { return target == fs.ErrPermission }

// Sym is one symbol. Names are not unique, neither are addresses.
type Sym struct {
	Addr   uint64
	Name   string
	Module string // empty for the kernel itself; "bpf" for BPF programs, "__builtin__ftrace", "__builtin__kprobes"
	Type   byte   // as in nm(1): t and T are text, w and W weak
}

// IsText reports that the symbol is of code.
func (s Sym) IsText() bool { return isText(s.Type) }

func isText(c byte) bool { return c|0x20 == 't' || c|0x20 == 'w' || c == 'i' }

// entry is a symbol: its address, and its name's place among the names.
type entry struct {
	addr uint64
	name uint32
}

// Table is a symbol list sorted by address. It may be used from many goroutines.
type Table struct {
	names  []string // see names
	syms   []entry
	end    uint64 // address of _end: beyond it the kernel itself has no symbols
	high   bool   // the kernel is in the upper half of the addresses
	hidden bool

	index    func() nameIndex
	expected map[string][]uint32 // symbols of names that were expected; others are found by the index
}

// lineSize is how long a line of the list may be. Names of the kernel have 512 bytes at most (KSYM_NAME_LEN).
const lineSize = 64 << 10

// Read reads all of r. Wrong lines are a *[bin.FormatError]; a list without addresses is no error, see [Table.Hidden]. Of the text no
// more is in memory at once than the longest line.
func Read(r io.Reader) (*Table, error) {
	p := parser{}
	buf, have := make([]byte, lineSize), 0
	for more := true; more; {
		n, err := io.ReadFull(r, buf[have:])
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return nil, fmt.Errorf("read kallsyms: %w", err)
		}
		more = err == nil
		whole := have + n
		if more {
			whole = bytes.LastIndexByte(buf, '\n') + 1
			if whole == 0 {
				return nil, p.wrong(0, "a line of more than 64 KiB")
			}
		}
		if err := p.lines(buf[:whole]); err != nil {
			return nil, err
		}
		have = copy(buf, buf[whole:have+n])
	}
	return p.table(), nil
}

// Parse is [Read] of a text in memory, of which the table keeps nothing.
func Parse(b []byte) (*Table, error) { return Read(bytes.NewReader(b)) }

// parser makes a table of lines.
type parser struct {
	off   int64 // of what lines gets next
	names names
	parts [][]entry // of a number that is not known, so that none are copied but once
	syms  []entry   // what comes behind parts
	end   uint64
}

func (p *parser) wrong(off int, msg string) error {
	return &bin.FormatError{What: "kallsyms", Off: p.off + int64(off), Msg: msg}
}

// lines parses lines that are whole; the last may lack its end.
func (p *parser) lines(b []byte) error {
	for off := 0; off < len(b); {
		addr, name, next, msg := parseLine(b, off)
		if msg != "" {
			return p.wrong(off, msg)
		}
		line := bytes.TrimSuffix(b[name:next], newline)
		if addr != 0 && string(line) == "_end" {
			p.end = addr
		}
		at, ok := p.names.add(b[name-2], line, "")
		if !ok {
			return p.wrong(off, "more than 4 GiB of names")
		}
		if len(p.syms) == cap(p.syms) {
			p.parts, p.syms = append(p.parts, p.syms), make([]entry, 0, 16<<10)
		}
		p.syms = append(p.syms, entry{addr, at})
		off = next
	}
	p.off += int64(len(b))
	return nil
}

var newline = []byte("\n")

func (p *parser) table() *Table {
	t := newTable(p.names.sealed(), slices.Concat(append(p.parts, p.syms)...))
	t.end = p.end
	t.hidden = len(t.syms) > 0 && t.syms[len(t.syms)-1].addr == 0
	return t
}

// newTable sorts symbols, which it keeps.
func newTable(names []string, syms []entry) *Table {
	t := &Table{names: names, syms: syms}
	sortTail(syms)
	t.high = len(syms) > 0 && syms[len(syms)-1].addr>>63 != 0
	t.index = sync.OnceValue(t.buildIndex)
	return t
}

// hex has the values of hexadecimal digits, 0xff for all else.
var hex = func() (h [256]byte) {
	for i := range h {
		h[i] = 0xff
	}
	for i, c := range []byte("0123456789abcdef") {
		h[c], h[bytes.ToUpper([]byte{c})[0]] = byte(i), byte(i)
	}
	return h
}()

// parseLine reads "ffffffff81000000 T _text\n" or "… t open\t[e1000]\n" at off.
func parseLine(b []byte, off int) (addr uint64, name, next int, msg string) {
	i := off
	for i < len(b) && hex[b[i]] != 0xff {
		addr = addr<<4 | uint64(hex[b[i]])
		i++
	}
	if i == off || i-off > 16 {
		return 0, 0, 0, "no address"
	}
	if i+3 >= len(b) || b[i] != ' ' || b[i+2] != ' ' || b[i+3] <= ' ' {
		return 0, 0, 0, "no type and name"
	}
	name = i + 3
	if n := bytes.IndexByte(b[name:], '\n'); n >= 0 {
		return addr, name, name + n + 1, ""
	}
	return addr, name, len(b), ""
}

// sortTail sorts by address, then by place in the file. The kernel's own symbols come sorted; modules, BPF programs and
// trampolines follow in any order, so only these are sorted and merged in.
func sortTail(s []entry) {
	order := func(a, b entry) int { return cmp.Or(cmp.Compare(a.addr, b.addr), cmp.Compare(a.name, b.name)) }
	k := 1
	for k < len(s) && s[k-1].addr <= s[k].addr {
		k++
	}
	if k >= len(s) {
		return
	}
	tail := slices.Clone(s[k:])
	slices.SortFunc(tail, order)
	i, j := k-1, len(tail)-1
	for w := len(s) - 1; j >= 0; w-- {
		if i >= 0 && order(s[i], tail[j]) > 0 {
			s[w] = s[i]
			i--
		} else {
			s[w] = tail[j]
			j--
		}
	}
}

// Len is the number of symbols.
func (t *Table) Len() int { return len(t.syms) }

// Hidden returns [ErrHidden] if all addresses are zero. Names can be listed and tested for then, addresses are not there.
func (t *Table) Hidden() error {
	if t.hidden {
		return ErrHidden
	}
	return nil
}

func (t *Table) sym(e entry) Sym {
	s := Sym{Addr: e.addr, Type: t.typ(e)}
	s.Name, s.Module = t.name(e)
	return s
}

// from gives the names from a symbol's on.
func (t *Table) from(e entry) string { return at(t.names, e.name)[1:] }

// typ gives a symbol's type.
func (t *Table) typ(e entry) byte { return at(t.names, e.name)[0] }

// name gives a symbol's name and its module's.
func (t *Table) name(e entry) (name, module string) {
	s := t.from(e)
	i := 0
	for i < len(s) && s[i] != '\n' && s[i] != '\t' {
		i++
	}
	name, s = s[:i], s[i:]
	if strings.HasPrefix(s, "\t[") {
		if j := strings.IndexAny(s, "]\n"); j >= 0 && s[j] == ']' {
			module = s[2:j]
		}
	}
	return name, module
}

// maxOff is how far behind a symbol an address may be and still belong to it: the list has no sizes, and behind the last
// function of a module or program is a gap.
const maxOff = 16 << 20

// ByAddr returns the symbol that addr is in or behind, as the kernel does: of several at one address, the first in the
// list. There is none (ok is false) if addr is not in the kernel, its modules or its programs.
func (t *Table) ByAddr(addr uint64) (name, module string, off uint64, ok bool) {
	s, ok := t.At(addr)
	return s.Name, s.Module, addr - s.Addr, ok
}

// At is [Table.ByAddr] giving the whole symbol.
func (t *Table) At(addr uint64) (Sym, bool) {
	if t.hidden || t.high && addr>>63 == 0 {
		return Sym{}, false
	}
	i, _ := slices.BinarySearchFunc(t.syms, addr, func(e entry, a uint64) int {
		if e.addr <= a {
			return -1
		}
		return 1
	})
	i = t.first(i - 1)
	if i < 0 || t.syms[i].addr == 0 || addr-t.syms[i].addr > maxOff {
		return Sym{}, false
	}
	s := t.sym(t.syms[i])
	if s.Module == "" && t.end != 0 && addr >= t.end {
		return Sym{}, false
	}
	return s, true
}

// PerCPU gives the variable at an address of per-CPU memory as it is linked. On x86-64 before 6.15 these addresses begin at 0, so
// that [Table.At] takes them for those of a user program.
func (t *Table) PerCPU(addr uint64) (Sym, bool) {
	if s, ok := t.At(addr); ok || t.hidden {
		return s, ok
	}
	i, _ := slices.BinarySearchFunc(t.syms, addr, func(e entry, a uint64) int {
		if e.addr <= a {
			return -1
		}
		return 1
	})
	if i = t.first(i - 1); i < 0 || addr-t.syms[i].addr > maxOff {
		return Sym{}, false
	}
	return t.sym(t.syms[i]), true
}

// first goes back from symbol i to the first one at its address, over mapping symbols; -1 if there is none.
func (t *Table) first(i int) int {
	for i >= 0 {
		best, addr := -1, t.syms[i].addr
		for ; i >= 0 && t.syms[i].addr == addr; i-- {
			if !t.mapping(i) {
				best = i
			}
		}
		if best >= 0 {
			return best
		}
	}
	return -1
}

// mapping reports one of the symbols that mark code and data for disassemblers (is_mapping_symbol): $x, $d, .L…
func (t *Table) mapping(i int) bool {
	s := t.from(t.syms[i])
	return s[0] == '$' || strings.HasPrefix(s, ".L")
}

// ByName returns the addresses of all symbols of that name, ascending; nil if there is none or addresses are hidden.
func (t *Table) ByName(name string) []uint64 {
	var addrs []uint64
	for s := range t.Named(name) {
		if !t.hidden {
			addrs = append(addrs, s.Addr)
		}
	}
	return addrs
}

// Named goes over the symbols of that name by ascending address. The first call of it or of ByName indexes all names, unless the name
// was expected.
func (t *Table) Named(name string) iter.Seq[Sym] {
	return func(yield func(Sym) bool) {
		if ids, ok := t.expected[name]; ok {
			for _, i := range ids {
				if !yield(t.sym(t.syms[i])) {
					return
				}
			}
			return
		}
		if name == "" { // of no symbol
			return
		}
		ix := t.index()
		if len(ix.head) == 0 {
			return
		}
		for i := ix.head[ix.bucket(name)]; i != 0; i = ix.next[i-1] {
			if e := t.syms[i-1]; t.isNamed(e, name) && !yield(t.sym(e)) {
				return
			}
		}
	}
}

// expect finds the symbols from k on that have one of the names in expected, in one walk: a tenth of what an index costs.
func (t *Table) expect(k int) {
	if len(t.expected) == 0 {
		return
	}
	var begins [1 << 16]bool // by the first three bytes: few of all names begin as one of these
	key := func(s string) uint16 { return uint16(s[0])<<11 ^ uint16(s[1])<<6 ^ uint16(s[2]) }
	for n := range t.expected {
		begins[key(n)] = true
	}
	for i, e := range t.syms[k:] {
		if s := t.from(e); len(s) < 3 || !begins[key(s)] {
			continue
		}
		name, _ := t.name(e)
		if ids, ok := t.expected[name]; ok {
			t.expected[name] = append(ids, uint32(k+i))
		}
	}
}

func (t *Table) isNamed(e entry, name string) bool {
	s := t.from(e)
	return strings.HasPrefix(s, name) && (len(s) == len(name) || s[len(name)] == '\n' || s[len(name)] == '\t')
}

// All goes over all symbols by address.
func (t *Table) All() iter.Seq[Sym] {
	return func(yield func(Sym) bool) {
		for _, e := range t.syms {
			if !yield(t.sym(e)) {
				return
			}
		}
	}
}

// Text goes over the symbols of code by address.
func (t *Table) Text() iter.Seq[Sym] {
	return func(yield func(Sym) bool) {
		for _, e := range t.syms {
			if isText(t.typ(e)) && !yield(t.sym(e)) {
				return
			}
		}
	}
}

// nameIndex is a hash table with chains: head and next hold 1 + the index of a symbol.
type nameIndex struct {
	seed       maphash.Seed
	head, next []uint32
}

func (ix *nameIndex) bucket(name string) uint64 {
	return maphash.String(ix.seed, name) & uint64(len(ix.head)-1)
}

func (t *Table) buildIndex() nameIndex {
	if len(t.syms) == 0 {
		return nameIndex{}
	}
	n := 1
	for n < len(t.syms) {
		n *= 2
	}
	ix := nameIndex{seed: maphash.MakeSeed(), head: make([]uint32, n), next: make([]uint32, len(t.syms))}
	for i, e := range slices.Backward(t.syms) { // so that chains are ascending
		name, _ := t.name(e)
		b := ix.bucket(name)
		ix.next[i], ix.head[b] = ix.head[b], uint32(i+1)
	}
	return ix
}
