package probe

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/fathom-trace/fathom/lang/check"
)

// waiting is a probe in a module that may not be loaded.
type waiting struct {
	l      *loaded
	target check.Target
	cookie uint64
	link   closer // nil while the module is not there
	absent bool   // the module is there, and the target is not in it
}

// later takes the targets of l that wait for a module out of ts; they are the last ones.
func (s *Session) later(l *loaded, ts []check.Target) []check.Target {
	for i, t := range ts {
		if !t.Waits {
			continue
		}
		for k := i; k < len(ts); k++ {
			s.waits = append(s.waits, &waiting{l: l, target: ts[k], cookie: uint64(k)})
		}
		return ts[:i:i]
	}
	return ts
}

// Waiting says if probes wait for modules.
func (s *Session) Waiting() bool { return len(s.waits) > 0 }

// AttachLater attaches the probes whose modules have come since the last call, and lets go of those whose modules have
// gone; say is told of each. What a module that came has not got is dealt with as Options.Missing says.
func (s *Session) AttachLater(say func(string)) error {
	for _, w := range s.waits {
		switch there := initialised(w.target.Module); {
		case !there && w.link != nil:
			w.link.Close()
			w.link = nil
			say(fmt.Sprintf("%s: module %s is gone", w.target.Name, w.target.Module))
		case !there:
			w.absent = false
		case w.link == nil && !w.absent:
			if err := s.arrive(w); err != nil {
				if w.absent = s.skip(w.target, err); w.absent {
					continue
				}
				return s.failed(w.target, err)
			}
			say(fmt.Sprintf("%s: module %s is loaded, attached", w.target.Name, w.target.Module))
		}
	}
	return nil
}

// initialised says if a module has passed its initialisation: before, its functions cannot be probed.
func initialised(module string) bool {
	b, err := os.ReadFile(filepath.Join("/sys/module", module, "initstate"))
	return err == nil && strings.TrimSpace(string(b)) == "live"
}

func (s *Session) arrive(w *waiting) error {
	if w.l.late == nil {
		spec, err := s.spec(w.l.prog)
		if err != nil {
			return err
		}
		if w.l.late, err = s.newProgram(w.l, spec); err != nil {
			return err
		}
	}
	cookie := w.cookie
	if !w.l.prog.Unit.Cookie {
		cookie = 0
	}
	lk, err := attachKprobe(w.l.prog.Unit.Provider == "kretprobe", w.l.late, w.target, cookie)
	if err != nil {
		return err
	}
	w.link = lk
	return nil
}

// detachLater lets go of everything that came.
func (s *Session) detachLater() {
	for _, w := range s.waits {
		if w.link != nil {
			w.link.Close()
		}
	}
	s.waits = nil
}
