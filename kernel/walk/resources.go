package walk

import (
	"fmt"

	"github.com/fathom-trace/fathom/kernel"
)

// Resource is a range of physical addresses and what it is: memory, a device's window, a driver's part of it.
type Resource struct {
	Start, End uint64 // both belong to it
	Name       string
	Depth      int
}

// maxResources bounds the tree.
const maxResources = 1 << 16

// Resources reads the tree of physical addresses in the order of /proc/iomem: each before its parts.
func Resources(t kernel.Target) ([]Resource, error) { return resources(t, "iomem_resource") }

// Ports reads the tree of I/O ports in the order of /proc/ioports.
func Ports(t kernel.Target) ([]Resource, error) { return resources(t, "ioport_resource") }

func resources(t kernel.Target, root string) ([]Resource, error) {
	errs := &kernel.Errors{}
	var out []Resource
	var down func(first kernel.Value, depth int)
	down = func(r kernel.Value, depth int) {
		const maxDepth = 64
		for ; r.Uint() != 0 && len(out) < maxResources && depth < maxDepth; r = r.Get("sibling") {
			out = append(out, Resource{r.Get("start").Uint(), r.Get("end").Uint(), r.Get("name").String(), depth})
			down(r.Get("child"), depth+1)
		}
	}
	down(kernel.Global(t, errs, "struct resource", root).Get("child"), 0)
	if err := errs.Take(); err != nil {
		return out, fmt.Errorf("walk resources: %w (%d reads failed)", err, errs.N)
	}
	return out, nil
}
