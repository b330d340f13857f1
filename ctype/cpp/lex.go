package cpp

import "strings"

// puncts are the operators of more than one character that matter here, longest first.
var puncts = []string{"...", "##", "<<", ">>", "<=", ">=", "==", "!=", "&&", "||", "->"}

// prefixes of wide strings and characters.
var prefixes = map[string]bool{"L": true, "u": true, "U": true, "u8": true}

// Lex splits a text into preprocessing tokens (C11 6.4) without preprocessing them. Comments are blanks.
func Lex(file, text string) []Token { return lex(file, text) }

func lex(file, s string) []Token {
	var out []Token
	space, bol := false, true
	add := func(i, j int, word bool) {
		out = append(out, Token{Text: s[i:j], File: file, Off: i, space: space, bol: bol, word: word})
		space, bol = false, false
	}
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '\n':
			bol, i = true, i+1
		case c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f':
			space, i = true, i+1
		case c == '\\' && continued(s, i) > 0:
			space, i = true, i+continued(s, i)
		case strings.HasPrefix(s[i:], "//"):
			space = true
			for i < len(s) && s[i] != '\n' {
				if n := continued(s, i); n > 0 {
					i += n
					continue
				}
				i++
			}
		case strings.HasPrefix(s[i:], "/*"):
			end := strings.Index(s[i+2:], "*/")
			if end < 0 {
				return out
			}
			space, i = true, i+2+end+2
		case isWord(c) && !isDigit(c):
			j := i + 1
			for j < len(s) && isWord(s[j]) {
				j++
			}
			if j < len(s) && (s[j] == '"' || s[j] == '\'') && prefixes[s[i:j]] {
				j = literal(s, j)
				add(i, j, false)
				i = j
				break
			}
			add(i, j, true)
			i = j
		case isDigit(c) || c == '.' && i+1 < len(s) && isDigit(s[i+1]):
			j := number(s, i)
			add(i, j, false)
			i = j
		case c == '"' || c == '\'':
			j := literal(s, i)
			add(i, j, false)
			i = j
		default:
			j := i + 1
			for _, p := range puncts {
				if strings.HasPrefix(s[i:], p) {
					j = i + len(p)
					break
				}
			}
			add(i, j, false)
			i = j
		}
	}
	return out
}

// continued gives the length of a backslash and the end of line it hides, 0 if there is none at i.
func continued(s string, i int) int {
	if s[i] != '\\' {
		return 0
	}
	j := i + 1
	for j < len(s) && (s[j] == ' ' || s[j] == '\t' || s[j] == '\r') {
		j++
	}
	if j < len(s) && s[j] == '\n' {
		return j + 1 - i
	}
	return 0
}

// number gives the end of a preprocessing number (C11 6.4.8).
func number(s string, i int) int {
	for i < len(s) {
		c := s[i]
		if (c == '+' || c == '-') && i > 0 && strings.IndexByte("eEpP", s[i-1]) >= 0 {
			i++
			continue
		}
		if !isWord(c) && c != '.' {
			break
		}
		i++
	}
	return i
}

// literal gives the end of a string or character constant; one that does not end on its line ends with it.
func literal(s string, i int) int {
	q := s[i]
	for j := i + 1; j < len(s); j++ {
		switch s[j] {
		case '\\':
			j++
		case q:
			return j + 1
		case '\n':
			return j
		}
	}
	return len(s)
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isWord(c byte) bool {
	return c == '_' || c == '$' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || isDigit(c) || c >= 0x80
}
