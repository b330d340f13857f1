package view

import (
	"math/bits"
	"strconv"

	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/lang/types"
)

// mapKind names the JSON record of a map.
func mapKind(t *types.Type) string {
	switch t.Kind {
	case types.Hist, types.LHist:
		return "hist"
	case types.Stats, types.Avg:
		return "stats"
	case types.TSeries:
		return "tseries"
	}
	return "map"
}

// mapJSON prints a map as one line: {"type": "map", "data": {"@x": …}}.
func (o *Output) mapJSON(m *ir.Map, rows []row, div int64) error {
	kind := mapKind(m.Value)
	if len(rows) == 0 && (kind != "stats" || m.Key == nil) {
		return nil // as bpftrace: an empty map of stats prints, other empty maps do not
	}
	b := append(append(o.buf[:0], `{"type": "`...), kind...)
	b = append(quote(append(b, `", "data": {`...), m.Name), ": "...)
	if m.Key == nil {
		b = o.cellJSON(b, m.Value, rows[0], div)
	} else {
		b = append(b, '{')
		for i, r := range rows {
			if i > 0 {
				b = append(b, ", "...)
			}
			b = append(quote(b, o.keyJSON(m.Key, r.key)), ": "...)
			b = o.cellJSON(b, m.Value, r, div)
		}
		b = append(b, '}')
	}
	o.buf = append(b, "}}\n"...)
	_, err := o.o.W.Write(o.buf)
	return err
}

// keyJSON gives a key as the name of a member: its text without blanks, as bpftrace does.
func (o *Output) keyJSON(t *types.Type, k []byte) string {
	b := o.key(nil, t, k)
	n := 0
	for _, c := range b {
		if c != ' ' {
			b[n] = c
			n++
		}
	}
	return string(b[:n])
}

func (o *Output) cellJSON(b []byte, t *types.Type, r row, div int64) []byte {
	switch t.Kind {
	case types.Hist, types.LHist:
		return histJSON(b, buckets(t, r.hist, uint64(div)))
	case types.TSeries:
		return o.seriesJSON(b, t, r.points)
	case types.Stats:
		b = strconv.AppendInt(append(b, `{"count": `...), r.count, 10)
		b = jsonInt(append(b, `, "average": `...), divide(t, average(t, r), div), t.Signed)
		return append(jsonInt(append(b, `, "total": `...), r.total, t.Signed), '}')
	case types.Avg, types.Count, types.Sum, types.Min, types.Max, types.Int:
		return jsonInt(b, divide(t, r.num, div), t.Signed)
	}
	return o.json(b, t, r.val)
}

func histJSON(b []byte, rows []bucket) []byte {
	b = append(b, '[')
	for i, k := range rows {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '{')
		if !k.noLo {
			b = append(jsonInt(append(b, `"min": `...), k.lo, true), ", "...)
		}
		if !k.noHi {
			b = append(jsonInt(append(b, `"max": `...), k.hi-1, true), ", "...)
		}
		b = append(strconv.AppendUint(append(b, `"count": `...), k.n, 10), '}')
	}
	return append(b, ']')
}

// jsonInt appends a number. One that a double cannot hold, which is what JSON's readers make of it, goes as a string.
func jsonInt(b []byte, n int64, signed bool) []byte {
	u := uint64(n)
	if signed && n < 0 {
		u = -u
	}
	exact := u == 0 || bits.Len64(u)-bits.TrailingZeros64(u) <= 53
	if !exact {
		b = append(b, '"')
	}
	if signed {
		b = strconv.AppendInt(b, n, 10)
	} else {
		b = strconv.AppendUint(b, uint64(n), 10)
	}
	if !exact {
		b = append(b, '"')
	}
	return b
}

// json appends a value as JSON: numbers, booleans and null as such, lists for arrays, buffers and tuples, objects for
// records. Pointers and enums are numbers; what else prints as a name is a string.
func (o *Output) json(b []byte, t *types.Type, v []byte) []byte {
	if len(v) < t.Size {
		return append(b, "null"...)
	}
	switch t.Kind {
	case types.None, types.Void:
		return append(b, "null"...)
	case types.Int, types.Timestamp:
		return jsonInt(b, number(t, v), t.Signed)
	case types.Enum:
		return jsonInt(b, int64(enumNumber(t, number(t, v))), false)
	case types.Ptr, types.Context:
		return jsonInt(b, int64(word(v, 0)), false)
	case types.Bool:
		return strconv.AppendBool(b, number(t, v) != 0)
	case types.Buffer:
		return list(b, buffer(t, v), func(b []byte, c byte) []byte { return strconv.AppendInt(b, int64(int8(c)), 10) })
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
		return list(b, t.Fields, func(b []byte, f types.Field) []byte { return o.json(b, f.Type, v[f.Off:]) })
	case types.Record, types.Struct:
		b = append(b, '{')
		for i, f := range fields(t, v) {
			if i > 0 {
				b = append(b, ", "...)
			}
			b = append(quote(b, f.name), ": "...)
			b = o.json(b, f.t, f.b)
		}
		return append(b, '}')
	case types.Stats:
		if t.Size >= 16 {
			return o.cellJSON(b, t, row{total: int64(word(v, 0)), count: int64(word(v, 8))}, 1)
		}
	}
	if t.IsAgg() {
		return jsonInt(b, aggregate(t, v), t.Signed)
	}
	return quote(b, string(o.value(nil, t, v)))
}

// list appends elements in brackets.
func list[E any](b []byte, elems []E, one func([]byte, E) []byte) []byte {
	b = append(b, '[')
	for i, e := range elems {
		if i > 0 {
			b = append(b, ',')
		}
		b = one(b, e)
	}
	return append(b, ']')
}

// quote appends s as a JSON string. Bytes that are no UTF-8 are escaped by their value, so that nothing is lost.
func quote(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\r':
			b = append(b, `\r`...)
		case r == '\t':
			b = append(b, `\t`...)
		case r < 0x20 || r == 0x7f:
			b = append(append(b, `\u00`...), hex[r>>4], hex[r&15])
		case r == '\uFFFD' && s[i] != 0xEF:
			b = append(append(b, `\u00`...), hex[s[i]>>4], hex[s[i]&15])
		default:
			b = append(b, string(r)...)
		}
	}
	return append(b, '"')
}
