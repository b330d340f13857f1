package walk

import (
	"iter"

	"github.com/fathom-trace/fathom/kernel"
)

// maxNodes bounds a tree, whose links a crash may have made a circle.
const maxNodes = 1 << 20

// RBTree goes over a red-black tree (struct rb_root, or rb_root_cached) in order: the objects of a type that hang in it by
// a member.
func RBTree(root kernel.Value, typ, member string) iter.Seq[kernel.Value] {
	return func(yield func(kernel.Value) bool) {
		if root.Has("rb_root") {
			root = root.Get("rb_root")
		}
		off := root.Cast(typ).Shift(0).Get(member).Addr
		var stack []kernel.Value
		n := 0
		down := func(link kernel.Value) {
			for link.Uint() != 0 && n < maxNodes {
				n++
				node := link.Deref()
				stack = append(stack, node)
				link = node.Get("rb_left")
			}
		}
		for down(root.Get("rb_node")); len(stack) > 0; {
			node := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			if !yield(node.Cast(typ).Shift(node.Addr - off)) {
				return
			}
			down(node.Get("rb_right"))
		}
	}
}
