package nic

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/netstate/nic"
)

// Light is how a stage of the receive path is.
type Light string

// Lights.
const (
	Green  Light = "ok"
	Yellow Light = "watch" // near a limit, uneven, or lost something before
	Red    Light = "bad"   // loses packets, or time, now
)

// Check is a stage of the receive path.
type Check struct {
	Stage    string    `json:"stage"`
	Dev      string    `json:"dev,omitempty"`
	Light    Light     `json:"light"`
	Counters []Counter `json:"counters,omitempty"`
	Limits   []Limit   `json:"limits,omitempty"`
	Words    []string  `json:"words,omitempty"` // what that means
	Turn     []string  `json:"turn,omitempty"`  // what to do, commands where there are any
}

// Counter is a counter of it.
type Counter struct {
	Name  string `json:"name"`
	Delta uint64 `json:"delta"` // while it was watched
	Total uint64 `json:"total"`
}

// Limit is a setting that bounds it.
type Limit struct {
	Name  string `json:"name"`
	Value int    `json:"value"`
}

// worse raises the light.
func (c *Check) worse(l Light) {
	if l == Red || c.Light == Green {
		c.Light = l
	}
}

func (c *Check) say(format string, args ...any) {
	c.Words = append(c.Words, fmt.Sprintf(format, args...))
}
func (c *Check) turn(format string, args ...any) {
	c.Turn = append(c.Turn, fmt.Sprintf(format, args...))
}

// health is two samples and what they are judged by.
type health struct {
	a, b *nic.Sample
	over time.Duration
	out  []Check
}

// Judge gives the stages of the receive path in the order in which packets pass them: those of the devices, then those of the
// machine, then those of the namespace. a was read before b.
func Judge(a, b *nic.Sample, over time.Duration, devs []*Map) []Check {
	h := &health{a: a, b: b, over: over}
	for _, d := range devs {
		h.ring(d)
		h.spread(d)
	}
	h.softirq()
	h.daemon()
	h.backlog()
	h.flowLimit()
	for _, d := range devs {
		h.steering(d)
		h.device(d)
	}
	h.protocols()
	h.sockets()
	return h.out
}

func (h *health) check(stage, dev string) *Check {
	h.out = append(h.out, Check{Stage: stage, Dev: dev, Light: Green})
	return &h.out[len(h.out)-1]
}

// count adds a counter, and gives what it grew by. Those that are 0 are left out unless always is set.
func (h *health) count(c *Check, key, name string, always bool) uint64 {
	total := h.b.Counters[key]
	delta := total - min(h.a.Counters[key], total)
	if total > 0 || always {
		c.Counters = append(c.Counters, Counter{name, delta, total})
	}
	return delta
}

func (h *health) limit(c *Check, name string) int {
	v, ok := h.b.Limits[name]
	if ok {
		c.Limits = append(c.Limits, Limit{"net.core." + name, v})
	}
	return v
}

// lossWords are parts of the names that drivers give to counters of what they could not receive.
var lossWords = []string{"drop", "miss", "no_buf", "no_desc", "fifo", "over", "alloc_fail", "alloc_rx", "discard", "out_of_buf", "oom", "rx_err"}

// isLoss says if a driver's counter counts packets that were not received.
func isLoss(name string) bool {
	low := strings.ToLower(name)
	if strings.Contains(low, "tx") || strings.Contains(low, "xdp") || strings.Contains(low, "coll") {
		return false
	}
	return slices.ContainsFunc(lossWords, func(w string) bool { return strings.Contains(low, w) })
}

// ring judges what the card and its ring dropped.
func (h *health) ring(d *Map) {
	c := h.check("ring", d.Name)
	var lost, before uint64
	for _, n := range []string{"rx_missed_errors", "rx_fifo_errors", "rx_over_errors", "rx_errors", "rx_crc_errors", "rx_length_errors"} {
		x := h.count(c, "iplink."+d.Name+"."+n, n, false)
		lost += x
		before += h.b.Counters["iplink."+d.Name+"."+n] - x
	}
	prefix := "ethtool." + d.Name + "."
	var keys []string
	for k := range h.b.Counters {
		if name, ok := strings.CutPrefix(k, prefix); ok && isLoss(name) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		x := h.count(c, k, strings.TrimPrefix(k, prefix), false)
		lost += x
		before += h.b.Counters[k] - x
	}
	if r := d.Rings; r != nil && r.MaxRX > 0 {
		c.Limits = append(c.Limits, Limit{"rx descriptors", int(r.RX)}, Limit{"of at most", int(r.MaxRX)})
	}
	switch {
	case lost > 0:
		c.worse(Red)
		c.say("the card had no free descriptor, or refused frames: they never reached the kernel, and no tracer saw them")
		if r := d.Rings; r != nil && r.RX < r.MaxRX {
			c.turn("ethtool -G %s rx %d", d.Name, r.MaxRX)
		}
		if ch := d.Channels; ch != nil && ch.Combined < ch.MaxCombined {
			c.turn("ethtool -L %s combined %d", d.Name, ch.MaxCombined)
		}
		c.turn("let NET_RX come sooner: see the softirq's stages below; errors of crc or length are the cable's or the peer's")
	case before > 0:
		c.worse(Yellow)
		c.say("some were lost before, none while it was watched")
	}
}

// spread judges on how many CPUs the interrupts of a device come.
func (h *health) spread(d *Map) {
	if len(d.Vectors) == 0 {
		return
	}
	c := h.check("interrupts", d.Name)
	by := map[int]uint64{}
	var total uint64
	queues := 0
	for _, r := range d.Rows {
		if r.Vector == nil {
			continue
		}
		rx := slices.ContainsFunc(r.Queues, func(q *nic.Queue) bool { return q.Dir == nic.RX })
		if rx {
			queues++
		}
		now, ok := h.b.Interrupts.ByIRQ(r.Vector.IRQ)
		was, ok2 := h.a.Interrupts.ByIRQ(r.Vector.IRQ)
		if !ok || !ok2 {
			continue
		}
		var delta, all uint64
		for i := range now.Counts {
			n := now.Counts[i]
			if i < len(was.Counts) {
				n -= min(was.Counts[i], n)
			}
			delta, all = delta+n, all+now.Counts[i]
			if rx && i < len(h.b.Interrupts.CPUs) {
				by[h.b.Interrupts.CPUs[i]] += n
				total += n
			}
		}
		c.Counters = append(c.Counters, Counter{fmt.Sprintf("irq %d %s", r.Vector.IRQ, strings.Join(r.Vector.Names, ",")), delta, all})
	}
	busiest, most := 0, uint64(0)
	for cpu, n := range by {
		if n > most || n == most && cpu < busiest {
			busiest, most = cpu, n
		}
	}
	cpus := len(h.b.CPU)
	if total < 100 || cpus < 2 {
		return
	}
	if share := float64(most) / float64(total); share > 0.8 && queues > 1 {
		c.worse(Yellow)
		c.say("%.0f %% of the receiving interrupts came to CPU %d, of %d queues and %d CPUs", 100*share, busiest, queues, cpus)
		c.turn("one CPU for each: echo CPU > /proc/irq/IRQ/smp_affinity_list, or irqbalance; few flows may all hash to one queue: ethtool -x %s", d.Name)
	}
	if h.busy(busiest) > 0.5 && queues == 1 {
		c.worse(Yellow)
		c.say("the only receiving queue keeps CPU %d in softirqs for %.0f %% of its time", busiest, 100*h.busy(busiest))
		c.turn("spread what follows by RPS: echo %x > /sys/class/net/%s/queues/rx-0/rps_cpus", 1<<min(cpus, 32)-1, d.Name)
	}
}

// busy is the part of a CPU's time that softirqs took.
func (h *health) busy(cpu int) float64 {
	a, b := h.a.CPU[cpu], h.b.CPU[cpu]
	if b.All <= a.All {
		return 0
	}
	return float64(b.Softirq-min(a.Softirq, b.Softirq)) / float64(b.All-a.All)
}

// softnet gives what each CPU's line of softnet_stat grew by. The numbers have 32 bits.
func (h *health) softnet(get func(*nic.Softnet) uint64) (by map[int]uint64, sum, total uint64) {
	by = map[int]uint64{}
	for i := range h.b.Softnet {
		s := &h.b.Softnet[i]
		now := get(s)
		total += now
		for k := range h.a.Softnet {
			if h.a.Softnet[k].CPU == s.CPU {
				n := uint64(uint32(now - get(&h.a.Softnet[k])))
				by[s.CPU], sum = n, sum+n
			}
		}
	}
	return by, sum, total
}

// softirq judges NET_RX: whether it gets done with what it has to poll.
func (h *health) softirq() {
	c := h.check("NET_RX", "")
	packets, sum, total := h.softnet(func(s *nic.Softnet) uint64 { return s.Processed })
	c.Counters = append(c.Counters, Counter{"processed", sum, total})
	squeezed, n, all := h.softnet(func(s *nic.Softnet) uint64 { return s.Squeezed })
	c.Counters = append(c.Counters, Counter{"time_squeeze", n, all})
	var runs uint64
	for i, now := range h.b.Softirqs["NET_RX"] {
		if was := h.a.Softirqs["NET_RX"]; i < len(was) {
			runs += now - min(was[i], now)
		}
	}
	c.Counters = append(c.Counters, Counter{"runs", runs, 0})
	budget, usecs := h.limit(c, "netdev_budget"), h.limit(c, "netdev_budget_usecs")
	h.limit(c, "dev_weight")
	if n > 0 {
		c.worse(Yellow)
		if n*20 > runs {
			c.worse(Red)
		}
		c.say("%d of %d runs ended with work left (time_squeeze): out of %d packets or %d us; on CPUs %s", n, runs, budget, usecs, cpuCounts(squeezed))
		c.turn("sysctl -w net.core.netdev_budget=%d net.core.netdev_budget_usecs=%d", max(2*budget, 600), max(2*usecs, 4000))
		c.turn("or share the load: more queues, RPS, or fewer packets by GRO and coalescing")
	}
	if cpu, part := busiestOf(packets, sum); sum > 1000 && part > 0.9 && len(h.b.CPU) > 1 && h.busy(cpu) > 0.5 {
		c.worse(Yellow)
		c.say("%.0f %% of the packets were processed on CPU %d, which spent %.0f %% of its time in softirqs", 100*part, cpu, 100*h.busy(cpu))
	}
}

func busiestOf(by map[int]uint64, sum uint64) (cpu int, part float64) {
	var most uint64
	for c, n := range by {
		if n > most || n == most && c < cpu {
			cpu, most = c, n
		}
	}
	return cpu, float64(most) / float64(max(sum, 1))
}

// cpuCounts writes counts by CPU: "0 (12), 3 (1)".
func cpuCounts(by map[int]uint64) string {
	var cpus []int
	for c, n := range by {
		if n > 0 {
			cpus = append(cpus, c)
		}
	}
	slices.Sort(cpus)
	var out []string
	for _, c := range cpus {
		out = append(out, fmt.Sprintf("%d (%d)", c, by[c]))
	}
	return strings.Join(out, ", ")
}

// tick is a tick of /proc: sysconf(_SC_CLK_TCK) is 100 on every architecture that fathom runs on.
const tick = 10 * time.Millisecond

// daemon judges ksoftirqd: if it runs much, softirqs are more than is done on the side, and compete with tasks.
func (h *health) daemon() {
	c := h.check("ksoftirqd", "")
	var cpus []int
	for cpu := range h.b.Daemons {
		cpus = append(cpus, cpu)
	}
	slices.Sort(cpus)
	packets, _, _ := h.softnet(func(s *nic.Softnet) uint64 { return s.Processed })
	for _, cpu := range cpus {
		ran := time.Duration(h.b.Daemons[cpu]-min(h.a.Daemons[cpu], h.b.Daemons[cpu])) * tick
		part := float64(ran) / float64(max(h.over, tick))
		if ran > 0 {
			c.Counters = append(c.Counters, Counter{fmt.Sprintf("ksoftirqd/%d ms", cpu), uint64(ran.Milliseconds()), h.b.Daemons[cpu] * uint64(tick/time.Millisecond)})
		}
		if part < 0.1 {
			continue
		}
		c.worse(Yellow)
		if part > 0.3 {
			c.worse(Red)
		}
		c.say("ksoftirqd/%d took over: it ran for %.0f %% of the time; %d packets were processed on CPU %d meanwhile, softirqs had %.0f %% of it", cpu, 100*part, packets[cpu], cpu, 100*h.busy(cpu))
	}
	if c.Light != Green {
		c.say("softirqs that are left to it wait for the CPU as tasks do: latency grows by what the scheduler gives to others")
		c.turn("take load off these CPUs: RSS, RPS, irq affinity; keep busy tasks away (isolcpus, cpusets); find who sends: fathom rank net:netif_receive_skb --by name")
	}
}

// backlog judges the queue of each CPU for packets of devices without NAPI, and of those that RPS hands over.
func (h *health) backlog() {
	c := h.check("backlog", "")
	lost, n, all := h.softnet(func(s *nic.Softnet) uint64 { return s.Dropped })
	c.Counters = append(c.Counters, Counter{"dropped", n, all})
	limit := h.limit(c, "netdev_max_backlog")
	var longest, at uint64
	for _, s := range h.b.Softnet {
		if s.Backlog > longest {
			longest, at = s.Backlog, uint64(s.CPU)
		}
	}
	if longest > 0 {
		c.say("%d packets wait on CPU %d now", longest, at)
		if limit > 0 && longest*2 > uint64(limit) {
			c.worse(Yellow)
		}
	}
	switch {
	case n > 0:
		c.worse(Red)
		c.say("%d packets did not fit a CPU's backlog and were dropped: CPUs %s (veth, lo, tunnels and RPS go through it)", n, cpuCounts(lost))
		c.turn("sysctl -w net.core.netdev_max_backlog=%d", max(4*limit, 1000))
	case all > 0:
		c.worse(Yellow)
		c.say("some were dropped before, none while it was watched")
	}
}

func (h *health) flowLimit() {
	lost, n, all := h.softnet(func(s *nic.Softnet) uint64 { return s.FlowLimit })
	if all == 0 {
		return
	}
	c := h.check("flow limit", "")
	c.Counters = append(c.Counters, Counter{"flow_limit", n, all})
	h.limit(c, "flow_limit_table_len")
	if n > 0 {
		c.worse(Red)
		c.say("a flow that had most of a backlog was cut: CPUs %s", cpuCounts(lost))
		c.turn("sysctl -w net.core.flow_limit_cpu_bitmap=0 lets it have all; or raise netdev_max_backlog")
	}
}

// steering judges RPS and GRO, which may help or cost.
func (h *health) steering(d *Map) {
	if len(d.Queues) == 0 || d.Name == "lo" {
		return
	}
	c := h.check("GRO and RPS", d.Name)
	gro := false
	for _, f := range d.Features {
		gro = gro || f.Name == "rx-gro" && f.On
	}
	if !gro && len(d.Features) > 0 {
		c.worse(Yellow)
		c.say("GRO is off: each packet of a stream passes the stack alone")
		c.turn("ethtool -K %s gro on", d.Name)
	}
	if len(d.XDP) > 0 && gro {
		c.say("there is an XDP program: generic ones come after GRO, native ones before")
	}
	var cpus []string
	for _, q := range d.Queues {
		if q.Dir == nic.RX && q.RPS != "" {
			cpus = append(cpus, fmt.Sprintf("rx-%d to CPUs %s", q.Index, q.RPS))
		}
	}
	_, n, all := h.softnet(func(s *nic.Softnet) uint64 { return s.RPS })
	if len(cpus) > 0 {
		c.Counters = append(c.Counters, Counter{"received_rps", n, all})
		c.say("RPS hands packets of %s", strings.Join(cpus, ", "))
	}
}

// device judges what was dropped behind the driver.
func (h *health) device(d *Map) {
	c := h.check("device", d.Name)
	h.count(c, "iplink."+d.Name+".rx_packets", "rx_packets", true)
	dropped := h.count(c, "iplink."+d.Name+".rx_dropped", "rx_dropped", true)
	nobody := h.count(c, "iplink."+d.Name+".rx_nohandler", "rx_nohandler", false)
	if dropped > 0 {
		c.worse(Yellow)
		c.say("%d packets were dropped behind the driver: no protocol takes them, or the backlog, tc or a bridge did not", dropped)
		c.turn("fathom packet drops --for 10s")
	}
	if nobody > 0 {
		c.worse(Yellow)
		c.say("%d came to a device that is not to receive: an inactive port of a bond", nobody)
	}
}

// protocols judges IP.
func (h *health) protocols() {
	c := h.check("IP", "")
	h.count(c, "Ip.InReceives", "InReceives", true)
	var lost uint64
	for _, n := range []string{"Ip.InDiscards", "Ip.InHdrErrors", "Ip.InAddrErrors", "Ip.ReasmFails", "Ip6.InDiscards", "Ip6.InHdrErrors", "Ip6.InAddrErrors"} {
		lost += h.count(c, n, n, false)
	}
	if lost > 0 {
		c.worse(Yellow)
		c.say("%d packets were refused by IP: headers, addresses, reassembly", lost)
		c.turn("fathom packet drops --for 10s names each with the object that did it")
	}
}

// socketLosses are counters of what sockets did not take, with what to do.
var socketLosses = []struct{ key, words, turn string }{
	{"Udp.RcvbufErrors", "UDP packets did not fit the receive buffer of their socket", "read faster, or give more: SO_RCVBUF, sysctl -w net.core.rmem_max=8388608"},
	{"Udp6.RcvbufErrors", "UDP packets of IPv6 did not fit the receive buffer of their socket", "read faster, or give more: SO_RCVBUF, sysctl -w net.core.rmem_max=8388608"},
	{"Udp.MemErrors", "UDP as a whole was out of its memory", "sysctl net.ipv4.udp_mem"},
	{"TcpExt.TCPBacklogDrop", "TCP segments did not fit the backlog of a socket whose owner held it", "read faster; more buffer: net.ipv4.tcp_rmem"},
	{"TcpExt.TCPRcvQDrop", "TCP segments did not fit the receive buffer", "net.ipv4.tcp_rmem"},
	{"TcpExt.ListenOverflows", "connections did not fit the queue of a listener", "accept faster; a larger backlog in listen(2), sysctl -w net.core.somaxconn=4096"},
	{"TcpExt.PruneCalled", "TCP had to throw data away to make room", "net.ipv4.tcp_rmem, net.ipv4.tcp_mem"},
}

// sockets judges sockets, and names those that lose.
func (h *health) sockets() {
	c := h.check("sockets", "")
	for _, l := range socketLosses {
		if n := h.count(c, l.key, l.key, false); n > 0 {
			c.worse(Red)
			c.say("%d times %s", n, l.words)
			c.turn("%s", l.turn)
		}
	}
	h.limit(c, "rmem_default")
	h.limit(c, "rmem_max")
	h.limit(c, "somaxconn")
	was := map[uint64]uint64{}
	for _, s := range h.a.Sockets {
		was[s.Inode] = s.Drops
	}
	list := slices.Clone(h.b.Sockets)
	sorting.Stable(list, func(a, b nic.Drops) int {
		return int(int64(b.Drops-was[b.Inode]) - int64(a.Drops-was[a.Inode]))
	})
	told := 0
	for _, s := range list {
		n := s.Drops - min(was[s.Inode], s.Drops)
		switch {
		case n > 0:
			c.worse(Red)
			of := "" // /proc does not say how large it is
			if s.Buffer > 0 {
				of = fmt.Sprintf(" of %d", s.Buffer)
			}
			c.say("%s dropped %d, %d bytes%s wait in it", s.Name, n, s.Queued, of)
		case s.Queued*2 > s.Buffer && s.Buffer > 0:
			c.worse(Yellow)
			c.say("%s: %d bytes of %d wait to be read", s.Name, s.Queued, s.Buffer)
		default:
			continue
		}
		if told++; told == 5 {
			return
		}
	}
}
