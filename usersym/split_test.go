package usersym

import (
	"debug/elf"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/fathom-trace/fathom/internal/ktest"
)

// TestSplit reads a program of two units whose debug information is beside it: in .dwo files, then in a package of both.
// Both must give the same types and lines; the second unit has addresses of its own.
func TestSplit(t *testing.T) {
	gcc := ktest.Oracle(t, "gcc")
	dir := t.TempDir()
	write := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	a := write("a.c", "struct first { int one; };\nint second(long, char *);\nint start(struct first *f) { return f->one; }\nint main(void) { return second(1, 0); }\n")
	b := write("b.c", "struct other { long n; char c[3]; };\nstatic struct other o;\nint second(long number, char *text)\n{\n\treturn number + o.n + (text != 0);\n}\n")
	prog := filepath.Join(dir, "prog")
	run(t, gcc, "-g", "-gdwarf-5", "-O0", "-gsplit-dwarf", "-o", prog, a, b)

	check := func(t *testing.T) {
		t.Helper()
		r := New(Options{})
		defer r.Close()
		types, err := r.Types(prog)
		if err != nil {
			t.Fatal(err)
		}
		_, addr, _, ok := r.SymbolAddr(prog, "second")
		if !ok {
			t.Fatal("no symbol second")
		}
		f, err := types.FuncAt(addr, "second")
		if err != nil || len(f.Params) != 2 || f.Params[0].Name != "number" || f.Params[1].Name != "text" {
			t.Errorf("second: %v, %+v", err, f)
		}
		if f, err := types.Func("", "start"); err != nil || len(f.Params) != 1 || f.Params[0].Name != "f" {
			t.Errorf("start: %v, %+v", err, f)
		}
		if lines, err := types.Lines("b.c", 5); err != nil || len(lines) == 0 || lines[0] <= addr {
			t.Errorf("line 5 of b.c: %v, %#x; second is at %#x", err, lines, addr)
		}
	}
	t.Run("dwo", check)
	dwos, _ := filepath.Glob(filepath.Join(dir, "*.dwo"))
	if len(dwos) != 2 {
		t.Fatalf("%d .dwo files", len(dwos))
	}
	bundle(t, prog+".dwp", dwos)
	for _, d := range dwos {
		os.Remove(d)
	}
	t.Run("dwp", check)
}

// bundle makes a package of DWARF 5 units (7.3.5.3): their sections one after the other, strings merged, and an index.
// Debian's own tools do not survive it: dwp of binutils 2.40 crashes, llvm-dwp-14 does not end.
func bundle(t *testing.T, out string, dwos []string) {
	t.Helper()
	objcopy := ktest.Oracle(t, "objcopy")
	ids := []uint32{1, 3, 4, 6} // DW_SECT_INFO, ABBREV, LINE, STR_OFFSETS
	names := map[uint32]string{1: "info", 3: "abbrev", 4: "line", 6: "str_offsets"}
	merged, offs, sizes := map[string][]byte{}, []uint32{}, []uint32{}
	le := binary.LittleEndian
	var signatures []uint64
	for _, name := range dwos {
		f, err := elf.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		section := func(n string) []byte {
			s := f.Section(".debug_" + n + ".dwo")
			if s == nil {
				t.Fatalf("%s has no .debug_%s.dwo", name, n)
			}
			b, err := s.Data()
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		for _, id := range ids {
			b := section(names[id])
			if id == 6 {
				for at := 8; at < len(b); at += 4 {
					le.PutUint32(b[at:], le.Uint32(b[at:])+uint32(len(merged["str"])))
				}
			}
			if id == 1 {
				signatures = append(signatures, le.Uint64(b[12:]))
			}
			offs, sizes = append(offs, uint32(len(merged[names[id]]))), append(sizes, uint32(len(b)))
			merged[names[id]] = append(merged[names[id]], b...)
		}
		merged["str"] = append(merged["str"], section("str")...)
		f.Close()
	}
	index := []byte{5, 0, 0, 0}
	words := func(ns ...uint32) {
		for _, n := range ns {
			index = le.AppendUint32(index, n)
		}
	}
	slots := 4 // a power of two above the units
	words(uint32(len(ids)), uint32(len(dwos)), uint32(slots))
	hash, row := make([]uint64, slots), make([]uint32, slots)
	for i, s := range signatures {
		at := s & uint64(slots-1)
		for row[at] != 0 {
			at = (at + (s>>32&uint64(slots-1) | 1)) & uint64(slots-1)
		}
		hash[at], row[at] = s, uint32(i+1)
	}
	for _, h := range hash {
		index = le.AppendUint64(index, h)
	}
	words(row...)
	words(ids...)
	words(offs...)
	words(sizes...)

	dir := t.TempDir()
	file := func(name string, b []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	args := []string{"--add-section", ".debug_cu_index=" + file("index", index)}
	for name, b := range merged {
		args = append(args, "--update-section", ".debug_"+name+".dwo="+file(name, b))
	}
	if b, err := exec.Command(objcopy, append(args, dwos[0], out)...).CombinedOutput(); err != nil {
		t.Fatalf("objcopy: %v\n%s", err, b)
	}
}
