package doctor

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"

	"github.com/fathom-trace/fathom/internal/feature"
	"github.com/fathom-trace/fathom/probe/try"
)

// What package try does not need for tests.
const (
	bpfSyscall try.Feature = "bpf(2)"
	bpfLoop    try.Feature = "bpf_loop"
	iter       try.Feature = "iter"
)

// ownTries try those, and leave nothing behind.
var ownTries = map[try.Feature]func() error{bpfSyscall: haveBPF, bpfLoop: haveLoop, iter: haveIter}

func haveBPF() error {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return err
	}
	return m.Close()
}

func haveLoop() error { return features.HaveProgramHelper(ebpf.XDP, asm.FnLoop) }

func haveIter() error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.Tracing, AttachType: ebpf.AttachTraceIter, AttachTo: "task", License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return err
	}
	defer p.Close()
	l, err := link.AttachIter(link.IterOptions{Program: p})
	if err != nil {
		return err
	}
	return l.Close()
}

// maxEvidence is how much of an error's text is evidence; a verifier's log is longer.
const maxEvidence = 160

// errnoText gives an error on one line with its errno's name and number.
func errnoText(err error) string {
	text := feature.WithoutHints(err.Error())
	text = strings.Join(strings.Fields(text), " ")
	if cut := len(text) - maxEvidence; cut > 0 { // the cause is at the end
		if i := strings.Index(text[cut:], ": "); i >= 0 && i < maxEvidence/2 {
			cut += i + 2
		}
		text = "…" + strings.ToValidUTF8(text[cut:], "")
	}
	var n syscall.Errno
	if errors.As(err, &n) && n != 0 && !strings.Contains(text, "errno") {
		text += fmt.Sprintf(" (errno %d)", int(n))
	}
	return text
}

// tried gives what was tried and what came back, without the feature's name, which stands beside it.
func tried(err error) string {
	var f *feature.Error
	if !errors.As(err, &f) {
		return errnoText(err)
	}
	switch {
	case f.Err == nil:
		return f.Tried
	case f.Tried == "" || f.Tried == "tried it":
		return errnoText(f.Err)
	}
	return f.Tried + ": " + errnoText(f.Err)
}

// denied reports that an error is a matter of privilege, and not of what the kernel has.
func denied(err error) bool {
	return errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES)
}
