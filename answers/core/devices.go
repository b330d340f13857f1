package core

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/fathom-trace/fathom/kernel/walk"
)

// dev prints who has which major numbers; -d disks with the requests they are at, -i I/O ports, -p PCI devices.
func (s *Session) dev(w io.Writer, args []string) error {
	o, err := parse(args, "dDip", "")
	switch {
	case err != nil:
		return err
	case len(o.rest) > 0 || len(o.on) > 1:
		return &Usage{}
	case o.on['d'], o.on['D']:
		return s.disks(w, o.on['D'])
	case o.on['i']:
		all, err := walk.Ports(s.t)
		for _, r := range all {
			fmt.Fprintf(w, "%s%04x-%04x : %s\n", strings.Repeat("  ", r.Depth), r.Start, r.End, r.Name)
		}
		return err
	case o.on['p']:
		return s.pci(w)
	}
	devs, err := walk.Devices(s.t)
	fmt.Fprintf(w, "%-5s %5s  %-16s %s\n", "KIND", "MAJOR", "CLAIM", "NAME")
	for _, d := range devs {
		kind := "char"
		if d.Block {
			kind = "block"
		}
		fmt.Fprintf(w, "%-5s %5d  %016x %s\n", kind, d.Major, d.Addr, d.Name)
	}
	return err
}

// disks prints the disks with the requests that are in flight; busy leaves out those that have none.
func (s *Session) disks(w io.Writer, busy bool) error {
	disks, err := walk.Disks(s.t)
	fmt.Fprintf(w, "%7s %-16s %-10s %-16s %6s %6s %6s\n", "MAJOR", "GENDISK", "NAME", "REQUEST_QUEUE", "TOTAL", "READ", "WRITE")
	for _, d := range disks {
		if busy && len(d.Requests)+len(d.Waiting) == 0 {
			continue
		}
		writes := 0
		for _, r := range d.Requests {
			if r.Write {
				writes++
			}
		}
		fmt.Fprintf(w, "%7d %016x %-10s %016x %6d %6d %6d\n", d.Major, d.Addr, d.Name, d.Queue, len(d.Requests), len(d.Requests)-writes, writes)
		for _, r := range d.Requests {
			state := "in flight"
			if r.Done {
				state = "answered"
			}
			s.request(w, r, state)
		}
		for _, r := range d.Waiting {
			s.request(w, r, "waits for the driver")
		}
	}
	return err
}

func (s *Session) request(w io.Writer, r walk.Request, state string) {
	age := ""
	if r.Age > 0 {
		age = ", made " + r.Age.Round(time.Millisecond).String() + " ago"
	}
	fmt.Fprintf(w, "        request %016x tag %d: %s of %d bytes at sector %d, %s%s\n", r.Addr, r.Tag, r.Op, r.Bytes, r.Sector, state, age)
}

func (s *Session) pci(w io.Writer) error {
	all, err := walk.PCIDevices(s.t)
	fmt.Fprintf(w, "%-16s %-12s %-6s %-9s %4s  %s\n", "PCI_DEV", "ADDRESS", "CLASS", "ID", "IRQ", "DRIVER")
	for _, d := range all {
		fmt.Fprintf(w, "%016x %-12s %06x %04x:%04x %4d  %s\n", d.Addr, d.Name(), d.Class, d.Vendor, d.Device, d.IRQ, d.Driver)
	}
	return err
}

// irq prints the interrupts, or those of the numbers given: -u only those that somebody handles, -a which CPUs they may go to,
// -s their counts; -b the softirqs.
func (s *Session) irq(w io.Writer, args []string) error {
	o, err := parse(args, "usab", "")
	switch {
	case err != nil:
		return err
	case o.on['b'] && len(o.on)+len(o.rest) > 1, o.on['a'] && o.on['s']:
		return &Usage{}
	case o.on['b']:
		return s.softirqs(w)
	}
	irqs, err := walk.IRQs(s.t)
	head := fmt.Sprintf("%-16s %-16s %-24s %s", "IRQ_DESC", "CHIP", "COUNT BY CPU", "HANDLERS")
	switch {
	case o.on['a']:
		head = "AFFINITY"
	case o.on['s']:
		head = fmt.Sprintf("%12s  %s", "COUNT", "BY CPU, CHIP, HANDLERS")
	}
	fmt.Fprintf(w, "%4s %s\n", "IRQ", head)
	shown := 0
	for _, q := range irqs {
		if !chosen(o.rest, q.Number) || (o.on['u'] || o.on['s'] || o.on['a']) && len(q.Actions) == 0 {
			continue
		}
		shown++
		by, handlers := strings.Trim(fmt.Sprint(q.Counts), "[]"), strings.Join(q.Actions, ", ")
		switch {
		case o.on['a']:
			fmt.Fprintf(w, "%4d %s  %s\n", q.Number, list(q.Affinity), handlers)
		case o.on['s']:
			sum := uint64(0)
			for _, n := range q.Counts {
				sum += n
			}
			fmt.Fprintf(w, "%4d %12d  %s  %s  %s\n", q.Number, sum, by, q.Chip, handlers)
		default:
			if len(q.Actions) == 0 {
				handlers = "(unused)"
			}
			fmt.Fprintf(w, "%4d %016x %-16s %-24s %s\n", q.Number, q.Addr, q.Chip, by, handlers)
		}
	}
	if shown == 0 && err == nil {
		return errors.New("no such interrupt is in use")
	}
	return err
}

// chosen says that a number is among those named, or that none is.
func chosen(args []string, n int) bool {
	for _, a := range args {
		if a == strconv.Itoa(n) {
			return true
		}
	}
	return len(args) == 0
}

// list writes numbers as the kernel's lists of CPUs are: 0-3,5.
func list(n []int) string {
	var out []string
	for i := 0; i < len(n); {
		j := i
		for j+1 < len(n) && n[j+1] == n[j]+1 {
			j++
		}
		if i == j {
			out = append(out, strconv.Itoa(n[i]))
		} else {
			out = append(out, fmt.Sprintf("%d-%d", n[i], n[j]))
		}
		i = j + 1
	}
	return strings.Join(out, ",")
}

// net prints network devices: those of init's namespace, or of a task's (-n); -s sockets with their queues, all or those that a
// task has open.
func (s *Session) net(w io.Writer, args []string) error {
	o, err := parse(args, "nsa", "")
	switch {
	case err != nil:
		return err
	case len(o.on) > 1, len(o.rest) > 0 && (len(o.on) == 0 || o.on['a']):
		return &Usage{}
	case o.on['a']:
		return s.neighbours(w)
	case o.on['s'] && len(o.rest) > 0:
		return s.each(w, o.rest, s.taskSockets)
	case o.on['s']:
		return s.sockets(w)
	case o.on['n']:
		return s.each(w, o.rest, func(w io.Writer, t walk.Task) error {
			ns, devs, err := walk.NetDevicesOf(t)
			if ns != 0 {
				fmt.Fprintf(w, "NET NAMESPACE: %016x\n", ns)
				netDevices(w, devs)
			}
			return err
		})
	}
	devs, err := walk.NetDevices(s.t)
	netDevices(w, devs)
	return err
}

func netDevices(w io.Writer, devs []walk.NetDevice) {
	fmt.Fprintf(w, "%-16s %5s %-16s %6s %-5s %s\n", "NET_DEVICE", "INDEX", "NAME", "MTU", "STATE", "IP ADDRESSES")
	for _, d := range devs {
		state := "down"
		if d.Up() {
			state = "up"
		}
		var ips []string
		for _, a := range d.IPv4 {
			ips = append(ips, a.String())
		}
		if len(d.Stopped) > 0 {
			ips = append(ips, fmt.Sprintf("queues stopped: %v of %d", d.Stopped, d.Queues))
		}
		fmt.Fprintf(w, "%016x %5d %-16s %6d %-5s %s\n", d.Addr, d.Index, d.Name, d.MTU, state, strings.Join(ips, " "))
	}
}

// neighbourStates are the bits of NUD_* (include/uapi/linux/neighbour.h).
var neighbourStates = []string{"INCOMPLETE", "REACHABLE", "STALE", "DELAY", "PROBE", "FAILED", "NOARP", "PERMANENT"}

// neighbours prints the tables of neighbours.
func (s *Session) neighbours(w io.Writer) error {
	all, err := walk.Neighbours(s.t)
	fmt.Fprintf(w, "%-16s %-40s %-8s %-20s %-15s %s\n", "NEIGHBOUR", "IP ADDRESS", "HW TYPE", "HW ADDRESS", "DEVICE", "STATE")
	for _, n := range all {
		hw, states := fmt.Sprint(n.HWType), []string{}
		switch n.HWType { // ARPHRD_* (include/uapi/linux/if_arp.h)
		case 1:
			hw = "ETHER"
		case 772:
			hw = "LOOPBACK"
		}
		for i, name := range neighbourStates {
			if n.State>>i&1 != 0 {
				states = append(states, name)
			}
		}
		fmt.Fprintf(w, "%016x %-40s %-8s %-20s %-15s %s\n", n.Addr, n.IP, hw, strings.ReplaceAll(fmt.Sprintf("% x", n.HW), " ", ":"), n.Device, strings.Join(states, ","))
	}
	return err
}

// bpf prints programs and maps of BPF.
func (s *Session) bpf(w io.Writer, args []string) error {
	if err := none(args); err != nil {
		return err
	}
	all, err := walk.BPF(s.t)
	fmt.Fprintf(w, "%-4s %5s %-16s %-24s %-16s %s\n", "KIND", "ID", "ADDRESS", "TYPE", "NAME", "SIZE")
	for _, b := range all {
		kind, size := "prog", fmt.Sprintf("%d instructions", b.Instructions)
		if b.Map {
			kind, size = "map", fmt.Sprintf("%d entries of %d and %d bytes", b.MaxEntries, b.Key, b.Value)
		}
		fmt.Fprintf(w, "%-4s %5d %016x %-24s %-16s %s\n", kind, b.ID, b.Addr, b.Type, b.Name, size)
	}
	return err
}
