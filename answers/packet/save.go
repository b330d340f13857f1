package packet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/fathom-trace/fathom/netstate"
)

// format is what a saved recording begins with.
const format = "fathom packet 1"

// mostSaved bounds what Load reads.
const mostSaved = 512 << 20

// saved is a recording as a file has it.
type saved struct {
	Format string `json:"format"`
	*Recording
}

// Save writes a recording, to be explained later, on any machine.
func (r *Recording) Save(w io.Writer) error {
	return json.NewEncoder(w).Encode(saved{format, r})
}

// Load reads what Save wrote.
func Load(rd io.Reader) (*Recording, error) {
	lim := &io.LimitedReader{R: rd, N: mostSaved}
	dec := json.NewDecoder(lim)
	s := saved{Recording: &Recording{}}
	if err := dec.Decode(&s); err != nil {
		if lim.N <= 0 {
			return nil, fmt.Errorf("offset %d: a recording has at most %d bytes", dec.InputOffset(), mostSaved)
		}
		return nil, fmt.Errorf("offset %d: %w", dec.InputOffset(), err)
	}
	if s.Format != format {
		return nil, fmt.Errorf("offset 0: format is %q, not %q", s.Format, format)
	}
	r := s.Recording
	r.whole()
	for _, f := range r.Flows {
		if f == nil {
			return nil, errors.New("a flow is null")
		}
		if err := f.relink(); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// whole leaves out what Save would not have written.
func (r *Recording) whole() {
	r.Refusals = slices.DeleteFunc(r.Refusals, func(x *Refusal) bool { return x == nil })
	r.Troubles = slices.DeleteFunc(r.Troubles, func(x *Trouble) bool { return x == nil })
	r.Stages = slices.DeleteFunc(r.Stages, func(x *Stage) bool { return x == nil || x.Count == 0 })
	for _, m := range []map[uint64]*netstate.State{r.Before, r.At, r.After} {
		maps.DeleteFunc(m, func(_ uint64, st *netstate.State) bool { return st == nil })
	}
}

// relink makes anew what is not saved: what packets look like, and which of them losses and flows mean.
func (f *Flow) relink() error {
	seen := map[uint64]*Packet{}
	for i, p := range f.Sample {
		if p == nil {
			return errors.New("a packet is null")
		}
		p.look()
		seen[p.ID], f.Sample[i] = p, p
	}
	one := func(p *Packet) *Packet {
		if p == nil {
			return nil
		}
		if was := seen[p.ID]; was != nil {
			return was
		}
		p.look()
		seen[p.ID] = p
		return p
	}
	f.OpenSample = one(f.OpenSample)
	for _, l := range f.Losses {
		if l == nil || l.Sample == nil || l.At == nil {
			return errors.New("a loss without a packet")
		}
		l.Sample = one(l.Sample)
		l.At.View = Look(&l.At.Event)
	}
	for i := range f.Rewritten {
		if b := f.Rewritten[i].Before; b != nil {
			b.View = Look(&b.Event)
		}
	}
	return nil
}

func (p *Packet) look() {
	hops := p.Hops[:0]
	for _, h := range p.Hops {
		if h != nil {
			h.View = Look(&h.Event)
			hops = append(hops, h)
		}
	}
	p.Hops = hops
}
