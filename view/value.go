package view

import (
	"encoding/hex"
	"net/netip"
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
	case types.Bool:
		return strconv.AppendBool(dst, b[0] != 0)
	case types.Enum:
		return append(dst, enumName(t, number(t, b))...)
	case types.Ptr, types.Context:
		return append(append(dst, "0x"...), strconv.FormatUint(le.Uint64(b), 16)...)
	case types.String:
		return o.str(dst, b[:t.Size])
	case types.Buffer:
		return escapeBuffer(dst, buffer(t, b), true, true)
	case types.Array:
		return o.list(dst, t, b)
	case types.Tuple:
		return o.tuple(dst, t, b)
	case types.Record:
		return o.record(dst, t, b)
	case types.Struct:
		return o.structure(dst, t, b)
	case types.KStack, types.UStack:
		return o.stack(dst, t, b)
	}
	return append(dst, o.symbolic(t, b)...)
}

// symbolic gives the values that print as one name.
func (o *Output) symbolic(t *types.Type, b []byte) string {
	switch t.Kind {
	case types.KSym:
		return o.o.Resolver.KernelSym(le.Uint64(b))
	case types.USym:
		return o.o.Resolver.UserSym(int(le.Uint64(b[8:])), le.Uint64(b))
	case types.Inet:
		return inet(b)
	case types.MAC:
		return mac(b)
	case types.Username:
		return o.o.Resolver.Username(le.Uint64(b))
	case types.ProbeName:
		if i := le.Uint64(b); i < uint64(len(o.o.Program.Names)) {
			return o.o.Program.Names[i]
		}
	case types.CgroupPath:
		return o.o.Resolver.CgroupPath(le.Uint64(b), le.Uint64(b[8:]))
	case types.Strftime:
		if i := le.Uint64(b); i < uint64(len(o.o.Program.Formats)) {
			return o.o.Resolver.Strftime(o.o.Program.Formats[i], le.Uint64(b[8:]), int(le.Uint64(b[16:])))
		}
	case types.Strerror:
		return strerror(int(int64(le.Uint64(b))))
	case types.Count, types.Sum, types.Min, types.Max:
		return string(appendNumber(nil, &types.Type{Size: 8, Signed: t.Signed}, b))
	case types.Avg, types.Stats:
		return string(appendNumber(nil, types.Int64, b))
	}
	return ""
}

// str appends a string up to its NUL; one that fills its room was cut, and says so.
func (o *Output) str(dst, b []byte) []byte {
	s := cstring(b)
	dst = append(dst, s...)
	if len(b) == o.o.MaxStrlen && len(s) >= len(b)-1 {
		dst = append(dst, o.trunc...)
	}
	return dst
}

func enumName(t *types.Type, n int64) string {
	if e, ok := t.C.(*ctype.Enum); ok {
		for _, v := range e.Values {
			if v.Value == n {
				return v.Name
			}
		}
	}
	return strconv.FormatInt(n, 10)
}

// buffer gives the bytes a buffer holds.
func buffer(t *types.Type, b []byte) []byte {
	n := min(int(le.Uint32(b)), t.Size-4)
	return b[4 : 4+n]
}

// escapeBuffer writes bytes: printable ones as they are (if keep), others as \xNN, or with bare without the \x and spaced.
func escapeBuffer(dst, b []byte, keep, prefix bool) []byte {
	for i, c := range b {
		switch {
		case keep && c >= 0x20 && c < 0x7f:
			dst = append(dst, c)
		case prefix:
			dst = append(dst, '\\', 'x')
			dst = hex.AppendEncode(dst, []byte{c})
		default:
			if i > 0 {
				dst = append(dst, ' ')
			}
			dst = hex.AppendEncode(dst, []byte{c})
		}
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

func (o *Output) record(dst []byte, t *types.Type, b []byte) []byte {
	dst = append(dst, "{ "...)
	for i, f := range t.Fields {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		dst = append(append(append(dst, '.'), f.Name...), " = "...)
		dst = o.value(dst, f.Type, b[f.Off:])
	}
	return append(dst, " }"...)
}

func (o *Output) structure(dst []byte, t *types.Type, b []byte) []byte {
	s, ok := ctype.Strip(t.C).(*ctype.Struct)
	if !ok {
		return dst
	}
	dst = append(dst, "{ "...)
	for i, m := range s.Members() {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		dst = append(append(append(dst, '.'), m.Name...), " = "...)
		dst = o.member(dst, m, b)
	}
	return append(dst, " }"...)
}

func (o *Output) member(dst []byte, m ctype.Member, b []byte) []byte {
	t := types.FromC(m.Type, types.Kernel)
	if m.BitSize > 0 {
		n := bitfield(b, m.BitOff, m.BitSize, t.Signed)
		if t.Kind == types.Enum {
			return append(dst, enumName(t, n)...)
		}
		return strconv.AppendInt(dst, n, 10)
	}
	if off := m.BitOff / 8; off+t.Size <= len(b) {
		return o.value(dst, t, b[off:])
	}
	return dst
}

// bitfield reads bits at a position counted from the start of b, little-endian.
func bitfield(b []byte, off, size int, signed bool) int64 {
	var n uint64
	for i := range size {
		if p := off + i; p/8 < len(b) && b[p/8]>>(p%8)&1 != 0 {
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
	for _, l := range o.frames(t, b) {
		switch t.Stack {
		case types.StackPerf:
			dst = append(dst, '\t')
		case types.StackBpftrace:
			dst = append(dst, "        "...)
		}
		dst = append(append(dst, l...), '\n')
	}
	return dst
}

func (o *Output) frames(t *types.Type, b []byte) []string {
	n := int(min(int64(t.Depth), max(0, int64(le.Uint64(b))/8)))
	addrs := make([]uint64, 0, n)
	for i := range n {
		addrs = append(addrs, le.Uint64(b[16+8*i:]))
	}
	if t.Kind == types.UStack {
		return o.o.Resolver.UserStack(int(le.Uint64(b[8:])>>32), addrs, t.Stack)
	}
	return o.o.Resolver.KernelStack(addrs, t.Stack)
}

func inet(b []byte) string {
	const afInet = 2
	if le.Uint32(b) == afInet {
		return netip.AddrFrom4([4]byte(b[4:8])).String()
	}
	return netip.AddrFrom16([16]byte(b[4:20])).String()
}

func mac(b []byte) string {
	var dst []byte
	for i, c := range b[:6] {
		if i > 0 {
			dst = append(dst, ':')
		}
		const up = "0123456789ABCDEF"
		dst = append(dst, up[c>>4], up[c&15])
	}
	return string(dst)
}
