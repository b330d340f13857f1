package core

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/kernel"
	"github.com/fathom-trace/fathom/kernel/walk"
)

// kmem tells of memory, by flag; without one, what addresses are.
func (s *Session) kmem(w io.Writer, args []string) error {
	o, err := parse(args, "isSavpnzfVohgP", "I")
	if err != nil {
		return err
	}
	if o.on['I'] && !o.on['s'] {
		return &Usage{"kmem -I leaves caches out of kmem -s"}
	}
	without := strings.Split(o.val['I'], ",")
	delete(o.on, 'I')
	if len(o.on) > 1 {
		return &Usage{"one flag at a time"}
	}
	slabs := func(w io.Writer, only []string) error { return s.slabs(w, only, without) }
	for flag, show := range map[byte]func(io.Writer, []string) error{'i': s.memory, 's': slabs, 'S': s.slabObjects, 'a': s.slabOwners, 'v': s.mappedAreas, 'p': s.pageDescs,
		'n': s.nodes, 'z': s.zones, 'f': s.freeBlocks, 'V': s.vmStat, 'o': s.perCPUOffsets, 'h': s.hugePages, 'g': s.pageFlags} {
		if o.on[flag] {
			return show(w, o.rest)
		}
	}
	if len(o.rest) == 0 {
		return &Usage{}
	}
	for _, a := range o.rest {
		at, err := s.address(a)
		if err != nil {
			return err
		}
		if err := s.Address(w, a, o.on['P'] || at < 1<<47 && s.isMemory(at)); err != nil {
			return err
		}
	}
	return nil
}

// isMemory says that the machine has memory at a physical address.
func (s *Session) isMemory(at uint64) bool {
	phys, ok := s.t.(kernel.PhysicalMemory)
	if !ok {
		return false
	}
	for _, r := range phys.Memory() {
		if at >= r.Start && at < r.End {
			return at >= 4096 // an offset from a null pointer rather
		}
	}
	return false
}

// mappedAreas prints what vmalloc's area is used for; with an address, what it is in.
func (s *Session) mappedAreas(w io.Writer, args []string) error {
	if len(args) > 1 {
		return &Usage{}
	}
	var at uint64
	if len(args) == 1 {
		var err error
		if at, err = s.address(args[0]); err != nil {
			return err
		}
	}
	areas, err := walk.MappedAreas(s.t)
	fmt.Fprintf(w, "%-16s %-16s %-35s %10s  %s\n", "VMAP_AREA", "VM_STRUCT", "ADDRESS RANGE", "SIZE", "FOR")
	n := 0
	for _, a := range areas {
		if len(args) == 1 && (at < a.Start || at >= a.End) {
			continue
		}
		n++
		fmt.Fprintf(w, "%016x %016x %016x - %016x %10d  %s\n", a.Addr, a.VM, a.Start, a.End, a.End-a.Start, s.mappedFor(a))
	}
	if n == 0 && err == nil {
		return fmt.Errorf("%#x is in no such area", at)
	}
	return err
}

// mappedFor says who has an area of vmalloc, and how.
func (s *Session) mappedFor(a walk.MappedArea) string {
	var out []string
	if a.Caller != 0 {
		out = append(out, s.name(a.Caller, a.Caller))
	}
	if a.Pages != 0 {
		out = append(out, fmt.Sprintf("pages=%d", a.Pages))
	}
	if a.Phys != 0 {
		out = append(out, fmt.Sprintf("phys=%#x", a.Phys))
	}
	if a.VM == 0 {
		out = append(out, "vm_map_ram")
	}
	return strings.Join(append(out, a.Flags...), " ")
}

// pageDescs prints the struct pages of addresses: of memory, of the kernel, or of struct pages themselves.
func (s *Session) pageDescs(w io.Writer, args []string) error {
	if len(args) == 0 {
		return &Usage{"kmem -p takes addresses: all pages are many"}
	}
	p, errs, err := s.pages()
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "%-16s %12s %16s %12s %6s  %s\n", "PAGE", "PHYSICAL", "MAPPING", "INDEX", "CNT", "FLAGS")
	for _, a := range args {
		n, err := s.pageNumber(p, a)
		if err != nil {
			return err
		}
		page, err := p.Page(n)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%016x %12x %16x %12x %6d  %s\n", page.Addr, page.Physical(), page.Mapping, page.Index, page.Count, flagWords(page))
	}
	return errs.Take()
}

// flagWords are a page's flags and type in words.
func flagWords(p walk.Page) string {
	words := append([]string{}, p.Names...)
	if p.Type != "" && p.Type != "slab" || p.Type == "slab" && !strings.Contains(strings.Join(words, " "), "slab") {
		words = append(words, "("+p.Type+")")
	}
	if p.Head != p.Addr {
		words = append(words, fmt.Sprintf("part of %#x", p.Head))
	}
	return strings.TrimSpace(fmt.Sprintf("%x %s", p.Flags, strings.Join(words, ",")))
}

// pageNumber is the page that an address means.
func (s *Session) pageNumber(p *walk.Pages, arg string) (uint64, error) {
	at, err := s.address(arg)
	if err != nil {
		return 0, err
	}
	if n, ok := p.Of(at); ok && strings.HasPrefix(s.region(p.Machine, at), "the map of pages") {
		return n, nil
	}
	if at < 1<<47 {
		return at >> pageShift, nil
	}
	phys, ok := s.t.(kernel.PhysicalMemory)
	if !ok {
		return 0, errors.New("this kernel's addresses cannot be translated")
	}
	to, err := phys.Translate(at)
	return to >> pageShift, err
}

// nodes prints the nodes of memory.
func (s *Session) nodes(w io.Writer, args []string) error {
	if len(args) > 0 {
		return &Usage{}
	}
	zones, err := walk.Zones(s.t)
	fmt.Fprintf(w, "%4s %-16s %12s %10s %10s  %s\n", "NODE", "PGLIST_DATA", "START", "SPANNED", "PRESENT", "ZONES")
	for i := 0; i < len(zones); {
		z, names := zones[i], []string{}
		for ; i < len(zones) && zones[i].Node == z.Node; i++ {
			if zones[i].Present > 0 {
				names = append(names, zones[i].Name)
			}
		}
		fmt.Fprintf(w, "%4d %016x %12x %10d %10d  %s\n", z.Node, z.NodeAddr, z.NodeStart<<pageShift, z.NodeSpanned, z.NodePresent, strings.Join(names, " "))
	}
	return err
}

// zones prints the zones, in pages.
func (s *Session) zones(w io.Writer, args []string) error {
	if len(args) > 0 {
		return &Usage{}
	}
	zones, err := walk.Zones(s.t)
	fmt.Fprintf(w, "%4s %-8s %-16s %12s %10s %10s %10s %10s %8s %8s %8s\n", "NODE", "NAME", "ZONE", "START", "SPANNED", "PRESENT", "MANAGED", "FREE", "MIN", "LOW", "HIGH")
	for _, z := range zones {
		fmt.Fprintf(w, "%4d %-8s %016x %12x %10d %10d %10d %10d %8d %8d %8d\n", z.Node, z.Name, z.Addr, z.Start<<pageShift, z.Spanned, z.Present, z.Managed, z.Free, z.Min, z.Low, z.High)
	}
	return err
}

// freeBlocks prints the blocks of free pages by order.
func (s *Session) freeBlocks(w io.Writer, args []string) error {
	if len(args) > 0 {
		return &Usage{}
	}
	zones, err := walk.Zones(s.t)
	for _, z := range zones {
		if z.Present == 0 {
			continue
		}
		fmt.Fprintf(w, "Node %d, zone %8s ", z.Node, z.Name)
		for _, n := range z.FreeBlocks {
			fmt.Fprintf(w, "%6d ", n)
		}
		fmt.Fprintln(w)
	}
	return err
}

// vmStat prints the counters of zones and nodes by their names.
func (s *Session) vmStat(w io.Writer, args []string) error {
	if len(args) > 0 {
		return &Usage{}
	}
	for _, of := range []struct{ symbol, enum string }{{"vm_zone_stat", "zone_stat_item"}, {"vm_node_stat", "node_stat_item"}} {
		ty, err := s.t.Types().ByName(ctype.KindEnum, of.enum)
		e, ok := ty.(*ctype.Enum)
		if err != nil || !ok {
			return fmt.Errorf("enum %s: %w", of.enum, err)
		}
		errs, last := &kernel.Errors{}, int64(-1)
		base := kernel.Global(s.t, errs, "atomic_long_t", of.symbol)
		for _, v := range e.Values {
			if v.Value <= last || !strings.HasPrefix(v.Name, "NR_") && !strings.HasPrefix(v.Name, "WORKINGSET") && !strings.HasPrefix(v.Name, "PG") ||
				strings.HasSuffix(v.Name, "_STAT_ITEMS") { // another name for the same, or the number of them
				continue
			}
			last = v.Value
			fmt.Fprintf(w, "%32s: %d\n", v.Name, int64(base.Shift(base.Addr+8*uint64(v.Value)).Get("counter").Uint()))
		}
		if err := errs.Take(); err != nil {
			return err
		}
	}
	return nil
}

// perCPUOffsets prints what is added to a per-CPU variable's address.
func (s *Session) perCPUOffsets(w io.Writer, args []string) error {
	if len(args) > 0 {
		return &Usage{}
	}
	for _, cpu := range s.t.CPUs() {
		fmt.Fprintf(w, "CPU %d: %016x\n", cpu, s.t.PerCPU(cpu))
	}
	return nil
}

// maxHugeSizes is HUGE_MAX_HSTATE of x86-64.
const maxHugeSizes = 2

// hugePages prints the pools of huge pages.
func (s *Session) hugePages(w io.Writer, args []string) error {
	if len(args) > 0 {
		return &Usage{}
	}
	errs := &kernel.Errors{}
	h := kernel.Global(s.t, errs, "struct hstate", "hstates")
	n := kernel.Global(s.t, errs, "int", "hugetlb_max_hstate").Int()
	fmt.Fprintf(w, "%-16s %10s %10s %10s %10s  %s\n", "HSTATE", "KIB", "TOTAL", "FREE", "RESERVED", "NAME")
	for i := range min(n, maxHugeSizes) {
		v := h.Shift(h.Addr + uint64(i*h.Size()))
		fmt.Fprintf(w, "%016x %10d %10d %10d %10d  %s\n", v.Addr, uint64(4)<<v.Get("order").Uint(), v.Get("nr_huge_pages").Uint(), v.Get("free_huge_pages").Uint(),
			v.Get("resv_huge_pages").Uint(), v.Get("name").String())
	}
	return errs.Take()
}

// pageFlags prints the flags that pages have, or what a word of them says.
func (s *Session) pageFlags(w io.Writer, args []string) error {
	ty, err := s.t.Types().ByName(ctype.KindEnum, "pageflags")
	e, ok := ty.(*ctype.Enum)
	if err != nil || !ok || len(args) > 1 {
		return errors.Join(err, &Usage{})
	}
	word := ^uint64(0)
	if len(args) == 1 {
		if word, err = s.address(args[0]); err != nil {
			return err
		}
	}
	for _, v := range e.Values {
		if strings.HasPrefix(v.Name, "PG_") && v.Value >= 0 && v.Value < 64 && word>>v.Value&1 != 0 {
			fmt.Fprintf(w, "%-24s %2d  %016x\n", v.Name, v.Value, uint64(1)<<v.Value)
		}
	}
	return nil
}
