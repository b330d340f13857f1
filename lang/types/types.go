// Package types is the type model of the language: what the checker finds, what the compiler lays out in maps and
// records, and what the printing side reads back. C types stay in ctype; a Type of kind Struct points to one.
//
// Layout: every type has a fixed size in bytes. Integers, pointers and symbols are little-endian words of that size.
// A string is Size bytes, NUL-terminated unless full. Tuples and records align members as C does.
package types

import (
	"fmt"
	"strings"

	"github.com/fathom-trace/fathom/ctype"
)

// Kind tells types apart.
type Kind uint8

// The kinds. Those from Count on are map values that only their own functions write.
const (
	None        Kind = iota // not known (yet)
	Void                    // no value: what printf gives
	Bool                    // 1 byte
	Int                     // Size 1, 2, 4, 8; Signed
	Ptr                     // 8 bytes; Elem; Space
	Array                   // Len × Elem
	String                  // Size bytes
	Buffer                  // uint32 length, then Size-4 bytes of data
	Struct                  // C struct or union: C
	Tuple                   // Fields without names
	Record                  // Fields with names
	KStack                  // Stack layout
	UStack                  // Stack layout
	KSym                    // uint64 address
	USym                    // uint64 address, uint32 tgid, uint32 unused
	Inet                    // uint32 family (AF_INET, AF_INET6), 16 bytes of address
	MAC                     // 6 bytes, 2 of padding
	Username                // uint64 uid
	ProbeName               // uint64 index into Program.ProbeNames
	CgroupPath              // uint64 hierarchy id, uint64 cgroup id
	Strftime                // uint64 format index, uint64 nsecs, uint64 clock
	Strerror                // uint64 errno
	SignalName              // uint64 signal number
	SyscallName             // uint64 system call number
	Timestamp               // uint64: nsecs(sw_tai) and the like where they need their clock
	Enum                    // Int that prints as a name: Size, Signed, C
	Context                 // ctx: the program's own context pointer
	Args                    // args: Fields live in the context; only its fields can be used, or print(args)

	Count // uint64, per CPU
	Sum   // uint64 (Signed: int64), per CPU
	Avg   // total, count, per CPU
	Min   // value, set, per CPU
	Max   // value, set, per CPU
	Stats // total, count, per CPU
	Hist  // per bucket uint64, per CPU; the bucket is the last part of the key
	LHist // the same
	TSeries
)

// Space is the address space a pointer points into.
type Space uint8

// Address spaces. Unknown is decided by the probe type.
const (
	SpaceNone Space = iota
	Kernel
	User
	BPF // stack, map value or context: loaded directly
)

// Type is a type. Types are compared with Equal and never changed once shared.
type Type struct {
	Kind   Kind
	Size   int // bytes, also for Ptr (8); for String and Buffer the capacity
	Signed bool
	Lit    bool // an integer literal, which takes the other operand's type where it fits
	Space  Space
	Elem   *Type
	Len    int // Array: elements; Args: words of the context they take
	Fields []Field
	C      ctype.Type // *ctype.Struct, *ctype.Enum; nil for a Ptr to void
	Name   string     // as written or as C names it
	Stack  StackMode  // KStack, UStack
	Depth  int        // KStack, UStack: number of frames asked for
	Bounds Bounds     // LHist, Hist, TSeries
}

// StackMode is how a stack prints.
type StackMode uint8

// Stack modes.
const (
	StackBpftrace StackMode = iota
	StackPerf
	StackRaw
	StackBuildID
)

// Bounds are the constant arguments of hist (Bits), lhist (Min, Max, Step) and tseries (Step = interval ns, Max = intervals).
type Bounds struct {
	Bits           int
	Min, Max, Step int64
	Agg            string // tseries: avg, max, min, sum
}

// Field is a member of a tuple, record, struct or args. Off is in bytes from the start.
type Field struct {
	Name    string
	Type    *Type
	Off     int
	BitOff  int // within the Type-sized unit at Off; only with BitSize > 0
	BitSize int
	DataLoc bool // __data_loc: Off holds a uint32 of length<<16 | offset from the start of the event
	RelLoc  bool // __rel_loc: the same, offset from the end of this field
	Index   int  // Args: the position of the parameter
}

// Shared types.
var (
	NoneT     = &Type{Kind: None}
	VoidT     = &Type{Kind: Void}
	BoolT     = &Type{Kind: Bool, Size: 1}
	Int8      = &Type{Kind: Int, Size: 1, Signed: true}
	Int16     = &Type{Kind: Int, Size: 2, Signed: true}
	Int32     = &Type{Kind: Int, Size: 4, Signed: true}
	Int64     = &Type{Kind: Int, Size: 8, Signed: true}
	Uint8     = &Type{Kind: Int, Size: 1}
	Uint16    = &Type{Kind: Int, Size: 2}
	Uint32    = &Type{Kind: Int, Size: 4}
	Uint64    = &Type{Kind: Int, Size: 8}
	KSymT     = &Type{Kind: KSym, Size: 8}
	USymT     = &Type{Kind: USym, Size: 16}
	InetT     = &Type{Kind: Inet, Size: 20}
	MACT      = &Type{Kind: MAC, Size: 8}
	UsernameT = &Type{Kind: Username, Size: 8}
)

// IntT gives the integer type of size bytes.
func IntT(size int, signed bool) *Type {
	for _, t := range []*Type{Int8, Int16, Int32, Int64, Uint8, Uint16, Uint32, Uint64} {
		if t.Size == size && t.Signed == signed {
			return t
		}
	}
	return Int64
}

// StringT gives a string of size bytes, the NUL included.
func StringT(size int) *Type { return &Type{Kind: String, Size: size} }

// BufferT gives a buffer of n data bytes.
func BufferT(n int) *Type { return &Type{Kind: Buffer, Size: 4 + n} }

// PtrTo gives a pointer to elem in space; elem nil or Void is void *.
func PtrTo(elem *Type, space Space) *Type {
	if elem == nil {
		elem = VoidT
	}
	return &Type{Kind: Ptr, Size: 8, Elem: elem, Space: space}
}

// ArrayOf gives an array.
func ArrayOf(elem *Type, n int) *Type {
	return &Type{Kind: Array, Size: n * elem.Size, Elem: elem, Len: n}
}

// StackT gives the type of a stack of at most depth frames: one uint64 count of bytes (or a negative errno), one uint64
// tgid<<32|tid, then depth uint64 addresses.
func StackT(kind Kind, mode StackMode, depth int) *Type {
	t := &Type{Kind: kind, Stack: mode, Depth: depth}
	t.Size = 16 + t.FrameSize()*depth
	return t
}

// FrameSize gives the bytes of one frame of a stack: an address, or with StackBuildID a struct bpf_stack_build_id
// (include/uapi/linux/bpf.h: s32 status, u8 build_id[20], u64 offset or ip).
func (t *Type) FrameSize() int {
	if t.Stack == StackBuildID {
		return 32
	}
	return 8
}

// TupleOf lays elems out as C would.
func TupleOf(elems ...*Type) *Type {
	fs := make([]Field, len(elems))
	for i, e := range elems {
		fs[i] = Field{Name: fmt.Sprint(i), Type: e}
	}
	return layout(&Type{Kind: Tuple, Fields: fs})
}

// RecordOf lays fields out as C would.
func RecordOf(fields []Field) *Type { return layout(&Type{Kind: Record, Fields: fields}) }

func layout(t *Type) *Type {
	off, align := 0, 1
	for i := range t.Fields {
		a := Align(t.Fields[i].Type)
		align = max(align, a)
		off = (off + a - 1) &^ (a - 1)
		t.Fields[i].Off = off
		off += t.Fields[i].Type.Size
	}
	t.Size = (off + align - 1) &^ (align - 1)
	return t
}

// Align gives the alignment of t in bytes.
func Align(t *Type) int {
	switch t.Kind {
	case Int, Bool, Enum, Ptr:
		return max(1, min(8, t.Size))
	case String:
		return 1
	case Buffer, Inet:
		return 4
	case Array:
		return Align(t.Elem)
	case Tuple, Record:
		a := 1
		for _, f := range t.Fields {
			a = max(a, Align(f.Type))
		}
		return a
	case None, Void:
		return 1
	}
	return 8
}

// IsInt says if t computes like an integer.
func (t *Type) IsInt() bool { return t.Kind == Int || t.Kind == Bool || t.Kind == Enum }

// IsScalar says if a value of t fits one register.
func (t *Type) IsScalar() bool {
	switch t.Kind {
	case Int, Bool, Enum, Ptr, KSym, Username, ProbeName, Strerror, SignalName, SyscallName, Timestamp, Context, Args:
		return true
	}
	return false
}

// IsAgg says if t is a map value with functions of its own (count, sum, hist, …).
func (t *Type) IsAgg() bool { return t.Kind >= Count }

// CastableAgg says if an aggregation can be read as an integer.
func (t *Type) CastableAgg() bool { return t.Kind >= Count && t.Kind <= Stats }

// Field finds a field of a tuple, record or args.
func (t *Type) Field(name string) (Field, bool) {
	for _, f := range t.Fields {
		if f.Name == name {
			return f, true
		}
	}
	return Field{}, false
}

// Equal says if two types are the same type with the same layout.
func Equal(a, b *Type) bool {
	if a == b {
		return true
	}
	if a == nil || b == nil || a.Kind != b.Kind || a.Size != b.Size || a.Signed != b.Signed || a.Len != b.Len ||
		len(a.Fields) != len(b.Fields) || a.Bounds != b.Bounds || a.Stack != b.Stack || a.Depth != b.Depth {
		return false
	}
	for i := range a.Fields {
		if a.Fields[i].Name != b.Fields[i].Name || !Equal(a.Fields[i].Type, b.Fields[i].Type) {
			return false
		}
	}
	if a.Kind == Struct || a.Kind == Enum {
		return a.C == b.C
	}
	if a.Elem == nil || b.Elem == nil {
		return a.Elem == b.Elem
	}
	return Equal(a.Elem, b.Elem)
}

var kindNames = map[Kind]string{
	None: "none", Void: "void", Bool: "bool", KStack: "kstack", UStack: "ustack", KSym: "ksym_t", USym: "usym_t", Inet: "inet_t",
	MAC: "mac_address_t", Username: "username_t", ProbeName: "string", CgroupPath: "cgroup_path_t", Strftime: "timestamp",
	Strerror: "strerror_t", SignalName: "string", SyscallName: "string", Timestamp: "timestamp", Context: "ctx", Args: "args", Count: "count_t", Sum: "sum_t", Avg: "avg_t",
	Min: "min_t", Max: "max_t", Stats: "stats_t", Hist: "hist_t", LHist: "lhist_t", TSeries: "tseries_t",
}

// String names t as bpftrace's diagnostics do: "int64", "string[64]", "struct task_struct *", "(int64,string[16])".
func (t *Type) String() string {
	switch t.Kind {
	case Int:
		return map[bool]string{true: "int", false: "uint"}[t.Signed] + fmt.Sprint(8*t.Size)
	case Ptr:
		return t.Elem.String() + " *"
	case Array:
		return fmt.Sprintf("%v[%d]", t.Elem, t.Len)
	case String:
		return fmt.Sprintf("string[%d]", t.Size)
	case Buffer:
		return fmt.Sprintf("buffer[%d]", t.Size-4)
	case Struct, Enum:
		if t.C != nil {
			return ctype.Name(t.C)
		}
		return t.Name
	case Tuple, Record:
		var s []string
		for _, f := range t.Fields {
			if t.Kind == Record {
				s = append(s, f.Name+"="+f.Type.String())
			} else {
				s = append(s, f.Type.String())
			}
		}
		return "(" + strings.Join(s, ",") + ")"
	case Sum, Min, Max, Avg, Stats:
		if !t.Signed {
			return "u" + kindNames[t.Kind]
		}
	}
	return kindNames[t.Kind]
}
