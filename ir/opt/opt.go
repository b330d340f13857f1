// Package opt makes IR smaller and faster without changing what it does.
//
// Its passes are rows of a table; each takes a function and says if it changed anything. They rely on what ir.Check
// checks, and keep it. Nothing here knows a kind of attachment: package bpf/gen runs the same passes again after it has
// bound the IR to one.
//
// A register that is assigned once, before every use, is called plain: its value is the same wherever it is read. Most
// are; the others are variables and the meeting points of branches.
package opt

import (
	"fmt"

	"github.com/fathom-trace/fathom/ir"
)

// pass is one rewrite of a function.
type pass struct {
	name string
	run  func(*ir.Func) bool
}

// passes run in this order, again and again until each has changed nothing since the last change.
var passes = []pass{
	{"flow", flow},     // jumps to jumps, known branches, blocks that can be one
	{"split", split},   // values that only share a variable's register
	{"values", values}, // constants, copies, common subexpressions, what ranges tell
	{"memory", memory}, // stores nobody reads, loads of what was just stored
	{"stores", stores}, // constants beside each other
	{"dead", dead},     // results nobody reads
	{"tails", tails},   // blocks that do the same
}

// before says that pass a comes before pass b, and why; a test holds the table against it.
type before struct{ a, b, why string }

var order = []before{
	{"flow", "values", "values forgets what it knows where ways meet: fewer blocks, fewer meetings"},
	{"split", "values", "values knows most of plain registers, which split makes"},
	{"values", "memory", "memory follows addresses, which values folds into operands"},
	{"values", "dead", "values leaves behind what it found equal"},
	{"memory", "stores", "a wide store is kept for what reads a part of it"},
	{"stores", "dead", "stores leaves nops"},
	{"memory", "dead", "memory leaves behind the values of stores it dropped"},
	{"dead", "tails", "blocks that differ in what nobody reads are the same"},
}

// maxRounds bounds the work: each round leaves less to do.
const maxRounds = 8

// Options steer Unit.
type Options struct {
	// After is called after each pass that changed something; an error ends the work. For tests and dumps.
	After func(pass string, u *ir.Unit) error
}

// Program optimises all units of p in place.
func Program(p *ir.Program, o Options) error {
	for _, u := range p.Units {
		if err := Unit(u, o); err != nil {
			return err
		}
	}
	return nil
}

// Unit optimises u in place.
func Unit(u *ir.Unit, o Options) error {
	for _, f := range u.Funcs() {
		quiet := 0 // passes in a row that changed nothing
		for i := 0; i < maxRounds*len(passes) && quiet < len(passes); i++ {
			p := passes[i%len(passes)]
			if !p.run(f) {
				quiet++
				continue
			}
			if quiet = 0; o.After == nil {
				continue
			}
			if err := o.After(p.name, u); err != nil {
				return fmt.Errorf("optimise %s: after %s: %w", u.Name, p.name, err)
			}
		}
	}
	return nil
}
