package view

import (
	"bytes"
	"fmt"
	"sort"
	"strconv"

	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/lang/types"
)

// row is one element of a map, its per-CPU values combined.
type row struct {
	key   []byte
	val   []byte // of plain maps
	num   int64  // what sorting goes by
	count int64  // avg, stats
	total int64
	hist  map[uint64]uint64 // bucket → count
}

// Map prints a map: top and div as print's arguments, 0 for none. Equal contents give equal bytes.
func (o *Output) Map(m *ir.Map, entries []Entry, top, div uint64) error {
	rows := collect(m, entries)
	sortRows(m, rows)
	if top > 0 && uint64(len(rows)) > top {
		rows = rows[uint64(len(rows))-top:]
	}
	if div == 0 {
		div = 1
	}
	if o.o.JSON {
		return o.mapJSON(m, rows, int64(div))
	}
	var b []byte
	for _, r := range rows {
		b = append(b, m.Name...)
		if m.Key != nil {
			b = append(b, '[')
			b = o.key(b, m.Key, r.key)
			b = append(b, ']')
		}
		switch m.Value.Kind {
		case types.Hist, types.LHist:
			b = append(b, ":\n"...)
			b = o.histogram(b, m.Value, r.hist, div)
			b = append(b, '\n')
			continue
		}
		b = append(b, ": "...)
		b = append(o.cell(b, m.Value, r, int64(div)), '\n')
	}
	_, err := o.o.W.Write(b)
	return err
}

// key writes a key without the parentheses of a tuple.
func (o *Output) key(b []byte, t *types.Type, k []byte) []byte {
	if t.Kind != types.Tuple {
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
		return fmt.Appendf(b, "{ .count = %d, .average = %s, .total = %s }", r.count, signed(t, average(t, r)/div), signed(t, r.total/div))
	case types.Avg:
		return append(b, signed(t, average(t, r)/div)...)
	case types.Count, types.Sum, types.Min, types.Max:
		return append(b, signed(t, divide(t, r.num, div))...)
	}
	if t.Kind == types.Int && div > 1 {
		return append(b, signed(t, divide(t, r.num, div))...)
	}
	return o.value(b, t, r.val)
}

func divide(t *types.Type, n, div int64) int64 {
	if t.Signed {
		return n / div
	}
	return int64(uint64(n) / uint64(div))
}

func signed(t *types.Type, n int64) string {
	if t.Signed {
		return strconv.FormatInt(n, 10)
	}
	return strconv.FormatUint(uint64(n), 10)
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
		var sum uint64
		for _, v := range e.Values {
			sum += word(v, 0)
		}
		rows[i].hist[le.Uint64(e.Key[n:])] += sum
		rows[i].num += int64(sum)
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
	if len(e.Values) == 0 {
		return r
	}
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
			if word(v, 8) != 0 && (!set || better(t, n, r.num)) {
				r.num, set = n, true
			}
		default:
			r.val = v
			if t.IsInt() {
				r.num = number(t, v)
			}
			return r
		}
	}
	if t.Kind == types.Avg || t.Kind == types.Stats {
		r.num = average(t, r)
		if t.Kind == types.Stats {
			r.num = r.total
		}
	}
	return r
}

// better says if n replaces the extreme found so far.
func better(t *types.Type, n, have int64) bool {
	less := n < have
	if !t.Signed {
		less = uint64(n) < uint64(have)
	}
	return less == (t.Kind == types.Min)
}

// sortRows sorts by value, then key: integers by number, strings by text.
func sortRows(m *ir.Map, rows []row) {
	sort.SliceStable(rows, func(i, j int) bool {
		a, b := rows[i], rows[j]
		if a.num != b.num {
			if !m.Value.Signed && (m.Value.Kind == types.Int || m.Value.IsAgg()) {
				return uint64(a.num) < uint64(b.num)
			}
			return a.num < b.num
		}
		if m.Value.Kind == types.String {
			if c := bytes.Compare(cstring(a.val), cstring(b.val)); c != 0 {
				return c < 0
			}
		}
		return m.Key != nil && compare(m.Key, a.key, b.key) < 0
	})
}

func compare(t *types.Type, a, b []byte) int {
	if len(a) < t.Size || len(b) < t.Size {
		return bytes.Compare(a, b)
	}
	switch {
	case t.IsInt() || t.Kind == types.Ptr:
		x, y := number(t, a), number(t, b)
		if !t.Signed && uint64(x) != uint64(y) {
			if uint64(x) < uint64(y) {
				return -1
			}
			return 1
		}
		return cmpInt(x, y)
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

func cmpInt(x, y int64) int {
	switch {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return 0
}
