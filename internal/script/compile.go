// Package script runs programs of the tracing language: it takes a text through the compiler's stages, puts the result
// into the running kernel, and prints what comes back. The verb trace, and the binary called as bpftrace, are this
// package with flags.
package script

import (
	"fmt"
	"runtime"

	"github.com/cilium/ebpf"

	"github.com/fathom-trace/fathom/bpf"
	"github.com/fathom-trace/fathom/bpf/gen"
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/ir/build"
	"github.com/fathom-trace/fathom/ir/opt"
	"github.com/fathom-trace/fathom/lang/check"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/probe"
)

// Compiled is a program at the end of every stage.
type Compiled struct {
	File *syntax.File
	Info *check.Info
	Prog *ir.Program // optimised
	Obj  *bpf.Object

	bo build.Options
}

// Built gives the IR as it was built, before any pass over it.
func (c *Compiled) Built() *ir.Program {
	p, _ := build.Program(c.Info, c.bo)
	return p
}

// Codegen says how code is made, for tests.
type Codegen struct {
	NoOpt bool // as built, without passes over the IR
	// After is opt.Options.After, for the passes before and after binding.
	After func(pass string, u *ir.Unit) error
}

// Compile takes src through all stages. Diagnostics come from all of them; after an error the rest is nil.
func Compile(src *syntax.Source, co check.Options, bo build.Options) (*Compiled, []syntax.Diag) {
	return CompileWith(src, co, bo, Codegen{})
}

// CompileWith is Compile with a say in how code is made.
func CompileWith(src *syntax.Source, co check.Options, bo build.Options, cg Codegen) (*Compiled, []syntax.Diag) {
	c := &Compiled{bo: bo}
	var diags, more []syntax.Diag
	c.File, diags = syntax.Parse(src)
	if !failed(diags) {
		diags = append(diags, importAll(c.File)...)
	}
	if failed(diags) {
		return c, diags
	}
	if co.Declare == nil {
		co.Declare = Headers{Arch: co.Arch}.declare
	}
	c.Info, more = check.Check(c.File, co)
	diags = append(diags, more...)
	if failed(diags) {
		return c, diags
	}
	c.Prog, more = build.Program(c.Info, bo)
	diags = append(diags, more...)
	if failed(diags) {
		return c, diags
	}
	if cg.After != nil {
		for _, u := range c.Prog.Units {
			if err := cg.After("building", u); err != nil {
				return c, append(diags, syntax.Diag{Msg: fmt.Sprint(err)})
			}
		}
	}
	if !cg.NoOpt {
		if err := opt.Program(c.Prog, opt.Options{After: cg.After}); err != nil {
			return c, append(diags, syntax.Diag{Msg: fmt.Sprint(err)})
		}
	}
	var err error
	arch := runtime.GOARCH
	if bo.Arch != "" {
		arch = bo.Arch
	}
	c.Obj, err = gen.Compile(c.Prog, gen.Options{Arch: arch, NoOpt: cg.NoOpt, After: cg.After, Lacks: bo.Lacks})
	if err != nil {
		diags = append(diags, syntax.Diag{Msg: fmt.Sprint(err)})
	}
	return c, diags
}

// BuildOptions says what programs may know of the running kernel.
func BuildOptions(w *probe.World) build.Options {
	ncpu, err := ebpf.PossibleCPU()
	if err != nil {
		ncpu = runtime.NumCPU()
	}
	bo := build.Options{Arch: runtime.GOARCH, NumCPU: ncpu, StartNs: bootNanos(), TAIOffset: taiOffset(), CgroupID: cgroupID, Kaddr: w.Kallsyms, Lacks: w.Lacks}
	bo.PIDNSDev, bo.PIDNSIno = pidNamespace()
	return bo
}

func failed(ds []syntax.Diag) bool {
	for _, d := range ds {
		if d.Severity == syntax.Error {
			return true
		}
	}
	return false
}
