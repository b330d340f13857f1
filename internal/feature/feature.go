// Package feature says "this kernel can't" as a value: a name, and the evidence for it.
//
// Features are found by trying, never by version number. Whoever tries returns an *[Error] when the kernel (or
// machine, or privilege) lacks what was tried, so that callers can fall back with errors.Is(err, [ErrUnsupported])
// and the last one in line can still tell the user what was tried and what came back.
package feature

import (
	"errors"
	"fmt"
	"regexp"
	"syscall"
)

// ErrUnsupported is what every *[Error] is: the running kernel or machine lacks a feature.
var ErrUnsupported = errors.New("not supported")

// Error is a missing feature with its evidence.
type Error struct {
	Name  string // the feature, in the kernel's words: "kprobe.multi", "tracefs", "BTF"
	Tried string // what was tried: `open /sys/kernel/btf/vmlinux`, "BPF_LINK_CREATE kprobe_multi"
	Err   error  // what came back, usually a [syscall.Errno]; nil if the evidence is in Tried alone
}

// Unsupported returns an *[Error] for the feature name, after tried ended in err. It returns an error and not an
// *Error, so that a nil result of a caller stays nil.
func Unsupported(name, tried string, err error) error {
	return &Error{Name: name, Tried: tried, Err: err}
}

// Error gives the name, what was tried and the result on one line.
func (e *Error) Error() string {
	s := e.Name + " not supported"
	if e.Tried != "" {
		s += ": " + e.Tried
	}
	if e.Err == nil {
		return s
	}
	if n, ok := e.Errno(); ok {
		return fmt.Sprintf("%s: %s (errno %d)", s, WithoutHints(e.Err.Error()), int(n))
	}
	return s + ": " + WithoutHints(e.Err.Error())
}

// hints is what cilium/ebpf adds to errors: to an EPERM what helped before Linux 5.11, and version numbers, which say nothing
// about a kernel that was built without the feature.
var hints = regexp.MustCompile(` \((MEMLOCK may be too low, consider rlimit\.RemoveMemlock|requires >= v[0-9.]+)\)`)

// WithoutHints takes guesses of libraries out of an error's text.
func WithoutHints(text string) string { return hints.ReplaceAllString(text, "") }

// Is reports that every Error is [ErrUnsupported].
func (e *Error) Is(target error) bool { return target == ErrUnsupported }

// Unwrap returns what came back, so errors.Is(err, syscall.EPERM) works through it.
func (e *Error) Unwrap() error { return e.Err }

// Errno returns the errno at the bottom of Err, if there is one.
func (e *Error) Errno() (syscall.Errno, bool) {
	var n syscall.Errno
	ok := errors.As(e.Err, &n)
	return n, ok
}
