package walk

import (
	"fmt"

	"github.com/fathom-trace/fathom/kernel"
)

// SwapArea is a device or file that memory is swapped to.
type SwapArea struct {
	Addr     uint64
	Path     string
	File     bool // a regular file, not a device
	Pages    uint64
	Used     uint64
	Priority int
}

// Flags of swap_info_struct (include/linux/swap.h).
const (
	swpUsed     = 1 << 0
	swpWriteOK  = 1 << 1
	swpBlockDev = 1 << 6
)

// maxSwapAreas is MAX_SWAPFILES without the kinds of entries that are none.
const maxSwapAreas = 32

// Swaps reads the swap areas in use: what /proc/swaps shows.
func Swaps(t kernel.Target) ([]SwapArea, error) {
	errs := &kernel.Errors{}
	n := kernel.Global(t, errs, "unsigned int", "nr_swapfiles").Int()
	area := kernel.Global(t, errs, "struct swap_info_struct *", "swap_info")
	var out []SwapArea
	for i := range min(n, maxSwapAreas) {
		p := area.Shift(area.Addr + 8*uint64(i))
		if p.Uint() == 0 || p.Get("flags").Uint()&swpUsed == 0 || p.Get("flags").Uint()&swpWriteOK == 0 {
			continue
		}
		s := SwapArea{Addr: p.Uint(), File: p.Get("flags").Uint()&swpBlockDev == 0, Pages: p.Get("pages").Uint(), Priority: int(int16(p.Get("prio").Uint()))}
		used := p.Get("inuse_pages")
		if used.Has("counter") { // atomic_long_t since 6.7
			used = used.Get("counter")
		}
		s.Used = used.Uint() & (1<<40 - 1) // the highest bits are marks of the list of areas with room (since 6.13)
		if f := p.Get("swap_file"); f.Uint() != 0 {
			s.Path = Path(f.Get("f_path"))
		}
		out = append(out, s)
	}
	if err := errs.Take(); err != nil {
		return out, fmt.Errorf("walk swap areas: %w (%d reads failed)", err, errs.N)
	}
	return out, nil
}
