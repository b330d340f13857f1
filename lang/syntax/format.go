package syntax

import (
	"fmt"
	"strings"
)

// Format prints a file in the one layout of the language: parsing the result gives the same tree. Comments are not kept.
func Format(f *File) string {
	w := &printer{}
	if f.Hashbang != "" {
		w.line("%s", f.Hashbang)
	}
	for _, d := range f.CDefs {
		w.line("%s", d.Text)
	}
	if f.Config != nil {
		w.config(f.Config)
	}
	for _, im := range f.Imports {
		w.line("import %s;", quote(im.Path))
	}
	for _, d := range f.Maps {
		w.line("let %s = %s(%s);", d.Name, d.Kind, w.list(d.Args))
	}
	for _, m := range f.Macros {
		w.gap()
		w.line("macro %s(%s) %s", m.Name, w.list(m.Params), w.braces(m.Body.Stmts, m.Body.Result, true))
	}
	for _, p := range f.Probes {
		w.probe(p)
	}
	return w.String()
}

// FormatExpr prints one expression.
func FormatExpr(x Expr) string { return (&printer{}).expr(x, 0) }

// FormatType prints a type.
func FormatType(t *TypeExpr) string { return (&printer{}).typ(t) }

type printer struct {
	strings.Builder
	indent int
}

func (w *printer) line(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }

// gap separates clauses.
func (w *printer) gap() {
	if w.Len() > 0 {
		w.WriteByte('\n')
	}
}

func (w *printer) config(c *Config) {
	w.line("config = {")
	for _, it := range c.Items {
		w.line("\t%s=%s;", it.Name, w.expr(it.Value, 0))
	}
	w.line("}")
}

func (w *printer) probe(p *Probe) {
	w.gap()
	for i, ap := range p.Points {
		if i > 0 {
			w.WriteString(",\n")
		}
		if ap.Name != "" {
			w.WriteString(ap.Name + "=")
		}
		w.WriteString(ap.Raw)
	}
	if p.Pred != nil {
		fmt.Fprintf(w, "\n/ %s /\n", w.expr(p.Pred, 0))
	} else {
		w.WriteByte(' ')
	}
	w.line("%s", w.braces(p.Body.Stmts, p.Body.Result, false))
}

// braces prints a block; value says that its last expression would be its value.
func (w *printer) braces(stmts []Stmt, res Expr, value bool) string {
	if len(stmts) == 0 && res == nil {
		return "{\n" + w.tabs() + "}"
	}
	var b strings.Builder
	b.WriteString("{\n")
	w.indent++
	for i, s := range stmts {
		text := w.stmt(s)
		if value && i == len(stmts)-1 && res == nil && isBlocky(s) {
			text += ";"
		}
		b.WriteString(w.tabs() + text + "\n")
	}
	if res != nil {
		b.WriteString(w.tabs() + w.expr(res, 0) + "\n")
	}
	w.indent--
	b.WriteString(w.tabs() + "}")
	return b.String()
}

// isBlocky reports the statements that are also expressions.
func isBlocky(s Stmt) bool {
	switch s.(type) {
	case *If, *Block:
		return true
	}
	return false
}

func (w *printer) tabs() string { return strings.Repeat("\t", w.indent) }

func (w *printer) stmt(s Stmt) string {
	switch s := s.(type) {
	case *ExprStmt:
		return w.expr(s.X, 0) + ";"
	case *Assign:
		op := "="
		if s.Op != ASSIGN {
			op = s.Op.String() + "="
		}
		return w.expr(s.LHS, 0) + " " + op + " " + w.expr(s.RHS, 0) + ";"
	case *Let:
		return w.let(s)
	case *If:
		return w.ifStmt(s, false)
	case *While:
		return "while (" + w.expr(s.Cond, 0) + ") " + w.braces(s.Body.Stmts, nil, false)
	case *Unroll:
		return "unroll (" + w.expr(s.N, 0) + ") " + w.braces(s.Body.Stmts, nil, false)
	case *For:
		return "for (" + s.Var.Name + " : " + w.expr(s.Over, 0) + ") " + w.braces(s.Body.Stmts, nil, false)
	case *Jump:
		if s.Value != nil {
			return s.Tok + " " + w.expr(s.Value, 0) + ";"
		}
		return s.Tok + ";"
	case *Block:
		return w.braces(s.Stmts, s.Result, false)
	}
	return ";"
}

func (w *printer) let(s *Let) string {
	text := "let " + s.Var.Name
	if s.Type != nil {
		text += " : " + w.typ(s.Type)
	}
	if s.Init != nil {
		text += " = " + w.expr(s.Init, 0)
	}
	return text + ";"
}

func (w *printer) ifStmt(s *If, value bool) string {
	text := "if "
	if s.Comptime {
		text += "comptime "
	}
	text += "(" + w.expr(s.Cond, 0) + ") " + w.braces(s.Then.Stmts, s.Then.Result, value)
	switch e := s.Else.(type) {
	case *If:
		text += " else " + w.ifStmt(e, value)
	case *Block:
		text += " else " + w.braces(e.Stmts, e.Result, value)
	}
	return text
}

// Binding strengths beside those of the binary operators.
const (
	precCond  = 0
	precUnary = 11
	precPost  = 12
)

// expr prints x so that it can stand where an operand of strength prec is wanted.
func (w *printer) expr(x Expr, prec int) string {
	text, own := w.bare(x)
	if own < prec {
		return "(" + text + ")"
	}
	return text
}

// bare prints x and gives its binding strength.
func (w *printer) bare(x Expr) (string, int) {
	switch x := x.(type) {
	case *Unary:
		return w.unary(x)
	case *Binary:
		p := binary[x.Op.String()].prec
		return w.expr(x.X, p) + " " + x.Op.String() + " " + w.expr(x.Y, p+1), p
	case *Cond:
		if x.Then == x.C {
			return w.expr(x.C, 1) + " ?: " + w.expr(x.Else, 0), precCond
		}
		return w.expr(x.C, 1) + " ? " + w.expr(x.Then, 0) + " : " + w.expr(x.Else, 0), precCond
	case *Comptime:
		return "comptime " + w.expr(x.X, precUnary), precUnary
	case *Cast:
		return "(" + w.typ(x.Type) + ")" + w.expr(x.X, precUnary), precUnary
	case *IfExpr:
		return w.ifStmt(x.If, true), precCond
	case *BlockExpr:
		return w.braces(x.Stmts, x.Result, true), precCond
	case *Range:
		return w.expr(x.Lo, precUnary) + ".." + w.expr(x.Hi, precUnary), precCond
	}
	return w.operand(x), precPost
}

func (w *printer) unary(x *Unary) (string, int) {
	if x.Postfix {
		return w.expr(x.X, precPost) + x.Op.String(), precPost
	}
	text := w.expr(x.X, precUnary)
	if x.Op == SUB && strings.HasPrefix(text, "-") || x.Op == AND && strings.HasPrefix(text, "&") {
		text = " " + text
	}
	return x.Op.String() + text, precUnary
}

// operand prints what needs no parentheses.
func (w *printer) operand(x Expr) string {
	switch x := x.(type) {
	case *IntLit:
		if x.Duration {
			return fmt.Sprintf("%dns", x.Value)
		}
		return fmt.Sprint(x.Value)
	case *StrLit:
		return quote(x.Value)
	case *BoolLit:
		return fmt.Sprint(x.Value)
	case *Ident:
		return x.Name
	case *Var:
		return x.Name
	case *Param:
		if x.N == 0 {
			return "$#"
		}
		return fmt.Sprintf("$%d", x.N)
	case *Discard:
		return "_"
	case *MapRef:
		return w.mapRef(x)
	case *Call:
		return x.Name + "(" + w.list(x.Args) + ")"
	case *Field:
		dot := "."
		if x.Arrow {
			dot = "->"
		}
		return w.expr(x.X, precPost) + dot + x.Name
	case *Index:
		return w.indexed(x.X) + "[" + w.expr(x.I, 0) + "]"
	case *Tuple:
		if len(x.Elems) == 1 {
			return "(" + w.expr(x.Elems[0], 0) + ",)"
		}
		return "(" + w.list(x.Elems) + ")"
	case *Record:
		var fields []string
		for _, f := range x.Fields {
			fields = append(fields, f.Name+"="+w.expr(f.Value, 0))
		}
		return "(" + strings.Join(fields, ", ") + ")"
	case *TypeExpr:
		return w.typ(x)
	}
	return "?"
}

// indexed prints the operand of an index. A map without key needs parentheses, or the index would be its key; a plain
// name needs them, or sizeof would take it for a type.
func (w *printer) indexed(x Expr) string {
	switch x := x.(type) {
	case *MapRef:
		if x.Key == nil {
			return "(" + x.Name + ")"
		}
	case *Ident:
		if !IsBuiltin(x.Name) {
			return "(" + x.Name + ")"
		}
	}
	return w.expr(x, precPost)
}

func (w *printer) mapRef(x *MapRef) string {
	if x.Key == nil {
		return x.Name
	}
	return x.Name + "[" + w.expr(x.Key, 0) + "]"
}

func (w *printer) list(xs []Expr) string {
	var out []string
	for _, x := range xs {
		out = append(out, w.expr(x, 0))
	}
	return strings.Join(out, ", ")
}

func (w *printer) typ(t *TypeExpr) string {
	text := t.Name
	switch {
	case t.Elem != nil:
		text = w.typ(t.Elem)
	case t.Of != nil:
		text = "typeof(" + w.expr(t.Of, 0) + ")"
	}
	if t.Ptr > 0 {
		text += " " + strings.Repeat("*", t.Ptr)
	}
	for _, d := range t.Dims {
		if d < 0 {
			text += "[]"
		} else {
			text += fmt.Sprintf("[%d]", d)
		}
	}
	return text
}

// quote writes a string literal.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := 0; i < len(s); i++ {
		c := s[i]
		if j := strings.IndexByte("\n\t\r\"\\", c); j >= 0 {
			b.WriteByte('\\')
			b.WriteByte(`ntr"\`[j])
		} else if c < ' ' || c == 0x7f {
			fmt.Fprintf(&b, "\\%03o", c)
		} else {
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
