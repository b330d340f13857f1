package check

import (
	"math"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/lang/types"
)

// litType gives the type of a non-negative integer literal: the smallest signed type that holds it, which takes the sign of
// what it meets; uint64 beyond int64.
func litType(v uint64) *types.Type {
	if v > math.MaxInt64 {
		return types.Uint64
	}
	t := *signedType(int64(v))
	t.Lit = true
	return &t
}

// signedType gives the smallest signed type that holds v.
func signedType(v int64) *types.Type {
	for _, t := range []*types.Type{types.Int8, types.Int16, types.Int32} {
		if bits := 8*t.Size - 1; v >= -1<<bits && v < 1<<bits {
			return t
		}
	}
	return types.Int64
}

// fits reports whether v, unsigned above int64 if big, is a value of the integer type t.
func fits(v int64, big bool, t *types.Type) bool {
	bits := 8 * t.Size
	switch {
	case t.Signed:
		return !big && (bits >= 64 || v >= -1<<(bits-1) && v < 1<<(bits-1))
	case big || bits >= 64:
		return big && bits >= 64 || v >= 0
	}
	return v >= 0 && v < 1<<bits
}

// same is types.Equal that also tells literals from other integers and address spaces apart: what the fixpoint compares.
func same(a, b *types.Type) bool {
	if a == b {
		return true
	}
	if a == nil || b == nil || !types.Equal(a, b) || a.Lit != b.Lit || a.Space != b.Space {
		return false
	}
	for i := range a.Fields {
		if !same(a.Fields[i].Type, b.Fields[i].Type) {
			return false
		}
	}
	return a.Elem == nil || same(a.Elem, b.Elem)
}

// isInt reports integers that take part in arithmetic and widening: not bool.
func isInt(t *types.Type) bool { return t.Kind == types.Int || t.Kind == types.Enum }

// readable reports aggregations that can be read as an integer: count, sum, min, max and avg.
func readable(t *types.Type) bool { return t.CastableAgg() && t.Kind != types.Stats }

// aggInt is the integer a castable aggregation reads as.
func aggInt(t *types.Type) *types.Type {
	if t.Signed {
		return types.Int64
	}
	return types.Uint64
}

// compatible reports types of which one can become the other by growing.
func compatible(a, b *types.Type) bool {
	if isInt(a) && isInt(b) {
		return true
	}
	if a.Kind != b.Kind {
		return false
	}
	switch a.Kind {
	case types.Struct:
		return sameStruct(a, b)
	case types.Ptr:
		return compatible(a.Elem, b.Elem)
	case types.Tuple:
		return len(a.Fields) == len(b.Fields) && allFields(a, func(i int, f types.Field) bool {
			return compatible(f.Type, b.Fields[i].Type)
		})
	case types.Record:
		return len(a.Fields) == len(b.Fields) && allFields(a, func(_ int, f types.Field) bool {
			g, ok := b.Field(f.Name)
			return ok && compatible(f.Type, g.Type)
		})
	case types.KStack, types.UStack:
		return a.Stack == b.Stack && a.Depth == b.Depth
	case types.Array:
		return types.Equal(a.Elem, b.Elem) && (a.Len == b.Len || a.Len == 0 || b.Len == 0)
	}
	return true
}

func allFields(t *types.Type, ok func(i int, f types.Field) bool) bool {
	for i, f := range t.Fields {
		if !ok(i, f) {
			return false
		}
	}
	return true
}

// sameStruct compares by name, as one struct may come from several places; unnamed ones by identity.
func sameStruct(a, b *types.Type) bool {
	if a.C == b.C {
		return true
	}
	return a.Name != "" && a.C != nil && b.C != nil && ctype.Name(a.C) == ctype.Name(b.C)
}

// join gives the smallest type that holds the values of both, where cur is what a variable, key or map already has. None as
// cur takes anything; an aggregation then becomes the integer it reads as.
func join(cur, t *types.Type) (*types.Type, bool) {
	switch {
	case cur == nil || cur.Kind == types.None:
		if t.CastableAgg() {
			return aggInt(t), true
		}
		return t, true
	case t.Kind == types.None || same(cur, t):
		return cur, true
	case isInt(cur) && readable(t):
		return joinInt(cur, aggInt(t)), true
	case !compatible(cur, t):
		return cur, false
	}
	switch cur.Kind {
	case types.Int, types.Enum:
		return joinInt(cur, t), true
	case types.Tuple:
		return joinTuple(cur, t)
	case types.Record:
		return joinRecord(cur, t)
	case types.String, types.Buffer:
		if t.Size > cur.Size {
			return t, true
		}
	case types.Array:
		if cur.Len == 0 {
			return t, true
		}
	case types.Ptr:
		if cur.Space == types.SpaceNone {
			return t, true
		}
	}
	if cur.IsAgg() && !cur.Signed && t.Signed {
		return t, true
	}
	return cur, true
}

// joinInt widens integers. A literal takes the sign of the other; where the signs differ the result is signed and one size
// larger, at most int64.
func joinInt(a, b *types.Type) *types.Type {
	if a.Kind == types.Enum && b.Kind == types.Enum && a.C == b.C {
		return a
	}
	size, signed, lit := max(a.Size, b.Size), a.Signed, a.Lit && b.Lit
	if a.Signed != b.Signed {
		switch {
		case a.Lit:
			signed = b.Signed
		case b.Lit:
			signed = a.Signed
		case a.Signed && a.Size > b.Size || b.Signed && b.Size > a.Size:
			signed = true
		default:
			size, signed = min(8, 2*size), true
		}
	}
	t := types.IntT(size, signed)
	if space := mergeSpace(a.Space, b.Space); lit || space != types.SpaceNone {
		c := *t
		c.Lit, c.Space = lit, space
		return &c
	}
	return t
}

// mergeSpace gives the address space two integers that may be addresses share.
func mergeSpace(a, b types.Space) types.Space {
	switch {
	case a == types.SpaceNone:
		return b
	case b == types.SpaceNone || a == b:
		return a
	}
	return types.SpaceNone
}

func joinTuple(a, b *types.Type) (*types.Type, bool) {
	var elems []*types.Type
	for i := range a.Fields {
		t, ok := join(a.Fields[i].Type, b.Fields[i].Type)
		if !ok {
			return a, false
		}
		elems = append(elems, t)
	}
	return types.TupleOf(elems...), true
}

// joinRecord keeps the order of a.
func joinRecord(a, b *types.Type) (*types.Type, bool) {
	var fields []types.Field
	for _, f := range a.Fields {
		g, _ := b.Field(f.Name)
		t, ok := join(f.Type, g.Type)
		if !ok {
			return a, false
		}
		fields = append(fields, types.Field{Name: f.Name, Type: t})
	}
	return types.RecordOf(fields), true
}

// fitsInto reports whether every value of a is one of b without a change.
func fitsInto(a, b *types.Type) bool {
	if !compatible(a, b) {
		return false
	}
	switch {
	case isInt(a) && (a.Signed == b.Signed || a.Lit):
		return a.Size <= b.Size
	case isInt(a):
		return !a.Signed && a.Size < b.Size
	case a.Kind == types.String:
		return a.Size <= b.Size
	case a.Kind == types.Tuple, a.Kind == types.Record:
		return allFields(a, func(i int, f types.Field) bool {
			g := b.Fields[i]
			if a.Kind == types.Record {
				g, _ = b.Field(f.Name)
			}
			return fitsInto(f.Type, g.Type)
		})
	}
	return true
}
