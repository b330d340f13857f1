package probe

import (
	"runtime"

	"github.com/fathom-trace/fathom/bpf/gen"
	"github.com/fathom-trace/fathom/ir/emit"
)

// LoadEmit is [LoadIR] for a program that was written by hand and is not compiled yet.
func LoadEmit(p *emit.Program, targets [][]Target, opts Options) (*Session, error) {
	prog, err := p.Finish()
	if err != nil {
		return nil, err
	}
	obj, err := gen.Compile(prog, gen.Options{Arch: runtime.GOARCH})
	if err != nil {
		return nil, err
	}
	return LoadIR(prog, obj, targets, opts)
}
