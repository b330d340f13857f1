package usdt

import (
	"debug/elf"
	"encoding/binary"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/internal/oracle"
)

func TestParseArgs(t *testing.T) {
	tests := []struct {
		arch, in string
		want     []Arg
	}{
		{"amd64", "-4@%edi 8@%rax", []Arg{{Size: 4, Signed: true, Kind: Reg, Reg: "di", Scale: 1}, {Size: 8, Kind: Reg, Reg: "ax", Scale: 1}}},
		{"amd64", "4@$123 -8@$-5 8@$0xffffffffffffffff", []Arg{{Size: 4, Off: 123, Scale: 1}, {Size: 8, Signed: true, Off: -5, Scale: 1}, {Size: 8, Off: -1, Scale: 1}}},
		{"amd64", "-4@-20(%rbp) 8@(%r8)", []Arg{{Size: 4, Signed: true, Kind: Mem, Reg: "bp", Off: -20, Scale: 1}, {Size: 8, Kind: Mem, Reg: "r8", Scale: 1}}},
		{"amd64", "1@%ah 2@%r9w 1@%sil", []Arg{{Size: 1, Kind: Reg, Reg: "ax", High: true, Scale: 1}, {Size: 2, Kind: Reg, Reg: "r9", Scale: 1}, {Size: 1, Kind: Reg, Reg: "si", Scale: 1}}},
		{"amd64", "8@16(%rax,%rbx,8) 4@(%rdx,%rcx)", []Arg{{Size: 8, Kind: Mem, Reg: "ax", Index: "bx", Scale: 8, Off: 16}, {Size: 4, Kind: Mem, Reg: "dx", Index: "cx", Scale: 1}}},
		{"amd64", "8@some_var+8(%rip)", []Arg{{Size: 8, Kind: Mem, Reg: "ip", Sym: "some_var", Off: 8, Scale: 1}}},
		{"amd64", "8@-4+var(%rip)", nil},
		{"amd64", "%rax", []Arg{{Size: 8, Kind: Reg, Reg: "ax", Scale: 1}}},
		{"amd64", "3@%rax", nil}, {"amd64", "8@%zz", nil}, {"amd64", "8@(%rax", nil}, {"amd64", "8@(%rax,%rbx,3)", nil},
		{"arm64", "-4@w0 8@x30 8@[sp, 8] 4@[x1] 8@5", []Arg{
			{Size: 4, Signed: true, Kind: Reg, Reg: "r0", Scale: 1}, {Size: 8, Kind: Reg, Reg: "r30", Scale: 1},
			{Size: 8, Kind: Mem, Reg: "sp", Off: 8, Scale: 1}, {Size: 4, Kind: Mem, Reg: "r1", Scale: 1}, {Size: 8, Off: 5, Scale: 1},
		}},
		{"arm64", "8@[x0, x1, lsl 3]", []Arg{{Size: 8, Kind: Mem, Reg: "r0", Index: "r1", Scale: 8}}},
		{"arm64", "8@x31", nil},
		{"amd64", "", nil},
	}
	for _, tt := range tests {
		got, err := ParseArgs(tt.in, tt.arch)
		if (err != nil) != (tt.want == nil && tt.in != "") {
			t.Errorf("%s: %v", tt.in, err)
		}
		if err == nil {
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("%s: (-want +got)\n%s", tt.in, d)
			}
		}
	}
}

const program = `
#define _SDT_HAS_SEMAPHORES 0
#define PROBE(prov, name, fmt, arg) __asm__ volatile ("990: nop\n" \
	".pushsection .note.stapsdt,\"?\",\"note\"\n.balign 4\n.4byte 992f-991f, 994f-993f, 3\n991: .asciz \"stapsdt\"\n992: .balign 4\n" \
	"993: .8byte 990b\n.8byte _.stapsdt.base\n.8byte 0\n.asciz \"" #prov "\"\n.asciz \"" #name "\"\n.asciz \"" fmt "\"\n994: .balign 4\n.popsection\n" \
	".ifndef _.stapsdt.base\n.pushsection .stapsdt.base,\"aG\",\"progbits\",.stapsdt.base,comdat\n.weak _.stapsdt.base\n.hidden _.stapsdt.base\n" \
	"_.stapsdt.base: .space 1\n.size _.stapsdt.base,1\n.popsection\n.endif\n" :: "nor" (arg))
int main(int argc, char **argv) { PROBE(shop, open, "-4@%0", argc); PROBE(shop, close, "8@%0", (long)argv); return 0; }
`

// TestFile reads the notes of a program as a compiler makes them, and compares with readelf.
func TestFile(t *testing.T) {
	gcc, readelf := oracle.Path(t, "gcc"), oracle.Path(t, "readelf")
	path := filepath.Join(t.TempDir(), "a")
	cmd := exec.Command(gcc, "-O1", "-x", "c", "-o", path, "-")
	cmd.Stdin = strings.NewReader(program)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.Command(readelf, "-n", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, m := range regexp.MustCompile(`Provider: (\S+)\s+Name: (\S+)\s+Location: (0x\w+), Base: \S+, Semaphore: \S+\s+Arguments: (.*)`).FindAllStringSubmatch(string(out), -1) {
		want = append(want, strings.Join(m[1:], " "))
	}
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	notes, err := f.Section(Section).Data()
	if err != nil {
		t.Fatal(err)
	}
	ns, err := Parse(notes, f.ByteOrder, true, f.Section(Base).Addr)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range ns {
		got = append(got, strings.Join([]string{n.Provider, n.Name, hex(n.PC), strings.TrimSpace(n.Args)}, " "))
		if _, err := ParseArgs(n.Args, "amd64"); err != nil {
			t.Error(err)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if d := cmp.Diff(want, got); d != "" || len(got) != 2 {
		t.Errorf("(-readelf +got)\n%s", d)
	}
}

func hex(n uint64) string {
	b := make([]byte, 8)
	binary.BigEndian.PutUint64(b, n)
	s := ""
	for _, c := range b {
		s += string("0123456789abcdef"[c>>4]) + string("0123456789abcdef"[c&15])
	}
	return "0x" + s
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("\x08\x00\x00\x00\x26\x00\x00\x00\x03\x00\x00\x00stapsdt\x00"+strings.Repeat("\x00", 24)+"prov\x00name\x00-4@%edi\x00\x00"), "8@16(%rax,%rbx,8)")
	f.Add([]byte{}, "8@[x0, x1, lsl 3] 4@$-1 8f@%xmm0")
	f.Fuzz(func(t *testing.T, b []byte, args string) {
		Parse(b, binary.LittleEndian, true, 64)
		Parse(b, binary.BigEndian, false, 0)
		ParseArgs(args, "amd64")
		ParseArgs(args, "arm64")
	})
}
