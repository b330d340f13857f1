package syntax

// compound maps assignment operators to the operator they apply.
var compound = map[string]Op{
	"=": ASSIGN, "+=": ADD, "-=": SUB, "*=": MUL, "/=": DIV, "%=": MOD, "&=": AND, "|=": OR, "^=": XOR, "<<=": SHL, ">>=": SHR,
}

// blockExpr parses { statements [expr] }. Without value the last expression is a statement as any other.
func (p *parser) blockExpr(value bool) *BlockExpr {
	stmts, res, at := p.block()
	if !value {
		stmts, res = flatten(stmts, res), nil
	}
	return &BlockExpr{at, stmts, res}
}

// stmtBlock parses a block that has no value.
func (p *parser) stmtBlock() *Block {
	stmts, res, at := p.block()
	return &Block{at, flatten(stmts, res), nil}
}

// block parses { statements [expr] }: the statements and the value.
func (p *parser) block() (stmts []Stmt, res Expr, at Span) {
	defer func(pred bool) { p.depth, p.inPred = p.depth-1, pred }(p.inPred)
	start := p.tok.start
	p.inPred = false
	if !p.deeper() || !p.want("{") {
		return nil, nil, p.from(start)
	}
	for !p.tok.is("}") && p.tok.kind != tEOF && len(p.diags) < maxErrors {
		if p.got(";") {
			continue
		}
		before := p.tok.start
		var s Stmt
		if s, res = p.stmt(); s != nil {
			stmts = append(stmts, s)
		}
		if p.quiet {
			p.syncStmt()
			res = nil
		}
		if p.tok.start == before && p.tok.kind != tEOF {
			p.errorf(p.here(), "unexpected input in block")
			p.next()
			p.quiet = false
		}
	}
	p.want("}")
	return stmts, res, p.from(start)
}

// flatten makes the value of a block its last statement.
func flatten(stmts []Stmt, res Expr) []Stmt {
	if res != nil {
		stmts = append(stmts, asStmt(res))
	}
	return stmts
}

// asStmt makes a statement of an expression that is evaluated for its effect.
func asStmt(x Expr) Stmt {
	switch x := x.(type) {
	case *IfExpr:
		dropValues(x.If)
		return x.If
	case *BlockExpr:
		return &Block{x.Span, flatten(x.Stmts, x.Result), nil}
	}
	return &ExprStmt{x.Where(), x}
}

// dropValues turns the values of an if's branches into statements.
func dropValues(s *If) {
	for s != nil {
		s.Then.Stmts, s.Then.Result = flatten(s.Then.Stmts, s.Then.Result), nil
		switch e := s.Else.(type) {
		case *If:
			s = e
		case *Block:
			e.Stmts, e.Result = flatten(e.Stmts, e.Result), nil
			return
		default:
			return
		}
	}
}

// stmt parses one statement, or the expression that ends a block and is its value.
func (p *parser) stmt() (Stmt, Expr) {
	start := p.tok.start
	if p.tok.kind == tIdent {
		switch p.tok.text {
		case "let":
			return p.let(), nil
		case "if":
			return p.tail(p.ifExpr())
		case "while", "unroll":
			return p.loop(), nil
		case "for":
			return p.forStmt(), nil
		case "break", "continue", "return":
			return p.jumpStmt(), nil
		case "import":
			if im := p.importDecl(); im != nil {
				p.imports = append(p.imports, im)
			}
			return nil, nil
		case "_":
			if p.peek().is("=") {
				lhs := &Discard{p.here()}
				p.next()
				return p.assign(start, lhs), nil
			}
		}
	}
	if p.tok.is("{") {
		return p.tail(p.blockExpr(true))
	}
	x := p.expr()
	if _, ok := compound[p.tok.text]; ok && p.tok.kind == tOp && p.assignable(start, x) {
		return p.assign(start, x), nil
	}
	if p.tok.is("}") && !p.quiet {
		return nil, x
	}
	s := asStmt(x)
	p.endStmt()
	return s, nil
}

// tail decides about an if or a block where a statement may stand: it is the value of the block it ends.
func (p *parser) tail(x Expr) (Stmt, Expr) {
	if p.tok.is("}") && !p.quiet {
		return nil, x
	}
	p.got(";")
	return asStmt(x), nil
}

// endStmt expects the ';' of a statement; before '}' it may be missing.
func (p *parser) endStmt() {
	switch {
	case p.tok.is("}"):
	case p.got(";"):
		p.quiet = false // whatever was wrong, here begins a new statement
	default:
		p.want(";")
	}
}

// assignable reports whether x can stand left of the assignment that is next. What never can is reported.
func (p *parser) assignable(start int, x Expr) bool {
	switch root(x).(type) {
	case *Var, *MapRef:
	default:
		return false // endStmt says: expected ';'
	}
	switch x.(type) {
	case *Var, *MapRef:
		return true
	case *Field:
		p.next()
		p.expr()
		p.errorf(p.from(start), "Tuples and records are immutable once created. Consider creating a new value and assigning it instead.")
	case *Index:
		p.next()
		p.expr()
		p.errorf(p.from(start), "invalid assignment target")
	}
	return false
}

// root follows fields and indices to what they select from.
func root(x Expr) Expr {
	for {
		switch e := x.(type) {
		case *Field:
			x = e.X
		case *Index:
			x = e.X
		default:
			return x
		}
	}
}

// assign parses Op= expr after its left side.
func (p *parser) assign(start int, lhs Expr) Stmt {
	op := compound[p.next().text]
	rhs := p.expr()
	s := &Assign{p.from(start), lhs, op, rhs}
	p.endStmt()
	return s
}

// let parses let $x [: type] [= expr].
func (p *parser) let() Stmt {
	start := p.next().start
	if p.tok.kind != tVar {
		p.errorf(p.here(), "expected variable after 'let'")
		return nil
	}
	s := &Let{Var: &Var{p.here(), p.next().text}}
	if p.got(":") {
		s.Type = p.typeExpr()
	}
	if p.got("=") {
		s.Init = p.expr()
	}
	s.Span = p.from(start)
	p.endStmt()
	return s
}

// cond parses the condition of if, while and unroll; the parentheses may be missing.
func (p *parser) cond() Expr {
	if !p.got("(") {
		return p.expr()
	}
	x := p.expr()
	p.want(")")
	return x
}

// ifExpr parses if cond block [else …]; its branches keep their values.
func (p *parser) ifExpr() *IfExpr {
	defer p.up()
	s := &If{Then: &Block{}}
	start := p.next().start
	if !p.deeper() {
		s.Cond = &Bad{p.here()}
		return &IfExpr{p.from(start), s}
	}
	s.Cond = p.cond()
	if c, ok := s.Cond.(*Comptime); ok {
		s.Cond, s.Comptime = c.X, true
	}
	if !p.quiet {
		s.Then = p.branch()
	}
	if p.tok.isWord("else") && !p.quiet {
		p.next()
		switch {
		case p.tok.isWord("if"):
			s.Else = p.ifExpr().If
		case p.tok.is("{"):
			s.Else = p.branch()
		default:
			p.errorf(p.here(), "expected '{' or 'if' after 'else'")
		}
	}
	s.Span = p.from(start)
	return &IfExpr{s.Span, s}
}

// branch parses a block of an if.
func (p *parser) branch() *Block {
	stmts, res, at := p.block()
	return &Block{at, stmts, res}
}

// loop parses while and unroll.
func (p *parser) loop() Stmt {
	t := p.next()
	c := p.cond()
	if p.quiet {
		return nil
	}
	body := p.stmtBlock()
	if t.text == "while" {
		return &While{p.from(t.start), c, body}
	}
	return &Unroll{p.from(t.start), c, body}
}

// forStmt parses for ($x : @map) and for ($x : lo..hi); the parentheses may be missing.
func (p *parser) forStmt() Stmt {
	start := p.next().start
	paren := p.got("(")
	if p.tok.kind != tVar {
		p.errorf(p.here(), "expected variable in for loop")
		return nil
	}
	s := &For{Var: &Var{p.here(), p.next().text}}
	if !p.want(":") {
		return nil
	}
	at := p.tok.start
	s.Over = p.unary()
	if p.got("..") {
		hi := p.unary()
		s.Over = &Range{p.from(at), s.Over, hi}
	} else if m, ok := s.Over.(*MapRef); !ok || m.Key != nil {
		p.errorf(p.from(at), "expected map or range in for loop")
	}
	if paren {
		p.want(")")
	}
	if p.quiet {
		return nil
	}
	s.Body = p.stmtBlock()
	s.Span = p.from(start)
	return s
}

// jumpStmt parses break, continue and return [expr].
func (p *parser) jumpStmt() Stmt {
	t := p.next()
	s := &Jump{Tok: t.text}
	if t.text == "return" && !p.tok.is(";") && !p.tok.is("}") {
		s.Value = p.expr()
	}
	s.Span = p.from(t.start)
	p.endStmt()
	return s
}
