package ctf

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/traceevent"
)

// Schema is what the metadata of a trace says that is written here.
type Schema struct {
	UUID   [16]byte
	Clock  [16]byte    // traces whose clocks are the same one say so by it: readers merge them
	Offset int64       // ns from 1970 to the clock's zero
	Env    [][2]string // what else is to be known: hostname, kernel_release …

	formats []*traceevent.Format
	classes map[int]*class
	fast    []*class // by ID, for the small ones that kernels have
}

// NewSchema describes a trace with these events. Their IDs must be different and fit 16 bits, as the kernel's do.
func NewSchema(uuid [16]byte, offset int64, env [][2]string, formats []*traceevent.Format) (*Schema, error) {
	s := &Schema{UUID: uuid, Clock: uuid, Offset: offset, Env: env, formats: formats, classes: map[int]*class{}}
	for _, f := range formats {
		if f.ID < 0 || f.ID > 1<<16-1 || s.classes[f.ID] != nil {
			return nil, fmt.Errorf("describe event %s:%s: the ID %d is taken or too large", f.System, f.Name, f.ID)
		}
		c := &class{format: f}
		c.ops = plan(plan(nil, contextFields(f)), ownFields(f))
		s.classes[f.ID] = c
		for len(s.fast) <= f.ID {
			s.fast = append(s.fast, nil)
		}
		s.fast[f.ID] = c
	}
	return s, nil
}

func (s *Schema) class(id int) *class {
	if id < 0 || id >= len(s.fast) {
		return nil
	}
	return s.fast[id]
}

// contextFields are the common fields, which are the same for all events of a kernel, but for the event's ID.
func contextFields(f *traceevent.Format) (out []*traceevent.Field) {
	for i := range f.Fields {
		if f.Fields[i].Common && f.Fields[i].Name != "common_type" {
			out = append(out, &f.Fields[i])
		}
	}
	return out
}

func ownFields(f *traceevent.Format) (out []*traceevent.Field) {
	for i := range f.Fields {
		if !f.Fields[i].Common {
			out = append(out, &f.Fields[i])
		}
	}
	return out
}

// Metadata gives the text of the file metadata.
func (s *Schema) Metadata() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "/* CTF 1.8 */\n\n")
	for _, n := range []int{8, 16, 32, 64} {
		fmt.Fprintf(&b, "typealias integer { size = %d; align = 8; signed = false; } := uint%d_t;\n", n, n)
		fmt.Fprintf(&b, "typealias integer { size = %d; align = 8; signed = true; } := int%d_t;\n", n, n)
		fmt.Fprintf(&b, "typealias integer { size = %d; align = 8; signed = false; base = 16; } := xint%d_t;\n", n, n)
	}
	fmt.Fprintf(&b, "typealias integer { size = 8; align = 8; signed = false; encoding = UTF8; } := text_t;\n\n")
	id := uuidText(s.UUID)
	fmt.Fprintf(&b, `trace {
	major = 1;
	minor = 8;
	uuid = "%s";
	byte_order = le;
	packet.header := struct {
		uint32_t magic;
		uint8_t uuid[16];
		uint32_t stream_id;
	};
};

env {
`, id)
	for _, kv := range s.Env {
		if _, err := strconv.Atoi(kv[1]); err == nil {
			fmt.Fprintf(&b, "\t%s = %s;\n", kv[0], kv[1])
			continue
		}
		fmt.Fprintf(&b, "\t%s = %s;\n", kv[0], quote(kv[1]))
	}
	sec, ns := s.Offset/1e9, s.Offset%1e9
	if ns < 0 {
		sec, ns = sec-1, ns+1e9
	}
	fmt.Fprintf(&b, `};

clock {
	name = "monotonic";
	uuid = "%s";
	description = "CLOCK_MONOTONIC of the kernel";
	freq = 1000000000;
	offset_s = %d;
	offset = %d;
};

typealias integer { size = 32; align = 8; signed = false; map = clock.monotonic.value; } := time32_t;
typealias integer { size = 64; align = 8; signed = false; map = clock.monotonic.value; } := time64_t;

stream {
	id = 0;
	packet.context := struct {
		time64_t timestamp_begin;
		time64_t timestamp_end;
		uint64_t content_size;
		uint64_t packet_size;
		uint64_t packet_seq_num;
		uint64_t events_discarded;
		uint32_t cpu_id;
	};
	event.header := struct {
		uint16_t id;
		time32_t timestamp;
	};
`, uuidText(s.Clock), sec, ns)
	if len(s.formats) > 0 {
		b.WriteString("\tevent.context := struct {\n")
		for _, f := range contextFields(s.formats[0]) {
			declare(&b, f)
		}
		b.WriteString("\t};\n")
	}
	b.WriteString("};\n")
	for _, f := range s.formats {
		fmt.Fprintf(&b, "\nevent {\n\tid = %d;\n\tname = %s;\n\tstream_id = 0;\n\tfields := struct {\n", f.ID, quote(f.System+":"+f.Name))
		for _, d := range ownFields(f) {
			declare(&b, d)
		}
		b.WriteString("\t};\n};\n")
	}
	return []byte(b.String())
}

// declare writes a field's declaration. Names have an underscore before them, as LTTng's do: readers take it away, and no
// name of the kernel can be a keyword of the language.
func declare(b *strings.Builder, f *traceevent.Field) {
	switch {
	case isSequence(f):
		fmt.Fprintf(b, "\t\tuint16_t __%s_length;\n\t\t%s _%s[__%s_length];\n", f.Name, elemType(f), f.Name, f.Name)
	case f.ArrayLen > 0:
		fmt.Fprintf(b, "\t\t%s _%s[%d];\n", elemType(f), f.Name, f.Size/f.ElemSize())
	case f.Size == 1 || f.Size == 2 || f.Size == 4 || f.Size == 8:
		fmt.Fprintf(b, "\t\t%s _%s;\n", intName(f, f.Size), f.Name)
	default: // a struct
		fmt.Fprintf(b, "\t\txint8_t _%s[%d];\n", f.Name, f.Size)
	}
}

func elemType(f *traceevent.Field) string {
	if f.IsText() {
		return "text_t"
	}
	return intName(f, f.ElemSize())
}

func intName(f *traceevent.Field, size int) string {
	kind := "uint"
	switch {
	case f.IsPointer() || strings.HasSuffix(f.Type, "*"):
		kind = "xint"
	case f.Signed:
		kind = "int"
	}
	return kind + strconv.Itoa(8*size) + "_t"
}

func uuidText(u [16]byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// quote writes a string literal of TSDL.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range []byte(s) {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c == 0x7f:
			fmt.Fprintf(&b, "\\%03o", c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
