package walk

import (
	"fmt"
	"net/netip"

	"github.com/fathom-trace/fathom/kernel"
)

// NetDevice is a network device of init's network namespace.
type NetDevice struct {
	Addr    uint64
	Index   int
	Name    string
	MTU     int
	Flags   uint64
	HW      []byte
	State   int // IF_OPER_*
	Queues  int // for sending
	IPv4    []netip.Prefix
	Stopped []int // queues that the driver or the stack has stopped
}

// Up says IFF_UP.
func (d NetDevice) Up() bool { return d.Flags&1 != 0 }

// NetDevices reads the devices.
func NetDevices(t kernel.Target) ([]NetDevice, error) {
	errs := &kernel.Errors{}
	var out []NetDevice
	for d := range kernel.Global(t, errs, "struct net", "init_net").Get("dev_base_head").List("struct net_device", "dev_list") {
		n := NetDevice{Addr: d.Addr, Index: d.Get("ifindex").Int(), Name: d.Get("name").String(), MTU: d.Get("mtu").Int(),
			Flags: d.Get("flags").Uint(), State: d.Get("operstate").Int(), Queues: d.Get("real_num_tx_queues").Int()}
		if p := d.Get("dev_addr"); p.Uint() != 0 {
			n.HW = p.Deref().Bytes(min(d.Get("addr_len").Int(), 32))
		}
		n.IPv4 = addresses(d)
		for i := range min(n.Queues, 4096) {
			if d.Get("_tx").At(i).Get("state").Uint()&3 != 0 { // __QUEUE_STATE_DRV_XOFF, __QUEUE_STATE_STACK_XOFF
				n.Stopped = append(n.Stopped, i)
			}
		}
		out = append(out, n)
	}
	if err := errs.Take(); err != nil {
		return out, fmt.Errorf("walk network devices: %w (%d reads failed)", err, errs.N)
	}
	return out, nil
}

// addresses goes over the IPv4 addresses of a device.
func addresses(d kernel.Value) []netip.Prefix {
	var out []netip.Prefix
	in := d.Get("ip_ptr")
	if in.Uint() == 0 {
		return nil
	}
	for a := in.Get("ifa_list"); a.Uint() != 0 && len(out) < 1<<16; a = a.Get("ifa_next") {
		if b := a.Get("ifa_local").Bytes(4); len(b) == 4 {
			out = append(out, netip.PrefixFrom(netip.AddrFrom4([4]byte(b)), a.Get("ifa_prefixlen").Int()))
		}
	}
	return out
}

// IRQ is an interrupt that a CPU's vector leads to.
type IRQ struct {
	Number  int
	Addr    uint64
	Chip    string
	Actions []string
	Counts  []uint64 // by CPU, in the order of Target.CPUs
}

// IRQs reads the interrupts that have a vector on some CPU; those without handlers are left out.
func IRQs(t kernel.Target) ([]IRQ, error) {
	errs := &kernel.Errors{}
	seen := map[uint64]bool{}
	var out []IRQ
	for _, cpu := range t.CPUs() {
		base := kernel.Global(t, errs, "unsigned long", "vector_irq")
		for v := range 256 {
			at := base.Shift(base.Addr + t.PerCPU(cpu) + 8*uint64(v)).Uint()
			if at < 4096 || int64(at) >= 0 || int64(at) > -4096 || seen[at] { // VECTOR_UNUSED, VECTOR_SHUTDOWN, VECTOR_RETRIGGERED
				continue
			}
			seen[at] = true
			if q := readIRQ(kernel.Object(t, errs, "struct irq_desc", at)); len(q.Actions) > 0 {
				out = append(out, q)
			}
		}
	}
	if err := errs.Take(); err != nil {
		return out, fmt.Errorf("walk interrupts: %w (%d reads failed)", err, errs.N)
	}
	return out, nil
}

func readIRQ(d kernel.Value) IRQ {
	q := IRQ{Addr: d.Addr, Number: d.Get("irq_data.irq").Int()}
	if c := d.Get("irq_data.chip"); c.Uint() != 0 {
		q.Chip = c.Get("name").String()
	}
	for a := d.Get("action"); a.Uint() != 0 && len(q.Actions) < 256; a = a.Get("next") {
		q.Actions = append(q.Actions, a.Get("name").String())
	}
	for _, cpu := range d.Target().CPUs() {
		c := d.Get("kstat_irqs")
		if c.Uint() == 0 {
			break
		}
		n := c.PerCPU(cpu)
		if n.Has("cnt") { // struct irqstat, since 6.10
			n = n.Get("cnt")
		}
		q.Counts = append(q.Counts, n.Uint())
	}
	return q
}
