package kernel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"iter"
	"strings"

	"github.com/fathom-trace/fathom/ctype"
)

// Value is an object in a kernel's memory: a type at an address. Its methods never fail where they stand; the first error
// of a chain goes to the Errors the chain began with, and what follows it is zero. So a walker reads fields in order and
// checks once.
type Value struct {
	Addr uint64
	Type ctype.Type

	bitOff, bitSize int // of a bitfield, from Addr
	t               Target
	errs            *Errors
}

// Errors collects what went wrong in chains of values.
type Errors struct {
	First error
	N     int
}

// Add counts an error and keeps it if it is the first.
func (e *Errors) Add(err error) {
	if e.First == nil {
		e.First = err
	}
	e.N++
}

// Take returns the first error and forgets it.
func (e *Errors) Take() error {
	err := e.First
	e.First = nil
	return err
}

// Object is the value of a named type, as C writes it ("struct task_struct"), at an address.
func Object(t Target, errs *Errors, typ string, addr uint64) Value {
	ty, err := TypeNamed(t.Types(), typ)
	if err != nil {
		errs.Add(err)
		return Value{t: t, errs: errs}
	}
	return Value{Addr: addr, Type: ty, t: t, errs: errs}
}

// Typed is the value of a type at an address.
func Typed(t Target, errs *Errors, ty ctype.Type, addr uint64) Value {
	return Value{Addr: addr, Type: ty, t: t, errs: errs}
}

// Global is the object that a symbol names. BTF has no types of variables outside per-CPU memory, so it is given.
func Global(t Target, errs *Errors, typ, symbol string) Value {
	at := t.Symbols().ByName(symbol)
	if len(at) == 0 {
		errs.Add(fmt.Errorf("%s: no such symbol", symbol))
		return Value{t: t, errs: errs}
	}
	return Object(t, errs, typ, at[0])
}

// TypeNamed finds a type by its C name: "struct x", "union x", "enum x", a typedef or base type, with any number of "*".
func TypeNamed(l ctype.Lookup, name string) (ctype.Type, error) {
	name = strings.TrimSpace(name)
	if in, ok := strings.CutSuffix(name, "*"); ok {
		if strings.TrimSpace(in) == "void" {
			return &ctype.Ptr{Elem: ctype.Void{}}, nil
		}
		e, err := TypeNamed(l, in)
		return &ctype.Ptr{Elem: e}, err
	}
	for prefix, kind := range map[string]ctype.Kind{"struct ": ctype.KindStruct, "union ": ctype.KindUnion, "enum ": ctype.KindEnum} {
		if in, ok := strings.CutPrefix(name, prefix); ok {
			return l.ByName(kind, strings.TrimSpace(in))
		}
	}
	if as, ok := compilerNames[name]; ok {
		name = as
	}
	return l.ByName(ctype.Any, name)
}

// IsName says that a text could be the name of a C type or variable.
func IsName(s string) bool {
	for i := range len(s) {
		if c := s[i]; c != '_' && (c|0x20 < 'a' || c|0x20 > 'z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// compilerNames are base types as C programs spell them, and as gcc names them in type information.
var compilerNames = map[string]string{
	"unsigned long": "long unsigned int", "long": "long int", "unsigned": "unsigned int", "unsigned short": "short unsigned int",
	"short": "short int", "unsigned long long": "long long unsigned int", "long long": "long long int", "bool": "_Bool",
}

// OK says that the value is there to be read.
func (v Value) OK() bool { return v.Type != nil }

func (v Value) fail(format string, args ...any) Value {
	if v.OK() {
		v.errs.Add(fmt.Errorf(format, args...))
	}
	return Value{t: v.t, errs: v.errs}
}

// Fail records that what is there makes no sense.
func (v Value) Fail(format string, args ...any) { v.fail(format, args...) }

// Has says if a struct has a member; versions of the kernel are told apart by this.
func (v Value) Has(member string) bool {
	s, ok := ctype.Strip(v.Type).(*ctype.Struct)
	if !ok {
		return false
	}
	_, ok = s.Member(member)
	return ok
}

// Get follows a path of members, "signal.thread_head"; a member that is a pointer is followed when the path goes on.
func (v Value) Get(path string) Value {
	for name := range strings.SplitSeq(path, ".") {
		if _, ok := ctype.Strip(v.Type).(*ctype.Ptr); ok {
			v = v.Deref()
		}
		if !v.OK() {
			return v
		}
		s, ok := ctype.Strip(v.Type).(*ctype.Struct)
		if !ok {
			return v.fail("%s is no struct", ctype.Name(v.Type))
		}
		m, ok := s.Member(name)
		if !ok {
			return v.fail("%s has no member %s", ctype.Name(v.Type), name)
		}
		v = v.Part(m)
	}
	return v
}

// First is [Value.Get] of the first of these members that the struct has: a member that was renamed.
func (v Value) First(members ...string) Value {
	for _, m := range members {
		head, _, _ := strings.Cut(m, ".")
		if v.Has(head) {
			return v.Get(m)
		}
	}
	return v.fail("%s has none of %s", ctype.Name(v.Type), strings.Join(members, ", "))
}

// Deref is what a pointer points to; null is an error.
func (v Value) Deref() Value {
	p, ok := ctype.Strip(v.Type).(*ctype.Ptr)
	if !ok {
		return v.fail("%s is no pointer", ctype.Name(v.Type))
	}
	to := v.Uint()
	if to == 0 {
		return v.fail("null %s at %#x", ctype.Name(v.Type), v.Addr)
	}
	return Value{Addr: to, Type: p.Elem, t: v.t, errs: v.errs}
}

// At gives element i of an array, or of what a pointer points to.
func (v Value) At(i int) Value {
	if _, ok := ctype.Strip(v.Type).(*ctype.Ptr); ok {
		v = v.Deref()
	} else if a, ok := ctype.Strip(v.Type).(*ctype.Array); ok {
		v.Type = a.Elem
	} else {
		return v.fail("%s is no array", ctype.Name(v.Type))
	}
	v.Addr += uint64(i) * uint64(ctype.Size(v.Type))
	return v
}

// Size is how many bytes the value has; 0 if there is none.
func (v Value) Size() int {
	if !v.OK() {
		return 0
	}
	return ctype.Size(v.Type)
}

// Len is how many elements a member has that is an array; 0 if it is none.
func (v Value) Len(member string) int {
	s, ok := ctype.Strip(v.Type).(*ctype.Struct)
	if !ok {
		return 0
	}
	m, _ := s.Member(member)
	a, ok := ctype.Strip(m.Type).(*ctype.Array)
	if !ok {
		return 0
	}
	return a.Len
}

// Uint reads an integer, enum, pointer or bitfield, extended by its sign.
func (v Value) Uint() uint64 {
	if !v.OK() {
		return 0
	}
	size := ctype.Size(v.Type)
	if size < 1 || size > 8 {
		v.fail("%s is no number", ctype.Name(v.Type))
		return 0
	}
	var b [16]byte
	n := size
	if v.bitSize != 0 {
		n = (v.bitOff + v.bitSize + 7) / 8
	}
	if err := v.t.ReadVirt(b[:n], v.Addr); err != nil {
		v.errs.Add(err)
		return 0
	}
	u := binary.LittleEndian.Uint64(b[:])
	bits := 8 * size
	if v.bitSize != 0 {
		u >>= v.bitOff
		bits = v.bitSize
	}
	if bits == 64 {
		return u
	}
	u &= 1<<bits - 1
	if signed(v.Type) && u>>(bits-1) != 0 {
		u |= ^uint64(0) << bits
	}
	return u
}

func signed(t ctype.Type) bool {
	switch t := ctype.Strip(t).(type) {
	case *ctype.Int:
		return t.Signed
	case *ctype.Enum:
		return t.Signed
	}
	return false
}

// Int is Uint as a signed number.
func (v Value) Int() int { return int(v.Uint()) }

// Bytes reads n bytes at the value's address.
func (v Value) Bytes(n int) []byte {
	if !v.OK() || n < 0 || n > 16<<20 {
		return nil
	}
	b := make([]byte, n)
	if err := v.t.ReadVirt(b, v.Addr); err != nil {
		v.errs.Add(err)
		return nil
	}
	return b
}

// maxString bounds a string that a pointer points to.
const maxString = 4096

// String reads a char array, or the string that a char pointer points to.
func (v Value) String() string {
	if a, ok := ctype.Strip(v.Type).(*ctype.Array); ok {
		b := v.Bytes(a.Len)
		if i := bytes.IndexByte(b, 0); i >= 0 {
			b = b[:i]
		}
		return string(b)
	}
	if _, ok := ctype.Strip(v.Type).(*ctype.Ptr); !ok {
		return ""
	}
	s, err := ReadString(v.t, v.Uint(), maxString)
	if err != nil {
		v.errs.Add(err)
	}
	return s
}

// ReadString reads a NUL-terminated string of at most limit bytes.
func ReadString(m Memory, addr uint64, limit int) (string, error) {
	var out []byte
	for len(out) < limit {
		b := make([]byte, 64-addr%64) // never over a page that the string does not reach
		if err := m.ReadVirt(b, addr); err != nil {
			return string(out), err
		}
		if i := bytes.IndexByte(b, 0); i >= 0 {
			return string(append(out, b[:i]...)), nil
		}
		out, addr = append(out, b...), addr+uint64(len(b))
	}
	return string(out), nil
}

// maxList bounds walks of lists, whose ends a crash may have broken.
const maxList = 1 << 22

// List goes over a list_head: the objects of a type that are linked by a member.
func (v Value) List(typ, member string) iter.Seq[Value] {
	return func(yield func(Value) bool) {
		e := Object(v.t, v.errs, typ, 0)
		m := e.Get(member)
		if !m.OK() || !v.OK() {
			return
		}
		head := v.Addr
		// A circle that the head is not in comes by a mark again, which is set at each power of two.
		seen, mark, marked := 0, uint64(0), 1
		for at := v.Get("next").Uint(); at != head && at != 0; seen++ {
			if seen > maxList || at == mark {
				v.fail("list at %#x does not end", head)
				return
			}
			if seen == marked {
				mark, marked = at, 2*marked
			}
			if !yield(Value{Addr: at - m.Addr, Type: e.Type, t: v.t, errs: v.errs}) {
				return
			}
			next := Value{Addr: at, Type: v.Type, t: v.t, errs: v.errs}.Get("next").Uint()
			if next == at {
				v.fail("list at %#x loops at %#x", head, at)
				return
			}
			at = next
		}
	}
}

// Cast is the same address as another type.
func (v Value) Cast(typ string) Value {
	if !v.OK() {
		return v
	}
	return Object(v.t, v.errs, typ, v.Addr)
}

// Shift is the same type at another address.
func (v Value) Shift(addr uint64) Value { v.Addr = addr; return v }

// BitOffset is the bit that a bitfield begins at, counted from Addr; 0 for what is none.
func (v Value) BitOffset() int { return v.bitOff }

// Target is where the value is.
func (v Value) Target() Target { return v.t }

// PerCPU is a CPU's copy of what a per-CPU pointer points to.
func (v Value) PerCPU(cpu int) Value {
	v = v.Deref()
	if v.OK() {
		v.Addr += v.t.PerCPU(cpu)
	}
	return v
}

// Part is the member m of a struct.
func (v Value) Part(m ctype.Member) Value {
	v.Type, v.bitOff, v.bitSize = m.Type, 0, m.BitSize
	if m.BitSize != 0 {
		v.bitOff = m.BitOff % 8
	}
	v.Addr += uint64(m.BitOff / 8)
	return v
}
