package nic

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/netstate/nic"
)

func TestBuckets(t *testing.T) {
	last := -1
	for _, ns := range []uint64{0, 1, 15, 16, 17, 31, 32, 33, 34, 1000, 1 << 20, 1<<20 + 1<<15, 1 << 40, 1<<64 - 1} {
		b := bucketOf(ns)
		if b < last || b >= histSize {
			t.Errorf("%d is in bucket %d, after %d", ns, b, last)
		}
		last = b
		if top := bucketTop(b); top < ns || ns >= 16 && top-ns > ns/16 {
			t.Errorf("%d: bucket %d goes to %d", ns, b, top)
		}
	}
	var h Hist
	for ns := uint64(1); ns <= 1000; ns++ {
		h.Add(ns)
	}
	for _, tt := range []struct {
		part float64
		want uint64
	}{{0.5, 500}, {0.99, 990}, {0.999, 999}, {1, 1000}} {
		if got := h.Quantile(tt.part); got < tt.want || got > tt.want+tt.want/16 {
			t.Errorf("%v: %d", tt.part, got)
		}
	}
	if first, counts := h.Powers(); first != 1 || counts[0] != 1 || len(counts) != 10 || h.Mean() != 500 {
		t.Error(first, counts, h.Mean())
	}
	if (&Hist{}).Quantile(0.5) != 0 {
		t.Error("an empty histogram has a median")
	}
}

// card is one with two queues, whose second interrupt is told differently by name and netlink.
func card() *nic.Device {
	return &nic.Device{
		Name: "eth0", Index: 2, Driver: "igb", PCI: "0000:01:00.0", Up: true, NUMA: -1,
		Channels: &nic.Channels{Combined: 3, MaxCombined: 8},
		Vectors: []nic.Vector{
			{Index: 0, IRQ: 30, Mode: "msix", Chip: "PCI-MSIX-0000:01:00.0", PCI: "0000:01:00.0", Names: []string{"eth0"}, Wanted: "0-3", Effective: "0"},
			{Index: 1, IRQ: 31, Mode: "msix", Chip: "PCI-MSIX-0000:01:00.0", PCI: "0000:01:00.0", Names: []string{"eth0-TxRx-0"}, Wanted: "1", Effective: "2"},
			{Index: 2, IRQ: 32, Mode: "msix", Chip: "PCI-MSIX-0000:01:00.0", PCI: "0000:01:00.0", Names: []string{"eth0-TxRx-1"}, Wanted: "1", Effective: "1"},
			{Index: -1, IRQ: 33, Mode: "msix"},
		},
		NAPIs: []nic.NAPI{{ID: 100, IRQ: 31}, {ID: 101, IRQ: 32}, {ID: 102}},
		Queues: []nic.Queue{
			{Dir: nic.RX, Index: 0, NAPI: 100, Sysfs: true, Net: true}, {Dir: nic.RX, Index: 1, Sysfs: true, Net: true},
			{Dir: nic.TX, Index: 0, NAPI: 100, Sysfs: true, Net: true}, {Dir: nic.TX, Index: 1, NAPI: 101, Sysfs: true, Net: true},
		},
	}
}

func TestMap(t *testing.T) {
	m := NewMap(card())
	var got []string
	for _, r := range m.Rows {
		got = append(got, strings.Join(r.cells(), "|"))
	}
	want := []string{
		"0|30|eth0|0-3|0|0||||||",
		"1|31|eth0-TxRx-0|1|2|0|rx-0 tx-0|100||||name+netlink",
		"2|32|eth0-TxRx-1|1|1|0|tx-1|101||||netlink",
		"|33|(none)|||0||||||",
		"||||||rx-1|||||",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	all := strings.Join(m.Findings, "\n")
	for _, want := range []string{
		"irq 32: netdev netlink says it serves tx-1, its name eth0-TxRx-1 says rx-1 tx-1",
		"irq 33: sysfs lists it in msi_irqs, /proc/interrupts does not",
		"irq 31: effective_affinity is not among the CPUs that are wanted",
		"rx queues: sysfs lists 2, the driver says it uses 3 channels",
		"rx-1: no source says which interrupt serves them",
		"NAPI 102: the driver says neither",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("no finding %q in:\n%s", want, all)
		}
	}
	var b strings.Builder
	if err := m.WriteJSON(&b); err != nil || strings.Count(b.String(), "\n") < 12 {
		t.Error(err, b.String())
	}
}

func TestPage(t *testing.T) {
	d := card()
	d.Vectors[0].Names = []string{"<eth0>"}
	var b strings.Builder
	if err := WriteHTML(&b, []*Map{NewMap(d)}); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	for _, want := range []string{"31 eth0-TxRx-0", "CPU 2", "NAPI 100", ">rx-1<", "30 &lt;eth0&gt;", "wanted on CPU 1, 0 interrupts", "</svg>", "note "} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in:\n%s", want, page)
		}
	}
	// irq 31 → CPU 2 → NAPI 100 → rx-0 and tx-0; irq 32 → CPU 1 → NAPI 101 → tx-1; irq 30 → CPU 0.
	if n := strings.Count(page, "<path "); n != 8 {
		t.Errorf("%d lines", n)
	}
	if strings.Contains(page, "<eth0>") {
		t.Error("a name is not escaped")
	}
}

func TestJudge(t *testing.T) {
	before := &nic.Sample{
		Counters: map[string]uint64{"Udp.RcvbufErrors": 5}, Softnet: []nic.Softnet{{CPU: 0, Processed: 0xfffffff0, Dropped: 3}, {CPU: 1}},
		Softirqs: map[string][]uint64{"NET_RX": {10, 0}}, Limits: map[string]int{"netdev_max_backlog": 1000, "netdev_budget": 300},
		CPU: map[int]nic.CPUTime{0: {All: 100}, 1: {All: 100}}, Daemons: map[int]uint64{0: 0, 1: 7},
	}
	after := &nic.Sample{
		Counters: map[string]uint64{"Udp.RcvbufErrors": 5, "iplink.eth0.rx_missed_errors": 9, "ethtool.eth0.rx_no_buffer_count": 9, "ethtool.eth0.tx_dropped": 4},
		Softnet:  []nic.Softnet{{CPU: 0, Processed: 0x10, Dropped: 10, Squeezed: 50}, {CPU: 1}},
		Softirqs: map[string][]uint64{"NET_RX": {110, 0}}, Limits: before.Limits,
		CPU: map[int]nic.CPUTime{0: {All: 200, Softirq: 80}, 1: {All: 200}}, Daemons: map[int]uint64{0: 60, 1: 7},
		Sockets: []nic.Drops{{Name: "udp 127.0.0.1:53 named[9]", Inode: 4, Drops: 3, Queued: 10, Buffer: 100}},
	}
	d := card()
	d.Rings = &nic.Rings{RX: 256, MaxRX: 4096}
	h := Health{Over: time.Second, Checks: Judge(before, after, time.Second, []*Map{NewMap(d)})}
	got := map[string]Light{}
	for _, c := range h.Checks {
		got[c.Stage] = c.Light
	}
	want := map[string]Light{
		"ring": Red, "interrupts": Green, "NET_RX": Red, "ksoftirqd": Red, "backlog": Red, "GRO and RPS": Green, "device": Green, "IP": Green, "sockets": Red,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	var b strings.Builder
	if err := h.WriteText(&b, false, false); err != nil || h.Worst() != Red {
		t.Error(err, h.Worst())
	}
	for _, want := range []string{
		"turn: ethtool -G eth0 rx 4096", "processed +32 ", "50 of 100 runs ended with work left", "ksoftirqd/0 took over: it ran for 60 % of the time",
		"7 packets did not fit a CPU's backlog and were dropped: CPUs 0 (7)", "udp 127.0.0.1:53 named[9] dropped 3, 10 bytes of 100 wait in it",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in:\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "tx_dropped") {
		t.Error("a counter of sending is judged")
	}
}

func TestLate(t *testing.T) {
	rec := make([]byte, laSize)
	put := func(at int, v uint64) { binary.LittleEndian.PutUint64(rec[at:], v) }
	for i, ns := range []uint64{1000, 2000, 9000, 9100, 9500, 10000} {
		put(8*i, ns)
	}
	put(pkSoft, 6000)
	put(pkVec, 6)
	put(pkWhere, 31<<32|2)
	put(laRead, 11000)
	put(laPID, 42)
	copy(rec[laComm:], "server")
	p, ok := decodeLate(rec)
	if !ok || p.Whole() != 10000 || p.IRQ != 31 || p.CPU != 2 {
		t.Errorf("%+v %v", p, ok)
	}
	want := []string{"raised → run 7 us: softirq TASKLET ran for 6 us before it"}
	if d := cmp.Diff(want, p.Why(func(int) string { return "irq 31" }, nil)); d != "" {
		t.Error(d)
	}
	p.Soft, p.Flags = 0, flDaemon
	if why := p.Why(nil, nil); !strings.Contains(why[0], "left to") {
		t.Error(why)
	}
	idle := []byte(strings.Clone(string(rec)))
	for at, v := range map[int]uint64{pkWake: 10100, laRan: 19000, laRead: 20000, laIdle: 4<<32 | 3, laLeft: 18000} {
		binary.LittleEndian.PutUint64(idle[at:], v)
	}
	copy(idle[laPrev:], "swapper/2")
	p, ok = decodeLate(idle)
	r := LatencyResult{Idle: []string{"POLL", "C1", "C6, leaves in 133 us"}}
	if why := strings.Join(p.Why(nil, r.idleWords), "\n"); !ok || !strings.Contains(why, "server[42] was woken, and its CPU took 7.9 us to leave idle state 2 (C6, leaves in 133 us), and 1 us more to run it") {
		t.Error(why)
	}
	if _, ok := decodeLate(rec[:100]); ok {
		t.Error("a record that is cut short")
	}
	put(pkRun, 1)
	if _, ok := decodeLate(rec); ok {
		t.Error("a record that goes backwards")
	}
}

// codeMem is code at an address.
type codeMem struct {
	at   uint64
	code []byte
}

func (m codeMem) ReadVirt(p []byte, addr uint64) error {
	copy(p, m.code[addr-m.at:])
	return nil
}

// TestSites finds the instruction in code as gcc makes it of tasklet_schedule, twice, once with a jump at the end.
func TestSites(t *testing.T) {
	code := []byte{
		0xf0, 0x48, 0x0f, 0xba, 0x6b, 0x28, 0x00, // 1000: lock btsq $0x0,0x28(%rbx)
		0x73, 0x01, // 1007: jae 100a
		0xc3,                   // 1009: ret
		0x48, 0x8d, 0x7b, 0x20, // 100a: lea 0x20(%rbx),%rdi
		0xe9, 0xed, 0x0f, 0x00, 0x00, // 100e: jmp 2000
		0xf0, 0x48, 0x0f, 0xba, 0x6f, 0x08, 0x00, // 1013: another function, that calls somebody else
		0xe8, 0x00, 0x00, 0x00, 0x00,
	}
	funcs := []Func{{0x1000, 0x13, "ask"}, {0x1013, 12, "other"}}
	got := FindSites(codeMem{0x1000, code}, funcs, []uint64{0x2000})
	if d := cmp.Diff([]Site{{Func: "ask", Base: "bx", Disp: 0x28}}, got); d != "" {
		t.Error(d)
	}
}
