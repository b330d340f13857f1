package spec

import "strings"

// token is a word, or one of ; { } (a newline is a ;). Quoted words are never punctuation.
type token struct {
	text   string
	pos    Pos
	quoted bool
}

func (t token) is(s string) bool { return !t.quoted && t.text == s }

// scan cuts the text into tokens; the last is empty, at the end.
func scan(text string) ([]token, error) {
	s := scanner{text: text, pos: Pos{1, 1}}
	for s.off < len(s.text) {
		if err := s.next(); err != nil {
			return nil, err
		}
	}
	return append(s.out, token{pos: s.pos, text: ""}), nil
}

type scanner struct {
	text string
	off  int
	pos  Pos
	out  []token
}

func (s *scanner) step() {
	if s.text[s.off] == '\n' {
		s.pos = Pos{s.pos.Line + 1, 0}
	}
	s.pos.Col++
	s.off++
}

func (s *scanner) next() error {
	switch c := s.text[s.off]; c {
	case ' ', '\t', '\r':
		s.step()
	case '#':
		for s.off < len(s.text) && s.text[s.off] != '\n' {
			s.step()
		}
	case '\n':
		s.out = append(s.out, token{text: ";", pos: s.pos})
		s.step()
	case ';', '{', '}':
		s.out = append(s.out, token{text: string(c), pos: s.pos})
		s.step()
	default:
		return s.word()
	}
	return nil
}

// word reads up to a blank or punctuation. Quotes may begin anywhere in it: netem="delay 10ms".
func (s *scanner) word() error {
	t := token{pos: s.pos}
	var b strings.Builder
	for s.off < len(s.text) && !strings.ContainsRune(" \t\r\n;{}#", rune(s.text[s.off])) {
		c := s.text[s.off]
		if c != '"' && c != '\'' {
			b.WriteByte(c)
			s.step()
			continue
		}
		from := s.pos
		t.quoted = true
		for s.step(); s.off < len(s.text) && s.text[s.off] != c; s.step() {
			b.WriteByte(s.text[s.off])
		}
		if s.off == len(s.text) {
			return &Error{Pos: from, Msg: "quote without an end"}
		}
		s.step()
	}
	t.text = b.String()
	s.out = append(s.out, t)
	return nil
}
