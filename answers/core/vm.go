package core

import (
	"fmt"
	"io"

	"github.com/fathom-trace/fathom/kernel"
	"github.com/fathom-trace/fathom/kernel/walk"
)

// vm prints the memory mappings of tasks: -p with the physical address of each page that is there, -m the struct mm_struct,
// -f what flags of a mapping say.
func (s *Session) vm(w io.Writer, args []string) error {
	o, err := parse(args, "pm", "f")
	switch {
	case err != nil:
		return err
	case len(o.on) > 1:
		return &Usage{"one flag at a time"}
	case o.on['f']:
		n, ok := number(o.val['f'])
		if !ok {
			return &Usage{"vm -f takes a number"}
		}
		fmt.Fprintf(w, "%x: %s\n", n, areaFlags(n))
		return nil
	}
	return s.each(w, o.rest, func(w io.Writer, t walk.Task) error {
		if o.on['m'] {
			errs := &kernel.Errors{}
			mm := kernel.Object(s.t, errs, "struct task_struct", t.Addr).Get("mm").Uint()
			if mm == 0 {
				return errs.Take()
			}
			return s.structure(w, []string{"mm_struct", fmt.Sprintf("%#x", mm)})
		}
		return s.areas(w, t, o.on['p'])
	})
}

// areas prints the memory mappings of a task.
func (s *Session) areas(w io.Writer, t walk.Task, withPages bool) error {
	errs := &kernel.Errors{}
	mm := kernel.Object(s.t, errs, "struct task_struct", t.Addr).Get("mm")
	if mm.Uint() == 0 {
		fmt.Fprintln(w, "  no memory of its own")
		return errs.Take()
	}
	pgd := mm.Get("pgd").Uint()
	fmt.Fprintf(w, "  MM: %016x  PGD: %016x  RSS: %s  TOTAL_VM: %s\n", mm.Uint(), pgd, pages(t.RSS), pages(t.VM))
	fmt.Fprintf(w, "  %-16s %16s %16s %8s  %s\n", "VMA", "START", "END", "FLAGS", "FILE")
	for v := range walk.Areas(t, errs) {
		name := ""
		if f := v.Get("vm_file"); f.Uint() != 0 {
			name = walk.Path(f.Get("f_path"))
		}
		start, end := v.Get("vm_start").Uint(), v.Get("vm_end").Uint()
		fmt.Fprintf(w, "  %016x %16x %16x %8x  %s\n", v.Addr, start, end, v.Get("vm_flags").Uint(), name)
		if withPages {
			if err := s.areaPages(w, pgd, start, end); err != nil {
				return err
			}
		}
	}
	return errs.Take()
}

// maxAreaPages bounds how many pages of a mapping are looked for: 16 GiB.
const maxAreaPages = 1 << 22

// areaPages prints where the pages of a mapping are that are in memory.
func (s *Session) areaPages(w io.Writer, pgd, start, end uint64) error {
	u, ok := s.t.(kernel.UserPages)
	if !ok {
		return fmt.Errorf("this kernel's user memory cannot be translated")
	}
	there, all := 0, int((end-min(start, end))>>pageShift)
	for i := range min(all, maxAreaPages) {
		at := start + uint64(i)<<pageShift
		if phys, err := u.TranslateUser(pgd, at); err == nil {
			there++
			fmt.Fprintf(w, "    %16x %16x\n", at, phys)
		}
	}
	fmt.Fprintf(w, "    %d of %d pages are in memory\n", there, all)
	return nil
}

// areaBits are the flags of a mapping that have not moved (include/linux/mm.h).
var areaBits = []struct {
	bit  uint
	name string
}{{0, "READ"}, {1, "WRITE"}, {2, "EXEC"}, {3, "SHARED"}, {4, "MAYREAD"}, {5, "MAYWRITE"}, {6, "MAYEXEC"}, {7, "MAYSHARE"}, {8, "GROWSDOWN"},
	{9, "UFFD_MISSING"}, {10, "PFNMAP"}, {12, "UFFD_WP"}, {13, "LOCKED"}, {14, "IO"}, {15, "SEQ_READ"}, {16, "RAND_READ"}, {17, "DONTCOPY"},
	{18, "DONTEXPAND"}, {19, "LOCKONFAULT"}, {20, "ACCOUNT"}, {21, "NORESERVE"}, {22, "HUGETLB"}, {23, "SYNC"}, {25, "WIPEONFORK"}, {26, "DONTDUMP"},
	{27, "SOFTDIRTY"}, {28, "MIXEDMAP"}, {29, "HUGEPAGE"}, {30, "NOHUGEPAGE"}, {31, "MERGEABLE"}}

func areaFlags(n uint64) string {
	s := ""
	for _, b := range areaBits {
		if n>>b.bit&1 != 0 {
			s += b.name + " "
			n &^= 1 << b.bit
		}
	}
	if n != 0 {
		s += fmt.Sprintf("and %#x", n)
	}
	return s
}
