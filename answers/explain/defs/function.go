package defs

import (
	"slices"
	"strings"
)

// Function is a function of the kernel.
type Function struct {
	Name      string   `json:"name"`
	Prototype string   `json:"prototype,omitempty"` // "" if BTF has none
	Module    string   `json:"module,omitempty"`    // "" if it is built in, or not known
	Present   bool     `json:"present"`             // in the symbol table
	Traceable *bool    `json:"traceable,omitempty"` // by ftrace; nil if not known
	Refused   bool     `json:"refused,omitempty"`   // by kprobes
	Parts     []string `json:"parts,omitempty"`     // symbols that the compiler made of it
	At        *Place   `json:"at,omitempty"`
	Probes    []Probe  `json:"probes"`
}

// compilers are what compilers append to the name of what they make of a function.
var compilers = []string{".isra.", ".constprop.", ".part.", ".cold", ".llvm."}

// Function tells of a function. The error is [ErrUnknown] if nobody knows it.
func (s *Source) Function(name string) (*Function, error) {
	f := &Function{Name: name}
	if s.Types != nil {
		if p, err := s.Types.Func("", name); err == nil {
			f.Prototype = Prototype(p, name)
		}
	}
	if s.Symbols != nil {
		for _, sym := range s.Symbols(name) {
			switch {
			case sym == name:
				f.Present = true
			case slices.ContainsFunc(compilers, func(c string) bool { return strings.HasPrefix(sym[len(name):], c) }):
				f.Parts = append(f.Parts, sym)
			}
		}
		slices.Sort(f.Parts)
	}
	if s.Traceable != nil {
		if module, yes, known := s.Traceable(name); known {
			f.Module, f.Traceable = module, &yes
		}
	}
	if s.Refused != nil {
		f.Refused = s.Refused(name)
	}
	if s.Tree != nil {
		f.At = defined(s.Tree, functionPlace, name)
	}
	if f.Prototype == "" && !f.Present && len(f.Parts) == 0 && f.At == nil {
		return nil, ErrUnknown
	}
	f.Probes = s.atFunction(f)
	return f, nil
}
