package filter

import (
	"slices"

	"github.com/fathom-trace/fathom/internal/sorting"
)

// block is a node of the decision graph, which has no cycles: run code, compare, go on. A verdict has no successors.
type block struct {
	id      int
	code    []ins
	jump    uint16 // jAlways: go to yes
	useX    bool
	k       uint32
	yes, no *block
	verdict bool // of a block without successors: match
}

func (b *block) end() bool { return b.yes == nil }

// builder makes the graph from its end to its start.
type builder struct{ n int }

func (g *builder) block(b block) *block {
	g.n++
	b.id = g.n
	return &b
}

// graph gives the first block of t's graph.
func graph(t *test) *block {
	g := &builder{}
	match, drop := g.block(block{verdict: true}), g.block(block{})
	return g.build(t, match, drop)
}

func (g *builder) build(t *test, yes, no *block) *block {
	switch t.op {
	case testConst:
		if t.value {
			return yes
		}
		return no
	case testAnd:
		return g.build(t.x, g.build(t.y, yes, no), no)
	case testOr:
		return g.build(t.x, yes, g.build(t.y, yes, no))
	case testNot:
		return g.build(t.x, no, yes)
	case testChain:
		return g.chain(t.chain, yes, no)
	}
	if t.jump == jAlways {
		no = yes
	}
	return g.block(block{code: t.code, jump: t.jump, useX: t.useX, k: t.k, yes: yes, no: no})
}

// chainLength is how many headers protochain follows.
const chainLength = 16

// chain unrolls protochain. A is the protocol of the next header, X where it starts behind net.
func (g *builder) chain(c *chain, yes, no *block) *block {
	next := no
	for range chainLength {
		next = g.header(c, yes, no, next)
	}
	start := []ins{{opLoadB, c.net + 9}, {opXHeader, c.net}}
	if c.v6 {
		start = []ins{{opLoadB, c.net + 6}, {opXImm, version6At}}
	}
	return g.block(block{code: start, jump: jAlways, yes: next, no: next})
}

// header steps over one header.
func (g *builder) header(c *chain, yes, no, next *block) *block {
	const scratch = memWords - 1
	is := func(proto uint32, yes, no *block) *block {
		return g.block(block{jump: jEq, k: proto, yes: yes, no: no})
	}
	step := func(code ...ins) *block {
		code = append(append([]ins{{opLoadIB, c.net}, {opStore, scratch}, {opLoadIB, c.net + 1}}, code...),
			ins{opAluX | opAdd, 0}, ins{opTAX, 0}, ins{opMem, scratch})
		return g.block(block{code: code, jump: jAlways, yes: next, no: next})
	}
	ah := step(ins{opAlu | opAdd, 2}, ins{opAlu | opMul, 4}) // its length counts words of 32 bits, less 2 (RFC 4302)
	b := is(ipAH, ah, no)
	if c.v6 {
		opt := step(ins{opAlu | opAdd, 1}, ins{opAlu | opMul, 8}) // the others count words of 64 bits, less 1 (RFC 8200)
		for _, p := range []uint32{ipFragment, ipRouting, ipDstOpts, 0} {
			b = is(p, opt, b)
		}
	}
	return is(c.want, yes, is(ipNone, no, b))
}

// topological gives the blocks reachable from root, each before its successors; the verdicts are last.
func topological(root *block) []*block {
	var order, ends []*block
	seen := map[*block]bool{}
	var visit func(b *block)
	visit = func(b *block) {
		if seen[b] {
			return
		}
		seen[b] = true
		if b.end() {
			ends = append(ends, b)
			return
		}
		// Reverse postorder: what is visited last comes next, so that the yes side follows its test.
		visit(b.no)
		visit(b.yes)
		order = append(order, b)
	}
	visit(root)
	slices.Reverse(order)
	sorting.By(ends, func(a, b *block) int {
		if a.verdict {
			return -1
		}
		return 1
	})
	return append(order, ends...)
}
