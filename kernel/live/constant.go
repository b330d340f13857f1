package live

import (
	"encoding/binary"
	"strings"

	"github.com/fathom-trace/fathom/ctype"
)

// Constant gives what a name stands for that is the same as long as the kernel runs: an enumerator of its types, "sizeof(struct page)", or
// one of its variables for where a part of its addresses begins (vmemmap_base), which needs /proc/kcore.
func (l *Live) Constant(name string) (int64, bool) {
	if strings.HasSuffix(name, "_base") {
		return l.baseOf(name)
	}
	t, err := l.Types()
	if err != nil {
		return 0, false
	}
	if s, ok := strings.CutPrefix(name, "sizeof(struct "); ok {
		typ, err := t.ByName(ctype.KindStruct, strings.TrimSuffix(s, ")"))
		if err != nil {
			return 0, false
		}
		return int64(ctype.Size(typ)), true
	}
	_, v, ok := t.EnumValue(name)
	return v, ok
}

func (l *Live) baseOf(name string) (int64, bool) {
	syms, err := l.Kallsyms()
	if err != nil {
		return 0, false
	}
	at := syms.ByName(name)
	if len(at) != 1 {
		return 0, false
	}
	k, err := l.Kcore()
	if err != nil {
		return 0, false
	}
	defer k.Close()
	var b [8]byte
	if err := k.ReadVirt(b[:], at[0]); err != nil {
		return 0, false
	}
	v := int64(binary.LittleEndian.Uint64(b[:]))
	return v, v < 0 // an address of the kernel
}
