// Package capture sees packets in the running kernel: programs on the tracepoints that packets pass, and on the system calls
// that send them, tell what happened to which packet, where, and by which path. It says nothing about why.
//
// A packet that the filter matched once is followed by the address of its sk_buff and of its data until it is freed:
// also when its headers are rewritten, and when it is cloned.
package capture

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/fathom-trace/fathom/answers/packet"
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/ir/emit"
	"github.com/fathom-trace/fathom/probe"
	"github.com/fathom-trace/fathom/probe/try"
	"github.com/fathom-trace/fathom/wire/filter"
)

// Options say which packets are wanted. The zero value is all of them.
type Options struct {
	Filter string   // as tcpdump takes it; "" is all
	Netns  []uint32 // inodes of namespaces
	Devs   []string
	Mark   *uint32
	PIDs   []uint32 // the process that is running when the packet is first seen: its sender's
	Comm   string
	Cgroup uint64 // number of the cgroup (of version 2) that the process is in; 0 is any
	Terms  []Term // that all hold
	// Losses leaves out what is no loss: the path of packets is then in the stacks of their last events only.
	Losses bool
	// Functions can be watched too, by Capture.Functions, while they have a packet that is followed, where the kernel can
	// attach to all at once.
	Functions []string
	Ring      int // bytes; 0 is 8 MiB
	CPUs      int // that are possible
}

// Capture is a set of programs in the kernel. It belongs to the caller, who must Close it. One goroutine may use it.
type Capture struct {
	sess    *probe.Session
	ring    *probe.Reader
	calls   []string
	texts   map[string]string
	missing []string

	functions []string           // to be watched too
	sources   map[string][]int64 // numbers of each, by its tracepoint
	step      int                // the program of functions, as targets have it; -1 if there is none
}

// Open loads and attaches the programs. Events come from the moment it returns. What this kernel has not got is in
// Missing.
func Open(w *probe.World, o Options) (c *Capture, err error) {
	if o.Ring == 0 {
		o.Ring = 8 << 20
	}
	w.Expect(expected(&o))
	how := ways{types: newTypes(w), ends: newEnds(w)}
	for {
		c, err = open(w, o, how)
		var ve *probe.VerifierError
		switch {
		case how.types != nil && errors.As(err, &ve): // such programs may not call it
			how.types = nil
		case how.ends != nil && err != nil:
			how.ends = nil
		default:
			return c, err
		}
	}
}

// ways are what programs do where the kernel lets them.
type ways struct {
	types *types         // read fields by an instruction, not a call; nil if they cannot
	ends  []probe.Target // where refusals show; nil if that is the end of each system call
}

// newEnds finds the places where all refusals show. It gives nil if the ends of functions cannot be seen, or one of the places
// is not there.
func newEnds(w *probe.World) []probe.Target {
	if w.Loads(place("fexit", connectEnd)) != nil {
		return nil
	}
	has := func(name string) bool {
		_, err := w.KfuncID(name)
		return err == nil
	}
	end := func(name string) probe.Target { return place("fexit", name) }
	_, _, err := w.Args(place("rawtracepoint", sendTrace))
	switch {
	case has(sendEnd):
		return []probe.Target{end(sendEnd), end(connectEnd)}
	case err == nil && has(sendAsk):
		return []probe.Target{place("rawtracepoint", sendTrace), end(sendAsk), end(connectEnd)}
	case err != nil && has(sendOld):
		return []probe.Target{end(sendOld), end(connectEnd)}
	}
	return nil
}

// place is a place in the kernel itself that a program is attached to.
func place(provider, name string) probe.Target {
	return probe.Target{Provider: provider, Module: "vmlinux", Func: name, Name: provider + ":" + name}
}

func open(w *probe.World, o Options, how ways) (*Capture, error) {
	c, code, targets, err := prepare(w, &o, how)
	if err != nil {
		return nil, err
	}
	c.sess, err = probe.LoadEmit(code.p, targets, probe.Options{World: w, Plain: true, Missing: "warn",
		Given:  func(t probe.Target) []int64 { return c.sources[t.Func] },
		Needed: func(t probe.Target) bool { return t.Provider == "fexit" },
		Warn:   func(s string) { c.missing = append(c.missing, s) }})
	if err != nil {
		return nil, err
	}
	if c.ring, err = c.sess.Reader(); err == nil {
		_, err = c.sess.Attach()
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// prepare writes the programs, and says what they are for.
func prepare(w *probe.World, o *Options, how ways) (*Capture, *code, [][]probe.Target, error) {
	c := &Capture{texts: map[string]string{}, functions: o.Functions, step: -1}
	code := &code{o: o, types: how.types, p: emit.New(emit.Options{CPUs: o.CPUs, Ring: o.Ring})}
	var err error
	if code.l, err = newLayout(w.Types()); err != nil {
		return nil, nil, nil, err
	}
	for _, t := range o.Terms {
		way, err := t.resolve(w.Types())
		if err != nil {
			return nil, nil, nil, err
		}
		code.ways = append(code.ways, way)
	}
	if err := code.compile(); err != nil {
		return nil, nil, nil, err
	}
	code.stacks = code.p.Map(ir.Map{Name: ".stacks", Kind: ir.PerCPUArray, KeySize: 4, ValueSize: 16, MaxEntries: 1})
	if code.chooses() {
		code.track = newTable(code.p)
	}
	return c, code, c.write(w, code, how.ends), nil
}

// Plan says what Open would attach to, and what Functions then, without doing so; missing is what this kernel has not got.
func Plan(w *probe.World, o Options) (targets, functions, missing []string, err error) {
	w.Expect(expected(&o))
	c, _, ts, err := prepare(w, &o, ways{types: newTypes(w), ends: newEnds(w)})
	if err != nil {
		return nil, nil, nil, err
	}
	for _, clause := range ts {
		for _, t := range clause {
			targets = append(targets, t.Name)
		}
	}
	if c.step >= 0 {
		if err := try.Detect(try.KprobeMulti); err != nil {
			return targets, nil, append(c.missing, err.Error()), nil
		}
		fs, err := stepTargets(w, c.functions)
		if err != nil {
			return targets, nil, append(c.missing, err.Error()), nil
		}
		for _, t := range fs {
			functions = append(functions, t.Name)
		}
	}
	return targets, functions, c.missing, nil
}

// expected are the names that will be asked for among the kernel's types.
func expected(o *Options) []string {
	names := []string{rdonlyCast, "sk_buff", "net_device", "net", "sock", "skb_shared_info", "task_struct", "files_struct", "fdtable", "file", "socket",
		"bpf_prog", "bpf_prog_aux", "pt_regs", "msghdr", byteStruct, connectEnd, sendEnd, sendAsk, sendOld}
	tps := []string{"xdp_exception", "xdp_redirect_err", "sys_exit", sendTrace}
	for _, s := range sources {
		tps = append(tps, s.tps...)
	}
	for _, tp := range tps { // as probe.World has them
		names = append(names, "__probestub_"+tp, "__traceiter_"+tp, "btf_trace_"+tp)
	}
	return append(names, withSuccessors(o.Functions)...)
}

// compile reads the filter twice: for packets with a link header and for those without.
func (c *code) compile() error {
	if c.o.Filter == "" {
		return nil
	}
	var err error
	if c.l2, err = filter.Compile(c.o.Filter, filter.Options{Link: filter.Ethernet, Metadata: true}); err != nil {
		return err
	}
	// What asks for link headers matches nothing where there is none.
	c.l3, _ = filter.Compile(c.o.Filter, filter.Options{Link: filter.Raw, Metadata: true})
	return nil
}

// write writes a program for each source that the kernel has, and gives what they are to be attached to.
func (c *Capture) write(w *probe.World, code *code, ends []probe.Target) (targets [][]probe.Target) {
	find := func(t probe.Target) (args map[string]int) {
		params, _, err := w.Args(t)
		if err != nil { // this kernel has no such place
			c.missing = append(c.missing, t.Name)
			return nil
		}
		args = map[string]int{}
		for _, f := range params.Fields {
			args[strings.TrimSuffix(f.Name, "__nullable")] = f.Index
		}
		return args
	}
	raw := func(write func(i int, args map[string]int), tp string) {
		t := place("rawtracepoint", tp)
		if args := find(t); args != nil {
			write(len(targets), args)
			targets = append(targets, []probe.Target{t})
		}
	}
	c.sources = map[string][]int64{}
	var ts []probe.Target
	for _, s := range sources {
		if s.flow && code.o.Losses {
			continue
		}
		for _, tp := range s.tps {
			t := place("rawtracepoint", tp)
			if args := find(t); args != nil {
				c.sources[tp], ts = s.numbers(code.o.Losses, args), append(ts, t)
			}
		}
	}
	if len(ts) > 0 {
		code.packets(0, c.sources)
		targets = append(targets, ts)
	}
	for _, tp := range []string{"xdp_exception", "xdp_redirect_err"} {
		raw(func(i int, args map[string]int) { code.xdp(i, tp, args) }, tp)
	}
	for _, call := range calls {
		c.calls = append(c.calls, call.name)
	}
	if ends == nil {
		c.missing = append(c.missing, "ends of functions (fexit): refusals are seen at the end of every system call")
		raw(code.refusals, "sys_exit")
	}
	for _, t := range ends {
		switch args := find(t); {
		case args == nil:
			continue
		case t.Func == connectEnd:
			code.connects(len(targets), args)
		default:
			code.sends(len(targets), t, args)
		}
		targets = append(targets, []probe.Target{t})
	}
	if len(c.functions) > 0 && code.track != nil {
		c.step = len(targets)
		code.steps(c.step)
		targets = append(targets, nil)
	}
	return targets
}

// Next gives the next event, or ok false when none came until the time given.
func (c *Capture) Next(until time.Time) (e packet.Event, ok bool, err error) {
	for {
		rec, err := c.ring.Next(until)
		if err != nil || rec == nil {
			return e, false, err
		}
		if e, ok = c.decode(rec); ok {
			return e, true, nil
		}
	}
}

// Empty says if all that was seen so far was read.
func (c *Capture) Empty() bool { return c.ring.Empty() }

// Missing says which sources this kernel has not got.
func (c *Capture) Missing() []string { return slices.Clone(c.missing) }

// Loss is how many events were not told.
type Loss struct {
	Ring   uint64 `json:"ring"`   // the ring was full
	Missed uint64 `json:"missed"` // the program was running on that CPU already
}

// Lost gives what was lost so far.
func (c *Capture) Lost() (l Loss) {
	for _, a := range c.sess.Accounts() {
		l.Ring += a.LostRing
		l.Missed += a.Missed
	}
	return l
}

// Stop ends seeing; what was seen can still be read.
func (c *Capture) Stop() { c.sess.Detach() }

// Close gives everything back.
func (c *Capture) Close() error {
	if c.ring != nil {
		c.ring.Close()
	}
	return c.sess.Close()
}
