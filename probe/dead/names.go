package dead

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/fathom-trace/fathom/kernel"
	"github.com/fathom-trace/fathom/lang/types"
)

var errNoUser = errors.New("no task with memory of its own is the current one")

// Names names addresses by the dead kernel's own symbols, never by this machine's. It implements view.Resolver; what programs
// are refused that would ask for the rest of it.
type Names struct {
	t kernel.Target
	// at are addresses of stacks where something was interrupted; the others are where calls return to, and a call may be the
	// last instruction of its function.
	at map[uint64]bool
}

// KernelStack implements view.Resolver.
func (n *Names) KernelStack(addrs []uint64, mode types.StackMode) []string {
	var out []string
	for _, a := range addrs {
		in := a
		if !n.at[a] {
			in--
		}
		y, ok := n.t.Symbols().At(in)
		name := fmt.Sprintf("%s+%d", y.Name, a-y.Addr)
		if !ok {
			name = hex(a)
		}
		switch mode {
		case types.StackRaw, types.StackBuildID:
			name = strconv.FormatUint(a, 16)
		case types.StackPerf:
			name = strconv.FormatUint(a, 16) + " " + name
		}
		out = append(out, name)
	}
	return out
}

// UserStack implements view.Resolver.
func (n *Names) UserStack(_ int, addrs []uint64, _ types.StackMode) []string {
	var out []string
	for _, a := range addrs {
		out = append(out, hex(a))
	}
	return out
}

// KernelSym implements view.Resolver.
func (n *Names) KernelSym(addr uint64) string {
	if y, ok := n.t.Symbols().At(addr); ok {
		return y.Name
	}
	return hex(addr)
}

// UserSym implements view.Resolver.
func (n *Names) UserSym(_ int, addr uint64) string { return hex(addr) }

// Username implements view.Resolver.
func (n *Names) Username(uid uint64) string { return strconv.FormatUint(uid, 10) }

// CgroupPath implements view.Resolver.
func (n *Names) CgroupPath(_, id uint64) string { return strconv.FormatUint(id, 10) }

// Strftime implements view.Resolver.
func (n *Names) Strftime(_ string, ns uint64, _ int) string { return strconv.FormatUint(ns, 10) }

func hex(a uint64) string { return "0x" + strconv.FormatUint(a, 16) }
