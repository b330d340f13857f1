package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/feature"
	"github.com/fathom-trace/fathom/lang/check"
)

// AttachError says which target could not be attached.
type AttachError struct {
	Target check.Target
	Err    error
	Why    *NotTraceable // what is known against the function; nil if nothing is
}

func (e *AttachError) Error() string {
	s := fmt.Sprintf("attach %s: %v", e.Target.Name, e.Err)
	if e.Why != nil {
		s += "; " + e.Why.Error()
	}
	return s
}

// Unwrap gives the cause.
func (e *AttachError) Unwrap() error { return e.Err }

// Attach attaches everything that waits for events, and gives the number of probes attached, special ones included.
func (s *Session) Attach() (int, error) {
	n := 0
	for _, l := range s.attachOrder() {
		if l.more() {
			continue
		}
		k, err := s.attach(l)
		n += k
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// attachOrder puts probes of functions last to first: the kernel runs the newest of one place first (list_add_rcu in
// kernel/kprobes.c and kernel/events/uprobes.c, hlist_add_head in kernel/bpf/trampoline.c), and the others in the order
// they came. The newest kretprobe is last: it is entered first, and left last.
func (s *Session) attachOrder() []*loaded {
	var out, rev []*loaded
	for _, l := range s.units {
		switch l.prog.Unit.Provider {
		case "kprobe", "fentry", "fexit", "uprobe", "uretprobe", "usdt":
			rev = append(rev, l)
		default:
			out = append(out, l)
		}
	}
	slices.Reverse(rev)
	return append(out, rev...)
}

// Targets gives the number of probes that Attach will attach.
func (s *Session) Targets() int {
	n := 0
	for _, l := range s.units {
		n += count(l.targets)
	}
	return n
}

// count counts probes: places of one probe are one.
func count(ts []check.Target) int {
	n := 0
	for _, t := range ts {
		if !t.Again {
			n++
		}
	}
	return n
}

// Plans says how each unit was attached, one line each.
func (s *Session) Plans() []string { return s.plans }

func (s *Session) attach(l *loaded) (int, error) {
	switch l.prog.Unit.Provider {
	case "begin", "end", "self", "test", "bench":
		return len(l.targets), nil
	case "kprobe", "kretprobe":
		switch {
		case l.entry != nil:
			return 0, nil // comes with its entry
		case l.returns != nil:
			return s.attachSession(l)
		case l.multi:
			return s.kprobeMulti(l)
		}
	case "uprobe", "uretprobe", "usdt":
		if l.multi {
			return s.uprobeMulti(l)
		}
	case "iter":
		return len(l.targets), nil
	}
	n, err := s.attachEach(l)
	if err != nil {
		return n, err
	}
	s.plans = append(s.plans, fmt.Sprintf("%s: %s, %d of %d targets", l.prog.Unit.Name, l.prog.Unit.Provider, n, count(l.targets)))
	return n, nil
}

// oneByOne loads the program of l anew for single targets, after err told that not all can be attached in one call.
func (s *Session) oneByOne(l *loaded, err error) (int, error) {
	spec, serr := s.spec(l.prog)
	if serr != nil {
		return 0, serr
	}
	p, perr := s.newProgram(l, spec)
	if perr != nil {
		return 0, errors.Join(err, perr)
	}
	l.progs, l.multi, l.single = []*ebpf.Program{p, l.progs[0]}, false, true
	return s.attachEach(l)
}

// uprobeMulti attaches all places of a file in one call; where the kernel refuses one of them, one by one.
func (s *Session) uprobeMulti(l *loaded) (int, error) {
	if slices.ContainsFunc(l.targets, func(t check.Target) bool { return s.opts.World.Refusal(t) != nil }) {
		return s.oneByOne(l, nil)
	}
	o := &link.UprobeMultiOptions{PID: uint32(s.opts.PID)}
	for i, t := range l.targets {
		o.Addresses = append(o.Addresses, t.Offset)
		o.RefCtrOffsets = append(o.RefCtrOffsets, t.Sema)
		if l.prog.Unit.Cookie {
			o.Cookies = append(o.Cookies, uint64(i))
		}
	}
	ex, err := link.OpenExecutable(l.targets[0].Module)
	var lk link.Link
	if err == nil {
		attach := ex.UprobeMulti
		if l.prog.Unit.Provider == "uretprobe" {
			attach = ex.UretprobeMulti
		}
		lk, err = attach(nil, l.progs[0], o)
	}
	if err == nil {
		s.keep(lk)
		s.plans = append(s.plans, fmt.Sprintf("%s: uprobe.multi, %d targets", l.prog.Unit.Name, count(l.targets)))
		return count(l.targets), nil
	}
	n, aerr := s.oneByOne(l, err)
	if aerr == nil {
		s.plans = append(s.plans, fmt.Sprintf("%s: uprobe one by one (uprobe.multi: %v), %d of %d targets", l.prog.Unit.Name, err, n, count(l.targets)))
	}
	return n, aerr
}

// attachEach attaches to each of the targets, many at once where there are many, and gives the number of probes.
func (s *Session) attachEach(l *loaded) (int, error) {
	errs := make([]error, len(l.targets))
	one := func(i int) {
		p := l.progs[0]
		if !l.single && len(l.progs) > 1 {
			p = l.progs[i]
		}
		errs[i] = s.attachOne(l, p, l.targets[i], uint64(i))
	}
	each(len(l.targets), one)
	n := 0
	for i, t := range l.targets {
		switch {
		case errs[i] == nil && !t.Again:
			n++
		case errs[i] != nil && !s.skip(t, errs[i]):
			return n, s.failed(t, errs[i])
		}
	}
	return n, nil
}

// failed adds to an error what is known of the function.
func (s *Session) failed(t check.Target, err error) error {
	e := &AttachError{Target: t, Err: err}
	switch t.Provider {
	case "kprobe", "kretprobe", "fentry", "fexit":
		if t.Func != "" && !errors.Is(err, feature.ErrUnsupported) {
			e.Why = s.opts.World.WhyNot(t.Module, t.Func)
		}
	}
	return e
}

// attachOne attaches p to one target. The cookie tells targets of one program apart; only programs that ask get one.
func (s *Session) attachOne(l *loaded, p *ebpf.Program, t check.Target, cookie uint64) error {
	if !l.prog.Unit.Cookie {
		cookie = 0
	}
	if err := s.opts.World.Refusal(t); err != nil {
		return err
	}
	var lk link.Link
	var err error
	switch l.prog.Unit.Provider {
	case "kprobe", "kretprobe":
		lk, err = attachKprobe(l.prog.Unit.Provider == "kretprobe", p, t, cookie)
	case "tracepoint":
		return s.attachTracepoint(p, t, cookie)
	case "rawtracepoint":
		if l.prog.Type == ebpf.Tracing {
			lk, err = link.AttachTracing(link.TracingOptions{Program: p, AttachType: l.prog.AttachType})
			break
		}
		lk, err = link.AttachRawTracepoint(link.RawTracepointOptions{Name: t.Func, Program: p})
	case "fentry", "fexit":
		lk, err = link.AttachTracing(link.TracingOptions{Program: p, AttachType: l.prog.AttachType})
	case "cgroup_sysctl": // the target's module is the cgroup's folder
		lk, err = link.AttachCgroup(link.CgroupOptions{Path: t.Module, Attach: l.prog.AttachType, Program: p})
	case "uprobe", "uretprobe", "usdt":
		return s.attachUprobe(l.prog.Unit.Provider == "uretprobe", p, t, cookie)
	default:
		return s.attachPerf(l.prog.Unit.Provider, p, t)
	}
	if err != nil {
		return err
	}
	s.keep(lk)
	return nil
}

func attachKprobe(ret bool, p *ebpf.Program, t check.Target, cookie uint64) (link.Link, error) {
	o := &link.KprobeOptions{Cookie: cookie, Offset: t.Offset}
	name := t.Func
	if t.Module != "" && t.Module != "vmlinux" {
		name = t.Module + ":" + t.Func
	}
	if err := noKprobes(); err != nil {
		return nil, err
	}
	if ret {
		return link.Kretprobe(name, p, o)
	}
	lk, err := link.Kprobe(name, p, o)
	if err != nil && name != t.Func { // perf's kprobe PMU takes "module:symbol" only since 6.1
		lk, err = link.Kprobe(t.Func, p, o)
	}
	if t.Offset != 0 && errors.Is(err, os.ErrNotExist) { // the function was found before: EILSEQ comes as this error
		err = peerError("Possible attachment attempt in the middle of an instruction, try a different offset.")
	}
	return lk, err
}

// kprobeMulti attaches all targets in one call; where the kernel refuses one of them, one by one.
func (s *Session) kprobeMulti(l *loaded) (int, error) {
	o := link.KprobeMultiOptions{}
	for i, t := range l.targets {
		o.Symbols = append(o.Symbols, t.Func)
		if l.prog.Unit.Cookie {
			o.Cookies = append(o.Cookies, uint64(i))
		}
	}
	attach := link.KprobeMulti
	if l.prog.Unit.Provider == "kretprobe" {
		attach = link.KretprobeMulti
	}
	lk, err := attach(l.progs[0], o)
	if err == nil {
		s.keep(lk)
		s.plans = append(s.plans, fmt.Sprintf("%s: kprobe.multi, %d targets", l.prog.Unit.Name, len(l.targets)))
		return len(l.targets), nil
	}
	n, aerr := s.oneByOne(l, err)
	if aerr != nil {
		return n, aerr
	}
	s.plans = append(s.plans, fmt.Sprintf("%s: kprobe one by one (kprobe.multi: %v), %d of %d targets", l.prog.Unit.Name, err, n, len(l.targets)))
	return n, nil
}

// RunSpecial runs all units of a provider that fathom itself triggers (begin, end, self, test, bench), in order.
func (s *Session) RunSpecial(provider string, match func(check.Target) bool) error {
	for _, l := range s.units {
		if l.prog.Unit.Provider != provider {
			continue
		}
		for _, t := range l.targets {
			if match != nil && !match(t) {
				continue
			}
			if _, err := l.progs[0].Run(&ebpf.RunOptions{}); err != nil {
				return fmt.Errorf("run %s: %w", t.Name, err)
			}
		}
	}
	return nil
}

// HasIter says if the program walks kernel objects.
func (s *Session) HasIter() bool {
	return slices.ContainsFunc(s.units, func(l *loaded) bool { return l.prog.Unit.Provider == "iter" })
}

// RunIter runs the iterators of a program to their end, or until ctx is done; their output goes through the ring as all
// output does, so somebody must read that meanwhile.
func (s *Session) RunIter(ctx context.Context) error {
	for _, l := range s.units {
		if l.prog.Unit.Provider != "iter" {
			continue
		}
		if err := iterate(ctx, l.progs[0]); err != nil {
			return &AttachError{Target: l.targets[0], Err: err}
		}
	}
	return nil
}

// iterate reads one iterator. The kernel leaves after a million objects without output (bpf_seq_read in
// kernel/bpf/bpf_iter.c) with EAGAIN, and goes on where it was.
func iterate(ctx context.Context, p *ebpf.Program) error {
	it, err := link.AttachIter(link.IterOptions{Program: p})
	if err != nil {
		return err
	}
	defer it.Close()
	r, err := it.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	buf := make([]byte, 4096)
	for ctx.Err() == nil {
		switch _, err := r.Read(buf); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && !errors.Is(err, unix.EAGAIN):
			return err
		}
	}
	return nil
}

// Measure runs a special program n times and gives nanoseconds per run, as the kernel counted them, and its last result.
func (s *Session) Measure(provider string, t check.Target, n int) (ns int64, rc uint32, err error) {
	for _, l := range s.units {
		if l.prog.Unit.Provider != provider || len(l.targets) == 0 || l.targets[0].Name != t.Name {
			continue
		}
		start := time.Now()
		for range n {
			if rc, err = l.progs[0].Run(&ebpf.RunOptions{}); err != nil {
				return 0, 0, fmt.Errorf("run %s: %w", t.Name, err)
			}
		}
		ns = time.Since(start).Nanoseconds() / int64(n)
		if st, err := l.progs[0].Stats(); err == nil && st.RunCount > 0 {
			ns = st.Runtime.Nanoseconds() / int64(st.RunCount)
		}
		return ns, rc, nil
	}
	return 0, 0, nil
}
