package filter

import (
	"fmt"
	"strings"
)

// canFail says if an instruction can end the program.
func canFail(op uint16) bool {
	switch op {
	case opLoadW, opLoadH, opLoadB, opLoadIW, opLoadIH, opLoadIB, opXHeader, opAluX | opDiv, opAluX | opMod:
		return true
	}
	return false
}

// run follows one instruction. It tells whether the program may be ended by it: it can fail, and has not been done before.
func (n *numbering) run(s *state, c ins) (risky bool) {
	o := operation{op: c.op, k: c.k}
	switch c.op {
	case opMem:
		s.a = s.mem[c.k]
		return false
	case opXMem:
		s.x = s.mem[c.k]
		return false
	case opStore:
		s.mem[c.k] = s.a
		return false
	case opStoreX:
		s.mem[c.k] = s.x
		return false
	case opTAX:
		s.x = s.a
		return false
	case opTXA:
		s.a = s.x
		return false
	case opXImm:
		s.x = n.number(operation{op: opImm, k: c.k})
		return false
	case opLoadIW, opLoadIH, opLoadIB:
		o.x = s.x
	default:
		if c.op&7 == opAlu {
			o.a = s.a
			if c.op&8 != 0 {
				o.x = s.x
			}
		}
	}
	v := n.number(o)
	_, done := s.facts[v]
	if !done && len(s.facts) < maxFacts {
		f := anyValue
		if c.op == opImm {
			f = fact{lo: c.k, hi: c.k}
		}
		s.facts[v] = f
	}
	if c.op == opXHeader {
		s.x = v
	} else {
		s.a = v
	}
	return canFail(c.op) && !done
}

// start is the state before the first block.
func (n *numbering) start(root *block) *state {
	s := &state{facts: map[number]fact{}}
	zero := n.number(operation{op: opImm})
	s.a, s.x = zero, zero
	s.facts[zero] = fact{}
	for i := range s.mem {
		s.mem[i] = zero
	}
	return s
}

// thread sends every edge past the tests whose result is known on it.
func (n *numbering) thread(root *block) *block {
	order := topological(root)
	live := liveness(order)
	start := n.start(root)
	root = n.follow(root, start, live)
	n.state[root] = start
	for _, b := range order {
		s := n.state[b]
		if s == nil || b.end() {
			continue
		}
		s = s.clone()
		for _, c := range b.code {
			n.run(s, c)
		}
		if b.jump == jAlways {
			b.yes = n.arrive(b.yes, s, live)
			b.no = b.yes
			continue
		}
		yes, no := s.clone(), s
		if f, ok := s.facts[s.a]; ok && !b.useX {
			yes.facts[s.a], no.facts[s.a] = f.learn(b.jump, b.k, true), f.learn(b.jump, b.k, false)
		}
		b.yes = n.arrive(b.yes, yes, live)
		b.no = n.arrive(b.no, no, live)
	}
	return root
}

// arrive follows an edge as far as is known, and notes what holds where it ends.
func (n *numbering) arrive(b *block, s *state, live map[*block]uint32) *block {
	b = n.follow(b, s, live)
	if old := n.state[b]; old == nil {
		n.state[b] = s
	} else {
		n.meet(old, s, b)
	}
	return b
}

// follow skips blocks that do nothing new and whose result is known. What a skipped block would have left in A, X or M
// must not be wanted behind it.
func (n *numbering) follow(b *block, s *state, live map[*block]uint32) *block {
	for !b.end() {
		t := s.clone()
		risky, writes := false, uint32(0)
		for _, c := range b.code {
			risky = n.run(t, c) || risky
			_, w := effects(c)
			writes |= w
		}
		next := b.yes
		if b.yes != b.no {
			f, ok := t.facts[t.a]
			known, result := f.decide(b.jump, b.k)
			if !ok || !known || b.useX {
				return b
			}
			if !result {
				next = b.no
			}
		}
		drops := next.end() && !next.verdict // as a load that fails does
		if risky && !drops || writes&live[next] != 0 {
			return b
		}
		b = next
	}
	return b
}

// A, X and the words of M as bits of a set.
const (
	bitA uint32 = 1 << 30
	bitX uint32 = 1 << 31
)

// effects tells what an instruction reads and writes.
func effects(c ins) (reads, writes uint32) {
	switch c.op {
	case opLoadW, opLoadH, opLoadB, opImm, opLen:
		return 0, bitA
	case opLoadIW, opLoadIH, opLoadIB, opTXA:
		return bitX, bitA
	case opMem:
		return 1 << c.k, bitA
	case opXImm, opXHeader:
		return 0, bitX
	case opXMem:
		return 1 << c.k, bitX
	case opStore:
		return bitA, 1 << c.k
	case opStoreX:
		return bitX, 1 << c.k
	case opTAX:
		return bitA, bitX
	}
	if c.op&8 != 0 {
		return bitA | bitX, bitA
	}
	return bitA, bitA
}

// jumpReads tells what a block's comparison reads.
func jumpReads(b *block) uint32 {
	switch {
	case b.end() || b.jump == jAlways:
		return 0
	case b.useX:
		return bitA | bitX
	}
	return bitA
}

// liveness gives what is wanted on entry to each block.
func liveness(order []*block) map[*block]uint32 {
	live := make(map[*block]uint32, len(order))
	for i := len(order) - 1; i >= 0; i-- {
		b := order[i]
		if b.end() {
			continue
		}
		set := live[b.yes] | live[b.no] | jumpReads(b)
		for j := len(b.code) - 1; j >= 0; j-- {
			r, w := effects(b.code[j])
			set = set&^w | r
		}
		live[b] = set
	}
	return live
}

// merge makes equal blocks one, from the end to the start, and drops those behind which nothing matches.
func merge(root *block) *block {
	order := topological(root)
	seen := map[string]*block{}
	as := map[*block]*block{}
	for i := len(order) - 1; i >= 0; i-- {
		b := order[i]
		if !b.end() {
			b.yes, b.no = as[b.yes], as[b.no]
			if b.yes == b.no && b.yes.end() && !b.yes.verdict { // whatever b does, nothing matches behind it
				as[b] = b.yes
				continue
			}
		}
		key := b.key()
		if old, ok := seen[key]; ok {
			as[b] = old
			continue
		}
		seen[key], as[b] = b, b
	}
	return as[root]
}

// key describes a block whose successors have been merged.
func (b *block) key() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%v %v %v %v", b.code, b.jump, b.useX, b.k)
	if b.end() {
		fmt.Fprint(&s, " end ", b.verdict)
	} else {
		fmt.Fprintf(&s, " %d %d", b.yes.id, b.no.id)
	}
	return s.String()
}

// trim drops what A and X hold already.
func (n *numbering) trim(root *block) *block {
	root = n.thread(root) // fills in the states
	for b, s := range n.state {
		if b.end() {
			continue
		}
		s = s.clone()
		b.code = n.trimBlock(b.code, s)
	}
	return root
}

// trimBlock drops single instructions that change nothing, after the longest start of the block that as a whole does not.
func (n *numbering) trimBlock(code []ins, s *state) []ins {
	skip, t := 0, s.clone()
	for i, c := range code {
		if n.run(t, c) || t.mem != s.mem {
			break
		}
		if t.a == s.a && t.x == s.x {
			skip = i + 1
		}
	}
	var out []ins
	for i, c := range code {
		before := *s
		risky := n.run(s, c)
		same := before.a == s.a && before.x == s.x && before.mem == s.mem
		if i < skip || same && !risky {
			continue
		}
		out = append(out, c)
	}
	return out
}

// removeDead drops instructions whose result nothing reads and that cannot fail.
func removeDead(root *block) {
	order := topological(root)
	live := map[*block]uint32{}
	for i := len(order) - 1; i >= 0; i-- {
		b := order[i]
		if b.end() {
			continue
		}
		set := live[b.yes] | live[b.no] | jumpReads(b)
		var code []ins
		for j := len(b.code) - 1; j >= 0; j-- {
			c := b.code[j]
			r, w := effects(c)
			if w&set == 0 && !canFail(c.op) {
				continue
			}
			set = set&^w | r
			code = append([]ins{c}, code...)
		}
		b.code, live[b] = code, set
	}
}
