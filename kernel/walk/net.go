package walk

import (
	"fmt"
	"net/netip"

	"github.com/fathom-trace/fathom/kernel"
)

// NetDevice is a network device.
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

// NetDevices reads the devices of init's network namespace.
func NetDevices(t kernel.Target) ([]NetDevice, error) {
	errs := &kernel.Errors{}
	return devicesOf(kernel.Global(t, errs, "struct net", "init_net"), errs)
}

// NetDevicesOf reads the devices of a task's network namespace, and gives the address of its struct net.
func NetDevicesOf(task Task) (ns uint64, devices []NetDevice, err error) {
	errs := &kernel.Errors{}
	v := kernel.Object(task.Value.Target(), errs, "struct task_struct", task.Addr)
	if v.Get("nsproxy").Uint() == 0 {
		return 0, nil, fmt.Errorf("pid %d has exited: it is in no network namespace", task.PID)
	}
	net := v.Get("nsproxy.net_ns").Deref()
	devices, err = devicesOf(net, errs)
	return net.Addr, devices, err
}

func devicesOf(net kernel.Value, errs *kernel.Errors) ([]NetDevice, error) {
	var out []NetDevice
	for d := range net.Get("dev_base_head").List("struct net_device", "dev_list") {
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
