package walk

import (
	"github.com/fathom-trace/fathom/kernel"
)

// Machine is the hardware that a kernel found, and where it put memory.
type Machine struct {
	Model  string // of the CPU: "Intel(R) Xeon(R) …"
	Vendor string
	KHz    uint64 // of the CPU's clock
	TSCKHz uint64
	Levels int // of page tables

	DirectMap uint64 // all physical memory, in order: PAGE_OFFSET
	Vmalloc   uint64
	Vmemmap   uint64 // struct page of all memory
	Text      uint64 // the kernel's own code
	Modules   uint64 // where modules may be loaded
	Linked    uint64 // where Text was linked; the difference is KASLR's
}

// Where x86-64 puts what nothing in memory says: Documentation/arch/x86/x86_64/mm.rst.
const (
	linkedText  = 0xffffffff81000000 // with CONFIG_PHYSICAL_START of 16 MiB
	imageSize   = 1 << 30            // KERNEL_IMAGE_SIZE with KASLR
	kernelImage = 0xffffffff80000000 // __START_KERNEL_map
	directMap4  = 0xffff888000000000
	vmalloc4    = 0xffffc90000000000
	vmemmap4    = 0xffffea0000000000
)

// ReadMachine reads it; what cannot be read is zero, and the error says what was first.
func ReadMachine(t kernel.Target) (Machine, error) {
	errs := &kernel.Errors{}
	c := kernel.Global(t, errs, "struct cpuinfo_x86", "boot_cpu_data")
	m := Machine{Model: c.Get("x86_model_id").String(), Vendor: c.Get("x86_vendor_id").String(), Levels: 4, Modules: kernelImage + imageSize, Linked: linkedText}
	m.KHz = kernel.Global(t, errs, "unsigned int", "cpu_khz").Uint()
	m.TSCKHz = kernel.Global(t, errs, "unsigned int", "tsc_khz").Uint()
	at := func(symbol string, otherwise uint64) uint64 {
		if len(t.Symbols().ByName(symbol)) == 0 { // a kernel that does not move its memory has no variable for it
			return otherwise
		}
		return kernel.Global(t, errs, "unsigned long", symbol).Uint()
	}
	m.DirectMap, m.Vmalloc, m.Vmemmap = at("page_offset_base", directMap4), at("vmalloc_base", vmalloc4), at("vmemmap_base", vmemmap4)
	if len(t.Symbols().ByName("__pgtable_l5_enabled")) > 0 && kernel.Global(t, errs, "unsigned int", "__pgtable_l5_enabled").Uint() != 0 {
		m.Levels = 5
	}
	if text := t.Symbols().ByName("_text"); len(text) > 0 {
		m.Text = text[0]
	}
	return m, errs.Take()
}
