package defs

// Function is a function of the kernel.
type Function struct {
	Name      string   `json:"name"`
	Prototype string   `json:"prototype,omitempty"` // "" if BTF has none
	Module    string   `json:"module,omitempty"`    // "" if it is built in, or not known
	Against   string   `json:"against,omitempty"`   // what keeps it from being traced
	Instead   []string `json:"instead,omitempty"`   // what may be traced instead
	Parts     []string `json:"parts,omitempty"`     // symbols that the compiler made of it
	At        *Place   `json:"at,omitempty"`
	Probes    []Probe  `json:"probes"`

	kprobes bool // are kept from it, too
}

// Function tells of a function. The error is [ErrUnknown] if nobody knows it.
func (s *Source) Function(name string) (*Function, error) {
	f := &Function{Name: name}
	present := false
	if s.Types != nil {
		if p, err := s.Types.Func("", name); err == nil {
			f.Prototype = Prototype(p, name)
		}
	}
	if s.Symbol != nil {
		f.Module, present = s.Symbol(name)
	}
	if s.Parts != nil {
		f.Parts = s.Parts(name)
	}
	if s.Tree != nil {
		f.At = defined(s.Tree, functionPlace, name)
	}
	if f.Prototype == "" && !present && len(f.Parts) == 0 && f.At == nil {
		return nil, ErrUnknown
	}
	if s.Against != nil {
		f.Against, f.Instead, f.kprobes = s.Against(name)
	}
	f.Probes = s.atFunction(f)
	return f, nil
}
