package callgraph

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fathom-trace/fathom/answers/graph"
	"github.com/fathom-trace/fathom/internal/feature"
	"github.com/fathom-trace/fathom/internal/script"
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/kernel/live"
	"github.com/fathom-trace/fathom/lang/check"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/lang/types"
	"github.com/fathom-trace/fathom/probe"
	"github.com/fathom-trace/fathom/probe/try"
)

// probes puts probes on the entry and the return of the function and of those below it. What runs there is a program in the
// language; it speaks only while its task is inside the function.
type probes struct {
	run     *run
	sess    *probe.Session
	ring    *probe.Reader
	events  []*ir.Event
	watched []string // functions below the one asked for
	found   string   // how they were found
	absent  []string // functions on which no probe could be put
	bits    countBits
	count   uint64 // preempt_count of the last event
}

// How many functions are watched at most: with kprobe.multi all are attached at once, else each is two perf events.
const (
	mostMulti  = 4000
	mostSingle = 250
	// farMulti and farSingle are how many calls away functions are watched if no depth is given.
	farMulti  = 6
	farSingle = 4
)

func (p *probes) start() (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	most, far := mostSingle, farSingle
	if try.Detect(try.KprobeMulti) == nil {
		most, far = mostMulti, farMulti
	}
	p.watched, p.found = p.run.below(most, far)
	p.bits = p.learn()
	text := p.text()
	if p.run.o.Verbose {
		fmt.Fprintln(p.run.o.Stderr, text)
	}
	return p.load(text)
}

// text is the program. A task is inside the function while @in has it; an idle task, of which every CPU has one, goes by its
// CPU.
func (p *probes) text() string {
	const key = `$k = curtask.pid ? (int64)curtask.pid : -1 - (int64)cpu;`
	pc, _ := p.preemptCount()
	event := func(what graph.Kind) string {
		return fmt.Sprintf(`print((what = %d, f = func, t = nsecs, cpu = cpu, task = (int64)curtask.pid, pc = %s, comm = comm));`, what, pc)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "config = { missing_probes = \"warn\"; max_probes = %d; max_map_keys = 65536 }\n", 2*len(p.watched)+64)
	root := p.point(p.run.target.name, p.run.target.module)
	fmt.Fprintf(&b, "kprobe:%s %s{ %s @in[$k] += 1; %s }\n", root, p.filter(), key, event(graph.Enter))
	fmt.Fprintf(&b, "kretprobe:%s { %s if (@in[$k]) { %s if (@in[$k] > 1) { @in[$k] -= 1; } else { delete(@in, $k); } } }\n", root, key, event(graph.Exit))
	if len(p.watched) > 0 {
		fmt.Fprintf(&b, "kprobe:%s { %s if (@in[$k]) { %s } }\n", strings.Join(p.watched, ",kprobe:"), key, event(graph.Enter))
		fmt.Fprintf(&b, "kretprobe:%s { %s if (@in[$k]) { %s } }\n", strings.Join(p.watched, ",kretprobe:"), key, event(graph.Exit))
	}
	b.WriteString(switches)
	if p.run.child != nil || p.run.o.PID != 0 {
		fmt.Fprintf(&b, forks, p.pid())
	}
	return b.String()
}

// switches tells when a task inside the function leaves a CPU and comes back, or ends (EXIT_DEAD, EXIT_ZOMBIE).
var switches = fmt.Sprintf(`tracepoint:sched:sched_switch {
	if (@in[(int64)args.prev_pid]) {
		if (args.prev_state & 0x30) { print((what = %d, t = nsecs, cpu = cpu, task = (int64)args.prev_pid)); delete(@in, (int64)args.prev_pid); }
		else { print((what = %d, t = nsecs, cpu = cpu, task = (int64)args.prev_pid)); }
	}
	if (@in[(int64)args.next_pid]) { print((what = %d, t = nsecs, cpu = cpu, task = (int64)args.next_pid)); }
}
`, graph.Gone, graph.Out, graph.In)

// forks keeps the children of a process in @who, by the kernel's numbers.
const forks = `tracepoint:sched:sched_process_fork /pid == %d || @who[(int64)curtask.tgid]/ { @who[(int64)args.child_pid] = 1; }
tracepoint:sched:sched_process_exit /@who[(int64)curtask.pid]/ { delete(@who, (int64)curtask.pid); }
`

func (p *probes) pid() int {
	if p.run.child != nil {
		return p.run.child.PID()
	}
	return p.run.o.PID
}

// filter is the predicate of the function asked for.
func (p *probes) filter() string {
	var all []string
	if p.pid() != 0 {
		all = append(all, fmt.Sprintf("(pid == %d || @who[(int64)curtask.tgid])", p.pid()))
	}
	if c := p.run.o.Comm; c != "" {
		all = append(all, "comm == "+strconv.Quote(c))
	}
	if all == nil {
		return ""
	}
	return "/" + strings.Join(all, " && ") + "/ "
}

func (p *probes) point(name, module string) string {
	if module != "" && module != "vmlinux" {
		return module + ":" + name
	}
	return name
}

func (p *probes) load(text string) error {
	src := &syntax.Source{Name: "trace graph", Text: text}
	bo := script.BuildOptions(p.run.world)
	c, diags := script.Compile(src, check.Options{World: p.run.world, Arch: runtime.GOARCH}, bo)
	for _, d := range diags {
		if d.Severity == syntax.Error {
			return unsupportedProbes("compile the program of the engine: "+d.Error(), nil)
		}
	}
	var err error
	p.events = c.Prog.Events
	p.sess, err = probe.Load(c.Info, c.Prog, c.Obj, probe.Options{World: p.run.world, Missing: c.Info.Config.MissingProbes,
		Warn: func(s string) { p.absent = append(p.absent, s) }})
	if err != nil {
		return refused("load", err)
	}
	if p.ring, err = p.sess.Reader(); err != nil {
		return err
	}
	if _, err := p.sess.Attach(); err != nil {
		return refused("attach", err)
	}
	if slices.ContainsFunc(p.absent, func(s string) bool { return strings.Contains(s, "probe:"+p.run.target.name+":") }) {
		return unsupportedProbes(strings.Join(p.absent[:1], ""), nil)
	}
	if p.run.o.Verbose {
		for _, plan := range p.sess.Plans() {
			fmt.Fprintln(p.run.o.Stderr, plan)
		}
	}
	return nil
}

func unsupportedProbes(tried string, err error) error {
	return feature.Unsupported("probes on entry and return", tried, err)
}

// refused makes a missing feature of what the kernel refuses.
func refused(what string, err error) error {
	if errors.Is(err, feature.ErrUnsupported) || errors.Is(err, fs.ErrPermission) {
		return unsupportedProbes(what, err)
	}
	return err
}

func (p *probes) note() string {
	s := p.found
	if n := len(p.absent); n > 0 {
		s += fmt.Sprintf("; %d probes could not be attached", n)
	}
	if _, known := p.preemptCount(); !known {
		s += "; interrupts cannot be told apart, as this kernel does not say where its preempt count is"
	}
	return s
}

func (p *probes) toReal(c live.Clocks) int64 { return c.BootToReal }

func (p *probes) read(wait time.Duration, give func(graph.Event)) error {
	until := time.Now().Add(wait)
	for {
		rec, err := p.ring.Next(until)
		if err != nil || rec == nil {
			return err
		}
		if e, ok := p.decode(rec); ok {
			give(e)
		}
		if p.run.enough() {
			return nil
		}
		if p.ring.Empty() && time.Now().After(until) && wait > 0 {
			return nil
		}
	}
}

// decode reads a record: the number of its event, then the fields of the record that the program prints.
func (p *probes) decode(rec []byte) (e graph.Event, ok bool) {
	if len(rec) < 8 {
		return e, false
	}
	id, data := binary.LittleEndian.Uint64(rec), rec[8:]
	if id >= uint64(len(p.events)) || p.events[id].Kind != ir.EvPrint {
		return e, false
	}
	t := p.events[id].Payload
	if t == nil || len(t.Fields) != 1 || len(data) < t.Size {
		return e, false
	}
	for _, f := range t.Fields[0].Type.Fields {
		at := t.Fields[0].Off + f.Off
		b := data[at : at+f.Type.Size]
		switch f.Name {
		case "what":
			e.Kind = graph.Kind(number(b))
		case "f":
			e.Func = number(b)
		case "t":
			e.Time = number(b)
		case "cpu":
			e.CPU = int(number(b))
		case "task":
			e.Task = int(int64(number(b)))
		case "pc":
			p.count = number(b)
			e.Ctx = p.bits.context(p.count)
		case "comm":
			e.Comm = text(f.Type, b)
		}
	}
	return e, true
}

// number reads an unsigned little-endian number of up to 8 bytes.
func number(b []byte) uint64 {
	var n uint64
	for i := min(len(b), 8) - 1; i >= 0; i-- {
		n = n<<8 | uint64(b[i])
	}
	return n
}

func text(t *types.Type, b []byte) string {
	s, _, _ := strings.Cut(string(b[:min(len(b), t.Size)]), "\x00")
	return s
}

func (p *probes) stop() error {
	p.sess.Detach()
	return nil
}

func (p *probes) lost() (n uint64) {
	for _, a := range p.sess.Accounts() {
		n += a.LostRing
	}
	return n
}

func (p *probes) close() error {
	if p.ring != nil {
		p.ring.Close()
		p.ring = nil
	}
	if p.sess != nil {
		err := p.sess.Close()
		p.sess = nil
		return err
	}
	return nil
}
