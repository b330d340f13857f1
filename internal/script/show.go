package script

import (
	"fmt"
	"io"
	"sort"
	"strings"

	"github.com/fathom-trace/fathom/bpf/asmtext"
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/ir/opt"
	"github.com/fathom-trace/fathom/lang/syntax"
)

// Stages are what Show can print, in the order a program passes them.
// ir0 is the IR as built, passes what each pass of ir/opt made of it, ir what is left after all.
var Stages = []string{"ast", "types", "ir0", "passes", "ir", "asm"}

// Show writes what stands at stages of the compiler ("all" for each), without loading anything.
func Show(w io.Writer, o Options, stages []string) error {
	r, done, err := prepare(o)
	defer done()
	if err != nil {
		return err
	}
	for _, s := range stages {
		if s == "all" {
			stages = Stages
			break
		}
	}
	for _, s := range stages {
		switch s {
		case "ast":
			fmt.Fprint(w, syntax.Format(r.comp.File))
		case "types":
			r.showTypes(w)
		case "ir0":
			fmt.Fprint(w, r.comp.Built())
		case "passes":
			err := opt.Program(r.comp.Built(), opt.Options{After: func(pass string, u *ir.Unit) error {
				_, err := fmt.Fprintf(w, "\n%s of %s\n%v", pass, u.Name, u.Entry)
				return err
			}})
			if err != nil {
				return err
			}
		case "ir":
			fmt.Fprint(w, r.comp.Prog)
		case "asm", "codegen", "dis":
			for _, p := range r.comp.Obj.Programs {
				fmt.Fprintf(w, "program %s, type %v, stack %d, scratch %d\n%s\n", p.Name, p.Type, p.StackBytes, p.ScratchBytes, asmtext.Format(p.Insns))
			}
		default:
			return fmt.Errorf("no stage %q: ast, types, ir0, passes, ir, asm or all", s)
		}
	}
	return nil
}

// prepare compiles a program for the place it is for, and goes no further. done is to be called in any case.
func prepare(o Options) (j *job, done func(), err error) {
	o.DryRun = true
	if o.On != nil || o.Recording != nil {
		d := newDeadRunner(o)
		return &d.job, func() {}, d.compile()
	}
	r := newRunner(o)
	if err = r.open(); err == nil {
		err = r.compile()
	}
	return &r.job, r.close, err
}

// ForHere compiles a program for this system, without loading anything.
func ForHere(o Options) (*Compiled, error) {
	j, done, err := prepare(o)
	defer done()
	if err != nil {
		return nil, err
	}
	return j.comp, nil
}

func (r *job) showTypes(w io.Writer) {
	for _, m := range r.comp.Info.Maps {
		if m.Key != nil {
			fmt.Fprintf(w, "%s[%v]: %v\n", m.Name, m.Key, m.Value)
		} else {
			fmt.Fprintf(w, "%s: %v\n", m.Name, m.Value)
		}
	}
	for _, in := range r.comp.Info.Instances {
		fmt.Fprintf(w, "%s, %d targets\n", in.Provider.Name, len(in.Targets))
		seen := map[string]string{}
		for _, v := range in.Vars {
			seen[v.Name] = v.Type.String()
		}
		var names []string
		for n := range seen {
			names = append(names, n)
		}
		sort.Strings(names)
		for _, n := range names {
			fmt.Fprintf(w, "    %s: %s\n", n, seen[n])
		}
	}
}

// Fix writes the program with the rewrites that its warnings propose.
func Fix(w io.Writer, o Options) error {
	var fixes []*syntax.Fix
	show := o.Diags
	o.Diags = func(ds []syntax.Diag) {
		for _, d := range ds {
			if d.Fix != nil {
				fixes = append(fixes, d.Fix)
			}
		}
		if show != nil {
			show(ds)
		}
	}
	o.NoWarn = false
	_, done, err := prepare(o)
	defer done()
	if err != nil && len(fixes) == 0 {
		return err
	}
	text := apply(o.Source.Text, fixes)
	if !strings.HasSuffix(text, "\n") { // a program of -e
		text += "\n"
	}
	_, err = io.WriteString(w, text)
	return err
}

// apply carries fixes out from the last to the first; of two that overlap, the later one is left.
func apply(text string, fixes []*syntax.Fix) string {
	sort.SliceStable(fixes, func(i, j int) bool { return fixes[i].Span.Start.Off > fixes[j].Span.Start.Off })
	limit := len(text)
	for _, f := range fixes {
		s, e := f.Span.Start.Off, f.Span.End.Off
		if e > limit || s > e {
			continue
		}
		text = text[:s] + f.Text + text[e:]
		limit = s
	}
	return text
}
