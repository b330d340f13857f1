package walk

import (
	"cmp"
	"fmt"
	"iter"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/kernel"
)

// IRQ is an interrupt that the kernel has a descriptor of.
type IRQ struct {
	Number   int
	Addr     uint64
	Chip     string
	Actions  []string
	Counts   []uint64 // by CPU, in the order of Target.CPUs
	Affinity []int    // the CPUs it may go to
	Depth    int      // how often it was disabled
}

// IRQs reads the interrupts, those without handlers too, by number.
func IRQs(t kernel.Target) ([]IRQ, error) {
	errs := &kernel.Errors{}
	var out []IRQ
	for at := range irqDescs(t, errs) {
		out = append(out, readIRQ(kernel.Object(t, errs, "struct irq_desc", at)))
	}
	sorting.Stable(out, func(a, b IRQ) int { return cmp.Compare(a.Number, b.Number) })
	if err := errs.Take(); err != nil {
		return out, fmt.Errorf("walk interrupts: %w (%d reads failed)", err, errs.N)
	}
	return out, nil
}

// maxIRQs bounds their number.
const maxIRQs = 1 << 20

// irqDescs goes over the descriptors: in a maple tree since 6.5, in a radix tree before.
func irqDescs(t kernel.Target, errs *kernel.Errors) iter.Seq[uint64] {
	if len(t.Symbols().ByName("sparse_irqs")) > 0 {
		return Maple(kernel.Global(t, errs, "struct maple_tree", "sparse_irqs"), maxIRQs)
	}
	return XArray(kernel.Global(t, errs, "struct xarray", "irq_desc_tree"))
}

func readIRQ(d kernel.Value) IRQ {
	q := IRQ{Addr: d.Addr, Number: d.Get("irq_data.irq").Int(), Depth: d.Get("depth").Int(), Affinity: CPUMask(d.Get("irq_common_data.affinity"))}
	if c := d.Get("irq_data.chip"); c.Uint() != 0 {
		q.Chip = c.Get("name").String()
	}
	for a := d.Get("action"); a.Uint() != 0 && len(q.Actions) < 256; a = a.Get("next") {
		q.Actions = append(q.Actions, a.Get("name").String())
	}
	for _, cpu := range d.Target().CPUs() {
		c := d.Get("kstat_irqs")
		if c.Uint() == 0 {
			break
		}
		n := c.PerCPU(cpu)
		if n.Has("cnt") { // struct irqstat, since 6.10
			n = n.Get("cnt")
		}
		q.Counts = append(q.Counts, n.Uint())
	}
	return q
}

// CPUMask gives the CPUs in a mask, of those that there are: a struct cpumask, a pointer to one, or an array of one, which
// cpumask_var_t is by configuration.
func CPUMask(v kernel.Value) []int {
	switch ctype.Strip(v.Type).(type) {
	case *ctype.Ptr:
		if v.Uint() == 0 {
			return nil
		}
		v = v.Deref()
	case *ctype.Array:
		v = v.At(0)
	}
	var out []int
	if !v.OK() {
		return nil
	}
	for _, cpu := range v.Target().CPUs() {
		if v.Get("bits").At(cpu/64).Uint()>>(cpu%64)&1 != 0 {
			out = append(out, cpu)
		}
	}
	return out
}
