package script

import (
	"testing"
	"time"

	"github.com/fathom-trace/fathom/ir/build"
	"github.com/fathom-trace/fathom/lang/check"
	"github.com/fathom-trace/fathom/lang/syntax"
)

// FuzzCompile takes any text through the whole compiler: it ends in an object or in diagnostics.
func FuzzCompile(f *testing.F) {
	for _, s := range []string{
		`begin { printf("%d %s\n", 1, comm); @x[pid, "a"] = count(); exit(); }`,
		`begin { $a = (1, "b"); for ($i : 0..5) { if ($i == 3) { break; } @h = hist($i, 2); } while ($a.0 < 3) { $a = (5, "c"); } }`,
		`interval:ms:10 /@n > 3/ { @n++; print(@n); clear(@n); @s = str(@n); delete(@n); }`,
		`struct A { int x:3; char s[4]; } begin { $p = (struct A *)0; @ = $p->s; @y = $p->x; print(*$p); }`,
		`macro m(x) { x + 1 } begin { print(m(2)); @k[kstack, ustack(3)] = sum(5); @m = lhist(3, 0, 10, 2); }`,
		`profile:hz:99 { @[probe, cpu] = stats(nsecs); if (strcontains(comm, "x")) { time("%H"); } join($1); }`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		slow := time.AfterFunc(20*time.Second, func() { panic("slow: " + text) })
		defer slow.Stop()
		Compile(&syntax.Source{Name: "fuzz", Text: text}, check.Options{Unsafe: true, Params: []string{"1", "two"}}, build.Options{NumCPU: 2})
	})
}
