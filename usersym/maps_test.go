package usersym

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"
)

func TestParseMaps(t *testing.T) {
	const maps = `7f0000002000-7f0000003000 r-xp 00001000 fe:01 77                         /tmp/a b (deleted)
55d000000000-55d000001000 r--p 00000000 fe:00 1234                       /bin/cat
55d000001000-55d000005000 r-xp 00001000 fe:00 1234                       /bin/cat
7f0000000000-7f0000001000 rwxp 00000000 00:00 0 
7ffd00000000-7ffd00002000 r-xp 00000000 00:00 0                          [vdso]
zzzz-1 r-xp 0 0:0 0
5000-4000 r-xp 00000000 00:00 0
garbage
`
	want := []mapping{
		{start: 0x55d000001000, end: 0x55d000005000, off: 0x1000, dev: unix.Mkdev(0xfe, 0), ino: 1234, path: "/bin/cat"},
		{start: 0x7f0000000000, end: 0x7f0000001000},
		{start: 0x7f0000002000, end: 0x7f0000003000, off: 0x1000, dev: unix.Mkdev(0xfe, 1), ino: 77, path: "/tmp/a b", deleted: true},
		{start: 0x7ffd00000000, end: 0x7ffd00002000, path: "[vdso]"},
	}
	got := parseMaps([]byte(maps))
	if d := cmp.Diff(want, got, cmp.AllowUnexported(mapping{}), cmpopts.IgnoreFields(mapping{}, "obj")); d != "" {
		t.Error(d)
	}
	p := process{maps: []memory{{0, got}}}
	for addr, path := range map[uint64]string{0x55d000001000: "/bin/cat", 0x55d000004fff: "/bin/cat", 0x55d000005000: "-", 0x7f0000002123: "/tmp/a b", 0: "-", 1 << 63: "-"} {
		m, ok := p.find(addr)
		if !ok {
			m.path = "-"
		}
		if m.path != path {
			t.Errorf("%x: %q, want %q", addr, m.path, path)
		}
	}
}

func TestPerfMap(t *testing.T) {
	j := perfMap{code: parsePerfMap([]byte("2000 10 b c d\n0x1000 0x100 a\nbad\n1000 80 a again\nzz 1 x\n"))}
	for addr, want := range map[uint64]string{0x1000: "a again", 0x107f: "a again", 0x1090: "a", 0x2008: "b c d", 0x2010: "", 0xfff: ""} {
		if got, _, _ := j.find(addr); got != want {
			t.Errorf("%x: %q, want %q", addr, got, want)
		}
	}
}

func TestDemangle(t *testing.T) {
	tests := map[string]string{
		"main":          "main",
		"_ZN3foo3barEi": "foo::bar(int)",
		"_ZN4core3fmt9Formatter3pad17h0123456789abcdefE": "core::fmt::Formatter::pad",
		"_RNvCskwGfYPst2Cb_3foo16example_function":       "foo::example_function",
		"_Znot": "_Znot",
	}
	for in, want := range tests {
		if got := Demangle(in); got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
}

func FuzzCache(f *testing.F) {
	f.Add([]byte("glibc-ld.so.cache1.1\x01\x00\x00\x00"), "libc")
	f.Fuzz(func(t *testing.T, b []byte, name string) {
		parseCache(b, name)
		parseMaps(b)
		parsePerfMap(b)
	})
}
