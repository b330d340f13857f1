package probe

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/probe/ring"
)

// Entry is one element of a map as the kernel holds it: one value, or for per-CPU maps one for each possible CPU.
type Entry struct {
	Key    []byte
	Values [][]byte
}

// Entries reads a map. The kernel changes it meanwhile: what is read is each element at some moment.
func (s *Session) Entries(m *ir.Map) ([]Entry, error) {
	km := s.maps[m]
	if km == nil {
		return nil, nil
	}
	var out []Entry
	it := km.Iterate()
	var key, val []byte
	if !m.Kind.PerCPU() {
		for it.Next(&key, &val) {
			out = append(out, Entry{bytes.Clone(key), [][]byte{bytes.Clone(val)}})
		}
	} else {
		var vals [][]byte
		for it.Next(&key, &vals) {
			e := Entry{Key: bytes.Clone(key)}
			for _, v := range vals {
				e.Values = append(e.Values, bytes.Clone(v))
			}
			out = append(out, e)
		}
	}
	if err := it.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return out, fmt.Errorf("read map %s: %w", m.Name, err)
	}
	return out, nil
}

// Clear removes all elements; an array's become zero.
func (s *Session) Clear(m *ir.Map) error {
	if m.Kind == ir.Array || m.Kind == ir.PerCPUArray {
		return s.Zero(m)
	}
	es, err := s.Entries(m)
	if err != nil {
		return err
	}
	for _, e := range es {
		if err := s.maps[m].Delete(e.Key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("clear map %s: %w", m.Name, err)
		}
	}
	return nil
}

// Zero sets all values to zero.
func (s *Session) Zero(m *ir.Map) error {
	es, err := s.Entries(m)
	if err != nil {
		return err
	}
	for _, e := range es {
		zero := make([]byte, len(e.Values[0]))
		if m.Kind.PerCPU() {
			vals := make([][]byte, len(e.Values))
			for i := range vals {
				vals[i] = zero
			}
			err = s.maps[m].Put(e.Key, vals)
		} else {
			err = s.maps[m].Put(e.Key, zero)
		}
		if err != nil {
			return fmt.Errorf("zero map %s: %w", m.Name, err)
		}
	}
	return nil
}

// Reader reads the records of a session's ring.
type Reader = ring.Reader

// Reader opens the event ring; nil if no program writes to it. The caller closes it before the session.
func (s *Session) Reader() (*Reader, error) {
	for m, km := range s.maps {
		if m.Kind != ir.Ring {
			continue
		}
		r, err := ring.Open(km)
		if err != nil {
			return nil, fmt.Errorf("open event ring: %w", err)
		}
		return r, nil
	}
	return nil, nil
}

// Account is what happened to the runs of one unit.
type Account struct {
	Unit     *ir.Unit
	Runs     uint64 // counted by the kernel; 0 where it was not asked to count
	Missed   uint64 // not run because a program was running on this CPU already
	LostRing uint64
	LostMap  uint64
	Filtered uint64
	Faults   uint64 // reads that failed
	// Session is the unit with whose program this one runs, entry and return being one; nil for others. The entry's Runs
	// and Missed are those of both.
	Session *ir.Unit
}

// Accounts reads the counters.
func (s *Session) Accounts() []Account {
	var out []Account
	var counters []byte
	if es, err := s.Entries(s.Prog.Counters); err == nil && len(es) == 1 {
		counters = es[0].Values[0]
	}
	for _, l := range s.units {
		a := Account{Unit: l.prog.Unit}
		if l.entry != nil {
			a.Session = l.entry.prog.Unit
		}
		for _, p := range l.programs() {
			if st, err := p.Stats(); err == nil {
				a.Runs += st.RunCount
				a.Missed += st.RecursionMisses
			}
		}
		a.AddCounters(counters, len(s.Prog.Units))
		out = append(out, a)
	}
	return out
}

// AddCounters adds what the program itself counted: the value of [ir.Program.Counters], of a program of that many units.
func (a *Account) AddCounters(value []byte, units int) {
	for v := range slices.Chunk(value, ir.CounterBytes(units)) {
		v = v[8*ir.NumCounters*a.Unit.Index:]
		a.LostRing += le(v[8*ir.LostRing : 8*ir.LostRing+8])
		a.LostMap += le(v[8*ir.LostMap : 8*ir.LostMap+8])
		a.Filtered += le(v[8*ir.Filtered : 8*ir.Filtered+8])
		a.Faults += le(v[8*ir.ReadFail : 8*ir.ReadFail+8])
	}
}

func le(b []byte) uint64 {
	var n uint64
	for i := len(b) - 1; i >= 0; i-- {
		n = n<<8 | uint64(b[i])
	}
	return n
}
