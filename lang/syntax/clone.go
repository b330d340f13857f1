package syntax

// Cloner copies trees. Expr and Stmt, where set, see every node before it is copied; what they give, if not nil, takes the
// node's place and is not copied further.
type Cloner struct {
	Expr func(Expr) Expr
	Stmt func(Stmt) Stmt
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
		return dup(x)
	case *IntLit:
		return dup(x)
	case *StrLit:
		return dup(x)
	case *BoolLit:
		return dup(x)
	case *Ident:
		return dup(x)
	case *Var:
		return dup(x)
	case *Param:
		return dup(x)
	case *Discard:
		return dup(x)
	case *MapRef:
		return &MapRef{x.Span, x.Name, c.CloneExpr(x.Key)}
	case *Range:
		return &Range{x.Span, c.CloneExpr(x.Lo), c.CloneExpr(x.Hi)}
	case *Call:
		return &Call{x.Span, x.Name, x.NameSpan, c.exprs(x.Args)}
	case *Unary:
		return &Unary{x.Span, x.Op, c.CloneExpr(x.X), x.Postfix}
	case *Binary:
		return &Binary{x.Span, x.Op, x.OpSpan, c.CloneExpr(x.X), c.CloneExpr(x.Y)}
	case *Cond:
		return c.cond(x)
	case *IfExpr:
		return &IfExpr{x.Span, c.CloneStmt(x.If).(*If)}
	case *Field:
		return &Field{x.Span, c.CloneExpr(x.X), x.Name, x.NameSpan, x.Arrow}
	case *Index:
		return &Index{x.Span, c.CloneExpr(x.X), c.CloneExpr(x.I)}
	case *Cast:
		return &Cast{x.Span, x.Head, c.typeExpr(x.Type), c.CloneExpr(x.X)}
	case *Tuple:
		return &Tuple{x.Span, c.exprs(x.Elems)}
	case *Record:
		r := &Record{Span: x.Span}
		for _, f := range x.Fields {
			r.Fields = append(r.Fields, &RecordField{f.Span, f.Name, c.CloneExpr(f.Value)})
		}
		return r
	case *BlockExpr:
		return c.CloneBlock(x)
	case *Comptime:
		return &Comptime{x.Span, c.CloneExpr(x.X)}
	case *TypeExpr:
		return c.typeExpr(x)
	}
	panic("syntax: unknown expression")
}

// CloneBlock copies a block expression without asking c.Expr about the block itself.
func (c *Cloner) CloneBlock(x *BlockExpr) *BlockExpr {
	return &BlockExpr{x.Span, c.stmts(x.Stmts), c.CloneExpr(x.Result)}
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
		return &ExprStmt{s.Span, c.CloneExpr(s.X)}
	case *Assign:
		return &Assign{s.Span, c.CloneExpr(s.LHS), s.Op, c.CloneExpr(s.RHS)}
	case *Let:
		return &Let{s.Span, c.variable(s.Var), c.typeExpr(s.Type), c.CloneExpr(s.Init)}
	case *If:
		return &If{s.Span, c.CloneExpr(s.Cond), c.block(s.Then), c.CloneStmt(s.Else), s.Comptime}
	case *While:
		return &While{s.Span, c.CloneExpr(s.Cond), c.block(s.Body)}
	case *Unroll:
		return &Unroll{s.Span, c.CloneExpr(s.N), c.block(s.Body)}
	case *For:
		return &For{s.Span, c.variable(s.Var), c.CloneExpr(s.Over), c.block(s.Body)}
	case *Jump:
		return &Jump{s.Span, s.Tok, c.CloneExpr(s.Value)}
	case *Block:
		return c.block(s)
	}
	panic("syntax: unknown statement")
}

func dup[T any](x *T) *T {
	y := *x
	return &y
}

// cond keeps Then == C of the short form.
func (c *Cloner) cond(x *Cond) Expr {
	d := &Cond{Span: x.Span, C: c.CloneExpr(x.C)}
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
	return dup(v)
}

func (c *Cloner) block(b *Block) *Block {
	if b == nil {
		return nil
	}
	return &Block{b.Span, c.stmts(b.Stmts), c.CloneExpr(b.Result)}
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
	return &TypeExpr{t.Span, t.Name, c.CloneExpr(t.Of), c.typeExpr(t.Elem), t.Ptr, t.Dims}
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
