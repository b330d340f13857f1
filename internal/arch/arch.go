// Package arch holds the import rules of fathom: which package may import which directly, and why. Its test reads the
// imports of the whole tree, for every platform, and fails with the rule for each import that no rule allows.
//
// Most of the standard library is free for all. What touches the system or weighs much is not ([guarded]), nor are the
// module's own packages and other people's: those need a row in the table of rules.go. Imports of test files are free.
package arch

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Module is the import path all packages begin with; patterns are relative to it.
const Module = "github.com/fathom-trace/fathom"

// Edge allows packages that match From to import those that match one of To. Patterns are import paths; "x/..." is x
// and all below it, and From may be several patterns. Packages outside the module are written in full.
type Edge struct {
	From, To string // separated by spaces
	Why      string
}

// Ban forbids what an edge with a wide pattern would allow.
type Ban struct {
	From, To string
	Why      string
}

// Package is a package of the tree and what its files, tests apart, import directly.
type Package struct {
	Path    string // relative to the module, "." for its root
	Imports map[string]string
}

// Problem is an import that no rule allows.
type Problem struct {
	Package, Import string
	File            string // one that imports it
	Why             string
}

func (p Problem) String() string {
	return fmt.Sprintf("%s: %s may not import %s: %s", p.File, p.Package, p.Import, p.Why)
}

// guarded is the part of the standard library that needs a rule, with the reason.
var guarded = map[string]string{
	"os/...":           "processes and files are touched in few places (rule 4)",
	"net":              "sockets are opened in few places (rule 4); addresses are net/netip",
	"net/http/...":     "4.3 MB of binary",
	"syscall":          "system calls and their numbers belong where the system is touched (rule 4)",
	"plugin":           "needs cgo",
	"C":                "cgo is off",
	"unsafe":           "unsafe lives in one package for each shared memory, with proofs",
	"testing/...":      "only tests test",
	"text/template":    "switches off the linker's removal of dead code: 2.3 MB",
	"html/template":    "switches off the linker's removal of dead code: 2.9 MB",
	"log":              "library code does not print; log/slog is a parameter",
	"flag":             "only commands read flags",
	"go/...":           "Go source is read by tools only",
	"runtime/cgo":      "cgo is off",
	"expvar":           "imports net/http",
	"net/rpc/...":      "imports net/http",
	"database/sql/...": "fathom never grows a database",
	"net/smtp":         "opens sockets",
	"log/syslog":       "opens sockets",
	"crypto/tls":       "imports net",
	"crypto/x509/...":  "imports net",
}

// Check compares packages with the table and lists what nobody allowed, in order.
func Check(pkgs []Package, edges []Edge, bans []Ban) []Problem {
	var out []Problem
	for _, p := range pkgs {
		for _, imp := range slices.Sorted(maps.Keys(p.Imports)) {
			if why := refuse(p.Path, imp, edges, bans); why != "" {
				out = append(out, Problem{Package: p.Path, Import: imp, File: p.Imports[imp], Why: why})
			}
		}
	}
	return out
}

// refuse says why from may not import to, or "".
func refuse(from, to string, edges []Edge, bans []Ban) string {
	for _, b := range bans {
		if matchAny(b.From, from) && matchAny(b.To, to) {
			return b.Why
		}
	}
	for _, e := range edges {
		if matchAny(e.From, from) && matchAny(e.To, to) {
			return ""
		}
	}
	for _, pattern := range slices.Sorted(maps.Keys(guarded)) {
		if match(pattern, to) {
			return guarded[pattern]
		}
	}
	if standard(to) {
		return ""
	}
	return "no row of internal/arch/rules.go allows it" + reasons(from, edges)
}

// reasons lists what from was allowed so far: the nearest thing to an explanation of its place.
func reasons(from string, edges []Edge) string {
	var b strings.Builder
	for _, e := range edges {
		if matchAny(e.From, from) {
			fmt.Fprintf(&b, "\n\tit may import %s: %s", e.To, e.Why)
		}
	}
	return b.String()
}

// Unused lists rows that allow nothing that exists among packages that exist: a typo, or a leftover.
func Unused(pkgs []Package, edges []Edge) []Edge {
	return slices.DeleteFunc(slices.Clone(edges), func(e Edge) bool {
		return !slices.ContainsFunc(pkgs, func(p Package) bool { return matchAny(e.From, p.Path) }) || uses(pkgs, e)
	})
}

func uses(pkgs []Package, e Edge) bool {
	for _, p := range pkgs {
		if !matchAny(e.From, p.Path) {
			continue
		}
		for imp := range p.Imports {
			if matchAny(e.To, imp) {
				return true
			}
		}
	}
	return false
}

// standard reports whether a path, relative if ours, is of the standard library: its first element has no dot.
func standard(p string) bool {
	if first, _, _ := strings.Cut(p, "/"); strings.Contains(first, ".") || strings.HasPrefix(p, "./") {
		return false
	}
	return true
}

func matchAny(patterns, p string) bool {
	return slices.ContainsFunc(strings.Fields(patterns), func(pat string) bool { return match(pat, p) })
}

// match compares a pattern with a path. Our own packages are imported as "./x", so that they differ from the standard
// library's; patterns leave the "./" out where From is meant, which is always ours.
func match(pattern, p string) bool {
	if dir, ok := strings.CutSuffix(pattern, "/..."); ok {
		return p == dir || strings.HasPrefix(p, dir+"/")
	}
	return pattern == p
}

// Read collects the packages of a tree: every folder with Go files but testdata, hidden ones and nested modules.
// Build constraints do not count, so that one machine checks all platforms.
func Read(tree fs.FS) ([]Package, error) {
	pkgs := map[string]*Package{}
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return skip(tree, name)
		case !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		dir := path.Dir(name)
		if pkgs[dir] == nil {
			pkgs[dir] = &Package{Path: dir, Imports: map[string]string{}}
		}
		return pkgs[dir].add(tree, name)
	})
	var out []Package
	for _, dir := range slices.Sorted(maps.Keys(pkgs)) {
		out = append(out, *pkgs[dir])
	}
	return out, err
}

func skip(tree fs.FS, dir string) error {
	base := path.Base(dir)
	if dir != "." && (base == "testdata" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_")) {
		return fs.SkipDir
	}
	if _, err := fs.Stat(tree, path.Join(dir, "go.mod")); dir != "." && err == nil {
		return fs.SkipDir
	}
	return nil
}

func (p *Package) add(tree fs.FS, name string) error {
	src, err := fs.ReadFile(tree, name)
	if err != nil {
		return err
	}
	f, err := parser.ParseFile(token.NewFileSet(), name, src, parser.ImportsOnly)
	if err != nil {
		return err
	}
	for _, spec := range f.Imports {
		imp, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return fmt.Errorf("%s: import %s: %w", name, spec.Path.Value, err)
		}
		if ours, ok := strings.CutPrefix(imp, Module+"/"); ok {
			imp = "./" + ours
		}
		p.Imports[imp] = name
	}
	return nil
}
