package walk

import (
	"cmp"
	"fmt"

	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/kernel"
)

// Owner is who allocated objects of a slab cache: those of one place and stack together.
type Owner struct {
	Count  int
	Caller uint64   // who called the allocator
	Stack  []uint64 // return addresses, innermost first; nil if the kernel did not keep it
	PIDs   [2]int   // the least and the greatest of the tasks
	When   [2]uint64
}

// storeUser is SLAB_STORE_USER of kernels whose flags have no enum (before 6.9).
const storeUser = 1 << 16

// Owners tells who allocated the objects in use of a slab cache, the most first. The kernel knows for caches that it was told to by
// slub_debug=U: behind each object then stands a struct track (mm/slub.c).
func (p *Pages) Owners(cache string) ([]Owner, error) {
	slabs, err := p.CacheSlabs(cache)
	if err != nil || len(slabs) == 0 {
		return nil, err
	}
	c := slabs[0].Cache
	flag := uint64(storeUser)
	if _, bit, ok := p.t.Types().EnumValue("_SLAB_STORE_USER"); ok {
		flag = 1 << bit
	}
	if c.Get("flags").Uint()&flag == 0 {
		return nil, fmt.Errorf("the kernel kept no owners of %s: it does when it is started with slub_debug=U,%s", cache, cache)
	}
	behind := c.Get("inuse").Uint()
	if c.Get("offset").Uint() >= behind { // the link to the next free object stands behind the object, too
		behind += 8
	}
	type key struct {
		caller uint64
		handle uint64
	}
	found := map[key]*Owner{}
	var out []*Owner
	track := kernel.Object(p.t, p.errs, "struct track", 0)
	for i := range slabs {
		s := &slabs[i]
		for k := range s.Objects {
			_, at, used, _ := s.Object(s.Base + uint64(k)*s.Size)
			if !used {
				continue
			}
			v := track.Shift(at + behind)
			id := key{caller: v.Get("addr").Uint()}
			if v.Has("handle") {
				id.handle = v.Get("handle").Uint()
			}
			pid, when := v.Get("pid").Int(), v.Get("when").Uint()
			o := found[id]
			if o == nil {
				o = &Owner{Caller: id.caller, PIDs: [2]int{pid, pid}, When: [2]uint64{when, when}, Stack: depotStack(p.t, p.errs, id.handle)}
				found[id] = o
				out = append(out, o)
			}
			o.Count++
			o.PIDs = [2]int{min(o.PIDs[0], pid), max(o.PIDs[1], pid)}
			o.When = [2]uint64{min(o.When[0], when), max(o.When[1], when)}
		}
	}
	sorting.Stable(out, func(a, b *Owner) int { return cmp.Compare(b.Count, a.Count) })
	list := make([]Owner, len(out))
	for i, o := range out {
		list[i] = *o
	}
	return list, p.errs.Take()
}

// maxDepotFrames is CONFIG_STACKDEPOT_MAX_FRAMES at most.
const maxDepotFrames = 256

// depotStack reads a stack that the kernel keeps once for all (lib/stackdepot.c) by its handle; nil if there is none. The pools are
// an array of pointers, stack_slabs until 6.2, stack_pools since, whose handles count from 1 since 6.9.
func depotStack(t kernel.Target, errs *kernel.Errors, handle uint64) []uint64 {
	h := kernel.Object(t, errs, "union handle_parts", 0)
	if handle == 0 || !h.OK() {
		errs.Take()
		return nil
	}
	index, symbol := uint64(0), "stack_pools"
	const align = 4 // DEPOT_STACK_ALIGN
	offset := handle >> bitOffset(h, "offset") & 0x3ff << align
	switch {
	case h.Has("pool_index_plus_1"):
		index = handle&(1<<bitOffset(h, "offset")-1) - 1
	case h.Has("pool_index"):
		index = handle & (1<<bitOffset(h, "offset") - 1)
	default:
		index, symbol = handle&(1<<bitOffset(h, "offset")-1), "stack_slabs"
	}
	pools := kernel.Global(t, errs, "void *", symbol)
	if pools.OK() && kernel.Extent(t.Symbols(), pools.Addr, 64) < 64 { // a pointer to the array
		pools = pools.Shift(pools.Uint())
	}
	pool := pools.Shift(pools.Addr + 8*index).Uint()
	if pool == 0 {
		return nil
	}
	r := kernel.Object(t, errs, "struct stack_record", pool+offset)
	entries := r.Cast("unsigned long").Shift(r.Get("entries").Addr)
	var out []uint64
	for i := range min(r.Get("size").Int(), maxDepotFrames) {
		out = append(out, entries.Shift(entries.Addr+8*uint64(i)).Uint())
	}
	return out
}

// bitOffset is the bit that a member of a union of bitfields begins at.
func bitOffset(v kernel.Value, member string) uint {
	return uint(8*v.Get(member).Addr) + uint(v.Get(member).BitOffset())
}
