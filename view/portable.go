package view

import (
	"bytes"
	"encoding/json"
	"io"

	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/lang/types"
)

// Portable is a map as another machine can join it with its like: keys are named already, values are still numbers. The type
// of its records is PortableType.
type Portable struct {
	Type   string       `json:"type"`
	Name   string       `json:"name"`
	Keyed  bool         `json:"keyed,omitempty"`
	Kind   types.Kind   `json:"kind"`
	Signed bool         `json:"signed,omitempty"`
	Bounds types.Bounds `json:"bounds,omitzero"`
	Rows   []Row        `json:"rows"`
	Now    bool         `json:"now,omitempty"` // printed by the program while it ran: not joined

	Host string `json:"-"` // of a map that cannot be joined, and of no host if it was
}

// PortableType is the type of the JSON record of a Portable.
const PortableType = "portable_map"

// Row is an element of a Portable.
type Row struct {
	Key  string            `json:"key,omitempty"`  // as text
	Name string            `json:"name,omitempty"` // as the name of a JSON member
	Num  int64             `json:"num,omitempty"`
	N    int64             `json:"n,omitempty"` // avg, stats: how many, of Sum
	Sum  int64             `json:"sum,omitempty"`
	Hist map[uint64]uint64 `json:"hist,omitempty"`
	Text string            `json:"text,omitempty"` // what cannot be joined, as it prints
	JSON json.RawMessage   `json:"json,omitempty"`
}

// joined are the kinds of values of which those of several machines are one.
var joined = map[types.Kind]bool{types.Count: true, types.Sum: true, types.Min: true, types.Max: true, types.Avg: true,
	types.Stats: true, types.Hist: true, types.LHist: true}

// Portable writes a map to be joined with those of other machines; now says that the program goes on.
func (o *Output) Portable(m *ir.Map, entries []Entry, now bool) error {
	rows := collect(m, entries)
	sortRows(m, rows)
	if m.Value.Kind == types.TSeries {
		align(m.Value, rows)
	}
	p := Portable{Type: PortableType, Name: m.Name, Keyed: m.Key != nil, Kind: m.Value.Kind, Signed: m.Value.Signed, Bounds: m.Value.Bounds, Rows: []Row{}, Now: now}
	for _, r := range rows {
		if r.unset {
			continue // there is no least of nothing
		}
		out := Row{Num: r.num, N: r.count, Sum: r.total, Hist: r.hist}
		if m.Key != nil {
			out.Key, out.Name = string(o.key(nil, m.Key, r.key)), o.keyJSON(m.Key, r.key)
		}
		if !joined[m.Value.Kind] {
			if m.Value.Kind == types.TSeries {
				out.Text = "\n" + string(o.graph(nil, m.Value, r.points))
			} else {
				out.Text = string(o.cell(nil, m.Value, r, 1))
			}
			out.JSON = o.cellJSON(nil, m.Value, r, 1)
		}
		p.Rows = append(p.Rows, out)
	}
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	_, err = o.o.W.Write(append(b, '\n'))
	return err
}

// Pool is maps of several machines, in the order they came.
type Pool struct {
	maps []*Portable
}

// Add takes a map of a host. Counts, sums, least and greatest values, averages and histograms of one name become one map;
// others stay the host's own.
func (p *Pool) Add(host string, m *Portable) {
	if joined[m.Kind] {
		for _, was := range p.maps {
			if was.Name == m.Name && was.Kind == m.Kind && was.Keyed == m.Keyed && was.Bounds == m.Bounds && was.Signed == m.Signed {
				was.join(m)
				return
			}
		}
	} else {
		m.Host = host
	}
	p.maps = append(p.maps, m)
}

func (m *Portable) join(o *Portable) {
	at := map[string]int{}
	for i, r := range m.Rows {
		at[r.Key] = i
	}
	for _, r := range o.Rows {
		i, ok := at[r.Key]
		if !ok {
			at[r.Key] = len(m.Rows)
			m.Rows = append(m.Rows, r)
			continue
		}
		m.Rows[i].join(r, m.typ())
	}
	t := m.typ()
	sorting.Stable(m.Rows, func(a, b Row) int {
		switch {
		case less(t, a.Num, b.Num):
			return -1
		case less(t, b.Num, a.Num):
			return 1
		}
		return bytes.Compare([]byte(a.Key), []byte(b.Key))
	})
}

func (r *Row) join(o Row, t *types.Type) {
	switch t.Kind {
	case types.Min, types.Max:
		if less(t, o.Num, r.Num) == (t.Kind == types.Min) {
			r.Num = o.Num
		}
	case types.Avg, types.Stats:
		r.N, r.Sum = r.N+o.N, r.Sum+o.Sum
		r.Num = average(t, row{count: r.N, total: r.Sum})
	default:
		r.Num += o.Num
		if r.Hist == nil && o.Hist != nil {
			r.Hist = map[uint64]uint64{}
		}
		for b, n := range o.Hist {
			r.Hist[b] += n
		}
	}
}

// typ is the type of the map's values.
func (m *Portable) typ() *types.Type {
	return &types.Type{Kind: m.Kind, Signed: m.Signed, Size: 8, Bounds: m.Bounds}
}

// row is an element as maps of this machine have it.
func (r Row) row() row { return row{num: r.Num, count: r.N, total: r.Sum, hist: r.Hist} }

// Write prints the maps, as text or as JSON lines, in the forms of Output.Map; a host's own are told with its name.
func (p *Pool) Write(w io.Writer, asJSON bool) error {
	for _, m := range p.maps {
		if err := m.Write(w, asJSON); err != nil {
			return err
		}
	}
	return nil
}

// Write prints one map, as Pool.Write does.
func (m *Portable) Write(w io.Writer, asJSON bool) error {
	o := New(Options{W: w, Program: &ir.Program{}, JSON: asJSON})
	b := m.text(o)
	if asJSON {
		b = m.json(o)
	}
	_, err := w.Write(b)
	return err
}

func (m *Portable) text(o *Output) (b []byte) {
	t := m.typ()
	for _, r := range m.Rows {
		if m.Host != "" {
			b = append(append(b, m.Host...), ": "...)
		}
		b = append(b, m.Name...)
		if m.Keyed {
			b = append(append(append(b, '['), r.Key...), ']')
		}
		switch {
		case !joined[m.Kind]:
			b = append(append(b, ": "...), r.Text...)
		case m.Kind == types.Hist || m.Kind == types.LHist:
			b = histogram(append(b, ":\n"...), t, r.Hist, 1)
		default:
			b = o.cell(append(b, ": "...), t, r.row(), 1)
		}
		b = append(b, '\n')
	}
	return b
}

func (m *Portable) json(o *Output) (b []byte) {
	if len(m.Rows) == 0 {
		return nil
	}
	t := m.typ()
	b = append(append(b, `{"type": "`...), mapKind(t)...)
	b = append(b, '"')
	if m.Host != "" {
		b = quote(append(b, `, "host": `...), m.Host)
	}
	b = append(quote(append(b, `, "data": {`...), m.Name), ": "...)
	cell := func(r Row) {
		if joined[m.Kind] {
			b = o.cellJSON(b, t, r.row(), 1)
		} else {
			b = append(b, r.JSON...)
		}
	}
	if !m.Keyed {
		cell(m.Rows[0])
		return append(b, "}}\n"...)
	}
	b = append(b, '{')
	for i, r := range m.Rows {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = append(quote(b, r.Name), ": "...)
		cell(r)
	}
	return append(b, "}}}\n"...)
}
