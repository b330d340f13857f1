package nic_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/answers/nic"
	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/internal/netns"
	"github.com/fathom-trace/fathom/kernel/live"
	netlive "github.com/fathom-trace/fathom/netstate/live"
	netnic "github.com/fathom-trace/fathom/netstate/nic"
	"github.com/fathom-trace/fathom/probe"
	"github.com/fathom-trace/fathom/usersym"
)

// cards finds the guest's cards: e1000e, the virtio card it is joined with, and the one with four queues.
func cards(t *testing.T) map[string]*nic.Map {
	t.Helper()
	r, err := netlive.Open("")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	devs, err := r.NICs("")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]*nic.Map{}
	for _, d := range devs {
		switch {
		case d.Driver == "virtio_net" && d.Channels != nil && d.Channels.MaxCombined == 4:
			out["four"] = nic.NewMap(d)
		case d.Driver == "virtio_net" || d.Driver == "e1000e":
			out[d.Driver] = nic.NewMap(d)
		}
	}
	return out
}

// messages are the interrupts that sysfs has of a device, by another way than what is tested.
func messages(t *testing.T, dev string) (irqs []string) {
	t.Helper()
	at, err := filepath.EvalSymlinks("/sys/class/net/" + dev + "/device")
	if err != nil {
		t.Fatal(err)
	}
	for ; at != "/"; at = filepath.Dir(at) {
		if es, err := os.ReadDir(filepath.Join(at, "msi_irqs")); err == nil {
			for _, e := range es {
				irqs = append(irqs, e.Name())
			}
			return irqs
		}
	}
	t.Fatalf("%s has no msi_irqs", dev)
	return nil
}

// up sets a device up: some ask for their interrupts then.
func up(t *testing.T, devs ...string) {
	t.Helper()
	for _, d := range devs {
		l, err := netlink.LinkByName(d)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetUp(l); err != nil {
			t.Fatal(err)
		}
	}
}

// TestMap maps every vector of the cards, and compares with sysfs and /proc/interrupts.
func TestMap(t *testing.T) {
	ktest.NeedGuest(t)
	for _, m := range cards(t) {
		up(t, m.Name)
	}
	text, err := os.ReadFile("/proc/interrupts")
	if err != nil {
		t.Fatal(err)
	}
	found := cards(t)
	for _, tt := range []struct {
		card           string
		vectors, rx    int
		interruptNames []string
	}{
		{"four", 9, 4, []string{"-input.0", "-input.3", "-output.3", "-config"}}, {"virtio_net", 3, 1, []string{"-input.0", "-output.0"}}, {"e1000e", 3, 1, []string{"-rx-0", "-tx-0"}},
	} {
		m := found[tt.card]
		if m == nil {
			t.Errorf("there is no %s", tt.card)
			continue
		}
		var b strings.Builder
		if err := m.WriteText(&b, false); err != nil {
			t.Fatal(err)
		}
		t.Logf("\n%s", b.String())
		want := messages(t, m.Name)
		rx := map[int]int{} // queue → irq
		tx := map[int]int{}
		for _, r := range m.Rows {
			if r.Vector == nil {
				t.Errorf("%s: %v have no interrupt", m.Name, r.Queues[0])
				continue
			}
			i := slices.Index(want, fmt.Sprint(r.Vector.IRQ))
			if i < 0 {
				t.Errorf("%s: sysfs has no irq %d", m.Name, r.Vector.IRQ)
				continue
			}
			want = slices.Delete(want, i, i+1)
			line := lineOf(string(text), r.Vector.IRQ)
			for _, n := range r.Vector.Names {
				if !strings.HasSuffix(line, n) {
					t.Errorf("irq %d: named %q, /proc/interrupts has %q", r.Vector.IRQ, n, line)
				}
			}
			if r.Vector.PCI != m.PCI || r.Vector.Index < 0 || r.Vector.Effective == "" {
				t.Errorf("irq %d: %+v on %s", r.Vector.IRQ, r.Vector, m.PCI)
			}
			for _, q := range r.Queues {
				if q.Dir == netnic.RX {
					rx[q.Index] = r.Vector.IRQ
				} else {
					tx[q.Index] = r.Vector.IRQ
				}
			}
		}
		if len(want) > 0 {
			t.Errorf("%s: %v of sysfs are not in the map", m.Name, want)
		}
		if len(m.Vectors) != tt.vectors || len(rx) != tt.rx || len(tx) != tt.rx {
			t.Errorf("%s: %d vectors, %d rx and %d tx queues with one", m.Name, len(m.Vectors), len(rx), len(tx))
		}
		if tt.card != "e1000e" { // whose driver has no channels
			if said := strings.Join(asked(t, "-l", m.Name), "\n"); !regexp.MustCompile(fmt.Sprintf(`(?s)Current.*Combined:\s+%d\n`, len(rx))).MatchString(said) {
				t.Errorf("%s: %d rx queues have an interrupt, netlink says by ethtool -l:\n%s", m.Name, len(rx), said)
			}
		}
		for q, irq := range rx {
			if tx[q] == irq {
				t.Errorf("%s: rx-%d and tx-%d have the same irq", m.Name, q, q)
			}
		}
		for _, n := range tt.interruptNames {
			if !slices.ContainsFunc(m.Vectors, func(v netnic.Vector) bool {
				return slices.ContainsFunc(v.Names, func(s string) bool { return strings.HasSuffix(s, n) })
			}) {
				t.Errorf("%s: no vector …%s", m.Name, n)
			}
		}
		if ktest.Where() != "debian-6.1" && len(m.NAPIs) == 0 {
			t.Errorf("%s: no NAPI instance by netlink: %v", m.Name, m.Missing)
		}
	}
}

// lineOf is the line of an interrupt.
func lineOf(text string, irq int) string {
	for l := range strings.Lines(text) {
		if strings.HasPrefix(strings.TrimSpace(l), fmt.Sprintf("%d:", irq)) {
			return strings.TrimSpace(l)
		}
	}
	return ""
}

// world is the running kernel.
func world(t *testing.T) (*probe.World, *live.Live, int) {
	t.Helper()
	l, err := live.Open(live.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	users := usersym.New(usersym.Options{})
	t.Cleanup(func() { users.Close() })
	w := probe.NewWorld(l, users, 0)
	t.Cleanup(func() { w.Close() })
	cpus, err := l.NumCPU()
	if err != nil {
		t.Fatal(err)
	}
	return w, l, cpus
}

// apart puts a device into a namespace of its own, with an address.
func apart(t *testing.T, dev, addr string) netns.NS {
	t.Helper()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	l, err := netlink.LinkByName(dev)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetNsFd(l, ns.FD()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // cards come back
		_ = ns.Do(func() error {
			h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
			if err != nil {
				return err
			}
			defer h.Close()
			l, err := h.LinkByName(dev)
			if err != nil {
				return err
			}
			return h.LinkSetNsPid(l, 1)
		})
		ns.Close()
	})
	err = ns.Do(func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		l, err := h.LinkByName(dev)
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr(addr)
		if err != nil {
			return err
		}
		if err := h.AddrAdd(l, a); err != nil {
			return err
		}
		return h.LinkSetUp(l)
	})
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

// listen makes a socket in a namespace.
func listen(t *testing.T, ns netns.NS, addr string) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	err := ns.Do(func() (err error) {
		a, err := net.ResolveUDPAddr("udp", addr)
		if err != nil {
			return err
		}
		c, err = net.ListenUDP("udp", a)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// arrives waits until a datagram comes through: links need a while to come up. Of those that it sent none comes later.
func arrives(t *testing.T, from, to *net.UDPConn) {
	t.Helper()
	b := make([]byte, 100)
	come := func(within time.Duration) string {
		to.SetReadDeadline(time.Now().Add(within))
		n, err := to.Read(b)
		if err != nil {
			return ""
		}
		return string(b[:n])
	}
	send := func(what string) {
		if _, err := from.WriteTo([]byte(what), to.LocalAddr()); err != nil {
			t.Log(err)
		}
	}
	for range 100 {
		if send("?"); come(300*time.Millisecond) == "" {
			continue
		}
		send("!") // overtakes those at most that the neighbour's answer sets free
		for what := ""; what != "!"; {
			if what = come(time.Minute); what == "" {
				t.Fatal("the last does not arrive")
			}
		}
		for come(100*time.Millisecond) != "" {
		}
		return
	}
	t.Fatal("nothing arrives")
}

// end is one of two cards that are joined, in a namespace of its own, with a socket there.
type end struct {
	dev  string
	ns   netns.NS
	sock *net.UDPConn
}

// joined sets up the e1000e, as 10.99.0.1, and the virtio card, as 10.99.0.2; packets come through both ways.
func joined(t *testing.T) (e, v end) {
	t.Helper()
	found := cards(t)
	if found["e1000e"] == nil || found["virtio_net"] == nil {
		t.Fatal("cards are missing")
	}
	at := func(card, addr string) end {
		n := end{dev: found[card].Name}
		n.ns = apart(t, n.dev, addr+"/24")
		n.sock = listen(t, n.ns, addr+":4000")
		return n
	}
	e, v = at("e1000e", "10.99.0.1"), at("virtio_net", "10.99.0.2")
	arrives(t, e.sock, v.sock)
	arrives(t, v.sock, e.sock)
	e.knows(t)
	v.knows(t)
	return e, v
}

// knows has an end ask no more for the other's address, which it does every half minute: that would be a packet that nobody counts on.
func (n end) knows(t *testing.T) {
	t.Helper()
	err := n.ns.Do(func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		known, err := h.NeighList(0, unix.AF_INET)
		for i := range known {
			if len(known[i].HardwareAddr) > 0 {
				known[i].State = netlink.NUD_PERMANENT
				err = errors.Join(err, h.NeighSet(&known[i]))
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestLatency sends datagrams from card to card, and compares the counts of all stages, and their sum with the whole.
func TestLatency(t *testing.T) {
	ktest.NeedGuest(t, ktest.BTF, ktest.RawTracepoint, ktest.Ringbuf)
	e, v := joined(t)
	for _, tt := range []struct {
		name     string
		ns       netns.NS
		dev      string
		from, to *net.UDPConn
		irq      string
	}{{"e1000e", e.ns, e.dev, v.sock, e.sock, "-rx-0"}, {"virtio", v.ns, v.dev, e.sock, v.sock, "-input.0"}} {
		t.Run(tt.name, func(t *testing.T) { latency(t, tt.ns, tt.dev, tt.from, tt.to, tt.irq) })
	}
}

func latency(t *testing.T, ns netns.NS, dev string, from, to *net.UDPConn, irq string) {
	r, err := netlive.OpenNS(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	devs, err := r.NICs(dev)
	if err != nil {
		t.Fatal(err)
	}
	if len(devs[0].Queues) == 0 || !devs[0].Queues[0].Sysfs {
		t.Errorf("sysfs of the namespace was not read: %+v", devs[0])
	}
	w, _, cpus := world(t)
	l, err := nic.OpenLatency(w, nic.LatencyOptions{Index: devs[0].Index, NetNS: uint32(r.NS().Inode), Slow: time.Microsecond, CPUs: cpus, Keep: 50})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const n = 200
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	buf := make([]byte, 200)
	for i := range n {
		if _, err := from.WriteTo(make([]byte, 100), to.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		to.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := to.Read(buf); err != nil {
			t.Fatalf("datagram %d: %v", i, err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	res, err := l.Result()
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if err := res.WriteText(&text, true); err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", text.String())
	told(t, res)
	arp := uint64(2) // ARP is received, too, and not read
	for i, s := range res.Stages {
		least, most := uint64(n), uint64(n)
		if i < 4 {
			most += arp
		}
		if i == 0 { // a NAPI instance that is polled again needs no interrupt
			least = n * 9 / 10
		}
		if i == 4 && !res.Ready { // only sockets that woke somebody are seen
			least = 0
		}
		if s.Hist.Count < least || s.Hist.Count > most {
			t.Errorf("%s: %d packets, %d were sent", s.Name, s.Hist.Count, n)
		}
	}
	if res.Whole.Count != n || res.Off() > 0.05 {
		t.Errorf("whole: %d packets, stages are %.3f apart", res.Whole.Count, res.Off())
	}
	interrupts, _ := os.ReadFile("/proc/interrupts")
	var packets uint64
	for _, v := range res.Vectors {
		if strings.HasSuffix(lineOf(string(interrupts), v.IRQ), irq) {
			packets += v.Packets
		}
	}
	if packets < n*9/10 {
		t.Errorf("%d of %d packets are said to have come with %s", packets, n, irq)
	}
}

// told looks at the packets that were told one by one: they are kept for a timeline, and know of their CPU's idle states.
func told(t *testing.T, res *nic.LatencyResult) {
	t.Helper()
	var ran, idle int
	for _, p := range slices.Concat(res.Kept, res.Late) {
		if strings.HasPrefix(p.Prev, "swapper/") {
			if ran++; p.Idle >= 0 {
				idle++
			}
		}
	}
	var drawn strings.Builder
	if err := res.WriteTimeline(&drawn); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(drawn.String(), "socket → read"); len(res.Kept) == 0 || len(res.Kept) > 50 || n < len(res.Kept) || idle < ran {
		t.Errorf("%d packets were told, %d kept, %d drawn, %d know an idle state of %d that were behind one", res.Told, len(res.Kept), n, idle, ran)
	}
}

// load loads a module until the test ends, or until what it gives is called.
func load(t *testing.T, file, params string) (unload func()) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), params, 0); err != nil {
		t.Fatal(err)
	}
	unload = sync.OnceFunc(func() {
		if err := unix.DeleteModule(strings.TrimSuffix(filepath.Base(file), ".ko"), 0); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(unload)
	return unload
}

// lateRun is what the module does once.
type lateRun struct {
	kind, name string
	ms         uint64
	where      string
}

// sites are the places in the module that ask for tasklets.
func sites(t *testing.T, l *live.Live) []nic.Site {
	t.Helper()
	syms, err := l.Kallsyms()
	if err != nil {
		t.Fatal(err)
	}
	mem, err := l.Kcore()
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	var targets []uint64
	for _, name := range nic.ListTasklet {
		targets = append(targets, syms.ByName(name)...)
	}
	var funcs []nic.Func
	for s := range syms.Text() {
		if s.Module == "fathom_late" {
			funcs = append(funcs, nic.Func{Addr: s.Addr, Size: 1024, Name: s.Name})
		}
	}
	for i := range funcs[:len(funcs)-1] {
		funcs[i].Size = int(min(funcs[i+1].Addr-funcs[i].Addr, 1024))
	}
	return nic.FindSites(mem, funcs, targets)
}

// TestWork finds misbehaving handlers, tasklets and work by their names.
func TestWork(t *testing.T) {
	ktest.NeedGuest(t, ktest.BTF, ktest.RawTracepoint, ktest.Modules)
	load(t, lateModule, "")
	w, l, cpus := world(t)
	k, err := nic.OpenWork(w, cpus, sites(t, l))
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	want := []lateRun{
		{"tasklet", "late_tasklet_flush", 20, ""}, {"tasklet", "late_tasklet_reclaim", 20, ""}, {"work", "late_work_refill", 50, "events"},
		{"work", "late_sleep_drain", 60, "events"}, {"work", "late_work_reclaim", 30, "late_narrow"}, {"irq", "late_handler_drain", 20, "drain"},
	}
	for _, order := range []string{"twice flush 20", "tasklet reclaim 20", "work refill 50", "sleep drain 60", "narrow reclaim 30", "handler drain 20"} {
		if err := os.WriteFile("/proc/fathom_late", []byte(order), 0); err != nil {
			t.Fatal(order, err)
		}
	}
	syms, err := l.Kallsyms()
	if err != nil {
		t.Fatal(err)
	}
	var res *nic.WorkResult
	found := func(r lateRun) int {
		return slices.IndexFunc(res.Functions, func(f nic.Function) bool { return f.Kind == r.kind && f.Name == r.name })
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		res, err = k.Result(uint64(time.Now().UnixNano()-l.Clocks().MonoToReal), func(addr uint64) string {
			name, _, _, _ := syms.ByAddr(addr)
			return name
		})
		if err != nil {
			t.Fatal(err)
		}
		missing := slices.ContainsFunc(want, func(r lateRun) bool { return found(r) < 0 })
		if !missing || time.Now().After(deadline) {
			break
		}
	}
	var text strings.Builder
	if err := res.WriteText(&text, 0); err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", text.String())
	for _, tt := range want {
		i := found(tt)
		if i < 0 {
			t.Errorf("%s %s is not found", tt.kind, tt.name)
			continue
		}
		f := res.Functions[i]
		// Clocks of emulated CPUs are uneven.
		if f.Run.Count != 1 || f.Run.Max < tt.ms*1e6/5 || !strings.Contains(f.Where, tt.where) {
			t.Errorf("%s: %d runs, max %d ns, %q", tt.name, f.Run.Count, f.Run.Max, f.Where)
		}
		if limited := tt.where == "late_narrow"; limited != (f.Limited == 1) || limited != (f.Most == 1) || !res.Limits {
			t.Errorf("%s: queued %d times while its workqueue, of %d items, was full", tt.name, f.Limited, f.Most)
		}
		// Of two requests while softirqs are off one is carried out.
		if asked := map[string]uint64{"late_tasklet_flush": 2, "late_tasklet_reclaim": 1}[tt.name]; f.Asked != asked || tt.kind == "tasklet" && f.Scheduled != 1 {
			t.Errorf("%s: asked for %d times, put into the list %d times", tt.name, f.Asked, f.Scheduled)
		}
		if !slices.ContainsFunc(res.Notes(), func(n string) bool { return strings.Contains(n, tt.name) }) {
			t.Errorf("no note names %s: %q", tt.name, res.Notes())
		}
	}
}
