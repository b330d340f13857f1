// Package nic is what the machine knows of a network device's way from its interrupts to its queues, as plain data: message
// signalled interrupts, NAPI instances, queues, their CPUs, the driver's settings; and the texts and netlink messages that say
// so, decoded. It reads nothing itself: netstate/live does.
//
// Layouts are those of include/uapi/linux/{netdev,ethtool,ethtool_netlink,genetlink}.h, kernel/irq/proc.c and
// net/core/net-procfs.c.
package nic

import "github.com/fathom-trace/fathom/netstate"

// Device is a network device with all that serves it.
type Device struct {
	Name     string          `json:"dev"`
	Index    int             `json:"index"`
	Kind     string          `json:"kind,omitempty"` // "veth", …; "" for hardware
	MAC      string          `json:"mac,omitempty"`
	MTU      int             `json:"mtu"`
	Up       bool            `json:"up"`
	Driver   string          `json:"driver,omitempty"`
	Version  string          `json:"driver_version,omitempty"`
	Firmware string          `json:"firmware,omitempty"`
	Bus      string          `json:"bus,omitempty"`   // what the driver says it is on: "0000:00:03.0", "virtio2"
	PCI      string          `json:"pci,omitempty"`   // the PCI function with the interrupts, by sysfs
	NUMA     int             `json:"numa"`            // -1 if there is none
	Clock    *int            `json:"clock,omitempty"` // N of the hardware clock /dev/ptpN, -1 if the device has none; nil if that is not said
	RDMA     []string        `json:"rdma,omitempty"`
	XDP      []netstate.Prog `json:"xdp,omitempty"`
	Vectors  []Vector        `json:"vectors,omitempty"`
	NAPIs    []NAPI          `json:"napis,omitempty"`
	Queues   []Queue         `json:"queues,omitempty"`
	Channels *Channels       `json:"channels,omitempty"`
	Rings    *Rings          `json:"rings,omitempty"`
	Coalesce []Setting       `json:"coalesce,omitempty"`
	Features []Feature       `json:"features,omitempty"`
	Polling  Polling         `json:"polling"`
	Missing  []Missing       `json:"missing,omitempty"`
}

// Missing is a source that could not be asked, and why.
type Missing struct {
	What string `json:"what"`
	Why  string `json:"why"`
}

// Vector is an interrupt of a device.
type Vector struct {
	Index     int      `json:"vector"`            // in the device's table of messages; -1 if the kernel does not say
	IRQ       int      `json:"irq"`               // Linux's number
	Mode      string   `json:"mode"`              // "msix", "msi", "intx"
	Chip      string   `json:"chip,omitempty"`    // the controller in /proc/interrupts
	PCI       string   `json:"pci,omitempty"`     // the function that /proc/interrupts says it is of
	Names     []string `json:"names,omitempty"`   // of the handlers; none if nobody has asked for it
	Wanted    string   `json:"wanted,omitempty"`  // list of CPUs: smp_affinity_list
	Effective string   `json:"effective"`         // effective_affinity_list; "" if the kernel does not say
	Hint      string   `json:"hint,omitempty"`    // affinity_hint, as a list of CPUs; "" if the driver gives none
	Counts    []uint64 `json:"counts,omitempty"`  // for each CPU of Interrupts.CPUs
	Managed   bool     `json:"managed,omitempty"` // the kernel spreads it, and lets nobody change that
}

// Total is how many interrupts came.
func (v *Vector) Total() (n uint64) {
	for _, c := range v.Counts {
		n += c
	}
	return n
}

// NAPI is an instance of the kernel's polling.
type NAPI struct {
	ID         uint32  `json:"id"`
	IRQ        int     `json:"irq,omitempty"` // 0 if the driver does not say
	PID        int     `json:"pid,omitempty"` // of its thread, if it has one
	DeferIRQs  *uint32 `json:"defer_hard_irqs,omitempty"`
	GROTimeout *uint64 `json:"gro_flush_timeout_ns,omitempty"`
}

// Dir is the direction of a queue.
type Dir string

// Directions.
const (
	RX Dir = "rx"
	TX Dir = "tx"
)

// Queue is a queue of a device.
type Queue struct {
	Dir   Dir    `json:"dir"`
	Index int    `json:"queue"`
	NAPI  uint32 `json:"napi,omitempty"` // by netdev netlink; 0 if not told
	RPS   string `json:"rps,omitempty"`  // CPUs that packets are handed to, a list; "" if to none
	Flows int    `json:"rps_flows,omitempty"`
	XPS   string `json:"xps,omitempty"` // CPUs that send here, a list; "" if XPS does not decide
	XSK   []XSK  `json:"xsk,omitempty"`
	Net   bool   `json:"netlink"` // netdev netlink lists it, too
	Sysfs bool   `json:"sysfs"`
}

// XSK is an AF_XDP socket bound to a queue.
type XSK struct {
	Inode uint64 `json:"inode"`
	Owner string `json:"owner,omitempty"` // "comm[pid]"
}

// Channels are the counts of queues that ethtool -l shows.
type Channels struct {
	RX          uint32 `json:"rx"`
	TX          uint32 `json:"tx"`
	Other       uint32 `json:"other"`
	Combined    uint32 `json:"combined"`
	MaxRX       uint32 `json:"rx_max"`
	MaxTX       uint32 `json:"tx_max"`
	MaxOther    uint32 `json:"other_max"`
	MaxCombined uint32 `json:"combined_max"`
}

// Rings are the sizes of rings that ethtool -g shows, in descriptors.
type Rings struct {
	RX    uint32 `json:"rx"`
	TX    uint32 `json:"tx"`
	MaxRX uint32 `json:"rx_max"`
	MaxTX uint32 `json:"tx_max"`
}

// Setting is a number with a name.
type Setting struct {
	Name  string `json:"name"`
	Value uint32 `json:"value"`
}

// Feature is what ethtool -k shows.
type Feature struct {
	Name  string `json:"name"`
	On    bool   `json:"on"`
	Fixed bool   `json:"fixed,omitempty"` // cannot be changed
}

// Polling is how a device's NAPI instances are made to poll.
type Polling struct {
	DeferIRQs  int    `json:"defer_hard_irqs"`      // polls without a packet before interrupts are enabled again
	GROTimeout uint64 `json:"gro_flush_timeout_ns"` // time until the next of those polls
	Threaded   bool   `json:"threaded"`
}
