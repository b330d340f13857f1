package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/answers/core"
	"github.com/fathom-trace/fathom/kernel/walk"
)

// physicalOf says what a physical address of the kernel that runs belongs to, out of files: where its memory is not shown.
func physicalOf(w io.Writer, proc, sys string, at uint64) error {
	text, err := os.ReadFile(filepath.Join(proc, "iomem"))
	if err != nil {
		return err
	}
	all := walk.ParseIomem(string(text))
	if hidden(all) {
		return fmt.Errorf("read %s: %w: it shows addresses to root only", filepath.Join(proc, "iomem"), fs.ErrPermission)
	}
	devices, netdevs := pciDevices(filepath.Join(sys, "bus/pci/devices"))
	fmt.Fprintf(w, "physical %#x\n", at)
	core.Belongs(w, all, devices, at)
	for _, d := range devices {
		if _, _, ok := d.Window(at); ok && len(netdevs[d.Name()]) > 0 {
			fmt.Fprintf(w, "  network   %s\n", strings.Join(netdevs[d.Name()], " "))
		}
	}
	return nil
}

// hidden says if the kernel wrote zeros for addresses.
func hidden(all []walk.Resource) bool {
	for _, r := range all {
		if r.End != 0 {
			return false
		}
	}
	return len(all) > 0
}

// pciDevices reads the devices that sysfs has, and the network devices of each. What cannot be read is left out.
func pciDevices(dir string) (out []walk.PCIDevice, netdevs map[string][]string) {
	netdevs = map[string][]string{}
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		var d walk.PCIDevice
		at := filepath.Join(dir, e.Name())
		if n, err := fmt.Sscanf(e.Name(), "%x:%x:%x.%x", &d.Domain, &d.Bus, &d.Slot, &d.Function); n != 4 || err != nil {
			continue
		}
		number := func(name string) uint64 {
			b, _ := os.ReadFile(filepath.Join(at, name))
			n, _ := strconv.ParseUint(strings.TrimSpace(string(b)), 0, 64)
			return n
		}
		d.Vendor, d.Device, d.Class, d.IRQ = number("vendor"), number("device"), number("class"), int(number("irq"))
		if link, err := os.Readlink(filepath.Join(at, "driver")); err == nil {
			d.Driver = filepath.Base(link)
		}
		text, _ := os.ReadFile(filepath.Join(at, "resource"))
		d.BARs = walk.ParseBARs(string(text))
		out = append(out, d)
		for _, pattern := range []string{"net/*", "virtio*/net/*"} {
			devs, _ := filepath.Glob(filepath.Join(at, pattern)) // the pattern is well-formed
			for _, n := range devs {
				netdevs[d.Name()] = append(netdevs[d.Name()], filepath.Base(n))
			}
		}
	}
	return out, netdevs
}

// plainAddress says if arguments are an address and no file: 0x… . The kernel's own addresses begin with ones; one below them is
// taken to be physical.
func plainAddress(args []string) (physical, ok bool) {
	if len(args) != 1 {
		return false, false
	}
	hex, found := strings.CutPrefix(strings.ToLower(args[0]), "0x")
	at, err := strconv.ParseUint(hex, 16, 64)
	if !found || err != nil {
		return false, false
	}
	_, err = os.Stat(args[0])
	return at>>63 == 0, errors.Is(err, fs.ErrNotExist)
}
