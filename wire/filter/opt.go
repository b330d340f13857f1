package filter

// optimize makes an equivalent graph with fewer blocks and loads:
//
//   - a test whose result is known on an edge is not made again: the edge goes to where the test would go;
//   - equal blocks become one;
//   - what A and X hold already is not loaded again, what nothing reads is not stored.
//
// A load that can fail is dropped only where the same load has been done before: a packet too short for it has no match.
func optimize(root *block) *block {
	for range 8 {
		n := newNumbering()
		before := size(root)
		root = n.thread(root)
		root = merge(root)
		if size(root) == before {
			break
		}
	}
	n := newNumbering()
	root = n.trim(root)
	removeDead(root)
	return merge(root)
}

// size counts instructions.
func size(root *block) int {
	n := 0
	for _, b := range topological(root) {
		n += len(b.code) + 1
	}
	return n
}

// number stands for a value: two places that compute the same number hold equal values. 0 is no value.
type number int

// operation is how a value is computed.
type operation struct {
	op   uint16
	k    uint32
	a, x number
}

// numbering gives values their numbers.
type numbering struct {
	of    map[operation]number
	def   map[number]operation
	state map[*block]*state // what holds on entry
}

func newNumbering() *numbering {
	return &numbering{of: map[operation]number{}, def: map[number]operation{}, state: map[*block]*state{}}
}

func (n *numbering) number(o operation) number {
	v, ok := n.of[o]
	if !ok {
		v = number(len(n.of) + 1)
		n.of[o], n.def[v] = v, o
	}
	return v
}

// unknown gives a value nothing is known about, the same at every call for the same place.
func (n *numbering) unknown(b *block, place uint32) number {
	return n.number(operation{op: 0xffff, k: place, a: number(b.id)})
}

// fact is what is known about a value that has been computed.
type fact struct {
	lo, hi uint32
	not    [4]uint32 // values it does not have
	nots   int
	tests  [2]bitTest // results of tests of bits
	ntests int
}

type bitTest struct {
	k   uint32
	set bool
}

// maxFacts bounds what is remembered at one place, and so the time a long filter takes: what comes later is not known to have
// been computed.
const maxFacts = 256

// anyValue is what is known of a value that has just been computed.
var anyValue = fact{hi: 0xffffffff}

// state is what is known at a place: contents of A, X and M, and facts about values.
type state struct {
	a, x  number
	mem   [memWords]number
	facts map[number]fact
}

func (s *state) clone() *state {
	c := *s
	c.facts = make(map[number]fact, len(s.facts))
	for k, v := range s.facts {
		c.facts[k] = v
	}
	return &c
}

// meet keeps in s what o says as well; b is the block where both arrive.
func (n *numbering) meet(s, o *state, b *block) {
	same := func(a *number, o number, place uint32) {
		if *a != o {
			*a = n.unknown(b, place)
		}
	}
	same(&s.a, o.a, 100)
	same(&s.x, o.x, 101)
	for i := range s.mem {
		same(&s.mem[i], o.mem[i], uint32(i))
	}
	for k, f := range s.facts {
		g, ok := o.facts[k]
		if !ok {
			delete(s.facts, k)
			continue
		}
		s.facts[k] = f.or(g)
	}
}

// or gives what both facts say.
func (f fact) or(g fact) fact {
	r := fact{lo: min(f.lo, g.lo), hi: max(f.hi, g.hi)}
	for _, v := range f.not[:f.nots] {
		if known, result := g.decide(jEq, v); known && !result {
			r = r.differs(v)
		}
	}
	for _, t := range f.tests[:f.ntests] {
		if known, result := g.decide(jSet, t.k); known && result == t.set {
			r.tests[r.ntests] = t
			r.ntests++
		}
	}
	return r
}

func (f fact) differs(v uint32) fact {
	if f.nots < len(f.not) {
		f.not[f.nots] = v
		f.nots++
	}
	return f
}

// decide tells the result of a test, if it is known.
func (f fact) decide(jump uint16, k uint32) (known, result bool) {
	if f.lo == f.hi {
		return true, compare(jump, f.lo, k)
	}
	switch jump {
	case jEq:
		if k < f.lo || k > f.hi {
			return true, false
		}
		for _, v := range f.not[:f.nots] {
			if v == k {
				return true, false
			}
		}
	case jGt, jGe:
		if compare(jump, f.lo, k) {
			return true, true
		}
		if !compare(jump, f.hi, k) {
			return true, false
		}
	case jSet:
		for _, t := range f.tests[:f.ntests] {
			if t.k == k {
				return true, t.set
			}
		}
	}
	return false, false
}

// learn adds the result of a test.
func (f fact) learn(jump uint16, k uint32, result bool) fact {
	switch {
	case jump == jEq && result:
		return fact{lo: k, hi: k}
	case jump == jEq:
		return f.differs(k)
	case jump == jGt && result:
		f.lo = max(f.lo, k+1)
	case jump == jGt:
		f.hi = min(f.hi, k)
	case jump == jGe && result:
		f.lo = max(f.lo, k)
	case jump == jGe:
		f.hi = min(f.hi, k-1)
	case jump == jSet && f.ntests < len(f.tests):
		f.tests[f.ntests] = bitTest{k, result}
		f.ntests++
	}
	return f
}
