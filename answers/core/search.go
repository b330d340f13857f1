package core

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/fathom-trace/fathom/kernel"
	"github.com/fathom-trace/fathom/kernel/walk"
)

// pattern is what is searched for.
type pattern struct {
	text   []byte   // or
	values []uint64 // of so many bytes
	size   int
	mask   uint64 // bits that do not count
}

// find gives the index of the next hit in b, whose first byte is so far from an aligned address; −1 if there is none.
func (p pattern) find(b []byte, from int) int {
	if p.text != nil {
		return bytes.Index(b, p.text)
	}
	for i := -from & (p.size - 1); i+p.size <= len(b); i += p.size {
		v := uint64(0)
		switch p.size {
		case 2:
			v = uint64(binary.LittleEndian.Uint16(b[i:]))
		case 4:
			v = uint64(binary.LittleEndian.Uint32(b[i:]))
		default:
			v = binary.LittleEndian.Uint64(b[i:])
		}
		if slices.Contains(p.values, v|p.mask) {
			return i
		}
	}
	return -1
}

// length is how many bytes a hit has.
func (p pattern) length() int { return max(len(p.text), p.size) }

// search finds where memory holds one of some words, or a text (-c). Flags are crash's: -w and -h for words of 4 and 2 bytes, -m
// ignores bits, -p gives physical addresses, -t searches the stacks of tasks; -s, -e and -l a range of virtual addresses. Without
// a range it goes over all physical memory and gives the addresses at which the kernel sees it: those of its image, or of the
// map of all memory.
func (s *Session) search(w io.Writer, args []string) error {
	o, err := parse(args, "cwhptu", "msel")
	if err != nil {
		return err
	}
	if o.on['u'] {
		return &Usage{"search -u of crash is not here: search -s START -e END goes over the kernel's addresses, vm -p says where pages of a task are"}
	}
	p, err := s.pattern(o)
	if err != nil {
		return err
	}
	phys, ok := s.t.(kernel.PhysicalMemory)
	n := 0
	switch {
	case o.on['s'] || o.on['e'] || o.on['l']:
		if o.on['p'] || o.on['t'] {
			return &Usage{"a range is one of virtual addresses"}
		}
		n, err = s.searchRange(w, p, o)
	case o.on['t']:
		n, err = s.searchStacks(w, p)
	case !ok:
		return errors.New("this kernel's memory cannot be read by physical address")
	default:
		n, err = s.searchAll(w, p, phys, o.on['p'])
	}
	if n == 0 && err == nil {
		return errors.New("nowhere in the memory that is there")
	}
	return err
}

// pattern reads what is searched for.
func (s *Session) pattern(o options) (pattern, error) {
	p := pattern{size: 8}
	if len(o.rest) == 0 || o.on['w'] && o.on['h'] {
		return p, &Usage{}
	}
	if o.on['c'] {
		if o.on['m'] || o.on['w'] || o.on['h'] || len(o.rest) > 1 || o.rest[0] == "" {
			return p, &Usage{}
		}
		return pattern{text: []byte(o.rest[0]), size: 1}, nil
	}
	switch {
	case o.on['w']:
		p.size = 4
	case o.on['h']:
		p.size = 2
	}
	if o.on['m'] {
		n, ok := number(o.val['m'])
		if !ok {
			return p, &Usage{}
		}
		p.mask = n
	}
	for _, a := range o.rest {
		v, err := s.address(a)
		if err != nil {
			return p, err
		}
		if p.size < 8 && v>>(8*p.size) != 0 {
			return p, &Usage{fmt.Sprintf("%#x has more than %d bytes", v, p.size)}
		}
		p.values = append(p.values, v|p.mask)
	}
	return p, nil
}

// shown is how many bytes of a hit are printed.
const shown = 48

// searchChunk is how much is read at once. What is missing of it is left out page by page.
const searchChunk = 1 << 20

// hits prints the hits that begin in the first end bytes of b, which begins at an address; name gives the address to print, and
// what to say of it.
func (p pattern) hits(w io.Writer, b []byte, at uint64, end int, name func(uint64) (uint64, string)) (n int) {
	for i := 0; i < end; {
		k := p.find(b[i:], i)
		if k < 0 || i+k >= end {
			break
		}
		i += k
		addr, what := name(at + uint64(i))
		fmt.Fprintf(w, "%016x: %s%s\n", addr, printable(b[i:min(len(b), i+shown)]), what)
		n++
		i += p.size
	}
	return n
}

// over goes over a range of memory, chunk by chunk. A hit that begins in one page and ends in the next is found if both are there.
func (p pattern) over(w io.Writer, read func([]byte, uint64) error, start, end uint64, name func(uint64) (uint64, string)) (n int) {
	const page = 1 << pageShift
	buf := make([]byte, searchChunk+max(p.length(), shown))
	for at := start; at < end; at += searchChunk {
		b := buf[:min(uint64(len(buf)), end-at)]
		if read(b, at) == nil {
			n += p.hits(w, b, at, min(len(b), searchChunk), name)
			continue
		}
		for q := at; q < min(at+searchChunk, end); q = (q + page) &^ (page - 1) {
			b := buf[:min(page-q%page, end-q)]
			if read(b, q) == nil {
				n += p.hits(w, b, q, len(b), name)
			}
		}
	}
	return n
}

func (s *Session) searchAll(w io.Writer, p pattern, phys kernel.PhysicalMemory, physical bool) (n int, err error) {
	m, err := walk.ReadMachine(s.t)
	if err != nil {
		return 0, err
	}
	image := s.image(phys)
	name := func(at uint64) (uint64, string) {
		if physical {
			return at, ""
		}
		if virt, ok := image(at); ok {
			return virt, "  " + s.name(virt, virt)
		}
		return at + m.DirectMap, ""
	}
	for _, r := range phys.Memory() {
		n += p.over(w, phys.ReadPhys, r.Start, r.End, name)
	}
	return n, nil
}

// maxSearch bounds a range of virtual addresses, most of which may not be mapped.
const maxSearch = 1 << 36

func (s *Session) searchRange(w io.Writer, p pattern, o options) (int, error) {
	if !o.on['s'] || o.on['e'] == o.on['l'] {
		return 0, &Usage{"a range is -s START and -e END or -l LENGTH"}
	}
	start, err := s.address(o.val['s'])
	if err != nil {
		return 0, err
	}
	end, err := s.address(o.val['e'] + o.val['l'])
	if err != nil {
		return 0, err
	}
	if o.on['l'] {
		end += start
	}
	if end <= start || end-start > maxSearch {
		return 0, &Usage{"the range ends before it begins, or is longer than 64 GiB"}
	}
	return p.over(w, s.t.ReadVirt, start, end, func(at uint64) (uint64, string) {
		if _, ok := s.t.Symbols().At(at); ok && at >= kernelImage {
			return at, "  " + s.name(at, at)
		}
		return at, ""
	}), nil
}

func (s *Session) searchStacks(w io.Writer, p pattern) (n int, err error) {
	tasks, err := s.allTasks()
	for _, t := range tasks {
		if base := t.Value.Get("stack").Uint(); base != 0 {
			n += p.over(w, s.t.ReadVirt, base, base+stackBytes, func(at uint64) (uint64, string) {
				return at, fmt.Sprintf("  stack of pid %d %s", t.PID, t.Comm)
			})
		}
	}
	return n, err
}

// image says which virtual address of the kernel's image a physical one is.
func (s *Session) image(phys kernel.PhysicalMemory) func(uint64) (uint64, bool) {
	start, end := s.t.Symbols().ByName("_text"), s.t.Symbols().ByName("_end")
	if len(start) == 0 || len(end) == 0 {
		return func(uint64) (uint64, bool) { return 0, false }
	}
	base, err := phys.Translate(start[0])
	return func(at uint64) (uint64, bool) {
		return at - base + start[0], err == nil && at >= base && at-base < end[0]-start[0]
	}
}
