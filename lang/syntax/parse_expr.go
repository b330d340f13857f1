package syntax

import "strings"

// binary gives the operator and binding strength of the binary operators, the weakest 1.
var binary = map[string]struct {
	op   Op
	prec int
}{
	"||": {LOR, 1}, "&&": {LAND, 2}, "|": {OR, 3}, "^": {XOR, 4}, "&": {AND, 5}, "==": {EQ, 6}, "!=": {NE, 6},
	"<": {LT, 7}, ">": {GT, 7}, "<=": {LE, 7}, ">=": {GE, 7}, "<<": {SHL, 8}, ">>": {SHR, 8},
	"+": {ADD, 9}, "-": {SUB, 9}, "*": {MUL, 10}, "/": {DIV, 10}, "%": {MOD, 10},
}

// prefix gives the unary operators.
var prefix = map[string]Op{"!": NOT, "~": BNOT, "-": SUB, "*": MUL, "&": AND, "++": INC, "--": DEC}

// expr parses any expression: binary [? [expr] : expr].
func (p *parser) expr() Expr {
	defer p.up()
	if !p.deeper() {
		return &Bad{p.here()}
	}
	start := p.tok.start
	x := p.binary(1)
	if !p.tok.is("?") {
		return x
	}
	p.next()
	c := &Cond{C: x, Then: x}
	if !p.tok.is(":") {
		c.Then = p.expr()
	}
	p.want(":")
	c.Else = p.expr()
	c.Span = p.from(start)
	return c
}

// binary parses operators that bind at least as strongly as prec; all are left-associative.
func (p *parser) binary(prec int) Expr {
	x := p.unary()
	for n := 0; p.tok.kind == tOp; n++ {
		b, ok := binary[p.tok.text]
		if !ok || b.prec < prec || b.op == DIV && p.inPred && p.peek().is("{") {
			break
		}
		if n == maxChain {
			p.errorf(p.here(), "expression too long")
			break
		}
		at := p.here()
		p.next()
		y := p.binary(b.prec + 1)
		x = &Binary{Span: p.from(x.Where().Start.Off), Op: b.op, OpSpan: at, X: x, Y: y}
	}
	return x
}

// unary parses prefix operators.
func (p *parser) unary() Expr {
	op, ok := prefix[p.tok.text]
	if p.tok.kind != tOp || !ok {
		return p.postfix(p.primary())
	}
	defer p.up()
	if !p.deeper() {
		return &Bad{p.here()}
	}
	start := p.next().start
	x := p.unary()
	switch op {
	case INC, DEC:
		p.needVar(x, x.Where())
	case AND:
		if !isVar(x) {
			p.report(x.Where(), "address-of operator (&) can only be used on a map or variable")
		}
	}
	return &Unary{p.from(start), op, x, false}
}

// isVar reports whether x is a scratch variable or a map.
func isVar(x Expr) bool {
	switch x.(type) {
	case *Var, *MapRef, *Bad:
		return true
	}
	return false
}

// needVar reports ++ or -- on anything but a variable.
func (p *parser) needVar(x Expr, at Span) {
	if !isVar(x) {
		p.report(at, "increment/decrement requires a variable or map")
	}
}

// postfix parses what follows an operand: fields, indices, ++ and --.
func (p *parser) postfix(x Expr) Expr {
	start := x.Where().Start.Off
	for n := 0; p.tok.kind == tOp; n++ {
		if n == maxChain {
			p.errorf(p.here(), "expression too long")
			break
		}
		switch p.tok.text {
		case ".", "->":
			x = p.field(start, x)
		case "[":
			p.next()
			i := p.expr()
			p.want("]")
			x = &Index{p.from(start), x, i}
		case "++", "--":
			at := p.here()
			op := prefix[p.next().text]
			p.needVar(x, at)
			x = &Unary{p.from(start), op, x, true}
		default:
			return x
		}
	}
	return x
}

// field parses .name, ->name and .N.
func (p *parser) field(start int, x Expr) Expr {
	op := p.next()
	f := &Field{X: x, Arrow: op.text == "->", NameSpan: p.here()}
	switch {
	case p.tok.kind == tInt && !f.Arrow:
		f.Name = p.next().text
	case p.tok.kind == tIdent:
		f.Name = p.next().text
	default:
		p.errorf(p.here(), "expected field name after '%s'", op.text)
	}
	f.Span = p.from(start)
	return f
}

// primary parses an operand.
func (p *parser) primary() Expr {
	t, at := p.tok, p.here()
	switch t.kind {
	case tInt:
		p.next()
		return &IntLit{at, t.val, t.val > 1<<63-1, t.duration}
	case tStr:
		p.next()
		return &StrLit{at, t.text}
	case tVar:
		p.next()
		return &Var{at, t.text}
	case tParam:
		p.next()
		return &Param{at, int(t.val)}
	case tMap:
		return p.mapRef()
	case tIdent:
		return p.word()
	}
	switch {
	case t.is("("):
		return p.paren()
	case t.is("{"):
		return p.blockExpr(true)
	}
	p.errorf(at, "expected expression")
	return &Bad{at}
}

// word parses an operand that begins with a name.
func (p *parser) word() Expr {
	t, at := p.tok, p.here()
	switch t.text {
	case "true", "false":
		p.next()
		return &BoolLit{at, t.text == "true"}
	case "if":
		return p.ifExpr()
	case "comptime":
		p.next()
		x := p.unary()
		return &Comptime{p.from(t.start), x}
	}
	p.next()
	if !p.tok.is("(") {
		return &Ident{at, t.text}
	}
	c := &Call{Name: t.text, NameSpan: at}
	c.Args = p.args(t.text)
	c.Span = p.from(t.start)
	return c
}

// typeArg holds the functions whose first argument may be a type.
var typeArg = map[string]bool{"sizeof": true, "offsetof": true, "typeinfo": true}

// args parses the arguments of a call.
func (p *parser) args(name string) []Expr {
	defer p.nested()()
	p.next()
	var args []Expr
	for !p.tok.is(")") {
		switch {
		case p.tok.isWord("typeof") || p.atStructType():
			args = append(args, p.typeExpr())
		case typeArg[name] && len(args) == 0:
			args = append(args, p.typeOrExpr())
		default:
			args = append(args, p.expr())
		}
		if !p.got(",") {
			break
		}
	}
	p.want(")")
	return args
}

// nested marks the inside of brackets, where a slash is always a division; call the result on leaving.
func (p *parser) nested() func() {
	pred := p.inPred
	p.inPred = false
	return func() { p.inPred = pred }
}

// mapRef parses @name and @name[key, …]; several keys are a tuple.
func (p *parser) mapRef() Expr {
	defer p.nested()()
	t := p.next()
	m := &MapRef{Name: t.text}
	if p.got("[") {
		at := p.tok.start
		m.Key = p.expr()
		if p.tok.is(",") {
			tuple := &Tuple{Elems: []Expr{m.Key}}
			for p.got(",") {
				tuple.Elems = append(tuple.Elems, p.expr())
			}
			tuple.Span = p.from(at)
			m.Key = tuple
		}
		p.want("]")
	}
	m.Span = p.from(t.start)
	return m
}

// paren parses what begins with a parenthesis: (), a record, a cast, a tuple, or an expression in parentheses.
func (p *parser) paren() Expr {
	defer p.nested()()
	if head := p.castHead(); head {
		return p.cast()
	}
	start := p.next().start
	if p.got(")") {
		return &Tuple{p.from(start), nil}
	}
	if p.tok.kind == tIdent && !coreBuiltin(p.tok.text) && p.peek().is("=") {
		return p.record(start)
	}
	x := p.expr()
	if !p.tok.is(",") {
		p.want(")")
		return x
	}
	t := &Tuple{Elems: []Expr{x}}
	for p.got(",") && !p.tok.is(")") {
		t.Elems = append(t.Elems, p.expr())
	}
	p.want(")")
	t.Span = p.from(start)
	return t
}

// record parses name=value, …) after its parenthesis.
func (p *parser) record(start int) Expr {
	r := &Record{}
	seen := map[string]bool{}
	for {
		at := p.tok.start
		name, ok := p.ident("expected identifier")
		if !ok || !p.want("=") {
			break
		}
		v := p.expr()
		f := &RecordField{p.from(at), name, v}
		if seen[name] {
			p.report(f.Span, "Named argument list already contains name: "+name)
		}
		seen[name] = true
		r.Fields = append(r.Fields, f)
		if !p.got(",") {
			break
		}
	}
	p.want(")")
	r.Span = p.from(start)
	return r
}

// coreBuiltin reports the names that are never a type or the name of a record's field.
func coreBuiltin(name string) bool {
	switch name {
	case "args", "ctx", "kstack", "nsecs", "pid", "tid", "ustack":
		return true
	}
	return isArgN(name)
}

// isArgN reports arg0, arg1, … and sarg0, ….
func isArgN(name string) bool {
	n, ok := strings.CutPrefix(strings.TrimPrefix(name, "s"), "arg")
	return ok && n != "" && strings.Trim(n, "0123456789") == ""
}

// builtins are the names that give a value without being called, so that (cpu) - 1 is no cast.
var builtins = map[string]bool{
	"cgroup": true, "comm": true, "cpid": true, "cpu": true, "curtask": true, "elapsed": true, "func": true, "gid": true,
	"has_cpid": true, "jiffies": true, "ncpus": true, "numaid": true, "pcomm": true, "ppid": true, "probe": true, "probetype": true,
	"rand": true, "retval": true, "uid": true, "usermode": true, "username": true, "config": true, "leader_comm": true, "leader_tid": true,
}

// IsBuiltin reports whether name is a builtin value of the language, which no type and no macro parameter may be called.
func IsBuiltin(name string) bool {
	return coreBuiltin(name) || builtins[name] || strings.HasPrefix(name, "__builtin_")
}
