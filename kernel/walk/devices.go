package walk

import (
	"cmp"
	"fmt"

	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/kernel"
)

// Device is a driver's claim to a range of device numbers.
type Device struct {
	Block bool
	Major int
	Name  string
	Addr  uint64
}

// majorBuckets is CHRDEV_MAJOR_HASH_SIZE and BLKDEV_MAJOR_HASH_SIZE.
const majorBuckets = 255

// maxDevices bounds a chain of claims.
const maxDevices = 1 << 12

// Devices reads who has which major numbers, character devices first, by number: what /proc/devices shows.
func Devices(t kernel.Target) ([]Device, error) {
	errs := &kernel.Errors{}
	var out []Device
	for _, table := range []struct {
		block     bool
		symbol, t string
	}{{false, "chrdevs", "struct char_device_struct *"}, {true, "major_names", "struct blk_major_name *"}} {
		head := kernel.Global(t, errs, table.t, table.symbol)
		n := 0
		for i := range majorBuckets {
			for d := head.Shift(head.Addr + 8*uint64(i)); d.Uint() != 0 && n < maxDevices; d = d.Get("next") {
				n++
				out = append(out, Device{Block: table.block, Major: d.Get("major").Int(), Name: d.Get("name").String(), Addr: d.Deref().Addr})
			}
		}
	}
	sorting.Stable(out, func(a, b Device) int {
		if a.Block != b.Block {
			if b.Block {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.Major, b.Major)
	})
	if err := errs.Take(); err != nil {
		return out, fmt.Errorf("walk device numbers: %w (%d reads failed)", err, errs.N)
	}
	return out, nil
}
