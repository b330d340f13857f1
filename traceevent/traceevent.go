// Package traceevent reads the descriptions of trace events that the kernel gives in tracefs, events/SYSTEM/EVENT/format:
// the fields of the event's record and the C expression that prints it.
//
// The text is written by f_show and print_event_fields of kernel/trace/trace_events.c. Print is kept as it stands there.
package traceevent

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/internal/bin"
)

// Format is one event's description.
type Format struct {
	System string // "sched"; the format file does not tell it: who reads the file sets it
	Name   string // without the system
	ID     int    // common_type in records, and perf_event_attr.config
	Fields []Field
	Print  string // what follows "print fmt: ": a C string literal and its arguments, or empty
}

// Field is one member of an event's record.
type Field struct {
	Type    string // C type without storage words and array bounds: "char", "const char *", "struct inode *"
	Name    string
	Offset  int // from the start of the record, its common fields included
	Size    int // bytes in the record; 4 for DataLoc and RelLoc, 0 for a flexible array
	Signed  bool
	DataLoc bool // the record holds u32 len<<16|offset, from the start of the record (__data_loc)
	RelLoc  bool // the same, the offset counted from the end of this field (__rel_loc, since 5.17)
	Common  bool // one of the common_ fields that every event has

	// ArrayLen is the number of elements: -1 if it is no array, 0 if its length is only in the record. A bound that the
	// kernel prints as text (TASK_COMM_LEN, in old kernels) is counted from Size; dimensions are multiplied.
	ArrayLen int

	// Labels name values of an enumeration, where a trace tells them; the kernel's formats have them in their print fmt.
	Labels []Label
	Bits   bool // Labels name bits, those of Lo, and not values

	Option Option // that the field is of, where a trace has several layouts for one event
}

// Option is one of those that a record may have: the two bytes at At are N if it does. The zero Option is in all of them.
type Option struct {
	At int
	N  uint16
}

// Label names the values from Lo to Hi. Those of unsigned fields of 64 bits are the same bits.
type Label struct {
	Name   string
	Lo, Hi int64
}

// maxRecord bounds offsets and sizes: a record is at most a ring buffer page, and pages are at most 64 KiB.
const maxRecord = 1 << 16

// Field returns the field of that name, nil if there is none.
func (f *Format) Field(name string) *Field {
	for i := range f.Fields {
		if f.Fields[i].Name == name {
			return &f.Fields[i]
		}
	}
	return nil
}

// Parse reads a format file. Errors are *[bin.FormatError].
func Parse(b []byte) (*Format, error) {
	f := &Format{ID: -1}
	for off := 0; off < len(b); {
		line := b[off:]
		if rest, ok := bytes.CutPrefix(line, []byte("print fmt:")); ok {
			f.Print = strings.TrimSpace(string(rest)) // to the end: a literal may hold newlines
			break
		}
		if i := bytes.IndexByte(line, '\n'); i >= 0 {
			line = line[:i]
		}
		if msg := f.line(strings.TrimSpace(string(line))); msg != "" {
			return nil, &bin.FormatError{What: "event format", Off: int64(off), Msg: msg}
		}
		off += len(line) + 1
	}
	if f.Name == "" || f.ID < 0 {
		return nil, &bin.FormatError{What: "event format", Off: int64(len(b)), Msg: "no name or no ID"}
	}
	if c := f.Field("caller"); c != nil && f.Name == "kernel_stack" { // struct stack_entry: it says 8 addresses, and has as many as there are
		c.Size, c.ArrayLen = 0, 0
	}
	return f, nil
}

// line takes in one line; it returns what is wrong with it, or "".
func (f *Format) line(s string) string {
	key, rest, _ := strings.Cut(s, ":")
	rest = strings.TrimSpace(rest)
	switch key {
	case "", "format":
	case "name":
		f.Name = rest
	case "ID":
		id, err := strconv.ParseUint(rest, 10, 31)
		if err != nil {
			return "bad ID " + strconv.Quote(rest)
		}
		f.ID = int(id)
	case "field", "field special":
		fd, msg := parseField(rest)
		if msg != "" {
			return msg
		}
		f.Fields = append(f.Fields, fd)
	default:
		return "unexpected line " + strconv.Quote(s)
	}
	return ""
}

// parseField reads "unsigned int x[2];	offset:8;	size:8;	signed:0;". Kernels before 2.6.36 have no signed.
func parseField(s string) (Field, string) {
	decl, attrs, ok := strings.Cut(s, ";")
	if !ok {
		return Field{}, "field does not end in ;"
	}
	f := Field{Offset: -1, Size: -1, ArrayLen: -1}
	for a := range strings.SplitSeq(attrs, ";") {
		key, val, ok := strings.Cut(strings.TrimSpace(a), ":")
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(val, 10, 31)
		if err != nil || n > maxRecord {
			return f, "bad " + key + " " + strconv.Quote(val)
		}
		switch key {
		case "offset":
			f.Offset = int(n)
		case "size":
			f.Size = int(n)
		case "signed":
			f.Signed = n != 0
		}
	}
	if f.Offset < 0 || f.Size < 0 {
		return f, "field without offset or size"
	}
	return f, f.declare(decl)
}

// declare takes type, name and array bounds from a declaration.
func (f *Field) declare(decl string) string {
	s := strings.TrimSpace(decl)
	if r, ok := strings.CutPrefix(s, "__data_loc "); ok {
		s, f.DataLoc = r, true
	} else if r, ok := strings.CutPrefix(s, "__rel_loc "); ok {
		s, f.RelLoc = r, true
	}
	s, after := cutBounds(s)
	typ, name := cutName(s)
	if name == "" || typ == "" {
		return "no type and name in " + strconv.Quote(decl)
	}
	typ, before := cutBounds(typ) // __data_loc char[] name
	f.Type, f.Name = strings.TrimSpace(typ), name
	f.Common = strings.HasPrefix(name, "common_")
	switch {
	case f.Type == "":
		return "no type in " + strconv.Quote(decl)
	case f.DataLoc || f.RelLoc:
		f.ArrayLen = 0
	case len(after)+len(before) > 0:
		f.ArrayLen = f.count(append(after, before...))
	}
	return ""
}

// count multiplies the array bounds of a field that is no location.
func (f *Field) count(bounds []string) int {
	n := 1
	for _, b := range bounds {
		k, err := strconv.ParseUint(strings.TrimSpace(b), 0, 17)
		if err != nil || n > maxRecord {
			return f.Size / elemSize(f.Type, f.Size)
		}
		n *= int(k)
	}
	return n
}

// elemSize is the size of a C type by its name, 1 if it is not known. Pointers and longs are as wide as size allows.
func elemSize(typ string, size int) int {
	switch w := strings.TrimPrefix(strings.TrimPrefix(typ, "const "), "unsigned "); {
	case strings.HasSuffix(w, "*"), w == "long", strings.HasSuffix(w, "64"), w == "long long":
		if size%8 != 0 {
			return 4
		}
		return 8
	case w == "int", w == "unsigned", strings.HasSuffix(w, "32"):
		return 4
	case w == "short", strings.HasSuffix(w, "16"):
		return 2
	}
	return 1
}

// cutBounds takes "[4][2]" off the end of a declaration.
func cutBounds(s string) (rest string, bounds []string) {
	s = strings.TrimSpace(s)
	for strings.HasSuffix(s, "]") {
		i := strings.LastIndexByte(s, '[')
		if i < 0 {
			break
		}
		bounds = append(bounds, s[i+1:len(s)-1])
		s = strings.TrimSpace(s[:i])
	}
	return s, bounds
}

// cutName splits "unsigned int x", "char *x" and "void (*x)(int)" into type and name.
func cutName(s string) (typ, name string) {
	if strings.HasSuffix(s, ")") {
		pre, post, ok := strings.Cut(s, "(*")
		n, args, ok2 := strings.Cut(post, ")")
		if !ok || !ok2 {
			return "", ""
		}
		return pre + "(*)" + args, strings.TrimSpace(n)
	}
	i := len(s)
	for i > 0 && isIdent(s[i-1]) {
		i--
	}
	return strings.TrimSpace(s[:i]), s[i:]
}

func isIdent(c byte) bool {
	return c == '_' || c == '$' || c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9'
}
