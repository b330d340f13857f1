package walk

import (
	"fmt"
	"strings"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/kernel"
)

// pageShift is PAGE_SHIFT of x86-64.
const pageShift = 12

// Pages is the map of pages: a struct page for each.
type Pages struct {
	t       kernel.Target
	errs    *kernel.Errors
	first   kernel.Value // of page 0, whether there is one or not
	size    uint64
	names   []string // of the flags, by bit
	types   map[uint64]string
	slab    kernel.Value
	slabBit uint64 // PG_slab, where that is a flag; 0 where it is a type
	Machine Machine
}

// Page is a page of physical memory.
type Page struct {
	Number  uint64 // of the page frame
	Addr    uint64 // of its struct page
	Head    uint64 // of the struct page of the first page, of those that belong together; Addr if it is alone or the first
	Flags   uint64
	Names   []string // of the flags that are set: "locked", "dirty"
	Type    string   // "slab", "buddy", "table" …; "" of pages that are mapped, or that nobody said the type of
	Mapping uint64
	Index   uint64
	Count   int
	value   kernel.Value
}

// Physical is the page's address.
func (p Page) Physical() uint64 { return p.Number << pageShift }

// OpenPages finds the map of pages.
func OpenPages(t kernel.Target, errs *kernel.Errors) (*Pages, error) {
	m, err := ReadMachine(t)
	if err != nil {
		return nil, err
	}
	p := &Pages{t: t, errs: errs, Machine: m, types: map[uint64]string{}}
	p.first = kernel.Object(t, errs, "struct page", m.Vmemmap)
	p.slab = kernel.Object(t, errs, "struct slab", 0)
	p.size = uint64(p.first.Size())
	flags, err := enum(t, "pageflags")
	if err := errs.Take(); err != nil || p.size == 0 {
		return nil, fmt.Errorf("the map of pages: %w", err)
	}
	if err != nil {
		return nil, err
	}
	for _, v := range flags.Values {
		name, ok := strings.CutPrefix(v.Name, "PG_")
		if !ok || v.Value < 0 || v.Value > 63 { // the number of them
			continue
		}
		for len(p.names) <= int(v.Value) {
			p.names = append(p.names, "")
		}
		if p.names[v.Value] == "" { // others are what the same bit is called elsewhere
			p.names[v.Value] = name
		}
		if name == "slab" {
			p.slabBit = 1 << v.Value
		}
	}
	if kinds, err := enum(t, "pagetype"); err == nil {
		for _, v := range kinds.Values {
			if name, ok := strings.CutPrefix(v.Name, "PGTY_"); ok {
				p.types[uint64(v.Value)] = name
			}
		}
	}
	return p, nil
}

// enum finds an enum by its name.
func enum(t kernel.Target, name string) (*ctype.Enum, error) {
	ty, err := t.Types().ByName(ctype.KindEnum, name)
	e, ok := ty.(*ctype.Enum)
	if err != nil || !ok {
		return nil, fmt.Errorf("enum %s: %w", name, ctype.ErrNotFound)
	}
	return e, nil
}

// Of gives the number of the page that a struct page is of.
func (p *Pages) Of(addr uint64) (number uint64, ok bool) {
	if addr < p.first.Addr || (addr-p.first.Addr)/p.size >= 1<<(52-pageShift) {
		return 0, false
	}
	return (addr - p.first.Addr) / p.size, true
}

// Desc is the address of the struct page of a page.
func (p *Pages) Desc(number uint64) uint64 { return p.first.Addr + number*p.size }

// Page reads a page's struct page.
func (p *Pages) Page(number uint64) (Page, error) {
	v := p.first.Shift(p.Desc(number))
	out := Page{Number: number, Addr: v.Addr, Head: v.Addr, Flags: v.Get("flags").Uint(), Mapping: v.Get("mapping").Uint(), Index: v.Get("index").Uint(),
		Count: v.Get("_refcount.counter").Int(), value: v}
	if head := v.Get("compound_head").Uint(); head&1 != 0 {
		out.Head = head - 1
	}
	for i, name := range p.names {
		if out.Flags>>i&1 != 0 && name != "" {
			out.Names = append(out.Names, name)
		}
	}
	out.Type = p.kind(out.Flags, uint64(uint32(v.Get("page_type").Uint())))
	return out, p.errs.Take()
}

// Types of pages that are no flags: bits that are clear under PAGE_TYPE_BASE until 6.11, numbers in the highest byte since 6.12.
const (
	typeBase  = 0xf0000000
	typeMask  = 0xff000000
	typeShift = 24
)

// oldTypes are the bits, until 6.11 (include/linux/page-flags.h).
var oldTypes = []struct {
	bit  uint64
	name string
}{{0x80, "buddy"}, {0x100, "offline"}, {0x200, "table"}, {0x400, "guard"}}

func (p *Pages) kind(flags, typ uint64) string {
	if flags&p.slabBit != 0 {
		return "slab"
	}
	if len(p.types) > 0 {
		if name := p.types[typ>>typeShift]; typ&typeMask != typeMask {
			return name
		}
		return ""
	}
	for _, t := range oldTypes {
		if typ&(typeBase|t.bit) == typeBase {
			return t.name
		}
	}
	return ""
}

// Zone is a part of a node's memory.
type Zone struct {
	Node                      int
	Name                      string
	Addr                      uint64
	Start                     uint64 // the number of its first page
	Spanned, Present, Managed uint64 // pages
	Free                      uint64
	Min, Low, High            uint64
	FreeBlocks                []uint64 // by order: 2^order pages
	NodePresent, NodeStart    uint64
	NodeAddr, NodeSpanned     uint64
}

// maxNodeIDs and maxZones bound what a broken kernel says.
const (
	maxNodeIDs = 1 << 10
	maxZones   = 8
)

// Zones reads the zones of all nodes.
func Zones(t kernel.Target) ([]Zone, error) {
	errs := &kernel.Errors{}
	nodes := kernel.Global(t, errs, "unsigned int", "nr_node_ids").Int()
	table := kernel.Global(t, errs, "struct pglist_data *", "node_data")
	free, err := enumValue(t, "zone_stat_item", "NR_FREE_PAGES")
	if err != nil {
		return nil, err
	}
	var out []Zone
	for i := range min(nodes, maxNodeIDs) {
		p := table.Shift(table.Addr + 8*uint64(i))
		if p.Uint() == 0 {
			continue
		}
		n := p.Deref()
		for j := range min(n.Get("nr_zones").Int(), maxZones) {
			z := n.Get("node_zones").At(j)
			zone := Zone{Node: n.Get("node_id").Int(), Name: z.Get("name").String(), Addr: z.Addr, Start: z.Get("zone_start_pfn").Uint(), Spanned: z.Get("spanned_pages").Uint(),
				Present: z.Get("present_pages").Uint(), Managed: z.Get("managed_pages.counter").Uint(), Free: z.Get("vm_stat").At(free).Get("counter").Uint(),
				NodePresent: n.Get("node_present_pages").Uint(), NodeStart: n.Get("node_start_pfn").Uint(), NodeSpanned: n.Get("node_spanned_pages").Uint(), NodeAddr: n.Addr}
			boost := z.Get("watermark_boost").Uint()
			mark := func(i int) uint64 { return z.Get("_watermark").At(i).Uint() + boost }
			zone.Min, zone.Low, zone.High = mark(0), mark(1), mark(2)
			for order := range z.Len("free_area") {
				zone.FreeBlocks = append(zone.FreeBlocks, z.Get("free_area").At(order).Get("nr_free").Uint())
			}
			out = append(out, zone)
		}
	}
	if err := errs.Take(); err != nil {
		return out, fmt.Errorf("walk zones: %w (%d reads failed)", err, errs.N)
	}
	return out, nil
}

func enumValue(t kernel.Target, name, value string) (int, error) {
	e, err := enum(t, name)
	if err != nil {
		return 0, err
	}
	for _, v := range e.Values {
		if v.Name == value {
			return int(v.Value), nil
		}
	}
	return 0, fmt.Errorf("%s of enum %s: %w", value, name, ctype.ErrNotFound)
}
