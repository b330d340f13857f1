// Package flame adds up stacks, each with a weight, and shows them: folded as lines, as a flame graph in SVG, as a profile for
// pprof. All stacks are given from their root to the innermost frame.
package flame

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/fathom-trace/fathom/internal/sorting"
)

// Graph is a tree of stacks that begin alike.
type Graph struct {
	Title string
	Unit  string // of weights: "events", "bytes", "ns"
	root  node
	depth int
}

// node is a frame with what it calls.
type node struct {
	name  string
	self  int64 // weight of the stacks that end here
	total int64 // with that of those that go on
	was   int64 // total in the graph that this one is compared with
	calls map[string]*node
}

// Add adds a stack.
func (g *Graph) Add(stack []string, weight int64) {
	n := &g.root
	n.total += weight
	for _, f := range stack {
		n = n.call(f)
		n.total += weight
	}
	n.self += weight
	g.depth = max(g.depth, len(stack))
}

func (n *node) call(name string) *node {
	k := n.calls[name]
	if k == nil {
		if n.calls == nil {
			n.calls = map[string]*node{}
		}
		k = &node{name: name}
		n.calls[name] = k
	}
	return k
}

// Total is the weight of all stacks.
func (g *Graph) Total() int64 { return g.root.total }

// Compare colours the graph by what changed since before: red grew, blue shrank, by their shares of the whole.
func (g *Graph) Compare(before *Graph) { g.root.compare(&before.root) }

func (n *node) compare(b *node) {
	n.was = b.total
	for name, k := range b.calls {
		n.call(name).compare(k)
	}
}

// sorted lists what a frame calls, by name.
func (n *node) sorted() []*node {
	return slices.SortedFunc(maps.Values(n.calls), func(a, b *node) int { return cmp.Compare(a.name, b.name) })
}

// clean takes from a name what parts of a folded line are divided by.
var clean = strings.NewReplacer(";", ":", "\n", " ", "\r", " ")

// Folded writes a line for each stack, "root;frame;frame 17", as flamegraph.pl and others read them.
func (g *Graph) Folded(w io.Writer) error {
	b := bufio.NewWriter(w)
	g.root.fold(b, "")
	return b.Flush()
}

func (n *node) fold(w io.Writer, above string) {
	for _, k := range n.sorted() {
		path := above + clean.Replace(k.name)
		if k.self != 0 {
			fmt.Fprintf(w, "%s %d\n", path, k.self) // the writer keeps its error
		}
		k.fold(w, path+";")
	}
}

// ParseFolded reads lines as [Graph.Folded] writes them.
func ParseFolded(r io.Reader) (*Graph, error) {
	g := &Graph{Unit: "samples"}
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	for line := 1; sc.Scan(); line++ {
		text := strings.TrimSpace(sc.Text())
		if text == "" {
			continue
		}
		i := strings.LastIndexByte(text, ' ')
		var weight int64
		if _, err := fmt.Sscan(text[i+1:], &weight); i < 0 || err != nil {
			return nil, fmt.Errorf("line %d: no weight behind the stack", line)
		}
		g.Add(strings.Split(text[:i], ";"), weight)
	}
	return g, sc.Err()
}

// Change is a stack whose share of the whole is another in a second graph.
type Change struct {
	Stack    []string // from its root
	Was, Now int64
	Share    float64 // what it gained, of all; negative if it lost
}

// Changes lists the stacks of two graphs whose shares differ, those that differ most first.
func Changes(before, after *Graph) (out []Change) {
	collect(&before.root, &after.root, nil, func(stack []string, was, now int64) {
		share := float64(now)/float64(max(after.root.total, 1)) - float64(was)/float64(max(before.root.total, 1))
		if share != 0 {
			out = append(out, Change{slices.Clone(stack), was, now, share})
		}
	})
	sorting.Stable(out, func(a, b Change) int { return cmp.Compare(max(b.Share, -b.Share), max(a.Share, -a.Share)) })
	return out
}

// collect calls f with the stacks that end in either of two frames or below.
func collect(was, now *node, stack []string, f func(stack []string, was, now int64)) {
	if was.self != 0 || now.self != 0 {
		f(stack, was.self, now.self)
	}
	names := map[string]bool{}
	for n := range was.calls {
		names[n] = true
	}
	for n := range now.calls {
		names[n] = true
	}
	for _, n := range slices.Sorted(maps.Keys(names)) {
		a, b := was.calls[n], now.calls[n]
		if a == nil {
			a = &node{}
		}
		if b == nil {
			b = &node{}
		}
		collect(a, b, append(stack, n), f)
	}
}
