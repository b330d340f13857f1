package cpp

import (
	"slices"
	"strconv"
	"strings"
)

// macro is a definition. params is nil for object-like ones, and not nil, perhaps empty, for those called with arguments.
type macro struct {
	name     string
	params   []string
	variadic bool // the last parameter takes all further arguments
	body     []Token
}

// define reads #define NAME body or #define NAME(params) body.
func (p *Preprocessor) define(at Token, line []Token) {
	if len(line) == 0 || !line[0].word {
		p.fail(at, "#define wants a name")
		return
	}
	m := &macro{name: line[0].Text}
	rest := line[1:]
	if len(rest) > 0 && rest[0].Text == "(" && !rest[0].space {
		end := slices.IndexFunc(rest, func(t Token) bool { return t.Text == ")" })
		if end < 0 {
			p.fail(at, "#define %s: expected ')'", m.name)
			return
		}
		m.params = []string{}
		for _, t := range rest[1:end] {
			switch {
			case t.word:
				m.params = append(m.params, t.Text)
			case t.Text == "...":
				m.variadic = true
			}
		}
		// "..." alone is __VA_ARGS__; after a name it makes that name variadic.
		if m.variadic && (end < 3 || !rest[end-2].word) {
			m.params = append(m.params, "__VA_ARGS__")
		}
		rest = rest[end+1:]
	}
	m.body = rest
	p.macros[m.name] = m
}

// maxExpanded bounds the tokens that all expansions of a Preprocessor make together.
const maxExpanded = 4 << 20

// expand expands all macros in ts.
func (p *Preprocessor) expand(ts []Token) []Token {
	var out []Token
	work := slices.Clone(ts)
	slices.Reverse(work) // a stack: the next token is the last
	for len(work) > 0 {
		t := work[len(work)-1]
		work = work[:len(work)-1]
		m := p.macros[t.Text]
		if m == nil || !t.word || t.hide.has(t.Text) {
			out = append(out, t)
			continue
		}
		if p.expanded > maxExpanded {
			return out
		}
		body := m.body
		hide := t.hide
		if m.params != nil {
			args, rest, close, ok := arguments(work, m)
			if !ok { // its name without arguments is no call
				out = append(out, t)
				continue
			}
			work = rest
			hide = intersect(hide, close)
			body = p.substitute(m, args)
		}
		if p.expanded += 1 + len(body); p.expanded > maxExpanded {
			p.fail(t, "macro expansion is too large")
			return out
		}
		body = slices.Clone(body)
		hide = &hidden{m.name, hide}
		for i := range body {
			body[i].File, body[i].Off, body[i].bol = t.File, t.Off, false
			body[i].hide = union(body[i].hide, hide)
		}
		if len(body) > 0 {
			body[0].space, body[0].bol = t.space, t.bol
		}
		slices.Reverse(body)
		work = append(work, body...)
	}
	return out
}

func intersect(a, b *hidden) *hidden {
	var out *hidden
	for ; a != nil; a = a.next {
		if b.has(a.name) {
			out = &hidden{a.name, out}
		}
	}
	return out
}

func union(a, b *hidden) *hidden {
	for ; a != nil; a = a.next {
		if !b.has(a.name) {
			b = &hidden{a.name, b}
		}
	}
	return b
}

// arguments takes the arguments of a call from the top of the stack. close is the hide set of the closing parenthesis.
func arguments(work []Token, m *macro) (args [][]Token, rest []Token, close *hidden, ok bool) {
	i := len(work) - 1
	if i < 0 || work[i].Text != "(" {
		return nil, nil, nil, false
	}
	depth := 0
	var arg []Token
	for ; i >= 0; i-- {
		t := work[i]
		switch {
		case t.Text == "(":
			if depth++; depth == 1 {
				continue
			}
		case t.Text == ")":
			if depth--; depth == 0 {
				if len(m.params) > 0 || len(arg) > 0 {
					args = append(args, arg)
				}
				for len(args) < len(m.params) {
					args = append(args, nil)
				}
				return args, work[:i], t.hide, len(args) <= len(m.params)
			}
		case t.Text == "," && depth == 1 && !(m.variadic && len(args) >= len(m.params)-1):
			args = append(args, arg)
			arg = nil
			continue
		}
		arg = append(arg, t)
	}
	return nil, nil, nil, false
}

// substitute puts arguments into the body: expanded, but as written beside # and ##.
func (p *Preprocessor) substitute(m *macro, args [][]Token) []Token {
	arg := func(t Token) ([]Token, bool) {
		if i := slices.Index(m.params, t.Text); t.word && i >= 0 {
			return args[i], true
		}
		return nil, false
	}
	var out []Token
	for i := 0; i < len(m.body); i++ {
		t := m.body[i]
		next := func(n int) string {
			if i+n < len(m.body) {
				return m.body[i+n].Text
			}
			return ""
		}
		switch {
		case t.Text == "#" && i+1 < len(m.body):
			if a, ok := arg(m.body[i+1]); ok {
				out = append(out, Token{Text: strconv.Quote(Text(a)), space: t.space})
				i++
				continue
			}
			out = append(out, t)
		case t.Text == "##" && i+1 < len(m.body):
			i++
			right := []Token{m.body[i]}
			if a, ok := arg(m.body[i]); ok {
				right = a
			}
			out = paste(out, right)
		default:
			a, ok := arg(t)
			switch {
			case !ok:
				out = append(out, t)
			case next(1) == "##":
				out = append(out, spaced(a, t.space)...)
				if len(a) == 0 {
					out = append(out, Token{}) // a placemarker, for ## to join with
				}
			default:
				out = append(out, spaced(p.expand(a), t.space)...)
			}
		}
	}
	return slices.DeleteFunc(out, func(t Token) bool { return t.Text == "" })
}

func spaced(ts []Token, space bool) []Token {
	ts = slices.Clone(ts)
	if len(ts) > 0 {
		ts[0].space, ts[0].bol = space, false
	}
	return ts
}

// paste joins the last token of left with the first of right.
func paste(left, right []Token) []Token {
	if len(left) == 0 || len(right) == 0 {
		return append(left, right...)
	}
	l, r := left[len(left)-1], right[0]
	left = left[:len(left)-1]
	joined := lex(l.File, l.Text+r.Text)
	for i := range joined {
		joined[i].space, joined[i].bol = i == 0 && l.space, false
		joined[i].hide = intersect(l.hide, r.hide)
	}
	return append(append(left, joined...), right[1:]...)
}

// operators carries out what only #if knows: defined, __has_include and their like.
func (p *Preprocessor) operators(ts []Token) ([]Token, error) {
	var out []Token
	for i := 0; i < len(ts); i++ {
		t := ts[i]
		if t.Text != "defined" && !strings.HasPrefix(t.Text, "__has_") {
			out = append(out, t)
			continue
		}
		var arg []Token
		n := 1
		if i+1 < len(ts) && ts[i+1].Text == "(" {
			end := slices.IndexFunc(ts[i:], func(t Token) bool { return t.Text == ")" })
			if end < 0 {
				return nil, errorString("expected ')' after " + t.Text)
			}
			arg, n = ts[i+2:i+end], end
		} else if t.Text == "defined" && i+1 < len(ts) {
			arg = ts[i+1 : i+2]
		} else {
			out = append(out, t)
			continue
		}
		i += n
		out = append(out, Token{Text: bit(p.has(t, arg)), File: t.File, Off: t.Off})
	}
	return out, nil
}

func bit(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

func (p *Preprocessor) has(op Token, arg []Token) bool {
	switch op.Text {
	case "defined":
		return len(arg) > 0 && (p.macros[arg[0].Text] != nil || strings.HasPrefix(arg[0].Text, "__has_"))
	case "__has_include", "__has_include_next":
		name, quoted, ok := headerName(arg)
		if !ok {
			return false
		}
		_, _, err := p.open(name, op.File, quoted, op.Text == "__has_include_next")
		return err == nil
	case "__has_attribute":
		return true // what says nothing about layout is left out later
	}
	return false // builtins, features: whoever asks has a way without
}

type errorString string

func (e errorString) Error() string { return string(e) }
