package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// source is what a page's foot says.
type source struct{ date, version string }

// pages gives the manual pages of a command and all verbs below it, in man(7)'s macros, by the names of their files.
func pages(c *cobra.Command, src source) map[string]string {
	out := map[string]string{}
	c.InitDefaultHelpCmd()
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		c.InitDefaultHelpFlag()
		out[title(c)+".1"] = page(c, src)
		for _, s := range c.Commands() {
			if !s.Hidden {
				walk(s)
			}
		}
	}
	walk(c)
	return out
}

// title is a page's name: fathom-trace-graph.
func title(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// roff collects a page.
type roff struct{ strings.Builder }

// line adds a line of text; a line that begins with a dot or a quote is no request.
func (r *roff) line(s string) {
	s = escape(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	r.WriteString(s + "\n")
}

// section begins a section.
func (r *roff) section(name string) { fmt.Fprintf(r, ".SH %s\n", name) }

func escape(s string) string {
	var b strings.Builder
	for _, c := range s {
		switch {
		case c == '\\':
			b.WriteString(`\e`)
		case c == '-':
			b.WriteString(`\-`)
		case c == '\'':
			b.WriteString(`\(aq`)
		case c == '^':
			b.WriteString(`\(ha`)
		case c == '~':
			b.WriteString(`\(ti`)
		case c == '`':
			b.WriteString(`\(ga`)
		case c > 126:
			fmt.Fprintf(&b, `\[u%04X]`, c)
		default:
			b.WriteRune(c)
		}
	}
	return b.String()
}

func page(c *cobra.Command, src source) string {
	r := &roff{}
	fmt.Fprintf(r, ".TH %s 1 %s \"fathom %s\" \"User Commands\"\n", strings.ToUpper(title(c)), src.date, src.version)
	r.section("NAME")
	fmt.Fprintf(r, "%s \\- %s\n", title(c), escape(c.Short))
	r.section("SYNOPSIS")
	r.WriteString(".nf\n")
	r.line(c.UseLine())
	if c.HasAvailableSubCommands() && c.Runnable() {
		r.line(c.CommandPath() + " VERB …")
	}
	r.WriteString(".fi\n")
	r.section("DESCRIPTION")
	text, examples, _ := strings.Cut(c.Long, "\nExamples:\n")
	if text == "" {
		text = c.Short + "."
	}
	r.paragraphs(text)
	if c.HasAvailableSubCommands() {
		r.section("VERBS")
		for _, s := range c.Commands() {
			if !s.Hidden {
				fmt.Fprintf(r, ".TP\n.BR %s (1)\n", escape(title(s)))
				r.line(s.Short + ".")
			}
		}
	}
	r.options(c)
	if examples != "" {
		r.section("EXAMPLES")
		r.WriteString(".nf\n")
		for l := range strings.Lines(examples) {
			r.line(strings.TrimSpace(l))
		}
		r.WriteString(".fi\n")
	}
	r.section(`"EXIT STATUS"`)
	r.line("0: done. 1: the answer is no. 2: the command line means nothing. 3: data was lost, with --strict. 65: bad input. 66: no input. " +
		"69: the kernel lacks it. 70: a bug of fathom. 77: not permitted.")
	r.also(c)
	return r.String()
}

// paragraphs fills text, but leaves what is indented as it is.
func (r *roff) paragraphs(text string) {
	verbatim, blank := false, false
	for l := range strings.Lines(strings.TrimSpace(text)) {
		l = strings.TrimRight(l, "\n")
		if l == "" {
			blank = true
			continue
		}
		switch indented := strings.HasPrefix(l, "  "); {
		case indented && !verbatim:
			r.WriteString(".PP\n.nf\n")
		case !indented && verbatim:
			r.WriteString(".fi\n.PP\n")
		case blank && !verbatim:
			r.WriteString(".PP\n")
		}
		verbatim, blank = strings.HasPrefix(l, "  "), false
		r.line(l)
	}
	if verbatim {
		r.WriteString(".fi\n")
	}
}

func (r *roff) options(c *cobra.Command) {
	r.section("OPTIONS")
	c.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		name := `\fB` + escape("--"+f.Name) + `\fR`
		if f.Shorthand != "" {
			name = `\fB` + escape("-"+f.Shorthand) + `\fR, ` + name
		}
		if value != "" {
			name += ` \fI` + escape(value) + `\fR`
		}
		fmt.Fprintf(r, ".TP\n%s\n", name)
		r.line(usage)
	})
}

// also names the pages around this one.
func (r *roff) also(c *cobra.Command) {
	var near []string
	if c.HasParent() {
		near = append(near, title(c.Parent()))
		for _, s := range c.Parent().Commands() {
			if !s.Hidden && s != c {
				near = append(near, title(s))
			}
		}
	} else {
		near = []string{"fathom-trace", "fathom-help"}
	}
	r.section(`"SEE ALSO"`)
	for i, n := range near {
		comma := " ,"
		if i == len(near)-1 {
			comma = ""
		}
		fmt.Fprintf(r, ".BR %s (1)%s\n", escape(n), comma)
	}
}
