package progen

import (
	"fmt"
	"strings"
)

// as gives an expression of exactly type t.
func (g *gen) as(t intType, depth int) string { return fmt.Sprintf("(%v)(%s)", t, g.num(depth)) }

// num gives an integer of any type.
func (g *gen) num(depth int) string {
	if depth <= 0 {
		return g.leaf()
	}
	switch g.IntN(22) {
	case 0, 1, 2, 3, 4, 5:
		return g.binary(depth)
	case 6:
		return fmt.Sprintf("(%s%s)", one(g, "-", "~"), g.wrapped(depth-1))
	case 7:
		return fmt.Sprintf("((%v)(%s))", one(g, intTypes...), g.num(depth-1))
	case 8:
		return fmt.Sprintf("(%s ? %s : %s)", g.cond(depth-1), g.as(intType{64, true}, depth-1), g.as(intType{64, true}, depth-1))
	case 9:
		return fmt.Sprintf("((int64)(%s))", g.cond(depth-1))
	case 10:
		if m, ok := g.table(func(m table) bool { return m.isInt() }); ok {
			return g.elem(m)
		}
		if m, ok := g.table(func(m table) bool { return m.pair }); ok {
			return g.elem(m) + ".0"
		}
	case 11:
		return fmt.Sprintf("((int64)strlen(%s))", g.str(depth-1))
	case 12:
		if g.IntN(2) == 0 {
			return fmt.Sprintf("((int64)memcmp(%s, %s, %d))", g.str(depth-1), g.str(depth-1), 1+g.IntN(12))
		}
		return fmt.Sprintf("((int64)strncmp(%s, %s, %d))", g.str(depth-1), g.str(depth-1), 1+g.IntN(6))
	case 13:
		return fmt.Sprintf("((int64)strcontains(%s, %s))", g.str(depth-1), g.str(0))
	case 14:
		t := one(g, intType{16, false}, intType{32, false}, intType{64, false})
		return fmt.Sprintf("bswap(%s)", g.as(t, depth-1))
	case 15:
		if m, ok := g.table(func(m table) bool { return len(m.key) > 0 }); ok {
			return one(g, fmt.Sprintf("((int64)has_key(%s, %s))", m.name, g.keyOf(m)), fmt.Sprintf("((int64)len(%s))", m.name))
		}
	case 16:
		if m, ok := g.table(func(m table) bool {
			return m.agg == "count" || m.agg == "sum" || m.agg == "min" || m.agg == "max" || m.agg == "avg"
		}); ok {
			return fmt.Sprintf("((int64)%s)", g.elem(m))
		}
	case 17:
		return g.pointee()
	case 18:
		if v, ok := g.variable(func(v variable) bool { return v.array > 0 }); ok {
			return fmt.Sprintf("$%s[%d]", v.name, g.IntN(v.array))
		}
	case 19:
		return fmt.Sprintf("((int64)(if (%s) { %s } else { %s }))", g.cond(depth-1), g.as(intType{64, true}, depth-1), g.as(intType{64, true}, depth-1))
	case 20:
		return fmt.Sprintf("((int64)strstr(%s, %s))", g.str(depth-1), g.str(0))
	}
	return g.leaf()
}

// wrapped gives an integer that is no literal: the compiler computes those, and refuses what overflows.
func (g *gen) wrapped(depth int) string {
	if v, ok := g.variable(func(v variable) bool { return v.isInt() }); ok && g.IntN(3) > 0 {
		return "$" + v.name
	}
	return one(g, "pid", "tid", "uid", "ncpus")
}

// binary gives an operation whose left side is no literal.
func (g *gen) binary(depth int) string {
	left := g.wrapped(depth - 1)
	if g.IntN(2) == 0 {
		left = fmt.Sprintf("(%v)(%s)", one(g, intTypes...), left+" "+one(g, "+", "-", "^")+" "+g.num(depth-1))
	}
	op := one(g, "+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>", "/", "%")
	right := g.num(depth - 1)
	switch {
	case (op == "<<" || op == ">>") && g.IntN(3) > 0: // mostly by what makes sense
		right = fmt.Sprint(g.IntN(64))
	case (op == "/" || op == "%") && g.IntN(2) == 0:
		right = fmt.Sprint(one(g, 1, 2, 3, 7, 8, 10, 64, 1000, 1<<31, 1<<40))
	}
	return fmt.Sprintf("(%s %s %s)", left, op, right)
}

// interesting are the numbers at which mistakes are made.
var interesting = []string{"0", "1", "2", "-1", "3", "7", "8", "15", "16", "127", "128", "-128", "255", "256", "32767", "-32768", "65535",
	"65536", "2147483647", "2147483648", "-2147483648", "4294967295", "4294967296", "9223372036854775807", "1000", "1000000", "0xdeadbeef"}

func (g *gen) leaf() string {
	switch g.IntN(6) {
	case 0, 1:
		return one(g, interesting...)
	case 2:
		return one(g, "pid", "tid", "uid", "gid", "cpu", "ncpus")
	case 3:
		if v, ok := g.variable(func(v variable) bool { return v.tuple != nil }); ok {
			return g.part(v, g.IntN(len(v.tuple)))
		}
	}
	if v, ok := g.variable(func(v variable) bool { return v.isInt() }); ok {
		return "$" + v.name
	}
	return one(g, interesting...)
}

// part gives element i of a tuple or record; behind the integers is the string.
func (g *gen) part(v variable, i int) string {
	switch {
	case !v.record:
		return fmt.Sprintf("$%s.%d", v.name, i)
	case i == len(v.tuple):
		return fmt.Sprintf("$%s.s", v.name)
	}
	return fmt.Sprintf("$%s.f%d", v.name, i)
}

func (v variable) isInt() bool { return v.t.bits != 0 }

// cond gives a condition.
func (g *gen) cond(depth int) string {
	switch g.IntN(8) {
	case 0:
		return fmt.Sprintf("(%s && %s)", g.cond(max(0, depth-1)), g.compare(depth))
	case 1:
		return fmt.Sprintf("(%s || %s)", g.cond(max(0, depth-1)), g.compare(depth))
	case 2:
		return fmt.Sprintf("!(%s)", g.compare(depth))
	case 3:
		return fmt.Sprintf("%s %s %s", g.str(depth-1), one(g, "==", "!="), g.str(depth-1))
	case 4:
		if v, ok := g.variable(func(v variable) bool { return v.tuple != nil && !v.record }); ok && g.IntN(2) == 0 {
			return fmt.Sprintf("$%s %s %s", v.name, one(g, "==", "!="), g.tuple(v))
		}
		return fmt.Sprintf("((uint8)(%s & %s))", g.wrapped(depth), g.num(max(0, depth-1)))
	}
	return g.compare(depth)
}

func (g *gen) compare(depth int) string {
	return fmt.Sprintf("(%s %s %s)", g.wrapped(depth), one(g, "==", "!=", "<", "<=", ">", ">="), g.num(max(0, depth-1)))
}

// str gives a string.
func (g *gen) str(depth int) string {
	switch n := g.IntN(8); {
	case n == 0:
		return "comm"
	case n == 1 && depth > 0:
		return fmt.Sprintf("str_concat(%s, %s)", g.str(depth-1), g.str(0))
	case n == 2 && depth > 0:
		return fmt.Sprintf("str(%s, %d)", one(g, "comm", fmt.Sprintf("%q", g.text(9)+"a")), 1+g.IntN(8))
	case n == 3:
		if m, ok := g.table(func(m table) bool { return m.str }); ok && depth > 0 {
			return g.elem(m)
		}
	case n == 4:
		if g.o.MemorySize > 0 {
			return "str(" + g.node(1) + "->name)"
		}
		if g.o.Task {
			return "str(" + g.task() + "->comm)"
		}
	case n == 5:
		if v, ok := g.variable(func(v variable) bool { return v.tuple != nil }); ok {
			return g.part(v, len(v.tuple))
		}
	case n == 6:
		if v, ok := g.variable(func(v variable) bool { return v.str }); ok {
			return "$" + v.name
		}
	}
	return fmt.Sprintf("%q", g.text(9))
}

// pointee reads memory that is not the program's.
func (g *gen) pointee() string {
	switch {
	case g.o.MemorySize > 0 && g.IntN(2) == 0:
		n := g.node(1)
		return n + "->" + one(g, "id", "flag", "lo", "mid", "hi", "in.a", "in.b", "big", "nums[2]", "ins[1].b", fmt.Sprintf("nums[(uint64)%s %% 4]", g.wrapped(0)), "name[3]")
	case g.o.Task:
		return g.task() + "->" + one(g, "pid", "tgid")
	}
	return g.leaf()
}

func (g *gen) node(depth int) string {
	at := g.o.Memory + uint64(g.IntN(g.o.MemorySize))
	n := fmt.Sprintf("((struct node *)0x%x)", at)
	for g.IntN(3) == 0 && depth < 4 {
		n += "->next"
		depth++
	}
	return n
}

// task gives a pointer to a task that is the same wherever the program runs.
func (g *gen) task() string {
	t := one(g, "curtask", "((struct task_struct *)curtask)")
	for g.IntN(3) == 0 {
		t += "->group_leader"
	}
	if g.IntN(8) == 0 {
		return "((struct task_struct *)0)"
	}
	if v, ok := g.variable(func(v variable) bool { return v.task }); ok && g.IntN(2) == 0 {
		return "$" + v.name
	}
	return t
}

func (g *gen) variable(is func(variable) bool) (variable, bool) {
	var fit []variable
	for _, v := range g.vars {
		if is(v) {
			fit = append(fit, v)
		}
	}
	if len(fit) == 0 {
		return variable{}, false
	}
	return one(g, fit...), true
}

// isInt says if values are plain integers.
func (m table) isInt() bool { return m.agg == "" && !m.str && !m.pair }

func (g *gen) table(is func(table) bool) (table, bool) {
	var fit []table
	for _, m := range g.maps {
		if is(m) {
			fit = append(fit, m)
		}
	}
	if len(fit) == 0 {
		return table{}, false
	}
	return one(g, fit...), true
}

// elem gives a map, with a key if it has one.
func (g *gen) elem(m table) string {
	if len(m.key) == 0 {
		return m.name
	}
	return fmt.Sprintf("%s[%s]", m.name, strings.Join(g.keyParts(m), ", "))
}

// keyOf gives a key as one expression.
func (g *gen) keyOf(m table) string {
	parts := g.keyParts(m)
	if len(parts) == 1 {
		return parts[0]
	}
	return "(" + strings.Join(parts, ", ") + ")"
}

// keyParts gives parts of few values, so that keys are met again.
func (g *gen) keyParts(m table) []string {
	var parts []string
	for _, k := range m.key {
		switch {
		case k == "str":
			parts = append(parts, one(g, `"a"`, `"bb"`, "comm", fmt.Sprintf("%q", g.text(5))))
		case g.IntN(3) == 0:
			parts = append(parts, fmt.Sprintf("(int64)(%s)", g.num(1)))
		default:
			parts = append(parts, fmt.Sprintf("(int64)%s", one(g, "0", "1", "2", "tid", "pid")))
		}
	}
	return parts
}
