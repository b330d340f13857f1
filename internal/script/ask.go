package script

import (
	"fmt"
	"strings"

	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/record"
)

// Asks tells what must be recorded so that a program can be run over the recording: the events of its tracepoint probes, and the
// stacks that it asks for. Probes that no recording has are told as the program's mistakes.
func Asks(src *syntax.Source) (specs []record.Spec, stacks record.Stacks, ds []syntax.Diag) {
	file, ds := syntax.Parse(src)
	if len(ds) > 0 {
		return nil, stacks, ds
	}
	for _, p := range file.Probes {
		for _, at := range p.Points {
			kind, rest, _ := strings.Cut(strings.TrimSpace(at.Raw), ":")
			switch strings.ToLower(kind) {
			case "begin", "end":
			case "t", "tracepoint":
				specs = append(specs, record.Spec{Pattern: rest})
			default:
				ds = append(ds, syntax.Diag{Span: at.Span, Msg: fmt.Sprintf("%s cannot be recorded: programs over recordings have tracepoint, begin and end probes", at.Raw)})
			}
		}
	}
	if len(ds) == 0 && len(specs) == 0 {
		ds = append(ds, syntax.Diag{Span: syntax.Span{Src: src}, Msg: "the program asks for no event"})
	}
	syntax.WalkFile(file, func(n syntax.Node) bool {
		name := ""
		switch n := n.(type) {
		case *syntax.Ident:
			name = n.Name
		case *syntax.Call:
			name = n.Name
		}
		stacks.Kernel = stacks.Kernel || name == "kstack"
		stacks.User = stacks.User || name == "ustack"
		return true
	})
	return specs, stacks, ds
}
