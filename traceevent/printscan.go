package traceevent

import (
	"fmt"
	"strconv"
	"strings"
)

// Kinds of tokens.
const (
	tokEnd = iota
	tokIdent
	tokNumber
	tokChar
	tokString
	tokPunct
)

type token struct {
	kind int
	text string // of a string: what it stands for
	num  uint64
	typ  ctyp
}

// scan splits a print fmt into tokens.
func scan(s string) ([]token, error) {
	var out []token
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i++
		case c == '"' || c == '\'':
			text, n, ok := unquote(s[i:])
			if !ok {
				return nil, fmt.Errorf("a literal that does not end")
			}
			t := token{kind: tokString, text: text}
			if c == '\'' {
				t = token{kind: tokChar, text: text, typ: intType}
				if len(text) > 0 {
					t.num = uint64(text[0])
				}
			}
			out = append(out, t)
			i += n
		case c >= '0' && c <= '9':
			n := i
			for n < len(s) && isIdent(s[n]) {
				n++
			}
			t, err := number(s[i:n])
			if err != nil {
				return nil, err
			}
			out = append(out, t)
			i = n
		case isIdent(c):
			n := i
			for n < len(s) && isIdent(s[n]) {
				n++
			}
			out = append(out, token{kind: tokIdent, text: s[i:n]})
			i = n
		default:
			n := 1
			if i+2 <= len(s) && strings.Contains(" -> && || == != <= >= << >> ", " "+s[i:i+2]+" ") {
				n = 2
			}
			out = append(out, token{kind: tokPunct, text: s[i : i+n]})
			i += n
		}
	}
	return out, nil
}

// number reads a C integer with its suffix.
func number(s string) (token, error) {
	digits := strings.TrimRight(s, "uUlL")
	n, err := strconv.ParseUint(digits, 0, 64)
	if err != nil {
		return token{}, fmt.Errorf("the number %s", s)
	}
	suffix := strings.ToLower(s[len(digits):])
	t := ctyp{size: 4, uns: strings.Contains(suffix, "u")}
	dec := !strings.HasPrefix(digits, "0")
	switch {
	case strings.Contains(suffix, "l") || n > 1<<32-1 || dec && !t.uns && n > 1<<31-1:
		t.size = 8
	case n > 1<<31-1:
		t.uns = true
	}
	if n > 1<<63-1 {
		t.uns = true
	}
	return token{kind: tokNumber, text: s, num: t.wrap(n), typ: t}, nil
}

// unquote reads a C literal, and says how long it is with its quotes.
func unquote(s string) (text string, n int, ok bool) {
	quote := s[0]
	var b []byte
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == quote:
			return string(b), i + 1, true
		case s[i] == '\\' && i+1 < len(s):
			i++
			j := strings.IndexByte("abfnrtv", s[i])
			switch {
			case j >= 0:
				b = append(b, "\a\b\f\n\r\t\v"[j])
			case s[i] >= '0' && s[i] <= '7':
				end := i + 1
				for end < len(s) && end < i+3 && s[end] >= '0' && s[end] <= '7' {
					end++
				}
				v, _ := strconv.ParseUint(s[i:end], 8, 16)
				b = append(b, byte(v))
				i = end - 1
			default:
				b = append(b, s[i])
			}
		default:
			b = append(b, s[i])
		}
	}
	return "", 0, false
}
