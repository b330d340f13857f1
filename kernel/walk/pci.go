package walk

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/kernel"
)

// PCIDevice is a device on a PCI bus.
type PCIDevice struct {
	Addr           uint64 // of its struct pci_dev
	Domain, Bus    int
	Slot, Function int
	Class          uint64 // 24 bits: class, subclass, interface
	Vendor, Device uint64
	IRQ            int
	Driver         string // "" if none has it
	BARs           []BAR  // the windows that it has, by their registers; those that are not in use are empty
}

// BAR is a window of a device. The one behind the sixth is that of its ROM.
type BAR struct {
	Start, End uint64 // both belong to it
	IO         bool   // ports, not memory
}

// Kinds of windows (include/linux/ioport.h), and how many registers a device has for them (include/linux/pci.h: PCI_ROM_RESOURCE).
const (
	resourceIO  = 0x100
	resourceMem = 0x200
	pciBARs     = 7
)

// NewBAR is a window as the kernel describes it; an empty one if the device does not have it.
func NewBAR(start, end, flags uint64) BAR {
	if flags&(resourceIO|resourceMem) == 0 || start == 0 || end < start {
		return BAR{}
	}
	return BAR{start, end, flags&resourceIO != 0}
}

// ParseBARs reads a device's file "resource" in sysfs: a line "0x… 0x… 0x…" for each window, with begin, end and flags.
func ParseBARs(text string) (out []BAR) {
	for line := range strings.Lines(text) {
		w := strings.Fields(line)
		if len(w) != 3 || len(out) == pciBARs {
			break
		}
		var n [3]uint64
		for i := range w {
			var err error
			if n[i], err = strconv.ParseUint(w[i], 0, 64); err != nil {
				return out
			}
		}
		out = append(out, NewBAR(n[0], n[1], n[2]))
	}
	return out
}

// Window finds the window of memory that a physical address is in.
func (d PCIDevice) Window(at uint64) (n int, b BAR, ok bool) {
	for i, b := range d.BARs {
		if !b.IO && b.End != 0 && at >= b.Start && at <= b.End {
			return i, b, true
		}
	}
	return 0, BAR{}, false
}

// Name is the device's address as sysfs has it: 0000:00:03.0.
func (d PCIDevice) Name() string {
	return fmt.Sprintf("%04x:%02x:%02x.%x", d.Domain, d.Bus, d.Slot, d.Function)
}

// maxBuses bounds the tree of buses.
const maxBuses = 1 << 16

// PCIDevices reads the devices of all buses, each bus before those behind its bridges.
func PCIDevices(t kernel.Target) ([]PCIDevice, error) {
	errs := &kernel.Errors{}
	var out []PCIDevice
	buses := 0
	var down func(list kernel.Value)
	down = func(list kernel.Value) {
		for b := range list.List("struct pci_bus", "node") {
			if buses++; buses > maxBuses {
				return
			}
			domain := 0
			if sys := b.Get("sysdata").Uint(); sys != 0 {
				domain = kernel.Object(t, errs, "struct pci_sysdata", sys).Get("domain").Int()
			}
			for d := range b.Get("devices").List("struct pci_dev", "bus_list") {
				devfn := d.Get("devfn").Int()
				p := PCIDevice{Addr: d.Addr, Domain: domain, Bus: b.Get("number").Int(), Slot: devfn >> 3, Function: devfn & 7, Class: d.Get("class").Uint(),
					Vendor: d.Get("vendor").Uint(), Device: d.Get("device").Uint(), IRQ: d.Get("irq").Int()}
				if drv := d.Get("driver"); drv.Uint() != 0 {
					p.Driver = drv.Get("name").String()
				}
				res := d.Get("resource")
				for i := range min(pciBARs, d.Len("resource")) {
					r := res.At(i)
					p.BARs = append(p.BARs, NewBAR(r.Get("start").Uint(), r.Get("end").Uint(), r.Get("flags").Uint()))
				}
				out = append(out, p)
			}
			down(b.Get("children"))
		}
	}
	down(kernel.Global(t, errs, "struct list_head", "pci_root_buses"))
	if err := errs.Take(); err != nil {
		return out, fmt.Errorf("walk PCI devices: %w (%d reads failed)", err, errs.N)
	}
	return out, nil
}
