package check

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/lang/types"
)

// maxInstances bounds the bodies made of one clause.
const maxInstances = 4096

// uses is what of a probe a clause asks for: it decides which targets can share one instance.
type uses struct {
	args, retval, argN, uaddr bool
	probe                     bool // looks into the probe's name
}

// clause finds the targets of clause i and makes an Instance for each layout among them.
func (c *checker) clause(i int, p *syntax.Probe) {
	u := c.usesOf(p)
	groups := map[string]*inst{}
	n, wrong := 0, false
	var missed []func() // wildcards that match nothing are told of only if nothing else is left
	for _, ap := range p.Points {
		points, msg, hint := ParseAttachPoint(ap, c.opts.Params, c.opts.Unsafe)
		if msg != "" {
			c.errorf(ap.Span, "%s", msg).Hint = hint
			wrong = true
			continue
		}
		for _, a := range points {
			if c.opts.Filter != nil && a.Provider.Name != "begin" && a.Provider.Name != "end" && !c.opts.Filter(filterName(a)) {
				wrong = true // not asked for: nothing is missing
				continue
			}
			if pl, ok := c.world.(Place); ok {
				if why := pl.NoProbe(a); why != "" {
					c.errorf(ap.Span, "%s", why)
					wrong = true
					continue
				}
			}
			quiet := len(points) > 1 || len(p.Points) > 1 && (isWild(a.Func) || isWild(a.Module))
			ts := c.expand(a, quiet)
			n += len(ts)
			if quiet && len(points) == 1 {
				missed = append(missed, func() { c.expand(a, false) })
			}
			for _, t := range ts {
				c.place(groups, i, p, ap, a, t, u)
			}
		}
	}
	if n > 0 || wrong || len(p.Points) == 0 {
		return
	}
	for _, say := range missed {
		say()
	}
	at := p.Points[0].Span.To(p.Points[len(p.Points)-1].Span)
	switch c.cfg.MissingProbes {
	case "error":
		c.errorf(at, "Probe has no valid attach points. If this is expected, set the 'missing_probes' config variable to 'warn'.")
	case "warn":
		c.warnf(at, "Probe has no valid attach points. It is being removed which may cause issues with program behavior.")
	}
}

// filterName is what --probe-filter is matched with: the attach point with the probe type's full name.
func filterName(a AttachPoint) string {
	if _, rest, ok := strings.Cut(a.Raw, ":"); ok {
		return a.Provider.Name + ":" + rest
	}
	return a.Provider.Name
}

// expand finds the targets of one attach point, and says why there are none.
func (c *checker) expand(a AttachPoint, quiet bool) []Target {
	if a.Provider.Special {
		return []Target{special(a)}
	}
	ts, err := c.world.Expand(a)
	if err == nil && len(ts) > 0 {
		return ts
	}
	var later Later
	if errors.As(err, &later) && c.cfg.MissingProbes != "error" {
		t := later.WhenThere()
		t.Waits = true
		if c.cfg.MissingProbes == "warn" {
			c.warnf(a.Span, "%s The probe waits for it.", err)
		}
		return []Target{t}
	}
	if quiet || c.cfg.MissingProbes == "ignore" {
		return nil
	}
	kprobe := a.Provider.Name == "kprobe" || a.Provider.Name == "kretprobe"
	if kprobe && !isWild(a.Func) && a.Func != "" {
		c.warnf(a.Span, "%s is not traceable (either non-existing, inlined, or marked as \"notrace\"); attaching to it will likely fail", a.Func)
		if c.opts.Unsafe && err == nil { // the kernel will tell
			t := Target{Provider: a.Provider.Name, Module: a.Module, Func: a.Func, Offset: a.Offset}
			t.Name = a.Provider.Name + ":" + strings.TrimPrefix(a.Module+":"+a.Func, ":")
			return []Target{t}
		}
	}
	msg := "No matches for " + a.Provider.Name + " " + strings.TrimPrefix(a.Module+":"+a.Func, ":") + "."
	if err != nil {
		msg = err.Error()
	}
	d := &syntax.Diag{}
	if c.cfg.MissingProbes == "warn" {
		d = c.warnf(a.Span, "%s. Skipping.", strings.TrimSuffix(msg, "."))
	} else {
		d = c.errorf(a.Span, "%s", msg)
	}
	if s := c.world.Suggest(a); len(s) > 0 {
		d.Hint = "did you mean `" + s[0] + "`?"
	}
	if w, ok := c.world.(Explainer); ok {
		if why := w.Why(a); why != "" {
			d.Hint = why
		}
	}
	return nil
}

// Later is an error of [World.Expand] about what is not there yet, and what will be there when it comes.
type Later interface {
	error
	WhenThere() Target
}

// Explainer is a [World] that can say why nothing is at an attach point; "" if it has no more to say than that.
type Explainer interface{ Why(AttachPoint) string }

// Untyped is a [World] that can say why it has no types of the kernel; nil if it has.
type Untyped interface{ NoTypes() error }

// special gives the target of a probe that needs no look at the system.
func special(a AttachPoint) Target {
	t := Target{Provider: a.Provider.Name, Module: a.Module, Func: a.Func, Count: a.Count}
	t.Name = a.Provider.Name
	switch a.Provider.Name {
	case "profile", "interval":
		t.Func = a.Unit
		t.Name += fmt.Sprintf(":%s:%d", a.Unit, a.Count)
	case "watchpoint":
		t.Offset, t.Func = a.Address, a.Unit
		t.Name += fmt.Sprintf(":0x%x:%d:%s", a.Address, a.Count, a.Unit)
	case "self":
		t.Name += ":" + a.Module + ":" + a.Func
	case "begin", "end":
	case "software", "hardware": // by the name it was given, which may be an alias
		_, event, _ := strings.Cut(a.Raw, ":")
		t.Name += ":" + event
	default:
		t.Name += ":" + a.Func
		if a.Count > 0 {
			t.Name += fmt.Sprintf(":%d", a.Count)
		}
	}
	return t
}

// place puts a target into the instance of its layout.
func (c *checker) place(groups map[string]*inst, i int, p *syntax.Probe, ap *syntax.AttachPoint, a AttachPoint, t Target, u uses) {
	args, result, err := c.argsOf(a, t, u)
	if err != nil {
		c.errorf(ap.Span, "%v", err)
		return
	}
	key := a.Provider.Name + " " + layoutKey(args)
	if u.retval && result != nil {
		key += " " + layoutKey(types.TupleOf(result))
	}
	if u.uaddr {
		key += " " + t.Module
	}
	if u.argN && a.Provider.Name == "kprobe" {
		key += " " + c.userParams(t)
	}
	if u.argN {
		key += " " + t.USDT
	}
	if u.probe || a.Provider.Name == "iter" { // the context of each iterator is another struct
		key += " " + t.Name
	}
	x := groups[key]
	if x == nil {
		if len(groups) == maxInstances {
			c.errorf(ap.Span, "the probes of this clause have more than %d different layouts", maxInstances)
			return
		}
		x = c.instance(i, p, a.Provider)
		x.Args, x.Result, x.ownName = args, result, u.probe
		groups[key] = x
		c.insts = append(c.insts, x)
	}
	at := len(x.Targets)
	for at > 0 && !t.Waits && x.Targets[at-1].Waits {
		at--
	}
	x.Targets = slices.Insert(x.Targets, at, t)
	if c.targets++; c.targets == c.cfg.MaxProbes+1 {
		c.errorf(ap.Span, "Your program is trying to attach to more than %d probes, which exceeds the current limit of %d",
			c.cfg.MaxProbes, c.cfg.MaxProbes).Hint = "You can increase the limit through the BPFTRACE_MAX_PROBES environment variable."
	}
	if n := len(x.Points); n == 0 || x.Points[n-1] != ap {
		x.Points = append(x.Points, ap)
	}
}

// argsOf asks the world for the arguments of a target, if the clause uses them.
func (c *checker) argsOf(a AttachPoint, t Target, u uses) (args, result *types.Type, err error) {
	typed := u.args && a.Provider.has(ArgsStruct) || u.retval && a.Provider.Name == "fexit"
	if !typed {
		return nil, nil, nil
	}
	args, result, err = c.world.Args(t)
	if err != nil && a.Provider.Name == "uprobe" {
		return nil, nil, nil // no debug information: args says so where it stands
	}
	return args, result, err
}

// instance makes an Instance of clause i with a body of its own.
func (c *checker) instance(i int, p *syntax.Probe, prov *Provider) *inst {
	x := &inst{c: c, decided: map[syntax.Expr]bool{}, formats: map[syntax.Expr]bool{}, Instance: &Instance{
		Clause: p, Index: i, Provider: prov, Body: c.expandBlock(p.Body),
		Types: map[syntax.Expr]*types.Type{}, Vars: map[*syntax.Var]*Var{}, Calls: map[*syntax.Call]*Func{},
		Consts: map[syntax.Expr]Const{},
	}}
	if p.Pred != nil {
		x.Pred = c.expandExpr(p.Pred)
	}
	return x
}

// usesOf looks which builtins a clause, or a macro it may call, mentions.
func (c *checker) usesOf(p *syntax.Probe) uses {
	var u uses
	seen := map[string]bool{}
	var visit func(n syntax.Node) bool
	name := func(s string) {
		switch {
		case s == "args":
			u.args = true
		case s == "retval":
			u.retval = true
		case s == "uaddr":
			u.uaddr = true
		case isArgN(s):
			u.argN = true
		}
		if seen[s] {
			return
		}
		seen[s] = true
		for _, m := range c.macros[s] {
			syntax.Walk(m.Body, visit)
		}
	}
	visit = func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.Ident:
			name(n.Name)
		case *syntax.Call:
			name(n.Name)
			if f := c.funcs[n.Name]; f != nil && strings.HasPrefix(n.Name, "str") && slices.ContainsFunc(n.Args, isProbe) {
				u.probe = true
			}
		case *syntax.Binary:
			u.probe = u.probe || isProbe(n.X) || isProbe(n.Y)
		}
		return true
	}
	syntax.Walk(p, visit)
	return u
}

// isProbe reports the probe builtin.
func isProbe(e syntax.Expr) bool {
	switch e := e.(type) {
	case *syntax.Ident:
		return e.Name == "probe"
	case *syntax.Call:
		return e.Name == "probe"
	}
	return false
}

// layoutKey is a text that is equal for types with equal layout.
func layoutKey(t *types.Type) string {
	if t == nil {
		return ""
	}
	var b strings.Builder
	for _, f := range t.Fields {
		fmt.Fprintf(&b, "%s %v %d %d %d %d %v %v %d;", f.Name, f.Type, f.Type.Space, f.Off, f.BitOff, f.BitSize, f.DataLoc, f.RelLoc, f.Index)
	}
	return b.String()
}
