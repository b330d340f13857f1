package core

import (
	_ "embed"
	"fmt"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/kernel"
	"github.com/fathom-trace/fathom/kernel/cexpr"
)

// globalTypes has the types of variables that people ask for, one in a line: BTF has those of per-CPU variables only. An array
// whose length is left out ends where the next symbol begins. Tests compare it with a kernel's debug information.
//
//go:embed globals.txt
var globalTypes string

// maxGlobal bounds an array whose length is not known, in bytes.
const maxGlobal = 1 << 20

// names says what names mean in expressions: variables of a kernel, those of a CPU if one is chosen.
type names struct {
	s   *Session
	cpu int // whose per-CPU variables; -1 if none is chosen
}

// perCPUError is a per-CPU variable that was named without a CPU.
type perCPUError struct {
	name string
	t    ctype.Type
	at   uint64
}

func (e *perCPUError) Error() string {
	return fmt.Sprintf("%s is a per-CPU variable: %s:0 is that of CPU 0, %s:a all", e.name, e.name, e.name)
}

// Var implements cexpr.Names.
func (n names) Var(name string) (ctype.Type, uint64, error) {
	at := n.s.t.Symbols().ByName(name)
	if len(at) == 0 {
		return nil, 0, fmt.Errorf("%s: %w", name, cexpr.ErrUnknown)
	}
	t := n.s.typeOfVariable(name, at[0])
	if !n.s.isPerCPU(at[0]) {
		return t, at[0], nil
	}
	if n.cpu < 0 {
		return nil, 0, &perCPUError{name, t, at[0]}
	}
	return t, at[0] + n.s.t.PerCPU(n.cpu), nil
}

// isPerCPU says that a symbol's address is where a per-CPU variable was linked.
func (s *Session) isPerCPU(at uint64) bool {
	start, end := s.t.Symbols().ByName("__per_cpu_start"), s.t.Symbols().ByName("__per_cpu_end")
	return len(start) > 0 && len(end) > 0 && at >= start[0] && at < end[0]
}

// typeOfVariable is the type of a variable or function; void if nobody knows it.
func (s *Session) typeOfVariable(name string, at uint64) ctype.Type {
	if v, ok := s.t.Types().(interface {
		Var(name string) (ctype.Type, error)
	}); ok {
		if t, err := v.Var(name); err == nil {
			return t
		}
	}
	for line := range strings.Lines(globalTypes) {
		if n, c, _ := strings.Cut(strings.TrimSpace(line), " "); n == name {
			if t, err := s.declared(c, at); err == nil {
				return t
			}
		}
	}
	if y, ok := s.t.Symbols().At(at); ok && y.IsText() {
		if f, err := s.t.Types().Func(y.Module, name); err == nil {
			return f
		}
	}
	return ctype.Void{}
}

// declared is a type as the table has it.
func (s *Session) declared(c string, at uint64) (ctype.Type, error) {
	c, dims, isArray := strings.Cut(c, "[")
	t, err := kernel.TypeNamed(s.t.Types(), c)
	if err != nil || !isArray {
		return t, err
	}
	first, inner, _ := strings.Cut(dims, "]")
	if n, err := strconv.Atoi(strings.Trim(inner, "[]")); err == nil {
		t = &ctype.Array{Elem: t, Len: n}
	}
	n, err := strconv.Atoi(first)
	if err != nil {
		n = int(kernel.Extent(s.t.Symbols(), at, maxGlobal)) / max(ctype.Size(t), 1)
	}
	return &ctype.Array{Elem: t, Len: n}, nil
}
