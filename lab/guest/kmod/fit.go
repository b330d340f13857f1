package kmod

import (
	"bytes"
	"debug/dwarf"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/ctype/btftypes"
	"github.com/fathom-trace/fathom/debuginfo/bzimage"
)

// Kernel is what a module is compared with beyond its vermagic: the types and the versions of symbols that the image of a
// kernel has.
type Kernel struct {
	types Types
	crcs  map[string]uint32 // of exported symbols; nil without CONFIG_MODVERSIONS
}

// OpenKernel reads a bzImage.
func OpenKernel(image []byte) (*Kernel, error) {
	b, err := bzimage.Vmlinux(image)
	if err != nil {
		return nil, err
	}
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("read kernel: %w", err)
	}
	s := f.Section(".BTF")
	if s == nil {
		return nil, errors.New("read kernel: it has no BTF (CONFIG_DEBUG_INFO_BTF)")
	}
	raw, err := s.Data()
	if err != nil {
		return nil, fmt.Errorf("read kernel: .BTF: %w", err)
	}
	types, err := btftypes.Parse(raw, nil)
	if err != nil {
		return nil, fmt.Errorf("read kernel: .BTF: %w", err)
	}
	k := &Kernel{types: btftypes.New(types, nil), crcs: map[string]uint32{}}
	for _, suffix := range []string{"", "_gpl"} {
		exported(f, suffix, k.crcs)
	}
	return k, nil
}

// ksymtabLen is the size of struct kernel_symbol with relative references (include/linux/export-internal.h): value, name
// and namespace, each a distance from its own place.
const ksymtabLen = 12

// exported reads the symbols of a section and their versions, which are parallel arrays. Damaged sections give fewer.
func exported(f *elf.File, suffix string, crcs map[string]uint32) {
	tab, crc, text := f.Section("__ksymtab"+suffix), f.Section("__kcrctab"+suffix), f.Section("__ksymtab_strings")
	if tab == nil || crc == nil || text == nil {
		return
	}
	syms, err1 := tab.Data()
	sums, err2 := crc.Data()
	names, err3 := text.Data()
	if errors.Join(err1, err2, err3) != nil {
		return
	}
	for i := 0; (i+1)*ksymtabLen <= len(syms) && (i+1)*4 <= len(sums); i++ {
		at := i*ksymtabLen + 4
		name := tab.Addr + uint64(at) + uint64(int64(int32(binary.LittleEndian.Uint32(syms[at:])))) - text.Addr
		if name >= uint64(len(names)) {
			continue
		}
		s, _, _ := bytes.Cut(names[name:], []byte{0})
		crcs[string(s)] = binary.LittleEndian.Uint32(sums[4*i:])
	}
}

// Fits reports a module that was compiled against another kernel than this one, as a *[MismatchError]: a symbol it uses has
// another version, or a struct of the kernel's headers has another layout in the module's debug information.
func (k *Kernel) Fits(name string, module []byte) error {
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return fmt.Errorf("read module: %w", err)
	}
	diff := k.versions(f)
	structs, err := headerStructs(f)
	if err != nil {
		return err
	}
	for _, s := range structs {
		diff = append(diff, compareStruct(s, k.named(s))...)
		if len(diff) > maxDiff {
			break
		}
	}
	if len(diff) > 0 {
		return &MismatchError{Module: name, Fields: diff}
	}
	return nil
}

// maxDiff bounds what is told of a module that has nothing in common with the kernel.
const maxDiff = 8

// modversionLen is the size of struct modversion_info: a CRC in 8 bytes and a name.
const modversionLen = 64

func (k *Kernel) versions(f *elf.File) (diff []Mismatch) {
	s := f.Section("__versions")
	if s == nil || len(k.crcs) == 0 {
		return nil
	}
	b, err := s.Data()
	if err != nil {
		return nil
	}
	for ; len(b) >= modversionLen && len(diff) < maxDiff; b = b[modversionLen:] {
		sym, _, _ := bytes.Cut(b[8:modversionLen], []byte{0})
		want, ok := k.crcs[string(sym)]
		if got := binary.LittleEndian.Uint32(b); ok && got != want {
			diff = append(diff, Mismatch{"version of symbol " + string(sym), fmt.Sprintf("%#x", got), fmt.Sprintf("%#x", want)})
		}
	}
	return diff
}

// named gives the kernel's structs or unions of a name: there may be several, of files that do not know each other.
func (k *Kernel) named(s *ctype.Struct) (out []*ctype.Struct) {
	kind := ctype.KindStruct
	if s.Union {
		kind = ctype.KindUnion
	}
	for _, t := range k.types.AllByName(kind, s.Name) {
		if c, ok := t.(*ctype.Struct); ok {
			out = append(out, c)
		}
	}
	return out
}

// compareStruct gives what differs from the nearest of the kernel's structs; nothing if one is equal or there is none.
func compareStruct(module *ctype.Struct, kernel []*ctype.Struct) (diff []Mismatch) {
	for i, k := range kernel {
		d := layoutDiff(module, k)
		if len(d) == 0 {
			return nil
		}
		if i == 0 || len(d) < len(diff) {
			diff = d
		}
	}
	return diff
}

type field struct {
	name      string
	off, size int // bits; size of a bitfield
}

// fields lists members with their places, those of anonymous members among them.
func fields(s *ctype.Struct, base, depth int) (out []field) {
	for _, m := range s.Members() {
		if in, ok := ctype.Strip(m.Type).(*ctype.Struct); ok && m.Name == "" && depth < 16 {
			out = append(out, fields(in, base+m.BitOff, depth+1)...)
			continue
		}
		out = append(out, field{m.Name, base + m.BitOff, m.BitSize})
	}
	return out
}

// layoutDiff tells the size and the first member that differ: what follows is moved by it.
func layoutDiff(m, k *ctype.Struct) (diff []Mismatch) {
	kind := "struct "
	if m.Union {
		kind = "union "
	}
	if m.Size != k.Size {
		diff = append(diff, Mismatch{"size of " + kind + m.Name, fmt.Sprint(m.Size), fmt.Sprint(k.Size)})
	}
	place := func(f []field, name string) string {
		i := slices.IndexFunc(f, func(x field) bool { return x.name == name })
		if i < 0 {
			return "not there"
		}
		return offset(f[i])
	}
	mf, kf := fields(m, 0, 0), fields(k, 0, 0)
	for i := range max(len(mf), len(kf)) {
		switch {
		case i < len(mf) && i < len(kf) && mf[i] == kf[i]:
			continue
		case i < len(mf):
			if a, b := offset(mf[i]), place(kf, mf[i].name); a != b {
				return append(diff, Mismatch{kind + m.Name + "." + mf[i].name, a, b})
			}
		}
		if i < len(kf) {
			return append(diff, Mismatch{kind + m.Name + "." + kf[i].name, place(mf, kf[i].name), offset(kf[i])})
		}
	}
	return diff
}

func offset(f field) string {
	s := fmt.Sprintf("offset %d", f.off/8)
	if f.size != 0 {
		s += fmt.Sprintf(", bits %d to %d", f.off%8, f.off%8+f.size-1)
	}
	return s
}

// headerStructs lists the named structs and unions with members that the module's debug information takes from files of
// folders called include: those of the kernel. A module without debug information has none.
func headerStructs(f *elf.File) (out []*ctype.Struct, err error) {
	defer func() { // debug/dwarf does not promise to stand what it is given
		if p := recover(); p != nil {
			out, err = nil, fmt.Errorf("read debug information: %v", p)
		}
	}()
	if f.Section(".debug_info") == nil {
		return nil, nil
	}
	d, err := f.DWARF()
	if err != nil {
		return nil, fmt.Errorf("read debug information: %w", err)
	}
	r := d.Reader()
	var files []*dwarf.LineFile
	seen := map[string]bool{}
	// An entry takes a byte at least. Without a bound the walk of a damaged file need not end: a sibling may be before its
	// elder, and the reader may stay where it is (golang.org/issue/79586).
	for range f.Section(".debug_info").Size + 1 {
		e, err := r.Next()
		if err != nil {
			return nil, fmt.Errorf("read debug information: %w", err)
		}
		if e == nil {
			return out, nil
		}
		switch e.Tag {
		case dwarf.TagCompileUnit:
			files = nil
			if lr, err := d.LineReader(e); err == nil && lr != nil {
				files = lr.Files()
			}
			continue
		case dwarf.TagStructType, dwarf.TagUnionType:
			name, _ := e.Val(dwarf.AttrName).(string)
			decl, _ := e.Val(dwarf.AttrDeclFile).(int64)
			if name != "" && !seen[name] && e.Val(dwarf.AttrByteSize) != nil && inInclude(files, decl) {
				seen[name] = true
				if s := structOf(d, e.Offset); s != nil {
					out = append(out, s)
				}
			}
		}
		r.SkipChildren()
	}
	return nil, errors.New("read debug information: it has no end")
}

func inInclude(files []*dwarf.LineFile, i int64) bool {
	if i < 0 || i >= int64(len(files)) || files[i] == nil {
		return false
	}
	return slices.Contains(strings.Split(files[i].Name, "/"), "include")
}

// structOf converts one struct, its members by name and place only.
func structOf(d *dwarf.Data, at dwarf.Offset) *ctype.Struct {
	t, err := d.Type(at)
	if err != nil {
		return nil
	}
	s, ok := t.(*dwarf.StructType)
	if !ok || s.Incomplete {
		return nil
	}
	return convert(s, 0)
}

func convert(s *dwarf.StructType, depth int) *ctype.Struct {
	return ctype.NewStruct(s.StructName, s.Kind == "union", int(s.ByteSize), func() (ms []ctype.Member) {
		for _, f := range s.Field {
			m := ctype.Member{Name: f.Name, Type: ctype.Void{}, BitOff: int(f.ByteOffset) * 8, BitSize: int(f.BitSize)}
			if f.BitSize != 0 {
				m.BitOff = int(bitOffset(f))
			}
			if in, ok := unqualified(f.Type).(*dwarf.StructType); ok && f.Name == "" && depth < 16 {
				m.Type = convert(in, depth+1)
			}
			ms = append(ms, m)
		}
		return ms
	})
}

// unqualified takes const and volatile off.
func unqualified(t dwarf.Type) dwarf.Type {
	for range 4 {
		q, ok := t.(*dwarf.QualType)
		if !ok {
			break
		}
		t = q.Type
	}
	return t
}

// bitOffset is a bitfield's place from the start of the struct: DWARF 4 says it, older ones count from the end of the
// storage unit.
func bitOffset(f *dwarf.StructField) int64 {
	if f.BitOffset != 0 && f.DataBitOffset == 0 {
		return (f.ByteOffset+f.ByteSize)*8 - f.BitOffset - f.BitSize
	}
	return f.ByteOffset*8 + f.DataBitOffset
}
