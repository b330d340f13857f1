package dump

import (
	"encoding/binary"
	"fmt"

	"github.com/fathom-trace/fathom/ctype/btftypes"
	"github.com/fathom-trace/fathom/debuginfo/kallsyms"
	"github.com/fathom-trace/fathom/debuginfo/orc"
	"github.com/fathom-trace/fathom/kernel"
)

// readTypes loads the kernel's BTF from its memory; a module's when it is asked for.
func (d *Dump) readTypes() error {
	start, err := d.symbol("__start_BTF")
	if err != nil {
		return fmt.Errorf("the kernel was built without BTF: %w", err)
	}
	end, err := d.symbol("__stop_BTF")
	if err != nil {
		return err
	}
	b, err := d.bytes(start, end-start)
	if err != nil {
		return err
	}
	own, err := btftypes.Parse(b, nil)
	if err != nil {
		return err
	}
	d.types = btftypes.New(own, func(module string) (*btftypes.BTF, error) { return d.moduleTypes(own, module) })
	d.types.Expect(usualTypes)
	return nil
}

// usualTypes and usualSymbols are what a first page asks for by name.
var usualTypes = []string{"orc_entry", "list_head", "module", "uts_namespace", "timekeeper", "long unsigned int", "long int", "char", "printk_ringbuffer",
	"task_struct", "pcpu_hot", "inactive_task_frame", "pt_regs", "atomic_long_t", "zone_stat_item", "node_stat_item"}

var usualSymbols = []string{"_text", "_end", "__start_BTF", "__stop_BTF", "__start_orc_unwind", "__start_orc_unwind_ip", "__stop_orc_unwind_ip",
	"__per_cpu_offset", "__cpu_present_mask", "nr_cpu_ids", "pcpu_hot", "current_task", "runqueues", "init_task", "init_uts_ns", "modules", "prb",
	"shadow_timekeeper", "timekeeper_data", "saved_command_line", "tainted_mask", "_totalram_pages", "total_swap_pages", "nr_swap_pages", "vm_zone_stat", "vm_node_stat"}

// moduleTypes finds a module's BTF in the list btf_modules (kernel/bpf/btf.c), which keeps a copy of it.
func (d *Dump) moduleTypes(base *btftypes.BTF, module string) (*btftypes.BTF, error) {
	var errs kernel.Errors
	for m := range kernel.Global(d, &errs, "struct list_head", "btf_modules").List("struct btf_module", "list") {
		if m.Get("module.name").String() != module {
			continue
		}
		b := m.Get("btf")
		data := kernel.Object(d, &errs, "struct list_head", b.Get("data").Uint())
		raw := data.Bytes(b.Get("data_size").Int())
		if err := errs.Take(); err != nil {
			return nil, err
		}
		return btftypes.Parse(raw, base)
	}
	if err := errs.Take(); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("module %s has no BTF in the dump", module)
}

// maxModuleSyms bounds the symbols of one module.
const maxModuleSyms = 1 << 20

// readModules walks the list of modules and adds their symbols.
func (d *Dump) readModules(b *kallsyms.Builder) error {
	format, ferr := orc.FormatOf(d.types)
	var errs kernel.Errors
	for m := range kernel.Global(d, &errs, "struct list_head", "modules").List("struct module", "list") {
		mod := kernel.Module{Addr: m.Addr, Name: m.Get("name").String(), Refs: m.Get("refcnt.counter").Int() - 1,
			State: moduleStates[m.Get("state").Uint()&3], Taints: moduleTaints(m.Get("taints").Uint())}
		mod.Ranges = moduleRanges(m)
		for _, r := range mod.Ranges {
			mod.Size += r.End - r.Start
		}
		if ferr == nil && m.Has("arch") && m.Get("arch").Has("num_orcs") {
			n := m.Get("arch.num_orcs").Uint()
			mod.Unwind = d.table(format, m.Get("arch.orc_unwind_ip").Uint(), m.Get("arch.orc_unwind").Uint(), n)
		}
		if err := errs.Take(); err != nil {
			d.lacks("part of module "+mod.Name, err)
		}
		if err := d.moduleSymbols(b, m, mod.Name); err != nil {
			d.lacks("symbols of module "+mod.Name, err)
		}
		d.modules = append(d.modules, mod)
	}
	return errs.Take()
}

// moduleStates are enum module_state; a module that is being loaded and has no memory of its own yet is unformed.
var moduleStates = [4]string{"Live", "Loading", "Unloading", "Unformed"}

// moduleTaints gives the letters that /proc/modules shows, in the order of taint_flags (kernel/panic.c) for those that a
// module can have.
func moduleTaints(bits uint64) string {
	s := ""
	for _, t := range []struct {
		bit    uint
		letter string
	}{{0, "P"}, {1, "F"}, {10, "C"}, {12, "O"}, {13, "E"}, {15, "K"}, {16, "X"}, {18, "N"}} {
		if bits>>t.bit&1 != 0 {
			s += t.letter
		}
	}
	return s
}

// moduleRanges reads where a module is: mem[] since 6.4, core_layout before. Memory of its initialisation is gone.
func moduleRanges(m kernel.Value) []kernel.Range {
	var out []kernel.Range
	add := func(layout kernel.Value) {
		if base, size := layout.Get("base").Uint(), layout.Get("size").Uint(); base != 0 && size != 0 {
			out = append(out, kernel.Range{Start: base, End: base + size})
		}
	}
	if !m.Has("mem") {
		add(m.Get("core_layout"))
		return out
	}
	const memTypes = 7 // enum mod_mem_type: text, data, ro data, ro after init, and three of init
	for i := range memTypes {
		add(m.Get("mem").At(i))
	}
	return out
}

// moduleSymbols reads struct mod_kallsyms: an ELF symbol table with the addresses that the module was loaded at.
func (d *Dump) moduleSymbols(b *kallsyms.Builder, m kernel.Value, name string) error {
	ks := m.Get("kallsyms")
	if ks.Uint() == 0 {
		return nil
	}
	n := ks.Get("num_symtab").Uint()
	symtab, strtab, typetab := ks.Get("symtab").Uint(), ks.Get("strtab").Uint(), uint64(0)
	if ks.Deref().Has("typetab") {
		typetab = ks.Get("typetab").Uint()
	}
	if n > maxModuleSyms {
		return fmt.Errorf("%d symbols", n)
	}
	const symSize = 24 // Elf64_Sym
	syms, err := d.bytes(symtab, n*symSize)
	if err != nil {
		return err
	}
	types := make([]byte, n)
	if typetab != 0 {
		if err := d.ReadVirt(types, typetab); err != nil {
			return err
		}
	}
	for i := 1; i < int(n); i++ {
		s := syms[i*symSize:]
		shndx, value := binary.LittleEndian.Uint16(s[6:]), binary.LittleEndian.Uint64(s[8:])
		if shndx == 0 || value == 0 {
			continue
		}
		str, err := kernel.ReadString(d, strtab+uint64(binary.LittleEndian.Uint32(s)), 512)
		if err != nil {
			return err
		}
		typ := types[i]
		if typ == 0 {
			typ = 't'
		}
		b.Add(kallsyms.Sym{Addr: value, Name: str, Module: name, Type: typ})
	}
	return nil
}

func (d *Dump) table(f orc.Format, ips, entries, n uint64) *orc.Table {
	if n == 0 || n > 1<<26 {
		return nil
	}
	return &orc.Table{Format: f, N: int(n), IPAddr: ips, IPs: kernel.Reader(d, ips, 4*n), Entries: kernel.Reader(d, entries, orc.Size*n)}
}

// openUnwind finds the kernel's own table, and learns of it what is so in those of modules, too.
func (d *Dump) openUnwind() *orc.Table {
	f, err := orc.FormatOf(d.types)
	if err != nil {
		return nil
	}
	start, err1 := d.symbol("__start_orc_unwind_ip")
	stop, err2 := d.symbol("__stop_orc_unwind_ip")
	entries, err3 := d.symbol("__start_orc_unwind")
	if err1 != nil || err2 != nil || err3 != nil || stop < start {
		return nil
	}
	t := d.table(f, start, entries, (stop-start)/4)
	if t != nil {
		sample := make([]byte, orc.Size*min(t.N, orc.LearnFrom))
		if _, err := t.Entries.ReadAt(sample, int64(t.N-len(sample)/orc.Size)/2*orc.Size); err == nil {
			t.Format = t.Format.Learn(sample)
		}
		for i := range d.modules {
			if m := d.modules[i].Unwind; m != nil {
				m.Format = t.Format
			}
		}
	}
	return t
}

// Unwind implements kernel.Target.
func (d *Dump) Unwind(addr uint64) *orc.Table {
	own := d.unwind()
	for i := range d.modules {
		if d.modules[i].Contains(addr) {
			return d.modules[i].Unwind
		}
	}
	if s, ok := d.symbols.At(addr); !ok || s.Module != "" {
		return nil
	}
	return own
}
