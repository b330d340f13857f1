package view

import (
	"fmt"
	"strconv"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/lang/types"
)

// mapJSON prints a map as one line: {"type": "map", "data": {"@x": …}}.
func (o *Output) mapJSON(m *ir.Map, rows []row, div int64) error {
	kind := "map"
	switch m.Value.Kind {
	case types.Hist, types.LHist:
		kind = "hist"
	case types.Stats, types.Avg:
		kind = "stats"
	case types.TSeries:
		kind = "tseries"
	}
	b := fmt.Appendf(nil, `{"type": %q, "data": {`, kind)
	b = append(quote(b, m.Name), ": "...)
	switch {
	case m.Key == nil && len(rows) > 0:
		b = o.cellJSON(b, m.Value, rows[0], div)
	case m.Key == nil:
		b = append(b, map[bool]string{true: "[]", false: "0"}[kind == "hist"]...)
	default:
		b = append(b, '{')
		for i, r := range rows {
			if i > 0 {
				b = append(b, ", "...)
			}
			b = append(quote(b, string(o.keyJSON(m.Key, r.key))), ": "...)
			b = o.cellJSON(b, m.Value, r, div)
		}
		b = append(b, '}')
	}
	_, err := o.o.W.Write(append(b, "}}\n"...))
	return err
}

// keyJSON gives a key as the name of a member: parts of a tuple joined by commas.
func (o *Output) keyJSON(t *types.Type, k []byte) []byte {
	if t.Kind != types.Tuple {
		return o.value(nil, t, k)
	}
	var b []byte
	for i, f := range t.Fields {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, o.keyJSON(f.Type, k[f.Off:])...)
	}
	return b
}

func (o *Output) cellJSON(b []byte, t *types.Type, r row, div int64) []byte {
	switch t.Kind {
	case types.Hist, types.LHist:
		b = append(b, '[')
		for i, k := range buckets(t, r.hist) {
			if i > 0 {
				b = append(b, ", "...)
			}
			b = append(b, '{')
			if !k.noLo {
				b = fmt.Appendf(b, `"min": %d, `, k.lo)
			}
			if !k.noHi {
				b = fmt.Appendf(b, `"max": %d, `, k.hi-1)
			}
			b = fmt.Appendf(b, `"count": %d}`, k.n/uint64(div))
		}
		return append(b, ']')
	case types.Stats:
		return fmt.Appendf(b, `{"count": %d, "average": %s, "total": %s}`, r.count, signed(t, average(t, r)/div), signed(t, r.total/div))
	case types.Avg, types.Count, types.Sum, types.Min, types.Max:
		return o.cell(b, t, r, div)
	}
	return o.json(b, t, r.val)
}

// json appends a value as JSON: numbers, booleans and null as such, lists for arrays and tuples, objects for records.
func (o *Output) json(b []byte, t *types.Type, v []byte) []byte {
	if len(v) < t.Size {
		return append(b, "null"...)
	}
	switch t.Kind {
	case types.Int, types.Timestamp:
		return appendNumber(b, t, v)
	case types.Ptr, types.Context:
		return strconv.AppendUint(b, le.Uint64(v), 10)
	case types.Bool:
		return strconv.AppendBool(b, v[0] != 0)
	case types.Array:
		b = append(b, '[')
		for i := range t.Len {
			if i > 0 {
				b = append(b, ',')
			}
			b = o.json(b, t.Elem, v[i*t.Elem.Size:])
		}
		return append(b, ']')
	case types.Tuple:
		b = append(b, '[')
		for i, f := range t.Fields {
			if i > 0 {
				b = append(b, ',')
			}
			b = o.json(b, f.Type, v[f.Off:])
		}
		return append(b, ']')
	case types.Record:
		b = append(b, '{')
		for i, f := range t.Fields {
			if i > 0 {
				b = append(b, ", "...)
			}
			b = append(quote(b, f.Name), ": "...)
			b = o.json(b, f.Type, v[f.Off:])
		}
		return append(b, '}')
	case types.Struct:
		return o.structJSON(b, t, v)
	case types.KStack, types.UStack:
		b = append(b, '[')
		for i, l := range o.frames(t, v) {
			if i > 0 {
				b = append(b, ',')
			}
			b = quote(b, l)
		}
		return append(b, ']')
	}
	return quote(b, string(o.value(nil, t, v)))
}

func (o *Output) structJSON(b []byte, t *types.Type, v []byte) []byte {
	s, ok := ctype.Strip(t.C).(*ctype.Struct)
	if !ok {
		return append(b, "null"...)
	}
	b = append(b, '{')
	for i, m := range s.Members() {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = append(quote(b, m.Name), ": "...)
		mt := types.FromC(m.Type, types.Kernel)
		switch off := m.BitOff / 8; {
		case m.BitSize > 0:
			b = strconv.AppendInt(b, bitfield(v, m.BitOff, m.BitSize, mt.Signed), 10)
		case off+mt.Size <= len(v):
			b = o.json(b, mt, v[off:])
		default:
			b = append(b, "null"...)
		}
	}
	return append(b, '}')
}
