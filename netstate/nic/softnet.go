package nic

import (
	"strconv"
	"strings"
)

// Softnet is a CPU's line of /proc/net/softnet_stat (softnet_seq_show in net/core/net-procfs.c).
type Softnet struct {
	CPU        int    `json:"cpu"`
	Processed  uint64 `json:"processed"`    // packets that came up from drivers or the backlog
	Dropped    uint64 `json:"dropped"`      // packets that did not fit the backlog
	Squeezed   uint64 `json:"time_squeeze"` // times NET_RX ended with work left: out of budget or time
	RPS        uint64 `json:"received_rps"` // times this CPU was asked to by another
	FlowLimit  uint64 `json:"flow_limit"`
	Backlog    uint64 `json:"backlog"`     // packets waiting now, both queues
	InputLen   uint64 `json:"input_queue"` // since Linux 5.10 … 6.x; 0 before
	ProcessLen uint64 `json:"process_queue"`
	HasIndex   bool   `json:"-"` // the line says which CPU it is of (since 5.10)
}

// ParseSoftnet reads it. The numbers wrap around at 32 bits.
func ParseSoftnet(text string) (out []Softnet) {
	for line := range strings.Lines(text) {
		var n []uint64
		for _, w := range strings.Fields(line) {
			x, err := strconv.ParseUint(w, 16, 32)
			if err != nil {
				break
			}
			n = append(n, x)
		}
		at := func(i int) uint64 {
			if i < len(n) {
				return n[i]
			}
			return 0
		}
		if len(n) < 3 {
			continue
		}
		s := Softnet{
			CPU: len(out), Processed: at(0), Dropped: at(1), Squeezed: at(2), RPS: at(9), FlowLimit: at(10), Backlog: at(11),
			InputLen: at(13), ProcessLen: at(14), HasIndex: len(n) > 12,
		}
		if s.HasIndex {
			s.CPU = int(at(12))
		}
		out = append(out, s)
	}
	return out
}

// ParseSoftirqs reads /proc/softirqs: counts of each CPU by the softirq's name (show_softirqs in fs/proc/softirqs.c).
func ParseSoftirqs(text string) map[string][]uint64 {
	out := map[string][]uint64{}
	for line := range strings.Lines(text) {
		name, rest, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok {
			continue
		}
		for _, w := range strings.Fields(rest) {
			n, err := strconv.ParseUint(w, 10, 64)
			if err != nil {
				break
			}
			out[name] = append(out[name], n)
		}
	}
	return out
}

// Bounce is the swiotlb, the pool through which memory is copied that a device cannot reach, in slots of 2 KiB
// (/sys/kernel/debug/swiotlb).
type Bounce struct {
	Slots, Used uint64
	Most        uint64 // that were ever used, since Linux 6.3; 0 before
}

// Sample is what the receive path has counted until a moment.
type Sample struct {
	Counters   map[string]uint64 // of netstate.State: "iplink.eth0.rx_missed_errors", "ethtool.eth0.rx_drops", "Udp.RcvbufErrors"
	Softnet    []Softnet         // of each CPU, in all namespaces
	Softirqs   map[string][]uint64
	Interrupts Interrupts
	Limits     map[string]int // "netdev_budget" and the like of net.core; those that this kernel has
	CPU        map[int]CPUTime
	Daemons    map[int]uint64 // ticks that ksoftirqd has run, by CPU
	Sockets    []Drops        // that dropped anything, or whose queue holds something
	Bounce     *Bounce        // nil if debugfs does not tell
	DMAErrors  *uint64        // rules of the DMA API that drivers broke (CONFIG_DMA_API_DEBUG); nil if that is not counted
	Missing    []Missing
}

// CPUTime is a CPU's time in ticks (show_stat in fs/proc/stat.c).
type CPUTime struct{ All, Idle, IRQ, Softirq uint64 }

// Drops is a socket that has dropped packets or is about to.
type Drops struct {
	Name   string // "udp 10.0.0.1:53", with who has it
	Inode  uint64
	Drops  uint64
	Queued uint64 // bytes of memory that wait to be read
	Buffer uint64 // how many may
}

// ParseStat reads the lines of CPUs of /proc/stat.
func ParseStat(text string) map[int]CPUTime {
	out := map[int]CPUTime{}
	for line := range strings.Lines(text) {
		w := strings.Fields(line)
		num, ok := "", false
		if len(w) >= 8 {
			num, ok = strings.CutPrefix(w[0], "cpu")
		}
		cpu, err := strconv.Atoi(num)
		if !ok || err != nil {
			continue
		}
		var c CPUTime
		for i, s := range w[1:min(len(w), 9)] { // what guests took is in what users took
			n, err := strconv.ParseUint(s, 10, 64)
			if err != nil {
				break
			}
			c.All += n
			switch i {
			case 3, 4:
				c.Idle += n
			case 5:
				c.IRQ = n
			case 6:
				c.Softirq = n
			}
		}
		out[cpu] = c
	}
	return out
}

// ParseTicks reads the ticks that a process ran out of its /proc/PID/stat, whose name may hold anything (do_task_stat in
// fs/proc/array.c).
func ParseTicks(text string) (comm string, ticks uint64, ok bool) {
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return "", 0, false
	}
	const user, system = 11, 12 // fields behind the name, from 0
	w := strings.Fields(text[end+1:])
	if len(w) <= system {
		return "", 0, false
	}
	for _, i := range []int{user, system} {
		n, err := strconv.ParseUint(w[i], 10, 64)
		if err != nil {
			return "", 0, false
		}
		ticks += n
	}
	return text[open+1 : end], ticks, true
}
