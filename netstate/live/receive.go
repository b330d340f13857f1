package live

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/netstate"
	"github.com/fathom-trace/fathom/netstate/nic"
)

// limits are the settings of net.core that bound the receive path. They are of the whole machine, and shown in its first
// namespace only.
var limits = [...]string{
	"netdev_budget", "netdev_budget_usecs", "netdev_max_backlog", "dev_weight", "dev_weight_rx_bias", "rps_sock_flow_entries",
	"flow_limit_table_len", "rmem_default", "rmem_max", "somaxconn", "gro_normal_batch",
}

// Activity reads what the machine and the devices of the namespace have counted so far, as far as that is quick: counters of links
// and protocols, interrupts, softirqs, the time of CPUs.
func (r *Reader) Activity() *nic.Sample {
	s, _ := r.sample(Counters)
	return s
}

// Receive reads what the receive path of the machine, and the devices and sockets of the namespace, have counted so far.
func (r *Reader) Receive() *nic.Sample {
	s, state := r.sample(Counters | Ethtool | Sockets)
	r.Owners(state)
	for _, name := range limits {
		if v, err := readShort(filepath.Join(r.Proc, "sys/net/core", name)); err == nil {
			if n, err := strconv.Atoi(v); err == nil {
				s.Limits[name] = n
			}
		}
	}
	r.daemons(s)
	s.Bounce, s.DMAErrors = dmaFiles("/sys/kernel/debug")
	for _, k := range state.Sockets {
		if k.Drops > 0 || k.RcvMem > 0 {
			name := fmt.Sprintf("%s %s %s", k.Proto, k.Local, k.Owner)
			s.Sockets = append(s.Sockets, nic.Drops{Name: strings.TrimSpace(name), Inode: k.Inode, Drops: uint64(k.Drops), Queued: uint64(k.RcvMem), Buffer: uint64(k.RcvBuf)})
		}
	}
	return s
}

// dmaFiles reads what debugfs has of the swiotlb and of drivers' mappings.
func dmaFiles(debugfs string) (b *nic.Bounce, errors *uint64) {
	number := func(name string) (uint64, bool) {
		text, err := readShort(filepath.Join(debugfs, name))
		if err != nil {
			return 0, false
		}
		n, err := strconv.ParseUint(text, 10, 64)
		return n, err == nil
	}
	if slots, ok := number("swiotlb/io_tlb_nslabs"); ok {
		b = &nic.Bounce{Slots: slots}
		b.Used, _ = number("swiotlb/io_tlb_used")
		b.Most, _ = number("swiotlb/io_tlb_used_hiwater")
	}
	if n, ok := number("dma-api/error_count"); ok {
		errors = &n
	}
	return b, errors
}

func (r *Reader) sample(parts Parts) (*nic.Sample, *netstate.State) {
	state := r.Read(parts)
	s := &nic.Sample{Counters: state.Counters, Limits: map[string]int{}, Daemons: map[int]uint64{}}
	for _, m := range state.Missing {
		s.Missing = append(s.Missing, nic.Missing{What: m.What, Why: m.Err})
	}
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(r.Proc, name))
		if err != nil {
			s.Missing = append(s.Missing, nic.Missing{What: filepath.Join("/proc", name), Why: err.Error()})
		}
		return string(b)
	}
	s.Softnet, s.Softirqs = nic.ParseSoftnet(read("net/softnet_stat")), nic.ParseSoftirqs(read("softirqs"))
	s.Interrupts, s.CPU = nic.ParseInterrupts(read("interrupts")), nic.ParseStat(read("stat"))
	return s, state
}

// daemons reads how long each ksoftirqd has run.
func (r *Reader) daemons(s *nic.Sample) {
	es, _ := os.ReadDir(r.Proc)
	for _, e := range es {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		text, err := readShort(filepath.Join(r.Proc, e.Name(), "stat"))
		if err != nil || !strings.Contains(text, "(ksoftirqd/") {
			continue
		}
		comm, ticks, ok := nic.ParseTicks(text)
		num, found := strings.CutPrefix(comm, "ksoftirqd/")
		if cpu, err := strconv.Atoi(num); ok && found && err == nil {
			s.Daemons[cpu] = ticks
		}
	}
}
