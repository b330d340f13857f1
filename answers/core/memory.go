package core

import (
	"encoding/binary"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/kernel"
)

// rd prints memory. Flags are crash's: -8 -16 -32 -64 units, -d and -D decimal with and without sign, -x without the text
// beside, -s with symbols in the place of what are addresses of such, -S also with the slab caches of objects, -a as text, -p of a
// physical address, -u of the current task's program, -e to an address.
func (s *Session) rd(w io.Writer, args []string) error {
	bits, args := widths(args)
	o, err := parse(args, "dDxsSapu", "e")
	if err != nil {
		return err
	}
	if len(o.rest) == 0 || o.on['p'] && o.on['u'] {
		return &Usage{}
	}
	at, err := s.address(o.rest[0])
	if err != nil {
		return err
	}
	n, err := count(o.rest, 1)
	if err != nil {
		return err
	}
	size := bits / 8
	if o.on['e'] {
		end, err := s.address(o.val['e'])
		if err != nil || end <= at || end-at > 1<<24 {
			return &Usage{"-e names an address behind the first"}
		}
		n = int(end-at) / size
	}
	read := s.t.ReadVirt
	if o.on['p'] {
		p, ok := s.t.(kernel.PhysicalMemory)
		if !ok {
			return fmt.Errorf("there is no physical memory")
		}
		read = p.ReadPhys
	}
	if o.on['u'] {
		if read, err = s.readUser(); err != nil {
			return err
		}
	}
	var cache func(uint64) string
	if o.on['S'] {
		if cache, err = s.objectNames(); err != nil {
			return err
		}
	}
	if o.on['a'] {
		return text(w, read, at, n, len(o.rest) > 1 || o.on['e'])
	}
	return s.words(w, read, at, n, size, o, cache)
}

// text prints bytes as text: as many as asked for, or up to the first that is none.
func text(w io.Writer, read func([]byte, uint64) error, at uint64, n int, exact bool) error {
	if !exact {
		n = 4096
	}
	b := make([]byte, n)
	for read(b, at) != nil { // it may be the last that is mapped
		if exact || len(b) < 2 {
			return read(b, at)
		}
		b = b[:len(b)/2]
	}
	if !exact {
		end := 0
		for end < len(b) && (b[end] >= ' ' && b[end] < 0x7f || b[end] == '\t' || b[end] == '\n') {
			end++
		}
		b = b[:end]
	}
	fmt.Fprintf(w, "%016x:  %s\n", at, strings.TrimRight(string(b), "\n"))
	return nil
}

// words prints units of size bytes, 16 bytes a line; cache, which may be nil, names the slab
// cache of the object at an address.
func (s *Session) words(w io.Writer, read func([]byte, uint64) error, at uint64, n, size int, o options, cache func(uint64) string) error {
	for left := n * size; left > 0; left -= 16 {
		b := make([]byte, min(16, left))
		if err := read(b, at); err != nil {
			return err
		}
		fmt.Fprintf(w, "%016x: ", at)
		for j := 0; j < len(b); j += size {
			fmt.Fprint(w, " ", s.unit(b[j:j+size], o, cache))
		}
		if !o.on['x'] && !o.on['d'] && !o.on['D'] && !o.on['s'] && !o.on['S'] {
			fmt.Fprintf(w, "   %s", printable(b))
		}
		fmt.Fprintln(w)
		at += uint64(len(b))
	}
	return nil
}

func (s *Session) unit(b []byte, o options, cache func(uint64) string) string {
	var v uint64
	var signed int64
	switch len(b) {
	case 1:
		v, signed = uint64(b[0]), int64(int8(b[0]))
	case 2:
		v = uint64(binary.LittleEndian.Uint16(b))
		signed = int64(int16(v))
	case 4:
		v = uint64(binary.LittleEndian.Uint32(b))
		signed = int64(int32(v))
	default:
		v = binary.LittleEndian.Uint64(b)
		signed = int64(v)
	}
	switch {
	case o.on['d']:
		return fmt.Sprintf("%20d", signed)
	case o.on['D']:
		return fmt.Sprintf("%20d", v)
	case (o.on['s'] || o.on['S']) && len(b) == 8:
		if y, ok := s.t.Symbols().At(v); ok && v-y.Addr < 1<<20 {
			return fmt.Sprintf("%-16s", s.name(v, v))
		}
		if cache != nil {
			if name := cache(v); name != "" {
				return fmt.Sprintf("%-16s", "["+name+"]")
			}
		}
	}
	return fmt.Sprintf("%0*x", 2*len(b), v)
}

func printable(b []byte) string {
	out := make([]byte, len(b))
	for i, c := range b {
		if out[i] = '.'; c >= ' ' && c < 0x7f {
			out[i] = c
		}
	}
	return string(out)
}

// pageShift is PAGE_SHIFT of x86-64.
const pageShift = 12

func (s *Session) ptob(w io.Writer, args []string) error {
	return each1(args, func(n uint64) { fmt.Fprintf(w, "%x: %x\n", n, n<<pageShift) })
}

func (s *Session) btop(w io.Writer, args []string) error {
	return each1(args, func(n uint64) { fmt.Fprintf(w, "%x: %x\n", n, n>>pageShift) })
}

// each1 calls do for numbers, which are hexadecimal here as in crash.
func each1(args []string, do func(uint64)) error {
	if len(args) == 0 {
		return &Usage{}
	}
	for _, a := range args {
		n, err := strconv.ParseUint(strings.TrimPrefix(a, "0x"), 16, 64)
		if err != nil {
			return fmt.Errorf("%s is no number", a)
		}
		do(n)
	}
	return nil
}
