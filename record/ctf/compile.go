package ctf

import (
	"slices"
	"strings"

	"github.com/fathom-trace/fathom/traceevent"
)

// op is what a step of decoding does.
type op uint8

const (
	opInt     op = iota // read an integer of some bits
	opAlign             // go to the next multiple of n bits
	opCopy              // copy n bytes to dst
	opString            // read up to a NUL into a location at dst
	opArray             // read n integers
	opSeqInts           // read integers, as many as the length says, into a location at dst
	opVariant           // run the option of the tag's value
	opFloat             // read a float of another size than C's
	opText              // read text of another encoding than UTF-8 into a location at dst
	opList              // run sub n times, or as often as the length says; what it reads is text in a location at dst
)

// step decodes one field. dst is where it goes in the record: -1 is nowhere.
type step struct {
	op     op
	t      *typ
	n      int
	dst    int
	size   int // bytes at dst
	where  where
	slot   int // where the value is kept for those that refer to it; -1: nowhere
	from   int // slot of the length or the tag; -1: the length is n
	role   role
	sub    []step
	cases  [][]step
	choice []choice
	maybe  bool               // no option need be chosen
	format *traceevent.Format // of what sub reads
	fixed  int                // bytes of it that are at fixed places
}

// choice are values of a tag, and the option that they choose.
type choice struct {
	lo, hi int64
	option int
}

// where says how a record tells what a sequence holds.
type where uint8

const (
	located  where = iota // by a location counted from the start of the record (__data_loc)
	relative              // by one counted from behind itself (__rel_loc)
	trailing              // by its length: it begins at dst, and is the rest of the record
)

// placed says where a sequence is in the layout that is given.
func (l *layout) placed(name string) where {
	if l == nil || l.bound == nil || l.bound[name] == nil {
		return located
	}
	switch f := l.bound[name]; {
	case f.RelLoc:
		return relative
	case !f.DataLoc:
		return trailing
	}
	return located
}

// role is what a field of a header or packet context means. A field of CTF 2 may have several.
type role uint16

const roleNone role = 0

const (
	roleMagic role = 1 << iota
	roleStream
	roleID
	roleTime
	rolePacketBegin
	rolePacketEnd
	roleContent
	rolePacketSize
	roleDiscarded
	roleCPU
	roleUUID
)

// maxSteps and maxTypes bound what types may grow into, and maxSlots how many fields are referred to.
const (
	maxSteps = 1 << 16
	maxTypes = 1 << 18
	maxSlots = 4096
)

// builder turns types into steps.
type builder struct {
	slots  int
	steps  int
	types  int
	scopes []scopeNames
	layout *layout
	roles  map[string]role
	places *places // of CTF 2

	context bool // it is the packet's context that is compiled
}

// scopeNames are the fields that were seen, by their path in a scope such as "stream.event.context".
type scopeNames struct {
	name   string
	fields map[string]named
}

type named struct {
	slot   int
	labels []label
	truth  bool // it is only 0 or 1
}

// layout collects the fields of the record that events are given as.
type layout struct {
	fields []traceevent.Field
	size   int
	// contexts are how many of the fields are contexts, once they are all there.
	contexts int
	option   traceevent.Option            // that fields are of which are added now
	bound    map[string]*traceevent.Field // layout that is given; nil makes one
}

// chooser makes place for the number of an option; -1 is nowhere.
func (l *layout) chooser() int {
	if l == nil || l.bound != nil || l.size+3 > maxRecord {
		return -1
	}
	at := (l.size + 1) &^ 1
	l.size = at + 2
	return at
}

// within adds what f does as fields of an option.
func (l *layout) within(o traceevent.Option, f func()) {
	if l == nil || o.At < 0 {
		f()
		return
	}
	outer := l.option
	l.option = o
	f()
	l.option = outer
}

// add places a field of the given size and gives its offset, -1 if it is not wanted.
func (l *layout) add(f traceevent.Field) (off, size int) {
	if l == nil {
		return -1, 0
	}
	if l.bound != nil {
		b := l.bound[f.Name]
		if b == nil {
			return -1, 0
		}
		return b.Offset, b.Size
	}
	align := 4
	if !f.DataLoc {
		align = f.ElemSize()
		if f.ArrayLen < 0 {
			align = max(1, f.Size)
		}
	}
	l.size = (l.size + align - 1) &^ (align - 1)
	f.Offset = l.size
	if l.size+f.Size > maxRecord || len(l.fields) >= maxFields {
		return -1, 0
	}
	f.Name, f.Option = l.unique(f.Name), l.option
	l.size += f.Size
	l.fields = append(l.fields, f)
	return f.Offset, f.Size
}

// unique makes a name that no field has yet: an event's own field takes its name from a context, which becomes context_NAME.
func (l *layout) unique(name string) string {
	for i := range l.fields {
		if l.fields[i].Name != name {
			continue
		}
		if i < l.contexts {
			l.fields[i].Name = "context_" + name
			return name
		}
		return l.unique(name + "_")
	}
	return name
}

// maxRecord bounds the fixed part of a record, as locations have 16 bits, and maxFields how many fields an event has.
const (
	maxRecord = 1 << 15
	maxFields = 1024
)

func cIntType(t *typ, size int) string {
	s := map[int]string{1: "char", 2: "short", 4: "int", 8: "long"}[size]
	switch {
	case t.text:
		return "char"
	case t.hex && size == 8:
		return "void *"
	case size == 1 && t.signed:
		return "signed char"
	case !t.signed && size == 1:
		return "u8"
	case !t.signed:
		return "unsigned " + s
	}
	return s
}

// bytesFor is the size of a C integer that holds so many bits.
func bytesFor(bits int) int {
	switch {
	case bits <= 8:
		return 1
	case bits <= 16:
		return 2
	case bits <= 32:
		return 4
	}
	return 8
}

func strip(name string) string { return strings.TrimPrefix(name, "_") }

// scope compiles a type as one of the dynamic scopes of an event or packet.
func (b *builder) scope(name string, t *typ, out []step) []step {
	if t == nil {
		return out
	}
	b.scopes = append(b.scopes, scopeNames{name: name, fields: map[string]named{}})
	if b.places != nil {
		b.places.begin(name)
	}
	return b.typ(t, "", "", out)
}

func (b *builder) add(out []step, s step) []step {
	if b.steps++; b.steps > maxSteps {
		fail(0, "types that are too large")
	}
	return append(out, s)
}

// find looks a referred field up: relative to where the reference stands, then in the scopes before, then by absolute path.
func (b *builder) find(ref, prefix string) named {
	last := &b.scopes[len(b.scopes)-1]
	for p := prefix; ; {
		if n, ok := last.fields[p+ref]; ok {
			return n
		}
		i := strings.LastIndexByte(strings.TrimSuffix(p, "."), '.')
		if p == "" {
			break
		}
		p = p[:max(i+1, 0)]
	}
	for i := len(b.scopes) - 1; i >= 0; i-- {
		s := &b.scopes[i]
		if n, ok := s.fields[strings.TrimPrefix(ref, s.name+".")]; ok {
			return n
		}
	}
	fail(0, "a reference to %s, which does not stand before", ref)
	return named{}
}

// typ compiles a value called name; path is its place in the scope, with a dot behind it.
func (b *builder) typ(t *typ, name, path string, out []step) []step {
	if b.types++; b.types > maxTypes {
		fail(0, "types that are too large")
	}
	full := path + name
	switch t.kind {
	case kindInt:
		return b.integer(t, name, full, out)
	case kindFloat:
		s := step{op: opInt, t: t, slot: -1}
		size := t.size / 8
		if t.size != 32 && t.size != 64 {
			s.op, size = opFloat, map[bool]int{true: 4, false: 8}[t.size < 32]
		}
		f := traceevent.Field{Name: b.flat(full), Type: map[int]string{4: "float", 8: "double"}[size], Size: size, Signed: true, ArrayLen: -1}
		s.dst, s.size = b.layout.add(f)
		return b.add(out, s)
	case kindString:
		dst, size := b.located(full)
		return b.add(out, step{op: opString, dst: dst, size: size, slot: -1})
	case kindText:
		s := step{op: opText, t: t, n: t.n, slot: -1, from: -1}
		if t.at != nil {
			s.from = b.refers(t, path).slot
		}
		s.dst, s.size = b.located(full)
		return b.add(out, s)
	case kindStruct:
		return b.structure(t, full, out)
	case kindArray, kindSequence:
		return b.array(t, full, path, out)
	}
	return b.variant(t, full, path, out)
}

// located adds a field of text that a location points to.
func (b *builder) located(full string) (dst, size int) {
	return b.layout.add(traceevent.Field{Name: b.flat(full), Type: "char", Size: 4, DataLoc: true})
}

func (b *builder) structure(t *typ, full string, out []step) []step {
	if t.align > 1 {
		out = b.add(out, step{op: opAlign, n: t.align})
	}
	if full != "" {
		full += "."
	}
	if b.places == nil {
		for _, f := range t.fields {
			out = b.typ(f.typ, f.name, full, out)
		}
		return out
	}
	at := b.places.enter()
	for _, f := range t.fields {
		b.places.member(f.name)
		out = b.typ(f.typ, f.name, full, out)
	}
	b.places.leave(at)
	return out
}

// refers finds the field that another depends on.
func (b *builder) refers(t *typ, path string) named {
	var n named
	if t.at != nil {
		n = b.places.find(t.at)
	} else {
		n = b.find(t.ref, path)
	}
	if n.slot < 0 {
		fail(0, "too many fields")
	}
	return n
}

// flat makes one name of a path. CTF 2's names may have any character.
func (b *builder) flat(path string) string {
	if b.places == nil {
		return flat(path)
	}
	return strings.Map(func(c rune) rune {
		if c < 0x80 && isWord(byte(c)) {
			return c
		}
		return '_'
	}, path)
}

// flat makes one name of a path: members of structs are joined by underscores.
func flat(path string) string {
	if !strings.Contains(path, ".") {
		return strip(path)
	}
	parts := strings.Split(path, ".")
	for i := range parts {
		parts[i] = strip(parts[i])
	}
	return strings.Join(parts, "_")
}

func (b *builder) integer(t *typ, name, full string, out []step) []step {
	s := step{op: opInt, t: t, slot: b.slots, role: b.roles[strip(name)], dst: -1}
	if t.clock && s.role == roleNone && len(b.roles) > 0 {
		s.role = roleTime
	}
	if b.roles != nil {
		s.role |= t.roles
	}
	if b.context && b.places != nil && s.role&roleTime != 0 {
		s.role = s.role&^roleTime | rolePacketBegin
	}
	if b.slots < maxSlots {
		b.slots++
	} else {
		s.slot = -1
	}
	length := "__" // before the name of the sequence
	if b.places != nil {
		s.slot, length = b.places.put(named{slot: s.slot, truth: t.special != nil && t.special.truth}), "_"
	} else {
		b.scopes[len(b.scopes)-1].fields[full] = named{slot: s.slot, labels: t.labels}
	}
	size := bytesFor(t.size)
	if !strings.HasPrefix(name, length) || !strings.HasSuffix(name, "_length") {
		s.dst, s.size = b.layout.add(traceevent.Field{Name: b.flat(full), Type: cIntType(t, size), Size: size, Signed: t.signed, ArrayLen: -1, Labels: fieldLabels(t.labels), Bits: t.bits})
	}
	return b.add(out, s)
}

func fieldLabels(list []label) (out []traceevent.Label) {
	for _, l := range list {
		out = append(out, traceevent.Label{Name: l.name, Lo: l.lo, Hi: l.hi})
	}
	return out
}

// array compiles arrays and sequences. Those of integers become fields; others become text.
func (b *builder) array(t *typ, full, path string, out []step) []step {
	e := t.elem
	s := step{op: opArray, n: t.n, dst: -1, slot: -1, from: -1, role: t.roles & roleUUID}
	if t.kind == kindSequence {
		s.op = opSeqInts
		s.from = b.refers(t, path).slot
	}
	if t.align > 8 || t.align > 1 && !e.whole() { // an empty one is aligned, too
		out = b.add(out, step{op: opAlign, n: t.align})
	}
	if e.kind != kindInt {
		s.op = opList
		b.list(&s, e, full)
		return b.add(out, s)
	}
	size := bytesFor(e.size)
	f := traceevent.Field{Name: b.flat(full), Type: cIntType(e, size), Signed: e.signed && !e.text, Size: size * t.n, ArrayLen: t.n}
	if t.kind == kindSequence {
		f.Size, f.ArrayLen, f.DataLoc = 4, 0, true
	}
	if e.text && b.layout != nil {
		f.Type = "char"
	}
	if t.kind == kindArray && t.n == 0 {
		return out
	}
	s.t = e
	s.dst, s.size = b.layout.add(f)
	s.where = b.layout.placed(f.Name)
	if s.op == opArray && s.dst >= 0 && s.size != f.Size { // another layout than the trace's
		s.dst = -1
	}
	if s.op == opArray && s.dst < 0 {
		s.size = 0
	}
	return b.add(out, s)
}

// list compiles the elements of an array that are no integers, in a layout of their own.
func (b *builder) list(s *step, e *typ, full string) {
	outer := b.layout
	b.layout = nil
	if outer != nil && outer.bound == nil {
		b.layout = &layout{}
	}
	b.scopes = append(b.scopes, scopeNames{fields: map[string]named{}})
	s.sub = b.typ(e, "", "", nil)
	b.scopes = b.scopes[:len(b.scopes)-1]
	inner := b.layout
	if b.layout = outer; inner != nil {
		s.dst, s.size = b.located(full)
		s.t, s.format, s.fixed = e, &traceevent.Format{Fields: inner.fields}, inner.size
	}
}

func (b *builder) variant(t *typ, full, path string, out []step) []step {
	tag := b.refers(t, path)
	s := step{op: opVariant, dst: b.layout.chooser(), slot: -1, from: tag.slot, maybe: t.optional}
	switch {
	case t.at == nil: // a tag's labels are the options' names
		for _, l := range tag.labels {
			if i := slices.IndexFunc(t.fields, func(m member) bool { return m.name == l.name || strip(m.name) == strip(l.name) }); i >= 0 {
				s.choice = append(s.choice, choice{l.lo, l.hi, i})
			}
		}
	case t.optional && tag.truth:
		s.choice = []choice{{1, 1, 0}}
	case t.optional && len(t.labels) == 0:
		fail(0, "an optional field that depends on a number, and no ranges of it")
	default:
		for _, l := range t.labels {
			s.choice = append(s.choice, choice{l.lo, l.hi, l.option})
		}
	}
	prefix := full
	if prefix != "" {
		prefix += "."
	}
	for i, f := range t.fields {
		b.layout.within(traceevent.Option{At: s.dst, N: uint16(i + 1)}, func() {
			if t.optional { // it has the name of what may be missing
				s.cases = append(s.cases, b.typ(f.typ, full[len(path):], path, nil))
				return
			}
			s.cases = append(s.cases, b.typ(f.typ, f.name, prefix, nil))
		})
	}
	return b.add(out, s)
}

// used marks the slots that are read.
func used(steps []step, in map[int]bool) {
	for i := range steps {
		s := &steps[i]
		switch s.op {
		case opSeqInts, opVariant, opText, opList:
			in[s.from] = true
		}
		used(s.sub, in)
		for _, c := range s.cases {
			used(c, in)
		}
	}
}

// fuse joins neighbours that are plain copies: whole little endian integers that nobody refers to. It also forgets slots
// that nobody reads.
func fuse(steps []step, in map[int]bool) []step {
	out := steps[:0:0]
	for _, s := range steps {
		if s.slot >= 0 && !in[s.slot] {
			s.slot = -1
		}
		for i := range s.cases {
			s.cases[i] = fuse(s.cases[i], in)
		}
		s.sub = fuse(s.sub, in)
		if n := copyable(&s); n > 0 {
			s = step{op: opCopy, n: n, dst: s.dst, slot: -1}
			if k := len(out); k > 0 && out[k-1].op == opCopy && out[k-1].dst+out[k-1].n == s.dst {
				out[k-1].n += n
				continue
			}
		}
		out = append(out, s)
	}
	return out
}

// whole says if a number is in a stream as it is in a record.
func (t *typ) whole() bool {
	return (t.kind == kindInt || t.kind == kindFloat) && t.special == nil && (!t.big || t.size <= 8) && t.align == 8 && bytesFor(t.size)*8 == t.size
}

// copyable gives how many bytes a step copies as they are; 0 if it does something else.
func copyable(s *step) int {
	if s.dst < 0 || s.slot >= 0 || s.role != roleNone || s.t == nil || !s.t.whole() {
		return 0
	}
	n := s.t.size / 8
	switch {
	case s.op == opInt && s.size == n:
		return n
	case s.op == opArray && s.size == n*s.n:
		return n * s.n
	}
	return 0
}
