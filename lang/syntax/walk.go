package syntax

// Walk calls f for n and, while f gives true, for everything below it, in the order of evaluation. Nil nodes are skipped.
// The repeated condition of x ?: y is visited once.
func Walk(n Node, f func(Node) bool) {
	if n == nil || !f(n) {
		return
	}
	Children(n, func(c Node) { Walk(c, f) })
}

// WalkFile walks all probes, macros and declarations of a file.
func WalkFile(file *File, f func(Node) bool) {
	if file.Config != nil {
		Walk(file.Config, f)
	}
	for _, d := range file.Maps {
		Walk(d, f)
	}
	for _, m := range file.Macros {
		Walk(m, f)
	}
	for _, p := range file.Probes {
		Walk(p, f)
	}
}

// Children calls f for the nodes directly below n, in the order of evaluation.
func Children(n Node, f func(Node)) {
	switch n := n.(type) {
	case *Config:
		for _, it := range n.Items {
			f(it)
		}
	case *ConfigItem:
		f(n.Value)
	case *MapDecl:
		exprs(n.Args, f)
	case *Macro:
		exprs(n.Params, f)
		f(n.Body)
	case *Probe:
		for _, ap := range n.Points {
			f(ap)
		}
		one(n.Pred, f)
		f(n.Body)
	case Stmt:
		stmtChildren(n, f)
	case Expr:
		exprChildren(n, f)
	}
}

func stmtChildren(s Stmt, f func(Node)) {
	switch s := s.(type) {
	case *ExprStmt:
		one(s.X, f)
	case *Assign:
		one(s.RHS, f)
		one(s.LHS, f)
	case *Let:
		if s.Type != nil {
			f(s.Type)
		}
		one(s.Init, f)
		f(s.Var)
	case *If:
		one(s.Cond, f)
		f(s.Then)
		if s.Else != nil {
			f(s.Else)
		}
	case *While:
		one(s.Cond, f)
		f(s.Body)
	case *Unroll:
		one(s.N, f)
		f(s.Body)
	case *For:
		one(s.Over, f)
		f(s.Var)
		f(s.Body)
	case *Jump:
		one(s.Value, f)
	case *Block:
		stmts(s.Stmts, f)
		one(s.Result, f)
	}
}

func exprChildren(x Expr, f func(Node)) {
	switch x := x.(type) {
	case *MapRef:
		one(x.Key, f)
	case *Range:
		one(x.Lo, f)
		one(x.Hi, f)
	case *Call:
		exprs(x.Args, f)
	case *Unary:
		one(x.X, f)
	case *Binary:
		one(x.X, f)
		one(x.Y, f)
	case *Cond:
		one(x.C, f)
		if x.Then != x.C {
			one(x.Then, f)
		}
		one(x.Else, f)
	case *IfExpr:
		f(x.If)
	case *Field:
		one(x.X, f)
	case *Index:
		one(x.X, f)
		one(x.I, f)
	case *Cast:
		f(x.Type)
		one(x.X, f)
	case *Tuple:
		exprs(x.Elems, f)
	case *Record:
		for _, rf := range x.Fields {
			one(rf.Value, f)
		}
	case *BlockExpr:
		stmts(x.Stmts, f)
		one(x.Result, f)
	case *Comptime:
		one(x.X, f)
	case *TypeExpr:
		one(x.Of, f)
		if x.Elem != nil {
			f(x.Elem)
		}
	}
}

func one(x Expr, f func(Node)) {
	if x != nil {
		f(x)
	}
}

func exprs(xs []Expr, f func(Node)) {
	for _, x := range xs {
		one(x, f)
	}
}

func stmts(ss []Stmt, f func(Node)) {
	for _, s := range ss {
		f(s)
	}
}
