package syntax

// Cloner copies trees. Expr and Stmt, where set, see every node before it is copied; what they give, if not nil, takes the
// node's place and is not copied further.
type Cloner struct {
	Expr func(Expr) Expr
	Stmt func(Stmt) Stmt
	// Via, where set, becomes the Span.Via of all copies that have none.
	Via *Span
}

func (c *Cloner) span(s Span) Span {
	if s.Via == nil {
		s.Via = c.Via
	}
	return s
}

// Clone copies an expression.
func Clone(x Expr) Expr { return (&Cloner{}).CloneExpr(x) }

// CloneExpr copies x; nil stays nil.
func (c *Cloner) CloneExpr(x Expr) Expr {
	if x == nil {
		return nil
	}
	if c.Expr != nil {
		if r := c.Expr(x); r != nil {
			return r
		}
	}
	switch x := x.(type) {
	case *Bad:
		y := *x
		y.Span = c.span(x.Span)
		return &y
	case *IntLit:
		y := *x
		y.Span = c.span(x.Span)
		return &y
	case *StrLit:
		y := *x
		y.Span = c.span(x.Span)
		return &y
	case *BoolLit:
		y := *x
		y.Span = c.span(x.Span)
		return &y
	case *Ident:
		y := *x
		y.Span = c.span(x.Span)
		return &y
	case *Var:
		y := *x
		y.Span = c.span(x.Span)
		return &y
	case *Param:
		y := *x
		y.Span = c.span(x.Span)
		return &y
	case *Discard:
		y := *x
		y.Span = c.span(x.Span)
		return &y
	case *MapRef:
		return &MapRef{c.span(x.Span), x.Name, c.CloneExpr(x.Key)}
	case *Range:
		return &Range{c.span(x.Span), c.CloneExpr(x.Lo), c.CloneExpr(x.Hi)}
	case *Call:
		return &Call{c.span(x.Span), x.Name, x.NameSpan, c.exprs(x.Args)}
	case *Unary:
		return &Unary{c.span(x.Span), x.Op, c.CloneExpr(x.X), x.Postfix}
	case *Binary:
		return &Binary{c.span(x.Span), x.Op, x.OpSpan, c.CloneExpr(x.X), c.CloneExpr(x.Y)}
	case *Cond:
		return c.cond(x)
	case *IfExpr:
		return &IfExpr{c.span(x.Span), c.CloneStmt(x.If).(*If)}
	case *Field:
		return &Field{c.span(x.Span), c.CloneExpr(x.X), x.Name, x.NameSpan, x.Arrow}
	case *Index:
		return &Index{c.span(x.Span), c.CloneExpr(x.X), c.CloneExpr(x.I)}
	case *Cast:
		return &Cast{c.span(x.Span), x.Head, c.typeExpr(x.Type), c.CloneExpr(x.X)}
	case *Tuple:
		return &Tuple{c.span(x.Span), c.exprs(x.Elems)}
	case *Record:
		r := &Record{Span: c.span(x.Span)}
		for _, f := range x.Fields {
			r.Fields = append(r.Fields, &RecordField{c.span(f.Span), f.Name, c.CloneExpr(f.Value)})
		}
		return r
	case *BlockExpr:
		return c.CloneBlock(x)
	case *Comptime:
		return &Comptime{c.span(x.Span), c.CloneExpr(x.X)}
	case *TypeExpr:
		return c.typeExpr(x)
	}
	panic("syntax: unknown expression")
}

// CloneBlock copies a block expression without asking c.Expr about the block itself.
func (c *Cloner) CloneBlock(x *BlockExpr) *BlockExpr {
	return &BlockExpr{c.span(x.Span), c.stmts(x.Stmts), c.CloneExpr(x.Result)}
}

// CloneStmt copies s; nil stays nil.
func (c *Cloner) CloneStmt(s Stmt) Stmt {
	if s == nil {
		return nil
	}
	if c.Stmt != nil {
		if r := c.Stmt(s); r != nil {
			return r
		}
	}
	switch s := s.(type) {
	case *ExprStmt:
		return &ExprStmt{c.span(s.Span), c.CloneExpr(s.X)}
	case *Assign:
		return &Assign{c.span(s.Span), c.CloneExpr(s.LHS), s.Op, c.CloneExpr(s.RHS)}
	case *Let:
		return &Let{c.span(s.Span), c.variable(s.Var), c.typeExpr(s.Type), c.CloneExpr(s.Init)}
	case *If:
		return &If{c.span(s.Span), c.CloneExpr(s.Cond), c.block(s.Then), c.CloneStmt(s.Else), s.Comptime}
	case *While:
		return &While{c.span(s.Span), c.CloneExpr(s.Cond), c.block(s.Body)}
	case *Unroll:
		return &Unroll{c.span(s.Span), c.CloneExpr(s.N), c.block(s.Body)}
	case *For:
		return &For{c.span(s.Span), c.variable(s.Var), c.CloneExpr(s.Over), c.block(s.Body)}
	case *Jump:
		return &Jump{c.span(s.Span), s.Tok, c.CloneExpr(s.Value)}
	case *Block:
		return c.block(s)
	}
	panic("syntax: unknown statement")
}

// cond keeps Then == C of the short form.
func (c *Cloner) cond(x *Cond) Expr {
	d := &Cond{Span: c.span(x.Span), C: c.CloneExpr(x.C)}
	d.Then = d.C
	if x.Then != x.C {
		d.Then = c.CloneExpr(x.Then)
	}
	d.Else = c.CloneExpr(x.Else)
	return d
}

// variable copies a declared variable; a replacement that is none is ignored.
func (c *Cloner) variable(v *Var) *Var {
	if w, ok := c.CloneExpr(v).(*Var); ok {
		return w
	}
	w := *v
	w.Span = c.span(v.Span)
	return &w
}

func (c *Cloner) block(b *Block) *Block {
	if b == nil {
		return nil
	}
	return &Block{c.span(b.Span), c.stmts(b.Stmts), c.CloneExpr(b.Result)}
}

func (c *Cloner) typeExpr(t *TypeExpr) *TypeExpr {
	if t == nil {
		return nil
	}
	if c.Expr != nil {
		if r, ok := c.Expr(t).(*TypeExpr); ok && r != nil {
			return r
		}
	}
	return &TypeExpr{c.span(t.Span), t.Name, c.CloneExpr(t.Of), c.typeExpr(t.Elem), t.Ptr, t.Dims}
}

func (c *Cloner) exprs(xs []Expr) []Expr {
	var ys []Expr
	for _, x := range xs {
		ys = append(ys, c.CloneExpr(x))
	}
	return ys
}

func (c *Cloner) stmts(ss []Stmt) []Stmt {
	var ts []Stmt
	for _, s := range ss {
		ts = append(ts, c.CloneStmt(s))
	}
	return ts
}
