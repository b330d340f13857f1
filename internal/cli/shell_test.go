package cli

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/fathom-trace/fathom/lang/syntax"
)

// shellWords splits a line of a POSIX shell into its commands and those into words, as far as help and documents need it:
// quotes, escapes, and the operators between commands. What substitutions would give is not known and stands as it is
// written; redirections and comments are left out.
func shellWords(line string) ([][]string, error) {
	var cmds [][]string
	var cmd []string
	var word strings.Builder
	in := false // a word, perhaps an empty one
	endWord := func() {
		if in {
			cmd = append(cmd, word.String())
			word.Reset()
			in = false
		}
	}
	endCmd := func() {
		endWord()
		if len(cmd) > 0 {
			cmds = append(cmds, cmd)
		}
		cmd = nil
	}
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case c == '\\' && i+1 < len(line):
			i++
			word.WriteByte(line[i])
			in = true
		case c == '\'' || c == '"':
			end := strings.IndexByte(line[i+1:], c)
			if c == '"' {
				end = closingQuote(line[i+1:])
			}
			if end < 0 {
				return nil, fmt.Errorf("quote at %d is not closed", i)
			}
			text := line[i+1 : i+1+end]
			if c == '"' {
				text = strings.NewReplacer(`\"`, `"`, `\\`, `\`, `\$`, `$`).Replace(text)
			}
			word.WriteString(text)
			i += 1 + end
			in = true
		case c == '$' && strings.HasPrefix(line[i:], "$("):
			end := strings.IndexByte(line[i:], ')')
			if end < 0 {
				return nil, fmt.Errorf("substitution at %d is not closed", i)
			}
			word.WriteString(line[i : i+end+1])
			i += end
			in = true
		case c == ' ' || c == '\t':
			endWord()
		case c == '#' && !in:
			endCmd()
			return cmds, nil
		case c == '|' || c == ';' || c == '&':
			endCmd()
		case c == '>' || c == '<':
			if s := word.String(); in && strings.Trim(s, "0123456789") == "" {
				word.Reset() // the number of a file
				in = false
			}
			endWord()
			rest := strings.TrimLeft(line[i+1:], ">& ")
			n := strings.IndexAny(rest, " ;|&")
			if n < 0 {
				n = len(rest)
			}
			i = len(line) - len(rest) + n - 1
		default:
			word.WriteByte(c)
			in = true
		}
	}
	endCmd()
	return cmds, nil
}

func closingQuote(s string) int {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return -1
}

func TestShellWords(t *testing.T) {
	for line, want := range map[string]string{
		`fathom trace -e 'BEGIN { exit(); }' 2>/dev/null | less`: `[[fathom trace -e BEGIN { exit(); }] [less]]`,
		`a && b "c \"d\"" ''; e > f g # h`:                       `[[a] [b c "d" ] [e g]]`,
		`sudo x $(y z) \; &`:                                     `[[sudo x $(y z) ;]]`,
	} {
		if got, err := shellWords(line); err != nil || fmt.Sprint(got) != want {
			t.Errorf("%s: %v, %v; want %s", line, got, err, want)
		}
	}
}

// parseLine says what is wrong with the command lines of fathom in a line of shell: verbs and flags that do not exist,
// arguments that the verb does not take, programs that do not parse. It gives how many there are.
func parseLine(line string) (int, error) {
	cmds, err := shellWords(line)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, words := range cmds {
		for len(words) > 0 && prefix.MatchString(words[0]) {
			words = words[1:]
		}
		for i, w := range words {
			if w == "--" && i+1 < len(words) && isFathom(words[i+1]) { // lab exec a -- fathom …
				k, err := parseCommand(words[i+1:])
				n += k
				if err != nil {
					return n, err
				}
			}
		}
		k, err := parseCommand(words)
		n += k
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// prefix is what may stand before a command.
var prefix = regexp.MustCompile(`^(\$|sudo|time|[A-Z_]+=.*)$`)

func isFathom(w string) bool { return w == "fathom" || w == "./fathom" || w == "bpftrace" }

func parseCommand(words []string) (int, error) {
	if len(words) == 0 || !isFathom(words[0]) {
		return 0, nil
	}
	c, args := root(), words[1:]
	if words[0] == "bpftrace" {
		c = traceCommand("bpftrace")
		c.Args = nil
	} else {
		var err error
		if c, args, err = c.Find(args); err != nil {
			return 1, err
		}
	}
	c.InitDefaultHelpFlag()
	if err := c.ParseFlags(args); err != nil {
		return 1, err
	}
	if err := c.ValidateArgs(c.Flags().Args()); err != nil {
		return 1, err
	}
	if c.HasSubCommands() && !c.Runnable() {
		return 1, fmt.Errorf("%s is no verb", strings.Join(words, " "))
	}
	return 1, parsePrograms(c)
}

// parsePrograms parses the programs in the bpftrace language on a command line of trace.
func parsePrograms(c *cobra.Command) error {
	if c.Name() != "trace" && c.Name() != "bpftrace" {
		return nil
	}
	if list, _ := c.Flags().GetBool("list"); list {
		return nil
	}
	programs, err := c.Flags().GetStringArray("program")
	if err != nil {
		return err
	}
	for _, p := range programs {
		if _, diags := syntax.Parse(&syntax.Source{Name: "-e", Text: p}); len(diags) > 0 {
			return fmt.Errorf("%s: %v", p, diags[0])
		}
	}
	return nil
}

// documents are what people read beside --help.
func documents(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	files := []string{"../../README.md"}
	entries, err := os.ReadDir("../../docs")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".md") {
			files = append(files, "../../docs/"+e.Name())
		}
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		out[strings.TrimPrefix(f, "../../")] = string(b)
	}
	return out
}
