package syntax

import (
	"fmt"
	"math"
	"math/bits"
	"strings"
)

// suffixes of integer literals: the largest value the literal may have, and what it is multiplied by.
// C's suffixes bound the value and do not type it; durations give nanoseconds.
var suffixes = map[string]struct {
	max, mul uint64
	duration bool
}{
	"":    {max: math.MaxUint64, mul: 1},
	"u":   {max: math.MaxUint32, mul: 1},
	"ul":  {max: math.MaxUint64, mul: 1},
	"ull": {max: math.MaxUint64, mul: 1},
	"l":   {max: math.MaxInt64, mul: 1},
	"ll":  {max: math.MaxInt64, mul: 1},
	"ns":  {math.MaxUint64, 1, true},
	"us":  {math.MaxUint64, 1e3, true},
	"ms":  {math.MaxUint64, 1e6, true},
	"s":   {math.MaxUint64, 1e9, true},
	"m":   {math.MaxUint64, 60e9, true},
	"h":   {math.MaxUint64, 3600e9, true},
	"d":   {math.MaxUint64, 86400e9, true},
}

// integer scans an integer literal: decimal, 0x, 0b, octal, 1e6, with underscores and one suffix.
func (s *scanner) integer() token {
	start, end := s.off, s.off
	for end < len(s.text) && (isLetter(s.text[end]) || isDigit(s.text[end])) {
		end++
	}
	t := s.span(tInt, start, end)
	t.val, t.duration, t.err = parseInt(t.text, start)
	return t
}

// ParseInt reads one integer literal as the scanner does; attach points hold some (interval:1s, hardware:cycles:1e6).
func ParseInt(lit string) (v uint64, duration bool, err error) {
	v, duration, e := parseInt(lit, 0)
	if e != nil {
		return 0, false, fmt.Errorf("%s", e.msg)
	}
	return v, duration, nil
}

// parseInt evaluates the literal lit that stands at offset off.
func parseInt(lit string, off int) (v uint64, duration bool, err *scanError) {
	whole := func(format string, args ...any) (uint64, bool, *scanError) {
		return 0, false, &scanError{off, off + len(lit), fmt.Sprintf(format, args...)}
	}
	mant, exp, suffix, base := splitInt(lit)
	for _, part := range []string{mant, exp} {
		if strings.HasSuffix(part, "_") {
			at := off + strings.Index(lit, part) + len(part) - 1
			return 0, false, &scanError{at, at + 1, "trailing underscore in integer literal"}
		}
	}
	suf, ok := suffixes[strings.ToLower(suffix)]
	if !ok || suf.duration && strings.ToLower(suffix) != suffix {
		n := validSuffix(suffix)
		at := off + len(lit) - len(suffix) + n
		return 0, false, &scanError{at, off + len(lit), fmt.Sprintf("invalid integer suffix '%s'", suffix[n:])}
	}
	v, overflow := digits(mant, base)
	switch {
	case mant == "" || strings.Trim(mant, "_") == "":
		return whole("invalid integer: %s", lit)
	case hasBadDigit(mant, base) || exp == "e":
		return whole("invalid trailing bytes: %s", lit)
	case exp != "" && (v < 1 || v > 9):
		return whole("coefficient part of scientific literal must be 1-9: %s", lit)
	}
	if exp != "" {
		n, big := digits(exp[1:], 10)
		for ; n > 0 && !overflow; n-- {
			v, overflow = mulAdd(v, 10, 0)
		}
		overflow = overflow || big
	}
	if overflow || v > suf.max/suf.mul {
		return whole("overflow error, maximum value is %d: %s", suf.max, lit)
	}
	return v * suf.mul, suf.duration, nil
}

// splitInt cuts a literal into mantissa digits, exponent ("e6", "e" when digits are missing, "" without) and suffix.
func splitInt(lit string) (mant, exp, suffix string, base uint64) {
	base, rest := 10, lit
	switch {
	case strings.HasPrefix(lit, "0x") || strings.HasPrefix(lit, "0X"):
		base, rest = 16, lit[2:]
	case strings.HasPrefix(lit, "0b") || strings.HasPrefix(lit, "0B"):
		base, rest = 2, lit[2:]
	case len(lit) > 1 && lit[0] == '0' && isDigit(lit[1]):
		base, rest = 8, lit[1:]
	}
	n := run(rest, base == 16)
	mant, rest = rest[:n], rest[n:]
	if base == 10 && rest != "" && rest[0]|0x20 == 'e' {
		n = 1 + run(rest[1:], false)
		exp, rest = strings.ToLower(rest[:n]), rest[n:]
	}
	return mant, exp, rest, base
}

// run counts the digits and underscores s begins with.
func run(s string, hex bool) int {
	n := 0
	for n < len(s) && (isDigit(s[n]) || s[n] == '_' || hex && digitVal(s[n]) < 16) {
		n++
	}
	return n
}

// validSuffix gives the length of the longest valid suffix that s begins with.
func validSuffix(s string) int {
	for n := len(s); n > 0; n-- {
		if _, ok := suffixes[strings.ToLower(s[:n])]; ok {
			return n
		}
	}
	return 0
}

// hasBadDigit reports a digit beyond the base, as in 0b2 or 09.
func hasBadDigit(s string, base uint64) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r != '_' && uint64(digitVal(byte(r))) >= base })
}

// digits evaluates s in the given base, ignoring underscores.
func digits(s string, base uint64) (v uint64, overflow bool) {
	for i := 0; i < len(s); i++ {
		if s[i] == '_' {
			continue
		}
		var o bool
		v, o = mulAdd(v, base, uint64(digitVal(s[i])))
		overflow = overflow || o
	}
	return v, overflow
}

// mulAdd is v*m + a, and whether it left 64 bits.
func mulAdd(v, m, a uint64) (uint64, bool) {
	hi, lo := bits.Mul64(v, m)
	sum, carry := bits.Add64(lo, a, 0)
	return sum, hi != 0 || carry != 0
}
