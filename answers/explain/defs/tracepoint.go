package defs

import (
	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/internal/sorting"
)

// Event is a tracepoint.
type Event struct {
	System string  `json:"system"`
	Name   string  `json:"name"`
	Fields []Field `json:"fields"`
	Print  string  `json:"print"`
	// Raw are the arguments that the kernel's own code gives it, as C declares them; none if BTF does not say.
	Raw    []string `json:"raw"`
	Probes []Probe  `json:"probes"`
}

// Field is one of a tracepoint's. Off and Size are bytes of its record.
type Field struct {
	Name string `json:"name"`
	Type string `json:"type"`
	Off  int    `json:"offset"`
	Size int    `json:"size"`
}

// Event tells of a tracepoint. Its error is that of Format.
func (s *Source) Event(system, name string) (*Event, error) {
	if s.Format == nil {
		return nil, ErrUnknown
	}
	f, err := s.Format(system, name)
	if err != nil {
		return nil, err
	}
	e := &Event{System: system, Name: name, Print: f.Print}
	for _, x := range f.Fields {
		e.Fields = append(e.Fields, Field{x.Name, x.Type, x.Offset, x.Size})
	}
	sorting.Stable(e.Fields, func(a, b Field) int { return a.Off - b.Off })
	raw := "its arguments are not in BTF"
	if args, ok := s.rawArgs(name); ok {
		raw = ""
		for _, a := range args {
			e.Raw = append(e.Raw, Declare(a.Type, a.Name))
		}
	}
	if system == "syscalls" {
		raw = "the kernel makes it of raw_syscalls; rawtracepoint:sys_enter is there"
	}
	e.Probes = []Probe{s.probe(Tracepoint, system+":"+name, ""), s.probe(Raw, name, raw)}
	return e, nil
}

// rawArgs are a tracepoint's arguments without the data of who attaches: typedef btf_trace_NAME.
func (s *Source) rawArgs(name string) ([]ctype.Param, bool) {
	if s.Types == nil {
		return nil, false
	}
	t, err := s.Types.ByName(ctype.KindTypedef, "btf_trace_"+name)
	if err != nil {
		return nil, false
	}
	p, ok := ctype.Strip(t).(*ctype.Ptr)
	if !ok {
		return nil, false
	}
	f, ok := p.Elem.(*ctype.Func)
	if !ok || len(f.Params) == 0 {
		return nil, false
	}
	return f.Params[1:], true
}
