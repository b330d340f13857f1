package probe

import (
	"github.com/cilium/ebpf"

	"github.com/fathom-trace/fathom/bpf"
	"github.com/fathom-trace/fathom/lang/check"
)

// copies are the programs that are loaded of a program for one target each, but for the first of them. An interrupt may come while
// one runs, and another run on top of it: each has an element of scratch memory of its own.
type copies struct {
	first int // element of the first of them: before are those of the programs of the object
	n     int // elements
	used  int
}

// copyRoom is how many bytes on each CPU the scratch memory of copies may take. Those of thousands of functions share what there is:
// it is seldom that one of two that share interrupts the other.
const copyRoom = 1 << 20

// newCopies counts the copies that will be loaded of programs with scratch memory.
func newCopies(info *check.Info, obj *bpf.Object) (c copies) {
	c.first = len(obj.Programs)
	for _, p := range obj.Programs {
		if p.ScratchBytes > 0 && p.Unit.Target < 0 && (p.Unit.Given || p.Type == ebpf.Tracing) {
			c.n += max(0, len(info.Instances[p.Unit.Clause].Targets)-1)
		}
	}
	size := 0
	for _, m := range obj.Maps {
		if m.Scratch {
			size += int(m.Spec.ValueSize)
		}
	}
	c.n = min(c.n, copyRoom/max(size, 1))
	return c
}

// of gives copy i of a program: what it has in scratch memory is in an element that others have not.
func (c *copies) of(p *bpf.Program, spec *ebpf.ProgramSpec, i int) *ebpf.ProgramSpec {
	one := spec.Copy()
	if i == 0 || c.n == 0 || p.ScratchBytes == 0 {
		return one
	}
	at := c.first + c.used%c.n
	c.used++
	for i := range one.Instructions {
		if in := &one.Instructions[i]; bpf.IsElement(in) {
			in.Constant = int64(at)
		}
	}
	return one
}
