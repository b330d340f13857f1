// Package diag renders what goes wrong: diagnostics of a program in bpftrace's form (render.go), and failed operations
// in four lines:
//
//	fathom: what failed
//	because: evidence (file=value, errno)
//	try: an exact command, up to three such lines
//	more: fathom help E-CODE
//
// It holds the exit codes of failures and the texts behind E-CODE. The usual errors, which are made without thinking of
// their looks ("attach kprobe f: operation not permitted"), are told in this form too.
package diag

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/fathom-trace/fathom/internal/feature"
)

// Exit codes of failed operations, as sysexits.h has them.
const (
	ExitFailure     = 1
	ExitBadInput    = 65
	ExitNoInput     = 66
	ExitUnsupported = 69
	ExitBug         = 70
	ExitPermission  = 77
)

// maxTry is how many ways out are shown: who gets more reads none.
const maxTry = 3

// Error is a failed operation, told in four lines.
type Error struct {
	What    string   // "attach kprobe:vfs_read"
	Because string   // evidence; "" takes Err's text
	Try     []string // up to three exact commands
	Topic   string   // fathom help TOPIC; "" takes the code's
	Code    int      // exit code; 0 takes that of Err's cause
	Err     error
}

func (e *Error) Error() string {
	switch {
	case e.Err != nil:
		return e.What + ": " + e.Err.Error()
	case e.Because != "":
		return e.What + ": " + e.Because
	}
	return e.What
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// NoInput is a file that could not be opened.
func NoInput(what string, err error) error {
	code := ExitNoInput
	if errors.Is(err, fs.ErrPermission) {
		code = ExitPermission
	}
	return &Error{What: what, Err: err, Code: code}
}

// BadInput is a file whose bytes are not what they should be; err says where.
func BadInput(what string, err error) error {
	return &Error{What: what, Err: err, Code: ExitBadInput}
}

// Bug turns a recovered panic into an error. input is what was worked on, by a name or a hash, so that it can be found
// again.
func Bug(recovered any, input string) error {
	because := fmt.Sprint(recovered)
	if input != "" {
		because += " (input " + input + ")"
	}
	return &Error{What: "internal error", Because: because, Code: ExitBug}
}

// Report writes an error in its form and gives the exit code. root is the command line that root would write to have it done; "" if
// that would change nothing.
func Report(w io.Writer, err error, root string) int {
	var e *Error
	if !errors.As(err, &e) {
		e = classify(err)
	}
	code, ways := e.Code, e.Try
	if code == 0 {
		code = codeOf(err)
	}
	if e.Code == 0 && len(ways) == 0 && (code == ExitPermission || code == ExitUnsupported) {
		ways = []string{"fathom doctor"} // says what this kernel and this user may, and what root would add
	}
	if code == ExitPermission && root != "" && !slices.ContainsFunc(ways, func(s string) bool { return strings.HasPrefix(s, "sudo ") }) {
		ways = append([]string{root}, ways...)
	}
	what := e.What
	if name, ok := strings.CutSuffix(what, " not supported"); ok && code == ExitPermission { // a [feature.Error]: there it may be
		what = name + " not permitted"
	}
	fmt.Fprintf(w, "fathom: %s\n", oneLine(what))
	if b := e.because(); b != "" {
		fmt.Fprintf(w, "because: %s\n", oneLine(b))
	}
	for _, t := range ways[:min(maxTry, len(ways))] {
		fmt.Fprintf(w, "try: %s\n", oneLine(t))
	}
	topic := e.Topic
	if topic == "" {
		topic = topicOf[code]
	}
	if topic != "" {
		fmt.Fprintf(w, "more: fathom help %s\n", topic)
	}
	return code
}

// because gives the evidence, with the errno's number if there is one and the text does not have it.
func (e *Error) because() string {
	b := e.Because
	if b == "" && e.Err != nil {
		b = e.Err.Error()
	}
	b = feature.WithoutHints(b)
	if sysfs(e.Err) {
		if _, err := os.Stat("/sys/kernel"); errors.Is(err, fs.ErrNotExist) {
			b += "; all of /sys is hidden from this process, as in a container"
		}
	}
	var n syscall.Errno
	if b != "" && errors.As(e.Err, &n) && n != 0 && !strings.Contains(b, "errno") {
		b += fmt.Sprintf(" (errno %d)", int(n))
	}
	return b
}

// oneLine keeps the form when a message has several lines, as errors.Join makes them.
func oneLine(s string) string {
	return strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "; ")
}

// classify finds what and why in an error chain "what: why".
func classify(err error) *Error {
	e := &Error{Err: err}
	what, why, ok := strings.Cut(err.Error(), ": ")
	e.What, e.Because = what, why
	if !ok {
		e.Err = nil // everything is said
	}
	if errors.Is(err, syscall.EPERM) && os.Geteuid() == 0 && e.Because != "" {
		e.Because += "; " + rootRefused()
	}
	return e
}

// rootRefused says why root may be refused something. The number of the first user namespace is PROC_USER_INIT_INO
// (include/linux/proc_ns.h).
func rootRefused() string {
	if ns, err := os.Readlink("/proc/self/ns/user"); err == nil && ns != "user:[4026531837]" {
		return "this is root of a user namespace, which has no power over the kernel: ask outside of it"
	}
	return "this is root, so the kernel is locked down, or a container or a security module forbids it"
}

// codeOf finds the cause in an error. A file of /sys that is not there is the kernel's, or hidden from this process as in a container.
func codeOf(err error) int {
	switch {
	case errors.Is(err, fs.ErrPermission): // EPERM and EACCES
		return ExitPermission
	case errors.Is(err, feature.ErrUnsupported):
		return ExitUnsupported
	case sysfs(err):
		return ExitUnsupported
	}
	return ExitFailure
}

// sysfs says if a file of /sys is not there.
func sysfs(err error) bool {
	var file *fs.PathError
	return errors.As(err, &file) && errors.Is(file, fs.ErrNotExist) && strings.HasPrefix(file.Path, "/sys/")
}
