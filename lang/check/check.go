package check

import (
	"fmt"
	"maps"
	"strings"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/lang/types"
)

// maxPasses bounds the fixpoint over types. Types only grow, so few passes are ever needed; a string that is made longer in
// every pass is cut at Config.MaxStrlen.
const maxPasses = 64

// checker checks one program.
type checker struct {
	diags
	opts   Options
	world  World
	cfg    Config
	ctypes ctype.Lookup
	funcs  map[string]*Func
	macros map[string][]*syntax.Macro
	// defines are the object-like #define macros of the program that are expressions.
	defines    map[string]syntax.Expr
	macrosC    Macros // nil for none
	cdefs      []*syntax.CDef
	userTypes  map[string]ctype.Lookup // by the path of a binary
	expanding  map[string]bool         // #defines being looked at: they may name themselves
	expansions int
	argN       *Func

	insts   []*inst
	targets int // of all clauses
	maps    map[string]*mapInfo
	order   []*mapInfo // in order of first appearance

	final   bool // the types are known: errors and warnings are said
	changed bool // a type grew in this pass
}

// inst is an Instance being checked.
type inst struct {
	*Instance
	c       *checker
	formats map[syntax.Expr]bool // format strings
	loops   int                  // loops around the expression being checked
	dead    int                  // conditions around it that are known to be false
	decided map[syntax.Expr]bool // what comptime conditions were when their types were first known
	agg     *syntax.Call         // the aggregation that may stand here
	// ownName is set when the instance has one target and the clause looks into its name.
	ownName bool
}

// mapInfo is what is known of a map.
type mapInfo struct {
	*Map
	decl    *syntax.MapDecl
	decided bool // keyed is known
	keyed   bool
	written bool
	read    bool
	use     syntax.Span // the first use that is no declaration
}

// Check gives a program its meaning. The Info is complete only without errors, but never nil: what is known is in it.
func Check(file *syntax.File, opts Options) (*Info, []syntax.Diag) {
	c := newChecker(opts)
	info := c.check(file)
	return info, c.sorted()
}

func newChecker(opts Options) *checker {
	if opts.World == nil {
		opts.World = noWorld{}
	}
	return &checker{opts: opts, world: opts.World, ctypes: opts.World.Types(), funcs: funcTable(), argN: newArgN(), maps: map[string]*mapInfo{},
		defines: map[string]syntax.Expr{}, userTypes: map[string]ctype.Lookup{}}
}

func (c *checker) check(file *syntax.File) *Info {
	info := &Info{File: file}
	c.cfg = c.configure(file.Config)
	info.Config = c.cfg
	c.declareC(file.CDefs)
	info.CTypes = c.ctypes
	c.declareMacros(file.Macros)
	c.declareMaps(file.Maps)
	for i, p := range file.Probes {
		c.clause(i, p)
	}
	for _, x := range c.insts {
		x.resolve()
	}
	c.infer()
	c.lint()
	for _, x := range c.insts {
		lowerBlocks(x.Body)
		if x.Pred != nil {
			lowerBlocks(x.Pred)
		}
		info.Instances = append(info.Instances, x.Instance)
	}
	for _, m := range c.order {
		info.Maps = append(info.Maps, m.Map)
	}
	return info
}

// infer runs over the whole program until no type grows any more, then once more to say what is wrong.
func (c *checker) infer() {
	for pass := 0; pass < maxPasses; pass++ {
		c.changed = false
		c.pass()
		if !c.changed && !c.defaultMaps() {
			break
		}
	}
	c.final = true
	c.pass()
	c.checkMaps()
}

func (c *checker) pass() {
	for _, x := range c.insts {
		x.run()
	}
}

// defaultMaps gives maps that nothing but themselves writes the value type of a zero. It reports whether there were any.
func (c *checker) defaultMaps() bool {
	found := false
	for _, m := range c.order {
		if m.Value == nil && m.read {
			m.Value, found = types.Int8, true
		}
	}
	return found
}

// run checks one instance.
func (x *inst) run() {
	clear(x.Types)
	clear(x.Consts)
	if x.Pred != nil {
		x.condition(x.Pred, around(x.Pred.Where(), "/", "/"))
	}
	x.stmts(x.Body.Stmts)
	if x.Body.Result != nil {
		x.effect(x.Body.Result, x.Body.Result.Where())
	}
}

// around widens a span to the texts that stand before and after it.
func around(s syntax.Span, before, after string) syntax.Span {
	if s.Src == nil {
		return s
	}
	if i := strings.LastIndex(s.Src.Text[:s.Start.Off], before); i >= 0 && s.Start.Col > s.Start.Off-i {
		s.Start.Col -= s.Start.Off - i
		s.Start.Off = i
	}
	if i := strings.Index(s.Src.Text[s.End.Off:], after); i >= 0 && !strings.Contains(s.Src.Text[s.End.Off:s.End.Off+i], "\n") {
		s.End.Off += i + len(after)
		s.End.Col += i + len(after)
	}
	return s
}

// errorf says an error about types, once they are known.
func (x *inst) errorf(at syntax.Span, format string, args ...any) *syntax.Diag {
	if !x.c.final {
		return &syntax.Diag{}
	}
	return x.c.errorf(at, format, args...)
}

func (x *inst) warnf(at syntax.Span, format string, args ...any) *syntax.Diag {
	if !x.c.final {
		return &syntax.Diag{}
	}
	return x.c.warnf(at, format, args...)
}

// declareMaps enters the maps declared with let.
func (c *checker) declareMaps(ds []*syntax.MapDecl) {
	for _, d := range ds {
		m := c.mapOf(d.Name, d.Span)
		switch d.Kind {
		case "hash", "lruhash", "percpuhash", "percpulruhash":
		default:
			c.errorf(d.Span, "Invalid bpf map type: %s", d.Kind).Hint = "Valid map types: hash, lruhash, percpuhash, percpulruhash"
		}
		if m.decl != nil {
			c.errorf(d.Span, "Redeclaration of existing map: %s", d.Name)
			continue
		}
		m.decl, m.Kind = d, d.Kind
		if len(d.Args) == 1 {
			if n, ok := d.Args[0].(*syntax.IntLit); ok {
				if n.Value == 0 {
					c.errorf(d.Span, "a map needs room for at least one element")
				}
				m.MaxEntries = int(min(n.Value, 1<<31-1))
			}
		} else {
			c.errorf(d.Span, "%s requires one argument (%d provided)", d.Kind, len(d.Args))
		}
	}
}

// mapOf gives the map of that name, and makes it when it appears first.
func (c *checker) mapOf(name string, at syntax.Span) *mapInfo {
	m, ok := c.maps[name]
	if !ok {
		m = &mapInfo{Map: &Map{Name: name, Span: at}}
		c.maps[name] = m
		c.order = append(c.order, m)
	}
	return m
}

// checkMaps says what is wrong with maps as a whole.
func (c *checker) checkMaps() {
	var kept []*mapInfo
	for _, m := range c.order {
		switch {
		case !m.written && !m.read && m.decl != nil:
			c.warnf(m.decl.Span, "Unused map: %s", m.Name)
		case m.decl != nil && m.Value != nil && !m.Value.IsAgg() && m.Kind != "" && (m.Kind == "percpuhash" || m.Kind == "percpulruhash"):
			c.kindMismatch(m, "hash")
		case m.decl != nil && m.Value != nil && m.Value.IsAgg() && m.Kind == "hash", m.decl != nil && m.Value != nil && m.Value.IsAgg() && m.Kind == "lruhash":
			c.kindMismatch(m, "percpuhash")
		}
		if m.Value != nil || m.Key != nil {
			kept = append(kept, m)
		}
		if !m.written && m.read && !c.failed() {
			c.warnf(m.Span, "%s is never written to: it reads as 0", m.Name).Hint = didYouMean(m.Name, c.writtenMaps())
		}
	}
	c.order = kept
}

func (c *checker) kindMismatch(m *mapInfo, want string) {
	c.errorf(m.use, "Incompatible map types. Type from declaration: %s. Type from value/key type: %s", m.Kind, want)
}

// writtenMaps gives the names of the maps something is stored in.
func (c *checker) writtenMaps() func(func(string) bool) {
	return func(yield func(string) bool) {
		for name, m := range maps.All(c.maps) {
			if m.written && !yield(name) {
				return
			}
		}
	}
}

// lowerBlocks makes the value of a branch its last statement, which is the form the compiler takes.
func lowerBlocks(n syntax.Node) {
	syntax.Walk(n, func(n syntax.Node) bool {
		if bl, ok := n.(*syntax.Block); ok && bl.Result != nil {
			bl.Stmts = append(bl.Stmts, &syntax.ExprStmt{Span: bl.Result.Where(), X: bl.Result})
			bl.Result = nil
		}
		return true
	})
}

// noWorld is a system of which nothing is known.
type noWorld struct{}

func (noWorld) Types() ctype.Lookup { return noTypes{} }
func (noWorld) Expand(p AttachPoint) ([]Target, error) {
	return []Target{{Provider: p.Provider.Name, Module: p.Module, Func: p.Func, Offset: p.Offset + p.Address, Name: p.Raw}}, nil
}

func (noWorld) Args(Target) (*types.Type, *types.Type, error) {
	return nil, nil, fmt.Errorf("nothing is known of this system")
}
func (noWorld) UserTypes(string) ctype.Lookup               { return nil }
func (noWorld) Suggest(AttachPoint) []string                { return nil }
func (noWorld) Kallsyms(string) (uint64, bool)              { return 0, false }
func (noWorld) Kfunc(Target, string) bool                   { return false }
func (noWorld) Usyms(string, string) (uint64, uint64, bool) { return 0, 0, false }

// noTypes has no types.
type noTypes struct{}

func (noTypes) ByName(ctype.Kind, string) (ctype.Type, error) { return nil, ctype.ErrNotFound }
func (noTypes) EnumValue(string) (*ctype.Enum, int64, bool)   { return nil, 0, false }
func (noTypes) Func(string, string) (*ctype.Func, error)      { return nil, ctype.ErrNotFound }
