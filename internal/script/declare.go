package script

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/ctype/cdecl"
	"github.com/fathom-trace/fathom/ctype/cpp"
	"github.com/fathom-trace/fathom/lang/syntax"
)

// Headers say where C headers are looked for, and which are read before the program's own C.
type Headers struct {
	Dirs  []string // searched first; those of the system follow
	Files []string // as if the program began with #include of each
	Arch  string   // GOARCH, default amd64
}

// declarations are a program's own C types in front of those the kernel has, and its macros.
type declarations struct {
	*cdecl.Scope
	pp *cpp.Preprocessor
}

// MacroValue implements check.Macros.
func (d declarations) MacroValue(name string) (int64, bool) { return d.pp.Value(name) }

// MacroText implements check.Macros.
func (d declarations) MacroText(name string) (string, bool) { return d.pp.Macro(name) }

// declare reads a program's C: directives are carried out, headers read, types declared.
func (h Headers) declare(defs []*syntax.CDef, base ctype.Lookup) (ctype.Lookup, []syntax.Diag) {
	_, err := base.ByName(ctype.KindStruct, "task_struct")
	kernel := err == nil
	o := cpp.Options{Arch: h.Arch, Files: h.files(), Absent: func(name string) bool { return kernel && kernelHeader(name) }}
	if kernel {
		o.Define = map[string]string{"BPFTRACE_HAVE_BTF": "1"}
	}
	d := declarations{cdecl.NewScope(base), cpp.New(o)}
	var diags []syntax.Diag
	for _, f := range h.Files {
		ts, errs := d.pp.Run("--include", "#include <"+f+">\n")
		for _, e := range errs {
			diags = append(diags, syntax.Diag{Msg: e.Msg})
		}
		d.ParseTokens(ts, 0, func(cpp.Token) bool { return true })
	}
	text := join(defs)
	ts, errs := d.pp.Run(ownFile, text)
	for _, e := range errs {
		if e.File == ownFile { // what is wrong in a header is not the program's to mend
			diags = append(diags, syntax.Diag{Span: at(defs, e.Off), Msg: e.Msg})
		}
	}
	var se *cdecl.SyntaxError
	if err := d.ParseTokens(ts, len(text), func(t cpp.Token) bool { return t.File != ownFile }); errors.As(err, &se) {
		diags = append(diags, syntax.Diag{Span: at(defs, se.Off), Msg: se.Msg})
	}
	return d, diags
}

// ownFile is the name under which a program's C is preprocessed.
const ownFile = ""

// join puts the definitions into one text, a line between them: a directive ends with its line.
func join(defs []*syntax.CDef) string {
	var b strings.Builder
	for _, d := range defs {
		b.WriteString(d.Text)
		b.WriteByte('\n')
	}
	return b.String()
}

// at gives the place in the program of an offset in what join made.
func at(defs []*syntax.CDef, off int) syntax.Span {
	for _, d := range defs {
		if off <= len(d.Text) {
			return within(d.Span, d.Text, off)
		}
		off -= len(d.Text) + 1
	}
	return defs[len(defs)-1].Span
}

// kernelHeader reports headers that describe the kernel's own types, which its BTF has.
func kernelHeader(name string) bool {
	dir, _, ok := strings.Cut(name, "/")
	return ok && slices.Contains(kernelDirs, dir)
}

// kernelDirs are the folders of include/ in the kernel's source, and those that programs include by a path from its root.
var kernelDirs = []string{"linux", "net", "asm", "asm-generic", "uapi", "trace", "vdso", "acpi", "crypto", "drm", "kvm", "media", "rdma",
	"scsi", "sound", "video", "xen", "ras", "soc", "block", "fs", "kernel", "mm", "drivers", "generated"}

// multiarch are Debian's names of architectures, which name a folder of headers.
var multiarch = map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}

func (h Headers) files() searchPath {
	triplet := multiarch["amd64"]
	if m := multiarch[h.Arch]; m != "" {
		triplet = m
	}
	return slices.Concat(h.Dirs, []string{"/usr/local/include", "/usr/include/" + triplet, "/usr/include"})
}

// searchPath finds headers in folders, in order.
type searchPath []string

// Open implements cpp.Files.
func (s searchPath) Open(name, from string, quoted, after bool) (path, text string, err error) {
	var tries []string
	if quoted && !after {
		tries = append(tries, filepath.Join(filepath.Dir(from), name))
	}
	if filepath.IsAbs(name) {
		tries = append(tries, name)
	}
	for _, dir := range s {
		if after { // behind the folder that from is in
			after = !strings.HasPrefix(from, dir+"/")
			continue
		}
		tries = append(tries, filepath.Join(dir, name))
	}
	for _, path := range tries {
		b, err := os.ReadFile(path)
		if err == nil {
			return path, string(b), nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			return "", "", err
		}
	}
	return "", "", os.ErrNotExist
}

// within gives the place of an offset in a chunk of source.
func within(s syntax.Span, text string, off int) syntax.Span {
	off = min(max(off, 0), len(text))
	before := text[:off]
	p := s.Start
	p.Off += off
	if n := strings.Count(before, "\n"); n > 0 {
		p.Line += n
		p.Col = off - strings.LastIndexByte(before, '\n')
	} else {
		p.Col += off
	}
	e := p
	if off < len(text) {
		e.Off++
		e.Col++
	}
	return syntax.Span{Src: s.Src, Start: p, End: e}
}
