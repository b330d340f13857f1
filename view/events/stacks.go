package events

import (
	"encoding/binary"
	"path"
	"slices"
	"strconv"

	"github.com/fathom-trace/fathom/traceevent"
	"github.com/fathom-trace/fathom/view/flame"
)

// Stacks adds up the stacks of events: the task, its user frames, its kernel frames, and the event where there are several.
type Stacks struct {
	graph  *flame.Graph
	src    *Source
	weight string // a field; "" counts
	kinds  bool   // the event's name is a frame
	done   func(*flame.Graph) error
	cache  cache
	names  names
	last   map[int]*pending
	chains map[*traceevent.Format]*traceevent.Field
}

// pending is an event whose stack may still come.
type pending struct {
	comm, event  string
	weight       int64
	user, kernel []string // the innermost first
	set          bool
}

// NewStacks adds to a graph and calls done with it at the end. weight is the field that events are weighed by, "" weighs each as
// one; kinds has the event's name be a frame.
func NewStacks(g *flame.Graph, src *Source, weight string, kinds bool, done func(*flame.Graph) error) *Stacks {
	return &Stacks{graph: g, src: src, weight: weight, kinds: kinds, done: done, names: names{src: src}, last: map[int]*pending{},
		chains: map[*traceevent.Format]*traceevent.Field{}}
}

// Event implements [Writer].
func (s *Stacks) Event(e *traceevent.Event) error {
	if e.Format == nil {
		return nil
	}
	p := s.last[e.CPU]
	if p == nil {
		p = &pending{}
		s.last[e.CPU] = p
	}
	if e.Format.IsStack() {
		if frames := s.src.stack(e, true); e.Format.IsUserStack() {
			p.user = frames
		} else {
			p.kernel = frames
		}
		return nil
	}
	s.add(p)
	i := s.cache.of(e.Format)
	*p = pending{comm: s.names.of(e, int(i.pid.Int(e.Rec))), event: i.full, weight: 1, set: true}
	if s.weight != "" {
		f := e.Format.Field(s.weight)
		if f == nil {
			p.set = false
			return nil
		}
		p.weight = f.Int(e.Rec)
	}
	s.chain(p, e)
	return nil
}

// chain takes the stack that is a field of its event, as perf's samples have it.
func (s *Stacks) chain(p *pending, e *traceevent.Event) {
	f, known := s.chains[e.Format]
	if !known {
		f = e.Format.Field("callchain")
		s.chains[e.Format] = f
	}
	if f == nil {
		return
	}
	const (
		contexts = ^uint64(4095) // from here up they are marks of perf's (PERF_CONTEXT_MAX)
		user     = ^uint64(511)  // PERF_CONTEXT_USER
	)
	kernel := f.Bytes(e.Rec)
	for b := kernel; len(b) >= 8; b = b[8:] {
		if binary.LittleEndian.Uint64(b) == user {
			p.user = s.src.kernelNames(traceevent.Addresses(b[8:])) // numbers: they are in none of the kernel's functions
			kernel = kernel[:len(kernel)-len(b)]
			break
		}
	}
	for len(kernel) >= 8 && binary.LittleEndian.Uint64(kernel) > contexts {
		kernel = kernel[8:]
	}
	p.kernel = s.src.kernelNames(traceevent.Addresses(kernel))
}

// stack names the frames of an event that is a stack, the innermost first. With merge, frames of programs that have no name are one for
// each file.
func (s *Source) stack(e *traceevent.Event, merge bool) []string {
	addrs := traceevent.Addresses(e.Format.Field("caller").Bytes(e.Rec))
	if !e.Format.IsUserStack() || s.User == nil {
		return s.kernelNames(addrs)
	}
	out := make([]string, 0, len(addrs))
	for i, f := range s.User(int(e.Format.Field("tgid").Uint(e.Rec)), e.Time, addrs) {
		switch {
		case f.Name != "":
			out = append(out, f.Name)
		case f.File == "":
			out = append(out, hex(addrs[i]))
		case merge:
			out = append(out, "["+path.Base(f.File)+"]")
		default: // as the kernel's option sym-userobj has it
			out = append(out, f.File+"[+"+hex(f.At)+"]")
		}
	}
	return out
}

func (s *Source) kernelNames(addrs []uint64) []string {
	out := make([]string, 0, len(addrs))
	for _, a := range addrs {
		out = append(out, s.name(a))
	}
	return out
}

func hex(n uint64) string { return "0x" + strconv.FormatUint(n, 16) }

// name names an address of the kernel; others are numbers.
func (s *Source) name(addr uint64) string {
	if s.Env != nil && s.Env.Symbol != nil {
		if name, _, _, module, ok := s.Env.Symbol(addr); ok {
			if module != "" {
				return name + " [" + module + "]"
			}
			return name
		}
	}
	return hex(addr)
}

func (s *Stacks) add(p *pending) {
	if !p.set || p.weight == 0 {
		return
	}
	stack := []string{p.comm}
	for _, f := range slices.Backward(p.user) {
		stack = append(stack, f)
	}
	for _, f := range slices.Backward(p.kernel) {
		stack = append(stack, f)
	}
	if s.kinds {
		stack = append(stack, p.event)
	}
	s.graph.Add(stack, p.weight)
}

// Close implements [Writer].
func (s *Stacks) Close() error {
	for _, p := range s.last {
		s.add(p)
	}
	if s.weight != "" && s.graph.Total() == 0 {
		return nothing("no event has a number %s", s.weight)
	}
	return s.done(s.graph)
}
