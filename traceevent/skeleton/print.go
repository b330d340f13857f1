package skeleton

import (
	"fmt"
	"regexp"
	"strings"
)

// conversion is one of printk's, and what stands for a per cent sign.
var conversion = regexp.MustCompile(`%(?:%|([-+ #0]*[0-9]*)(?:hh|h|ll|l|z)?([diuxXocs]|p(?:I4|I6c|I6|Uc|U[bBlL]?|[a-zA-Z]?)))`)

// usual is how a field is shown where nothing is said.
func (f *field) usual() string {
	switch {
	case f.kind == pointer:
		return "%p"
	case f.kind != number:
		return "%s"
	case f.elem.Signed || f.elem.Bool:
		return "%d"
	}
	return "%u"
}

// what says what a field is.
func (f *field) what() string {
	switch f.kind {
	case number:
		return "a number: %d %u %x"
	case pointer:
		return "an address: %p %px %pS"
	case symbolic, bits:
		return "names: %s, or the number by %d %x"
	case array:
		return fmt.Sprintf("%d numbers of %d bytes: %%s", f.n, f.elem.Size)
	case dynamic:
		return "numbers: %s"
	}
	return "text: %s"
}

// special are conversions that take the address of what they show, by its bytes.
var special = map[string]int{"pM": 6, "pm": 6, "pI4": 4, "pI6": 16, "pI6c": 16, "pU": 16, "pUb": 16, "pUB": 16, "pUl": 16, "pUL": 16}

// convert gives the conversion of printk's for a field that shows it as c says; "" if none does.
func (f *field) convert(c string) string {
	m := conversion.FindStringSubmatch(c)
	if m == nil || m[0] != c || c == "%%" {
		return ""
	}
	how, letter := m[1], m[2]
	size := 4
	switch f.kind {
	case number:
		size = f.elem.Size
	case array:
		size = f.n * f.elem.Size
	case text, str, dynamic, pointer:
		size = 0
	}
	switch {
	case letter == "s":
		if f.kind == number || f.kind == pointer {
			return ""
		}
		return "%" + how + "s"
	case special[letter] > 0:
		if special[letter] != size || how != "" || f.kind == symbolic || f.kind == bits {
			return ""
		}
		return "%" + letter
	case letter[0] == 'p':
		if f.kind != pointer || !strings.Contains(" p px pK pS ps pB ", " "+letter+" ") {
			return ""
		}
		return "%" + how + letter
	case f.kind == number:
		return "%" + how + f.length() + letter
	case f.kind == symbolic || f.kind == bits:
		return "%" + how + letter
	}
	return ""
}

// length is what printk wants before the letter for a number of this type: 64-bit types of the kernel's own are long long
// everywhere (include/asm-generic/int-ll64.h).
func (f *field) length() string {
	switch {
	case f.elem.Size < 8:
		return ""
	case strings.HasSuffix(f.typ, "size_t"):
		return "z"
	case strings.Count(f.typ, "long") == 1, f.typ == "ino_t", f.typ == "pgoff_t", strings.HasSuffix(f.typ, "intptr_t"):
		return "l"
	}
	return "ll"
}

// setPrint reads how a line shows the event, or makes that up.
func (e *Event) setPrint(said string) error {
	if said == "" {
		var parts []string
		for _, f := range e.fields {
			parts = append(parts, f.name+"="+f.conv)
		}
		e.print = strings.Join(parts, " ")
		return nil
	}
	var out strings.Builder
	next, at := 0, 0
	for at < len(said) {
		c := said[at]
		switch {
		case c < ' ' || c == '\\':
			return &Error{Text: strings.ReplaceAll(said, "\n", " "), Off: at, End: at + 1, Msg: "a line of trace is one line of text"}
		case c == '"': // the kernel writes it into the format as it is (print_fmt of TRACE_EVENT), where it ends the text
			return &Error{Text: said, Off: at, End: at + 1, Msg: "who reads the event's format takes it for the end of the text", Hint: strings.ReplaceAll(said, `"`, "'")}
		case c != '%':
			out.WriteByte(c)
			at++
		default:
			m := conversion.FindString(said[at:])
			if m == "" || !strings.HasPrefix(said[at:], m) {
				return &Error{Text: said, Off: at, End: at + 1, Msg: "no conversion of printk's that events are shown by"}
			}
			wrong := &Error{Text: said, Off: at, End: at + len(m)}
			at += len(m)
			if m == "%%" {
				out.WriteString(m)
				continue
			}
			if next == len(e.fields) {
				wrong.Msg = fmt.Sprintf("there is no field left for it: %d fields, each in its turn", next)
				return wrong
			}
			f := &e.fields[next]
			if f.conv = f.convert(m); f.conv == "" {
				wrong.Msg = fmt.Sprintf("%s does not show %s, which is %s", m, f.name, f.what())
				return wrong
			}
			out.WriteString(f.conv)
			next++
		}
	}
	if next < len(e.fields) {
		return &Error{Text: said, Off: len(said), End: len(said), Msg: "nothing shows " + e.fields[next].name, Hint: said + " " + e.fields[next].name + "=" + e.fields[next].usual()}
	}
	e.print = out.String()
	return nil
}

// arg is what printk is given for a field.
func (e *Event) arg(f *field) string {
	entry := "__entry->" + f.name
	byAddress := special[strings.TrimPrefix(f.conv, "%")] > 0
	names := func(call, sep string) string {
		if !strings.HasSuffix(f.conv, "s") {
			return entry
		}
		var vs []string
		for _, v := range f.values {
			vs = append(vs, fmt.Sprintf("\t\t\t{ %s, \"%s\" }", e.constant(f, v.Name), v.Name))
		}
		return call + "(" + entry + sep + ",\n" + strings.Join(vs, ",\n") + ")"
	}
	switch f.kind {
	case number:
		if byAddress {
			return "&" + entry
		}
	case symbolic:
		return names("__print_symbolic", "")
	case bits:
		return names("__print_flags", `, "|"`)
	case str:
		return "__get_str(" + f.name + ")"
	case array:
		switch {
		case byAddress:
		case f.elem.Size == 1:
			return fmt.Sprintf("__print_hex(%s, %d)", entry, f.n)
		default:
			return fmt.Sprintf("__print_array(%s, %d, sizeof(%s))", entry, f.n, f.typ)
		}
	case dynamic:
		data, length := "__get_dynamic_array("+f.name+")", "__get_dynamic_array_len("+f.name+")"
		if f.elem.Size == 1 {
			return fmt.Sprintf("__print_hex(%s, %s)", data, length)
		}
		return fmt.Sprintf("__print_array(%s,\n\t\t\t%s / sizeof(%s), sizeof(%[3]s))", data, length, f.typ)
	}
	return entry
}
