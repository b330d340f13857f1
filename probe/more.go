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

// Place is a function that AttachTo attaches to.
type Place struct {
	Target
	Cookie uint64
	Addr   uint64 // where it begins; 0 if that is not known
}

// AttachTo attaches the program that LoadMore loaded to functions by few links (kprobe.multi, Linux 5.18): one, if the kernel
// takes all of them; else one for the kernel's own, and one for each module, which before Linux 6.3 it does not take by name. A
// function that is not taken is left out, as Options.Missing says. Where their addresses are known, an attempt takes a fifth
// of the time that the kernel needs to look names up, for which it goes through all of its symbols; when ctx is done, no further
// one is made. It may run in a goroutine of its own beside those that read, not beside Accounts.
func (s *Session) AttachTo(ctx context.Context, clause int, places []Place) (n int, err error) {
	for _, l := range s.units {
		if l.prog.Unit.Clause != clause || !l.more() || len(l.progs) == 0 {
			continue
		}
		p := l.progs[0]
		byModule := map[string][]Place{}
		for _, t := range places {
			m := kernelModule(t.Module)
			byModule[m] = append(byModule[m], t)
		}
		if len(byModule) > 1 && ctx.Err() == nil && s.link(p, places) == nil {
			return len(places), nil
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
				n += len(g)
			case !s.skip(g[0].Target, err):
				return n, err
			}
		}
		return n, nil
	}
	return 0, fmt.Errorf("attach to %d functions: no program %d", len(places), clause)
}

// link makes one link.
func (s *Session) link(p *ebpf.Program, places []Place) error {
	var o link.KprobeMultiOptions
	named := slices.ContainsFunc(places, func(t Place) bool { return t.Addr == 0 })
	for _, t := range places {
		o.Cookies = append(o.Cookies, t.Cookie)
		if named {
			o.Symbols = append(o.Symbols, t.Func)
		} else {
			o.Addresses = append(o.Addresses, uintptr(t.Addr))
		}
	}
	lk, err := link.KprobeMulti(p, o)
	if err == nil {
		s.keep(lk)
	}
	return err
}

// attachSome attaches to all of some places, or to each half of them.
func (s *Session) attachSome(ctx context.Context, p *ebpf.Program, g []Place) (n int, err error) {
	if len(g) == 0 || ctx.Err() != nil {
		return 0, nil
	}
	err = s.link(p, g)
	switch {
	case err == nil:
		return len(g), nil
	case errors.Is(err, ebpf.ErrNotSupported):
		return 0, fmt.Errorf("kprobe.multi: %w", err)
	case len(g) == 1 && s.skip(g[0].Target, err):
		return 0, nil
	case len(g) == 1:
		return 0, s.failed(g[0].Target, err)
	}
	for _, half := range [][]Place{g[:len(g)/2], g[len(g)/2:]} {
		k, err := s.attachSome(ctx, p, half)
		if n += k; err != nil {
			return n, err
		}
	}
	return n, nil
}
