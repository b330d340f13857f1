package view

import (
	"fmt"
	"strconv"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/lang/types"
)

// number reads an integer of t's size; unsigned values beyond int64 wrap.
func number(t *types.Type, b []byte) int64 {
	var n uint64
	size := min(t.Size, len(b), 8)
	for i := size - 1; i >= 0; i-- {
		n = n<<8 | uint64(b[i])
	}
	if t.Signed && size > 0 && size < 8 {
		sh := uint(64 - 8*size)
		return int64(n<<sh) >> sh
	}
	return int64(n)
}

func appendNumber(dst []byte, t *types.Type, b []byte) []byte {
	n := number(t, b)
	if t.Signed {
		return strconv.AppendInt(dst, n, 10)
	}
	return strconv.AppendUint(dst, uint64(n), 10)
}

// Value gives a value as print shows it.
func (o *Output) Value(t *types.Type, b []byte) string { return string(o.value(nil, t, b)) }

func (o *Output) value(dst []byte, t *types.Type, b []byte) []byte {
	if len(b) < t.Size {
		return dst
	}
	switch t.Kind {
	case types.Int, types.Timestamp:
		return appendNumber(dst, t, b)
	case types.String:
		return o.str(dst, b[:t.Size])
	case types.Bool:
		return strconv.AppendBool(dst, number(t, b) != 0)
	case types.Enum:
		return appendEnum(dst, t, number(t, b))
	case types.Ptr, types.Context:
		return appendHex(dst, word(b, 0))
	case types.Buffer:
		return escapeBuffer(dst, buffer(t, b), true, true)
	case types.Array:
		return o.list(dst, t, b)
	case types.Tuple:
		return o.tuple(dst, t, b)
	case types.Record, types.Struct:
		return o.record(dst, t, b)
	case types.KStack, types.UStack:
		return o.stack(dst, t, b)
	case types.None, types.Void:
		return append(dst, "null"...)
	case types.Stats:
		if t.Size >= 16 {
			return row{total: int64(word(b, 0)), count: int64(word(b, 8))}.stats(dst, t, 1)
		}
	}
	if t.IsAgg() {
		return appendNumber(dst, &types.Type{Size: 8, Signed: t.Signed}, le.AppendUint64(nil, uint64(aggregate(t, b))))
	}
	return append(dst, o.symbolic(t, b)...)
}

// aggregate gives the number that an aggregation is where one is wanted. It may have been made one already.
func aggregate(t *types.Type, b []byte) int64 {
	if (t.Kind == types.Avg || t.Kind == types.Stats) && t.Size >= 16 {
		return average(t, row{total: int64(word(b, 0)), count: int64(word(b, 8))})
	}
	return int64(word(b, 0))
}

// symbolic gives the values that print as one name.
func (o *Output) symbolic(t *types.Type, b []byte) string {
	switch r := o.o.Resolver; t.Kind {
	case types.KSym:
		return r.KernelSym(word(b, 0))
	case types.USym:
		return r.UserSym(int(uint32(word(b, 8))), word(b, 0))
	case types.Inet:
		return inet(b)
	case types.MAC:
		return mac(b)
	case types.Username:
		return r.Username(word(b, 0))
	case types.ProbeName:
		if i := word(b, 0); i < uint64(len(o.o.Program.Names)) {
			return o.o.Program.Names[i]
		}
	case types.CgroupPath:
		return r.CgroupPath(word(b, 0), word(b, 8))
	case types.Strftime:
		if i := word(b, 0); i < uint64(len(o.o.Program.Formats)) {
			return r.Strftime(o.o.Program.Formats[i], word(b, 8), int(word(b, 16)))
		}
	case types.Strerror:
		return strerror(int64(int32(word(b, 0))))
	case types.SignalName:
		return signalName(int64(int32(word(b, 0))))
	case types.SyscallName:
		return syscallName(o.o.Arch, word(b, 0))
	}
	return ""
}

// str appends a string up to its NUL. One that fills its room was cut, and says so; str() without a length leaves
// room for the NUL, so there a string cut short ends with one.
func (o *Output) str(dst, b []byte) []byte {
	s := cstring(b)
	dst = append(dst, s...)
	if n := len(b); n > 0 && (len(s) == n || n == o.o.MaxStrlen && len(s) == n-1) {
		dst = append(dst, o.trunc...)
	}
	return dst
}

// appendEnum appends the name of an enumerator; what has none is a number, which bpftrace takes as unsigned.
func appendEnum(dst []byte, t *types.Type, n int64) []byte {
	if e, ok := t.C.(*ctype.Enum); ok {
		for _, v := range e.Values {
			if v.Value == n {
				return append(dst, v.Name...)
			}
		}
	}
	return strconv.AppendUint(dst, enumNumber(t, n), 10)
}

func enumNumber(t *types.Type, n int64) uint64 {
	if t.Size > 0 && t.Size < 8 {
		return uint64(n) & (1<<(8*t.Size) - 1)
	}
	return uint64(n)
}

// buffer gives the bytes a buffer holds.
func buffer(t *types.Type, b []byte) []byte {
	room := min(t.Size, len(b)) - 4
	if room <= 0 {
		return nil
	}
	return b[4 : 4+min(int(le.Uint32(b)), room)]
}

// escapeBuffer writes bytes: printable ones as they are if keep, others as \xNN; with neither, two digits and a blank
// between bytes.
func escapeBuffer(dst, b []byte, keep, prefix bool) []byte {
	const digits = "0123456789abcdef"
	for i, c := range b {
		switch {
		case keep && c >= 0x20 && c < 0x7f:
			dst = append(dst, c)
			continue
		case prefix:
			dst = append(dst, '\\', 'x')
		case i > 0:
			dst = append(dst, ' ')
		}
		dst = append(dst, digits[c>>4], digits[c&15])
	}
	return dst
}

func (o *Output) list(dst []byte, t *types.Type, b []byte) []byte {
	dst = append(dst, '[')
	for i := range t.Len {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = o.value(dst, t.Elem, b[i*t.Elem.Size:])
	}
	return append(dst, ']')
}

func (o *Output) tuple(dst []byte, t *types.Type, b []byte) []byte {
	dst = append(dst, '(')
	for i, f := range t.Fields {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		dst = o.value(dst, f.Type, b[f.Off:])
	}
	return append(dst, ')')
}

// field is a member of a record or struct, its bytes found: the common ground of text and JSON.
type field struct {
	name string
	t    *types.Type
	b    []byte
}

// fields gives the members of a record or a C struct. The members of anonymous members count as the struct's own.
func fields(t *types.Type, b []byte) []field {
	if t.Kind == types.Record {
		out := make([]field, len(t.Fields))
		for i, f := range t.Fields {
			out[i] = field{f.Name, f.Type, b[f.Off:]}
		}
		return out
	}
	if s, ok := ctype.Strip(t.C).(*ctype.Struct); ok {
		return members(nil, s, 0, b, 0)
	}
	return nil
}

// maxNesting bounds anonymous structs in anonymous structs.
const maxNesting = 32

func members(out []field, s *ctype.Struct, base int, b []byte, depth int) []field {
	for _, m := range s.Members() {
		m.BitOff += base
		if in, ok := ctype.Strip(m.Type).(*ctype.Struct); ok && m.Name == "" && depth < maxNesting {
			out = members(out, in, m.BitOff, b, depth+1)
			continue
		}
		if m.Name != "" {
			out = append(out, member(m, b))
		}
	}
	return out
}

// member finds one member. Bitfields are widened to their type; floating-point numbers have no value in the language.
func member(m ctype.Member, b []byte) field {
	t := types.FromC(m.Type, types.Kernel)
	if _, ok := ctype.Strip(m.Type).(*ctype.Float); ok {
		return field{m.Name, types.NoneT, nil}
	}
	if m.BitSize > 0 {
		return field{m.Name, t, le.AppendUint64(nil, uint64(bitfield(b, m.BitOff, m.BitSize, t.Signed)))}
	}
	if off := m.BitOff / 8; off >= 0 && off <= len(b) {
		return field{m.Name, t, b[off:]}
	}
	return field{m.Name, t, nil}
}

func (o *Output) record(dst []byte, t *types.Type, b []byte) []byte {
	fs := fields(t, b)
	if len(fs) == 0 {
		return append(dst, "{}"...)
	}
	for i, f := range fs {
		if i == 0 {
			dst = append(dst, "{ "...)
		} else {
			dst = append(dst, ", "...)
		}
		dst = append(append(append(dst, '.'), f.name...), " = "...)
		dst = o.value(dst, f.t, f.b)
	}
	return append(dst, " }"...)
}

// bitfield reads bits at a position counted from the start of b, little-endian.
func bitfield(b []byte, off, size int, signed bool) int64 {
	var n uint64
	size = min(size, 64)
	for i := range size {
		if p := off + i; p >= 0 && p/8 < len(b) && b[p/8]>>(p%8)&1 != 0 {
			n |= 1 << i
		}
	}
	if signed && size > 0 && n>>(size-1)&1 != 0 {
		n |= ^uint64(0) << size
	}
	return int64(n)
}

// stack writes a stack as bpftrace lays it out: a newline, then a frame a line, indented.
func (o *Output) stack(dst []byte, t *types.Type, b []byte) []byte {
	dst = append(dst, '\n')
	lines, failed := o.frames(t, b)
	for _, l := range lines {
		switch t.Stack {
		case types.StackPerf:
			dst = append(dst, '\t')
		case types.StackBpftrace:
			dst = append(dst, indent...)
		}
		dst = append(append(dst, l...), '\n')
	}
	if failed {
		dst = append(append(dst, indent...), "<unwind failure>\n"...)
	}
	return dst
}

const indent = "        "

// frames gives the lines of a stack, and if the walk failed at their end: an address of all ones.
func (o *Output) frames(t *types.Type, b []byte) (lines []string, failed bool) {
	if t.Stack == types.StackBuildID {
		return buildIDs(t, b), false
	}
	n := int(max(0, min(int64(t.Depth), int64(word(b, 0))/8, int64(len(b)-16)/8)))
	addrs := make([]uint64, 0, n)
	for i := 0; i < n && !failed; i++ {
		if a := word(b, 16+8*i); a != ^uint64(0) {
			addrs = append(addrs, a)
		} else {
			failed = true
		}
	}
	if t.Kind == types.UStack {
		return o.o.Resolver.UserStack(int(word(b, 8)>>32), addrs, t.Stack), failed
	}
	return o.o.Resolver.KernelStack(addrs, t.Stack), failed
}

// Status of a frame with a build id (enum bpf_stack_build_id_status).
const buildIDValid = 1

// buildIDs gives the frames of a stack of build ids: the id of the file and the offset in it, or an address where there is
// no file.
func buildIDs(t *types.Type, b []byte) []string {
	size := t.FrameSize()
	n := int(max(0, min(int64(t.Depth), int64(word(b, 0))/int64(size), int64(len(b)-16)/int64(size))))
	var out []string
	for i := range n {
		f := b[16+size*i:][:size]
		if le.Uint32(f) == buildIDValid {
			out = append(out, fmt.Sprintf("%x 0x%x", f[4:24], word(f, 24)))
		} else {
			out = append(out, fmt.Sprintf("0x%x", word(f, 24)))
		}
	}
	return out
}
