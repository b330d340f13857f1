package view

import (
	"bytes"
	"strconv"

	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/lang/types"
)

// row is one element of a map, its per-CPU values combined.
type row struct {
	key    []byte
	val    []byte // of plain maps
	num    int64  // what sorting goes by
	unset  bool   // of min, max: nothing was put in yet
	count  int64  // avg, stats
	total  int64
	hist   map[uint64]uint64 // bucket → count
	cpus   [][]byte          // tseries: buckets of all CPUs
	points []point           // tseries: what they give
}

// Map prints a map: top and div as print's arguments, 0 for none. Equal contents give equal bytes.
func (o *Output) Map(m *ir.Map, entries []Entry, top, div uint64) error {
	rows := collect(m, entries)
	sortRows(m, rows)
	if m.Value.Kind == types.TSeries {
		align(m.Value, rows)
	} else if top > 0 && uint64(len(rows)) > top {
		rows = rows[uint64(len(rows))-top:]
	}
	n := int64(uint32(div)) // bpftrace keeps 32 bits
	if n == 0 {
		n = 1
	}
	if o.o.JSON {
		return o.mapJSON(m, rows, n)
	}
	b := o.buf[:0]
	for _, r := range rows {
		b = append(b, m.Name...)
		if m.Key != nil {
			b = append(o.key(append(b, '['), m.Key, r.key), ']')
		}
		switch m.Value.Kind {
		case types.Hist, types.LHist:
			b = histogram(append(b, ":\n"...), m.Value, r.hist, uint64(n))
		case types.TSeries:
			b = o.graph(append(b, ":\n"...), m.Value, r.points)
		default:
			b = o.cell(append(b, ": "...), m.Value, r, n)
		}
		b = append(b, '\n')
	}
	o.buf = b
	_, err := o.o.W.Write(b)
	return err
}

// MapElem prints one element of a map, as print(@x[key]) does: its value alone where it is a number. What needs lines
// of its own prints as the map would with no other element.
func (o *Output) MapElem(m *ir.Map, key []byte, e Entry) error {
	e.Key = key
	if m.Bucketed {
		return o.Map(m, []Entry{e}, 0, 0)
	}
	r := combine(m.Value, e)
	o.buf = o.buf[:0]
	if o.o.JSON {
		b := o.cellJSON(append(o.buf, `{"type": "value", "data": `...), m.Value, r, 1)
		o.buf = append(b, "}\n"...)
	} else {
		o.buf = append(o.cell(o.buf, m.Value, r, 1), '\n')
	}
	_, err := o.o.W.Write(o.buf)
	return err
}

// key writes a key without the parentheses of a tuple.
func (o *Output) key(b []byte, t *types.Type, k []byte) []byte {
	if t.Kind != types.Tuple || len(k) < t.Size {
		return o.value(b, t, k)
	}
	for i, f := range t.Fields {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = o.value(b, f.Type, k[f.Off:])
	}
	return b
}

func (o *Output) cell(b []byte, t *types.Type, r row, div int64) []byte {
	switch t.Kind {
	case types.Stats:
		return r.stats(b, t, div)
	case types.Avg, types.Count, types.Sum, types.Min, types.Max, types.Int:
		return appendInt(b, divide(t, r.num, div), t.Signed)
	}
	return o.value(b, t, r.val)
}

// stats writes count, average and total; only the average is divided.
func (r row) stats(b []byte, t *types.Type, div int64) []byte {
	b = strconv.AppendInt(append(b, "{ .count = "...), r.count, 10)
	b = appendInt(append(b, ", .average = "...), divide(t, average(t, r), div), t.Signed)
	b = appendInt(append(b, ", .total = "...), r.total, t.Signed)
	return append(b, " }"...)
}

func divide(t *types.Type, n, div int64) int64 {
	if t.Signed {
		return n / div
	}
	return int64(uint64(n) / uint64(div))
}

func average(t *types.Type, r row) int64 {
	if r.count == 0 {
		return 0
	}
	if t.Signed {
		return r.total / r.count
	}
	return int64(uint64(r.total) / uint64(r.count))
}

// collect combines CPUs, and buckets of one key.
func collect(m *ir.Map, entries []Entry) []row {
	var rows []row
	index := map[string]int{}
	for _, e := range entries {
		if !m.Bucketed {
			rows = append(rows, combine(m.Value, e))
			continue
		}
		n := len(e.Key) - 8
		if n < 0 {
			continue
		}
		i, ok := index[string(e.Key[:n])]
		if !ok {
			i = len(rows)
			index[string(e.Key[:n])] = i
			rows = append(rows, row{key: e.Key[:n], hist: map[uint64]uint64{}})
		}
		if m.Value.Kind == types.TSeries {
			rows[i].cpus = append(rows[i].cpus, e.Values...)
			continue
		}
		var sum uint64
		for _, v := range e.Values {
			sum += word(v, 0)
		}
		rows[i].hist[le.Uint64(e.Key[n:])] += sum
		rows[i].num += int64(sum)
	}
	if m.Value.Kind == types.TSeries {
		for i := range rows {
			rows[i].points = series(m.Value, rows[i].cpus)
		}
	}
	return rows
}

func word(b []byte, off int) uint64 {
	if len(b) < off+8 {
		var pad [8]byte
		copy(pad[:], b[min(off, len(b)):])
		return le.Uint64(pad[:])
	}
	return le.Uint64(b[off:])
}

func combine(t *types.Type, e Entry) row {
	r := row{key: e.Key}
	set := false
	for _, v := range e.Values {
		n := int64(word(v, 0))
		switch t.Kind {
		case types.Count, types.Sum:
			r.num += n
		case types.Avg, types.Stats:
			r.total += n
			r.count += int64(word(v, 8))
		case types.Min, types.Max:
			if word(v, 8) != 0 && (!set || less(t, n, r.num) == (t.Kind == types.Min)) {
				r.num, set = n, true
			}
		case types.Int:
			r.num += number(t, v)
		default:
			r.val = v
			if t.Kind == types.Enum {
				r.num = number(t, v)
			}
			return r
		}
	}
	if t.Kind == types.Avg || t.Kind == types.Stats {
		r.num = average(t, r)
	}
	r.unset = !set && (t.Kind == types.Min || t.Kind == types.Max)
	return r
}

// sortRows sorts by value, then key: integers by number, strings by text. Values that are no numbers do not count.
func sortRows(m *ir.Map, rows []row) {
	sorting.Stable(rows, func(a, b row) int {
		switch {
		case less(m.Value, a.num, b.num):
			return -1
		case less(m.Value, b.num, a.num):
			return 1
		case m.Key == nil:
			return 0
		}
		return compare(m.Key, a.key, b.key)
	})
}

func compare(t *types.Type, a, b []byte) int {
	if len(a) < t.Size || len(b) < t.Size {
		return bytes.Compare(a, b)
	}
	switch {
	case t.IsInt():
		if x, y := number(t, a), number(t, b); x != y {
			if less(t, x, y) {
				return -1
			}
			return 1
		}
		return 0
	case t.Kind == types.Ptr:
		return compareWords(word(a, 0), word(b, 0))
	case t.Kind == types.String:
		return bytes.Compare(cstring(a[:t.Size]), cstring(b[:t.Size]))
	case t.Kind == types.Tuple || t.Kind == types.Record:
		for _, f := range t.Fields {
			if c := compare(f.Type, a[f.Off:], b[f.Off:]); c != 0 {
				return c
			}
		}
		return 0
	}
	return bytes.Compare(a[:t.Size], b[:t.Size])
}
