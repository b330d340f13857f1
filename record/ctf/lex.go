package ctf

import (
	"fmt"
	"strconv"

	"github.com/fathom-trace/fathom/internal/bin"
)

// token of TSDL. kind is 'i' for identifiers, 'n' for numbers, 's' for literals, 0 at the end, and else the character itself;
// ":=" is '=' with text ":=", "..." is '.' with that text, "->" is '>' with that text.
type token struct {
	kind byte
	text string
	num  int64
	off  int
}

type lexer struct {
	text []byte
	at   int
}

// parseError ends parsing.
type parseError struct {
	off int
	msg string
}

func fail(off int, format string, args ...any) {
	panic(parseError{off, fmt.Sprintf(format, args...)})
}

// recoverParse makes an error of a parseError.
func recoverParse(err *error) {
	if e := recover(); e != nil {
		p, ok := e.(parseError)
		if !ok {
			panic(e)
		}
		*err = &bin.FormatError{What: "CTF metadata", Off: int64(p.off), Msg: p.msg}
	}
}

func isWord(c byte) bool {
	return c == '_' || c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9'
}

// skip passes over white space and comments.
func (l *lexer) skip() {
	for l.at < len(l.text) {
		c := l.text[l.at]
		next := byte(0)
		if l.at+1 < len(l.text) {
			next = l.text[l.at+1]
		}
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == 0:
			l.at++
		case c == '/' && next == '/':
			for l.at < len(l.text) && l.text[l.at] != '\n' {
				l.at++
			}
		case c == '/' && next == '*':
			start := l.at
			for l.at += 2; ; l.at++ {
				if l.at+1 >= len(l.text) {
					fail(start, "a comment that does not end")
				}
				if l.text[l.at] == '*' && l.text[l.at+1] == '/' {
					l.at += 2
					break
				}
			}
		default:
			return
		}
	}
}

func (l *lexer) next() token {
	l.skip()
	if l.at >= len(l.text) {
		return token{off: l.at}
	}
	start := l.at
	c := l.text[start]
	switch {
	case c >= '0' && c <= '9':
		for l.at < len(l.text) && isWord(l.text[l.at]) {
			l.at++
		}
		return number(string(l.text[start:l.at]), start)
	case isWord(c):
		for l.at < len(l.text) && isWord(l.text[l.at]) {
			l.at++
		}
		return token{kind: 'i', text: string(l.text[start:l.at]), off: start}
	case c == '"' || c == '\'':
		return l.literal(c)
	}
	for _, op := range []string{":=", "...", "->"} {
		if start+len(op) <= len(l.text) && string(l.text[start:start+len(op)]) == op {
			l.at += len(op)
			return token{kind: op[len(op)-1], text: op, off: start}
		}
	}
	l.at++
	return token{kind: c, text: string(c), off: start}
}

// number reads a C integer; suffixes say nothing here.
func number(s string, off int) token {
	digits := s
	for len(digits) > 1 {
		c := digits[len(digits)-1] | 0x20
		if c != 'u' && c != 'l' {
			break
		}
		digits = digits[:len(digits)-1]
	}
	n, err := strconv.ParseUint(digits, 0, 64)
	if err != nil {
		fail(off, "the number %q", s)
	}
	return token{kind: 'n', text: s, num: int64(n), off: off}
}

func (l *lexer) literal(quote byte) token {
	start := l.at
	var b []byte
	for l.at++; l.at < len(l.text); l.at++ {
		switch c := l.text[l.at]; {
		case c == quote:
			l.at++
			return token{kind: 's', text: string(b), off: start}
		case c == '\\' && l.at+1 < len(l.text):
			l.at++
			b = append(b, l.escape())
		default:
			b = append(b, c)
		}
	}
	fail(start, "a literal that does not end")
	return token{}
}

// escape reads what follows a backslash; at stays on its last character.
func (l *lexer) escape() byte {
	c := l.text[l.at]
	switch c {
	case 'n':
		return '\n'
	case 't':
		return '\t'
	case 'r':
		return '\r'
	}
	if c < '0' || c > '7' {
		return c
	}
	n := 0
	for k := 0; k < 3 && l.at < len(l.text) && l.text[l.at] >= '0' && l.text[l.at] <= '7'; k++ {
		n = n*8 + int(l.text[l.at]-'0')
		l.at++
	}
	l.at--
	return byte(n)
}
