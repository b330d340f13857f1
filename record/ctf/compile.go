package ctf

import (
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
	opArray             // run sub n times
	opSeq               // run sub as often as the length says
	opSeqInts           // read integers, as many as the length says, into a location at dst
	opVariant           // run the option of the tag's label
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
	from   int // slot of the length or the tag
	role   role
	sub    []step
	cases  []variantCase
	labels []label
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

// role is what a field of a header or packet context means.
type role uint8

const (
	roleNone role = iota
	roleMagic
	roleStream
	roleID
	roleTime
	rolePacketBegin
	rolePacketEnd
	roleContent
	rolePacketSize
	roleDiscarded
	roleCPU
)

type variantCase struct {
	name  string
	steps []step
}

// maxSteps bounds what types may grow into, and maxSlots how many fields are referred to.
const (
	maxSteps = 1 << 16
	maxSlots = 4096
)

// builder turns types into steps.
type builder struct {
	slots  int
	steps  int
	scopes []scopeNames
	layout *layout
	roles  map[string]role
}

// scopeNames are the fields that were seen, by their path in a scope such as "stream.event.context".
type scopeNames struct {
	name   string
	fields map[string]named
}

type named struct {
	slot   int
	labels []label
}

// layout collects the fields of the record that events are given as.
type layout struct {
	fields []traceevent.Field
	size   int
	// contexts are how many of the fields are contexts, once they are all there.
	contexts int
	bound    map[string]*traceevent.Field // layout that is given; nil makes one
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
	f.Name = l.unique(f.Name)
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
	full := path + name
	switch t.kind {
	case kindInt:
		return b.integer(t, name, full, out)
	case kindFloat:
		f := traceevent.Field{Name: flat(full), Type: map[int]string{32: "float", 64: "double"}[t.size], Size: t.size / 8, Signed: true, ArrayLen: -1}
		dst, size := b.layout.add(f)
		return b.add(out, step{op: opInt, t: t, dst: dst, size: size, slot: -1})
	case kindString:
		dst, size := b.layout.add(traceevent.Field{Name: flat(full), Type: "char", Size: 4, DataLoc: true})
		return b.add(out, step{op: opString, dst: dst, size: size, slot: -1})
	case kindStruct:
		if a := t.alignment(); a > 1 {
			out = b.add(out, step{op: opAlign, n: a})
		}
		p := full
		if p != "" {
			p += "."
		}
		for _, f := range t.fields {
			out = b.typ(f.typ, f.name, p, out)
		}
		return out
	case kindArray, kindSequence:
		return b.array(t, full, path, out)
	}
	return b.variant(t, full, path, out)
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
	if b.slots < maxSlots {
		b.slots++
	} else {
		s.slot = -1
	}
	b.scopes[len(b.scopes)-1].fields[full] = named{s.slot, t.labels}
	size := bytesFor(t.size)
	if !strings.HasPrefix(name, "__") || !strings.HasSuffix(name, "_length") {
		s.dst, s.size = b.layout.add(traceevent.Field{Name: flat(full), Type: cIntType(t, size), Size: size, Signed: t.signed, ArrayLen: -1, Labels: fieldLabels(t.labels)})
	}
	s.labels = t.labels
	return b.add(out, s)
}

func fieldLabels(list []label) (out []traceevent.Label) {
	for _, l := range list {
		out = append(out, traceevent.Label{Name: l.name, Lo: l.lo, Hi: l.hi})
	}
	return out
}

// array compiles arrays and sequences. Those of integers become fields, others are passed over.
func (b *builder) array(t *typ, full, path string, out []step) []step {
	e := t.elem
	s := step{op: opArray, n: t.n, dst: -1, slot: -1}
	if t.kind == kindSequence {
		s.op = opSeq
		s.from = b.find(t.ref, path).slot
		if s.from < 0 {
			fail(0, "too many fields")
		}
	}
	if e.kind != kindInt {
		outer := b.layout
		b.layout = nil
		b.scopes = append(b.scopes, scopeNames{fields: map[string]named{}})
		s.sub = b.typ(e, "", "", nil)
		b.scopes = b.scopes[:len(b.scopes)-1]
		b.layout = outer
		return b.add(out, s)
	}
	size := bytesFor(e.size)
	f := traceevent.Field{Name: flat(full), Type: cIntType(e, size), Signed: e.signed && !e.text, Size: size * t.n, ArrayLen: t.n}
	if t.kind == kindSequence {
		f.Size, f.ArrayLen, f.DataLoc = 4, 0, true
		s.op = opSeqInts
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

func (b *builder) variant(t *typ, full, path string, out []step) []step {
	tag := b.find(t.ref, path)
	s := step{op: opVariant, dst: -1, slot: -1, from: tag.slot, labels: tag.labels}
	if t.labels != nil { // CTF 2 has them with the variant
		s.labels = t.labels
	}
	if tag.slot < 0 {
		fail(0, "too many fields")
	}
	if full != "" {
		full += "."
	}
	for _, f := range t.fields {
		s.cases = append(s.cases, variantCase{f.name, b.typ(f.typ, f.name, full, nil)})
	}
	return b.add(out, s)
}

// used marks the slots that are read.
func used(steps []step, in map[int]bool) {
	for i := range steps {
		s := &steps[i]
		if s.op == opSeq || s.op == opSeqInts || s.op == opVariant {
			in[s.from] = true
		}
		used(s.sub, in)
		for _, c := range s.cases {
			used(c.steps, in)
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
			s.cases[i].steps = fuse(s.cases[i].steps, in)
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

// copyable gives how many bytes a step copies as they are; 0 if it does something else.
func copyable(s *step) int {
	if s.dst < 0 || s.slot >= 0 || s.role != roleNone || s.t == nil || s.t.big && s.t.size > 8 || s.t.align != 8 || s.t.size%8 != 0 || bytesFor(s.t.size)*8 != s.t.size {
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
