package walk

import (
	"iter"

	"github.com/fathom-trace/fathom/kernel"
)

// A link of a maple tree is a node's address with its type in bits 3 to 6 (include/linux/maple_tree.h, lib/maple_tree.c).
// Nodes are aligned to 256 bytes.
const (
	mapleAlign  = 256
	mapleLeaf   = 1 // maple_leaf_64
	mapleRange  = 2 // maple_range_64
	mapleARange = 3 // maple_arange_64
	// xaNode tags a link to a node, as in the XArray; other values with low bits are no objects.
	xaNode, xaMask = 2, 3
	xaReserved     = 4096
)

// maxLevels bounds how deep trees of wide nodes are, whose links a crash may have made a circle.
const maxLevels = 16

// Maple goes over a maple tree (since 6.1) in order: the addresses of what hangs in it, at most limit.
func Maple(tree kernel.Value, limit int) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		root := tree.Get("ma_root").Uint()
		if root&xaMask != xaNode || root < xaReserved {
			if root != 0 && root&xaMask == 0 {
				yield(root)
			}
			return
		}
		n := 0
		mapleNode(tree, root, 0, ^uint64(0), maxLevels, func(at uint64) bool { n++; return n <= limit && yield(at) })
	}
}

// mapleNode goes over a node that ends at the index last. A node's slots end at the one whose pivot is that, or, behind the
// first, zero. There are at most so many levels from it on. The root has no parent; another that names another parent is not of
// this tree, and behind it may be a circle.
func mapleNode(tree kernel.Value, link, parent, last uint64, levels int, yield func(uint64) bool) bool {
	if levels == 0 {
		return false
	}
	typ := link >> 3 & 15
	node := tree.Cast("struct maple_node").Shift(link &^ (mapleAlign - 1))
	if is := node.Get("parent").Uint() &^ (mapleAlign - 1); parent != 0 && is != parent {
		node.Fail("the node of a maple tree at %#x has the parent %#x, not %#x", node.Addr, is, parent)
		return true
	}
	switch typ {
	case mapleLeaf, mapleRange:
		node = node.Get("mr64")
	case mapleARange:
		node = node.Get("ma64")
	default:
		return true
	}
	slots := node.Len("slot")
	for i := range slots {
		end := last
		if i < slots-1 {
			if p := node.Get("pivot").At(i).Uint(); p != 0 || i == 0 {
				end = p
			}
		}
		at := node.Get("slot").At(i).Uint()
		switch {
		case typ != mapleLeaf && at > xaReserved:
			if !mapleNode(tree, at, node.Addr&^(mapleAlign-1), end, levels-1, yield) {
				return false
			}
		case typ == mapleLeaf && at > xaReserved && at&xaMask == 0:
			if !yield(at) {
				return false
			}
		}
		if end >= last {
			break
		}
	}
	return true
}

// Areas goes over the memory mappings of a task (struct vm_area_struct), by address; of tasks without memory there are none.
func Areas(task Task, errs *kernel.Errors) iter.Seq[kernel.Value] {
	return func(yield func(kernel.Value) bool) {
		t := task.Value.Target()
		mm := kernel.Object(t, errs, "struct task_struct", task.Addr).Get("mm")
		if mm.Uint() == 0 {
			return
		}
		mm = mm.Deref()
		if mm.Has("mm_mt") {
			area := kernel.Object(t, errs, "struct vm_area_struct", 0)
			for at := range Maple(mm.Get("mm_mt"), min(mm.Get("map_count").Int(), maxNodes)) {
				if !yield(area.Shift(at)) {
					return
				}
			}
			return
		}
		n := 0
		for v := mm.Get("mmap"); v.Uint() != 0 && n < maxNodes; v = v.Get("vm_next") { // a list until 6.0
			if n++; !yield(v.Deref()) {
				return
			}
		}
	}
}
