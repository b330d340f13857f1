package core

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/kernel"
	"github.com/fathom-trace/fathom/kernel/walk"
)

// pages finds the map of pages; errs counts what of it cannot be read.
func (s *Session) pages() (p *walk.Pages, errs *kernel.Errors, err error) {
	errs = &kernel.Errors{}
	p, err = walk.OpenPages(s.t, errs)
	return p, errs, err
}

// slabs prints the slab caches, or those that are named.
func (s *Session) slabs(w io.Writer, only, without []string) error {
	slabs, err := walk.Slabs(s.t)
	fmt.Fprintf(w, "%-16s %8s %8s %10s %10s %8s  %s\n", "CACHE", "OBJSIZE", "SIZE", "IN USE", "ROOM FOR", "SLABS", "NAME")
	n := 0
	for _, c := range slabs {
		if (len(only) == 0 || slices.Contains(only, c.Name)) && !slices.Contains(without, c.Name) {
			n++
			fmt.Fprintf(w, "%016x %8d %8d %10d %10d %8d  %s\n", c.Addr, c.Object, c.Size, c.InUse, c.Objects, c.Slabs, c.Name)
		}
	}
	if n == 0 && err == nil {
		return fmt.Errorf("no slab cache %s", strings.Join(only, " "))
	}
	return err
}

// slabObjects prints the slabs of caches with each object, in use or free.
func (s *Session) slabObjects(w io.Writer, names []string) error {
	if len(names) == 0 {
		return &Usage{"kmem -S takes the names of caches: all objects are many"}
	}
	p, errs, err := s.pages()
	if err != nil {
		return err
	}
	for _, name := range names {
		slabs, err := p.CacheSlabs(name)
		used, room := 0, 0
		fmt.Fprintf(w, "%-16s %-16s %8s %8s  %s\n", "SLAB", "MEMORY", "OBJECTS", "IN USE", name)
		for i := range slabs {
			sl := &slabs[i]
			n := sl.Used()
			used, room = used+n, room+sl.Objects
			fmt.Fprintf(w, "%016x %016x %8d %8d\n", sl.Addr, sl.Base, sl.Objects, n)
			for k := range sl.Objects {
				_, at, inUse, _ := sl.Object(sl.Base + uint64(k)*sl.Size)
				mark := "   %016x\n"
				if inUse {
					mark = "  [%016x]\n"
				}
				fmt.Fprintf(w, mark, at)
			}
		}
		fmt.Fprintf(w, "%d of %d objects in use, in %s\n", used, room, plural(len(slabs), "slab"))
		if err != nil {
			return err
		}
		if err := errs.Take(); err != nil {
			return err
		}
	}
	return nil
}

// slabOwners prints who allocated the objects of caches.
func (s *Session) slabOwners(w io.Writer, names []string) error {
	if len(names) == 0 {
		return &Usage{"kmem -a takes the names of caches"}
	}
	p, errs, err := s.pages()
	if err != nil {
		return err
	}
	now := kernel.Global(s.t, errs, "unsigned long", "jiffies").Uint()
	for _, name := range names {
		owners, err := p.Owners(name)
		if err != nil {
			return err
		}
		for _, o := range owners {
			fmt.Fprintf(w, "%7d %s  jiffies ago: %d to %d  pids: %d to %d\n", o.Count, s.name(o.Caller, o.Caller), now-o.When[1], now-o.When[0], o.PIDs[0], o.PIDs[1])
			for _, pc := range o.Stack {
				fmt.Fprintf(w, "        %s\n", s.name(pc-1, pc))
			}
		}
	}
	return errs.Take()
}

// slabOf says which object of a slab an address of the map of all memory is in, and what page.
func (s *Session) slabOf(w io.Writer, at uint64) error {
	p, errs, err := s.pages()
	if err != nil {
		return err
	}
	page, err := p.Page((at - p.Machine.DirectMap) >> pageShift)
	if err != nil {
		return nil // memory that has no struct page: a device's
	}
	fmt.Fprintf(w, "  page      struct page at %#x, count %d: %s\n", page.Addr, page.Count, flagWords(page))
	slab, ok, err := p.SlabOf(at)
	if err != nil || !ok {
		return err
	}
	n, first, used, ok := slab.Object(at)
	if !ok {
		fmt.Fprintf(w, "  slab      of %s, behind its last object\n", slab.Name)
		return errs.Take()
	}
	state := "free"
	if used {
		state = "in use"
	}
	fmt.Fprintf(w, "  slab      object %d of %d of %s at %#x, %s%s\n", n, slab.Objects, slab.Name, first, state, s.memberOf(slab, at-first))
	return errs.Take()
}

// objectNames gives what names the cache of the object that an address is in, "" if it is in none.
func (s *Session) objectNames() (func(at uint64) string, error) {
	p, _, err := s.pages()
	if err != nil {
		return nil, err
	}
	return func(at uint64) string {
		phys, ok := s.t.(kernel.PhysicalMemory)
		if !ok || at < p.Machine.DirectMap || !s.isMemory(at-p.Machine.DirectMap) {
			return ""
		}
		if to, err := phys.Translate(at); err != nil || to != at-p.Machine.DirectMap {
			return ""
		}
		slab, ok, err := p.SlabOf(at)
		if err != nil || !ok {
			return ""
		}
		if _, _, _, ok = slab.Object(at); !ok {
			return ""
		}
		return slab.Name
	}, nil
}

// memberOf names the member of an object that is so far behind its begin, where the cache has a struct's name.
func (s *Session) memberOf(slab walk.SlabPage, off uint64) string {
	t, err := kernel.TypeNamed(s.t.Types(), "struct "+slab.Name)
	if err != nil || off >= uint64(ctype.Size(t)) { // the last member of some is cut short: task_struct.thread.fpu
		return fmt.Sprintf(", offset %#x", off)
	}
	if name, _, ok := memberAt(t, int(off)); ok {
		return fmt.Sprintf(", struct %s.%s", slab.Name, name)
	}
	return fmt.Sprintf(", offset %#x in struct %s", off, slab.Name)
}
