package check_test

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/lang/check"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/lang/syntax/syntaxtest"
	"github.com/fathom-trace/fathom/lang/types"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// run parses and checks text in the fake world.
func run(text string, opts check.Options) (*check.Info, []syntax.Diag) {
	return runSource(&syntax.Source{Name: "stdin", Text: text}, opts)
}

func runSource(src *syntax.Source, opts check.Options) (*check.Info, []syntax.Diag) {
	f, ds := syntax.Parse(src)
	if len(ds) > 0 {
		return nil, ds
	}
	if opts.World == nil {
		opts.World = newWorld()
	}
	opts.Declare = declare
	return check.Check(f, opts)
}

// TestErrors holds what is said about broken programs against testdata: errors.bt goes through the rules, broken.bt has what
// people write by mistake.
func TestErrors(t *testing.T) {
	for _, file := range []string{"errors", "broken"} {
		syntaxtest.Run(t, "testdata/"+file+".bt", func(src *syntax.Source) []syntax.Diag {
			_, ds := runSource(src, check.Options{})
			return ds
		})
	}
}

// TestTypes compares what the checker finds about the programs of types.bt with types.golden.
func TestTypes(t *testing.T) {
	b, err := os.ReadFile("testdata/types.bt")
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, text := range strings.Split(strings.TrimSpace(string(b)), "\n---\n") {
		info, ds := run(text, check.Options{Params: []string{"42", "word"}, Unsafe: true})
		fmt.Fprintf(&got, "%s\n", text)
		for _, d := range ds {
			fmt.Fprintf(&got, "  %v\n", d)
		}
		if info != nil {
			dump(&got, info)
		}
		got.WriteString("---\n")
	}
	if *update {
		if err := os.WriteFile("testdata/types.golden", []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/types.golden")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got.String()); d != "" {
		t.Errorf("run go test -update if this is right (-want +got)\n%s", d)
	}
}

// dump prints maps, instances, variables and the constants of a program.
func dump(w *strings.Builder, info *check.Info) {
	for _, m := range info.Maps {
		fmt.Fprintf(w, "  map %s[%s] = %s %s\n", m.Name, show(m.Key), show(m.Value), m.Kind)
	}
	for _, in := range info.Instances {
		var names []string
		for _, t := range in.Targets {
			names = append(names, t.Name)
		}
		fmt.Fprintf(w, "  clause %d: %s\n", in.Index, strings.Join(names, " "))
		vars := map[string]bool{}
		for _, v := range in.Vars {
			vars[fmt.Sprintf("    %s %s\n", v.Name, show(v.Type))] = true
		}
		for _, l := range slices.Sorted(maps.Keys(vars)) {
			w.WriteString(l)
		}
		dumpArgs(w, in)
	}
}

// dumpArgs prints the arguments of print.
func dumpArgs(w *strings.Builder, in *check.Instance) {
	syntax.Walk(in.Body, func(n syntax.Node) bool {
		c, ok := n.(*syntax.Call)
		if !ok || c.Name != "print" {
			return true
		}
		a := c.Args[0]
		fmt.Fprintf(w, "    %s: %s", syntax.FormatExpr(a), show(in.Types[a]))
		if v, ok := in.Consts[a]; ok && v.IsStr {
			fmt.Fprintf(w, " = %q", v.Str)
		} else if ok {
			fmt.Fprintf(w, " = %d", v.Int)
		}
		w.WriteByte('\n')
		return true
	})
}

func show(t *types.Type) string {
	if t == nil {
		return ""
	}
	s := t.String()
	if t.Lit {
		s += "(literal)"
	}
	if t.Space != types.SpaceNone {
		s += [...]string{"", "@kernel", "@user", "@bpf"}[t.Space]
	}
	return s
}

// TestHints checks that misspelt names are answered with what was meant, and that the fix says so too.
func TestHints(t *testing.T) {
	tests := []struct{ in, hint, fix string }{
		{`begin { prinft("x"); }`, "did you mean `printf`?", `begin { printf("x"); }`},
		{`begin { print(comn); }`, "did you mean `comm`?", `begin { print(comm); }`},
		{`begin { $value = 1; print($vlaue); }`, "did you mean `$value`?", ""},
		{`tracepoint:syscalls:sys_enter_openat { print(args.filname); }`, "did you mean `args.filename`?", `tracepoint:syscalls:sys_enter_openat { print(args.filename); }`},
		{`kprobe:vfs_read { print(((struct sk_buff *)arg0)->pkt_typ); }`, "did you mean `pkt_type`?", `kprobe:vfs_read { print(((struct sk_buff *)arg0)->pkt_type); }`},
		{`kprobe:vfs_raed { }`, "did you mean `kprobe:vfs_read`?", ""},
		{`kprob:vfs_read { }`, "did you mean `kprobe`?", ""},
		{`config = { max_strlan = 5 } begin { }`, "did you mean `max_strlen`?", ""},
		{`begin { @map = 1; print(@mop); }`, "did you mean `@map`?", ""},
		{
			`kprobe:__x64_sys_read { print(arg1); }`, "use ((struct pt_regs *)arg0)->si, or tracepoint:syscalls:sys_enter_read with args.buf, or fentry/kprobe on the function behind it (e.g. ksys_read)",
			`kprobe:__x64_sys_read { print(((struct pt_regs *)arg0)->si); }`,
		},
	}
	for _, tc := range tests {
		_, ds := run(tc.in, check.Options{})
		if len(ds) == 0 {
			t.Errorf("%s: nothing said", tc.in)
			continue
		}
		d := ds[max(0, slices.IndexFunc(ds, func(d syntax.Diag) bool { return d.Hint != "" }))]
		fixed := ""
		if f := d.Fix; f != nil {
			fixed = tc.in[:f.Span.Start.Off] + f.Text + tc.in[f.Span.End.Off:]
		}
		if d.Hint != tc.hint || fixed != tc.fix {
			t.Errorf("%s\n got %q, %q\nwant %q, %q", tc.in, d.Hint, fixed, tc.hint, tc.fix)
		}
	}
}

// TestInstances checks that targets of one layout share an instance and others do not.
func TestInstances(t *testing.T) {
	tests := []struct {
		in   string
		want int
	}{
		{`tracepoint:syscalls:sys_enter_* { @ = count(); }`, 1},
		{`tracepoint:syscalls:sys_enter_open* { print(str(args.filename)); }`, 2},
		{`kprobe:*,kretprobe:* { @[func] = count(); }`, 2},
		{`fentry:vfs_read,fentry:kfree_skb { @[comm] = count(); }`, 1},
		{`kprobe:* { if (probe == "kprobe:vfs_read") { print(1); } }`, 3},
		{`begin,end,interval:1s { print(1); }`, 3},
	}
	for _, tc := range tests {
		info, ds := run(tc.in, check.Options{})
		for _, d := range ds {
			t.Errorf("%s: %v", tc.in, d)
		}
		if got := len(info.Instances); got != tc.want {
			t.Errorf("%s: %d instances, want %d", tc.in, got, tc.want)
		}
	}
}

// TestExponential checks that macros that call each other twice end in a diagnostic.
func TestExponential(t *testing.T) {
	text := "macro m0(x) { x + x }\n"
	for i := 1; i < 40; i++ {
		text += fmt.Sprintf("macro m%d(x) { m%d(x) + m%d(x) }\n", i, i-1, i-1)
	}
	start := time.Now()
	_, ds := run(text+"begin { print(m39(pid)); }", check.Options{})
	if len(ds) == 0 || !strings.Contains(ds[0].Msg, "too large") || time.Since(start) > 5*time.Second {
		t.Errorf("%v after %v", ds, time.Since(start))
	}
}

// FuzzCheck checks that any text is parsed and checked without a panic and in bounded time.
func FuzzCheck(f *testing.F) {
	for _, name := range []string{"testdata/errors.bt", "testdata/types.bt"} {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, chunk := range strings.Split(string(b), "\n---\n") {
			f.Add(strings.Split(chunk, "###")[0])
		}
	}
	world := newWorld()
	f.Fuzz(func(t *testing.T, text string) {
		start := time.Now()
		info, ds := run(text, check.Options{World: world, Params: []string{"1", "x"}, Unsafe: true})
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("%d bytes took %v", len(text), d)
		}
		for _, d := range ds {
			if d.Severity == syntax.Error {
				return
			}
		}
		for _, in := range info.Instances {
			syntax.Walk(in.Body, func(n syntax.Node) bool {
				if v, ok := n.(*syntax.Var); ok && in.Vars[v] != nil && in.Vars[v].Type != nil && in.Types[v] == nil {
					return true // in a branch that does not exist
				}
				return true
			})
		}
	})
}
