package core

import (
	"fmt"
	"io"
	"strings"

	"github.com/fathom-trace/fathom/debuginfo/kallsyms"
	"github.com/fathom-trace/fathom/kernel"
	"github.com/fathom-trace/fathom/kernel/walk"
)

// Where the regions of x86-64 end that no variable tells the end of (Documentation/arch/x86/x86_64/mm.rst).
const (
	vmallocSize4 = 32 << 40
	vmallocSize5 = 12800 << 40
	pageDesc     = 64 // sizeof(struct page)
	modulesEnd   = 0xffffffffff000000
	imageEnd     = kernelImage + 1<<30
	kernelImage  = 0xffffffff80000000
)

// Address says what an address is: a virtual one of the kernel, or, with physical set, a place of the machine. arg may be a
// symbol, with what is added to it.
func (s *Session) Address(w io.Writer, arg string, physical bool) error {
	at, err := s.address(arg)
	if err != nil {
		return err
	}
	if physical {
		return s.physical(w, at)
	}
	m, err := walk.ReadMachine(s.t)
	if err != nil {
		return err
	}
	region := s.region(m, at)
	fmt.Fprintf(w, "%#016x\n  region    %s\n", at, region)
	if y, ok := s.t.Symbols().At(at); ok && at >= kernelImage {
		fmt.Fprintf(w, "  symbol    %s\n", s.name(at, at))
		s.sourceAt(w, y.Name, y.Module, at, at-y.Addr)
	}
	for _, mod := range s.t.Modules() {
		if mod.Contains(at) {
			fmt.Fprintf(w, "  module    %s\n", mod.Name)
		}
	}
	s.perCPUName(w, at)
	s.taskOf(w, at)
	switch {
	case strings.HasPrefix(region, "vmalloc"), strings.HasPrefix(region, "modules"):
		s.areaOf(w, at)
	case strings.HasPrefix(region, "the map of all memory"):
		if err := s.slabOf(w, at); err != nil {
			return err
		}
	}
	phys, ok := s.t.(kernel.PhysicalMemory)
	if !ok {
		return nil
	}
	to, err := phys.Translate(at)
	if err != nil {
		fmt.Fprintf(w, "  mapped    no: %v\n", err)
		return nil
	}
	fmt.Fprintf(w, "  mapped    to physical %#x\n", to)
	return s.resource(w, to)
}

// region names the part of the address space.
func (s *Session) region(m walk.Machine, at uint64) string {
	bits, vmalloc := uint(47), uint64(vmallocSize4)
	if m.Levels == 5 {
		bits, vmalloc = 56, vmallocSize5
	}
	ext := int64(at) >> bits
	text, end := s.t.Symbols().ByName("_text"), s.t.Symbols().ByName("_end")
	switch {
	case ext != 0 && ext != -1:
		return "not canonical: no address at all"
	case at < 4096:
		return "the first page: a member of what a null pointer should point to"
	case ext == 0:
		return "memory of user programs"
	case len(text) > 0 && len(end) > 0 && at >= text[0] && at < end[0]:
		return "the kernel's image"
	case at >= imageEnd && at < modulesEnd:
		return "modules"
	case at >= m.Vmemmap && at-m.Vmemmap < 1<<46/pageDesc*16 && at < kernelImage:
		pfn := (at - m.Vmemmap) / pageDesc
		return fmt.Sprintf("the map of pages (vmemmap): struct page of the page at physical %#x", pfn<<12)
	case at >= m.Vmalloc && at-m.Vmalloc < vmalloc:
		return "vmalloc, ioremap, stacks of tasks"
	case at >= m.DirectMap && at < m.Vmalloc:
		return fmt.Sprintf("the map of all memory: physical %#x", at-m.DirectMap)
	}
	return "another part of the kernel's half"
}

// perCPUSymbols are symbols that also name per-CPU variables by where they are linked.
type perCPUSymbols interface {
	PerCPU(addr uint64) (kallsyms.Sym, bool)
}

// perCPUName names a CPU's copy of a variable.
func (s *Session) perCPUName(w io.Writer, at uint64) {
	start, end := s.t.Symbols().ByName("__per_cpu_start"), s.t.Symbols().ByName("__per_cpu_end")
	if len(start) == 0 || len(end) == 0 {
		return
	}
	for _, cpu := range s.t.CPUs() {
		in := at - s.t.PerCPU(cpu)
		if in < start[0] || in >= end[0] {
			continue
		}
		name := "?"
		if p, ok := s.t.Symbols().(perCPUSymbols); ok {
			if y, ok := p.PerCPU(in); ok {
				name = fmt.Sprintf("%s+%#x", y.Name, in-y.Addr)
			}
		}
		fmt.Fprintf(w, "  per CPU   %s of CPU %d\n", name, cpu)
	}
}

// areaOf says what a range of addresses was given out for.
func (s *Session) areaOf(w io.Writer, at uint64) {
	areas, _ := walk.MappedAreas(s.t)
	for _, a := range areas {
		if at >= a.Start && at < a.End {
			fmt.Fprintf(w, "  area      %x - %x: %s\n", a.Start, a.End, s.mappedFor(a))
		}
	}
}

// taskOf says whose stack or struct task_struct an address is in.
func (s *Session) taskOf(w io.Writer, at uint64) {
	tasks, _ := s.allTasks()
	for _, t := range tasks {
		if stack := t.Value.Get("stack").Uint(); at >= stack && at-stack < stackBytes {
			fmt.Fprintf(w, "  stack     of pid %d %s, %d bytes below its top\n", t.PID, t.Comm, stackBytes-(at-stack))
		}
		if at >= t.Addr && at-t.Addr < uint64(t.Value.Size()) {
			name, _, _ := memberAt(t.Value.Type, int(at-t.Addr))
			fmt.Fprintf(w, "  task      %s of pid %d %s\n", strings.TrimSpace("struct task_struct "+name), t.PID, t.Comm)
		}
	}
}

// physical says what is at a physical address.
func (s *Session) physical(w io.Writer, at uint64) error {
	m, err := walk.ReadMachine(s.t)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "physical %#x\n", at)
	if err := s.resource(w, at); err != nil {
		return err
	}
	phys, ok := s.t.(kernel.PhysicalMemory)
	if !ok {
		return nil
	}
	if virt, ok := s.image(phys)(at); ok {
		fmt.Fprintf(w, "  symbol    %s, at %#x\n", s.name(virt, virt), virt)
	}
	for _, r := range phys.Memory() {
		if at >= r.Start && at < r.End {
			fmt.Fprintf(w, "  virtual   %#x in the map of all memory, struct page at %#x\n", at+m.DirectMap, m.Vmemmap+at>>12*pageDesc)
			if err := s.slabOf(w, at+m.DirectMap); err != nil {
				return err
			}
		}
	}
	return nil
}

// resource prints the way down the tree of resources, and the device whose window it is.
func (s *Session) resource(w io.Writer, at uint64) error {
	all, err := walk.Resources(s.t)
	devices, derr := walk.PCIDevices(s.t)
	if err == nil && derr != nil && len(devices) > 0 {
		err = derr
	}
	if len(all) > 0 || err == nil {
		Belongs(w, all, devices, at)
	}
	return err
}

// Belongs says what a physical address belongs to: the way down the tree of resources, and the PCI device whose window it is in.
func Belongs(w io.Writer, all []walk.Resource, devices []walk.PCIDevice, at uint64) {
	var way []string
	for _, r := range walk.Around(all, at) {
		way = append(way, fmt.Sprintf("%s (%x-%x)", r.Name, r.Start, r.End))
	}
	if len(way) == 0 {
		way = []string{"nothing that the kernel knows"}
	}
	fmt.Fprintf(w, "  belongs   %s\n", strings.Join(way, " → "))
	for _, d := range devices {
		n, bar, ok := d.Window(at)
		if !ok {
			continue
		}
		window := fmt.Sprintf("BAR %d", n)
		if n == 6 {
			window = "its ROM"
		}
		driver := "no driver has it"
		if d.Driver != "" {
			driver = "driver " + d.Driver
		}
		fmt.Fprintf(w, "  device    %s %04x:%04x, %s\n", d.Name(), d.Vendor, d.Device, driver)
		fmt.Fprintf(w, "  window    %s, %#x bytes behind its begin, of %d KiB\n", window, at-bar.Start, (bar.End-bar.Start+1)>>10)
	}
}

// iomem prints the tree of physical addresses.
func (s *Session) iomem(w io.Writer, args []string) error {
	if len(args) > 0 {
		return &Usage{}
	}
	all, err := walk.Resources(s.t)
	for _, r := range all {
		fmt.Fprintf(w, "%s%08x-%08x : %s\n", strings.Repeat("  ", r.Depth), r.Start, r.End, r.Name)
	}
	return err
}
