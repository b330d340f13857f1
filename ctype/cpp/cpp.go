// Package cpp is the C preprocessor, as far as reading declarations from headers needs it: it turns files into tokens
// with directives carried out and macros expanded, and tells what object-like macros stand for. It is no front end:
// digraphs, trigraphs and #line are unknown, and diagnostics are for people who wrote three lines, not three files.
//
// Authority: ISO C11 6.10; the expansion algorithm is that of Dave Prosser's note to X3J11 (hide sets).
package cpp

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// Token is one preprocessing token.
type Token struct {
	Text string
	File string // the file it stands in; for what a macro gave, the file of the macro's use
	Off  int    // bytes from the start of that file

	space bool // blank before it
	bol   bool // first of its line
	word  bool // an identifier
	hide  *hidden
}

// hidden is a set of macros that a token must not be expanded by again.
type hidden struct {
	name string
	next *hidden
}

func (h *hidden) has(name string) bool {
	for ; h != nil; h = h.next {
		if h.name == name {
			return true
		}
	}
	return false
}

// Error is what is wrong at a place.
type Error struct {
	File string
	Off  int
	Msg  string
}

func (e *Error) Error() string { return e.Msg }

// Files gives the text of headers.
type Files interface {
	// Open finds a header by the name between the quotes or brackets. from is the path of the file that includes it; after
	// is set for #include_next: the search begins behind the folder from was found in. An absent header is fs.ErrNotExist.
	Open(name, from string, quoted, after bool) (path, text string, err error)
}

// Options say what is there beside the text itself.
type Options struct {
	Arch   string            // GOARCH whose compiler is imitated, default amd64
	Files  Files             // nil finds nothing
	Define map[string]string // macros given beforehand: name → text
	// Absent decides about headers that are not found: true goes on without one.
	Absent func(name string) bool
}

// Limits of one run; headers of a whole system stay far below.
const (
	maxDepth  = 200     // nested includes
	maxTokens = 4 << 20 // in all
	maxBytes  = 64 << 20
)

// Preprocessor holds macros between texts. It is not safe for concurrent use.
type Preprocessor struct {
	o      Options
	macros map[string]*macro
	once   map[string]bool
	depth  int
	tokens int
	bytes  int
	// expanded counts tokens that macros gave.
	expanded int

	out  []Token
	errs []*Error
}

// New returns a Preprocessor that knows what a compiler of the architecture defines.
func New(o Options) *Preprocessor {
	p := &Preprocessor{o: o, macros: map[string]*macro{}, once: map[string]bool{}}
	for _, defs := range []map[string]string{predefined, predefinedArch[o.Arch == "arm64"], o.Define} {
		for name, text := range defs {
			p.macros[name] = &macro{name: name, body: lex("", text)}
		}
	}
	return p
}

// Run preprocesses a text under a name and gives its tokens, those of included headers in their places. Macros stay for
// the next text. What can be read is given also where something is wrong.
func (p *Preprocessor) Run(name, text string) ([]Token, []*Error) {
	p.out, p.errs = nil, nil
	p.file(name, text)
	return p.out, p.errs
}

// Macro gives what an object-like macro stands for, expanded, as text.
func (p *Preprocessor) Macro(name string) (string, bool) {
	m := p.macros[name]
	if m == nil || m.params != nil {
		return "", false
	}
	return Text(p.expand([]Token{{Text: name, word: true}})), true
}

// Value gives what a macro stands for if that is an integer constant.
func (p *Preprocessor) Value(name string) (int64, bool) {
	m := p.macros[name]
	if m == nil || m.params != nil {
		return 0, false
	}
	ts := p.expand([]Token{{Text: name, word: true}})
	for _, t := range ts {
		if t.word {
			return 0, false
		}
	}
	n, err := Evaluate(ts)
	return n, err == nil && len(ts) > 0
}

// Text joins tokens with blanks where they had some.
func Text(ts []Token) string {
	var b strings.Builder
	for i, t := range ts {
		if i > 0 && (t.space || t.bol) {
			b.WriteByte(' ')
		}
		b.WriteString(t.Text)
	}
	return b.String()
}

func (p *Preprocessor) fail(t Token, format string, args ...any) {
	p.errs = append(p.errs, &Error{File: t.File, Off: t.Off, Msg: fmt.Sprintf(format, args...)})
}

// file takes one file line by line: directives are carried out, the rest is expanded in runs between them, since the
// arguments of a macro may stand on several lines.
func (p *Preprocessor) file(name, text string) {
	if p.bytes += len(text); p.bytes > maxBytes {
		p.fail(Token{File: name}, "headers of more than %d bytes", maxBytes)
		return
	}
	ts := lex(name, text)
	if p.tokens += len(ts); p.tokens > maxTokens {
		p.fail(Token{File: name}, "headers of more than %d tokens", maxTokens)
		return
	}
	var conds []cond
	start := 0
	active := func() bool { return len(conds) == 0 || conds[len(conds)-1].on }
	flush := func(end int) {
		if active() && start < end {
			p.out = append(p.out, p.expand(ts[start:end])...)
		}
	}
	for i := 0; i < len(ts); {
		if ts[i].Text != "#" || !ts[i].bol {
			i++
			continue
		}
		end := i + 1
		for end < len(ts) && !ts[end].bol {
			end++
		}
		flush(i)
		conds = p.directive(ts[i], ts[i+1:end], conds)
		start, i = end, end
	}
	flush(len(ts))
	if len(conds) > 0 {
		p.fail(conds[len(conds)-1].at, "unterminated #if")
	}
}

// cond is an open #if: on says that its lines count, taken that one of its branches did, outer that those around count.
type cond struct {
	on, taken, outer, last bool
	at                     Token
}

// directive carries out one directive; line is what follows the #.
func (p *Preprocessor) directive(hash Token, line []Token, conds []cond) []cond {
	if len(line) == 0 {
		return conds
	}
	name, args := line[0].Text, line[1:]
	on := len(conds) == 0 || conds[len(conds)-1].on
	switch name {
	case "if", "ifdef", "ifndef":
		c := cond{outer: on, at: hash}
		if on {
			c.on = p.condition(name, line[0], args)
			c.taken = c.on
		}
		return append(conds, c)
	case "elif", "else", "endif":
		if len(conds) == 0 {
			p.fail(line[0], "#%s without #if", name)
			return conds
		}
		if name == "endif" {
			return conds[:len(conds)-1]
		}
		c := &conds[len(conds)-1]
		was := c.taken
		c.on = c.outer && !was && !c.last && (name == "else" || p.condition("if", line[0], args))
		c.taken, c.last = was || c.on, c.last || name == "else"
		return conds
	}
	if !on {
		return conds
	}
	switch name {
	case "define":
		p.define(line[0], args)
	case "undef":
		if len(args) > 0 {
			delete(p.macros, args[0].Text)
		}
	case "include", "include_next", "import":
		p.include(line[0], args)
	case "pragma":
		if len(args) > 0 && args[0].Text == "once" {
			p.once[hash.File] = true
		}
	case "error":
		p.fail(line[0], "#error %s", Text(args))
	}
	return conds
}

// condition is the truth of #if, #ifdef and #ifndef.
func (p *Preprocessor) condition(name string, at Token, args []Token) bool {
	if name != "if" {
		if len(args) == 0 {
			p.fail(at, "#%s wants a name", name)
			return false
		}
		return (p.macros[args[0].Text] != nil) == (name == "ifdef")
	}
	ts, err := p.operators(args)
	if err == nil {
		var n int64
		if ts, err = p.operators(p.expand(ts)); err == nil { // macros may stand for operators
			if n, err = Evaluate(ts); err == nil {
				return n != 0
			}
		}
	}
	p.fail(at, "#if: %v", err)
	return false
}

// include reads a header.
func (p *Preprocessor) include(at Token, args []Token) {
	name, quoted, ok := headerName(args)
	if !ok {
		name, quoted, ok = headerName(p.expand(args))
	}
	if !ok {
		p.fail(at, "#include expects \"FILENAME\" or <FILENAME>")
		return
	}
	path, text, err := p.open(name, at.File, quoted, at.Text == "include_next")
	switch {
	case errors.Is(err, fs.ErrNotExist) && p.o.Absent != nil && p.o.Absent(name):
		return
	case errors.Is(err, fs.ErrNotExist):
		p.fail(at, "'%s' file not found", name)
		return
	case err != nil:
		p.fail(at, "'%s': %v", name, err)
		return
	case p.once[path]:
		return
	}
	if p.depth++; p.depth > maxDepth {
		p.fail(at, "#include nested too deeply")
	} else {
		p.file(path, text)
	}
	p.depth--
}

// open asks Files, then for what comes with every compiler.
func (p *Preprocessor) open(name, from string, quoted, after bool) (path, text string, err error) {
	err = fs.ErrNotExist
	if p.o.Files != nil {
		path, text, err = p.o.Files.Open(name, from, quoted, after)
	}
	if errors.Is(err, fs.ErrNotExist) {
		if text, ok := compilerHeaders[name]; ok && from != "<"+name+">" {
			return "<" + name + ">", text, nil
		}
	}
	return path, text, err
}

// headerName reads "name" or <name>.
func headerName(ts []Token) (name string, quoted, ok bool) {
	if len(ts) == 0 {
		return "", false, false
	}
	if t := ts[0].Text; t[0] == '"' && len(t) > 2 {
		return t[1 : len(t)-1], true, true
	}
	if ts[0].Text != "<" {
		return "", false, false
	}
	var b strings.Builder
	for _, t := range ts[1:] {
		if t.Text == ">" {
			return b.String(), false, b.Len() > 0
		}
		b.WriteString(t.Text)
	}
	return "", false, false
}
