// Package skeleton writes the C of a new trace event: a header with its TRACE_EVENT, and a module that defines the event and
// fires it, to begin with. Fields are said as C declares members, with three words more:
//
//	int pid                             a number, a pointer, bool; any type that the kernel's print fmts know
//	char comm[16]                       text of at most so much; u8 mac[6]: that many numbers
//	string path                         text as long as it is
//	u32 lengths[]                       as many numbers as there are, which the caller says
//	enum { IDLE, BUSY = 3 } state       a number that is shown by its name
//	flags { READ = 1, WRITE = 2 } mode  bits that are shown by their names
//
// and each may end in a conversion of printk's that shows it: u64 addr %#x, void *where %pS, u8 mac[6] %pM.
//
// Authority: include/linux/tracepoint.h, include/trace/trace_events.h, Documentation/core-api/printk-formats.rst.
package skeleton

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/ctype/cdecl"
	"github.com/fathom-trace/fathom/ctype/cpp"
	"github.com/fathom-trace/fathom/traceevent"
)

// Error is what is wrong in a text: a name, a field, or what is printed. Off and End are bytes of it.
type Error struct {
	Text, Msg, Hint string
	Off, End        int
}

func (e *Error) Error() string { return fmt.Sprintf("%s, at byte %d of %q", e.Msg, e.Off, e.Text) }

// What an event can have. BPF programs are given at most maxArgs of what callers give (__bpf_trace_##call), and an event
// with all its arrays has to fit a page of the ring buffer.
const (
	maxArgs  = 12
	maxBytes = 1024 // of one array
	maxName  = 48   // of a module, MODULE_NAME_LEN less a little
)

// kind is how a field is recorded.
type kind uint8

const (
	number   kind = iota
	pointer       // an address, never what is there
	symbolic      // an enum
	bits          // an enum of flags
	text          // char [n]
	str           // __string
	array         // numbers, always as many
	dynamic       // numbers, as many as the caller says
)

// field is one field.
type field struct {
	name   string
	kind   kind
	typ    string // as C spells it, of one element
	elem   *ctype.Int
	n      int // elements of an array
	values []ctype.EnumValue
	conv   string // printk's conversion, in full
}

// Event is an event to be.
type Event struct {
	System, Name string
	fields       []field
	print        string // the print fmt without its arguments
}

// Parse reads SYSTEM:NAME, fields, and a print fmt in which each field has a conversion in its turn; "" makes one. Errors are
// *Error.
func Parse(name string, fields []string, print string) (*Event, error) {
	system, event, ok := strings.Cut(name, ":")
	if !ok {
		return nil, &Error{Text: name, End: len(name), Msg: "an event is SYSTEM:NAME", Hint: "lab:" + event + name}
	}
	e := &Event{System: system, Name: event}
	for _, part := range []struct {
		word string
		off  int
	}{{system, 0}, {event, len(system) + 1}} {
		if msg := nameError(part.word); msg != "" {
			return nil, &Error{Text: name, Off: part.off, End: part.off + len(part.word), Msg: msg}
		}
	}
	if len(fields) == 0 {
		return nil, &Error{Text: name, Off: len(name), End: len(name), Msg: "an event has fields, such as 'int pid' 'char comm[16]' 'string path'"}
	}
	taken := map[string]bool{}
	args := 0
	for _, text := range fields {
		f, at, err := parseField(text)
		if err != nil {
			return nil, err
		}
		names := f.params()
		args += len(names)
		for _, n := range names {
			if taken[n] {
				return nil, &Error{Text: text, Off: at, End: at + len(f.name), Msg: "there is a " + n + " already"}
			}
			taken[n] = true
		}
		if args > maxArgs {
			return nil, &Error{Text: text, Off: at, End: at + len(f.name), Msg: fmt.Sprintf("callers can give %d arguments, an array without a length two", maxArgs)}
		}
		e.fields = append(e.fields, f)
	}
	return e, e.setPrint(print)
}

// word is a name in C.
var word = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// taboo are words that the names of events and fields cannot be: C's, macros of the kernel and the compiler without
// arguments, and members that every event has (trace/stages/stage1_struct_define.h).
var taboo = strings.Fields(`auto break case char const continue default do double else enum extern float for goto if inline int long
	register restrict return short signed sizeof static struct switch typedef union unsigned void volatile while asm typeof bool true
	false NULL current jiffies linux unix i386 ent __data __entry REC`)

func nameError(name string) string {
	switch {
	case !word.MatchString(name):
		return "a name is of letters, digits and _"
	case len(name) > maxName:
		return fmt.Sprintf("longer than %d letters", maxName)
	case slices.Contains(taboo, name), strings.HasPrefix(name, "common_"):
		return name + " is a word of C's or of the kernel's"
	}
	return ""
}

// types are what fields can be declared with, beside C's own: cdecl knows some itself.
type types struct{}

func (types) ByName(k ctype.Kind, name string) (ctype.Type, error) {
	if name == "string" && k == ctype.KindTypedef {
		return ofText, nil
	}
	if size, unsigned, ok := traceevent.TypeWord(name); ok && k == ctype.KindTypedef {
		return &ctype.Int{Name: name, Size: size, Signed: !unsigned}, nil
	}
	return nil, ctype.ErrNotFound
}

func (types) EnumValue(string) (*ctype.Enum, int64, bool) { return nil, 0, false }
func (types) Func(string, string) (*ctype.Func, error)    { return nil, ctype.ErrNotFound }

// ofText is the type "string".
var ofText = &ctype.Typedef{Name: "string", Type: ctype.Void{}}

// parseField reads a field; at is where its name is.
func parseField(said string) (f field, at int, err error) {
	decl, conv := said, ""
	if i := strings.LastIndexByte(said, '%'); i >= 0 {
		decl, conv = said[:i], said[i:]
	}
	wrong := func(off, end int, format string, args ...any) error {
		return &Error{Text: said, Off: off, End: max(end, off), Msg: fmt.Sprintf(format, args...)}
	}
	if i := strings.IndexFunc(said, func(r rune) bool { return r < ' ' || r > '~' }); i >= 0 {
		return f, 0, wrong(i, i+1, "fields are declared in ASCII, on one line")
	}
	toks := cpp.Lex("", decl)
	flags := len(toks) > 1 && toks[0].Text == "flags" && toks[1].Text == "{"
	if flags {
		toks[0].Text = "enum"
	}
	around := func(words ...string) (out []cpp.Token) {
		for _, w := range words {
			out = append(out, cpp.Token{Text: w, Off: len(decl)})
		}
		return out
	}
	for _, t := range toks {
		if t.Text == ";" {
			return f, 0, wrong(t.Off, t.Off+1, "one field, without a semicolon")
		}
	}
	scope := cdecl.NewScope(types{})
	all := slices.Concat(around("struct", "event", "{"), toks, around(";", "}", ";"))
	if err := scope.ParseTokens(all, len(decl), func(cpp.Token) bool { return false }); err != nil {
		var se *cdecl.SyntaxError
		se, _ = err.(*cdecl.SyntaxError) // nothing else
		return f, 0, wrong(se.Off, se.Off, "%s", se.Msg)
	}
	got, err := scope.ByName(ctype.KindStruct, "event")
	if err != nil {
		return f, 0, wrong(0, len(decl), "no declaration of a field")
	}
	ms := got.(*ctype.Struct).Members()
	if len(ms) != 1 || ms[0].Name == "" || ms[0].BitSize > 0 {
		return f, 0, wrong(0, len(decl), "declare one field with its name, such as 'int pid'")
	}
	f.name = ms[0].Name
	for _, t := range toks {
		if t.Text == f.name {
			at = t.Off
		}
	}
	if msg := nameError(f.name); msg != "" {
		return f, at, wrong(at, at+len(f.name), "%s", msg)
	}
	for _, t := range toks {
		switch {
		case t.Off < at && slices.Contains(unsaid, t.Text), t.Text == "const" && !strings.Contains(decl[t.Off:at], "*"):
			return f, at, wrong(t.Off, t.Off+len(t.Text), "%s says nothing of a field", t.Text)
		}
	}
	f.typ = strings.TrimSpace(decl[:at])
	if msg := f.setType(ms[0].Type, flags); msg != "" {
		return f, at, wrong(0, len(strings.TrimRight(decl, " ")), "%s", msg)
	}
	if strings.TrimSpace(conv) != "" {
		c := strings.TrimSpace(conv)
		if f.conv = f.convert(c); f.conv == "" {
			return f, at, wrong(len(decl), len(decl)+len(c), "%s does not show %s", c, f.what())
		}
	} else {
		f.conv = f.convert(f.usual())
	}
	return f, at, nil
}

// unsaid are words that declarations may have and fields do not.
var unsaid = []string{"static", "extern", "register", "auto", "inline", "volatile", "restrict", "__restrict", "__thread", "_Thread_local",
	"__inline", "__inline__", "__const", "__volatile__", "__extension__", "__attribute__", "_Alignas", "_Noreturn", "typeof", "__typeof__", "union"}

// setType finds how a type is recorded; it gives what is wrong.
func (f *field) setType(t ctype.Type, flags bool) string {
	switch t := t.(type) {
	case *ctype.Int:
		f.kind, f.elem = number, t
		if t.Size > 8 {
			return "numbers have up to 64 bits"
		}
	case *ctype.Ptr:
		f.kind = pointer
		if _, fn := t.Elem.(*ctype.Func); fn || strings.ContainsAny(f.typ, "()[{") {
			return "a function's address is a void *"
		}
	case *ctype.Enum:
		f.kind, f.values = symbolic, t.Values
		if flags {
			f.kind = bits
		}
		return f.checkValues(t.Name)
	case *ctype.Typedef:
		f.kind = str
		if t != ofText {
			return t.Name + " is no type of fields"
		}
	case *ctype.Array:
		return f.setArray(t)
	case *ctype.Float:
		return "the kernel does not compute with floating point"
	default:
		return "fields are numbers, texts, arrays of numbers and pointers; name the members that are of use"
	}
	return ""
}

func (f *field) setArray(t *ctype.Array) string {
	elem, ok := t.Elem.(*ctype.Int)
	f.elem, f.n = elem, t.Len
	switch {
	case !ok || elem.Size > 8 || strings.HasPrefix(f.typ, "__builtin"):
		return "arrays are of numbers"
	case t.Len == 0 && elem.Char:
		return "text of any length is 'string " + f.name + "'"
	case t.Len == 0:
		f.kind = dynamic
	case t.Len*elem.Size > maxBytes:
		return fmt.Sprintf("%d bytes: an event has to fit a page of the ring buffer", t.Len*elem.Size)
	case elem.Char:
		f.kind = text
	default:
		f.kind = array
	}
	return ""
}

// checkValues says what is wrong with enumerators.
func (f *field) checkValues(name string) string {
	seen := map[string]bool{}
	for _, v := range f.values {
		switch {
		case seen[v.Name]:
			return v.Name + " is named twice"
		case f.kind == symbolic && v.Value != int64(int32(v.Value)):
			return fmt.Sprintf("%s = %d is no int", v.Name, v.Value)
		case f.kind == bits && (v.Value <= 0 || v.Value > 1<<32-1):
			return fmt.Sprintf("%s = %d: flags are bits of an unsigned int", v.Name, v.Value)
		}
		seen[v.Name] = true
	}
	if len(f.values) == 0 || name != "" {
		return "its values have to be said: enum { IDLE, BUSY = 3 } " + f.name
	}
	return ""
}
