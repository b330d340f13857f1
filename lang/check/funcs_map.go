package check

import (
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/lang/types"
)

// mapRows act on maps.
var mapRows = []*Func{
	{Name: "clear", Sig: "clear(@map)", Doc: "remove all keys", Min: 1, Max: 1, Async: true, Void: true, spec: "m", Check: checkWholeMap},
	{Name: "zero", Sig: "zero(@map)", Doc: "set all values to zero", Min: 1, Max: 1, Async: true, Void: true, spec: "m", Check: checkWholeMap},
	{Name: "delete", Sig: "delete(@map[, key])", Doc: "remove a key", Min: 1, Max: 2, spec: "M*", quiet: true, Check: checkDelete},
	{Name: "has_key", Sig: "has_key(@map, key)", Doc: "whether a key exists", Min: 2, Max: 2, spec: "m*", Check: checkHasKey},
	{Name: "find", Sig: "find(@map, key, $value)", Doc: "get a value if the key exists", Min: 3, Max: 3, spec: "m*v", Check: checkFind},
	{Name: "len", Sig: "len(@map) or len(stack)", Doc: "number of keys or frames", Min: 1, Max: 1, spec: "M", Check: checkLen},
	{Name: "is_scalar", Sig: "is_scalar(@map)", Doc: "whether a map has no keys", Min: 1, Max: 1, spec: "m", Check: checkIsScalar},
}

// aggRows are the right sides of @x =.
var aggRows = []*Func{
	{Name: "count", Sig: "count()", Doc: "count calls", Agg: true, ret: countT},
	{Name: "sum", Sig: "sum(int n)", Doc: "sum values", Min: 1, Max: 1, Agg: true, Check: checkAgg(types.Sum)},
	{Name: "avg", Sig: "avg(int n)", Doc: "average values", Min: 1, Max: 1, Agg: true, Check: checkAgg(types.Avg)},
	{Name: "min", Sig: "min(int n)", Doc: "smallest value", Min: 1, Max: 1, Agg: true, Check: checkAgg(types.Min)},
	{Name: "max", Sig: "max(int n)", Doc: "largest value", Min: 1, Max: 1, Agg: true, Check: checkAgg(types.Max)},
	{Name: "stats", Sig: "stats(int n)", Doc: "count, average and total", Min: 1, Max: 1, Agg: true, Check: checkAgg(types.Stats)},
	{Name: "hist", Sig: "hist(int n[, const int bits])", Doc: "power-of-2 histogram", Min: 1, Max: 2, Agg: true, spec: "iI", Check: checkHist},
	{Name: "lhist", Sig: "lhist(int n, const int min, const int max, const int step)", Doc: "linear histogram", Min: 4, Max: 4, Agg: true, spec: "iIII", Check: checkLhist},
	{Name: "tseries", Sig: "tseries(int n, const int interval_ns, const int num_intervals[, agg])", Doc: "time series", Min: 3, Max: 4, Agg: true, spec: "iIIs", Check: checkTseries},
}

// wholeMap gives argument i if it is a map as a whole.
func (c *Call) wholeMap(i int) *mapInfo {
	if m, ok := c.Args[i].(*syntax.MapRef); ok && m.Key == nil {
		return c.x.c.maps[m.Name]
	}
	return nil
}

// mapDefined reports a map nothing is ever stored in.
func (c *Call) mapDefined(m *mapInfo) bool {
	if m.Value != nil && (m.Key != nil || !m.keyed) {
		return true
	}
	if !m.written {
		c.x.errorf(c.Args[0].Where(), "Undefined map: %s", m.Name).Hint = didYouMean(m.Name, c.x.c.writtenMaps())
	}
	return false
}

func checkWholeMap(c *Call) *types.Type {
	if m := c.wholeMap(0); m != nil {
		c.mapDefined(m)
	}
	return types.VoidT
}

// needKeys reports maps without keys.
func (c *Call) needKeys(m *mapInfo, what string) bool {
	if m.decided && !m.keyed {
		c.errorf("call to %s expects a map with explicit keys (non-scalar map)", what)
		return false
	}
	m.decided, m.keyed = true, true
	return true
}

func checkDelete(c *Call) *types.Type {
	m := c.wholeMap(0)
	switch {
	case m == nil && len(c.Args) == 2, m == nil && !isMapRef(c.Args[0]):
		c.errorf("delete() expects a map argument")
	case m == nil:
	case len(c.Args) == 2:
		if c.needKeys(m, "delete() with two arguments") {
			c.x.growKey(m, c.Args[1], c.Span)
		}
	case m.decided && m.keyed:
		c.errorf("call to delete() with a single argument expects a map without explicit keys (scalar map)")
	}
	return types.BoolT
}

func isMapRef(e syntax.Expr) bool {
	_, ok := e.(*syntax.MapRef)
	return ok
}

func checkHasKey(c *Call) *types.Type {
	if m := c.wholeMap(0); m != nil && c.needKeys(m, "has_key()") {
		m.read = true
		c.x.growKey(m, c.Args[1], c.Span)
	}
	return types.BoolT
}

func checkFind(c *Call) *types.Type {
	m := c.wholeMap(0)
	v, ok := c.Args[2].(*syntax.Var)
	if m == nil || !ok {
		c.errorf("find() expects a map, a key and a variable")
		return types.BoolT
	}
	if !c.needKeys(m, "find") {
		return types.BoolT
	}
	c.x.growKey(m, c.Args[1], c.Span)
	if w := c.x.Vars[v]; w != nil && m.Value != nil {
		c.x.growVar(w, m.Value, c.Span, v)
		c.x.setType(v, w.Type)
	}
	return types.BoolT
}

func checkLen(c *Call) *types.Type {
	if m := c.wholeMap(0); m != nil {
		c.needKeys(m, "len()")
		return types.Int64
	}
	if k := c.T[0].Kind; k != types.KStack && k != types.UStack {
		c.errorf("call to len() expects a map, ustack, or kstack")
	}
	return types.Int64
}

func checkIsScalar(c *Call) *types.Type {
	if m := c.wholeMap(0); m != nil {
		if m.decided {
			c.x.Consts[c.Expr] = boolConst(!m.keyed)
		}
	}
	return types.BoolT
}

// checkAgg makes the check of an aggregation of one integer.
func checkAgg(k types.Kind) func(*Call) *types.Type {
	return func(c *Call) *types.Type {
		t := c.T[0]
		if !isInt(t) && !t.CastableAgg() {
			c.errorf("%s() only supports integer arguments (%v provided)", c.Func.Name, t)
			return types.NoneT
		}
		return agg(k, t.Signed && !t.Lit || t.Lit)
	}
}

func checkHist(c *Call) *types.Type {
	bits, _ := c.constant(1)
	if bits.Int < 0 || bits.Int > 5 {
		c.errorf("hist: bits %d must be 0..5", bits.Int)
		return types.NoneT
	}
	return &types.Type{Kind: types.Hist, Size: 8, Bounds: types.Bounds{Bits: int(bits.Int)}}
}

func checkLhist(c *Call) *types.Type {
	lo, _ := c.constant(1)
	hi, _ := c.constant(2)
	step, _ := c.constant(3)
	switch {
	case lo.Int < 0 || lo.big:
		c.errorf("lhist: invalid min value (must be non-negative literal)")
	case hi.Int < 0 || hi.big:
		c.errorf("lhist: invalid max value (must be non-negative literal)")
	case step.Int <= 0:
		c.errorf("lhist() step must be >= 1 (%d provided)", step.Int)
	case lo.Int > hi.Int:
		c.errorf("lhist() min must be less than max (provided min %d and max %d)", lo.Int, hi.Int)
	case hi.Int-lo.Int < step.Int:
		c.errorf("lhist() step is too large for the given range (provided step %d for range %d)", step.Int, hi.Int-lo.Int)
	case (hi.Int-lo.Int)/step.Int > 1000:
		c.errorf("lhist() too many buckets, must be <= 1000 (would need %d)", (hi.Int-lo.Int)/step.Int)
	default:
		return &types.Type{Kind: types.LHist, Size: 8, Bounds: types.Bounds{Min: lo.Int, Max: hi.Int, Step: step.Int}}
	}
	return types.NoneT
}

func checkTseries(c *Call) *types.Type {
	step, _ := c.constant(1)
	n, _ := c.constant(2)
	how := c.str(3)
	switch {
	case step.Int <= 0:
		c.errorf("tseries() interval_ns must be >= 1 (%d provided)", step.Int)
	case n.Int <= 0:
		c.errorf("tseries() num_intervals must be >= 1 (%d provided)", n.Int)
	case n.Int > 1000000:
		c.errorf("tseries() num_intervals must be < 1000000 (%d provided)", n.Int)
	case len(c.Args) == 4 && how != "avg" && how != "max" && how != "min" && how != "sum":
		c.errorf("tseries() expects one of the following aggregation functions: avg, max, min, sum (\"%s\" provided)", how)
	default:
		return &types.Type{Kind: types.TSeries, Size: 8, Signed: c.T[0].Signed, Bounds: types.Bounds{Step: step.Int, Max: n.Int, Agg: how}}
	}
	return types.NoneT
}
