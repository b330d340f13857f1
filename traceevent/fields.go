package traceevent

import (
	"encoding/binary"
	"math"
	"strconv"
)

// IsArray says if a field holds more than one value: an array, a string, or what a location points to.
func (f *Field) IsArray() bool { return f.DataLoc || f.RelLoc || f.ArrayLen >= 0 }

// ElemSize is the size of one element of an array, in bytes.
func (f *Field) ElemSize() int {
	if f.ArrayLen > 0 && f.Size%f.ArrayLen == 0 && f.Size > 0 && !f.DataLoc && !f.RelLoc {
		switch n := f.Size / f.ArrayLen; n {
		case 1, 2, 4, 8:
			return n
		}
		return 1
	}
	return elemSize(f.Type, 8)
}

// There says if a record has the field: it is of no option, or of the one that the record has.
func (f *Field) There(rec []byte) bool {
	o := f.Option
	return o.N == 0 || o.At >= 0 && o.At+2 <= len(rec) && binary.LittleEndian.Uint16(rec[o.At:]) == o.N
}

// IsText says if a field holds characters.
func (f *Field) IsText() bool {
	return f.IsArray() && (f.Type == "char" || f.Type == "const char" || f.Type == "unsigned char" && (f.DataLoc || f.RelLoc))
}

// Bytes gives what a field holds: for a location, the bytes that it points to. nil where the record is too short.
func (f *Field) Bytes(rec []byte) []byte {
	if f == nil || f.Offset < 0 || f.Offset > len(rec) {
		return nil
	}
	if !f.DataLoc && !f.RelLoc {
		if f.ArrayLen == 0 || f.Size == 0 { // T name[]: the rest of the record
			return rec[f.Offset:]
		}
		if f.Offset+f.Size > len(rec) {
			return nil
		}
		return rec[f.Offset : f.Offset+f.Size]
	}
	if f.Offset+4 > len(rec) {
		return nil
	}
	loc := binary.LittleEndian.Uint32(rec[f.Offset:])
	at, n := int(loc&0xffff), int(loc>>16)
	if f.RelLoc {
		at += f.Offset + f.Size
	}
	if at > len(rec) || n > len(rec)-at {
		return nil
	}
	return rec[at : at+n]
}

// String gives the text of a field of characters up to its first 0, as a part of the record.
func (f *Field) String(rec []byte) []byte { return upToNul(f.Bytes(rec)) }

func upToNul(b []byte) []byte {
	for i, c := range b {
		if c == 0 {
			return b[:i]
		}
	}
	return b
}

// CommField finds the field that has the name of the event's task, where events tell it themselves, as LTTng's context procname
// does; nil if there is none.
func (f *Format) CommField() *Field {
	if c := f.Field("procname"); c != nil && c.IsText() {
		return c
	}
	return nil
}

// AppendValue writes a field's value: text as it is, numbers in decimal by their sign, pointers in hex, arrays in braces, behind a number
// of an enumeration its name.
func (f *Field) AppendValue(dst, rec []byte) []byte {
	switch {
	case f.IsText():
		return append(dst, f.String(rec)...)
	case f.IsArray() || !scalar(f.Size):
		return appendArray(dst, f.Bytes(rec), max(f.ElemSize(), 1))
	case f.IsPointer():
		dst = append(dst, "0x"...)
		return strconv.AppendUint(dst, f.Uint(rec), 16)
	case f.Type == "double" && f.Size == 8:
		return strconv.AppendFloat(dst, math.Float64frombits(f.Uint(rec)), 'g', -1, 64)
	case f.Type == "float" && f.Size == 4:
		return strconv.AppendFloat(dst, float64(math.Float32frombits(uint32(f.Uint(rec)))), 'g', -1, 32)
	case f.Signed:
		v := f.Int(rec)
		return f.appendLabel(strconv.AppendInt(dst, v, 10), v)
	}
	v := f.Uint(rec)
	return f.appendLabel(strconv.AppendUint(dst, v, 10), int64(v))
}

func (f *Field) appendLabel(dst []byte, v int64) []byte {
	if f.Bits {
		return f.appendFlags(dst, uint64(v))
	}
	for _, l := range f.Labels {
		if v >= l.Lo && v <= l.Hi {
			return append(append(append(dst, " ("...), l.Name...), ')')
		}
	}
	return dst
}

// appendFlags names the bits that are set.
func (f *Field) appendFlags(dst []byte, v uint64) []byte {
	sep := " ("
	for _, l := range f.Labels {
		if v&uint64(l.Lo) != 0 {
			dst = append(append(dst, sep...), l.Name...)
			sep = "|"
		}
	}
	if sep == "|" {
		dst = append(dst, ')')
	}
	return dst
}

// IsPointer says if a field holds an address, as its type tells.
func (f *Field) IsPointer() bool {
	return f.Size == 8 && !f.IsArray() && f.Type != "" && (f.Type[len(f.Type)-1] == '*' || f.Type[len(f.Type)-1] == ')')
}

func scalar(size int) bool { return size == 1 || size == 2 || size == 4 || size == 8 }

// appendArray is trace_print_array_seq of kernel/trace/trace_output.c.
func appendArray(dst, b []byte, size int) []byte {
	if !scalar(size) {
		size = 1
	}
	dst = append(dst, '{')
	for i := 0; i+size <= len(b); i += size {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, "0x"...)
		dst = strconv.AppendUint(dst, load(b[i:], size), 16)
	}
	return append(dst, '}')
}

// PIDField finds the field common_pid that records have.
func (f *Format) PIDField() *Field { return f.Field("common_pid") }

// Append writes the format as the kernel's format file has it: what [Parse] reads.
func (f *Format) Append(dst []byte) []byte {
	dst = append(dst, "name: "...)
	dst = append(dst, f.Name...)
	dst = append(dst, "\nID: "...)
	dst = strconv.AppendInt(dst, int64(f.ID), 10)
	dst = append(dst, "\nformat:\n"...)
	for i := range f.Fields {
		dst = f.Fields[i].appendDecl(dst)
	}
	dst = append(dst, "\nprint fmt: "...)
	return append(append(dst, f.Print...), '\n')
}

func (f *Field) appendDecl(dst []byte) []byte {
	dst = append(dst, "\tfield:"...)
	switch {
	case f.DataLoc:
		dst = append(append(append(dst, "__data_loc "...), f.Type...), "[] "...)
		dst = append(dst, f.Name...)
	case f.RelLoc:
		dst = append(append(append(dst, "__rel_loc "...), f.Type...), "[] "...)
		dst = append(dst, f.Name...)
	default:
		dst = append(append(append(dst, f.Type...), ' '), f.Name...)
		if f.ArrayLen > 0 {
			dst = append(dst, '[')
			dst = strconv.AppendInt(dst, int64(f.ArrayLen), 10)
			dst = append(dst, ']')
		} else if f.ArrayLen == 0 {
			dst = append(dst, "[]"...)
		}
	}
	dst = append(dst, ";\toffset:"...)
	dst = strconv.AppendInt(dst, int64(f.Offset), 10)
	dst = append(dst, ";\tsize:"...)
	dst = strconv.AppendInt(dst, int64(f.Size), 10)
	dst = append(dst, ";\tsigned:"...)
	if f.Signed {
		return append(dst, "1;\n"...)
	}
	return append(dst, "0;\n"...)
}
