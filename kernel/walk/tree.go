package walk

import (
	"iter"

	"github.com/fathom-trace/fathom/kernel"
)

// maxNodes bounds a tree, whose links a crash may have made a circle.
const maxNodes = 1 << 20

// RBTree goes over a red-black tree (struct rb_root, or rb_root_cached) in order: the objects of a type that hang in it by
// a member. Without a member the type is struct rb_node.
func RBTree(root kernel.Value, typ, member string) iter.Seq[kernel.Value] {
	if root.Has("rb_root") {
		root = root.Get("rb_root")
	}
	off := uint64(0)
	if member != "" {
		off = root.Cast(typ).Shift(0).Get(member).Addr
	}
	return func(yield func(kernel.Value) bool) {
		rbNodes(root.Get("rb_node"), 0, func(node kernel.Value) bool { return yield(node.Cast(typ).Shift(node.Addr - off)) })
	}
}

// RBNode goes over the nodes (struct rb_node) of the part of a red-black tree below a node, that one among them, in order.
func RBNode(node kernel.Value) iter.Seq[kernel.Value] {
	return func(yield func(kernel.Value) bool) {
		more := true
		give := func(n kernel.Value) bool { more = yield(n); return more }
		if rbNodes(node.Get("rb_left"), node.Addr, give); more && give(node) {
			rbNodes(node.Get("rb_right"), node.Addr, give)
		}
	}
}

// rbColor are the low bits of rb_node.__rb_parent_color.
const rbColor = 3

// rbNodes goes over the nodes below a link of a parent, in order. A node that names another parent is not of this tree: behind a link
// that a crash broke are circles, and trees of others.
func rbNodes(link kernel.Value, parent uint64, yield func(kernel.Value) bool) {
	var stack []kernel.Value
	n := 0
	down := func(link kernel.Value, parent uint64) {
		for link.Uint() != 0 && n < maxNodes {
			n++
			node := link.Deref()
			if is := node.Get("__rb_parent_color").Uint() &^ rbColor; is != parent {
				node.Fail("the node of a tree at %#x has the parent %#x, not %#x", node.Addr, is, parent)
				return
			}
			stack = append(stack, node)
			link, parent = node.Get("rb_left"), node.Addr
		}
	}
	for down(link, parent); len(stack) > 0; {
		node := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if !yield(node) {
			return
		}
		down(node.Get("rb_right"), node.Addr)
	}
}
