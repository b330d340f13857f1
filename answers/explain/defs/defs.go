// Package defs tells what names of a kernel mean: a struct and how it lies in memory, a system call with its registers and its
// way into the kernel, a function or a tracepoint and what can be attached to it, an errno. It answers from the kernel's own
// types (BTF), symbols and formats, and, where one is given, from a source tree; what it was not given it leaves out and names.
package defs

import (
	"errors"
	"io/fs"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/traceevent"
)

// Source is what is known of a kernel. What is nil is not known.
type Source struct {
	Arch  string // GOARCH of the kernel
	Types ctype.Lookup
	// Symbol says if the kernel's symbol table has a function, and in which module it is; "" if it is built in.
	Symbol func(name string) (module string, ok bool)
	// Parts gives the symbols that the compiler made of a function: clones, and the part that is seldom run.
	Parts func(name string) []string
	// Format gives the format of an event. Its error says why there is none.
	Format func(system, name string) (*traceevent.Format, error)
	// Systems gives the systems that have an event of a name.
	Systems func(name string) []string
	// Against says what keeps a function from being traced, and what may be traced instead; "" if nothing is known against it.
	// kprobes says that they are kept from it, too.
	Against func(name string) (why string, instead []string, kprobes bool)
	// Works says what is wrong with a way to attach on this kernel: nil if it works.
	Works func(Way) error
	Tree  fs.FS // a source tree; nil if there is none
}

// ErrUnknown says that a kernel has nothing of that name, as far as can be told.
var ErrUnknown = errors.New("the kernel has nothing of that name")
