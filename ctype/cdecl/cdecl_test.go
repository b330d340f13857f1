package cdecl

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/ctype/cpp"
	"github.com/fathom-trace/fathom/internal/oracle"
)

type none struct{}

func (none) ByName(ctype.Kind, string) (ctype.Type, error) { return nil, ctype.ErrNotFound }
func (none) EnumValue(string) (*ctype.Enum, int64, bool)   { return nil, 0, false }
func (none) Func(string, string) (*ctype.Func, error)      { return nil, ctype.ErrNotFound }

// layouts are what gcc 12 -m64 gives by offsetof and sizeof.
func TestLayout(t *testing.T) {
	tests := []struct {
		text string
		size int
		want map[string][2]int // bit offset, bit size
	}{
		{`struct T { int a; char b; long c; }`, 16, map[string][2]int{"a": {0, 0}, "b": {32, 0}, "c": {64, 0}}},
		{`struct T { char a[3]; short b; }`, 6, map[string][2]int{"b": {32, 0}}},
		{`struct T { int a:3; int b:5; unsigned c:30; }`, 8, map[string][2]int{"a": {0, 3}, "b": {3, 5}, "c": {32, 30}}},
		{`struct T { char a; int :0; char b; }`, 5, map[string][2]int{"b": {32, 0}}},
		{`struct __attribute__((packed)) T { char a; int b; }`, 5, map[string][2]int{"b": {8, 0}}},
		{`struct T { struct { int x; union { int y; long z; }; }; int w; }`, 24, map[string][2]int{"x": {0, 0}, "z": {64, 0}, "w": {128, 0}}},
		{`struct T { void (*fn)(int, char *); struct T *next; int m[2][3]; }`, 40, map[string][2]int{"next": {64, 0}, "m": {128, 0}}},
		{`typedef unsigned int u; enum E { A = 4, B }; struct T { u x; enum E e; char s[B]; };`, 16, map[string][2]int{"e": {32, 0}, "s": {64, 0}}},
		{`struct T { unsigned long long a; uint16_t b; _Bool c; }`, 16, map[string][2]int{"b": {64, 0}, "c": {80, 0}}},
		{`union T { int a; char b[7]; }`, 8, map[string][2]int{"b": {0, 0}}},
	}
	for _, tt := range tests {
		s := NewScope(none{})
		if err := s.Parse(tt.text); err != nil {
			t.Errorf("%s: %v", tt.text, err)
			continue
		}
		typ, err := s.ByName(ctype.Any, "T")
		if err != nil {
			t.Errorf("%s: %v", tt.text, err)
			continue
		}
		if got := ctype.Size(typ); got != tt.size {
			t.Errorf("%s: size %d, want %d", tt.text, got, tt.size)
		}
		for name, want := range tt.want {
			m, ok := typ.(*ctype.Struct).Member(name)
			if got := [2]int{m.BitOff, m.BitSize}; !ok || got != want {
				t.Errorf("%s: %s at %v (%v), want %v", tt.text, name, got, ok, want)
			}
		}
	}
}

func TestErrors(t *testing.T) {
	for text, want := range map[string]string{
		`struct T { nosuch x; }`: "unknown type name 'nosuch'",
		`struct T { int x y; }`:  "expected ';'",
		`struct T { int x[`:      "expected a constant",
		`enum { A = B }`:         "unknown constant 'B'",
		`struct T {`:             "expected '}'",
	} {
		err := NewScope(none{}).Parse(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{`struct T { int a:3; struct { char b[4]; }; void (*f)(int); };`, `typedef enum { A = 1 << 3, B } e_t;`, "union U { long x; };"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) { _ = NewScope(none{}).Parse(s) })
}

// headers finds what the C compiler of this machine finds in the usual places.
type headers []string

func (h headers) Open(name, from string, quoted, after bool) (string, string, error) {
	for _, dir := range h {
		if after {
			after = !strings.HasPrefix(from, dir+"/")
			continue
		}
		if b, err := os.ReadFile(dir + "/" + name); err == nil {
			return dir + "/" + name, string(b), nil
		}
	}
	return "", "", fs.ErrNotExist
}

// TestHeaders reads real headers and compares sizes and offsets with the C compiler.
func TestHeaders(t *testing.T) {
	gcc := oracle.Path(t, "gcc")
	const includes = "#include <stddef.h>\n#include <sys/stat.h>\n#include <netinet/in.h>\n#include <netinet/tcp.h>\n#include <signal.h>\n" +
		"#include <linux/if_packet.h>\n#include <linux/perf_event.h>\n#include <linux/bpf.h>\n#include <sys/epoll.h>\n#include <sys/un.h>\n#include <time.h>\n"
	members := [][2]string{
		{"struct stat", "st_mtim"}, {"struct sockaddr_in", "sin_addr"}, {"struct sockaddr_in6", "sin6_scope_id"}, {"struct sigaction", "sa_flags"},
		{"siginfo_t", "_sifields"}, {"struct sockaddr_ll", "sll_addr"}, {"struct perf_event_attr", "config3"}, {"union bpf_attr", "link_create"},
		{"struct epoll_event", "data"}, {"struct sockaddr_un", "sun_path"}, {"struct timespec", "tv_nsec"}, {"stack_t", "ss_size"},
		{"struct perf_event_mmap_page", "aux_size"}, {"struct bpf_map_info", "btf_vmlinux_id"}, {"struct tpacket3_hdr", "tp_padding"}, {"struct tcphdr", "th_urp"},
	}
	var b strings.Builder
	b.WriteString(includes + "#include <stdio.h>\nint main(void) {\n")
	for _, m := range members {
		fmt.Fprintf(&b, "printf(\"%%zu %%zu\\n\", sizeof(%s), offsetof(%s, %s));\n", m[0], m[0], m[1])
	}
	b.WriteString("}\n")
	dir := t.TempDir()
	cmd := exec.Command(gcc, "-x", "c", "-o", dir+"/a", "-")
	cmd.Stdin = strings.NewReader(b.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("headers are missing: %v\n%s", err, out)
	}
	out, err := exec.Command(dir + "/a").Output()
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Fields(string(out))

	triplet, _ := exec.Command(gcc, "-print-multiarch").Output()
	p := cpp.New(cpp.Options{Files: headers{"/usr/include/" + strings.TrimSpace(string(triplet)), "/usr/include"}})
	ts, errs := p.Run("main", includes)
	for _, e := range errs {
		t.Errorf("%s:%d: %v", e.File, e.Off, e)
	}
	s := NewScope(none{})
	if err := s.ParseTokens(ts, 0, func(cpp.Token) bool { return false }); err != nil {
		t.Error(err)
	}
	for i, m := range members {
		kind, name := ctype.KindTypedef, m[0]
		if n, ok := strings.CutPrefix(name, "struct "); ok {
			kind, name = ctype.KindStruct, n
		} else if n, ok := strings.CutPrefix(name, "union "); ok {
			kind, name = ctype.KindUnion, n
		}
		typ, err := s.ByName(kind, name)
		if err != nil {
			t.Errorf("%s: %v", m[0], err)
			continue
		}
		st, _ := ctype.Strip(typ).(*ctype.Struct)
		if st == nil {
			t.Errorf("%s is a %T", m[0], typ)
			continue
		}
		mem, ok := st.Member(m[1])
		got := fmt.Sprint(ctype.Size(typ), " ", mem.BitOff/8)
		if w := want[2*i] + " " + want[2*i+1]; !ok || got != w {
			t.Errorf("%s.%s: size and offset %s, the compiler has %s (found %v)", m[0], m[1], got, w, ok)
		}
	}
}
