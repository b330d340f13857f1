package skeleton

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// every are fields of each kind.
var every = []string{
	"enum { LOST = -1, FOUND, KEPT = 7 } state", "flags { READ = 1, WRITE = 2, EXEC = 1 << 31 } mode", "u64 addr %#x", "char comm[16]",
	"string path", "u32 lengths[]", "u8 data[]", "u16 ports[3]", "u8 key[4]", "u8 mac[6] %pM", "u32 ip %pI4", "void *where %pS",
	"const struct sk_buff *skb",
}

func TestFiles(t *testing.T) {
	for _, tt := range []struct {
		golden, name, print string
		fields              []string
	}{
		{"every", "lab:every", "", every[:10]},
		{"print", "net_lab:hop", "to %pI4 '%s' by %08x%%: %x", []string{"u32 ip", "string dev", "unsigned long long key", "size_t len"}},
	} {
		e, err := Parse(tt.name, tt.fields, tt.print)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for _, f := range e.Files() {
			fmt.Fprintf(&b, "-- %s --\n%s", f.Name, f.Text)
		}
		name := "testdata/" + tt.golden + ".golden"
		if *update {
			if err := os.WriteFile(name, []byte(b.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), b.String()); d != "" {
			t.Errorf("%s: %s", tt.name, d)
		}
	}
}

// TestConversions: what shows which field, and how printk is told the size.
func TestConversions(t *testing.T) {
	for field, want := range map[string]string{
		"int x": "%d", "unsigned x": "%u", "u8 x": "%u", "bool x": "%d", "short x %x": "%x", "u64 x": "%llu", "s64 x": "%lld", "long x": "%ld",
		"unsigned long x %#lx": "%#lx", "unsigned long x %#x": "%#lx", "long long x": "%lld", "size_t x": "%zu", "ssize_t x": "%zd", "loff_t x": "%lld",
		"ino_t x": "%lu", "gfp_t x %08x": "%08x", "pid_t x": "%d", "void *x": "%p", "void *x %px": "%px", "u32 x %pI4": "%pI4", "u8 x[16] %pI6c": "%pI6c",
		"u8 x[16] %pUb": "%pUb", "string x %-8s": "%-8s", "enum { A } x": "%s", "enum { A } x %d": "%d", "flags { A = 1 } x %#x": "%#x", "u64 x[2]": "%s",
		"struct sock *x %pK": "%pK", "char x": "%d", "char x %c": "%c", "signed char x": "%d", "uintptr_t x": "%lu",
	} {
		f, _, err := parseField(field)
		if err != nil || f.conv != want {
			t.Errorf("%s is shown by %q, not %q: %v", field, f.conv, want, err)
		}
	}
}

// TestWrong: what is refused, where, and why.
func TestWrong(t *testing.T) {
	number := []string{"int x"}
	for _, tt := range []struct {
		name   string
		fields []string
		print  string
		text   string // that is marked
		msg    string
	}{
		{"pour", number, "", "pour", "SYSTEM:NAME"},
		{"lab:", number, "", "", "letters"},
		{"lab:a b", number, "", "a b", "letters"},
		{"lab:int", number, "", "int", "word of C's"},
		{"lab:" + strings.Repeat("x", 60), number, "", strings.Repeat("x", 60), "longer"},
		{"lab:a", nil, "", "", "has fields"},
		{"lab:a", []string{"int x", "int x"}, "", "x", "already"},
		{"lab:a", []string{"u8 x[]", "int x_len"}, "", "x_len", "already"},
		{"lab:a", strings.Split(strings.TrimSuffix(strings.Repeat("int a,", 13), ","), ","), "", "a", "already"},
		{"lab:a", []string{"int a", "int b", "int c", "int d", "int e", "int f", "int g", "int h", "int i", "int j", "int k", "u8 l[]"}, "", "l", "12 arguments"},
		{"lab:a", []string{"float x"}, "", "float x", "floating"},
		{"lab:a", []string{"__int128 x"}, "", "__int128 x", "64 bits"},
		{"lab:a", []string{"nosuch_t x"}, "", "", "unknown type"},
		{"lab:a", []string{"int"}, "", "int", "with its name"},
		{"lab:a", []string{"int x, y"}, "", "int x, y", "one field"},
		{"lab:a", []string{"int x;"}, "", ";", "semicolon"},
		{"lab:a", []string{"int x : 3"}, "", "int x : 3", "one field"},
		{"lab:a", []string{"int } x"}, "", "", "expected"},
		{"lab:a", []string{""}, "", "", "expected a type"},
		{"lab:a", []string{"int current"}, "", "current", "word of C's"},
		{"lab:a", []string{"int common_pid"}, "", "common_pid", "word of C's"},
		{"lab:a", []string{"const int x"}, "", "const", "says nothing"},
		{"lab:a", []string{"static int x"}, "", "static", "says nothing"},
		{"lab:a", []string{"void *const x"}, "", "const", "says nothing"},
		{"lab:a", []string{"struct sock x"}, "", "struct sock x", "name the members"},
		{"lab:a", []string{"void x"}, "", "void x", "name the members"},
		{"lab:a", []string{"string x[2]"}, "", "string x[2]", "arrays are of numbers"},
		{"lab:a", []string{"void *x[2]"}, "", "void *x[2]", "arrays are of numbers"},
		{"lab:a", []string{"int x[2][2]"}, "", "int x[2][2]", "arrays are of numbers"},
		{"lab:a", []string{"char x[]"}, "", "char x[]", "string x"},
		{"lab:a", []string{"u64 x[200]"}, "", "u64 x[200]", "1600 bytes"},
		{"lab:a", []string{"int (*x)(void)"}, "", "int (*x)(void)", "void *"},
		{"lab:a", []string{"enum { } x"}, "", "enum { } x", "to be said"},
		{"lab:a", []string{"enum state x"}, "", "enum state x", "to be said"},
		{"lab:a", []string{"enum { A, A } x"}, "", "enum { A, A } x", "twice"},
		{"lab:a", []string{"enum { A = 1 << 40 } x"}, "", "enum { A = 1 << 40 } x", "no int"},
		{"lab:a", []string{"flags { A } x"}, "", "flags { A } x", "bits"},
		{"lab:a", []string{"int x %s"}, "", "%s", "a number"},
		{"lab:a", []string{"int x %"}, "", "%", "a number"},
		{"lab:a", []string{"string x %d"}, "", "%d", "text"},
		{"lab:a", []string{"u8 x[5] %pM"}, "", "%pM", "5 numbers"},
		{"lab:a", []string{"void *x %d"}, "", "%d", "an address"},
		{"lab:a", []string{"void *x %pI4"}, "", "%pI4", "an address"},
		{"lab:a", []string{"int ä"}, "", "\xc3", "ASCII"},
		{"lab:a", number, "x=%d y=%d", "%d", "no field left"},
		{"lab:a", number, "x", "", "nothing shows x"},
		{"lab:a", number, "x=%s", "%s", "does not show x"},
		{"lab:a", number, "x=%y", "%", "no conversion"},
		{"lab:a", number, `x=%d\n`, `\`, "one line"},
		{"lab:a", number, "x=%d\n", " ", "one line"},
		{"lab:a", number, `x="%d"`, `"`, "end of the text"},
	} {
		_, err := Parse(tt.name, tt.fields, tt.print)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%s %q %q: %v", tt.name, tt.fields, tt.print, err)
			continue
		}
		if e.Off > e.End || e.End > len(e.Text) || e.Text[e.Off:e.End] != tt.text || !strings.Contains(e.Msg, tt.msg) {
			t.Errorf("%s %q %q: %v, to byte %d; not %q at %q", tt.name, tt.fields, tt.print, e, e.End, tt.msg, tt.text)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, field := range every {
		f.Add("lab:every", field, "")
	}
	f.Add("lab:a", "int x", "'%08x' 100%%")
	f.Add("lab", "enum { A = (1 } x", "%")
	f.Fuzz(func(t *testing.T, name, field, print string) {
		e, err := Parse(name, []string{field}, print)
		var wrong *Error
		switch {
		case errors.As(err, &wrong):
			if wrong.Off < 0 || wrong.Off > wrong.End || wrong.End > len(wrong.Text) {
				t.Fatalf("%q: %d to %d", wrong.Text, wrong.Off, wrong.End)
			}
		case err != nil:
			t.Fatal(err)
		default:
			for _, file := range e.Files() {
				if !strings.HasSuffix(file.Text, "\n") || strings.Contains(file.Text, "\x00") {
					t.Fatalf("%s: %q", file.Name, file.Text)
				}
			}
		}
	})
}
