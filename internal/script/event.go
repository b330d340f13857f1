package script

import (
	"encoding/binary"
	"fmt"

	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/probe"
	"github.com/fathom-trace/fathom/view"
)

// event prints one record or does what it asks for.
func (r *job) event(rec []byte) error {
	if id := arg(rec, -1); id < uint64(len(r.comp.Prog.Events)) {
		r.delivered[r.comp.Prog.Events[id].Unit]++
	}
	act, err := r.out.Event(rec)
	if err != nil || act.Event == nil {
		return err
	}
	ev := act.Event
	switch ev.Kind {
	case ir.EvPrintMap:
		return r.printMap(ev.Map, arg(rec, 0), arg(rec, 1))
	case ir.EvPrintMapElem:
		return r.printElem(ev.Map, rec[8:])
	case ir.EvClear:
		r.cleared[ev.Map] = true
		return r.maps.Clear(ev.Map)
	case ir.EvZero:
		return r.maps.Zero(ev.Map)
	case ir.EvExit:
		r.done, r.exited, r.code = !r.iterating, true, int(int64(arg(rec, 0)))
	case ir.EvSystem:
		return r.system(act.Text)
	case ir.EvCat:
		return r.cat(act.Text)
	case ir.EvUnwatch:
		addr := arg(rec, 0)
		if ok, err := r.unwatch(addr); err != nil {
			return err
		} else if !ok && r.o.Diags != nil {
			r.o.Diags([]syntax.Diag{{Span: ev.Span, Severity: syntax.Warning, Msg: fmt.Sprintf("there is no watchpoint at %#x", addr)}})
		}
	case ir.EvFail:
		r.failure(ev, int64(arg(rec, 0)))
	}
	return nil
}

func arg(rec []byte, i int) uint64 {
	if len(rec) < 16+8*i {
		return 0
	}
	return binary.LittleEndian.Uint64(rec[8+8*i:])
}

func (r *job) printMap(m *ir.Map, top, div uint64) error {
	es, err := r.maps.Entries(m)
	if err != nil {
		return err
	}
	if r.o.Portable && top == 0 && div == 0 {
		return r.out.Portable(m, entries(es), true)
	}
	return r.out.Map(m, entries(es), top, div)
}

func entries(es []probe.Entry) []view.Entry {
	out := make([]view.Entry, len(es))
	for i, e := range es {
		out[i] = view.Entry{Key: e.Key, Values: e.Values}
	}
	return out
}

// printElem prints one element of a map of aggregations; a histogram is all elements that share the key.
func (r *job) printElem(m *ir.Map, key []byte) error {
	es, err := r.maps.Entries(m)
	if err != nil {
		return err
	}
	n := m.KeySize
	if m.Bucketed {
		n -= 8
	}
	if len(key) < n {
		key = append(append([]byte(nil), key...), make([]byte, n-len(key))...)
	}
	var some []probe.Entry
	for _, e := range es {
		if string(e.Key[:n]) == string(key[:n]) {
			some = append(some, e)
		}
	}
	return r.out.Map(m, entries(some), 0, 0)
}

func allZero(es []probe.Entry) bool {
	for _, e := range es {
		for _, v := range e.Values {
			for _, c := range v {
				if c != 0 {
					return false
				}
			}
		}
	}
	return true
}

func (r *job) printMaps() error {
	for _, m := range r.comp.Prog.Maps {
		if m.Name[0] != '@' {
			continue
		}
		es, err := r.maps.Entries(m)
		if err != nil {
			return err
		}
		if len(es) == 0 || r.cleared[m] && m.Key == nil && allZero(es) {
			continue // nothing was put in it, or not since it was cleared
		}
		if r.o.Portable {
			err = r.out.Portable(m, entries(es), false)
		} else {
			err = r.out.Map(m, entries(es), 0, 0)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
