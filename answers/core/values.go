package core

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/kernel"
	"github.com/fathom-trace/fathom/kernel/cexpr"
)

// radix takes -x and -d out of arguments: numbers are hexadecimal or decimal.
func radix(args []string) (hex bool, rest []string) {
	for i, a := range args {
		switch a {
		case "-x", "-d":
			hex = a == "-x"
		case "-u": // crash's: what is printed is the user's; the type says so here
			rest = append(rest, a)
		default:
			return hex, append(rest, args[i:]...)
		}
	}
	return hex, rest
}

// print evaluates a C expression: p [-x|-d] EXPRESSION[:CPUS].
func (s *Session) print(w io.Writer, args []string) error {
	hex, args := radix(args)
	if len(args) == 0 || args[0] == "-u" {
		return &Usage{}
	}
	text := strings.Join(args, " ")
	cpus, text, err := s.cpuSpec(text)
	if err != nil {
		return err
	}
	if cpus == nil {
		err := s.evaluate(w, text, -1, hex)
		var per *perCPUError
		if errors.As(err, &per) && strings.TrimSpace(text) == per.name {
			return s.perCPU(w, per)
		}
		return err
	}
	for _, cpu := range cpus {
		if len(cpus) > 1 {
			fmt.Fprintf(w, "[%d]: ", cpu)
		}
		if err := s.evaluate(w, text, cpu, hex); err != nil {
			return err
		}
	}
	return nil
}

// perCPU prints where the copies of a variable are.
func (s *Session) perCPU(w io.Writer, e *perCPUError) error {
	fmt.Fprintf(w, "PER-CPU DATA TYPE:\n  %s %s;\nPER-CPU ADDRESSES:\n", ctype.Name(e.t), e.name)
	for _, cpu := range s.t.CPUs() {
		fmt.Fprintf(w, "  [%d]: %016x\n", cpu, e.at+s.t.PerCPU(cpu))
	}
	return nil
}

// cpuSpec takes ":0", ":a" or ":0,2-3" off the end of a text; nil if there is none.
func (s *Session) cpuSpec(text string) ([]int, string, error) {
	i := strings.LastIndexByte(text, ':')
	if i < 0 {
		return nil, text, nil
	}
	spec := strings.TrimSpace(text[i+1:])
	cpus, err := s.cpus(spec)
	return cpus, text[:i], err
}

// cpus reads a list of CPUs as crash's users write it: "0,2-3", "a" for all.
func (s *Session) cpus(spec string) ([]int, error) {
	have := s.t.CPUs()
	if spec == "a" || spec == "all" {
		return have, nil
	}
	var out []int
	for part := range strings.SplitSeq(spec, ",") {
		first, last, isRange := strings.Cut(part, "-")
		from, err := strconv.Atoi(first)
		to := from
		if isRange && err == nil {
			to, err = strconv.Atoi(last)
		}
		if err != nil || to < from {
			return nil, &Usage{fmt.Sprintf("%q is no list of CPUs: 0, 0-3, 1,3 or a", spec)}
		}
		n := len(out)
		for _, cpu := range have {
			if cpu >= from && cpu <= to {
				out = append(out, cpu)
			}
		}
		if len(out) == n {
			return nil, fmt.Errorf("no CPU %s", part)
		}
	}
	return out, nil
}

// evaluate prints what an expression is.
func (s *Session) evaluate(w io.Writer, text string, cpu int, hex bool) error {
	errs := &kernel.Errors{}
	r, err := cexpr.Eval(s.t, names{s, cpu}, errs, text)
	if err != nil {
		var syntax *cexpr.SyntaxError
		if errors.As(err, &syntax) {
			return &Usage{fmt.Sprintf("p %s: %v\n(C is read here; eval takes the language of trace)", text, err)}
		}
		return err
	}
	var out strings.Builder
	p := printer{w: &out, t: s.t, errs: errs, hex: hex}
	if !r.Object.OK() {
		p.number(r.Number, r.Type)
		fmt.Fprintln(w, out.String())
		return errs.Take()
	}
	switch ctype.Strip(r.Type).(type) {
	case ctype.Void:
		return fmt.Errorf("the type of %s is not known (a kernel has those of per-CPU variables, fathom of some others): p *(TYPE *)&%s, or rd %#x", text, text, r.Object.Addr)
	case *ctype.Func:
		fmt.Fprintf(w, "{%s} %#x <%s>\n", ctype.Name(r.Type), r.Object.Addr, s.name(r.Object.Addr, r.Object.Addr))
		return nil
	}
	p.value(r.Object, "", 0)
	if _, parts := ctype.Strip(r.Type).(*ctype.Struct); errs.First == nil || parts { // of a struct, what could be read
		fmt.Fprintln(w, out.String())
	}
	return errs.Take()
}
