package diag

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/internal/feature"
	"github.com/fathom-trace/fathom/lang/syntax"
)

func TestReport(t *testing.T) {
	_, missing := os.Open("/nonexistent/p.bt")
	asRoot := ""
	if os.Geteuid() == 0 {
		asRoot = "; " + rootRefused()
	}
	_, masked := os.Open("/sys/nonexistent/possible")
	for _, tt := range []struct {
		name string
		err  error
		code int
		want string
		root string
	}{
		{"a file of the kernel that is not there", fmt.Errorf("count CPUs: %w", masked), 69,
			"fathom: count CPUs\nbecause: open /sys/nonexistent/possible: no such file or directory (errno 2)\ntry: fathom doctor\nmore: fathom help E-KERNEL\n", ""},
		{"of a cause", &Error{What: "rank x", Err: fmt.Errorf("open it: %w", syscall.EACCES)}, 77,
			"fathom: rank x\nbecause: open it: permission denied (errno 13)\ntry: fathom doctor\nmore: fathom help E-PERM\n", ""},
		{"whole", &Error{What: "attach kprobe:f", Because: "/proc/sys/kernel/x=1", Try: []string{"a", "b", "c", "d"}, Topic: "E-X", Code: 69}, 69,
			"fathom: attach kprobe:f\nbecause: /proc/sys/kernel/x=1\ntry: a\ntry: b\ntry: c\nmore: fathom help E-X\n", ""},
		{"no input", NoInput("read program", missing), 66,
			"fathom: read program\nbecause: open /nonexistent/p.bt: no such file or directory (errno 2)\nmore: fathom help E-NOINPUT\n", ""},
		{"denied input", NoInput("read dump", syscall.EACCES), 77,
			"fathom: read dump\nbecause: permission denied (errno 13)\nmore: fathom help E-PERM\n", ""},
		{"bad input", BadInput("read vmcore", errors.New("offset 8: bad magic")), 65,
			"fathom: read vmcore\nbecause: offset 8: bad magic\nmore: fathom help E-INPUT\n", ""},
		{"bug", Bug("index out of range", "sha256:12"), 70,
			"fathom: internal error\nbecause: index out of range (input sha256:12)\nmore: fathom help E-BUG\n", ""},
		{"wrapped", fmt.Errorf("run: %w", &Error{What: "w", Err: errors.New("x")}), 1, "fathom: w\nbecause: x\n", ""},
		{"plain chain", fmt.Errorf("attach kprobe f: %w", syscall.EACCES), 77,
			"fathom: attach kprobe f\nbecause: permission denied (errno 13)\ntry: fathom doctor\nmore: fathom help E-PERM\n", ""},
		{"forbidden", fmt.Errorf("load program: %w (MEMLOCK may be too low, consider rlimit.RemoveMemlock)", syscall.EPERM), 77,
			"fathom: load program\nbecause: operation not permitted" + asRoot + " (errno 1)\ntry: fathom doctor\nmore: fathom help E-PERM\n", ""},
		{"no chain", errors.New("nothing to do"), 1, "fathom: nothing to do\n", ""},
		{"unsupported", feature.Unsupported("kprobe.multi", "BPF_LINK_CREATE", syscall.EINVAL), 69,
			"fathom: kprobe.multi not supported\nbecause: BPF_LINK_CREATE: invalid argument (errno 22)\ntry: fathom doctor\nmore: fathom help E-KERNEL\n", ""},
		{"joined", fmt.Errorf("stop: %w", errors.Join(errors.New("a"), errors.New("b"))), 1, "fathom: stop\nbecause: a; b\n", ""},
		{"an ordinary user", fmt.Errorf("load BPF programs: %w", syscall.EACCES), 77,
			"fathom: load BPF programs\nbecause: permission denied (errno 13)\ntry: sudo fathom packet\ntry: fathom doctor\nmore: fathom help E-PERM\n", "sudo fathom packet"},
		{"an ordinary user who was told so", &Error{What: "try x", Because: "it makes namespaces", Try: []string{"sudo fathom x -v"}, Code: 77}, 77,
			"fathom: try x\nbecause: it makes namespaces\ntry: sudo fathom x -v\nmore: fathom help E-PERM\n", "sudo fathom x"},
		{"what root has not either", fmt.Errorf("open y: %w", syscall.EIO), 1, "fathom: open y\nbecause: input/output error (errno 5)\n", "sudo fathom y"},
		{"a feature that is forbidden", feature.Unsupported("tracefs", "open events", syscall.EACCES), 77,
			"fathom: tracefs not permitted\nbecause: open events: permission denied (errno 13)\ntry: fathom doctor\nmore: fathom help E-PERM\n", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b strings.Builder
			if code := Report(&b, tt.err, tt.root); code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			if d := cmp.Diff(tt.want, b.String()); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestErrorChain(t *testing.T) {
	err := fmt.Errorf("x: %w", &Error{What: "open y", Err: syscall.ENOENT})
	if !errors.Is(err, os.ErrNotExist) || err.Error() != "x: open y: no such file or directory" {
		t.Error(err)
	}
	if got := (&Error{What: "w", Because: "b"}).Error(); got != "w: b" {
		t.Error(got)
	}
}

// TestTopics: every code has a topic, every topic a text that begins with its name.
func TestTopics(t *testing.T) {
	for code, topic := range topicOf {
		if text, ok := Help(topic); !ok || !strings.HasPrefix(text, topic+":") {
			t.Errorf("%d: %s: %q", code, topic, text)
		}
	}
	if _, ok := Help("E-NOSUCH"); ok {
		t.Error("E-NOSUCH has a text")
	}
}

func span(text string, l0, c0, l1, c1 int) syntax.Span {
	return syntax.Span{Src: &syntax.Source{Name: "stdin", Text: text}, Start: syntax.Pos{Line: l0, Col: c0}, End: syntax.Pos{Line: l1, Col: c1}}
}

// TestRender holds texts of bpftrace's own tests (tests/semantic_analyser.cpp, tests/parser.cpp) where there are such.
func TestRender(t *testing.T) {
	warn := syntax.Diag{Span: span("a b", 1, 3, 1, 4), Severity: syntax.Warning, Msg: "w"}
	for _, tt := range []struct {
		name  string
		diags []syntax.Diag
		st    Style
		want  string
	}{
		{"one", []syntax.Diag{{Span: span("BEGIN { foo; }", 1, 9, 1, 12), Msg: "Unknown identifier: 'foo'", Hint: "did you mean `for`?"}}, Style{},
			"stdin:1:9-12: ERROR: Unknown identifier: 'foo'\nBEGIN { foo; }\n        ~~~\nHINT: did you mean `for`?\n"},
		{"tabs", []syntax.Diag{{Span: span("x\n\ty\tzz", 2, 4, 2, 6), Msg: "m"}}, Style{},
			"stdin:2:4-6: ERROR: m\n    y    zz\n         ~~\n"},
		{"wide tab", []syntax.Diag{{Span: span("\ty", 1, 1, 1, 3), Msg: "m"}}, Style{},
			"stdin:1:1-3: ERROR: m\n    y\n~~~~~\n"},
		{"lines", []syntax.Diag{{Span: span("k:f {\n\tx\n} y", 1, 1, 3, 2), Msg: "m"}}, Style{},
			"stdin:1-3: ERROR: m\nk:f {\n\tx\n} y\n"},
		{"at the end", []syntax.Diag{{Span: span("k:f {", 1, 6, 1, 7), Msg: "m"}}, Style{},
			"stdin:1:6-7: ERROR: m\nk:f {\n     ~\n"},
		{"after the end", []syntax.Diag{{Span: span("a", 7, 1, 7, 2), Msg: "m"}}, Style{}, "stdin:7:1-2: ERROR: m\n"},
		{"utf-8", []syntax.Diag{{Span: span(`"é" x`, 1, 6, 1, 7), Msg: "m"}}, Style{}, "stdin:1:6-7: ERROR: m\n\"é\" x\n    ~\n"},
		{"errors first", []syntax.Diag{warn, {Msg: "nowhere"}}, Style{}, "ERROR: nowhere\nstdin:1:3-4: WARNING: w\na b\n  ~\n"},
		{"colour", []syntax.Diag{{Msg: "e"}, warn, {Severity: syntax.Hint, Msg: "h"}}, Style{Color: true},
			"\x1b[31mERROR: e\x1b[0m\n\x1b[33mstdin:1:3-4: WARNING: w\x1b[0m\na b\n  ~\nHINT: h\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b strings.Builder
			Render(&b, tt.diags, tt.st)
			if d := cmp.Diff(tt.want, b.String()); d != "" {
				t.Error(d)
			}
		})
	}
}
