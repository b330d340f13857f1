// Package syntax reads programs of the bpftrace language: Parse gives the tree and the diagnostics of a text, Format prints a
// tree, Walk visits one. It knows no types and no names; grammar.txt is what it accepts. The authority is bpftrace's
// docs/language.md and its behaviour (0.27).
package syntax

// Node is anything with a place in the source.
type Node interface{ Where() Span }

// Expr is an expression. Every expression is a pointer, so that it can be a map key in check.Instance.
type Expr interface {
	Node
	expr()
}

// Stmt is a statement.
type Stmt interface {
	Node
	stmt()
}

// File is a parsed program.
type File struct {
	Src      *Source
	Hashbang string
	CDefs    []*CDef    // struct, union, enum, typedef, #define, #include: raw C, in order
	Config   *Config    // nil without a config block
	Imports  []*Import  // those inside blocks, which the standard library has, come last
	Maps     []*MapDecl // let @a = lruhash(100);
	Macros   []*Macro
	Probes   []*Probe
}

// CDef is C text before the first probe; ctype/cdecl reads it.
type CDef struct {
	Span
	Text string
}

// Config is config = { name=value; … }.
type Config struct {
	Span
	Items []*ConfigItem
}

// ConfigItem is one assignment of a config block; Value is an *IntLit, *StrLit, *BoolLit or *Ident (stack_mode=perf).
type ConfigItem struct {
	Span
	Name  string
	Value Expr
}

// Import is import "path";
type Import struct {
	Span
	Path string
}

// MapDecl is let @name = kind(maxEntries);
type MapDecl struct {
	Span
	Name string // with @
	Kind string // hash, lruhash, percpuhash, percpulruhash, …
	Args []Expr
}

// Macro is macro name(params) { body }.
type Macro struct {
	Span
	Name   string
	Params []Expr // *Var ($x), *MapRef without key (@x) or *Ident (x)
	Body   *BlockExpr
}

// Probe is one clause: attach points, an optional predicate, a body.
type Probe struct {
	Span
	Points []*AttachPoint
	Pred   Expr // nil without
	Body   *BlockExpr
}

// AttachPoint is the text of one attach point, positional parameters already replaced: "kprobe:tcp_*".
type AttachPoint struct {
	Span
	Name string // the optional name before '=': "name=kprobe:f"
	Raw  string
}

// Statements.
type (
	// ExprStmt evaluates X for its effect.
	ExprStmt struct {
		Span
		X Expr
	}
	// Assign is LHS Op= RHS; Op is ASSIGN or the binary operator of a compound assignment.
	// LHS is *Var, *MapRef, or for _ = x a *Discard.
	Assign struct {
		Span
		LHS Expr
		Op  Op
		RHS Expr
	}
	// Let declares $x, with optional type and optional first value.
	Let struct {
		Span
		Var  *Var
		Type *TypeExpr
		Init Expr
	}
	// If is if (Cond) Then [else Else]; Else is nil, *Block or *If. As an expression it stands in an IfExpr.
	If struct {
		Span
		Cond     Expr
		Then     *Block
		Else     Stmt
		Comptime bool
	}
	// While is while (Cond) Body.
	While struct {
		Span
		Cond Expr
		Body *Block
	}
	// Unroll is unroll (N) Body.
	Unroll struct {
		Span
		N    Expr
		Body *Block
	}
	// For is for (Var : Over) Body. Over is a *MapRef without key or a *Range.
	For struct {
		Span
		Var  *Var
		Over Expr
		Body *Block
	}
	// Jump is break, continue or return [Value].
	Jump struct {
		Span
		Tok   string // "break", "continue", "return"
		Value Expr
	}
	// Block is { statements } with a scope of its own. Result is the value of a branch of an IfExpr; elsewhere it is nil.
	Block struct {
		Span
		Stmts  []Stmt
		Result Expr
	}
)

func (*ExprStmt) stmt() {}
func (*Assign) stmt()   {}
func (*Let) stmt()      {}
func (*If) stmt()       {}
func (*While) stmt()    {}
func (*Unroll) stmt()   {}
func (*For) stmt()      {}
func (*Jump) stmt()     {}
func (*Block) stmt()    {}

// Expressions.
type (
	// Bad stands where an expression could not be parsed.
	Bad struct{ Span }
	// IntLit is an integer; durations are already nanoseconds. Negative literals are Unary{SUB}.
	IntLit struct {
		Span
		Value uint64
		// Unsigned is set when Value does not fit int64.
		Unsigned bool
		Duration bool
	}
	// StrLit is a string, escapes already resolved.
	StrLit struct {
		Span
		Value string
	}
	// BoolLit is true or false.
	BoolLit struct {
		Span
		Value bool
	}
	// Ident is a bare name: a builtin, an enum constant, a macro, a #define.
	Ident struct {
		Span
		Name string
	}
	// Var is a scratch variable; Name keeps its $.
	Var struct {
		Span
		Name string
	}
	// MapRef is @name or @name[Key]; several keys are one Tuple. Name keeps its @.
	MapRef struct {
		Span
		Name string
		Key  Expr
	}
	// Param is a positional parameter $N (N ≥ 1); N == 0 is $#.
	Param struct {
		Span
		N int
	}
	// Discard is _ on the left of an assignment.
	Discard struct{ Span }
	// Range is Lo..Hi, only in for.
	Range struct {
		Span
		Lo, Hi Expr
	}
	// Call is a function or macro call; Args of sizeof, offsetof and the like may be *TypeExpr. The second argument of
	// offsetof is the chain of fields: a.b.c is Field{Field{Ident a, b}, c}. A bare unknown name in sizeof is an *Ident.
	Call struct {
		Span
		Name     string
		NameSpan Span
		Args     []Expr
	}
	// Unary is Op X, or X Op for postfix ++ and --.
	Unary struct {
		Span
		Op      Op // NOT, BNOT, SUB, MUL (dereference), AND (address of), INC, DEC
		X       Expr
		Postfix bool
	}
	// Binary is X Op Y.
	Binary struct {
		Span
		Op     Op
		OpSpan Span
		X, Y   Expr
	}
	// Cond is C ? Then : Else. The short form C ?: Else has Then == C, the same node.
	Cond struct {
		Span
		C, Then, Else Expr
	}
	// IfExpr is an if/else used for its value.
	IfExpr struct {
		Span
		If *If
	}
	// Field is X.Name or X->Name (Arrow). A tuple's .0 has Name "0".
	Field struct {
		Span
		X        Expr
		Name     string
		NameSpan Span
		Arrow    bool
	}
	// Index is X[I].
	Index struct {
		Span
		X, I Expr
	}
	// Cast is (Type)X. Head covers the parentheses: what is wrong with the type is reported there.
	Cast struct {
		Span
		Head Span
		Type *TypeExpr
		X    Expr
	}
	// Tuple is (a, b, …); (a,) has one element.
	Tuple struct {
		Span
		Elems []Expr
	}
	// Record is (name=value, …).
	Record struct {
		Span
		Fields []*RecordField
	}
	// RecordField is one name=value of a Record.
	RecordField struct {
		Span
		Name  string
		Value Expr
	}
	// BlockExpr is { statements; Result }; Result is nil when the block gives no value.
	BlockExpr struct {
		Span
		Stmts  []Stmt
		Result Expr
	}
	// Comptime is comptime X: X must be known at compile time.
	Comptime struct {
		Span
		X Expr
	}
	// TypeExpr is a type as written: a base, Ptr stars, and then Dims array lengths, the innermost first (-1 is []).
	// The base is Name, typeof(Of), or Elem for what follows an array: uint8[4]* is {Elem: {uint8, Dims: 4}, Ptr: 1}.
	TypeExpr struct {
		Span
		Name string // "struct foo", "union foo", "enum foo", "uint64", "string", "unsigned long"; "" with Of or Elem
		Of   Expr   // typeof(Of); a *TypeExpr for typeof(uint64 *)
		Elem *TypeExpr
		Ptr  int
		Dims []int
	}
)

func (*Bad) expr()       {}
func (*IntLit) expr()    {}
func (*StrLit) expr()    {}
func (*BoolLit) expr()   {}
func (*Ident) expr()     {}
func (*Var) expr()       {}
func (*MapRef) expr()    {}
func (*Param) expr()     {}
func (*Discard) expr()   {}
func (*Range) expr()     {}
func (*Call) expr()      {}
func (*Unary) expr()     {}
func (*Binary) expr()    {}
func (*Cond) expr()      {}
func (*IfExpr) expr()    {}
func (*Field) expr()     {}
func (*Index) expr()     {}
func (*Cast) expr()      {}
func (*Tuple) expr()     {}
func (*Record) expr()    {}
func (*BlockExpr) expr() {}
func (*Comptime) expr()  {}
func (*TypeExpr) expr()  {}

// Op is an operator.
type Op uint8

// Operators.
const (
	ASSIGN Op = iota
	ADD
	SUB
	MUL
	DIV
	MOD
	AND
	OR
	XOR
	SHL
	SHR
	LAND
	LOR
	EQ
	NE
	LT
	LE
	GT
	GE
	NOT
	BNOT
	INC
	DEC
)

var opText = [...]string{
	ASSIGN: "=", ADD: "+", SUB: "-", MUL: "*", DIV: "/", MOD: "%", AND: "&", OR: "|", XOR: "^", SHL: "<<", SHR: ">>",
	LAND: "&&", LOR: "||", EQ: "==", NE: "!=", LT: "<", LE: "<=", GT: ">", GE: ">=", NOT: "!", BNOT: "~", INC: "++", DEC: "--",
}

// String gives the operator as written.
func (o Op) String() string { return opText[o] }
