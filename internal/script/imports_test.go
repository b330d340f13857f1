package script

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fathom-trace/fathom/ir/build"
	"github.com/fathom-trace/fathom/lang/check"
	"github.com/fathom-trace/fathom/lang/syntax"
)

func TestImports(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"a.bt":        "import \"sub/b.bt\";\nmacro twice(x) { x * 2 }\nbegin { @order = 1; }\n",
		"sub/b.bt":    "import \"../a.bt\";\nlet @m = hash(7);\nmacro one() { 1 }\n",
		"t.h":         "struct pt { int x, y; };\n#define WIDE 3\n",
		"lib/c.bt":    "macro c() { 3 }\n",
		"lib/notes":   "no program",
		"broken.bt":   "begin { $x = ; }\n",
		"settings.bt": "config = { max_strlen = 9 } begin { }\n",
		"code.bpf.c":  "int f(void) { return 1; }\n",
		"open/e.bt":   "macro e() { 5 }\n",
	} {
		p := filepath.Join(dir, name)
		os.MkdirAll(filepath.Dir(p), 0o755)
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "open"), 0o777); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ name, text, want string }{
		{"all kinds", `import "a.bt"; import "t.h"; import "lib"; import "stdlib/anything"; begin { print(twice(one()) + c() + sizeof(struct pt) + WIDE); @m[1] = 1; }`, ""},
		{"twice", `import "a.bt"; import "./a.bt"; begin { print(twice(1)); }`, ""},
		{"missing", `import "nosuch.bt"; begin { }`, "not found, looked for " + filepath.Join(dir, "nosuch.bt")},
		{"broken", `import "broken.bt"; begin { }`, "broken.bt:1:14-15: ERROR: syntax: expected expression"},
		{"settings", `import "settings.bt"; begin { }`, "only the program itself may have a config block"},
		{"C code", `import "code.bpf.c"; begin { }`, "fathom has no C compiler"},
		{"nothing to import", `import "empty"; begin { }`, "has no .bt and no .h files"},
		{"for everybody", `import "open/e.bt"; begin { print(e()); }`, "can be written by everybody"},
		{"not a script", `import "lib/notes"; begin { }`, "neither a script"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			src := &syntax.Source{Name: filepath.Join(dir, "main.bt"), Text: tc.text}
			_, ds := Compile(src, check.Options{}, build.Options{NumCPU: 2})
			var said []string
			for _, d := range ds {
				if d.Severity == syntax.Error {
					said = append(said, d.Error())
				}
			}
			if got := strings.Join(said, "\n"); tc.want == "" && got != "" || !strings.Contains(got, tc.want) {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}
