package btftypes

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/cilium/ebpf/btf"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/internal/bin"
)

// SetRaw gives the bytes of the kernel's own BTF, for finding an enumerator without decoding every type. read is called
// once, when first needed.
func (l *Lookup) SetRaw(read func() ([]byte, error)) { l.raw = read }

// BTF kinds and their sizes behind the 12 bytes of struct btf_type (include/uapi/linux/btf.h): per element, and fixed.
const (
	kindEnum   = 6
	kindEnum64 = 19
)

var (
	perElem = [...]int{4: 12, 5: 12, kindEnum: 8, 13: 8, 15: 12, kindEnum64: 12}
	fixed   = [...]int{1: 4, 3: 12, 14: 4, 17: 4, kindEnum64: 0}
)

// findEnum looks for the enum that has an enumerator. The answer is sure only if ok; otherwise all enums must be read.
func findEnum(raw []byte, name string) (id btf.TypeID, found, ok bool) {
	const headerLen = 24
	c := bin.NewCursor(raw, binary.LittleEndian)
	magic, _, _, hdr := c.U16(), c.U8(), c.U8(), c.U32()
	typeOff, typeLen, strOff, strLen := c.U32(), c.U32(), c.U32(), c.U32()
	if c.Err("btf header") != nil || magic != 0xeb9f || hdr < headerLen {
		return 0, false, false
	}
	types, okT := section(raw, uint64(hdr)+uint64(typeOff), uint64(typeLen))
	strs, okS := section(raw, uint64(hdr)+uint64(strOff), uint64(strLen))
	if !okT || !okS {
		return 0, false, false
	}
	at := bytes.Index(strs, []byte("\x00"+name+"\x00"))
	if at < 0 {
		return 0, false, true
	}
	off := uint32(at + 1)
	le := binary.LittleEndian
	for id := btf.TypeID(1); len(types) >= 12; id++ {
		info := le.Uint32(types[4:])
		kind, n := int(info>>24&0x1f), int(info&0xffff)
		size := 12
		if kind < len(perElem) {
			size += n * perElem[kind]
		}
		if kind < len(fixed) {
			size += fixed[kind]
		}
		if size > len(types) {
			return 0, false, false
		}
		if kind == kindEnum || kind == kindEnum64 {
			for m := types[12:size]; len(m) > 0; m = m[perElem[kind]:] {
				if le.Uint32(m) == off {
					return id, true, true
				}
			}
		}
		types = types[size:]
	}
	return 0, false, len(types) == 0
}

func section(b []byte, off, n uint64) ([]byte, bool) {
	if off > uint64(len(b)) || n > uint64(len(b))-off {
		return nil, false
	}
	return b[off : off+n], true
}

// read reads the raw bytes; it is false if there are none.
func (l *Lookup) read() bool {
	if l.raw == nil {
		return false
	}
	if l.bytes == nil {
		b, err := l.raw()
		if err != nil {
			l.raw = nil
			return false
		}
		l.bytes = b
	}
	return true
}

// Names lists the names in the kernel's BTF that begin with prefix, whatever they name, sorted. It needs SetRaw.
func (l *Lookup) Names(prefix string) []string {
	if !l.read() {
		return nil
	}
	var out []string
	for rest := l.bytes; ; {
		i := bytes.Index(rest, []byte("\x00"+prefix))
		if i < 0 {
			break
		}
		rest = rest[i+1:]
		if end := bytes.IndexByte(rest, 0); end >= 0 {
			out = append(out, string(rest[:end]))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// rawEnum is EnumValue by the raw bytes of the kernel's BTF.
func (l *Lookup) rawEnum(name string) (v enumValue, found, ok bool) {
	if !l.read() {
		return v, false, false
	}
	id, found, ok := findEnum(l.bytes, name)
	if !found {
		return v, false, ok
	}
	t, err := l.spec.TypeByID(id)
	e, isEnum := t.(*btf.Enum)
	if err != nil || !isEnum {
		return v, false, false
	}
	return l.enumerator(e, name)
}

func (l *Lookup) enumerator(e *btf.Enum, name string) (v enumValue, found, ok bool) {
	c, isEnum := l.Convert(e).(*ctype.Enum)
	if !isEnum {
		return v, false, false
	}
	for _, m := range c.Values {
		if m.Name == name {
			return enumValue{c, m.Value}, true, true
		}
	}
	return v, false, false
}
