package walk

import (
	"fmt"
	"strconv"
	"strings"

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

// ParseIomem reads the text of /proc/iomem or /proc/ioports ("  febc0000-febdffff : 0000:00:03.0", two blanks for each level). What
// is no such line is left out.
func ParseIomem(text string) (out []Resource) {
	for line := range strings.Lines(text) {
		span, name, ok := strings.Cut(strings.TrimSpace(line), " : ")
		from, to, dash := strings.Cut(span, "-")
		start, err := strconv.ParseUint(from, 16, 64)
		end, eerr := strconv.ParseUint(to, 16, 64)
		if !ok || !dash || err != nil || eerr != nil || len(out) >= maxResources {
			continue
		}
		depth := (len(line) - len(strings.TrimLeft(line, " "))) / 2
		out = append(out, Resource{start, end, name, depth})
	}
	return out
}

// Around gives what an address belongs to, the largest first.
func Around(all []Resource, at uint64) (out []Resource) {
	for _, r := range all {
		if at >= r.Start && at <= r.End {
			out = append(out, r)
		}
	}
	return out
}
