package dead

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/fathom-trace/fathom/bpf"
	"github.com/fathom-trace/fathom/bpf/vm"
	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/kernel"
	"github.com/fathom-trace/fathom/lang/check"
	"github.com/fathom-trace/fathom/probe/offline"
)

// Session is a program loaded into the BPF machine, with a dead kernel as its memory. One goroutine may use it.
type Session struct {
	*offline.Machine
	t     kernel.Target
	world *World
	env   *vm.Env
	cpus  int
	now   current
	names *Names
	// missed are parts of walks that could not be made.
	missed []error
}

// Load puts a compiled program into the machine. cpus is how many CPUs it was built for.
func Load(w *World, info *check.Info, prog *ir.Program, obj *bpf.Object, cpus int) (*Session, error) {
	s := &Session{t: w.t, world: w, env: &vm.Env{}, cpus: cpus, names: &Names{t: w.t, at: map[uint64]bool{}}}
	var err error
	if s.Machine, err = offline.Load(info, prog, obj, offline.Options{Target: (*memory)(s), Env: s.env, CPUs: cpus}); err != nil {
		return nil, err
	}
	s.setEnv(s.Machine.Helpers())
	return s, nil
}

// RunSpecial runs the units of begin or end, in order.
func (s *Session) RunSpecial(provider string) error {
	s.forget()
	return s.Machine.RunSpecial(provider)
}

// Walk runs the iterators of the program, one after the other, over all their objects, or until ctx is done. After each
// object it calls after, which should take the records. What could not be walked is in [Session.Missed].
func (s *Session) Walk(ctx context.Context, after func() error) error {
	for u := range s.Units("iter") {
		if err := s.walk(ctx, u, after); err != nil {
			return err
		}
	}
	return nil
}

func (s *Session) walk(ctx context.Context, u *offline.Unit, after func() error) error {
	target := u.Targets[0]
	k, ok := find(target.Func)
	if !ok {
		return fmt.Errorf("%s cannot be walked", target.Name)
	}
	layout, err := s.world.context(k.name)
	if err != nil {
		return fmt.Errorf("run %s: %w", target.Name, err)
	}
	c := newFrame(layout, s.t.Types())
	errs := &kernel.Errors{}
	var failed error
	err = k.walk(s.t, errs, func(o object) bool {
		s.enter(o)
		if failed = s.Run(u, c.fill(o.fields)); failed == nil {
			failed = after()
		}
		return failed == nil && ctx.Err() == nil
	})
	s.forget()
	if failed != nil {
		return failed
	}
	if first := errs.Take(); first != nil && err == nil {
		err = fmt.Errorf("%w (%d reads failed)", first, errs.N)
	}
	if err != nil {
		s.missed = append(s.missed, fmt.Errorf("%s is not complete: %w", target.Name, err))
	}
	return nil
}

// Missed says what of the walks could not be made, and why.
func (s *Session) Missed() []error { return s.missed }

// Names gives names to the addresses that programs print.
func (s *Session) Names() *Names { return s.names }

// frame is the context that programs of an iterator find at [vm.CtxAddr]: its struct (DEFINE_BPF_ITER_FUNC), and behind it the
// struct bpf_iter_meta that the struct points to.
type frame struct {
	b       []byte
	members []ctype.Member
	size    int
	seq     int // where in b the number of the object is; 0 if the kernel has none
	n       uint64
}

func newFrame(layout *ctype.Struct, types ctype.Lookup) *frame {
	c := &frame{size: (layout.Size + 7) &^ 7}
	c.members = flat(layout, 0, nil)
	metaSize := 0
	if t, err := types.ByName(ctype.KindStruct, "bpf_iter_meta"); err == nil {
		if m, ok := t.(*ctype.Struct); ok {
			metaSize = m.Size
			for _, f := range flat(m, 0, nil) {
				if f.Name == "seq_num" {
					c.seq = c.size + f.BitOff/8
				}
			}
		}
	}
	c.b = make([]byte, c.size+metaSize)
	return c
}

// flat gives the members of a struct with those of its unnamed members (__bpf_md_ptr), at their places in the whole.
func flat(s *ctype.Struct, at int, out []ctype.Member) []ctype.Member {
	for _, m := range s.Members() {
		m.BitOff += at
		if in, ok := ctype.Strip(m.Type).(*ctype.Struct); ok && m.Name == "" {
			out = flat(in, m.BitOff, out)
			continue
		}
		out = append(out, m)
	}
	return out
}

// fill makes the context of an object. It is valid until the next.
func (c *frame) fill(fields map[string]uint64) []byte {
	clear(c.b)
	for _, m := range c.members {
		v, ok := fields[m.Name]
		switch {
		case m.Name == "meta" && len(c.b) > c.size:
			v = vm.CtxAddr + uint64(c.size)
		case !ok:
			continue
		}
		var word [8]byte
		binary.LittleEndian.PutUint64(word[:], v)
		copy(c.b[m.BitOff/8:], word[:min(8, ctype.Size(m.Type))])
	}
	if c.seq > 0 {
		binary.LittleEndian.PutUint64(c.b[c.seq:], c.n)
		c.n++
	}
	return c.b
}
