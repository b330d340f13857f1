package probe

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// more says if l waits for AttachTo, which names its targets.
func (l *loaded) more() bool { return len(l.inst.Targets) == 0 }

// LoadMore loads the kprobe program that has no targets under this clause, for AttachTo.
func (s *Session) LoadMore(clause int) error {
	for _, l := range s.units {
		if l.prog.Unit.Clause != clause || !l.more() {
			continue
		}
		spec, err := s.spec(l.prog)
		if err != nil {
			return err
		}
		spec.AttachType = ebpf.AttachTraceKprobeMulti
		p, err := s.newProgram(l, spec)
		if err != nil {
			return err
		}
		l.progs, l.multi = []*ebpf.Program{p}, true
		return nil
	}
	return fmt.Errorf("load what is attached later: no program %d", clause)
}

// AttachTo attaches the program that LoadMore loaded to functions, which get the cookies beside them, by few links (kprobe.multi, Linux 5.18): one, if the kernel takes all of them; else one for the kernel's own, and
// one for each module, which before Linux 6.3 it does not take by name. A function that is not taken is left out, as Options.Missing says.
// Each attempt takes the kernel as long as the search through all its symbols; when ctx is done, no further one is made. It
// may run in a goroutine of its own beside those that read, not beside Accounts.
func (s *Session) AttachTo(ctx context.Context, clause int, ts []Target, cookies []uint64) (n int, err error) {
	for _, l := range s.units {
		if l.prog.Unit.Clause != clause || !l.more() || len(l.progs) == 0 {
			continue
		}
		p := l.progs[0]
		all, byModule := &group{}, map[string]*group{}
		for i, t := range ts {
			m := kernelModule(t.Module)
			if byModule[m] == nil {
				byModule[m] = &group{}
			}
			byModule[m].add(t, cookies[i])
			all.add(t, cookies[i])
		}
		if len(byModule) > 1 && ctx.Err() == nil && s.link(p, all) == nil {
			return len(ts), nil
		}
		if k := byModule["vmlinux"]; k != nil {
			if n, err = s.attachSome(ctx, p, k); err != nil {
				return n, err
			}
			delete(byModule, "vmlinux")
		}
		for _, m := range slices.Sorted(maps.Keys(byModule)) {
			g := byModule[m]
			if ctx.Err() != nil {
				return n, nil
			}
			switch err := s.link(p, g); {
			case err == nil:
				n += len(g.targets)
			case !s.skip(g.targets[0], err):
				return n, err
			}
		}
		return n, nil
	}
	return 0, fmt.Errorf("attach to %d functions: no program %d", len(ts), clause)
}

// group is functions that are attached to by one link.
type group struct {
	targets []Target
	cookies []uint64
}

func (g *group) add(t Target, cookie uint64) {
	g.targets, g.cookies = append(g.targets, t), append(g.cookies, cookie)
}

// half is one of two parts of g.
func (g *group) half(i int) *group {
	n := len(g.targets)
	from, to := i*n/2, (i+1)*n/2
	return &group{g.targets[from:to], g.cookies[from:to]}
}

// link makes one link.
func (s *Session) link(p *ebpf.Program, g *group) error {
	o := link.KprobeMultiOptions{Cookies: g.cookies}
	for _, t := range g.targets {
		o.Symbols = append(o.Symbols, t.Func)
	}
	lk, err := link.KprobeMulti(p, o)
	if err == nil {
		s.keep(lk)
	}
	return err
}

// attachSome attaches to all of a group, or to each half of it.
func (s *Session) attachSome(ctx context.Context, p *ebpf.Program, g *group) (n int, err error) {
	if len(g.targets) == 0 || ctx.Err() != nil {
		return 0, nil
	}
	err = s.link(p, g)
	switch {
	case err == nil:
		return len(g.targets), nil
	case errors.Is(err, ebpf.ErrNotSupported):
		return 0, fmt.Errorf("kprobe.multi: %w", err)
	case len(g.targets) == 1 && s.skip(g.targets[0], err):
		return 0, nil
	case len(g.targets) == 1:
		return 0, s.failed(g.targets[0], err)
	}
	for i := range 2 {
		k, err := s.attachSome(ctx, p, g.half(i))
		if n += k; err != nil {
			return n, err
		}
	}
	return n, nil
}
