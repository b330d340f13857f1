package live

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/netstate"
	"github.com/fathom-trace/fathom/netstate/nic"
	"github.com/fathom-trace/fathom/netstate/rdma"
)

// NICs reads the devices of the namespace with what serves them, one or with name "" all. A device that is not there:
// errors.Is(err, fs.ErrNotExist). What a source did not say is in Device.Missing.
func (r *Reader) NICs(name string) ([]*nic.Device, error) {
	s := r.Read(Links | Sockets)
	var out []*nic.Device
	for i := range s.Links {
		if l := &s.Links[i]; name == "" || l.Name == name {
			out = append(out, &nic.Device{
				Name: l.Name, Index: l.Index, Kind: l.Kind, MAC: l.MAC, MTU: l.MTU, Up: l.Flags&unix.IFF_UP != 0, XDP: l.XDP, NUMA: -1,
			})
		}
	}
	if len(out) == 0 {
		if name == "" {
			for _, m := range s.Missing {
				return nil, errors.New(m.What + ": " + m.Err)
			}
			return nil, nil
		}
		return nil, &fs.PathError{Op: "find network device", Path: name, Err: fs.ErrNotExist}
	}
	r.Owners(s)
	n := nicReading{r: r, state: s}
	if err := n.interrupts(); err != nil {
		n.miss("/proc/interrupts", err)
	}
	if err := r.ns.Do(func() error { n.tree(out); return nil }); err != nil {
		return nil, err
	}
	for _, d := range out {
		n.netlinks(d)
		n.sockets(d)
		d.Missing = append(d.Missing, n.missing...)
		sorting.Stable(d.Queues, func(a, b nic.Queue) int { return cmp.Or(cmp.Compare(a.Dir, b.Dir), cmp.Compare(a.Index, b.Index)) })
	}
	return out, nil
}

// nicReading is one NICs on its way.
type nicReading struct {
	r       *Reader
	state   *netstate.State
	irqs    nic.Interrupts
	missing []nic.Missing // that concern all devices
	ids     map[string]uint16
	refused map[string]error
	strings map[uint32]string // features
}

func (n *nicReading) miss(what string, err error) {
	n.missing = append(n.missing, nic.Missing{What: what, Why: err.Error()})
}

func (n *nicReading) interrupts() error {
	b, err := os.ReadFile(filepath.Join(n.r.Proc, "interrupts"))
	n.irqs = nic.ParseInterrupts(string(b))
	return err
}

// tree reads what sysfs and ioctls say. It runs in the namespace.
func (n *nicReading) tree(devs []*nic.Device) {
	sys, err := sysfs()
	defer sys.close()
	if err != nil {
		n.miss("sysfs of the namespace (that at /sys was read)", err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		n.miss("ethtool by ioctl", err)
		fd = -1
	} else {
		defer unix.Close(fd)
	}
	for _, d := range devs {
		if fd >= 0 {
			if info, err := unix.IoctlGetEthtoolDrvinfo(fd, d.Name); err == nil {
				d.Driver, d.Version = cstring(info.Driver[:]), cstring(info.Version[:])
				d.Firmware, d.Bus = cstring(info.Fw_version[:]), cstring(info.Bus_info[:])
			}
			if ts, err := unix.IoctlGetEthtoolTsInfo(fd, d.Name); err == nil {
				n := int(ts.Phc_index)
				d.Clock = &n
			}
		}
		n.class(sys, d)
		n.function(sys, d)
		n.rdma(sys, d)
	}
}

func cstring(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return strings.TrimSpace(s)
}

// class reads /sys/class/net/DEV.
func (n *nicReading) class(sys sysTree, d *nic.Device) {
	const net = "class/net"
	if _, err := os.Stat(sys.path(net, d.Name)); err != nil {
		d.Missing = append(d.Missing, nic.Missing{What: "sysfs", Why: err.Error()})
		return
	}
	d.Polling = nic.Polling{DeferIRQs: sys.number(0, net, d.Name, "napi_defer_hard_irqs"), Threaded: sys.text(net, d.Name, "threaded") == "1"}
	d.Polling.GROTimeout, _ = strconv.ParseUint(sys.text(net, d.Name, "gro_flush_timeout"), 10, 64)
	for _, name := range sys.names(net, d.Name, "queues") {
		dir, num, _ := strings.Cut(name, "-")
		i, err := strconv.Atoi(num)
		if err != nil {
			continue
		}
		q := nic.Queue{Dir: nic.Dir(dir), Index: i, Sysfs: true}
		at := []string{net, d.Name, "queues", name}
		q.RPS, _ = nic.CPUList(sys.text(append(at, "rps_cpus")...))
		q.XPS, _ = nic.CPUList(sys.text(append(at, "xps_cpus")...))
		q.Flows = sys.number(0, append(at, "rps_flow_cnt")...)
		d.Queues = append(d.Queues, q)
	}
	if d.Driver == "" {
		d.Driver = filepath.Base(sys.real(net, d.Name, "device/driver"))
		if d.Driver == "." {
			d.Driver = ""
		}
	}
}

// function finds the PCI function behind a device and reads its interrupts.
func (n *nicReading) function(sys sysTree, d *nic.Device) {
	at := sys.real("class/net", d.Name, "device")
	for ; at != "" && at != "."; at = filepath.Dir(at) {
		if _, err := os.Stat(sys.path(at, "irq")); err == nil {
			break
		}
	}
	if at == "" || at == "." {
		return
	}
	if filepath.Base(sys.real(at, "subsystem")) == "pci" {
		d.PCI = filepath.Base(at)
	}
	d.NUMA = sys.number(-1, at, "numa_node")
	irqs := sys.names(at, "msi_irqs")
	for _, name := range irqs {
		if irq, err := strconv.Atoi(name); err == nil {
			d.Vectors = append(d.Vectors, n.vector(irq, sys.text(at, "msi_irqs", name)))
		}
	}
	if irq := sys.number(0, at, "irq"); len(d.Vectors) == 0 && irq > 0 {
		d.Vectors = append(d.Vectors, n.vector(irq, "intx"))
	}
	slices.SortFunc(d.Vectors, func(a, b nic.Vector) int { return cmp.Or(cmp.Compare(a.Index, b.Index), cmp.Compare(a.IRQ, b.IRQ)) })
}

// vector reads what /proc says of an interrupt.
func (n *nicReading) vector(irq int, mode string) nic.Vector {
	v := nic.Vector{Index: -1, IRQ: irq, Mode: mode}
	if row, ok := n.irqs.ByIRQ(irq); ok {
		v.Chip, v.Names, v.Counts = row.Chip, row.Names, row.Counts
		v.Index, v.PCI, _ = row.Message()
	}
	dir := filepath.Join(n.r.Proc, "irq", strconv.Itoa(irq))
	read := func(name string) string {
		s, _ := readShort(filepath.Join(dir, name))
		return s
	}
	v.Wanted, v.Effective = read("smp_affinity_list"), read("effective_affinity_list")
	v.Hint, _ = nic.CPUList(read("affinity_hint"))
	return v
}

// rdma finds the RDMA devices over a network device: those on the same function, and those in software whose parent it is.
func (n *nicReading) rdma(sys sysTree, d *nic.Device) {
	for _, r := range rdma.List(sys.root) {
		if r.On(d.Name, d.PCI) {
			d.RDMA = append(d.RDMA, r.Name)
		}
	}
}

// sockets puts AF_XDP sockets to their queues. They receive from a queue and send to the one of the same number.
func (n *nicReading) sockets(d *nic.Device) {
	for _, m := range n.state.Missing {
		if strings.Contains(m.What, "AF_XDP") {
			d.Missing = append(d.Missing, nic.Missing{What: m.What, Why: m.Err})
		}
	}
	for _, s := range n.state.Sockets {
		if s.XSK == nil || s.XSK.Link != d.Index {
			continue
		}
		for i := range d.Queues {
			if q := &d.Queues[i]; q.Index == s.XSK.Queue && q.Dir == nic.RX {
				q.XSK = append(q.XSK, nic.XSK{Inode: s.Inode, Owner: s.Owner})
			}
		}
	}
}

// netlinks asks the families "netdev" and "ethtool" of generic netlink.
func (n *nicReading) netlinks(d *nic.Device) {
	miss := func(what string, err error) {
		if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			d.Missing = append(d.Missing, nic.Missing{What: what, Why: err.Error()})
		}
	}
	err := n.ask("netdev", nic.NetdevRequest(nic.NetdevQueueGet, d.Index), netlink.Dump, func(b []byte) error {
		q, err := nic.DecodeQueue(b)
		if err != nil {
			return err
		}
		for i := range d.Queues {
			if have := &d.Queues[i]; have.Dir == q.Dir && have.Index == q.Index {
				have.NAPI, have.Net = q.NAPI, true
				return nil
			}
		}
		d.Queues = append(d.Queues, q)
		return nil
	})
	if err == nil {
		err = n.ask("netdev", nic.NetdevRequest(nic.NetdevNAPIGet, d.Index), netlink.Dump, func(b []byte) error {
			p, err := nic.DecodeNAPI(b)
			d.NAPIs = append(d.NAPIs, p)
			return err
		})
		slices.SortFunc(d.NAPIs, func(a, b nic.NAPI) int { return cmp.Compare(a.ID, b.ID) })
	}
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOENT) {
		err = errors.New("this kernel does not tell NAPI instances (Linux 6.8 does, by the family netdev of generic netlink)")
	}
	miss("netdev netlink", err)

	if n.strings == nil {
		miss("names of features", n.ask("ethtool", nic.EthtoolRequest(nic.EthtoolStrset, d.Index), 0, func(b []byte) (err error) {
			n.strings, err = nic.DecodeStrings(b)
			return err
		}))
	}
	miss("ethtool features", n.ask("ethtool", nic.EthtoolRequest(nic.EthtoolFeatures, d.Index), 0, func(b []byte) (err error) {
		d.Features, err = nic.DecodeFeatures(b, n.strings)
		return err
	}))
	miss("ethtool rings", n.ask("ethtool", nic.EthtoolRequest(nic.EthtoolRings, d.Index), 0, func(b []byte) (err error) {
		d.Rings, err = nic.DecodeRings(b)
		return err
	}))
	miss("ethtool channels", n.ask("ethtool", nic.EthtoolRequest(nic.EthtoolChannels, d.Index), 0, func(b []byte) (err error) {
		d.Channels, err = nic.DecodeChannels(b)
		return err
	}))
	miss("ethtool coalescing", n.ask("ethtool", nic.EthtoolRequest(nic.EthtoolCoalesce, d.Index), 0, func(b []byte) (err error) {
		d.Coalesce, err = nic.DecodeCoalesce(b)
		return err
	}))
}

// ask sends a request to a family of generic netlink and hands on the answers.
func (n *nicReading) ask(family string, body []byte, flags netlink.HeaderFlags, f func([]byte) error) error {
	c, err := n.r.conn(unix.NETLINK_GENERIC)
	if err != nil {
		return err
	}
	id, err := n.family(c, family)
	if err != nil {
		return err
	}
	msgs, err := execute(c, netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(id), Flags: netlink.Request | flags}, Data: body})
	if err != nil {
		n.r.forget(unix.NETLINK_GENERIC, err)
		return unwrap(err)
	}
	for _, m := range msgs {
		if m.Header.Type != netlink.HeaderType(id) {
			continue
		}
		if err := f(m.Data); err != nil {
			return err
		}
	}
	return nil
}

func execute(c *netlink.Conn, m netlink.Message) ([]netlink.Message, error) {
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		return nil, err
	}
	return c.Execute(m)
}

// family is the number of a family, which the kernel gives it when it is registered.
func (n *nicReading) family(c *netlink.Conn, name string) (uint16, error) {
	if id, ok := n.ids[name]; ok {
		return id, n.refused[name]
	}
	if n.ids == nil {
		n.ids, n.refused = map[string]uint16{}, map[string]error{}
	}
	msgs, err := execute(c, netlink.Message{Header: netlink.Header{Type: nic.CtrlFamily, Flags: netlink.Request}, Data: nic.FamilyRequest(name)})
	var id uint16
	if err == nil && len(msgs) > 0 {
		id, err = nic.Family(msgs[0].Data)
	}
	n.ids[name], n.refused[name] = id, unwrap(err)
	return id, unwrap(err)
}

// Registers reads what a driver dumps of a device's registers (ETHTOOL_GREGS), with the driver's name. A driver that dumps
// nothing: errors.Is(err, unix.EOPNOTSUPP).
func (r *Reader) Registers(dev string) (driver string, dump []byte, err error) {
	err = r.ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		info, err := unix.IoctlGetEthtoolDrvinfo(fd, dev)
		if err != nil {
			return err
		}
		driver = cstring(info.Driver[:])
		const get, header, most = 4, 12, 1 << 20 // ETHTOOL_GREGS, struct ethtool_regs
		n := int(min(info.Regdump_len, most))
		if n == 0 {
			return unix.EOPNOTSUPP
		}
		b := make([]byte, header+n)
		binary.NativeEndian.PutUint32(b, get)
		binary.NativeEndian.PutUint32(b[8:], uint32(n))
		if err := ethtoolIoctl(fd, dev, b); err != nil {
			return err
		}
		dump = b[header:][:min(n, int(binary.NativeEndian.Uint32(b[8:])))]
		return nil
	})
	if err != nil {
		return driver, nil, fmt.Errorf("dump registers of %s: %w", dev, err)
	}
	return driver, dump, nil
}
