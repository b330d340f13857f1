package cpp

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fathom-trace/fathom/internal/oracle"
)

// files is a folder in memory: <x> and "x" are looked up by name.
type files map[string]string

func (f files) Open(name, from string, quoted, after bool) (string, string, error) {
	if after {
		name = "next/" + name
	}
	text, ok := f[name]
	if !ok {
		return "", "", fs.ErrNotExist
	}
	return name, text, nil
}

func TestRun(t *testing.T) {
	headers := files{
		"once.h": "#pragma once\nint once;\n", "guard.h": "#ifndef G\n#define G\nint guard;\n#endif\n",
		"next.h": "#include_next <next.h>\nint first;\n", "next/next.h": "int second;\n", "value.h": "#define V 3\n",
	}
	tests := []struct{ name, in, want string }{
		{"plain", "struct a { int x; };", "struct a { int x; };"},
		{"comments", "int /* a\nb */ x; // c\nint y;", "int x; int y;"},
		{"continued", "#define A 1 \\\n + 2\nA", "1 + 2"},
		{"object", "#define N 4\nint x[N];", "int x[4];"},
		{"chain", "#define A B\n#define B C\nA", "C"},
		{"itself", "#define A A + 1\nA", "A + 1"},
		{"each other", "#define A B\n#define B A\nA B", "A B"},
		{"call", "#define F(a, b) a - b\nF(1, (2, 3))", "1 - (2, 3)"},
		{"call over lines", "#define F(a) a\nF(\n1\n)", "1"},
		{"name only", "#define F(a) a\nF;", "F;"},
		{"no parameters", "#define F() x\nF()", "x"},
		{"variadic", "#define F(a, ...) a(__VA_ARGS__)\nF(f, 1, 2)", "f(1, 2)"},
		{"named variadic", "#define F(a, b...) a(b)\nF(f, 1, 2)", "f(1, 2)"},
		{"string", "#define S(x) #x\nS(a  +  \"b\")", `"a + \"b\""`},
		{"paste", "#define P(a, b) a##b\nP(x, 1) P(, y) P(z,)", "x1 y z"},
		{"paste as written", "#define A 1\n#define P(a, b) a##b b\nP(x, A)", "xA 1"},
		{"expanded argument", "#define A 1\n#define F(x) x x\nF(A)", "1 1"},
		{"rescanned", "#define f(a) a*g\n#define g(a) f(a)\nf(2)(9)", "2*9*g"}, // C11 6.10.3.4 leaves this open; gcc and clang agree
		{"if", "#if 1 + 1 == 2 && !defined(X)\na\n#else\nb\n#endif", "a"},
		{"elif", "#if 0\na\n#elif 1\nb\n#elif 1\nc\n#else\nd\n#endif", "b"},
		{"nested", "#if 0\n#if 1\na\n#else\nb\n#endif\n#else\nc\n#endif", "c"},
		{"unsigned", "#if -1 > 0u\nyes\n#endif", "yes"},
		{"ternary", "#if (1 ? 2 : 0) == 2\nyes\n#endif", "yes"},
		{"char", "#if 'A' == 65 && '\\n' == 10\nyes\n#endif", "yes"},
		{"ifdef", "#define X\n#ifdef X\na\n#endif\n#ifndef X\nb\n#endif\n#undef X\n#ifdef X\nc\n#endif", "a"},
		{"once", "#include <once.h>\n#include <once.h>", "int once;"},
		{"guard", "#include \"guard.h\"\n#include \"guard.h\"", "int guard;"},
		{"next", "#include <next.h>", "int second; int first;"},
		{"computed", "#define H <value.h>\n#include H\nV", "3"},
		{"has_include", "#if __has_include(<value.h>) && !__has_include(<no.h>)\nyes\n#endif", "yes"},
		{"compiler", "#include <stdbool.h>\nbool", "_Bool"},
		{"arch", "#ifdef __x86_64__\nx86\n#endif", "x86"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ts, errs := New(Options{Files: headers}).Run("main", tt.in)
			for _, e := range errs {
				t.Errorf("%s:%d: %v", e.File, e.Off, e)
			}
			if got := Text(ts); got != tt.want {
				t.Errorf("%s\n got %s\nwant %s", tt.in, got, tt.want)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	tests := []struct {
		in, want string
		off      int
	}{
		{"#include <lol/no.h>", "'lol/no.h' file not found", 1},
		{"x\n#if 1\n", "unterminated #if", 2},
		{"#endif", "#endif without #if", 1},
		{"#error no such luck", "#error no such luck", 1},
		{"#if 1 +\n#endif", "#if: expression expected", 1},
		{"#if F(1)\n#endif", "#if: 'F' is not defined", 1},
		{"#define", "#define wants a name", 1},
	}
	for _, tt := range tests {
		_, errs := New(Options{}).Run("main", tt.in)
		if len(errs) != 1 || errs[0].Msg != tt.want || errs[0].Off != tt.off {
			t.Errorf("%s\n got %+v\nwant %s at %d", tt.in, errs, tt.want, tt.off)
		}
	}
}

func TestMacro(t *testing.T) {
	p := New(Options{Define: map[string]string{"GIVEN": "7"}})
	p.Run("main", "#define A (B << 4)\n#define B 0x1UL\n#define S \"text\"\n#define F(x) x\n#define SELF SELF\n")
	for name, want := range map[string]int64{"A": 16, "B": 1, "GIVEN": 7} {
		if n, ok := p.Value(name); !ok || n != want {
			t.Errorf("%s: %d %v, want %d", name, n, ok, want)
		}
	}
	for _, name := range []string{"S", "F", "NONE", "SELF"} {
		if n, ok := p.Value(name); ok {
			t.Errorf("%s is %d", name, n)
		}
	}
	if s, ok := p.Macro("S"); !ok || s != `"text"` {
		t.Errorf("S: %s %v", s, ok)
	}
}

// dirs finds headers as a compiler does.
type dirs []string

func (d dirs) Open(name, from string, quoted, after bool) (string, string, error) {
	for _, dir := range d {
		if after {
			after = !strings.HasPrefix(from, dir+"/")
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			return filepath.Join(dir, name), string(b), nil
		}
	}
	return "", "", fs.ErrNotExist
}

// TestCompiler compares with the C compiler on the headers of this machine.
func TestCompiler(t *testing.T) {
	gcc := oracle.Path(t, "gcc")
	search := searchPath(t, gcc)
	for _, h := range []string{"errno.h", "stdint.h", "sys/socket.h", "netinet/in.h", "linux/if_ether.h", "linux/tcp.h", "linux/bpf.h", "signal.h", "sys/stat.h", "fcntl.h", "syscall.h", "time.h", "linux/perf_event.h"} {
		t.Run(h, func(t *testing.T) {
			src := "#include <" + h + ">\n"
			cmd := exec.Command(gcc, "-E", "-P", "-O0", "-x", "c", "-std=gnu11", "-")
			cmd.Stdin = strings.NewReader(src)
			want, err := cmd.Output()
			if err != nil {
				t.Skip(h, " is not here")
			}
			ts, errs := New(Options{Files: search}).Run("main", src)
			for _, e := range errs {
				t.Errorf("%s:%d: %v", e.File, e.Off, e)
			}
			wants := lex("", string(want))
			for i := range max(len(ts), len(wants)) {
				var a, b string
				if i < len(ts) {
					a = ts[i].Text
				}
				if i < len(wants) {
					b = wants[i].Text
				}
				if a != b {
					t.Fatalf("token %d: %q, the compiler has %q\nafter %s", i, a, b, Text(wants[max(0, i-20):i]))
				}
			}
		})
	}
}

// searchPath asks the compiler where it looks for headers.
func searchPath(t *testing.T, gcc string) dirs {
	cmd := exec.Command(gcc, "-E", "-v", "-x", "c", os.DevNull)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	var d dirs
	in := false
	for line := range strings.Lines(string(out)) {
		switch {
		case strings.HasPrefix(line, "#include <...>"):
			in = true
		case strings.HasPrefix(line, "End of search"):
			return d
		case in:
			d = append(d, filepath.Clean(strings.TrimSpace(line)))
		}
	}
	t.Fatal("no search path: ", string(out))
	return nil
}

func FuzzRun(f *testing.F) {
	for _, s := range []string{
		"#define F(a, b...) #a ## b\nF(1, 2)", "#if 1 ? 2 : (3\n#endif", "#include <a.h>\n#include_next \"a.h\"", "#define a b b\n#define b a a\na",
		"/* ", "\"", "#define f(x) f(f(x)) x\nf(f(f(1)))", "#if defined\n#elif\n#else\n#endif\n#endif", "#define P(a,b) a##b\nP(,)P(<,<)",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p := New(Options{Files: files{"a.h": "int a;\n"}, Absent: func(name string) bool { return strings.HasPrefix(name, "b") }})
		ts, errs := p.Run("main", s)
		for _, e := range errs {
			if e.Off < 0 || e.Off > len(s) && e.File == "main" {
				t.Errorf("error at %d of %d", e.Off, len(s))
			}
		}
		_ = Text(ts)
		for name := range p.macros {
			p.Macro(name)
			p.Value(name)
		}
	})
}
