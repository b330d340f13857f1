package nic

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/ir/emit"
	"github.com/fathom-trace/fathom/netstate/nic"
	"github.com/fathom-trace/fathom/probe"
)

// A driver maps memory for its device before the device reads or writes it (Documentation/core-api/dma-api-howto.rst). A device that
// cannot reach the memory has it copied through the swiotlb, a pool that it can reach; where that is full the mapping fails.

// Value of the map of devices, in bytes; the key is the address of struct device.
const (
	dmMapped  = 0 // mappings,
	dmBytes   = 8
	dmFailed  = 16 // those that gave no address,
	dmBounced = 24 // those that went to the swiotlb, whether it had room or not,
	dmCopied  = 32 // and their bytes
	dmMask    = 40 // what the device can reach
	dmName    = 48
	dmDriver  = dmName + dmNameSize
	dmSize    = dmDriver + dmNameSize

	dmNameSize = 32
	dmDevices  = 256
)

// DMAUse is what a device had mapped.
type DMAUse struct {
	Name, Driver    string // "0000:00:04.0", "e1000e"
	Mask            uint64
	Mapped, Bytes   uint64
	Failed          uint64
	Bounced, Copied uint64
}

// DMA counts what devices have mapped. It belongs to the caller, who must Close it; one goroutine may use it.
type DMA struct {
	c       *dmaCode
	sess    *probe.Session
	missing []nic.Missing
}

// dmaCode writes its programs.
type dmaCode struct {
	*code
	devs                                       *ir.Map
	devMask, devDriver, initName, name, driver int
}

// OpenDMA loads and attaches the programs; counting begins.
func OpenDMA(w *probe.World, cpus int) (*DMA, error) {
	base, err := newCode(w, emit.Options{CPUs: cpus}, 1)
	if err != nil {
		return nil, err
	}
	f := &finder{types: w.Types()}
	c := &dmaCode{code: base, devMask: f.at("device", "dma_mask"), devDriver: f.at("device", "driver"), initName: f.at("device", "init_name"),
		name: f.at("device", "kobj", "name"), driver: f.at("device_driver", "name")}
	if f.err != nil {
		return nil, f.err
	}
	c.devs = c.p.Map(ir.Map{Name: ".devices", Kind: ir.Hash, KeySize: 8, ValueSize: dmSize, MaxEntries: dmDevices})
	d := &DMA{c: c}
	d.write()
	d.sess, err = c.load()
	return d, err
}

// write writes the programs that this kernel has tracepoints for.
func (d *DMA) write() {
	c := d.c
	if !c.at("swiotlb_bounced", []string{"dev", "size"}, func(u *unit) { c.count(u, dmBounced, dmCopied, u.arg("size")) }) {
		d.miss("what is copied through the swiotlb", "the kernel has no tracepoint swiotlb_bounced")
	}
	one := func(u *unit) {
		u.If(ir.Eq, u.Add(u.arg("dma_addr"), 1), ir.Imm(0), func() { c.count(u, dmFailed, -1, ir.Imm(0)) }, // DMA_MAPPING_ERROR
			func() { c.count(u, dmMapped, dmBytes, u.arg("size")) })
	}
	args := []string{"dev", "dma_addr", "size"}
	if !c.at("dma_map_page", args, one) && !c.at("dma_map_phys", args, one) { // since 6.18
		d.miss("mappings for DMA, and which of them failed", "the kernel has no tracepoint dma_map_page (Linux 6.12 has)")
		return
	}
	c.at("dma_map_sg", []string{"dev"}, func(u *unit) { c.count(u, dmMapped, -1, ir.Imm(0)) })
	c.at("dma_map_sg_err", []string{"dev"}, func(u *unit) { c.count(u, dmFailed, -1, ir.Imm(0)) }) // since 6.13
}

func (d *DMA) miss(what, why string) {
	d.missing = append(d.missing, nic.Missing{What: what, Why: why})
}

// count adds one to a word of the device's, and to another a size, unless that is below 0.
func (c *dmaCode) count(u *unit, word, sum int, size ir.Val) {
	dev, n := u.Var(u.arg("dev")), u.Var(size)
	add := func(m emit.Mem) {
		u.AtomicAdd(m.At(word), 8, ir.Imm(1))
		if sum >= 0 {
			u.AtomicAdd(m.At(sum), 8, n)
		}
	}
	k := key(u, "device", 8, dev)
	u.Lookup(c.devs, k, add, func() {
		v := u.Slot("use", dmSize)
		u.Zero(v, dmSize)
		u.Store(v.At(dmMask), 8, u.Int(u.Int(dev, c.devMask, 8, false), 0, 8, false))
		name := u.Var(u.Int(dev, c.initName, 8, false))
		u.If(ir.Eq, name, ir.Imm(0), func() { u.Set(name, u.Int(dev, c.name, 8, false)) }, nil)
		u.Call(ir.FnProbeReadKernelStr, u.Addr(v.At(dmName)), ir.Imm(dmNameSize), name)
		driver := u.Int(u.Int(dev, c.devDriver, 8, false), c.driver, 8, false)
		u.Call(ir.FnProbeReadKernelStr, u.Addr(v.At(dmDriver)), ir.Imm(dmNameSize), driver)
		u.Update(c.devs, k, v)
		u.Lookup(c.devs, k, add, nil)
	})
}

// Missing says what this kernel does not tell.
func (d *DMA) Missing() []nic.Missing { return d.missing }

// Read gives what was counted so far, by the devices' names.
func (d *DMA) Read() (out []DMAUse, err error) {
	es, err := d.sess.Entries(d.c.devs)
	for _, e := range es {
		b := e.Values[0]
		word := func(off int) uint64 { return binary.LittleEndian.Uint64(b[off:]) }
		text := func(off int) string {
			s, _, _ := bytes.Cut(b[off:off+dmNameSize], []byte{0})
			return string(s)
		}
		out = append(out, DMAUse{Name: text(dmName), Driver: text(dmDriver), Mask: word(dmMask), Mapped: word(dmMapped), Bytes: word(dmBytes),
			Failed: word(dmFailed), Bounced: word(dmBounced), Copied: word(dmCopied)})
	}
	slices.SortFunc(out, func(a, b DMAUse) int { return strings.Compare(a.Name, b.Name) })
	return out, err
}

// Close ends it.
func (d *DMA) Close() error { return d.sess.Close() }

// JudgeDMA judges the mappings of devices: of each that devs has a row, if it maps at all, and of any other one if that goes wrong.
func JudgeDMA(uses []DMAUse, b *nic.Sample, devs []*Map) (out []Check) {
	for _, u := range uses {
		c := Check{Stage: "DMA", Dev: u.Name, Light: Green}
		i := slices.IndexFunc(devs, func(m *Map) bool { return m.PCI == u.Name })
		if i >= 0 {
			c.Dev = devs[i].Name
		} else if u.Failed+u.Bounced == 0 {
			continue
		}
		for _, x := range []Counter{{"mapped", u.Mapped, 0}, {"bytes", u.Bytes, 0}, {"failed", u.Failed, 0}, {"copied", u.Bounced, 0}, {"copied_bytes", u.Copied, 0}} {
			if x.Delta > 0 || x.Name == "mapped" {
				c.Counters = append(c.Counters, x)
			}
		}
		c.bounced(u, b.Bounce)
		c.failed(u, b.Bounce)
		out = append(out, c)
	}
	if n := b.DMAErrors; n != nil && *n > 0 {
		c := Check{Stage: "DMA", Light: Yellow, Counters: []Counter{{"dma-api errors", 0, *n}}}
		c.say("drivers have broken the rules of the DMA API %d times: the kernel's log has each, with its stack (DMA-API:)", *n)
		c.turn("dmesg | grep -A20 DMA-API; fathom explain --dmesg")
		out = append(out, c)
	}
	return out
}

// slotSize is what the swiotlb is divided into (IO_TLB_SIZE).
const slotSize = 2048

func (c *Check) bounced(u DMAUse, pool *nic.Bounce) {
	if u.Bounced == 0 {
		return
	}
	c.worse(Yellow)
	why := "memory is encrypted, the device is not trusted, or swiotlb=force is set"
	if u.Mask != ^uint64(0) && u.Mask != 0 {
		why = fmt.Sprintf("its driver says that it reaches addresses up to %#x only; or %s", u.Mask, why)
	}
	c.say("%d mappings of %s (%s), %d bytes, went through the swiotlb, where packets are copied once more: %s", u.Bounced, u.Name, u.Driver, u.Copied, why)
	if pool == nil {
		c.say("how full that is /sys/kernel/debug/swiotlb says, to root, where debugfs is mounted")
		return
	}
	c.Limits = append(c.Limits, Limit{"io_tlb_nslabs", int(pool.Slots)}, Limit{"io_tlb_used", int(pool.Used)})
	if pool.Most > 0 {
		c.Limits = append(c.Limits, Limit{"io_tlb_used_hiwater", int(pool.Most)})
	}
	c.turn("tr ' ' '\\n' < /proc/cmdline | grep swiotlb; a device that reaches all memory, or an IOMMU, needs no copies")
}

func (c *Check) failed(u DMAUse, pool *nic.Bounce) {
	if u.Failed == 0 {
		return
	}
	c.worse(Red)
	c.say("%d of %d mappings of %s (%s) failed: its driver has no address to give to the device, so packets are not sent, or the ring is not filled again",
		u.Failed, u.Mapped+u.Failed, u.Name, u.Driver)
	if u.Bounced > 0 {
		slots := uint64(65536)
		if pool != nil {
			slots = 2 * pool.Slots
			c.say("the swiotlb had no room: %d of its %d slots of %d bytes are used now", pool.Used, pool.Slots, slotSize)
		} else {
			c.say("the swiotlb had no room")
		}
		c.turn("boot with swiotlb=%d (slots of %d bytes), or smaller rings: ethtool -G", slots, slotSize)
	} else {
		c.turn("dmesg: an IOMMU that has no addresses left, or refuses them, says so there")
	}
}
