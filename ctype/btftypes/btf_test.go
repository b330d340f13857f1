package btftypes

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/internal/bin"
)

// builder writes BTF by hand.
type builder struct {
	base  *builder
	types []uint32
	strs  string // from its own first on
	n     uint32 // types
}

func (b *builder) strBase() uint32 {
	if b.base == nil {
		return 0
	}
	return b.base.strBase() + uint32(len(b.base.strs))
}

// name gives a string's number; what base has is not written again.
func (b *builder) name(s string) uint32 {
	if b.base == nil && b.strs == "" {
		b.strs = "\x00"
	}
	if s == "" {
		return 0
	}
	for at := b.base; at != nil; at = at.base {
		if i := strings.Index(at.strs, "\x00"+s+"\x00"); i >= 0 {
			return at.strBase() + uint32(i) + 1
		}
	}
	i := len(b.strs)
	b.strs += s + "\x00"
	return b.strBase() + uint32(i)
}

// add writes a type and gives its number. size is that of struct btf_type, or the number of another type.
func (b *builder) add(name string, kind, vlen int, flag bool, size uint32, words ...uint32) uint32 {
	info := uint32(kind)<<24 | uint32(vlen)
	if flag {
		info |= 1 << 31
	}
	b.types = append(append(b.types, b.name(name), info, size), words...)
	b.n++
	return b.last()
}

func (b *builder) last() uint32 {
	if b.base == nil {
		return b.n
	}
	return b.base.last() + b.n
}

func (b *builder) bytes(order binary.AppendByteOrder) []byte {
	b.name("")
	out := order.AppendUint16(nil, 0xeb9f)
	out = append(out, 1, 0)
	n := uint32(4 * len(b.types))
	for _, w := range []uint32{headerLen, 0, n, n, uint32(len(b.strs))} {
		out = order.AppendUint32(out, w)
	}
	for _, w := range b.types {
		out = order.AppendUint32(out, w)
	}
	return append(out, b.strs...)
}

func parse(t testing.TB, raw []byte, base *BTF) *BTF {
	t.Helper()
	b, err := Parse(raw, base)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// sample has every kind.
func sample() *builder {
	b := &builder{}
	num := b.add("int", kindInt, 0, false, 4, intSigned|32)
	b.add("_Bool", kindInt, 0, false, 1, intBool|8)
	char := b.add("char", kindInt, 0, false, 1, intSigned|8)
	bits := b.add("unsigned int", kindInt, 0, false, 4, 2<<16|3) // a bitfield as it was before kind_flag
	b.add("double", kindFloat, 0, false, 8)
	user := b.add("user", kindTypeTag, 0, false, b.add("", kindConst, 0, false, char))
	text := b.add("", kindPtr, 0, false, user)
	attr := b.add("", kindPtr, 0, false, b.add("noderef", kindTypeTag, 0, true, num))
	arr := b.add("", kindArray, 0, false, 0, num, num, 3)
	node := b.last() + 3
	next := b.add("", kindPtr, 0, false, node)
	in := b.add("", kindUnion, 2, false, 8, b.name("a"), arr, 0, b.name("b"), bits, 8)
	b.add("node", kindStruct, 5, true, 64, b.name("next"), next, 0, b.name("text"), text, 64, 0, in, 128, b.name("f"), num, 5<<24|200, b.name("x"), attr, 256)
	node_t := b.add("node_t", kindTypedef, 0, false, node)
	b.add("node", kindFwd, 0, true, 0)
	b.add("colour", kindEnum, 2, true, 4, b.name("RED"), 0xffffffff, b.name("GREEN"), 2)
	b.add("wide", kindEnum64, 1, false, 8, b.name("BIG"), 1, 0x80000000)
	proto := b.add("", kindFuncProto, 3, false, b.add("", kindVolatile, 0, false, num), b.name("n"), b.add("", kindPtr, 0, false, node_t),
		b.name("s"), b.add("", kindRestrict, 0, false, text), 0, 0)
	b.add("walk", kindFunc, 1, false, proto)
	v := b.add("jiffies", kindVar, 0, false, num, 1)
	b.add(".data", kindDatasec, 1, false, 4, v, 0, 4)
	b.add("tag", kindDeclTag, 0, false, node, 0xffffffff)
	return b
}

const sampleNode = `struct node size 64; struct node * next at 0:0; char * text at 64:0[user]; union  at 128:0; int f at 200:5; int * x at 256:0`

func TestVar(t *testing.T) {
	l := New(parse(t, sample().bytes(binary.LittleEndian), nil), nil)
	if v, err := l.Var("jiffies"); err != nil || ctype.Name(v) != "int" {
		t.Errorf("jiffies is %v, %v", v, err)
	}
	if v, err := l.Var("node"); !errors.Is(err, ctype.ErrNotFound) {
		t.Errorf("node is no variable but %v, %v", v, err)
	}
}

func TestKinds(t *testing.T) {
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		l := New(parse(t, sample().bytes(order), nil), nil)
		for _, tt := range []struct {
			kind       ctype.Kind
			name, want string
		}{
			{ctype.KindStruct, "node", sampleNode},
			{ctype.Any, "node", sampleNode},
			{ctype.KindTypedef, "node_t", "node_t size 64 = struct node"},
			{ctype.KindEnum, "colour", "enum colour size 4; RED = -1; GREEN = 2"},
			{ctype.Any, "wide", "enum wide size 8; BIG = -9223372036854775807"},
			{ctype.KindBase, "int", "int size 4 true false"},
			{ctype.KindBase, "_Bool", "_Bool size 1 false true"},
			{ctype.Any, "double", "double size 8"},
			{ctype.KindUnion, "node", ""},
			{ctype.Any, "walk", ""},
			{ctype.Any, "jiffies", ""},
			{ctype.Any, "user", ""},
			{ctype.Any, "nod", ""},
			{ctype.Any, "", ""},
		} {
			got := ""
			ty, err := l.ByName(tt.kind, tt.name)
			if err == nil {
				got = describe(ty)
			} else if !errors.Is(err, ctype.ErrNotFound) {
				t.Error(err)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("%v %s: %s", order, tt.name, d)
			}
		}
		f, err := l.Func("vmlinux", "walk")
		if err != nil || f.Name != "walk" || describe(f) != "int (node_t *, char *, void) size 0; n; s[user]; " {
			t.Errorf("%v: %v %q", order, err, describe(f))
		}
		if e, v, ok := l.EnumValue("RED"); !ok || v != -1 || e.Name != "colour" {
			t.Error(order, e, v, ok)
		}
		if _, _, ok := l.EnumValue("BLUE"); ok {
			t.Error("there is no BLUE")
		}
	}
}

// TestBitfieldInInt: before kind_flag the integer said where a bitfield is.
func TestBitfieldInInt(t *testing.T) {
	l := New(parse(t, sample().bytes(binary.LittleEndian), nil), nil)
	s, err := l.ByName(ctype.KindStruct, "node")
	if err != nil {
		t.Fatal(err)
	}
	m, ok := s.(*ctype.Struct).Member("b")
	if !ok || m.BitOff != 128+8+2 || m.BitSize != 3 {
		t.Errorf("%+v %v", m, ok)
	}
}

func TestIdentity(t *testing.T) {
	b := parse(t, sample().bytes(binary.LittleEndian), nil)
	l := New(b, nil)
	node, _ := l.ByName(ctype.KindStruct, "node")
	next, _ := node.(*ctype.Struct).Member("next")
	td, _ := l.ByName(ctype.KindTypedef, "node_t")
	if next.Type.(*ctype.Ptr).Elem != node || ctype.Strip(td) != node {
		t.Error("one struct is several types")
	}
	for range 2 { // by comparing, then by the table
		if again, err := l.ByName(ctype.Any, "node"); again != node || err != nil {
			t.Error(again, err)
		}
		if _, err := l.ByName(ctype.KindUnion, "node"); err == nil {
			t.Error("there is no union node")
		}
		p := l.parts[0]
		p.compared, p.found = 2*len(p.offs), map[question][]uint32{}
	}
	if l.parts[0].names.ids == nil {
		t.Error("the table was not made")
	}
	for range 2 { // searched for, then expected
		testNumbers(t, l)
		p := New(b, nil).parts[0]
		l.parts[0] = p
		l.Expect([]string{"walk", "node", "no", "none"})
		if got, ok := p.expected["none"]; !ok || got != nil {
			t.Error(got, ok)
		}
	}
	if d := cmp.Diff([]string{"node_t"}, b.Names(ctype.KindTypedef, "node")); d != "" {
		t.Error(d)
	}
}

func testNumbers(t *testing.T, l *Lookup) {
	t.Helper()
	if id, ok := l.FuncID("walk"); !ok || id == 0 {
		t.Error(id, ok)
	}
	if _, ok := l.FuncID("node"); ok {
		t.Error("node is no function")
	}
	if id, ok := l.ID(ctype.KindStruct, "node"); !ok || id == 0 {
		t.Error(id, ok)
	}
	if _, ok := l.ID(ctype.KindStruct, "walk"); ok {
		t.Error("walk is no struct")
	}
}

func TestModule(t *testing.T) {
	kernel := sample()
	mod := &builder{base: kernel}
	own := mod.add("ours", kindStruct, 1, false, 64, mod.name("node"), 14, 0) // the kernel's struct node
	mod.add("node", kindTypedef, 0, false, own)
	mod.add("walk", kindFunc, 0, false, mod.add("", kindFuncProto, 0, false, own))
	base := parse(t, kernel.bytes(binary.LittleEndian), nil)
	var asked []string
	l := New(base, func(name string) (*BTF, error) {
		asked = append(asked, name)
		if name != "m" {
			return nil, ctype.ErrNotFound
		}
		return Parse(mod.bytes(binary.LittleEndian), base)
	})
	node, err := l.ByName(ctype.KindStruct, "node")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.ByName(ctype.KindStruct, "ours"); err == nil {
		t.Error("the module is not loaded yet")
	}
	for range 2 {
		f, err := l.Func("m", "walk")
		if err != nil || ctype.Name(f) != "struct ours ()" {
			t.Fatal(f, err)
		}
	}
	ours, err := l.ByName(ctype.KindStruct, "ours")
	if err != nil {
		t.Fatal(err)
	}
	if m, ok := ours.(*ctype.Struct).Member("node"); !ok || m.Type != node {
		t.Errorf("%s: the module's struct node is another", describe(ours))
	}
	if n := len(l.AllByName(ctype.Any, "node")); n != 2 {
		t.Errorf("%d types are called node", n)
	}
	if f, err := l.Func("", "walk"); err != nil || len(f.Params) != 3 {
		t.Error("the kernel's function comes first", f, err)
	}
	if _, err := l.Func("nosuch", "walk"); !errors.Is(err, ctype.ErrNotFound) {
		t.Error(err)
	}
	if d := cmp.Diff([]string{"m", "nosuch"}, asked); d != "" {
		t.Error(d)
	}
}

// TestCircles: types that lead back to themselves end.
func TestCircles(t *testing.T) {
	b := &builder{}
	b.add("itself", kindTypedef, 0, false, 1)
	b.add("p", kindTypedef, 0, false, 3)
	b.add("", kindPtr, 0, false, 2)
	b.add("a", kindTypedef, 0, false, 5)
	b.add("", kindArray, 0, false, 0, 5, 5, 2)
	b.add("f", kindTypedef, 0, false, 7)
	b.add("", kindPtr, 0, false, 8)
	b.add("", kindFuncProto, 1, false, 7, 0, 6)
	b.add("s", kindStruct, 2, false, 8, 0, 9, 0, b.name("self"), 9, 0)
	b.add("x", kindStruct, 1, false, 8, 0, 11, 0)
	b.add("y", kindStruct, 1, false, 4, 0, 12, 0)
	b.add("", kindArray, 0, false, 0, 10, 10, 0)
	b.add("c", kindTypedef, 0, false, 14)
	b.add("", kindConst, 0, false, 15)
	b.add("", kindVolatile, 0, false, 14)
	b.add("v", kindStruct, 1, false, 8, 0, 14, 0)
	b.add("far", kindTypedef, 0, false, 1<<30)
	l := New(parse(t, b.bytes(binary.LittleEndian), nil), nil)
	for name, want := range map[string]string{
		"itself": "itself size 0 = void",
		"p":      "p size 8 = void *",
		"a":      "a size 0 = void[2]",
		"f":      "f size 8 = void (*)(void)",
		"s":      "struct s size 8; void  at 0:0; void self at 0:0",
		"x":      "struct x size 8; struct y  at 0:0",
		"y":      "struct y size 4; void  at 0:0",
		"c":      "c size 0 = void",
		"v":      "struct v size 8; void  at 0:0",
		"far":    "far size 0 = void",
	} {
		ty, err := l.ByName(ctype.Any, name)
		if err != nil {
			t.Fatal(name, err)
		}
		if d := cmp.Diff(want, describe(ty)); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		if s, ok := ty.(*ctype.Struct); ok {
			if _, ok := s.Member("nosuch"); ok {
				t.Error(name, "has a member that is not there")
			}
		}
	}
}

// TestDeep: pointers in a row overflow no stack.
func TestDeep(t *testing.T) {
	b := &builder{}
	const n = 100_000
	for i := range uint32(n) {
		b.add("", kindPtr, 0, false, i+2)
	}
	b.add("t", kindTypedef, 0, false, 1)
	l := New(parse(t, b.bytes(binary.LittleEndian), nil), nil)
	ty, err := l.ByName(ctype.Any, "t")
	if err != nil {
		t.Fatal(err)
	}
	if s := ctype.Name(ty.(*ctype.Typedef).Type); len(s) > 2*maxDepth+8 {
		t.Errorf("%d characters", len(s))
	}
}

func TestErrors(t *testing.T) {
	good := sample().bytes(binary.LittleEndian)
	with := func(at int, bytes ...byte) []byte {
		b := append([]byte(nil), good...)
		copy(b[at:], bytes)
		return b
	}
	for _, tt := range []struct {
		raw  []byte
		want string
	}{
		{nil, "BTF header at 0x0: need 2 bytes, have 0"},
		{good[:20], "BTF header at 0x14: need 4 bytes, have 0"},
		{with(0, 1), "BTF header at 0x0: magic 0xeb01, want 0xeb9f"},
		{with(2, 2), "BTF header at 0x2: version 2, want 1"},
		{with(4, 23), "BTF header at 0x4: header of 23 bytes in"},
		{with(4, 255, 255, 255, 255), "BTF header at 0x4: header of 4294967295 bytes in"},
		{with(8, 255, 255, 255, 255), "BTF header at 0x8:"},
		{with(12, 1), "BTF header at 0x8:"},
		{with(20, 255, 255), "BTF header at 0x10:"},
		{good[:len(good)-1], "BTF header at 0x10:"},
		{with(len(good)-1, 'x'), "BTF strings at"},
		{with(24+7, 31), "BTF type 1 at 0x1c: unknown kind 31"},
		{with(24+7, 0), "BTF type 1 at 0x1c: unknown kind 0"},
		{with(24+16+3, 1), "BTF type 2 at 0x28: name at 0x1"},
		{with(12, 20, 0, 0, 0), "BTF type 2 at 0x28: need 12 bytes, have 4"},
		{with(24+4, 255, 255, 0, kindStruct), "BTF type 1 at 0x18: need 786432 bytes"},
	} {
		_, err := Parse(tt.raw, nil)
		var fe *bin.FormatError
		if !errors.As(err, &fe) || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%v, want %s", err, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		b := sample()
		f.Add(b.bytes(order), uint16(len(b.bytes(order))))
		m := &builder{base: b}
		m.add("m", kindStruct, 1, false, 8, m.name("node"), 14, 0)
		f.Add(append(b.bytes(order), m.bytes(order)...), uint16(len(b.bytes(order))))
	}
	f.Fuzz(func(t *testing.T, raw []byte, cut uint16) {
		at := min(int(cut), len(raw))
		k, err := Parse(raw[:at], nil)
		if err != nil {
			return
		}
		l := New(k, func(string) (*BTF, error) { return Parse(raw[at:], k) })
		_ = l.Load("m")
		for _, p := range l.parts {
			for id := p.first; id < min(p.end(), 1000); id++ {
				walk(p.convert(id, 0), 0)
			}
			for _, n := range append(p.Names(ctype.KindStruct, ""), p.Names(ctype.KindTypedef, "")...) {
				if _, err := l.ByName(ctype.Any, n); err != nil {
					t.Error(n, err)
				}
			}
		}
		l.EnumValue("RED")
		_, _ = l.Func("m", "walk")
	})
}

// walk goes where those who print values by their type go; a type that does not end overflows the stack.
func walk(t ctype.Type, depth int) {
	ctype.Size(t)
	switch t := ctype.Strip(t).(type) {
	case *ctype.Struct:
		t.Member("no such member")
		for _, m := range t.Members() {
			if _, ok := ctype.Strip(m.Type).(*ctype.Struct); !ok || depth < 4 { // structs may share the same parts again and again
				walk(m.Type, depth+1)
			}
		}
	case *ctype.Array:
		walk(t.Elem, depth)
	}
}
