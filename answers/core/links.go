package core

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/kernel"
	"github.com/fathom-trace/fathom/kernel/walk"
)

// place is where in a type a member stands: TYPE.MEMBER, or a number of bytes.
func (s *Session) place(arg string) (t ctype.Type, member string, off uint64, err error) {
	i := strings.IndexByte(arg, '.')
	if i < 0 {
		n, nerr := strconv.ParseUint(arg, 0, 32)
		if nerr != nil {
			return nil, "", 0, &Usage{fmt.Sprintf("%q is neither TYPE.MEMBER nor a number of bytes", arg)}
		}
		return nil, "", n, nil
	}
	if t, err = s.typeNamed(arg[:i]); err != nil {
		return nil, "", 0, err
	}
	errs := &kernel.Errors{}
	member = arg[i+1:]
	v := kernel.Object(s.t, errs, ctype.Name(t), 0).Get(member)
	return t, member, v.Addr, errs.Take()
}

// list goes over a list: TYPE.MEMBER HEAD, or with crash's flags: -H the head, which is in no element, or -h an element; -s
// members to print of each, -r backwards. Without TYPE.MEMBER it follows the pointer that begins a struct, or stands at -o, from
// one to the next until it is null, or the first again, or -e.
func (s *Session) list(w io.Writer, args []string) error {
	o, err := parse(args, "rxd", "Hhsoe")
	if err != nil {
		return err
	}
	start, fromElement := o.val['H'], o.on['h']
	switch {
	case o.on['H'] && o.on['h'], o.on['x'] && o.on['d']:
		return &Usage{}
	case fromElement:
		start = o.val['h']
	case !o.on['H'] && len(o.rest) > 0:
		start, o.rest = o.rest[len(o.rest)-1], o.rest[:len(o.rest)-1]
	}
	if start == "" || len(o.rest) > 1 || len(o.rest) == 1 && (o.on['o'] || o.on['e']) {
		return &Usage{}
	}
	head, err := s.address(start)
	if err != nil {
		return err
	}
	errs := &kernel.Errors{}
	var found []uint64
	if len(o.rest) == 1 {
		found, err = s.linked(errs, o.rest[0], head, fromElement)
	} else {
		found, err = s.chained(errs, o, head, fromElement)
	}
	if err != nil {
		return err
	}
	if o.on['r'] {
		slices.Reverse(found)
	}
	for _, addr := range found {
		if err := s.element(w, o, addr); err != nil {
			return err
		}
	}
	if err := errs.Take(); err != nil {
		return errors.Join(fmt.Errorf("after %d elements", len(found)), err)
	}
	return nil
}

// element prints an element of a list or tree, with members of it.
func (s *Session) element(w io.Writer, o options, addr uint64) error {
	fmt.Fprintf(w, "%016x\n", addr)
	if !o.on['s'] {
		return nil
	}
	args := []string{o.val['s'], fmt.Sprintf("%#x", addr)}
	if o.on['x'] {
		args = append([]string{"-x"}, args...)
	}
	return s.structure(w, args)
}

// linked goes over a list_head.
func (s *Session) linked(errs *kernel.Errors, member string, head uint64, fromElement bool) (found []uint64, err error) {
	t, name, _, err := s.place(member)
	if err != nil {
		return nil, err
	}
	if t == nil {
		return nil, &Usage{fmt.Sprintf("%s is no TYPE.MEMBER; -o %s is an offset", member, member)}
	}
	at := kernel.Object(s.t, errs, "struct list_head", head)
	if fromElement {
		at = kernel.Object(s.t, errs, ctype.Name(t), head).Get(name)
		found = append(found, head)
	}
	for v := range at.List(ctype.Name(t), name) {
		found = append(found, v.Addr)
	}
	return found, nil
}

// chained follows pointers from one struct to the next.
func (s *Session) chained(errs *kernel.Errors, o options, head uint64, fromElement bool) (found []uint64, err error) {
	off, end := uint64(0), uint64(0)
	if o.on['o'] {
		if _, _, off, err = s.place(o.val['o']); err != nil {
			return nil, err
		}
	}
	if o.on['e'] {
		if end, err = s.address(o.val['e']); err != nil {
			return nil, err
		}
	}
	word := kernel.Object(s.t, errs, "unsigned long", 0)
	at := head
	if o.on['H'] {
		at = word.Shift(head + off).Uint()
	}
	for at != 0 && at != end && (at != head || len(found) == 0 && !o.on['H']) {
		if found = append(found, at); len(found) > maxTree {
			return found, errors.New("the list does not end")
		}
		if at = word.Shift(at + off).Uint(); slices.Contains(found[max(0, len(found)-8):], at) && at != head {
			errs.Add(fmt.Errorf("the list loops at %#x", at))
			break
		}
	}
	return found, nil
}

// tree prints the addresses of what hangs in a tree: -t says its kind, -o where in what hangs there its node is (TYPE.MEMBER or
// an offset; it may also stand before the root), -r where in what ROOT names the root is; -N says that ROOT is a node already; -s
// members to print of each.
func (s *Session) tree(w io.Writer, args []string) error {
	o, err := parse(args, "Nxd", "tors")
	if err != nil {
		return err
	}
	node := o.val['o']
	if len(o.rest) == 2 && !o.on['o'] {
		node, o.rest = o.rest[0], o.rest[1:]
	}
	if len(o.rest) != 1 {
		return &Usage{}
	}
	root, err := s.address(o.rest[0])
	if err != nil {
		return err
	}
	if o.on['r'] {
		_, _, off, err := s.place(o.val['r'])
		if err != nil {
			return err
		}
		root += off
	}
	errs := &kernel.Errors{}
	found, err := s.inTree(errs, o, node, root)
	if err != nil {
		return err
	}
	for at := range found {
		if err := s.element(w, o, at); err != nil {
			return err
		}
	}
	return errs.Take()
}

// inTree goes over what hangs in a tree of the kind that -t says.
func (s *Session) inTree(errs *kernel.Errors, o options, node string, root uint64) (iter.Seq[uint64], error) {
	kind := o.val['t']
	if kind == "" {
		kind = "rbtree"
	}
	if len(kind) > 1 && strings.HasPrefix("rbtree", kind) {
		kind = "rbtree"
	}
	if kind != "rbtree" && (node != "" || o.on['N']) {
		return nil, &Usage{fmt.Sprintf("what hangs in a tree of kind %s has no node in it: -o and -N are for rbtree", kind)}
	}
	switch kind {
	case "rbtree":
		off := uint64(0)
		if node != "" {
			var err error
			if _, _, off, err = s.place(node); err != nil {
				return nil, err
			}
		}
		r := kernel.Object(s.t, errs, "struct rb_root", root)
		nodes := walk.RBTree(r, "struct rb_node", "")
		if o.on['N'] {
			nodes = walk.RBNode(kernel.Object(s.t, errs, "struct rb_node", root))
		}
		return func(yield func(uint64) bool) {
			for v := range nodes {
				if !yield(v.Addr - off) {
					return
				}
			}
		}, nil
	case "xarray", "radix":
		return walk.XArray(kernel.Object(s.t, errs, "struct xarray", root)), nil
	case "maple":
		return walk.Maple(kernel.Object(s.t, errs, "struct maple_tree", root), maxTree), nil
	}
	return nil, &Usage{"-t takes rbtree, xarray, radix or maple"}
}

// maxTree bounds what is printed of a tree, whose links a crash may have made a circle.
const maxTree = 1 << 22
