package filter

import (
	"net/netip"
	"strings"
)

// kind is what a token is.
type kind uint8

const (
	kEOF kind = iota
	kNum
	kName   // a name, or a word escaped with a backslash
	kV4     // 1 to 4 numbers with dots: 10.1
	kV6     // an IPv6 address
	kMAC    // a MAC address
	kSymbol // operators; text says which
	kProtocol
	kDirection // src dst addr1 … ra ta
	kAddrType  // host net port portrange proto protochain gateway
	kWord      // every other word of the language
)

// token is a piece of the expression with its place in bytes.
type token struct {
	kind     kind
	text     string
	pos, end int
	num      uint32 // kNum
	proto    proto  // kProtocol
}

// is says if t is that operator or word of the language.
func (t token) is(text string) bool {
	return (t.kind == kSymbol || t.kind >= kProtocol) && t.text == text
}

// symbols by length, longest first.
var symbols = []string{"&&", "||", ">=", "<=", "!=", "==", "<<", ">>"}

// synonyms are spellings of the same thing.
var synonyms = map[string]string{
	"&&": "and", "||": "or", "not": "!", "==": "=", "length": "len", "ppp": "ether", "slip": "ether", "link": "ether",
	"fddi": "ether", "tr": "ether", "wlan": "ether", "es-is": "esis", "is-is": "isis", "ifname": "on", "ruleset": "rset",
	"rulenum": "rnr", "subrulenum": "srnr", "direction": "dir", "address1": "addr1", "address2": "addr2",
	"address3": "addr3", "address4": "addr4", "lsu": "lssu",
}

// words are the rest of the language's words by kind.
var words = map[string]kind{
	"src": kDirection, "dst": kDirection, "addr1": kDirection, "addr2": kDirection, "addr3": kDirection, "addr4": kDirection,
	"ra": kDirection, "ta": kDirection,
	"host": kAddrType, "net": kAddrType, "port": kAddrType, "portrange": kAddrType, "proto": kAddrType, "protochain": kAddrType,
	"gateway": kAddrType,
	"and":     kWord, "or": kWord, "!": kSymbol, "mask": kWord, "less": kWord, "greater": kWord, "byte": kWord,
	"broadcast": kWord, "multicast": kWord, "len": kWord, "inbound": kWord, "outbound": kWord, "ifindex": kWord,
	"vlan": kWord, "mpls": kWord, "pppoed": kWord, "pppoes": kWord, "geneve": kWord, "vxlan": kWord, "llc": kWord,
}

// scan cuts an expression into tokens, the last of which is kEOF. As in libpcap's scanner the longest match wins.
func scan(src string) ([]token, *Error) {
	var toks []token
	for pos := 0; ; {
		for pos < len(src) && strings.IndexByte(" \r\n\t", src[pos]) >= 0 {
			pos++
		}
		if pos == len(src) {
			return append(toks, token{kind: kEOF, pos: pos, end: pos}), nil
		}
		t, err := next(src, pos)
		if err != nil {
			return nil, err
		}
		toks = append(toks, t)
		pos = t.end
	}
}

// next reads the token at pos.
func next(src string, pos int) (token, *Error) {
	rest := src[pos:]
	if t, ok := address(rest, pos); ok {
		return t, nil
	}
	if n := nameLen(rest); n > 0 {
		return word(src, pos, rest[:n])
	}
	if rest[0] == '\\' {
		n := strings.IndexAny(rest, " !()\n\t")
		if n < 0 {
			n = len(rest)
		}
		if n > 1 {
			return token{kind: kName, text: rest[1:n], pos: pos, end: pos + n}, nil
		}
	}
	for _, s := range symbols {
		if strings.HasPrefix(rest, s) {
			return symbol(s, pos), nil
		}
	}
	if strings.IndexByte("+-*/%:[]!<>()&|^=", rest[0]) >= 0 {
		return symbol(rest[:1], pos), nil
	}
	msg := "unexpected character " + quote(rest[:1])
	if rest[0] == '$' {
		msg = "ARCNET addresses are not supported"
	}
	return token{}, &Error{Expr: src, Pos: pos, End: pos + 1, Msg: msg}
}

func symbol(s string, pos int) token {
	t := token{kind: kSymbol, text: s, pos: pos, end: pos + len(s)}
	if w, ok := synonyms[s]; ok {
		t.text = w
	}
	return t
}

// word reads numbers, words of the language and names.
func word(src string, pos int, s string) (token, *Error) {
	t := token{kind: kName, text: s, pos: pos, end: pos + len(s)}
	if n := numberLen(s); n == len(s) {
		v, msg := parseNumber(s)
		if msg != "" {
			return t, &Error{Expr: src, Pos: pos, End: t.end, Msg: msg}
		}
		t.kind, t.num = kNum, v
		return t, nil
	}
	if v, ok := constants[s]; ok {
		t.kind, t.num = kNum, v
		return t, nil
	}
	if w, ok := synonyms[s]; ok {
		s = w
	}
	if k, ok := words[s]; ok {
		t.kind, t.text = k, s
	} else if p, ok := protoWords[s]; ok {
		t.kind, t.text, t.proto = kProtocol, s, p
	} else if _, ok := foreign[s]; ok {
		t.kind, t.text = kWord, s
	}
	return t, nil
}

// nameLen gives the length of [A-Za-z0-9]([-_.A-Za-z0-9]*[.A-Za-z0-9])? at the start of s.
func nameLen(s string) int {
	if !alnum(s[0]) {
		return 0
	}
	n := 1
	for n < len(s) && (alnum(s[n]) || strings.IndexByte("-_.", s[n]) >= 0) {
		n++
	}
	for s[n-1] == '-' || s[n-1] == '_' {
		n--
	}
	return n
}

func alnum(c byte) bool { return digit(c) || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }
func digit(c byte) bool { return c >= '0' && c <= '9' }
func hex(c byte) bool   { return digit(c) || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' }

// numberLen gives the length of the number at the start of s: decimal digits, or 0x and hexadecimal ones.
func numberLen(s string) int {
	if len(s) > 2 && s[0] == '0' && (s[1] == 'x' || s[1] == 'X') && hex(s[2]) {
		return 2 + span(s[2:], hex)
	}
	return span(s, digit)
}

func span(s string, in func(byte) bool) int {
	n := 0
	for n < len(s) && in(s[n]) {
		n++
	}
	return n
}

// parseNumber reads a number as C writes them; msg says what is wrong with it.
func parseNumber(s string) (v uint32, msg string) {
	base, digits := uint64(10), s
	switch {
	case len(s) > 1 && (s[1] == 'x' || s[1] == 'X'):
		base, digits = 16, s[2:]
	case s[0] == '0':
		base = 8
	}
	n := uint64(0)
	for i := range len(digits) {
		d := uint64(nibble(digits[i]))
		if d >= base {
			return 0, "number " + s + " starts with 0, so it is octal, and has the digit " + digits[i:i+1]
		}
		if n = n*base + d; n > 0xffffffff {
			return 0, "number " + s + " does not fit 32 bits"
		}
	}
	return uint32(n), ""
}

func nibble(c byte) byte {
	switch {
	case digit(c):
		return c - '0'
	case c >= 'a':
		return c - 'a' + 10
	}
	return c - 'A' + 10
}

// address reads the longest address at the start of s, if no name is longer.
func address(s string, pos int) (token, bool) {
	if !hex(s[0]) && s[0] != ':' {
		return token{}, false
	}
	k, n := kMAC, macLen(s)
	if v := v6Len(s); v > n {
		k, n = kV6, v
	}
	if v := v4Len(s); v > n {
		k, n = kV4, v
	}
	if n == 0 || n < nameLen(s) {
		return token{}, false
	}
	if _, ok := words[s[:n]]; ok {
		return token{}, false
	}
	return token{kind: k, text: s[:n], pos: pos, end: pos + n}, true
}

// v4Len gives the length of 2 to 4 numbers with dots between.
func v4Len(s string) int {
	n, parts := 0, 0
	for at := 0; parts < 4; parts++ {
		d := numberLen(s[at:])
		if d == 0 {
			break
		}
		n = at + d
		if n == len(s) || s[n] != '.' {
			parts++
			break
		}
		at = n + 1
	}
	if parts < 2 {
		return 0
	}
	return n
}

// macLen gives the length of a MAC address: six bytes of one or two digits with ":", "-" or "." between, or three
// groups of four digits with or without dots.
func macLen(s string) int {
	for _, sep := range ":-." {
		if n := grouped(s, byte(sep), 6, 1, 2); n > 0 {
			return n
		}
	}
	if n := grouped(s, '.', 3, 4, 4); n > 0 {
		return n
	}
	if span(s, hex) >= 12 {
		return 12
	}
	return 0
}

// grouped gives the length of groups of min to max hexadecimal digits with sep between.
func grouped(s string, sep byte, groups, least, most int) int {
	at := 0
	for i := range groups {
		d := min(span(s[at:], hex), most)
		if d < least {
			return 0
		}
		at += d
		if i == groups-1 {
			return at
		}
		if at == len(s) || s[at] != sep {
			return 0
		}
		at++
	}
	return 0
}

// v6Len gives the length of the longest IPv6 address at the start of s.
func v6Len(s string) int {
	n := span(s, func(c byte) bool { return hex(c) || c == ':' || c == '.' })
	const longest = len("ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255")
	for n = min(n, longest); n >= 2; n-- {
		if strings.IndexByte(s[:n], ':') < 0 {
			return 0
		}
		if a, err := netip.ParseAddr(s[:n]); err == nil && a.Is6() {
			return n
		}
	}
	return 0
}
