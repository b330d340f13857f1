package walk

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/fathom-trace/fathom/kernel"
)

// SlabPage is a slab: pages that hold objects of one cache.
type SlabPage struct {
	Addr    uint64 // of its struct slab, which is that of its first page
	Base    uint64 // where its memory begins
	Cache   kernel.Value
	Name    string // of the cache
	Objects int
	Size    uint64 // from one object to the next
	pad     uint64 // before what the user of an object gets
	free    map[uint64]bool
	errs    *kernel.Errors
	p       *Pages
}

// maxObjects bounds a slab.
const maxObjects = 1 << 15

// SlabOf gives the slab that an address of the map of all memory is in; false if it is in none.
func (p *Pages) SlabOf(addr uint64) (SlabPage, bool, error) {
	number := (addr - p.Machine.DirectMap) >> pageShift
	page, err := p.Page(number)
	if err != nil {
		return SlabPage{}, false, err
	}
	if page.Head != page.Addr {
		if number, _ = p.Of(page.Head); p.Desc(number) != page.Head {
			return SlabPage{}, false, nil
		}
		if page, err = p.Page(number); err != nil {
			return SlabPage{}, false, err
		}
	}
	if page.Type != "slab" {
		return SlabPage{}, false, nil
	}
	s := p.slabAt(page.Addr)
	return s, s.Size > 0, p.errs.Take()
}

// slabAt reads a struct slab.
func (p *Pages) slabAt(addr uint64) SlabPage {
	v := p.slab.Shift(addr)
	number, _ := p.Of(addr)
	s := SlabPage{Addr: addr, Base: p.Machine.DirectMap + number<<pageShift, Objects: min(v.Get("objects").Int(), maxObjects), errs: p.errs, p: p}
	if c := v.Get("slab_cache"); c.Uint() != 0 {
		s.Cache = c.Deref()
		s.Name, s.Size, s.pad = c.Get("name").String(), c.Get("size").Uint(), c.Get("red_left_pad").Uint()
	}
	return s
}

// Object gives the number of the object that an address is in, where that begins for its user, and whether it is in use.
// It is false behind the last.
func (s *SlabPage) Object(addr uint64) (number int, at uint64, used, ok bool) {
	if s.Size == 0 || addr < s.Base || (addr-s.Base)/s.Size >= uint64(s.Objects) {
		return 0, 0, false, false
	}
	number = int((addr - s.Base) / s.Size)
	at = s.At(number)
	return number, at, !s.freeObjects()[at], true
}

// At is where an object begins for its user.
func (s *SlabPage) At(i int) uint64 { return s.Base + uint64(i)*s.Size + s.pad }

// Used is how many objects are in use.
func (s *SlabPage) Used() int {
	n := s.Objects
	for i := range s.Objects {
		if s.freeObjects()[s.At(i)] {
			n--
		}
	}
	return n
}

// freeObjects are the objects on the slab's list of free ones, and on those of the CPUs whose slab it is.
func (s *SlabPage) freeObjects() map[uint64]bool {
	if s.free != nil {
		return s.free
	}
	s.free = map[uint64]bool{}
	v := s.p.slab.Shift(s.Addr)
	s.chain(v.Get("freelist").Uint())
	if cpuSlab := s.Cache.Get("cpu_slab"); cpuSlab.Uint() != 0 {
		for _, cpu := range s.p.t.CPUs() {
			c := cpuSlab.PerCPU(cpu)
			if c.Get("slab").Uint() == s.Addr {
				s.chain(c.Get("freelist").Uint())
			}
		}
	}
	return s.free
}

// chain follows a list of free objects. With CONFIG_SLAB_FREELIST_HARDENED, which the member random shows, a link is stored
// combined with a number of the cache and its own address, whose bytes are the other way round (since 5.7; mm/slub.c).
func (s *SlabPage) chain(at uint64) {
	off, random, hard := s.Cache.Get("offset").Uint(), uint64(0), s.Cache.Has("random")
	if hard {
		random = s.Cache.Get("random").Uint()
	}
	for n := 0; at != 0 && n < s.Objects; n++ {
		if at < s.Base || at >= s.Base+uint64(s.Objects)*s.Size || s.free[at] {
			s.errs.Add(fmt.Errorf("slab %#x: the list of free objects leads to %#x", s.Addr, at))
			return
		}
		s.free[at] = true
		var b [8]byte
		if err := s.p.t.ReadVirt(b[:], at+off); err != nil {
			s.errs.Add(err)
			return
		}
		next := binary.LittleEndian.Uint64(b[:])
		if hard {
			next ^= random ^ bits.ReverseBytes64(at+off)
		}
		at = next
	}
}

// CacheSlabs finds all slabs of a cache, by name: SLUB keeps no list of those that are full, so the map of pages is searched.
func (p *Pages) CacheSlabs(name string) ([]SlabPage, error) {
	phys, ok := p.t.(kernel.PhysicalMemory)
	if !ok {
		return nil, fmt.Errorf("this kernel's memory cannot be gone over")
	}
	var cache uint64
	for c := range kernel.Global(p.t, p.errs, "struct list_head", "slab_caches").List("struct kmem_cache", "list") {
		if c.Get("name").String() == name {
			cache = c.Addr
		}
	}
	if cache == 0 {
		return nil, fmt.Errorf("no slab cache %s", name)
	}
	member := p.slab.Get("slab_cache").Addr
	var out []SlabPage
	for _, r := range phys.Memory() {
		for n := r.Start >> pageShift; n < r.End>>pageShift; {
			k := min(512-n%512, r.End>>pageShift-n) // as many as are in eight pages of the map
			b := make([]byte, k*p.size)
			if p.t.ReadVirt(b, p.Desc(n)) == nil {
				for i := range k {
					if binary.LittleEndian.Uint64(b[i*p.size+member:]) != cache {
						continue
					}
					if page, err := p.Page(n + i); err == nil && page.Type == "slab" && page.Head == page.Addr {
						out = append(out, p.slabAt(page.Addr))
					}
				}
			}
			n += k
		}
	}
	return out, p.errs.Take()
}
