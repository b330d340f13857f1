package syntax

import (
	"fmt"
	"sort"
	"strings"
)

// kind classifies a token.
type kind uint8

const (
	tEOF   kind = iota
	tIdent      // name, keyword or type: text
	tVar        // $name: text keeps the $
	tMap        // @ or @name: text keeps the @
	tParam      // $N or $#: val
	tInt        // integer: val, duration
	tStr        // string: text without escapes
	tOp         // operator or punctuation: text
	tBad        // a byte that begins no token: text
)

// token is one lexeme. err, when set, is reported once, when the parser consumes the token.
type token struct {
	kind       kind
	start, end int // byte offsets
	text       string
	val        uint64
	duration   bool
	err        *scanError
}

// scanError is what is wrong inside a token, at start..end.
type scanError struct {
	start, end int
	msg        string
}

// is reports whether the token is the operator op.
func (t token) is(op string) bool { return t.kind == tOp && t.text == op }

// isWord reports whether the token is the bare word w.
func (t token) isWord(w string) bool { return t.kind == tIdent && t.text == w }

// scanner cuts a Source into tokens. Its only state is an offset, so looking ahead is copying it.
type scanner struct {
	text string
	off  int
}

// operators, longest first: the first that matches is taken.
var operators = [...]string{
	"<<=", ">>=",
	"+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "==", "!=", "<=", ">=", "<<", ">>", "&&", "||", "++", "--", "->", "..",
	"+", "-", "*", "/", "%", "&", "|", "^", "=", "<", ">", "!", "~", "(", ")", "{", "}", "[", "]", ",", ";", ":", "?", ".", "#",
}

// at gives the byte at off+n, 0 past the end.
func (s *scanner) at(n int) byte {
	if s.off+n < len(s.text) {
		return s.text[s.off+n]
	}
	return 0
}

// next scans one token after skipping layout.
func (s *scanner) next() token {
	s.layout()
	start := s.off
	c := s.at(0)
	switch {
	case start >= len(s.text):
		return token{kind: tEOF, start: start, end: start}
	case isLetter(c):
		return s.span(tIdent, start, s.word(start))
	case isDigit(c):
		return s.integer()
	case c == '"':
		return s.str()
	case c == '@':
		return s.span(tMap, start, s.word(start+1))
	case c == '$':
		return s.dollar()
	}
	for _, op := range operators {
		if strings.HasPrefix(s.text[start:], op) {
			return s.span(tOp, start, start+len(op))
		}
	}
	return s.span(tBad, start, start+1)
}

// span makes the token text[start:end] and moves past it.
func (s *scanner) span(k kind, start, end int) token {
	s.off = end
	return token{kind: k, start: start, end: end, text: s.text[start:end]}
}

// word gives the end of the name beginning at off, off itself when none begins there.
func (s *scanner) word(off int) int {
	if off >= len(s.text) || !isLetter(s.text[off]) {
		return off
	}
	for off < len(s.text) && (isLetter(s.text[off]) || isDigit(s.text[off])) {
		off++
	}
	return off
}

// layout skips white space and comments. An unterminated comment reaches to the end.
func (s *scanner) layout() {
	for s.off < len(s.text) {
		switch c := s.text[s.off]; {
		case c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '\v' || c == '\f':
			s.off++
		case c == '/' && s.at(1) == '/':
			s.until("\n", 2)
		case c == '/' && s.at(1) == '*':
			s.until("*/", 2)
		default:
			return
		}
	}
}

// until moves past the next end at or after off+skip, or to the end of the text.
func (s *scanner) until(end string, skip int) {
	from := s.off + skip
	if i := strings.Index(s.text[from:], end); i >= 0 {
		s.off = from + i + len(end)
	} else {
		s.off = len(s.text)
	}
}

// dollar scans $name, $N and $#.
func (s *scanner) dollar() token {
	start := s.off
	if s.at(1) == '#' {
		return s.span(tParam, start, start+2)
	}
	if !isDigit(s.at(1)) {
		t := s.span(tVar, start, s.word(start+1))
		if len(t.text) == 1 {
			t.err = &scanError{start, t.end, "expected identifier after '$'"}
		}
		return t
	}
	end := start + 1
	for end < len(s.text) && isDigit(s.text[end]) {
		end++
	}
	t := s.span(tParam, start, end)
	n, overflow := digits(t.text[1:], 10)
	if overflow || n == 0 || n > 1<<63-1 {
		msg := fmt.Sprintf("param %s is out of integer range [1, 9223372036854775807]", t.text)
		t.err = &scanError{start, end, msg}
		n = 1
	}
	t.val = n
	return t
}

// unterminated is the error after which nothing on the line makes sense.
const unterminated = "unterminated string"

// str scans a string literal and resolves its escapes.
func (s *scanner) str() token {
	t := token{kind: tStr, start: s.off}
	var b strings.Builder
	bad := func(start int, format string, args ...any) {
		if t.err == nil {
			t.err = &scanError{start, s.off, fmt.Sprintf(format, args...)}
		}
	}
	s.off++
	for {
		switch c := s.at(0); {
		case s.off >= len(s.text) || c == '\n':
			bad(s.off, unterminated)
			t.end, t.text = s.off, b.String()
			return t
		case c == '"':
			s.off++
			t.end, t.text = s.off, b.String()
			return t
		case c == '\\':
			s.escape(&b, bad)
		default:
			b.WriteByte(c)
			s.off++
		}
	}
}

// escape resolves one backslash sequence into b.
func (s *scanner) escape(b *strings.Builder, bad func(start int, format string, args ...any)) {
	start := s.off
	s.off++
	c := s.at(0)
	switch {
	case s.off >= len(s.text):
		return
	case c >= '0' && c <= '7':
		v := s.digitsOf(8, 3)
		if v > 0xff {
			bad(start, "octal escape sequence out of range '%s'", s.text[start:s.off])
		}
		b.WriteByte(byte(v))
		return
	case c == 'x' || c == 'X':
		s.off++
		from := s.off
		v := s.digitsOf(16, 2)
		if s.off == from {
			bad(start, "invalid hex escape sequence")
			return
		}
		b.WriteByte(byte(v))
		return
	}
	s.off++
	if i := strings.IndexByte(`ntr"\`, c); i >= 0 {
		b.WriteByte("\n\t\r\"\\"[i])
		return
	}
	bad(start, "invalid escape character '\\%c'", c)
}

// digitsOf reads up to n digits of the given base.
func (s *scanner) digitsOf(base, n int) int {
	v := 0
	for i := 0; i < n; i++ {
		d := digitVal(s.at(0))
		if d >= base {
			break
		}
		v = v*base + d
		s.off++
	}
	return v
}

func isLetter(c byte) bool { return c == '_' || c|0x20 >= 'a' && c|0x20 <= 'z' }
func isDigit(c byte) bool  { return c >= '0' && c <= '9' }

// digitVal gives the value of a digit up to base 16, 99 for anything else.
func digitVal(c byte) int {
	switch {
	case isDigit(c):
		return int(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return 99
}

// lineTable turns offsets into positions.
type lineTable []int // offset of the first byte of every line

func newLineTable(text string) lineTable {
	t := lineTable{0}
	for i := 0; i < len(text); i++ {
		if text[i] == '\n' {
			t = append(t, i+1)
		}
	}
	return t
}

func (t lineTable) pos(off int) Pos {
	n := sort.SearchInts(t, off+1)
	return Pos{Line: n, Col: off - t[n-1] + 1, Off: off}
}
