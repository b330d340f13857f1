package cli

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/fathom-trace/fathom/internal/doctor"
	"github.com/fathom-trace/fathom/internal/term"
)

// What fits a screen.
const (
	mostHelpLines = 50  // in all
	mostTextLines = 34  // beside flags
	mostHelpWidth = 135 // columns, but for examples, which are to be copied whole
	leastExamples = 3
)

// verbs are all that --help knows, the root first.
func verbs() []*cobra.Command {
	var out []*cobra.Command
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		c.InitDefaultHelpFlag()
		out = append(out, c)
		for _, s := range c.Commands() {
			if !s.Hidden {
				walk(s)
			}
		}
	}
	r := root()
	r.InitDefaultHelpCmd()
	walk(r)
	return out
}

// helpOf is what --help prints.
func helpOf(t *testing.T, c *cobra.Command) string {
	t.Helper()
	var b bytes.Buffer
	c.SetOut(&b)
	defer c.SetOut(nil)
	if err := c.Help(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// exampleLines are the lines below Examples.
func exampleLines(help string) []string {
	_, rest, ok := strings.Cut(help, "\nExamples:\n")
	if !ok {
		return nil
	}
	rest, _, _ = strings.Cut(rest, "\n\n")
	var out []string
	for l := range strings.Lines(rest) {
		out = append(out, strings.TrimSpace(l))
	}
	return out
}

func TestHelpFitsAScreen(t *testing.T) {
	for _, c := range verbs() {
		help := helpOf(t, c)
		ex := exampleLines(help)
		lines := strings.Split(strings.TrimRight(help, "\n"), "\n")
		text := 0
		for _, l := range lines {
			if !strings.HasPrefix(strings.TrimSpace(l), "-") {
				text++
			}
			if w := utf8.RuneCountInString(l); w > mostHelpWidth && !slices.Contains(ex, strings.TrimSpace(l)) {
				t.Errorf("%s --help: %d columns, more than %d: %s", c.CommandPath(), w, mostHelpWidth, l)
			}
		}
		if text > mostTextLines || len(lines) > mostHelpLines {
			t.Errorf("%s --help: %d lines, %d of them beside flags; at most %d and %d", c.CommandPath(), len(lines), text, mostHelpLines, mostTextLines)
		}
		if len(ex) < leastExamples {
			t.Errorf("%s --help has %d examples, not %d", c.CommandPath(), len(ex), leastExamples)
		}
		n := 0
		for _, l := range ex {
			k, err := parseLine(l)
			if err != nil {
				t.Errorf("%s --help: %s: %v", c.CommandPath(), l, err)
			}
			n += k
		}
		if n < len(ex)-1 {
			t.Errorf("%s --help: %d of %d examples are of fathom", c.CommandPath(), n, len(ex))
		}
	}
}

// quick are examples that ask nothing of the machine: no root, no kernel's types, no guest, and end at once.
var quick = regexp.MustCompile(`^fathom (version|help .*|explain (errno|drop) .*|lab (config|list|list --exercises|module list)|trace -d asm -e .*)$`)

// TestExamplesRun runs those examples of --help and of the documents that run anywhere.
func TestExamplesRun(t *testing.T) {
	lines := map[string]bool{}
	add := func(text string) {
		for _, l := range strings.Split(text, "\n") {
			l, _, _ = strings.Cut(l, "  #")
			if l = strings.TrimPrefix(strings.TrimSpace(l), "$ "); quick.MatchString(l) && !strings.Contains(l, "…") {
				lines[l] = true
			}
		}
	}
	for _, c := range verbs() {
		add(strings.Join(exampleLines(helpOf(t, c)), "\n"))
	}
	for _, text := range documents(t) {
		add(text)
	}
	var b strings.Builder
	for _, l := range slices.Sorted(maps.Keys(lines)) {
		words, err := shellWords(l)
		if err != nil || len(words) != 1 {
			continue
		}
		fmt.Fprint(&b, "exec fathom")
		for _, w := range words[0][1:] {
			fmt.Fprintf(&b, " '%s'", strings.ReplaceAll(w, "'", "''"))
		}
		fmt.Fprintf(&b, "\n! stderr 'internal error'\nstdout .\n")
	}
	if len(lines) < 10 {
		t.Fatalf("only %d examples can be run: %v", len(lines), lines)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "examples.txtar"), []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{Dir: dir, Setup: keepCache})
}

// TestDocumentsParse holds the documents to the flags there are.
func TestDocumentsParse(t *testing.T) {
	n := 0
	for name, text := range documents(t) {
		inCode := false
		for i, l := range strings.Split(text, "\n") {
			if strings.HasPrefix(l, "```") {
				inCode = !inCode
				continue
			}
			if l = strings.TrimSpace(l); !inCode || !commandLine.MatchString(l) || strings.Contains(l, "…") {
				continue
			}
			k, err := parseLine(l)
			if err != nil {
				t.Errorf("%s:%d: %s: %v", name, i+1, l, err)
			}
			n += k
		}
	}
	if n < 100 {
		t.Errorf("only %d command lines in the documents", n)
	}
}

// commandLine begins a line of shell about fathom. "fathom: …" is a message.
var commandLine = regexp.MustCompile(`^(\$ |sudo )*(\./)?fathom [a-z-]`)

// flagUse is a flag of a verb.
type flagUse struct {
	verb, name, short, value string
}

func flagUses() []flagUse {
	var out []flagUse
	for _, c := range verbs() {
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Hidden {
				return
			}
			value, _ := pflag.UnquoteUsage(f)
			out = append(out, flagUse{strings.TrimPrefix(c.CommandPath(), "fathom "), f.Name, f.Shorthand, value})
		})
	}
	return out
}

// habits are flags that mean something else than the same flag of other verbs, with the reason: most are those of tools
// that a verb stands in for. A verb in them stands for the verbs below it, too.
var habits = []struct{ verb, flag, why string }{
	{"bypass", "-b", "xdpsock: --batch-size"},
	{"bypass", "-B", "xdpsock: --busy-poll"},
	{"bypass", "-c", "xdpsock: --copy"},
	{"bypass", "-C", "xdpsock: --tx-pkt-count"},
	{"bypass", "-d", "xdpsock: --duration"},
	{"bypass", "-f", "xdpsock: --frame-size"},
	{"bypass", "-F", "xdpsock: --frags"},
	{"bypass", "-l", "xdpsock: --l2fwd"},
	{"bypass", "-n", "xdpsock: --interval"},
	{"bypass", "-p", "xdpsock: --poll"},
	{"bypass", "-q", "xdpsock: --queue"},
	{"bypass", "-Q", "xdpsock: --quiet"},
	{"bypass", "-s", "xdpsock: --tx-pkt-size"},
	{"bypass", "-t", "xdpsock: --txonly"},
	{"bypass", "--filter", "packets: tcpdump's language"},
	{"bypass", "--frames", "memory for packets"},
	{"bypass compare", "--cpus", "which, not how many"},
	{"bypass compare", "--count", "how much is measured, not when it ends"},
	{"bypass tick", "--cpus", "which, not how many"},
	{"bypass tick", "--count", "how much is measured, not when it ends"},
	{"bypass rtt", "--count", "how much is measured, not when it ends"},
	{"explain", "--pstore", "may stand without its folder"},
	{"lab boot", "--keep", "the guest under a name"},
	{"lab dump", "--format", "of a memory image"},
	{"lab listen", "--count", "ends after so many, and has no -c: nc has none"},
	{"lab send", "--wait", "how long, as a time"},
	{"lab send", "--count", "how many are sent; nc has no -c"},
	{"lab module", "--output", "a folder: a module has several files"},
	{"rank", "--from", "an event that opens the window, not a time"},
	{"rank", "--until", "an event that closes the window, not a time"},
	{"rank", "--size", "of the table, in keys: the kernel's word for its histograms"},
	{"record", "--filter", "LTTng's: a condition in the kernel's filter language"},
	{"record", "--kernel", "LTTng's: of the kernel"},
	{"record", "--output", "a folder: a recording has many files"},
	{"record enable", "-s", "LTTng's: --session"},
	{"trace", "-B", "bpftrace's"},
	{"trace", "-c", "bpftrace's: the command to run"},
	{"trace", "-d", "bpftrace's"},
	{"trace", "-e", "bpftrace's: the program"},
	{"trace", "-f", "bpftrace's"},
	{"trace", "-k", "bpftrace's"},
	{"trace", "-l", "bpftrace's"},
	{"trace", "--mode", "bpftrace's"},
	{"trace graph", "--count", "has -n, as -c is the command of trace"},
	{"view", "--latency", "of two events that must be named"},
	{"view", "--filter", "a condition in the kernel's filter language"},
	{"view", "--to", "a format, not an address"},
}

// TestFlagsMeanTheSame holds every flag to one letter and one kind of value over all verbs, and every letter to one flag,
// but for the habits.
func TestFlagsMeanTheSame(t *testing.T) {
	used := map[int]bool{}
	habit := func(verb, flag string) bool {
		for i, h := range habits {
			if h.flag == flag && (h.verb == verb || strings.HasPrefix(verb, h.verb+" ")) {
				used[i] = true
				return true
			}
		}
		return false
	}
	byName, byLetter := map[string]map[string][]string{}, map[string]map[string][]string{}
	put := func(m map[string]map[string][]string, key, kind, verb string) {
		if m[key] == nil {
			m[key] = map[string][]string{}
		}
		m[key][kind] = append(m[key][kind], verb)
	}
	for _, u := range flagUses() {
		short := u.short
		if short != "" && habit(u.verb, "-"+short) {
			short = ""
		}
		if short != "" {
			put(byLetter, "-"+short, "--"+u.name, u.verb)
		}
		if !habit(u.verb, "--"+u.name) {
			put(byName, "--"+u.name, fmt.Sprintf("%s %s", u.name, u.value), u.verb)
			if short != "" {
				put(byName, "--"+u.name+" (its letter)", "-"+short, u.verb)
			}
		}
	}
	for _, m := range []map[string]map[string][]string{byName, byLetter} {
		for flag, kinds := range m {
			if len(kinds) > 1 {
				t.Errorf("%s differs: %v", flag, kinds)
			}
		}
	}
	for i, h := range habits {
		if !used[i] {
			t.Errorf("habit %s of %s: there is no such flag", h.flag, h.verb)
		}
	}
}

// TestUsageErrors gives every verb a flag that does not exist: what is said has one form and one exit code.
func TestUsageErrors(t *testing.T) {
	form := regexp.MustCompile(`^fathom: [^\n]+\ntry: fathom[^\n]* --help\n$`)
	for _, c := range verbs() {
		words := strings.Fields(c.CommandPath())[1:]
		cases := [][]string{append(slices.Clone(words), "--no-such-flag")}
		if c.Args != nil && c.Args(c, []string{"a", "b", "c", "d"}) != nil {
			cases = append(cases, append(slices.Clone(words), "a", "b", "c", "d"))
		}
		for _, args := range cases {
			var b bytes.Buffer
			r := root()
			r.SetArgs(args)
			r.SetOut(io.Discard)
			r.SilenceErrors, r.SilenceUsage = true, true
			if code := report(&b, r.ExecuteContext(t.Context()), ""); code != exitUsage || !form.Match(b.Bytes()) {
				t.Errorf("fathom %s: exit code %d, %q", strings.Join(args, " "), code, b.String())
			}
		}
	}
}

// TestDoctorStyle: --color and the locale mean what they mean to packet and nic.
func TestDoctorStyle(t *testing.T) {
	for _, tt := range []struct {
		lang, color string
		has, not    string
	}{
		{"C.UTF-8", "always", "\x1b[32m✓\x1b[0m", " + "}, {"C", "never", "  + ", "✓"}, {"C", "auto", "  + ", "\x1b["},
	} {
		t.Setenv("LC_ALL", tt.lang)
		var b strings.Builder
		var color term.When
		if err := color.Set(tt.color); err != nil {
			t.Fatal(err)
		}
		r := doctor.Report{Topic: "doctor", Checks: []doctor.Check{{Group: "g", Name: "n", Status: doctor.Yes}}}
		if err := writeReport(&b, r, false, color); err != nil {
			t.Fatal(err)
		}
		if s := b.String(); !strings.Contains(s, tt.has) || strings.Contains(s, tt.not) {
			t.Errorf("%s, --color %s: %q", tt.lang, tt.color, s)
		}
	}
}

// TestSilence: whoever listens for something and hears nothing has a negative answer.
func TestSilence(t *testing.T) {
	if code, _ := output(t, "explain", "--netconsole", "127.0.0.1:0", "--for", "10ms"); code != exitNegative {
		t.Errorf("explain --netconsole: exit code %d, want %d", code, exitNegative)
	}
}
