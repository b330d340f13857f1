package walk

import (
	"fmt"

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
