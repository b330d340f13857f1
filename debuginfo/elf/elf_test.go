package elf

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ulikunitz/xz"
)

// section and build make small ELF files: one text segment at 0x401000, file offset 0x1000.
type section struct {
	name  string
	typ   elf.SectionType
	flags elf.SectionFlag
	link  uint32
	data  []byte
}

const textAddr, textOff = 0x401000, 0x1000

func build(sections ...section) []byte {
	sections = append([]section{{}}, sections...)
	names := "\x00"
	var body bytes.Buffer
	hdrs := make([]elf.Section64, len(sections)+1)
	for i, s := range sections {
		if i == 0 {
			continue
		}
		hdrs[i] = elf.Section64{Name: uint32(len(names)), Type: uint32(s.typ), Flags: uint64(s.flags), Link: s.link,
			Off: textOff + uint64(body.Len()), Size: uint64(len(s.data)), Addralign: 1}
		if s.name == ".text" {
			hdrs[i].Addr = textAddr + uint64(body.Len())
		}
		names += s.name + "\x00"
		body.Write(s.data)
	}
	last := len(hdrs) - 1
	hdrs[last] = elf.Section64{Name: uint32(len(names)), Type: uint32(elf.SHT_STRTAB), Off: textOff + uint64(body.Len())}
	names += ".shstrtab\x00"
	hdrs[last].Size = uint64(len(names))
	body.WriteString(names)
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Phoff: 64, Ehsize: 64,
		Phentsize: 56, Phnum: 1, Shentsize: 64, Shnum: uint16(len(hdrs)), Shstrndx: uint16(last), Shoff: textOff + uint64(body.Len())}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	var out bytes.Buffer
	binary.Write(&out, binary.LittleEndian, h)
	binary.Write(&out, binary.LittleEndian, elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Off: textOff,
		Vaddr: textAddr, Filesz: uint64(body.Len()), Memsz: uint64(body.Len())})
	out.Write(make([]byte, textOff-out.Len()))
	out.Write(body.Bytes())
	binary.Write(&out, binary.LittleEndian, hdrs)
	return out.Bytes()
}

// symbols makes a .symtab and its .strtab; link is the section number of the latter.
func symbols(link uint32, syms ...Sym) []section {
	names := "\x00"
	var b bytes.Buffer
	binary.Write(&b, binary.LittleEndian, elf.Sym64{})
	for _, s := range syms {
		info := elf.ST_INFO(elf.STB_GLOBAL, elf.STT_FUNC)
		if s.Data {
			info = elf.ST_INFO(elf.STB_GLOBAL, elf.STT_OBJECT)
		}
		if s.Rank == 0 {
			info = elf.ST_INFO(elf.STB_LOCAL, elf.STT_NOTYPE)
		}
		binary.Write(&b, binary.LittleEndian, elf.Sym64{Name: uint32(len(names)), Info: info, Shndx: 1, Value: s.Addr, Size: s.Size})
		names += s.Name + "\x00"
	}
	return []section{{name: ".symtab", typ: elf.SHT_SYMTAB, link: link, data: b.Bytes()}, {name: ".strtab", typ: elf.SHT_STRTAB, data: []byte(names)}}
}

var text = section{name: ".text", typ: elf.SHT_PROGBITS, flags: elf.SHF_ALLOC | elf.SHF_EXECINSTR, data: make([]byte, 256)}

func small() []byte {
	id := section{name: ".note.gnu.build-id", typ: elf.SHT_NOTE, data: []byte("\x04\x00\x00\x00\x04\x00\x00\x00\x03\x00\x00\x00GNU\x00\xde\xad\xbe\xef")}
	link := section{name: ".gnu_debuglink", typ: elf.SHT_PROGBITS, data: []byte("x.debug\x00\x78\x56\x34\x12")}
	return build(append([]section{text}, append(symbols(3,
		Sym{Name: "main", Addr: textAddr, Size: 16, Rank: 1},
		Sym{Name: "_start", Addr: textAddr + 32},
		Sym{Name: "$x", Addr: textAddr + 33},
		Sym{Name: "outer@@V1", Addr: textAddr + 64, Size: 64, Rank: 1},
		Sym{Name: "inner", Addr: textAddr + 80, Size: 8, Rank: 1},
		Sym{Name: "__outer", Addr: textAddr + 64, Size: 64, Rank: 1},
		Sym{Name: "var", Addr: textAddr + 200, Size: 8, Rank: 1, Data: true},
	), id, link)...)...)
}

func TestFile(t *testing.T) {
	f, err := Read(bytes.NewReader(small()))
	if err != nil {
		t.Fatal(err)
	}
	if id := f.BuildID(); id != "deadbeef" {
		t.Errorf("build id %q", id)
	}
	if name, crc, ok := f.DebugLink(); name != "x.debug" || crc != 0x12345678 || !ok {
		t.Errorf("debug link %q %x %v", name, crc, ok)
	}
	if off, ok := f.Offset(textAddr + 5); off != textOff+5 || !ok {
		t.Errorf("offset %x %v", off, ok)
	}
	if addr, ok := f.Addr(textOff + 5); addr != textAddr+5 || !ok {
		t.Errorf("address %x %v", addr, ok)
	}
	if _, ok := f.Offset(textAddr - 1); ok {
		t.Error("address before the segment has an offset")
	}
	syms, err := f.Symbols()
	if err != nil || len(syms) != 6 || !f.HasSymtab() {
		t.Fatal(syms, err)
	}
	tab := NewTable(syms)
	for addr, want := range map[uint64]string{0: "main", 15: "main", 16: "", 32: "_start", 40: "_start", 64: "outer", 79: "outer", 80: "inner", 88: "outer", 128: "", 250: ""} {
		if s, _ := tab.Find(textAddr + addr); s.Name != want {
			t.Errorf("%d: %q, want %q", addr, s.Name, want)
		}
	}
	if n := tab.Named("outer"); len(n) != 1 || n[0].Size != 64 {
		t.Errorf("outer: %+v", n)
	}
}

func TestMiniDebug(t *testing.T) {
	var z bytes.Buffer
	w, err := xz.NewWriter(&z)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(small())
	w.Close()
	f, err := Read(bytes.NewReader(build(text, section{name: ".gnu_debugdata", typ: elf.SHT_PROGBITS, data: z.Bytes()})))
	if err != nil {
		t.Fatal(err)
	}
	if f.HasSymtab() {
		t.Error("has a symbol table")
	}
	m, err := f.MiniDebug()
	if err != nil || m == nil {
		t.Fatal(m, err)
	}
	if syms, err := m.Symbols(); len(syms) != 6 || err != nil {
		t.Error(syms, err)
	}
	f, _ = Read(bytes.NewReader(build(text, section{name: ".gnu_debugdata", typ: elf.SHT_PROGBITS, data: []byte("\xfd7zXZ")})))
	if _, err := f.MiniDebug(); err == nil || !strings.Contains(err.Error(), "unpack .gnu_debugdata") {
		t.Error(err)
	}
}

func TestErrors(t *testing.T) {
	if _, err := Read(strings.NewReader("#!/bin/sh")); err == nil {
		t.Error("a script is no error")
	}
	f, err := Read(bytes.NewReader(build(append([]section{text}, symbols(0, Sym{Name: "x", Addr: 1})...)...)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Symbols(); err == nil || !strings.Contains(err.Error(), "no string table") {
		t.Error(err)
	}
}

// TestGo names functions and lines of this test program from its Go function table alone.
func TestGo(t *testing.T) {
	r, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Skip(err)
	}
	defer r.Close()
	f, err := Read(r)
	if err != nil {
		t.Fatal(err)
	}
	g := f.Go()
	byName := map[string]GoFunc{}
	for _, fn := range g.Functions() {
		byName[fn.Name] = fn
	}
	fn, ok := byName["github.com/fathom-trace/fathom/debuginfo/elf.TestGo"]
	if !ok {
		t.Fatalf("%d functions, and not this one", len(byName))
	}
	if file, line, ok := g.Line(fn.Entry); !ok || !strings.HasSuffix(file, "elf/elf_test.go") || line < 150 {
		t.Errorf("%s:%d %v", file, line, ok)
	}
	syms, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	if !f.HasSymtab() {
		t.Skip("the test program is stripped")
	}
	for _, s := range syms { // the same addresses as the symbol table
		if g, ok := byName[s.Name]; ok && !s.Data && strings.HasPrefix(s.Name, "github.com/") {
			if d := cmp.Diff(s.Addr, g.Entry); d != "" {
				t.Errorf("%s: %s", s.Name, d)
			}
		}
	}
}

func FuzzSymbols(f *testing.F) {
	f.Add(small())
	f.Add(small()[:4000])
	f.Add(build(text, section{name: ".gnu_debugdata", typ: elf.SHT_PROGBITS, data: []byte("\xfd7zXZ")}))
	f.Add(build(text, section{name: ".gopclntab", typ: elf.SHT_PROGBITS, data: []byte("\xf1\xff\xff\xff\x00\x00\x01\x08\xff\xff\xff\x0f\x00")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := Read(bytes.NewReader(b))
		if err != nil {
			return
		}
		e.BuildID()
		e.DebugLink()
		e.Go().Line(textAddr)
		syms, _ := e.Symbols()
		tab := NewTable(syms)
		for _, s := range tab.All() {
			if s.Name == "" {
				t.Fatal("symbol without name")
			}
			if got, ok := tab.Find(s.Addr); ok && s.Addr < got.Addr {
				t.Fatalf("%+v found at %x", got, s.Addr)
			}
			e.Offset(s.Addr)
		}
		if m, err := e.MiniDebug(); err == nil && m != nil {
			m.Symbols()
		}
	})
}

func FuzzPackage(f *testing.F) {
	f.Add([]byte{5, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0})
	f.Add([]byte{5, 0, 0, 0, 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		rows, err := packageIndex(b, binary.LittleEndian)
		if err == nil && len(rows) > len(b) {
			t.Errorf("%d units in %d bytes", len(rows), len(b))
		}
	})
}
