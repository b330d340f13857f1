// Package progen makes random programs of the tracing language that are well typed: what to test a compiler with. The same
// random numbers give the same text. It knows no compiler: its output is text, as a person would write it.
package progen

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// Options say what programs may be about.
type Options struct {
	// Task allows reading the current task's struct, which wants the kernel's types.
	Task bool
	// Memory allows reading structs that the program declares at addresses from Memory on, MemorySize bytes.
	Memory     uint64
	MemorySize int
	Statements int // about how many; 12 if 0
}

// Program gives the text of a program of one clause, begin.
func Program(r *rand.Rand, o Options) string {
	if o.Statements == 0 {
		o.Statements = 12
	}
	g := &gen{Rand: r, o: o}
	return g.program()
}

// intType is an integer type.
type intType struct {
	bits   int
	signed bool
}

func (t intType) String() string {
	if t.signed {
		return fmt.Sprintf("int%d", t.bits)
	}
	return fmt.Sprintf("uint%d", t.bits)
}

var intTypes = []intType{{8, true}, {8, false}, {16, true}, {16, false}, {32, true}, {32, false}, {64, true}, {64, false}}

// variable is a scratch variable of one of the kinds: an integer, a string, a tuple of integers and strings, or bytes.
type variable struct {
	name   string
	t      intType
	str    bool
	tuple  []intType // (int, int, …, string)
	record bool      // of the same, with names: f0, f1, …, s
	array  int       // uint8 elements
	task   bool      // a pointer to a task
	frozen bool      // a loop's counter: read only
}

// table is a map.
type table struct {
	name string
	key  []string // kinds of key parts: "int", "str"; none for a scalar
	t    intType
	agg  string // count, sum, …; "" for plain values
	str  bool   // values are strings
	pair bool   // values are tuples of an integer of type t and a string
}

type gen struct {
	*rand.Rand
	o      Options
	out    strings.Builder
	indent int
	vars   []variable
	maps   []table
	next   int // number of the next name
	loops  int // around this place
	inFunc int // callbacks around this place: what is declared there is gone after
	budget int // statements left
}

func (g *gen) line(format string, args ...any) {
	g.out.WriteString(strings.Repeat("\t", g.indent))
	fmt.Fprintf(&g.out, format, args...)
	g.out.WriteByte('\n')
}

// one gives one of the choices.
func one[T any](g *gen, choices ...T) T { return choices[g.IntN(len(choices))] }

func (g *gen) name(prefix string) string {
	g.next++
	return fmt.Sprintf("%s%d", prefix, g.next)
}

const declarations = `struct inner { signed char a; unsigned short b; };
struct node { int id; unsigned char flag; unsigned int lo : 5; unsigned int mid : 13; int hi : 9; struct inner in; struct inner ins[3];
	char name[11]; unsigned long big; struct node *next; short nums[4]; };
`

func (g *gen) program() string {
	if g.o.MemorySize > 0 {
		g.out.WriteString(declarations)
	}
	if g.IntN(8) > 0 { // else the default: strings of 1024 bytes make long programs
		g.line("config = { max_strlen = %d }", one(g, 16, 33, 64))
	}
	var later []table
	for range 2 + g.IntN(4) {
		later = append(later, g.newMap())
	}
	pred := ""
	if g.IntN(8) == 0 {
		pred = fmt.Sprintf(" /%s > 0/", one(g, "pid", "tid", "ncpus"))
	}
	g.line("begin%s {", pred)
	g.indent++
	for _, m := range later { // what uses a map knows its type
		if m.agg == "" {
			g.line("%s = %s;", g.elem(m), g.first(m))
		} else {
			g.aggregate(m, 0)
		}
		g.maps = append(g.maps, m)
	}
	for range 2 + g.IntN(4) {
		g.declareVar()
	}
	for g.budget = g.o.Statements/2 + g.IntN(g.o.Statements); g.budget > 0; {
		g.stmt()
	}
	for _, v := range g.vars { // all that was computed is seen
		g.show(v)
	}
	g.indent--
	g.line("}")
	return g.out.String()
}

func (g *gen) newMap() table {
	m := table{name: g.name("@m"), t: one(g, intTypes...)}
	for range g.IntN(4) {
		m.key = append(m.key, one(g, "int", "int", "str"))
	}
	switch g.IntN(8) {
	case 0, 1, 2:
		m.agg = one(g, "count", "sum", "avg", "min", "max", "stats", "hist", "lhist")
	case 3:
		m.str = true
	case 4:
		m.pair = true
	}
	return m
}

// first gives a value that needs no other map.
func (g *gen) first(m table) string {
	switch {
	case m.str:
		return fmt.Sprintf("%q", g.text(9))
	case m.pair:
		return fmt.Sprintf("((%v)%s, %q)", m.t, one(g, "pid", "tid"), g.text(9))
	}
	return fmt.Sprintf("(%v)%s", m.t, one(g, "pid", "ncpus", "tid"))
}

func (g *gen) show(v variable) {
	switch {
	case v.frozen:
	case v.task:
		g.line("print($%s->tgid);", v.name)
	case v.str:
		g.line("printf(%q, $%s);", v.name+" %s\n", v.name)
	case v.tuple != nil, v.array > 0:
		g.line("print($%s);", v.name)
	default:
		g.line("printf(%q, $%s);", v.name+" "+g.format(v.t)+"\n", v.name)
	}
}

// format gives a conversion for an integer.
func (g *gen) format(t intType) string {
	flag := one(g, "", "", "-8", "08", "5", "+")
	return "%" + flag + one(g, "d", "d", "u", "x", "lld", "llu", "llx", "X", "o")
}

func (g *gen) declareVar() {
	v := variable{name: g.name("v")}
	switch g.IntN(10) {
	case 0, 1:
		v.str = true
		g.line("$%s = %s;", v.name, g.str(2))
	case 2:
		for range 1 + g.IntN(3) {
			v.tuple = append(v.tuple, one(g, intTypes...))
		}
		v.record = g.IntN(3) == 0
		g.line("$%s = %s;", v.name, g.tuple(v))
	case 3:
		v.array = one(g, 1, 2, 4, 8)
		g.line("$%s = (uint8[%d])%s;", v.name, v.array, g.as(intType{8 * v.array, false}, 2))
	case 4:
		if g.o.Task {
			v.task = true
			g.line("$%s = %s;", v.name, g.task())
			break
		}
		fallthrough
	default:
		v.t = one(g, intTypes...)
		g.line("let $%s: %v = %s;", v.name, v.t, g.as(v.t, 2))
	}
	g.vars = append(g.vars, v)
}

// tuple gives a value for v: its integers, then a string.
func (g *gen) tuple(v variable) string {
	var parts []string
	part := func(name, value string) {
		if v.record {
			value = name + " = " + value
		}
		parts = append(parts, value)
	}
	for i, t := range v.tuple {
		part(fmt.Sprint("f", i), g.as(t, 1))
	}
	part("s", fmt.Sprintf("%q", g.text(6)))
	return "(" + strings.Join(parts, ", ") + ")"
}

// text gives letters of which many are alike.
func (g *gen) text(most int) string {
	b := make([]byte, g.IntN(most+1))
	for i := range b {
		b[i] = "aabcx"[g.IntN(5)]
	}
	return string(b)
}
