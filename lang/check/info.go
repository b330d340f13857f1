// Package check gives every name of a program its meaning and every expression its type. It expands macros, resolves
// attach points through a World, finds the types of variables and maps by a fixpoint over the whole program, and
// returns diagnostics in bpftrace's wording. It touches no system: what it must know of one stands in World.
package check

import (
	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/lang/types"
)

// Target is one place a program can be attached to, after wildcards: the parts of an attach point, all explicit.
type Target struct {
	Provider string // canonical: "kprobe", "tracepoint", "begin", …
	Module   string // kernel module, tracepoint category, or the path of a binary
	Func     string // function, event, symbol, "hz"/"s"/"ms"/"us" for timers, event name for software/hardware
	Offset   uint64 // bytes into the function; address for kprobe:addr and uprobe:path:addr (Func == "")
	Count    uint64 // timers: rate or period in the unit of Func; software, hardware: sample period, 0 = default
	Name     string // as the probe builtin prints it
	USDT     string // usdt: operands of its arguments (package usdt)
	Sema     uint64 // usdt: offset in the file of the counter that turns the probe on, 0 for none
	ProgID   uint32 // fentry:bpf: the BPF program that has the function
	Waits    bool   // for its module to be loaded; such targets come last
	Again    bool   // a further place of the probe before it: counted with that one
}

// World is the system a program is meant for, as far as checking needs it.
type World interface {
	// Types finds C types: the kernel's, its modules'. Never nil.
	Types() ctype.Lookup
	// Expand finds the targets that match a parsed attach point, sorted, at least one or an error saying what is missing.
	// Parts may hold * ? [] wildcards. Providers that need no lookup (begin, interval, …) are not asked.
	Expand(p AttachPoint) ([]Target, error)
	// Args gives the typed arguments of a target: a types.Args type whose Fields are, for a tracepoint, places in the
	// event, for fentry, fexit, rawtracepoint and uprobe with debug information, parameters by Index. fexit has the result
	// as Retval. An error says why there are none.
	Args(t Target) (*types.Type, *types.Type, error)
	// UserTypes finds the C types of a binary, by its debug information; nil if nothing is known of binaries. It is asked
	// only for names that occur.
	UserTypes(path string) ctype.Lookup
	// Suggest gives the existing probe names that look most like the parts of p, the best first.
	Suggest(p AttachPoint) []string
	// Kallsyms gives the address of a kernel symbol, for kaddr.
	Kallsyms(name string) (uint64, bool)
	// Kfunc says if a program at t may call the kernel function name.
	Kfunc(t Target, name string) bool
	// Usyms gives the address and size of a symbol in a binary, for uaddr.
	Usyms(path, name string) (addr, size uint64, ok bool)
	// Signal, Env and the like are not here: they do not depend on the system.
}

// Place is a [World] in which not everything is to be had that a running kernel has: a kernel that is dead, or was recorded.
type Place interface {
	World
	// NoProbe says why nothing can be attached at p, "" where something may be. It is asked before Expand, and for
	// providers that need no lookup, too.
	NoProbe(p AttachPoint) string
	// NoFunc says why a function or builtin, called with so many arguments, has no answer at t, "" where it has one.
	NoFunc(f *Func, args int, t Target) string
}

// AttachPoint is an attach point taken apart: still with wildcards.
type AttachPoint struct {
	Span     syntax.Span
	Provider *Provider
	Module   string // "" when not given
	Func     string
	Offset   uint64
	HasOff   bool
	Address  uint64 // kprobe:0x…, uprobe:path:0x…
	HasAddr  bool
	Lang     string // uprobe:path:cpp:func
	Unit     string // timers
	Count    uint64
	Raw      string
}

// Provider is a row of the table of probe types.
type Provider struct {
	Name     string
	Aliases  []string
	Args     ArgStyle
	Wildcard bool        // parts may hold wildcards
	Special  bool        // needs no World: begin, end, self, interval, profile, …
	Usage    string      // "kprobe[:module]:function[+offset]"
	Space    types.Space // where arguments that say nothing else point
	Multi    bool        // many targets may share one program
}

// ArgStyle says which argument builtins a provider has.
type ArgStyle uint16

// Argument styles, to be combined.
const (
	ArgN       ArgStyle = 1 << iota // arg0 … argN from registers or context
	ArgsStruct                      // args.name
	Retval
	FuncName // func
	Regs     // reg("sp")
	Ctx      // ctx
	Stacks   // kstack, ustack
	Process  // pid, comm and the like mean the traced task
)

// Options steer a check.
type Options struct {
	World     World
	Arch      string   // GOARCH of the kernel, default amd64
	Params    []string // $1 …
	Config    Config   // from environment and command line; a config block fills what is unset
	Unsafe    bool
	HasFrames bool                          // dw_ustack() has processes to unwind
	HasChild  bool                          // -c or cpid known
	Named     map[string]string             // getopt
	Filter    func(attachPoint string) bool // leaves out attach points it is false for, but not begin and end; nil keeps all
	// Declare reads the program's own C declarations and gives a Lookup that finds them, then what base has. nil refuses them.
	Declare func(defs []*syntax.CDef, base ctype.Lookup) (ctype.Lookup, []syntax.Diag)
}

// Config holds the configuration variables (docs: "Config Variables" of the language reference), at their defaults when zero.
type Config struct {
	MaxStrlen     int // bytes, default 1024
	MaxMapKeys    int // default 4096
	MaxProbes     int // default 1024
	MaxCatBytes   int // default 10240
	OnStackLimit  int // bytes, default 32
	PerfRBPages   int // pages; 0 = by available memory
	StackMode     types.StackMode
	StrTrunc      *string // trailer of truncated strings, default ".."
	MissingProbes string  // "error", "warn", "ignore"
	NoMapsOnExit  bool    // print_maps_on_exit=0
	License       string
	LogSize       int
	NoDemangle    bool
	CacheUserSyms string
	// UnstableDWUstack says what a use of dw_ustack() is: "error", "warn" (as ""), "enable".
	UnstableDWUstack string
	LazySymbols      bool
	HideDebugInfo    bool
}

// Info is a checked program.
type Info struct {
	File      *syntax.File
	Config    Config
	Instances []*Instance
	Maps      []*Map       // in order of first appearance
	CTypes    ctype.Lookup // the World's types with the program's own declarations in front
}

// Instance is a clause as it runs at targets that share one layout of arguments. The expressions of one clause may have
// different types in different instances, so everything found about them is kept here.
type Instance struct {
	Clause   *syntax.Probe
	Body     *syntax.BlockExpr // after macro expansion and folding; shared by instances of a clause only if equal
	Pred     syntax.Expr
	Index    int // of the clause in the file
	Provider *Provider
	Targets  []Target
	Args     *types.Type // nil without args
	Result   *types.Type // type of retval
	Types    map[syntax.Expr]*types.Type
	Vars     map[*syntax.Var]*Var // which variable a $x means
	Calls    map[*syntax.Call]*Func
	Consts   map[syntax.Expr]Const // expressions known at compile time: enum constants, sizeof, folded arithmetic, $1
	Points   []*syntax.AttachPoint
}

// Const is a value known at compile time.
type Const struct {
	Int   int64
	Str   string
	IsStr bool

	big bool // Int is the bits of a uint64 beyond int64
}

// Var is a scratch variable.
type Var struct {
	Name string
	Type *types.Type
	Decl syntax.Node
	Loop *syntax.For // the loop whose variable it is

	declared bool // with a type: assignments do not widen it
}

// Map is a map.
type Map struct {
	Name       string      // with @
	Key        *types.Type // nil: no key
	Value      *types.Type
	Kind       string // "", "hash", "lruhash", "percpuhash", "percpulruhash"
	MaxEntries int    // 0: Config.MaxMapKeys
	Span       syntax.Span
}

// Func is a row of the table of functions. A builtin without arguments that may be called without parentheses
// (pid, comm, kstack, …) is a row too, with Builtin set.
type Func struct {
	Name     string
	Sig      string // for errors and help: "str(ptr [, int length])"
	Doc      string // one line for help
	Builtin  bool   // usable as a bare identifier
	Min, Max int    // number of arguments; Max < 0: any
	Unsafe   bool   // needs --unsafe
	Async    bool   // carried out by the printing side
	Void     bool   // gives no value: only a statement
	Agg      bool   // only on the right of @x =
	Check    func(*Call) *types.Type

	spec  string      // what each argument must be, see Call.checkArgs; the last letter stands for all further ones
	ret   *types.Type // the type of the result when Check is nil
	needs ArgStyle    // what the probe type must have
	meta  bool        // the arguments are not evaluated: sizeof
	quiet bool        // the result may be dropped without a warning
}
