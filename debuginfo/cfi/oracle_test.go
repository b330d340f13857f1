package cfi

import (
	"bufio"
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/fathom-trace/fathom/internal/oracle"
)

// frames gives the functions of a file's section.
func frames(t *testing.T, f *elf.File, name string) (fns []Func, ok bool) {
	t.Helper()
	s := f.Section(name)
	if s == nil || s.Type == elf.SHT_NOBITS {
		return nil, false
	}
	b, err := s.Data()
	if err != nil {
		t.Fatal(err)
	}
	regs, _ := RegsOf(f.Machine)
	fns, err = Decode(Section{Data: b, Order: f.ByteOrder, Addr: s.Addr, AddrSize: 8, EH: name == ".eh_frame"}, regs)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return fns, true
}

// said is a row as readelf prints it: text of CFA, rbp and ra.
type said struct {
	pc          uint64
	cfa, fp, ra string
}

// readelf gives the rows readelf has for the functions of a file's section, by the functions' addresses. A function whose
// entry has no instructions has the row of its common entry.
func readelf(t *testing.T, path, section string) map[uint64][]said {
	t.Helper()
	out, err := exec.Command("readelf", "--debug-dump=frames-interp", path).Output()
	if len(out) == 0 { // it also fails where a file's separate debug information is missing
		t.Fatal(err)
	}
	named := regexp.MustCompile(`\b(r\d+) \(\w+\)`) // a register in another one
	all := map[uint64][]said{}
	cies := map[string][]said{}
	var cols []string
	var rows []said
	var end func()
	end = func() {}
	in := false
	for sc := bufio.NewScanner(bytes.NewReader(out)); sc.Scan(); {
		l := sc.Text()
		w := strings.Fields(named.ReplaceAllString(l, "$1"))
		switch {
		case strings.HasPrefix(l, "Contents of the"):
			end()
			end = func() {}
			in = strings.Contains(l, " "+section+" ")
		case !in || len(w) == 0 || w[1] == "ZERO":
		case len(w) > 3 && w[3] == "CIE":
			end()
			rows, cols = nil, nil
			off := w[0]
			end = func() { cies[off] = rows }
		case len(w) > 4 && w[3] == "FDE":
			end()
			rows, cols = nil, nil
			var lo, hi uint64
			if _, err := fmt.Sscanf(w[5], "pc=%x..%x", &lo, &hi); err != nil {
				t.Fatalf("%q: %v", l, err)
			}
			from := cies[strings.TrimPrefix(w[4], "cie=")]
			end = func() {
				if rows == nil && len(from) > 0 {
					r := from[len(from)-1]
					r.pc = lo
					rows = []said{r}
				}
				if lo < hi {
					all[lo] = rows
				}
			}
		case w[0] == "LOC":
			cols = w[1:]
		case cols != nil && len(w) == len(cols)+1:
			pc, err := strconv.ParseUint(w[0], 16, 64)
			if err != nil {
				t.Fatalf("%q: %v", l, err)
			}
			r := said{pc: pc, fp: "u"}
			for i, c := range cols {
				switch c {
				case "CFA":
					r.cfa = w[i+1]
				case "rbp":
					r.fp = w[i+1]
				case "ra":
					r.ra = w[i+1]
				}
			}
			rows = append(rows, r)
		}
	}
	end()
	return all
}

// says puts a row of ours as readelf puts it.
func says(r Row) said {
	s := said{pc: r.PC, cfa: "?"}
	switch r.Base {
	case SP:
		s.cfa = fmt.Sprintf("rsp%+d", r.Off)
	case FP:
		s.cfa = fmt.Sprintf("rbp%+d", r.Off)
	}
	where := func(w Where, off int64) string {
		switch w {
		case Saved:
			return fmt.Sprintf("c%+d", off)
		case Lost:
			return "?"
		}
		return "u" // which is also what readelf prints of a register no one has spoken of
	}
	s.fp, s.ra = where(r.FP, r.FPOff), where(r.RA, r.RAOff)
	return s
}

// agree compares one row; it says if readelf has an expression there, which it does not print.
func agree(t *testing.T, fn uint64, want said, rows []Row) (expr bool) {
	t.Helper()
	got := says(Find(rows, want.pc))
	cannot := func(s string) bool {
		return s == "exp" || s == "vexp" || strings.HasPrefix(s, "v") || strings.HasPrefix(s, "r")
	}
	if cannot(want.fp) {
		want.fp = "?"
	}
	if cannot(want.ra) {
		want.ra = "?"
	}
	if expr = want.cfa == "exp"; expr {
		want.cfa = got.cfa // an expression: a linkage table's, or none that we know
	} else if !strings.HasPrefix(want.cfa, "rsp") && !strings.HasPrefix(want.cfa, "rbp") {
		want.cfa = "?"
	}
	got.pc = want.pc
	if got != want {
		t.Errorf("function %#x: at %#x %+v, readelf has %+v", fn, want.pc, got, want)
	}
	return expr
}

const program = `
#include <stdlib.h>
#include <stdio.h>
__attribute__((noinline)) static int by(const void *a, const void *b) { char t[64]; snprintf(t, sizeof t, "%d", *(int*)a); return *(int*)a - *(int*)b + (t[0] == 'x'); }
__attribute__((noinline)) int vla(int n) { int a[n]; for (int i = 0; i < n; i++) a[i] = (i * 7) % n; qsort(a, n, sizeof *a, by); return a[n / 2]; }
int main(int argc, char **argv) { return vla(argc + 10) == 12345; }
`

// TestAgainstReadelf compares all rows of real files with those binutils has.
func TestAgainstReadelf(t *testing.T) {
	for _, tool := range []string{"readelf", "gcc"} {
		oracle.Path(t, tool)
	}
	dir := t.TempDir()
	compile := func(name string, flags ...string) string {
		p := filepath.Join(dir, name)
		cmd := exec.Command("gcc", append(flags, "-x", "c", "-o", p, "-")...)
		cmd.Stdin = strings.NewReader(program)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return p
	}
	files := []struct{ path, section string }{
		{"/bin/true", ".eh_frame"},
		{compile("nofp", "-O2", "-fomit-frame-pointer"), ".eh_frame"},
		{compile("fp", "-O0", "-fno-omit-frame-pointer"), ".eh_frame"},
		{compile("debug", "-g", "-O2", "-fno-asynchronous-unwind-tables"), ".debug_frame"},
	}
	for _, p := range []string{"/lib/x86_64-linux-gnu/libc.so.6", "/lib64/libc.so.6"} {
		if _, err := os.Stat(p); err == nil && !testing.Short() {
			files = append(files, struct{ path, section string }{p, ".eh_frame"})
			break
		}
	}
	for _, tt := range files {
		f, err := elf.Open(tt.path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if f.Machine != elf.EM_X86_64 {
			t.Skip("the programs here are for another machine")
		}
		fns, ok := frames(t, f, tt.section)
		if !ok || len(fns) == 0 {
			t.Errorf("%s: no functions in %s", tt.path, tt.section)
			continue
		}
		want := readelf(t, tt.path, tt.section)
		if len(want) != len(fns) {
			t.Errorf("%s: %d functions, readelf has %d", tt.path, len(fns), len(want))
		}
		rows, exprs := 0, 0
		for _, fn := range fns {
			theirs := want[fn.Lo]
			if len(theirs) == 0 {
				t.Errorf("%s: readelf has no function at %#x", tt.path, fn.Lo)
			}
			at := map[uint64]bool{}
			for i, r := range theirs {
				at[r.pc] = true
				if i+1 < len(theirs) && theirs[i+1].pc == r.pc || r.pc >= fn.Hi {
					continue // holds for no instruction
				}
				rows++
				if agree(t, fn.Lo, r, fn.Rows) {
					exprs++
					for pc := r.pc &^ 15; pc < fn.Hi; pc += 16 { // what a linkage table is written out as
						at[pc], at[pc+9], at[pc+10], at[pc+11] = true, true, true, true
					}
				}
			}
			for _, r := range fn.Rows {
				if !at[r.PC] {
					t.Errorf("%s: function %#x: a row at %#x that readelf has not", tt.path, fn.Lo, r.PC)
				}
			}
			if t.Failed() {
				return
			}
		}
		t.Logf("%s: %d functions, %d rows, %d of them expressions", tt.path, len(fns), rows, exprs)
		if h := f.Section(".eh_frame_hdr"); h != nil && tt.section == ".eh_frame" {
			b, err := h.Data()
			if err != nil {
				t.Fatal(err)
			}
			x, err := ReadIndex(Section{Data: b, Order: f.ByteOrder, Addr: h.Addr, AddrSize: 8})
			if err != nil || x.Frames != f.Section(".eh_frame").Addr || len(x.Entries) != len(fns) {
				t.Errorf("%s: index: %v, frames at %#x, %d entries of %d", tt.path, err, x.Frames, len(x.Entries), len(fns))
			}
			for _, e := range x.Entries {
				if want[e.PC] == nil {
					t.Errorf("%s: index has %#x, which is no function", tt.path, e.PC)
				}
			}
		}
	}
}
