package probe

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// more says if l waits for AttachTo, which names its targets.
func (l *loaded) more() bool { return len(l.inst.Targets) == 0 }

// AttachTo loads the kprobe program that has no targets under this clause and attaches it to functions, which get the cookies
// beside them, by as few links as the kernel allows: one, if it takes all of them (kprobe.multi, Linux 5.18). A function that it
// does not take is left out, as Options.Missing says. It may run in a goroutine of its own beside those that read, not beside
// Accounts.
func (s *Session) AttachTo(clause int, ts []Target, cookies []uint64) (int, error) {
	for _, l := range s.units {
		if l.prog.Unit.Clause != clause || !l.more() {
			continue
		}
		spec, err := s.spec(l.prog)
		if err != nil {
			return 0, err
		}
		spec.AttachType = ebpf.AttachTraceKprobeMulti
		p, err := s.newProgram(l, spec)
		if err != nil {
			return 0, err
		}
		l.progs, l.multi = []*ebpf.Program{p}, true
		return s.attachSome(p, ts, cookies)
	}
	return 0, fmt.Errorf("attach to %d functions: no program %d", len(ts), clause)
}

// attachSome attaches to all of ts, or to each half of them.
func (s *Session) attachSome(p *ebpf.Program, ts []Target, cookies []uint64) (int, error) {
	if len(ts) == 0 {
		return 0, nil
	}
	o := link.KprobeMultiOptions{Cookies: cookies}
	for _, t := range ts {
		o.Symbols = append(o.Symbols, t.Func)
	}
	lk, err := link.KprobeMulti(p, o)
	switch {
	case err == nil:
		s.keep(lk)
		return len(ts), nil
	case errors.Is(err, ebpf.ErrNotSupported):
		return 0, fmt.Errorf("kprobe.multi: %w", err)
	case len(ts) > 1:
		half := len(ts) / 2
		n, err := s.attachSome(p, ts[:half], cookies[:half])
		if err != nil {
			return n, err
		}
		k, err := s.attachSome(p, ts[half:], cookies[half:])
		return n + k, err
	case s.skip(ts[0], err):
		return 0, nil
	}
	return 0, s.failed(ts[0], err)
}
