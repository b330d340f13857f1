package progen

import (
	"fmt"
	"strings"
)

// block writes statements between braces; what they declare ends with it.
func (g *gen) block(most int) {
	vars := len(g.vars)
	g.indent++
	for range 1 + g.IntN(most) {
		g.stmt()
	}
	g.indent--
	g.vars = g.vars[:vars]
}

func (g *gen) stmt() {
	g.budget--
	switch n := g.IntN(24); {
	case n < 6:
		g.assign()
	case n < 9:
		g.assignMap()
	case n < 11:
		g.print()
	case n < 14:
		g.ifStmt()
	case n == 14:
		g.unroll()
	case n == 15:
		g.forRange()
	case n == 16:
		g.while()
	case n == 17:
		g.forMap()
	case n == 18:
		g.jump()
	case n == 19:
		if g.inFunc == 0 {
			g.declareVar()
			return
		}
		g.assign()
	case n == 20:
		if m, ok := g.table(func(m table) bool { return len(m.key) > 0 }); ok {
			g.line("delete(%s, %s);", m.name, g.keyOf(m))
		}
	case n == 21:
		if v, ok := g.variable(func(v variable) bool { return v.isInt() && !v.frozen }); ok {
			g.line("$%s%s;", v.name, one(g, "++", "--"))
		}
	case n == 22:
		g.print()
	default:
		if m, ok := g.table(func(m table) bool { return m.agg != "" }); ok {
			g.aggregate(m, 2)
		}
	}
}

func (g *gen) assign() {
	v, ok := g.variable(func(v variable) bool { return !v.frozen })
	if !ok {
		return
	}
	switch {
	case v.str:
		g.line("$%s = %s;", v.name, g.str(2))
	case v.task:
		g.line("$%s = %s;", v.name, g.task())
	case v.tuple != nil:
		g.line("$%s = %s;", v.name, g.tuple(v))
	case v.array > 0:
		g.line("$%s = (uint8[%d])%s;", v.name, v.array, g.as(intType{8 * v.array, false}, 2))
	case g.IntN(4) == 0:
		g.line("$%s %s= %s;", v.name, one(g, "+", "-", "&", "|", "^"), g.as(v.t, 2))
	default:
		g.line("$%s = %s;", v.name, g.as(v.t, 3))
	}
}

func (g *gen) assignMap() {
	m := one(g, g.maps...)
	switch {
	case m.agg != "":
		g.aggregate(m, 2)
	case m.str:
		g.line("%s = %s;", g.elem(m), g.str(2))
	case m.pair:
		g.line("%s = (%s, %s);", g.elem(m), g.as(m.t, 2), g.str(0))
	case g.IntN(4) == 0:
		g.line("%s%s;", g.elem(m), one(g, "++", "--"))
	case g.IntN(4) == 0:
		g.line("%s += %s;", g.elem(m), g.as(m.t, 1))
	default:
		g.line("%s = %s;", g.elem(m), g.as(m.t, 2))
	}
}

func (g *gen) aggregate(m table, depth int) {
	v := fmt.Sprintf("(%v)(%s)", m.t, g.num(depth))
	switch m.agg {
	case "count":
		v = ""
	case "hist":
		v = fmt.Sprintf("(%v)(%s), %d", m.t, g.num(depth), m.t.bits/16)
	case "lhist":
		v = fmt.Sprintf("(int64)(%s), %d, %d, %d", g.num(depth), 0, 100, 10)
	}
	g.line("%s = %s(%s);", g.elem(m), m.agg, v)
}

// print sends a record of several values.
func (g *gen) print() {
	switch g.IntN(8) {
	case 0:
		g.line("print(buf(%s, %d));", g.str(1), 1+g.IntN(12))
		return
	case 1:
		if m, ok := g.table(func(m table) bool { return len(m.key) == 0 || m.agg == "" }); ok {
			g.line("print(%s);", g.elem(m))
			return
		}
	case 2, 3:
		g.line("print((%s, %s));", g.as(one(g, intTypes...), 2), g.str(1))
		return
	}
	var f strings.Builder
	var args []string
	for range 1 + g.IntN(4) {
		switch g.IntN(6) {
		case 0:
			f.WriteString(one(g, "%s ", "%10s ", "%-6s "))
			args = append(args, g.str(2))
		case 1:
			f.WriteString("%c ")
			args = append(args, g.as(intType{8, true}, 1))
		case 2:
			f.WriteString("%p ")
			args = append(args, g.as(intType{64, false}, 2))
		default:
			t := one(g, intTypes...)
			f.WriteString(g.format(t) + " ")
			args = append(args, g.as(t, 2))
		}
	}
	g.line("printf(%q, %s);", f.String()+"\n", strings.Join(args, ", "))
}

func (g *gen) ifStmt() {
	g.line("if (%s) {", g.cond(2))
	g.block(3)
	if g.IntN(2) == 0 {
		g.line("} else {")
		g.block(3)
	}
	g.line("}")
}

func (g *gen) unroll() {
	if g.loops > 1 {
		return
	}
	g.loops++
	g.line("unroll (%d) {", 1+g.IntN(4))
	g.block(2)
	g.line("}")
	g.loops--
}

func (g *gen) forRange() {
	if g.loops > 1 {
		return
	}
	v := variable{name: g.name("i"), t: intType{64, true}, frozen: true}
	lo := g.IntN(5) - 2
	g.line("for ($%s : %d..%d) {", v.name, lo, lo+g.IntN(6))
	g.loop(v)
}

// loop writes the body of a loop that is a function of its own.
func (g *gen) loop(vars ...variable) {
	g.loops++
	g.inFunc++
	n := len(g.vars)
	g.vars = append(g.vars, vars...)
	g.block(3)
	g.vars = g.vars[:n]
	g.line("}")
	g.inFunc--
	g.loops--
}

// while counts a variable of its own up: nothing else ends the loop.
func (g *gen) while() {
	if g.loops > 1 || g.inFunc > 0 {
		return
	}
	v := variable{name: g.name("w"), t: intType{64, true}, frozen: true}
	g.line("let $%s: int64 = (int64)0;", v.name)
	g.line("while ($%s < %d) {", v.name, 1+g.IntN(5))
	g.line("\t$%s++;", v.name)
	g.vars = append(g.vars, v)
	g.loop()
}

func (g *gen) forMap() {
	m, ok := g.table(func(m table) bool { return len(m.key) > 0 && (m.agg == "" || m.agg == "count" || m.agg == "sum") })
	if !ok || g.loops > 0 {
		return
	}
	k := g.name("k")
	acc := variable{name: g.name("v"), t: intType{64, true}}
	g.line("let $%s: int64 = (int64)0;", acc.name)
	g.vars = append(g.vars, acc)
	g.line("for ($%s : %s) {", k, m.name)
	val := fmt.Sprintf("(int64)$%s.1", k)
	switch {
	case m.pair:
		val = fmt.Sprintf("(int64)$%s.1.0", k)
	case m.str:
		val = fmt.Sprintf("(int64)strlen($%s.1)", k)
	}
	if len(m.key) == 1 && m.key[0] == "int" { // a sum, as elements come in any order
		val = fmt.Sprintf("(%s ^ (int64)$%s.0)", val, k)
	}
	g.line("\t$%s += %s;", acc.name, val)
	g.line("}")
}

func (g *gen) jump() {
	switch {
	case g.loops > 0 && g.IntN(3) > 0:
		g.line("if (%s) { %s; }", g.cond(1), one(g, "break", "continue"))
	case g.IntN(4) == 0:
		g.line("if (%s) { return; }", g.cond(2))
	}
}
