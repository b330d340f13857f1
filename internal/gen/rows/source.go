package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/internal/ktest"
)

// sources are the test functions of packages, and the texts in their files, which name parts of tests.
type sources struct {
	tree fs.FS
	pkgs map[string]*source
}

type source struct {
	tests map[string]bool
	texts map[string]bool // with spaces for underscores: go test writes the names of parts so
}

// check says what is wrong about a row: a test that is not there, a row that must work and has none.
func (s *sources) check(r row) []string {
	var wrong []string
	if len(r.Tests) == 0 && slices.Contains([]string{"core", "claim", "question", "need", "promise"}, r.Class) {
		wrong = append(wrong, "no test shows it")
	}
	if len(r.Tests) == 0 && r.Class != "context" && r.Lacks == "" {
		wrong = append(wrong, "nothing says why no test shows it")
	}
	for _, t := range r.Tests {
		if err := s.find(t); err != nil {
			wrong = append(wrong, err.Error())
		}
	}
	return wrong
}

// find looks for a test in the source: its function, and for a part its file of a script or its name as a text.
func (s *sources) find(t test) error {
	if t.Kernel != "" && !slices.ContainsFunc(ktest.Kernels, func(k ktest.Kernel) bool { return k.Name == t.Kernel }) {
		return fmt.Errorf("%s: no kernel %s", t, t.Kernel)
	}
	p, err := s.pkg(t.Pkg)
	if err != nil {
		return err
	}
	name, part, has := strings.Cut(t.Name, "/")
	if !p.tests[name] {
		return fmt.Errorf("%s has no %s", t.Pkg, name)
	}
	if !has || p.texts[strings.ReplaceAll(part, "_", " ")] {
		return nil
	}
	if _, err := fs.Stat(s.tree, path.Join(t.Pkg, "testdata", part+".txtar")); err != nil {
		return fmt.Errorf("%s %s has no part %s", t.Pkg, name, part)
	}
	return nil
}

func (s *sources) pkg(dir string) (*source, error) {
	if p := s.pkgs[dir]; p != nil {
		return p, nil
	}
	names, err := fs.Glob(s.tree, dir+"/*.go")
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("no package %s", dir)
	}
	p := &source{map[string]bool{}, map[string]bool{}}
	for _, name := range names {
		text, err := fs.ReadFile(s.tree, name)
		if err != nil {
			return nil, err
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, text, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		if strings.HasSuffix(name, "_test.go") {
			for _, d := range f.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && strings.HasPrefix(fn.Name.Name, "Test") {
					p.tests[fn.Name.Name] = true
				}
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
				if text, err := strconv.Unquote(l.Value); err == nil {
					p.texts[strings.ReplaceAll(text, "_", " ")] = true
				}
			}
			return true
		})
	}
	if s.pkgs == nil {
		s.pkgs = map[string]*source{}
	}
	s.pkgs[dir] = p
	return p, nil
}
