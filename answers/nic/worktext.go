package nic

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/fathom-trace/fathom/internal/jsonl"
)

func decimal(n uint64) string { return strconv.FormatUint(n, 10) }

// hogs is how long a work item may keep its CPU before it is pointed at, handler how long an interrupt or softirq may take
// (wq_cpu_intensive_thresh_us of kernel/workqueue.c is 10 ms).
const (
	hog     = 10 * time.Millisecond
	handler = time.Millisecond
)

// WriteText writes it for people, with most rows of functions; 0 is all.
func (r *WorkResult) WriteText(w io.Writer, most int) error {
	var b strings.Builder
	t := newTable(1, 2, 3, 4, 5, 6, 7)
	t.row("softirq", "runs", "waited p50", "p99", "max", "ran p50", "p99", "max", "time", "ksoftirqd")
	for i := range r.Softirqs {
		s := &r.Softirqs[i]
		share := ""
		if s.Daemon.Count > 0 {
			share = fmt.Sprintf("%d runs, %.0f %% of the time", s.Daemon.Count, 100*float64(s.Daemon.Sum)/float64(max(s.Run.Sum, 1)))
		}
		t.row(s.Name, decimal(s.Run.Count), duration(s.Wait.Quantile(.5)), duration(s.Wait.Quantile(.99)), duration(s.Wait.Max),
			duration(s.Run.Quantile(.5)), duration(s.Run.Quantile(.99)), duration(s.Run.Max), duration(s.Run.Sum), share)
	}
	t.write(&b, "")
	b.WriteString("\n")
	t = newTable(2, 3, 4, 5, 6)
	t.row("kind", "function", "runs", "time", "mean", "max", "waited max", "on CPU", "scheduled", "where")
	for i := range r.Functions {
		if most > 0 && i == most {
			break
		}
		f := &r.Functions[i]
		c := []string{f.Kind, f.Name, decimal(f.Run.Count), duration(f.Run.Sum), duration(f.Run.Mean()), duration(f.Run.Max), "", "", "", f.Where}
		if f.Run.Count == 0 { // not seen
			c[2], c[3], c[4], c[5] = "?", "?", "?", "?"
		}
		if f.Kind == kindNames[kindWork] {
			c[6], c[7] = duration(f.Wait.Max), duration(f.CPU)
			c[9] += " " + f.Worker
		}
		switch {
		case f.Asked > 0:
			c[8] = fmt.Sprintf("asked %d, listed %d", f.Asked, f.Scheduled)
		case f.Scheduled > 0:
			c[8] = fmt.Sprintf("listed %d", f.Scheduled)
		}
		t.row(c...)
	}
	t.write(&b, "")
	if most > 0 && len(r.Functions) > most {
		fmt.Fprintf(&b, "and %d more functions (-v shows them)\n", len(r.Functions)-most)
	}
	for _, n := range r.Notes() {
		fmt.Fprintf(&b, "note  %s\n", n)
	}
	for _, m := range r.unseen() {
		fmt.Fprintf(&b, "unseen  %s\n", m)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Notes point at what is out of order.
func (r *WorkResult) Notes() (out []string) {
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	for i := range r.Softirqs {
		s := &r.Softirqs[i]
		if s.Daemon.Sum*10 > s.Run.Sum && s.Daemon.Sum*100 > uint64(r.For) {
			say("ksoftirqd ran %.0f %% of softirq %s: more was raised than the kernel does on the side; there it competes with tasks, at nice 0 under the scheduler",
				100*float64(s.Daemon.Sum)/float64(max(s.Run.Sum, 1)), s.Name)
		}
	}
	for i := range r.Functions {
		f := &r.Functions[i]
		long := time.Duration(f.Run.Max)
		if f.Asked > f.Scheduled && f.Scheduled > 0 {
			ran := fmt.Sprintf("ran %d times", f.Run.Count)
			if f.Run.Count == 0 {
				ran = fmt.Sprintf("was put into a list %d times", f.Scheduled)
			}
			say("tasklet %s was scheduled %d times and %s: scheduled again before it ran, it runs once all the same", f.Name, f.Asked, ran)
		}
		if f.Limited > 0 {
			say("work %s was queued %d times while workqueue %s ran %d items, which is all that it may (max_active): it waited for one of them to end, up to %s",
				f.Name, f.Limited, f.Where, f.Most, duration(f.Wait.Max))
		}
		switch {
		case f.Kind == kindNames[kindWork] && f.CPU > 0 && long >= hog && time.Duration(f.CPU)*2 > time.Duration(f.Run.Sum):
			say("work %s kept its CPU for up to %s: others of workqueue %s wait for it, unless that is WQ_CPU_INTENSIVE or WQ_UNBOUND", f.Name, duration(f.Run.Max), f.Where)
		case f.Kind == kindNames[kindWork] && long >= hog:
			say("work %s took up to %s, most of it asleep", f.Name, duration(f.Run.Max))
		case f.Kind == kindNames[kindIRQ] && long >= handler:
			say("the handler %s of %s took up to %s with interrupts off on its CPU", f.Name, f.Where, duration(f.Run.Max))
		case (f.Kind == kindNames[kindVector] || f.Kind == kindNames[kindHRTimer]) && long >= handler:
			say("%s %s took up to %s with interrupts off on its CPU", f.Kind, f.Name, duration(f.Run.Max))
		case (f.Kind == kindNames[kindTasklet] || f.Kind == kindNames[kindTimer]) && long >= handler:
			say("%s %s took up to %s: softirqs of its CPU waited for it, NET_RX among them", f.Kind, f.Name, duration(f.Run.Max))
		}
	}
	for i := range r.Stuck {
		s := &r.Stuck[i]
		if s.Running {
			say("work %s has run for %s in %s and has not ended (%s)", s.Name, s.For.Round(time.Millisecond), s.Worker, s.Where)
		} else {
			say("work %s has waited for %s for a worker of %s%s", s.Name, s.For.Round(time.Millisecond), s.Where, s.why())
		}
	}
	return out
}

// why says what work that has not begun met when it was queued.
func (s *Stuck) why() string {
	switch {
	case s.Most > 0:
		return fmt.Sprintf(": it ran %d items already, which is all that it may (max_active)", s.Most)
	case s.Workers > 0 && s.Idle == 0:
		return fmt.Sprintf(": none of the %d workers of its pool was idle", s.Workers)
	}
	return ""
}

func (r *WorkResult) unseen() (out []string) {
	if !r.Limits {
		out = append(out, "limits of workqueues, and workers of their pools: this kernel's types do not have them where they are looked for")
	}
	if !r.Tasklets {
		out = append(out, "runs of tasklets: this kernel has no tracepoints for them (Linux 6.4, and 6.1's later releases); softirqs HI and TASKLET are all of them together")
	}
	for _, m := range r.Missing {
		if !strings.HasPrefix(m, "tasklet_") {
			out = append(out, m)
		}
	}
	if r.LostMap > 0 {
		out = append(out, fmt.Sprintf("%d events of functions that did not fit the map", r.LostMap))
	}
	return out
}

// WriteJSON writes it as JSON lines of type "softirq", "function", "stuck", "note" and "work", the sum of all.
func (r *WorkResult) WriteJSON(w io.Writer) error {
	e := jsonl.NewEncoder(w)
	var lines []map[string]any
	for i := range r.Softirqs {
		s := &r.Softirqs[i]
		lines = append(lines, map[string]any{
			"type": "softirq", "name": s.Name, "runs": s.Run.Count, "run_ns": s.Run.Sum, "run_p50_ns": s.Run.Quantile(.5), "run_p99_ns": s.Run.Quantile(.99), "run_max_ns": s.Run.Max,
			"wait_p50_ns": s.Wait.Quantile(.5), "wait_p99_ns": s.Wait.Quantile(.99), "wait_max_ns": s.Wait.Max,
			"ksoftirqd_runs": s.Daemon.Count, "ksoftirqd_ns": s.Daemon.Sum,
		})
	}
	for i := range r.Functions {
		f := &r.Functions[i]
		l := map[string]any{"type": "function", "kind": f.Kind, "function": f.Name, "runs": f.Run.Count, "run_ns": f.Run.Sum, "run_max_ns": f.Run.Max, "where": f.Where}
		if f.Kind == kindNames[kindWork] {
			l["wait_ns"], l["wait_max_ns"], l["cpu_ns"], l["worker"] = f.Wait.Sum, f.Wait.Max, f.CPU, f.Worker
			l["limited"], l["max_active"] = f.Limited, f.Most
		}
		if f.Scheduled > 0 {
			l["listed"] = f.Scheduled
		}
		if f.Asked > 0 {
			l["scheduled"] = f.Asked
		}
		lines = append(lines, l)
	}
	for _, s := range r.Stuck {
		lines = append(lines, map[string]any{"type": "stuck", "function": s.Name, "where": s.Where, "worker": s.Worker, "stuck_ns": s.For.Nanoseconds(), "running": s.Running,
			"max_active": s.Most, "pool_workers": s.Workers, "pool_idle": s.Idle})
	}
	for _, n := range r.Notes() {
		lines = append(lines, map[string]any{"type": "note", "text": n})
	}
	lines = append(lines, map[string]any{"type": "work", "for_ns": r.For.Nanoseconds(), "lost": r.LostMap, "unseen": r.unseen()})
	for _, l := range lines {
		if err := e.Encode(l); err != nil {
			return err
		}
	}
	return nil
}
