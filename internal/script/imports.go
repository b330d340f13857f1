package script

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fathom-trace/fathom/lang/syntax"
)

// imports merges what a program imports into it: scripts, C headers, and folders of them.
type imports struct {
	into  *syntax.File
	seen  map[string]bool // absolute paths: each is imported once
	diags []syntax.Diag
}

// importAll follows the import statements of f, and those of what it imports.
func importAll(f *syntax.File) []syntax.Diag {
	m := &imports{into: f, seen: map[string]bool{}}
	if p, err := filepath.Abs(f.Src.Name); err == nil {
		m.seen[p] = true // not itself
	}
	m.follow(f.Imports, f.Src.Name)
	return m.diags
}

func (m *imports) errorf(at *syntax.Import, format string, args ...any) {
	m.diags = append(m.diags, syntax.Diag{Span: at.Span, Msg: fmt.Sprintf("import %q: ", at.Path) + fmt.Sprintf(format, args...)})
}

// follow imports what a file named from asks for: paths are relative to its folder.
func (m *imports) follow(ims []*syntax.Import, from string) {
	for _, im := range ims {
		if im.Path == "stdlib" || strings.HasPrefix(im.Path, "stdlib/") {
			continue // the standard library is part of the language here
		}
		path := im.Path
		if !filepath.IsAbs(path) {
			path = filepath.Join(filepath.Dir(from), path)
		}
		st, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			m.errorf(im, "not found, looked for %s", path)
		case err != nil:
			m.errorf(im, "%v", err)
		case st.IsDir():
			m.folder(im, path)
		default:
			m.file(im, path)
		}
	}
}

// folder imports the files of a folder that can be, in the order of their names; others are no error.
func (m *imports) folder(im *syntax.Import, dir string) {
	ents, err := os.ReadDir(dir)
	if err != nil {
		m.errorf(im, "%v", err)
		return
	}
	n := 0
	for _, e := range ents {
		if ext := filepath.Ext(e.Name()); !e.IsDir() && (ext == ".bt" || ext == ".h") {
			m.file(im, filepath.Join(dir, e.Name()))
			n++
		}
	}
	if n == 0 {
		m.errorf(im, "%s has no .bt and no .h files", dir)
	}
}

func (m *imports) file(im *syntax.Import, path string) {
	abs, err := filepath.Abs(path)
	if err != nil {
		m.errorf(im, "%v", err)
		return
	}
	if m.seen[abs] {
		return
	}
	m.seen[abs] = true
	// Anybody could put a program there that is then run by root.
	for _, p := range []string{abs, filepath.Dir(abs)} {
		if st, err := os.Stat(p); err == nil && st.Mode().Perm()&0o002 != 0 {
			m.errorf(im, "%s can be written by everybody; import what only you can change", p)
			return
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		m.errorf(im, "%v", err)
		return
	}
	src := &syntax.Source{Name: path, Text: string(b)}
	switch {
	case strings.HasSuffix(path, ".bt"):
		m.script(im, src)
	case strings.HasSuffix(path, ".h"):
		end := syntax.Pos{Line: 1 + strings.Count(src.Text, "\n"), Col: 1, Off: len(src.Text)}
		span := syntax.Span{Src: src, Start: syntax.Pos{Line: 1, Col: 1}, End: end}
		m.into.CDefs = append(m.into.CDefs, &syntax.CDef{Span: span, Text: src.Text})
	case strings.HasSuffix(path, ".c"):
		m.errorf(im, "C code is not compiled here, as fathom has no C compiler; a macro of the language can stand for a function")
	default:
		m.errorf(im, "neither a script (.bt) nor a C header (.h)")
	}
}

// script merges another program: its clauses run after those before it.
func (m *imports) script(im *syntax.Import, src *syntax.Source) {
	f, diags := syntax.Parse(src)
	m.diags = append(m.diags, diags...)
	if failed(diags) {
		return
	}
	if f.Config != nil {
		m.diags = append(m.diags, syntax.Diag{Span: f.Config.Span, Msg: "only the program itself may have a config block, not what it imports"})
	}
	m.follow(f.Imports, src.Name)
	m.into.CDefs = append(m.into.CDefs, f.CDefs...)
	m.into.Maps = append(m.into.Maps, f.Maps...)
	m.into.Macros = append(m.into.Macros, f.Macros...)
	m.into.Probes = slices.Concat(f.Probes, m.into.Probes)
}
