package symfile

import (
	"bytes"
	"debug/elf"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const sample = `0000000000000000 A fixed_percpu_data
ffffffff81000000 T _text
ffffffff81000080 t helper
ffffffff82000000 D init_task
ffffffffc0000000 t veth_xmit	[veth]
`

func TestWrite(t *testing.T) {
	syms, err := Parse(strings.NewReader(sample))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := Write(&b, syms); err != nil {
		t.Fatal(err)
	}
	f, err := elf.NewFile(bytes.NewReader(b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	got, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, s := range got {
		lines = append(lines, f.Sections[s.Section].Name+" "+elf.ST_TYPE(s.Info).String()+" "+s.Name)
	}
	want := []string{".text STT_FUNC _text", ".text STT_FUNC helper", ".data STT_OBJECT init_task", ".text STT_FUNC veth_xmit"}
	if d := cmp.Diff(want, lines); d != "" {
		t.Error(d)
	}
	if text := f.Section(".text"); text.Addr != 0xffffffff81000000 || text.Addr+text.Size != 0xffffffffc0000001 {
		t.Errorf("%+v", text.SectionHeader)
	}
}

func TestParseErrors(t *testing.T) {
	for in, want := range map[string]string{
		"":                       "kallsyms: no addresses (kernel.kptr_restrict hides them from who has no CAP_SYSLOG)",
		"0000000000000000 T x\n": "kallsyms: no addresses (kernel.kptr_restrict hides them from who has no CAP_SYSLOG)",
		"nonsense\n":             `kallsyms line 1: "nonsense"`,
		"zz T x\n":               `kallsyms line 1: strconv.ParseUint: parsing "zz": invalid syntax`,
	} {
		if _, err := Parse(strings.NewReader(in)); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", in, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(sample)
	f.Fuzz(func(t *testing.T, s string) {
		syms, err := Parse(strings.NewReader(s))
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := Write(&b, syms); err != nil {
			t.Fatal(err)
		}
		if _, err := elf.NewFile(bytes.NewReader(b.Bytes())); err != nil {
			t.Error(err)
		}
	})
}
