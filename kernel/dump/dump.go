package dump

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/ctype/btftypes"
	"github.com/fathom-trace/fathom/debuginfo/kallsyms"
	"github.com/fathom-trace/fathom/debuginfo/orc"
	"github.com/fathom-trace/fathom/kernel"
	"github.com/fathom-trace/fathom/vmcore"
)

// Dump is a dead kernel. It may be used from one goroutine at a time.
type Dump struct {
	Core *vmcore.Core
	Info *vmcore.Info

	space   space
	pages   pageCache
	symbols *kallsyms.Table
	types   *btftypes.Lookup
	modules []kernel.Module
	unwind  func() *orc.Table
	regs    []kernel.Regs
	missing []kernel.Missing
	percpu  []uint64

	moduleTypesLoaded bool
}

var _ kernel.Target = (*Dump)(nil)

// Open reads a dump's page tables, symbols, types and list of modules. What cannot be read of modules is no error: see
// [Dump.Caps].
func Open(core *vmcore.Core) (*Dump, error) {
	if core.Info == nil && !core.FindInfo() {
		return nil, errors.New("the dump has no VMCOREINFO, neither as a note nor anywhere in memory: is it of Linux?")
	}
	d := &Dump{Core: core, Info: core.Info}
	if core.Machine != "" && core.Machine != "x86_64" {
		return nil, fmt.Errorf("the dump is of %s; only x86_64 can be read", core.Machine)
	}
	if err := d.openSpace(); err != nil {
		return nil, err
	}
	b := kallsyms.Builder{Expect: usualSymbols}
	if err := d.readSymbols(&b); err != nil {
		return nil, fmt.Errorf("read the kernel's symbols: %w", err)
	}
	kernelSyms, modSyms := b, kallsyms.Builder{}
	d.symbols = kernelSyms.Table()
	if err := d.readTypes(); err != nil {
		return nil, fmt.Errorf("read the kernel's types: %w", err)
	}
	if err := d.readModules(&modSyms); err != nil {
		d.lacks("modules", err)
	}
	d.symbols = d.symbols.With(&modSyms)
	d.readPerCPU()
	d.readRegisters()
	d.unwind = sync.OnceValue(d.openUnwind)
	return d, nil
}

func (d *Dump) lacks(what string, err error) {
	d.missing = append(d.missing, kernel.Missing{What: what, Why: err})
}

// pageCache keeps translated pages, so that a walk which reads eight bytes at a time does not ask the file each time.
type pageCache struct {
	pages map[uint64][]byte
}

const (
	pageSize    = 4096
	maxCached   = 2048
	maxTextSize = 64 << 20 // of one table read at once: symbols' offsets, BTF
)

// ReadVirt implements kernel.Memory.
func (d *Dump) ReadVirt(p []byte, addr uint64) error {
	for len(p) > 0 {
		in := addr % pageSize
		n := min(uint64(len(p)), pageSize-in)
		if len(p) >= 4*pageSize {
			if err := d.readPage(p[:n], addr); err != nil {
				return err
			}
		} else {
			b, err := d.page(addr - in)
			if err != nil {
				var f *kernel.FaultError
				if errors.As(err, &f) {
					return &kernel.FaultError{Addr: addr, Err: f.Err}
				}
				return err
			}
			copy(p[:n], b[in:])
		}
		p, addr = p[n:], addr+n
	}
	return nil
}

func (d *Dump) readPage(p []byte, addr uint64) error {
	phys, err := d.space.translate(addr)
	if err == nil {
		err = d.Core.ReadPhys(p, phys)
	}
	if err != nil {
		return &kernel.FaultError{Addr: addr, Err: err}
	}
	return nil
}

func (d *Dump) page(addr uint64) ([]byte, error) {
	if b, ok := d.pages.pages[addr]; ok {
		return b, nil
	}
	b := make([]byte, pageSize)
	if err := d.readPage(b, addr); err != nil {
		return nil, err
	}
	if d.pages.pages == nil || len(d.pages.pages) >= maxCached {
		d.pages.pages = make(map[uint64][]byte, maxCached)
	}
	d.pages.pages[addr] = b
	return b, nil
}

// Symbols implements kernel.Target.
func (d *Dump) Symbols() kernel.Symbols { return d.symbols }

// Kallsyms is the symbol table itself.
func (d *Dump) Kallsyms() *kallsyms.Table { return d.symbols }

// Types implements kernel.Target.
func (d *Dump) Types() ctype.Lookup { return withModules{d.types, d} }

// withModules looks in the modules' types for what the kernel's own do not have; they are read when first needed.
type withModules struct {
	*btftypes.Lookup
	d *Dump
}

// ByName implements ctype.Lookup.
func (l withModules) ByName(kind ctype.Kind, name string) (ctype.Type, error) {
	t, err := l.Lookup.ByName(kind, name)
	if err != nil && l.d.loadModuleTypes() {
		return l.Lookup.ByName(kind, name)
	}
	return t, err
}

// Func implements ctype.Lookup.
func (l withModules) Func(module, name string) (*ctype.Func, error) {
	f, err := l.Lookup.Func(module, name)
	if err != nil && module == "" && l.d.loadModuleTypes() {
		return l.Lookup.Func(module, name)
	}
	return f, err
}

// loadModuleTypes reads the types of all modules, once, and says if there are any new. A module without them, or whose
// types are not in the dump, is passed over: what is asked may be another's.
func (d *Dump) loadModuleTypes() (found bool) {
	if d.moduleTypesLoaded {
		return false
	}
	d.moduleTypesLoaded = true
	for _, m := range d.modules {
		found = d.types.Load(m.Name) == nil || found
	}
	return found
}

// Registers implements kernel.Target.
func (d *Dump) Registers() []kernel.Regs { return d.regs }

// Modules implements kernel.Target.
func (d *Dump) Modules() []kernel.Module { return d.modules }

// Caps implements kernel.Target.
func (d *Dump) Caps() kernel.Caps { return kernel.Caps{Missing: d.missing} }

var _ kernel.PhysicalMemory = (*Dump)(nil)

// ReadPhys implements kernel.PhysicalMemory.
func (d *Dump) ReadPhys(p []byte, addr uint64) error { return d.Core.ReadPhys(p, addr) }

// Memory implements kernel.PhysicalMemory.
func (d *Dump) Memory() (out []kernel.Range) {
	for _, r := range d.Core.Ranges() {
		out = append(out, kernel.Range{Start: r.Start, End: r.End})
	}
	return out
}

// Translate implements kernel.PhysicalMemory.
func (d *Dump) Translate(addr uint64) (uint64, error) { return d.space.translate(addr) }

// symbol gives the address of a symbol that there must be.
func (d *Dump) symbol(name string) (uint64, error) {
	at := d.symbols.ByName(name)
	if len(at) == 0 {
		return 0, fmt.Errorf("%s: no such symbol", name)
	}
	return at[0], nil
}

func (d *Dump) bytes(addr, n uint64) ([]byte, error) {
	if n > maxTextSize {
		return nil, fmt.Errorf("%d bytes at %#x are too many", n, addr)
	}
	b := make([]byte, n)
	return b, d.ReadVirt(b, addr)
}

func (d *Dump) u64(addr uint64) (uint64, error) {
	var b [8]byte
	err := d.ReadVirt(b[:], addr)
	return binary.LittleEndian.Uint64(b[:]), err
}

// readSymbols decodes the symbol table whose parts VMCOREINFO names.
func (d *Dump) readSymbols(b *kallsyms.Builder) error {
	sym := d.Info.Symbols
	for _, s := range []string{"kallsyms_names", "kallsyms_num_syms", "kallsyms_token_table", "kallsyms_token_index", "kallsyms_offsets"} {
		if sym[s] == 0 {
			return fmt.Errorf("VMCOREINFO of %s does not say where %s is (it does since Linux 6.0)", d.Info.Release, s)
		}
	}
	var n [4]byte
	if err := d.ReadVirt(n[:], sym["kallsyms_num_syms"]); err != nil {
		return err
	}
	e := kallsyms.Embedded{N: int(binary.LittleEndian.Uint32(n[:])), Check: "_stext", CheckAddr: sym["_stext"]}
	var err error
	if base := sym["kallsyms_relative_base"]; base != 0 {
		if e.Base, err = d.u64(base); err != nil {
			return err
		}
	}
	e.At = sym["kallsyms_offsets"]
	if e.Offsets, err = d.bytes(sym["kallsyms_offsets"], 4*uint64(e.N)); err != nil {
		return err
	}
	if e.TokenIndex, err = d.bytes(sym["kallsyms_token_index"], 512); err != nil {
		return err
	}
	if e.TokenTable, err = d.bytes(sym["kallsyms_token_table"], 1<<16); err != nil {
		// The table is shorter than its indices allow; the page behind it need not be mapped.
		if e.TokenTable, err = d.bytes(sym["kallsyms_token_table"], pageSize-sym["kallsyms_token_table"]%pageSize); err != nil {
			return err
		}
	}
	e.Names = kernel.Reader(d, sym["kallsyms_names"], maxTextSize)
	return b.Decode(e)
}

// readPerCPU reads the offsets of per-CPU memory for the CPUs that the kernel found.
func (d *Dump) readPerCPU() {
	at, err := d.symbol("__per_cpu_offset")
	if err != nil {
		d.lacks("per-CPU memory", err)
		return
	}
	n := 1
	if a, err := d.symbol("nr_cpu_ids"); err == nil {
		var b [4]byte
		if d.ReadVirt(b[:], a) == nil {
			n = int(min(binary.LittleEndian.Uint32(b[:]), 1<<14))
		}
	}
	for i := range n {
		off, err := d.u64(at + 8*uint64(i))
		if err != nil {
			d.lacks("per-CPU memory", err)
			return
		}
		d.percpu = append(d.percpu, off)
	}
}

// PerCPU implements kernel.Target.
func (d *Dump) PerCPU(cpu int) uint64 {
	if cpu < 0 || cpu >= len(d.percpu) {
		return 0
	}
	return d.percpu[cpu]
}

// CPUs implements kernel.Target.
func (d *Dump) CPUs() []int {
	var out []int
	mask := d.presentMask()
	for i := range d.percpu {
		if i/8 < len(mask) && mask[i/8]>>(i%8)&1 != 0 {
			out = append(out, i)
		}
	}
	return out
}

// presentMask is __cpu_present_mask; with none readable all CPUs count. The mask of CPUs online is no help: a panic takes
// all but its own out of it.
func (d *Dump) presentMask() []byte {
	mask := make([]byte, (len(d.percpu)+7)/8)
	at, err := d.symbol("__cpu_present_mask")
	if err == nil {
		err = d.ReadVirt(mask, at)
	}
	if err != nil {
		for i := range mask {
			mask[i] = 0xff
		}
	}
	return mask
}

// readRegisters takes the registers that the dump's notes have: QEMU writes one for each CPU, a kernel's own dump one for
// each CPU that was online.
func (d *Dump) readRegisters() {
	cpus := d.CPUs()
	if len(d.Core.CPUs) == 0 {
		d.lacks("registers", errors.New("the dump has no NT_PRSTATUS note"))
		return
	}
	for i, r := range d.Core.CPUs {
		cpu := i
		if len(d.Core.CPUs) == len(cpus) {
			cpu = cpus[i]
		}
		for len(d.regs) <= cpu {
			d.regs = append(d.regs, nil)
		}
		m := kernel.Regs{}
		for j, name := range r.Names[:len(r.Value)] {
			m[name] = r.Value[j]
		}
		d.regs[cpu] = m
	}
}
