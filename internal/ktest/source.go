package ktest

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// goCommand is the go tool without cgo: what it builds runs in guests.
func goCommand(args ...string) *exec.Cmd {
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	return cmd
}

// kernelTests returns a pattern for the tests of the package in dir that call [Need] or [NeedGuest], by themselves or
// through functions of the same package's test files. Tests that need no kernel have no business in a guest.
func kernelTests(dir string) (string, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		return "", err
	}
	calls := map[string][]string{} // function → what it calls
	for _, name := range names {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			return "", err
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Body != nil {
				calls[fn.Name.Name] = append(calls[fn.Name.Name], called(fn.Body)...)
			}
		}
	}
	var tests []string
	for _, name := range slices.Sorted(maps.Keys(calls)) {
		if strings.HasPrefix(name, "Test") && name != "TestMain" && needs(calls, name, map[string]bool{}) {
			tests = append(tests, name)
		}
	}
	if len(tests) == 0 {
		return "", errors.New("no test calls it; set Config.Run if they do so elsewhere")
	}
	return "^(" + strings.Join(tests, "|") + ")$", nil
}

// called lists the functions a body calls or mentions.
func called(body ast.Node) (out []string) {
	ast.Inspect(body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && x.Name == "ktest" {
				out = append(out, "ktest."+n.Sel.Name)
			}
			out = append(out, n.Sel.Name)
		case *ast.Ident:
			out = append(out, n.Name)
		}
		return true
	})
	return out
}

func needs(calls map[string][]string, name string, seen map[string]bool) bool {
	if seen[name] {
		return false
	}
	seen[name] = true
	for _, c := range calls[name] {
		if c == "ktest.Need" || c == "ktest.NeedGuest" || calls[c] != nil && needs(calls, c, seen) {
			return true
		}
	}
	return false
}
