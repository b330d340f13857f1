package check

import (
	"maps"

	"github.com/fathom-trace/fathom/lang/syntax"
)

// resolver finds which variable every $x means, and statements that stand where they may not.
type resolver struct {
	x      *inst
	scopes []map[string]*variable
	all    []*variable
	meta   int // inside sizeof, typeof, …: nothing there is evaluated
	loops  int
}

// variable is a Var and what the program did to it so far.
type variable struct {
	*Var
	assigned bool
}

// resolve fills x.Vars.
func (x *inst) resolve() {
	r := &resolver{x: x}
	r.push()
	if x.Pred != nil {
		r.expr(x.Pred)
	}
	r.push()
	r.stmts(x.Body.Stmts)
	r.expr(x.Body.Result)
	for _, v := range r.all {
		if l, ok := v.Decl.(*syntax.Let); ok && !v.assigned {
			x.c.warnf(l.Span, "Variable %s was never assigned to.", v.Name)
		}
	}
}

func (r *resolver) push() { r.scopes = append(r.scopes, map[string]*variable{}) }
func (r *resolver) pop()  { r.scopes = r.scopes[:len(r.scopes)-1] }

func (r *resolver) find(name string) *variable {
	for i := len(r.scopes) - 1; i >= 0; i-- {
		if v, ok := r.scopes[i][name]; ok {
			return v
		}
	}
	return nil
}

// declare makes a variable in the innermost scope.
func (r *resolver) declare(at *syntax.Var, decl syntax.Node, assigned bool) *variable {
	v := &variable{Var: &Var{Name: at.Name, Decl: decl}, assigned: assigned}
	r.scopes[len(r.scopes)-1][at.Name] = v
	r.all = append(r.all, v)
	r.x.Vars[at] = v.Var
	return v
}

func (r *resolver) stmts(ss []syntax.Stmt) {
	for i, s := range ss {
		r.stmt(s)
		if j, ok := s.(*syntax.Jump); ok && i+1 < len(ss) {
			_ = j
			r.x.c.warnf(ss[i+1].Where(), "Unreachable statement.")
			return
		}
	}
}

func (r *resolver) block(b *syntax.Block) {
	if b == nil {
		return
	}
	r.push()
	r.stmts(b.Stmts)
	r.expr(b.Result)
	r.pop()
}

func (r *resolver) stmt(s syntax.Stmt) {
	switch s := s.(type) {
	case *syntax.ExprStmt:
		r.expr(s.X)
	case *syntax.Assign:
		r.assign(s)
	case *syntax.Let:
		r.let(s)
	case *syntax.If:
		r.ifStmt(s)
	case *syntax.While:
		r.expr(s.Cond)
		r.loop(s.Body)
		r.x.c.warnf(s.Span, "While loops are deprecated and may be removed in the future.").Hint =
			"For loops support ranges (e.g. `for ($x : $start..$end) { ... }`), and can be used in place of while. " +
				"These are more easily proven to be bounded by the verifier."
	case *syntax.Unroll:
		r.expr(s.N)
		r.loop(s.Body)
	case *syntax.For:
		r.forStmt(s)
	case *syntax.Jump:
		r.expr(s.Value)
		if s.Tok != "return" && r.loops == 0 {
			r.x.c.errorf(s.Span, "%s can only be used inside of a loop.", s.Tok)
		}
	case *syntax.Block:
		r.block(s)
	}
}

func (r *resolver) ifStmt(s *syntax.If) {
	r.expr(s.Cond)
	r.block(s.Then)
	switch e := s.Else.(type) {
	case *syntax.If:
		r.ifStmt(e)
	case *syntax.Block:
		r.block(e)
	}
}

func (r *resolver) loop(b *syntax.Block) {
	r.loops++
	r.block(b)
	r.loops--
}

func (r *resolver) assign(s *syntax.Assign) {
	if s.Op != syntax.ASSIGN {
		r.expr(s.LHS)
	}
	r.expr(s.RHS)
	switch l := s.LHS.(type) {
	case *syntax.Var:
		v := r.find(l.Name)
		if v == nil {
			if s.Op == syntax.ASSIGN {
				r.declare(l, s, true)
			}
			return
		}
		v.assigned = true
		r.x.Vars[l] = v.Var
	case *syntax.MapRef:
		r.expr(l)
		if r.meta > 0 {
			r.x.c.errorf(s.Span, "Map assignments not allowed inside of sizeof, offsetof, typeof or typeinfo")
		}
	}
}

func (r *resolver) let(s *syntax.Let) {
	if s.Type != nil {
		r.typeExpr(s.Type)
	}
	r.expr(s.Init)
	if old := r.find(s.Var.Name); old != nil {
		r.x.c.errorf(s.Span, "Variable %s was already declared. Variable shadowing is not allowed.", s.Var.Name)
		r.x.Vars[s.Var] = old.Var
		return
	}
	r.declare(s.Var, s, s.Init != nil)
}

func (r *resolver) forStmt(s *syntax.For) {
	if r.find(s.Var.Name) != nil {
		r.x.c.errorf(s.Var.Span, "Loop declaration shadows existing variable: %s", s.Var.Name)
	}
	r.expr(s.Over)
	r.push()
	r.declare(s.Var, s, true).Loop = s
	r.loop(s.Body)
	r.pop()
}

func (r *resolver) typeExpr(t *syntax.TypeExpr) {
	r.meta++
	r.expr(t.Of)
	if t.Elem != nil {
		r.typeExpr(t.Elem)
	}
	r.meta--
}

// expr resolves what stands in an expression; nil is nothing.
func (r *resolver) expr(e syntax.Expr) {
	switch e := e.(type) {
	case nil:
	case *syntax.Var:
		r.variable(e)
	case *syntax.MapRef:
		r.x.c.mapOf(e.Name, e.Span)
		r.expr(e.Key)
	case *syntax.BlockExpr:
		r.push()
		r.stmts(e.Stmts)
		r.expr(e.Result)
		r.pop()
	case *syntax.IfExpr:
		r.ifStmt(e.If)
	case *syntax.TypeExpr:
		r.typeExpr(e)
	case *syntax.Cast:
		r.typeExpr(e.Type)
		r.expr(e.X)
	case *syntax.Call:
		r.call(e)
	case *syntax.Unary:
		r.unary(e)
	default:
		syntax.Children(e, func(n syntax.Node) {
			if sub, ok := n.(syntax.Expr); ok {
				r.expr(sub)
			}
		})
	}
}

func (r *resolver) variable(e *syntax.Var) {
	v := r.find(e.Name)
	if v == nil {
		r.x.c.errorf(e.Span, "Undefined or undeclared variable: %s", e.Name).Hint = didYouMean(e.Name, r.names())
		return
	}
	if !v.assigned && r.meta == 0 {
		r.x.c.warnf(e.Span, "Variable used before it was assigned: %s", e.Name)
	}
	r.x.Vars[e] = v.Var
}

// names gives the variables in scope.
func (r *resolver) names() func(func(string) bool) {
	return func(yield func(string) bool) {
		for _, s := range r.scopes {
			for n := range maps.Keys(s) {
				if !yield(n) {
					return
				}
			}
		}
	}
}

func (r *resolver) unary(e *syntax.Unary) {
	if v, ok := e.X.(*syntax.Var); ok && e.Op == syntax.AND {
		if w := r.find(v.Name); w != nil {
			w.assigned = true
		}
	}
	r.expr(e.X)
}

// call resolves arguments.
func (r *resolver) call(e *syntax.Call) {
	f := r.x.c.funcs[e.Name]
	meta := f != nil && f.meta
	if meta {
		r.meta++
	}
	for i, a := range e.Args {
		if w, ok := a.(*syntax.Var); ok && e.Name == "find" && i == 2 {
			if v := r.find(w.Name); v != nil {
				v.assigned = true
			}
		}
		if _, ok := a.(*syntax.Ident); ok && f != nil && f.word(i) {
			continue
		}
		r.expr(a)
	}
	if meta {
		r.meta--
	}
}
