package walk

import (
	"fmt"
	"time"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/kernel"
)

// System is what a kernel says of itself: uname, clock, taint.
type System struct {
	Release, Version, Machine, Node string
	CPUs                            int
	Time                            time.Time     // of the last tick
	Uptime                          time.Duration // since boot, without suspend
	Taint                           uint64
	Command                         string // the kernel's command line
}

// ReadSystem reads it; what cannot be read is zero, and the error says what was first.
func ReadSystem(t kernel.Target) (System, error) {
	errs := &kernel.Errors{}
	u := kernel.Global(t, errs, "struct uts_namespace", "init_uts_ns").Get("name")
	s := System{Release: u.Get("release").String(), Version: u.Get("version").String(), Machine: u.Get("machine").String(),
		Node: u.Get("nodename").String(), CPUs: len(t.CPUs())}
	tk := timekeeper(t, errs)
	if sec := tk.Get("xtime_sec").Uint(); sec != 0 {
		s.Time = time.Unix(int64(sec), 0)
		s.Uptime = time.Duration(int64(sec)+int64(tk.Get("wall_to_monotonic.tv_sec").Uint())) * time.Second
	}
	s.Taint = kernel.Global(t, errs, "unsigned long", "tainted_mask").Uint()
	s.Command = kernel.Global(t, errs, "char *", "saved_command_line").String()
	return s, errs.Take()
}

// timekeeper is the copy of the kernel's timekeeper that only updates write to (kernel/time/timekeeping.c): a variable, or
// later the first of the clocks in a structure (seen in Linux 7.3).
func timekeeper(t kernel.Target, errs *kernel.Errors) kernel.Value {
	if len(t.Symbols().ByName("shadow_timekeeper")) > 0 {
		return kernel.Global(t, errs, "struct timekeeper", "shadow_timekeeper")
	}
	return kernel.Global(t, errs, "struct tk_data", "timekeeper_data").Get("shadow_timekeeper")
}

// TaintLetters are the letters of a taint mask, as print_tainted orders them; the first is G where nothing proprietary is.
func TaintLetters(mask uint64) string {
	s := ""
	for i, c := range "PFSRMBUDAWCIOELKXTNJ" {
		if mask>>i&1 != 0 {
			s += string(c)
		}
	}
	return s
}

// Memory is the machine's memory in pages.
type Memory struct {
	Total, Free                                        uint64
	ActiveAnon, InactiveAnon, ActiveFile, InactiveFile uint64
	Shmem, SlabReclaimable, SlabUnreclaimable          uint64
	Dirty, Writeback, Mapped, KernelStackKiB           uint64
	SwapTotal, SwapFree                                uint64
}

// ReadMemory reads the kernel's global counters. What CPUs have counted and not yet added is not in them, as in /proc/meminfo.
func ReadMemory(t kernel.Target) (Memory, error) {
	errs := &kernel.Errors{}
	zone := counters(t, errs, "vm_zone_stat", "zone_stat_item")
	node := counters(t, errs, "vm_node_stat", "node_stat_item")
	m := Memory{
		Total: kernel.Global(t, errs, "atomic_long_t", "_totalram_pages").Get("counter").Uint(), Free: zone("NR_FREE_PAGES"),
		ActiveAnon: node("NR_ACTIVE_ANON"), InactiveAnon: node("NR_INACTIVE_ANON"), ActiveFile: node("NR_ACTIVE_FILE"), InactiveFile: node("NR_INACTIVE_FILE"),
		Shmem: node("NR_SHMEM"), SlabReclaimable: node("NR_SLAB_RECLAIMABLE_B"), SlabUnreclaimable: node("NR_SLAB_UNRECLAIMABLE_B"),
		Dirty: node("NR_FILE_DIRTY"), Writeback: node("NR_WRITEBACK"), Mapped: node("NR_FILE_MAPPED"), KernelStackKiB: node("NR_KERNEL_STACK_KB"),
	}
	m.SwapTotal = kernel.Global(t, errs, "long", "total_swap_pages").Uint()
	m.SwapFree = kernel.Global(t, errs, "atomic_long_t", "nr_swap_pages").Get("counter").Uint()
	return m, errs.Take()
}

// counters gives access to an array of counters by the names of its enum. The enum is asked for by its own name: to find an
// enumerator by its own, all types of the kernel would have to be read.
func counters(t kernel.Target, errs *kernel.Errors, symbol, enum string) func(name string) uint64 {
	base := kernel.Global(t, errs, "atomic_long_t", symbol)
	index := map[string]int64{}
	ty, err := t.Types().ByName(ctype.KindEnum, enum)
	if e, ok := ty.(*ctype.Enum); ok && err == nil {
		for _, v := range e.Values {
			index[v.Name] = v.Value
		}
	} else {
		errs.Add(fmt.Errorf("enum %s: %w", enum, ctype.ErrNotFound))
	}
	return func(name string) uint64 {
		i, ok := index[name]
		if !ok || !base.OK() {
			return 0
		}
		v := int64(base.Shift(base.Addr + 8*uint64(i)).Get("counter").Uint())
		return uint64(max(v, 0)) // sums of per-CPU parts may be below zero for a moment
	}
}

// Slab is a slab cache.
type Slab struct {
	Name         string
	Addr         uint64
	Object, Size int // bytes an object is, and takes
	Slabs        int
	Objects      int // there is room for
	InUse        int // of them, as /proc/slabinfo counts: slabs that CPUs take objects from are full
}

// Slabs reads the slab caches of SLUB.
func Slabs(t kernel.Target) ([]Slab, error) {
	errs := &kernel.Errors{}
	nodes := 1
	if at := t.Symbols().ByName("nr_node_ids"); len(at) > 0 {
		nodes = kernel.Global(t, errs, "unsigned int", "nr_node_ids").Int()
	}
	var out []Slab
	for c := range kernel.Global(t, errs, "struct list_head", "slab_caches").List("struct kmem_cache", "list") {
		s := Slab{Name: c.Get("name").String(), Addr: c.Addr, Object: c.Get("object_size").Int(), Size: c.Get("size").Int()}
		for i := range min(nodes, 1024) {
			n := slabNode(c, i)
			if n.Uint() == 0 || !n.Deref().Has("nr_slabs") {
				continue
			}
			s.Slabs += n.Get("nr_slabs.counter").Int()
			s.Objects += n.Get("total_objects.counter").Int()
			s.InUse -= partialFree(n)
		}
		s.InUse += s.Objects
		out = append(out, s)
	}
	if err := errs.Take(); err != nil {
		return out, fmt.Errorf("walk slab caches: %w (%d reads failed)", err, errs.N)
	}
	return out, nil
}

// slabNode is what a cache has on a memory node: in an array, or in one of structures (seen in Linux 7.3).
func slabNode(c kernel.Value, node int) kernel.Value {
	if c.Has("node") {
		return c.Get("node").At(node)
	}
	return c.Get("per_node").At(node).Get("node")
}

// partialFree counts the free objects of the slabs on a node's list of those that have some.
func partialFree(node kernel.Value) int {
	slab := node.Cast("struct slab").Shift(0)
	off := slab.Get("slab_list").Addr
	n, free := 0, 0
	head := node.Get("partial").Addr
	for at := node.Get("partial.next").Uint(); at != head && at != 0 && n < maxPartial; n++ {
		v := slab.Shift(at - off)
		free += v.Get("objects").Int() - v.Get("inuse").Int()
		at = v.Get("slab_list.next").Uint()
	}
	return free
}

// maxPartial bounds a list of slabs, as the kernel does when it counts them (MAX_PARTIAL_TO_SCAN is less).
const maxPartial = 1 << 20
