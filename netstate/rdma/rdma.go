// Package rdma tells which RDMA devices a machine has: their drivers, ports and addresses, and how much of each is in use.
//
// What a device is and who drives it comes over netlink (NETLINK_RDMA, drivers/infiniband/core/nldev.c), what its ports are from
// sysfs (/sys/class/infiniband). Nothing is changed. How to send through a device is package bypass/verbs.
package rdma

import (
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Device is an RDMA device.
type Device struct {
	Name   string `json:"name"`             // "rxe0"
	Driver string `json:"driver,omitempty"` // "rxe"; "" if the kernel did not say
	Verbs  string `json:"verbs,omitempty"`  // "uverbs0": the file in /dev/infiniband for programs; "" if there is none
	ABI    int    `json:"abi,omitempty"`    // version of what the driver and programs share
	Parent string `json:"parent,omitempty"` // the network device below a device in software
	PCI    string `json:"pci,omitempty"`    // the function of one in hardware
	Ports  []Port `json:"ports,omitempty"`
	Used   []Used `json:"used,omitempty"`
}

// Port is a port of a device. Ports count from 1.
type Port struct {
	Number int    `json:"port"`
	State  string `json:"state"` // "ACTIVE": the kernel's word
	Link   string `json:"link"`  // "Ethernet" or "InfiniBand"
	GIDs   []GID  `json:"gids,omitempty"`
}

// Where says what a device is on: "on eth0", or its PCI function; "" if sysfs does not say.
func (d *Device) Where() string {
	switch {
	case d.Parent != "":
		return "on " + d.Parent
	case d.PCI != "":
		return "PCI " + d.PCI
	}
	return ""
}

// Active says if the port takes part in its network.
func (p *Port) Active() bool { return p.State == "ACTIVE" }

// GID is an address of a port. Of one on Ethernet it is an IP address, IPv4 as ::ffff:10.0.0.1.
type GID struct {
	Index int        `json:"index"`
	Addr  netip.Addr `json:"gid"`
	Type  string     `json:"gid_type"` // "RoCE v2" goes over UDP
	Dev   string     `json:"dev,omitempty"`
}

// RoCE2 is the type of addresses whose packets are UDP.
const RoCE2 = "RoCE v2"

// Used says how many objects of a kind a device has now, of all processes and of the kernel.
type Used struct {
	What  string `json:"object"` // "qp", "cq", "mr", "pd", "ctx": the kernel's word
	Count uint64 `json:"count"`
}

// class is where sysfs has the devices.
const class = "class/infiniband"

// List gives the devices below a sysfs that is mounted at root, such as /sys, in the order of their names: what they are on, and the
// state of their ports. A machine without any has none; that is no error.
func List(root string) (out []Device) {
	entries, _ := os.ReadDir(filepath.Join(root, class)) // sorted
	for _, e := range entries {
		at := filepath.Join(root, class, e.Name())
		d := Device{Name: e.Name(), Parent: text(at, "parent"), Ports: ports(at)}
		// Links are read, not followed by name: root may be a mount that has no name.
		if bus, err := os.Readlink(filepath.Join(at, "device/subsystem")); err == nil && filepath.Base(bus) == "pci" {
			if to, err := os.Readlink(filepath.Join(at, "device")); err == nil {
				d.PCI = filepath.Base(to)
			}
		}
		out = append(out, d)
	}
	return out
}

// On says if a device is over a network device: it is the software's parent, or on the same function, whose PCI address is pci.
func (d *Device) On(netdev, pci string) bool {
	return netdev != "" && d.Parent == netdev || pci != "" && d.PCI == pci
}

// Read gives the devices of this network namespace with their addresses, drivers, and what is in use of them. What netlink does not say
// is left out, and why is the error: the devices are there.
func Read() ([]Device, error) {
	out := List(sysfs)
	for i := range out {
		for j := range out[i].Ports {
			out[i].Ports[j].GIDs = Addresses(out[i].Name, out[i].Ports[j].Number)
		}
	}
	if len(out) == 0 {
		return nil, nil
	}
	return out, details(out)
}

// sysfs is where it is mounted.
const sysfs = "/sys"

// ports reads the ports of a device at a path of sysfs.
func ports(at string) (out []Port) {
	entries, _ := os.ReadDir(filepath.Join(at, "ports"))
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		dir := filepath.Join(at, "ports", e.Name())
		_, state, _ := strings.Cut(text(dir, "state"), ": ")
		out = append(out, Port{Number: n, State: state, Link: text(dir, "link_layer")})
	}
	return out
}

// mostEmpty is after how many empty places in a row the rest of a table is not read. The kernel takes the first empty place for an
// address (ib_cache_gid_add, drivers/infiniband/core/cache.c), and a table has a thousand.
const mostEmpty = 64

// gids reads the addresses of a port at a path of sysfs.
func gids(dir string) (out []GID) {
	for i, empty := 0, 0; empty < mostEmpty; i++ {
		num := strconv.Itoa(i)
		b, err := os.ReadFile(filepath.Join(dir, "gids", num))
		if err != nil {
			return out
		}
		empty++
		if a, ok := parseGID(strings.TrimSpace(string(b))); ok && !a.IsUnspecified() {
			out = append(out, GID{i, a, text(dir, "gid_attrs/types", num), text(dir, "gid_attrs/ndevs", num)})
			empty = 0
		}
	}
	return out
}

// parseGID reads a GID as sysfs writes it: eight groups of four digits, as an IPv6 address with nothing left out.
func parseGID(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is6() || a.Zone() != "" {
		return netip.Addr{}, false
	}
	return a, true
}

// text reads a short file; "" if it is not there or has nothing to say.
func text(parts ...string) string {
	b, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// Addresses gives those of a device's port as they are now, in the order of their indices.
func Addresses(device string, port int) []GID {
	return gids(filepath.Join(sysfs, class, device, "ports", strconv.Itoa(port)))
}
