package core

import (
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/fathom-trace/fathom/debuginfo/kallsyms"
)

// sym prints symbols: by name or address, -l all, -m those of a module, -q those whose names have a text, -p and -n also the
// ones before and behind.
func (s *Session) sym(w io.Writer, args []string) error {
	o, err := parse(args, "lpn", "mq")
	if err != nil {
		return err
	}
	all, listed := s.t.Symbols().(interface {
		All() iter.Seq[kallsyms.Sym]
	})
	switch {
	case o.on['l'] || o.on['m'] || o.on['q']:
		if !listed {
			return fmt.Errorf("this kernel's symbols cannot be listed")
		}
		n := 0
		for y := range all.All() {
			if (!o.on['m'] || y.Module == o.val['m']) && strings.Contains(y.Name, o.val['q']) {
				printSym(w, y)
				n++
			}
		}
		if n == 0 {
			return fmt.Errorf("no such symbol")
		}
		return nil
	case len(o.rest) == 0:
		return &Usage{}
	}
	for _, a := range o.rest {
		if err := s.oneSym(w, a, o); err != nil {
			return err
		}
	}
	return nil
}

func printSym(w io.Writer, y kallsyms.Sym) {
	mod := ""
	if y.Module != "" {
		mod = " [" + y.Module + "]"
	}
	fmt.Fprintf(w, "%016x (%c) %s%s\n", y.Addr, y.Type, y.Name, mod)
}

func (s *Session) oneSym(w io.Writer, arg string, o options) error {
	if n, ok := number(arg); ok {
		y, ok := s.t.Symbols().At(n)
		if !ok {
			return fmt.Errorf("no symbol at %#x", n)
		}
		s.neighbour(w, y.Addr, o.on['p'], true)
		fmt.Fprintf(w, "%016x %s\n", n, s.name(n, n))
		s.neighbour(w, y.Addr, o.on['n'], false)
		return nil
	}
	at := s.t.Symbols().ByName(arg)
	if len(at) == 0 {
		return fmt.Errorf("no symbol %s", arg)
	}
	for _, a := range at {
		y, _ := s.t.Symbols().At(a)
		y.Addr, y.Name = a, arg
		s.neighbour(w, a, o.on['p'], true)
		printSym(w, y)
		s.neighbour(w, a, o.on['n'], false)
	}
	return nil
}

// furthest is how far a neighbour is looked for.
const furthest = 1 << 20

// neighbour prints the symbol before or behind an address.
func (s *Session) neighbour(w io.Writer, at uint64, wanted, before bool) {
	if !wanted {
		return
	}
	if before {
		if y, ok := s.t.Symbols().At(at - 1); ok {
			printSym(w, y)
		}
		return
	}
	for next := at + 1; next < at+furthest; next++ {
		if y, ok := s.t.Symbols().At(next); ok && y.Addr > at {
			printSym(w, y)
			return
		}
	}
}
