package walk

import (
	"cmp"
	"fmt"
	"iter"

	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/kernel"
)

// MappedArea is a range of addresses that was given out in the area of vmalloc.
type MappedArea struct {
	Addr       uint64 // of its struct vmap_area
	VM         uint64 // of its struct vm_struct; 0 if it has none
	Start, End uint64
	Pages      uint64
	Phys       uint64
	Flags      []string // as /proc/vmallocinfo has them: "vmalloc", "ioremap" …
	Caller     uint64   // who asked for it
}

// vmFlags are the names of flags of struct vm_struct (include/linux/vmalloc.h, s_show in mm/vmalloc.c).
var vmFlags = []string{"ioremap", "vmalloc", "vmap", "user", "dma-coherent"}

// MappedAreas reads the ranges that are in use, ascending: what /proc/vmallocinfo shows.
func MappedAreas(t kernel.Target) ([]MappedArea, error) {
	errs := &kernel.Errors{}
	var out []MappedArea
	for a := range vmapAreas(t, errs) {
		m := MappedArea{Addr: a.Addr, Start: a.Get("va_start").Uint(), End: a.Get("va_end").Uint()}
		if vm := a.Get("vm"); vm.Uint() != 0 {
			m.VM, m.Pages, m.Phys, m.Caller = vm.Uint(), vm.Get("nr_pages").Uint(), vm.Get("phys_addr").Uint(), vm.Get("caller").Uint()
			for i, name := range vmFlags {
				if vm.Get("flags").Uint()>>i&1 != 0 {
					m.Flags = append(m.Flags, name)
				}
			}
		}
		out = append(out, m)
	}
	sorting.By(out, func(a, b MappedArea) int { return cmp.Compare(a.Start, b.Start) })
	if err := errs.Take(); err != nil {
		return out, fmt.Errorf("walk the area of vmalloc: %w (%d reads failed)", err, errs.N)
	}
	return out, nil
}

// maxVmapNodes bounds the nodes that share the area out.
const maxVmapNodes = 1 << 10

// vmapAreas goes over the areas: on one list until 6.8, in a tree of each node since.
func vmapAreas(t kernel.Target, errs *kernel.Errors) iter.Seq[kernel.Value] {
	if len(t.Symbols().ByName("vmap_area_list")) > 0 {
		return kernel.Global(t, errs, "struct list_head", "vmap_area_list").List("struct vmap_area", "list")
	}
	return func(yield func(kernel.Value) bool) {
		nodes := kernel.Global(t, errs, "struct vmap_node *", "vmap_nodes")
		n := kernel.Global(t, errs, "unsigned int", "nr_vmap_nodes").Int()
		for i := range min(n, maxVmapNodes) {
			for a := range RBTree(nodes.At(i).Get("busy.root"), "struct vmap_area", "rb_node") {
				if !yield(a) {
					return
				}
			}
		}
	}
}
