package nic

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/fathom-trace/fathom/internal/jsonl"
)

// duration writes nanoseconds with three digits that count.
func duration(ns uint64) string {
	switch {
	case ns == 0:
		return "0"
	case ns < 1000:
		return fmt.Sprintf("%d ns", ns)
	case ns < 1e6:
		return fmt.Sprintf("%.3g us", float64(ns)/1e3)
	case ns < 1e9:
		return fmt.Sprintf("%.3g ms", float64(ns)/1e6)
	}
	return fmt.Sprintf("%.4g s", float64(ns)/1e9)
}

// bar draws the powers of two of a histogram, from 2^first ns on.
func bar(h *Hist, from, to int, utf8 bool) string {
	marks := []rune(" ▁▂▃▄▅▆▇█")
	if !utf8 {
		marks = []rune(" .:-=+*#@")
	}
	first, counts := h.Powers()
	var most uint64
	for _, n := range counts {
		most = max(most, n)
	}
	var b strings.Builder
	for i := from; i <= to; i++ {
		k := 0
		if i >= first && i-first < len(counts) && counts[i-first] > 0 {
			k = 1 + int(uint64(len(marks)-2)*counts[i-first]/most)
		}
		b.WriteRune(marks[k])
	}
	return b.String()
}

func (r *LatencyResult) rows() []Stage {
	return append(append([]Stage{}, r.Stages...), Stage{"whole", r.Whole})
}

// span is the range of powers of two that occur.
func span(rows []Stage) (from, to int) {
	from = 64
	for i := range rows {
		if first, counts := rows[i].Hist.Powers(); len(counts) > 0 {
			from, to = min(from, first), max(to, first+len(counts)-1)
		}
	}
	return from, to
}

// WriteText writes it for people.
func (r *LatencyResult) WriteText(w io.Writer, utf8 bool) error {
	var b strings.Builder
	rows := r.rows()
	from, to := span(rows)
	if r.Stages[3].Hist.Count == 0 {
		fmt.Fprintf(&b, "no packet was received in NET_RX in %s\n", r.For.Round(time.Millisecond))
	} else {
		t := newTable(1, 2, 3, 4, 5)
		t.row("stage", "packets", "p50", "p99", "p99.9", "max", fmt.Sprintf("from %s to %s, each column twice the one before", duration(1<<max(from-1, 0)), duration(1<<to)))
		for i := range rows {
			h := &rows[i].Hist
			t.row(rows[i].Name, strconv.FormatUint(h.Count, 10), duration(h.Quantile(0.5)), duration(h.Quantile(0.99)), duration(h.Quantile(0.999)), duration(h.Max), bar(h, from, to, utf8))
		}
		t.write(&b, "")
		r.check(&b)
	}
	r.vectorText(&b)
	fmt.Fprintf(&b, "\nNET_RX ran %d times: %d of them by ksoftirqd, %d because the run before was out of budget or time\n", r.Runs, r.Daemon, r.Again)
	for i := range r.Late {
		p := &r.Late[i]
		fmt.Fprintf(&b, "late  %s on CPU %d%s\n      %s\n", duration(p.Whole()), p.CPU, r.irqName(p.IRQ, p.IRQAt), strings.Join(p.Why(r.irqWords, r.idleWords), "\n      "))
	}
	if r.Told > len(r.Late) {
		fmt.Fprintf(&b, "      and %d more\n", r.Told-len(r.Late))
	}
	for _, s := range r.unseen() {
		fmt.Fprintf(&b, "unseen  %s\n", s)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Off is by how much the stages' sum differs from the whole, as a part of the whole.
func (r *LatencyResult) Off() float64 {
	if r.Whole.Sum == 0 {
		return 0
	}
	d := float64(r.Sum) - float64(r.Whole.Sum)
	return max(d, -d) / float64(r.Whole.Sum)
}

func (r *LatencyResult) check(b *strings.Builder) {
	if n := r.Stages[1].Hist.Count - r.Stages[0].Hist.Count; n > 0 && r.Stages[0].Hist.Count > 0 {
		fmt.Fprintf(b, "%d packets had no interrupt of their own: their NAPI instance was polled again, or their device has none\n", n)
	}
	if r.Whole.Count == 0 {
		b.WriteString("no packet of these was read from a socket: there is no whole\n")
		return
	}
	fmt.Fprintf(b, "the stages of the %d packets that were read add up to %s, measured as a whole it is %s: %.2f %% apart\n",
		r.Whole.Count, duration(r.Sum), duration(r.Whole.Sum), 100*r.Off())
	if r.Sched.Count > 0 {
		fmt.Fprintf(b, "in socket → read, %d readers were woken: until they ran p50 %s, p99 %s, p99.9 %s, max %s\n", r.Sched.Count,
			duration(r.Sched.Quantile(0.5)), duration(r.Sched.Quantile(0.99)), duration(r.Sched.Quantile(0.999)), duration(r.Sched.Max))
	}
}

func (r *LatencyResult) vectorText(b *strings.Builder) {
	if len(r.Vectors) == 0 {
		return
	}
	b.WriteString("\n")
	t := newTable(0, 1, 2, 3, 4)
	t.row("irq", "handlers ran", "mean", "max", "packets", "NAPI seen", "name")
	for i, v := range r.Vectors {
		if i == 8 {
			break
		}
		var ids []string
		for _, id := range r.NAPIs[v.IRQ] {
			ids = append(ids, strconv.FormatUint(uint64(id), 10))
		}
		t.row(strconv.Itoa(v.IRQ), strconv.FormatUint(v.Count, 10), duration(v.NS/max(v.Count, 1)), duration(v.Max), strconv.FormatUint(v.Packets, 10), strings.Join(ids, " "), v.Name)
	}
	t.write(b, "")
}

func (r *LatencyResult) irqWords(irq int) string {
	for _, v := range r.Vectors {
		if v.IRQ == irq && v.Name != "" {
			return fmt.Sprintf("irq %d (%s)", irq, v.Name)
		}
	}
	return fmt.Sprintf("irq %d", irq)
}

// idleWords name an idle state.
func (r *LatencyResult) idleWords(state int) string {
	if state >= 0 && state < len(r.Idle) && r.Idle[state] != "" {
		return fmt.Sprintf("idle state %d (%s)", state, r.Idle[state])
	}
	return fmt.Sprintf("idle state %d", state)
}

func (r *LatencyResult) irqName(irq int, at uint64) string {
	if at == 0 {
		return ", by no interrupt of a device"
	}
	return ", " + r.irqWords(irq)
}

// unseen says what the numbers leave out.
func (r *LatencyResult) unseen() (out []string) {
	out = append(out, "how long a card held a packet, and how long its interrupt waited (irqs off, moderation, a deep C-state): no clock of the card's is read")
	if !r.Ready {
		out = append(out, "sockets that got a packet while nobody was asleep on them: this kernel has no tracepoint sk_data_ready (Linux 6.3); such packets go from receive to read")
	}
	if r.Outside > 0 {
		out = append(out, fmt.Sprintf("%d packets that were received outside of NET_RX: by threads (threaded NAPI, PREEMPT_RT) or tasks that poll (busy_poll, tun)", r.Outside))
	}
	if r.Lost > 0 {
		out = append(out, fmt.Sprintf("%d late packets: the ring was full", r.Lost))
	}
	for _, m := range r.Missing {
		if !strings.HasPrefix(m, "sk_data_ready") {
			out = append(out, "tracepoint "+m+": this kernel has not got it")
		}
	}
	return out
}

// softirqNames are by vector (include/linux/interrupt.h).
var softirqNames = [...]string{"HI", "TIMER", "NET_TX", "NET_RX", "BLOCK", "IRQ_POLL", "TASKLET", "SCHED", "HRTIMER", "RCU"}

func softirqName(vec int) string {
	if vec >= 0 && vec < len(softirqNames) {
		return softirqNames[vec]
	}
	return "softirq " + strconv.Itoa(vec)
}

// Why says which stages took long, and who was at it. irq names an interrupt, idle an idle state.
func (p *Late) Why(irq, idle func(int) string) (out []string) {
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	for i, ns := range p.Stages() {
		if ns*5 < p.Whole() {
			continue
		}
		head := fmt.Sprintf("%s %s: ", StageNames[i], duration(ns))
		switch i {
		case 0:
			say("%sthe handler of %s took so long before it raised NET_RX", head, irq(p.IRQ))
		case 1:
			say("%s%s", head, p.waited(ns))
		case 2:
			if p.Polls > 0 {
				say("%s%d polls came before it in the same run of NET_RX", head, p.Polls)
			} else {
				say("%sNET_RX was at it before it polled", head)
			}
		case 3:
			say("%sthe driver, GRO, or packets before it in the same poll", head)
		case 4:
			say("%sthe protocols, netfilter, or a program on the way", head)
		case 5:
			say("%s%s", head, p.reading(ns, idle))
		}
	}
	return out
}

// waited says why NET_RX did not run.
func (p *Late) waited(ns uint64) string {
	switch {
	case p.Soft*2 > ns:
		return fmt.Sprintf("softirq %s ran for %s before it", softirqName(p.SoftVec), duration(p.Soft))
	case p.Hard*2 > ns:
		return fmt.Sprintf("handlers of interrupts ran for %s before it", duration(p.Hard))
	case p.Flags&flDaemon != 0 && p.Flags&flAgain != 0:
		return fmt.Sprintf("NET_RX was out of budget or time (time squeeze), and %s, which took over, waited for the CPU", p.At)
	case p.Flags&flDaemon != 0:
		return fmt.Sprintf("it was left to %s, which waited for the CPU as any task does", p.At)
	case p.Flags&flAgain != 0:
		return "NET_RX was out of budget or time (time squeeze), and began anew"
	}
	return fmt.Sprintf("softirqs or interrupts were off in %s, which it came in between", p.At)
}

// reading says why the packet lay in the socket.
func (p *Late) reading(ns uint64, idle func(int) string) string {
	who := fmt.Sprintf("%s[%d]", p.Comm, p.PID)
	if p.Ran == 0 {
		return who + " was not asleep waiting for it: it was busy, or somebody else was woken"
	}
	wait := p.Ran - p.woken()
	switch {
	case wait*2 > ns && strings.HasPrefix(p.Prev, "swapper/") && p.On == p.CPU:
		return fmt.Sprintf("%s was woken and ran %s later, when the interrupt and its softirqs were through on its CPU", who, duration(wait))
	case wait*2 > ns && strings.HasPrefix(p.Prev, "swapper/") && p.Idle >= 0 && p.Left > p.woken() && p.Left <= p.Ran:
		return fmt.Sprintf("%s was woken, and its CPU took %s to leave %s, and %s more to run it", who, duration(p.Left-p.woken()), idle(p.Idle), duration(p.Ran-p.Left))
	case wait*2 > ns && strings.HasPrefix(p.Prev, "swapper/"):
		return fmt.Sprintf("%s was woken, and its CPU, which was idle, took %s to run it: a deep C-state, or a virtual CPU that had to wait", who, duration(wait))
	case wait*2 > ns:
		return fmt.Sprintf("%s was woken and waited %s for its CPU, behind %s", who, duration(wait), p.Prev)
	}
	return fmt.Sprintf("%s was woken, ran after %s, and read late", who, duration(wait))
}

// WriteJSON writes it as JSON lines of type "stage" (the last is "whole"), "vector", "late" and "latency", the sum of all.
func (r *LatencyResult) WriteJSON(w io.Writer) error {
	e := jsonl.NewEncoder(w)
	for _, s := range r.rows() {
		first, counts := s.Hist.Powers()
		if err := e.Encode(map[string]any{
			"type": "stage", "stage": s.Name, "packets": s.Hist.Count, "sum_ns": s.Hist.Sum, "max_ns": s.Hist.Max, "p50_ns": s.Hist.Quantile(0.5),
			"p99_ns": s.Hist.Quantile(0.99), "p999_ns": s.Hist.Quantile(0.999), "log2_first": first, "log2": append([]uint64{}, counts...),
		}); err != nil {
			return err
		}
	}
	for _, v := range r.Vectors {
		if err := e.Encode(map[string]any{
			"type": "vector", "irq": v.IRQ, "name": v.Name, "handled": v.Count, "handler_ns": v.NS, "handler_max_ns": v.Max, "packets": v.Packets,
			"napis": append([]uint32{}, r.NAPIs[v.IRQ]...),
		}); err != nil {
			return err
		}
	}
	for i := range r.Late {
		p := &r.Late[i]
		if err := e.Encode(map[string]any{
			"type": "late", "whole_ns": p.Whole(), "stages_ns": p.Stages(), "cpu": p.CPU, "irq": p.IRQ, "ifindex": p.Index, "pid": p.PID, "comm": p.Comm,
			"why": p.Why(r.irqWords, r.idleWords),
		}); err != nil {
			return err
		}
	}
	return e.Encode(map[string]any{
		"type": "latency", "for_ns": r.For.Nanoseconds(), "read": r.Whole.Count, "whole_ns": r.Whole.Sum, "stages_ns": r.Sum, "net_rx_runs": r.Runs,
		"by_ksoftirqd": r.Daemon, "again": r.Again, "late": r.Told, "lost": r.Lost, "unseen": r.unseen(),
	})
}
