package vm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
)

// conversion is one % of a format string.
type conversion struct {
	flags string // of "-+ 0"; the kernel takes no #
	width int
	long  int // number of l's
	verb  string
}

// maxWidth bounds a field; the kernel's buffers are smaller.
const maxWidth = 512

// format prints as bpf_snprintf and bpf_trace_printk do (bpf_bprintf_prepare):
// %d %i %u %x %X with l and ll, %c, %s, %p, %px, %pK, %pB, %pS, %ps, %pks, %pus,
// %pi4, %pI4, %pi6, %pI6, %%. Anything else is EINVAL, as are missing arguments.
func (m *Machine) format(f string, args []uint64, limit int) ([]byte, Errno) {
	var out []byte
	for f != "" {
		lit, rest, found := strings.Cut(f, "%")
		out = append(out, lit...)
		if !found {
			break
		}
		if strings.HasPrefix(rest, "%") {
			out, f = append(out, '%'), rest[1:]
			continue
		}
		var c conversion
		if c, f = parseConversion(rest); c.verb == "" || len(args) == 0 {
			return nil, EINVAL
		}
		out = append(out, c.pad(m.convert(&c, args[0]))...)
		args = args[1:]
		if len(out) > limit {
			break
		}
	}
	return out[:min(len(out), limit)], 0
}

// verbs, longest first where one begins another.
var verbs = []string{"d", "i", "u", "x", "X", "c", "s", "pi4", "pI4", "pi6", "pI6", "pks", "pus", "px", "pK", "pB", "pS", "ps", "p"}

func parseConversion(s string) (conversion, string) {
	var c conversion
	rest := strings.TrimLeft(s, "-+ 0")
	c.flags = s[:len(s)-len(rest)]
	s = rest
	rest = strings.TrimLeft(s, "0123456789")
	c.width, _ = strconv.Atoi(s[:min(len(s)-len(rest), 4)])
	c.width = min(c.width, maxWidth)
	for c.long < 2 && strings.HasPrefix(rest, "l") {
		rest = rest[1:]
		c.long++
	}
	for _, v := range verbs {
		if strings.HasPrefix(rest, v) && (c.long == 0 || strings.ContainsAny(v[:1], "diuxX")) {
			c.verb = v
			return c, rest[len(v):]
		}
	}
	return c, ""
}

// convert renders one argument, without padding.
func (m *Machine) convert(c *conversion, v uint64) string {
	signed := int64(v)
	if c.long == 0 && strings.ContainsAny(c.verb, "diuxX") && c.verb[0] != 'p' {
		signed, v = int64(int32(v)), uint64(uint32(v))
	}
	switch c.verb {
	case "d", "i":
		return c.sign(signed)
	case "u":
		return strconv.FormatUint(v, 10)
	case "x":
		return strconv.FormatUint(v, 16)
	case "X":
		return strings.ToUpper(strconv.FormatUint(v, 16))
	case "c":
		return string([]byte{byte(v)})
	case "s", "pks", "pus":
		return m.stringAt(v, c.verb == "pus")
	case "pS", "ps", "pB":
		if m.env.Symbol != nil {
			return m.env.Symbol(v)
		}
		return "0x" + strconv.FormatUint(v, 16)
	case "pi4", "pI4", "pi6", "pI6":
		return m.addressAt(c.verb, v)
	case "px":
		return strconv.FormatUint(v, 16)
	}
	return fmt.Sprintf("%016x", v) // %p and %pK: the kernel hashes the first
}

func (c *conversion) sign(v int64) string {
	s := strconv.FormatInt(v, 10)
	switch {
	case v < 0:
	case strings.Contains(c.flags, "+"):
		s = "+" + s
	case strings.Contains(c.flags, " "):
		s = " " + s
	}
	return s
}

// pad fills s to the conversion's width.
func (c *conversion) pad(s string) string {
	n := c.width - len(s)
	switch {
	case n <= 0:
		return s
	case strings.Contains(c.flags, "-"):
		return s + strings.Repeat(" ", n)
	case !strings.Contains(c.flags, "0") || c.verb == "s" || c.verb == "c":
		return strings.Repeat(" ", n) + s
	}
	head := 0
	if s != "" && strings.ContainsRune("+- ", rune(s[0])) {
		head = 1
	}
	return s[:head] + strings.Repeat("0", n) + s[head:]
}

// stringAt is a string argument; empty if unreadable.
func (m *Machine) stringAt(a uint64, user bool) string {
	var b [512]byte
	n, ok := m.readString(b[:], a, user)
	if !ok || n == 0 {
		return ""
	}
	s, _, _ := bytes.Cut(b[:n], []byte{0})
	return string(s)
}

// addressAt is an IP address in network order: %pI4, %pI6, and without dots
// and colons compressed %pi4 (leading zeros) and %pi6 (hex digits).
func (m *Machine) addressAt(verb string, a uint64) string {
	if verb[2] == '4' {
		var b [4]byte
		m.read(b[:], a, false)
		if verb[1] == 'i' {
			return fmt.Sprintf("%03d.%03d.%03d.%03d", b[0], b[1], b[2], b[3])
		}
		return fmt.Sprintf("%d.%d.%d.%d", b[0], b[1], b[2], b[3])
	}
	var b [16]byte
	m.read(b[:], a, false)
	if verb[1] == 'i' {
		return fmt.Sprintf("%016x%016x", binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint64(b[8:]))
	}
	var groups []string
	for i := 0; i < len(b); i += 2 {
		groups = append(groups, fmt.Sprintf("%02x%02x", b[i], b[i+1]))
	}
	return strings.Join(groups, ":")
}
