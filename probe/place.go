package probe

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/fathom-trace/fathom/debuginfo/disasm"
	"github.com/fathom-trace/fathom/lang/check"
)

// force is what a refusal to place a uprobe ends with.
const force = "\nUse --unsafe to force attachment. WARNING: This option could lead to data corruption in the target process."

// refuse remembers that t must not be attached, if err is not nil: it can be listed all the same.
func (w *World) refuse(t check.Target, err error) check.Target {
	if err != nil {
		if w.refused == nil {
			w.refused = map[string]error{}
		}
		w.refused[t.Name] = err
	}
	return t
}

// Refusal says why a target must not be attached; nil if it may be.
func (w *World) Refusal(t check.Target) error { return w.refused[t.Name] }

// atAddress finds the probe at an address of a program. The kernel writes a breakpoint into whatever is there, so the
// address must be the start of an instruction of a known function, unless --unsafe was given.
func (w *World) atAddress(p check.AttachPoint, path, shown string) (check.Target, error) {
	off, ok := w.users.FileOffset(path, p.Address)
	if !ok {
		off = p.Address
	}
	t := check.Target{Provider: p.Provider.Name, Module: path, Offset: off, Name: fmt.Sprintf("%s:%s:0x%x", p.Provider.Name, shown, p.Address)}
	f, ok := w.users.AtFile(path, p.Address)
	switch {
	case w.Unsafe:
		return t, nil
	case !ok:
		return t, peerError(fmt.Sprintf("Could not resolve address: %s:0x%x", shown, p.Address))
	}
	return t, startsInstruction(p.Provider.Name, path, f.Symbol, off-f.Offset, f.Offset)
}

// inFunction finds the probe at the start of a function or, with an offset, within it.
func (w *World) inFunction(p check.AttachPoint, path, shown string) (check.Target, bool, error) {
	name := p.Provider.Name
	off, _, size, ok := w.users.SymbolAddr(path, p.Func)
	t := check.Target{Provider: name, Module: path, Func: p.Func, Offset: off + p.Offset, Name: name + ":" + shown + ":" + p.Func}
	if p.HasOff {
		t.Name += fmt.Sprintf("+%d", p.Offset)
	}
	switch {
	case !ok:
		return t, false, nil
	case size == 0 && p.Offset == 0 && !w.Unsafe:
		return t, true, peerError("Could not determine boundary for " + p.Func + " (symbol has size 0)." + force)
	case p.Offset != 0 && p.Offset >= size:
		return t, true, peerError(fmt.Sprintf("Offset outside the function bounds ('%s' size is %d)", p.Func, size))
	case w.Unsafe:
		return t, true, nil
	}
	return t, true, startsInstruction(name, path, p.Func, off, p.Offset)
}

// longest is the length in bytes of the longest instruction.
const longest = 15

// startsInstruction says what is wrong with a probe off bytes into the function whose code is at start in the file: it is
// disassembled from there.
func startsInstruction(provider, path, symbol string, start, off uint64) error {
	if off == 0 {
		return nil
	}
	place := fmt.Sprintf("%s:%s+%d", path, symbol, off)
	if provider == "uretprobe" {
		return peerError(fmt.Sprintf("uretprobes cannot be attached at function offset. (address resolved to: %s+%d)", symbol, off))
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("check the place of %s: %w", place, err)
	}
	defer f.Close()
	code := make([]byte, off+longest)
	n, err := f.ReadAt(code, int64(start))
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("check the place of %s: %w", place, err)
	}
	arch := disasm.AMD64
	if runtime.GOARCH == "arm64" {
		arch = disasm.ARM64
	}
	for _, in := range disasm.Decode(arch, code[:n], 0, nil) {
		switch {
		case in.Addr == off && !in.Bad():
			return nil
		case in.Addr > off:
			return peerError("Could not add " + provider + " into middle of instruction: " + place + force)
		case in.Bad():
			return peerError("Failed to check if " + provider + " is in proper place: " + place + force)
		}
	}
	return peerError("Failed to check if " + provider + " is in proper place: " + place + force)
}
