// Package modules holds kernel modules to learn from, as C sources, and builds them: a character device that echoes, a
// network device that reflects, a TCP echo server, work that is late, trace events, and bugs. The first comment of each
// source says what it shows. They are for guests.
package modules

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

//go:embed src
var sources embed.FS

// Module is one of them.
type Module struct {
	Name string // echo; the module it makes is fathom_echo
	Doc  string // what it is, in a few words
}

// docLine is where a source says what it is: "* fathom_echo: a character device …".
var docLine = regexp.MustCompile(`(?m)^ \* fathom_[a-z]+: (.*?)\.?$`)

// List gives the modules by name.
func List() []Module {
	dirs, _ := fs.ReadDir(sources, "src")
	var out []Module
	for _, d := range dirs {
		m := Module{Name: d.Name()}
		b, _ := sources.ReadFile(path.Join("src", m.Name, "fathom_"+m.Name+".c"))
		if doc := docLine.FindSubmatch(b); doc != nil {
			m.Doc = string(doc[1])
		}
		out = append(out, m)
	}
	return out
}

// Has says if there is a module of that name.
func Has(name string) bool {
	return slices.ContainsFunc(List(), func(m Module) bool { return m.Name == name })
}

// Source gives a module's files.
func Source(name string) (fs.FS, error) {
	if !Has(name) {
		return nil, fmt.Errorf("module %s: %w", name, fs.ErrNotExist)
	}
	return fs.Sub(sources, path.Join("src", name))
}

// BuildError is a build that failed.
type BuildError struct {
	Dir    string
	Output string // of make and the compiler, the end of it
	Err    error
}

// Error has the compiler's first complaint, or else the last line.
func (e *BuildError) Error() string {
	lines := strings.Split(strings.TrimSpace(e.Output), "\n")
	for _, l := range lines {
		if strings.Contains(l, "error:") || strings.Contains(l, "not found") {
			return l
		}
	}
	return fmt.Sprintf("%s: %v", lines[len(lines)-1], e.Err)
}

// Unwrap gives make's end.
func (e *BuildError) Unwrap() error { return e.Err }

// Build writes a module's sources to the folder dir, if they are not there as they are, and builds them with headers, which
// is for "make -C". It gives the path of the module file. A second build of what has not changed takes what is there.
func Build(ctx context.Context, name, headers, dir string) (string, error) {
	src, err := Source(name)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("build module %s: %w", name, err)
	}
	err = fs.WalkDir(src, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(src, p)
		if err != nil {
			return err
		}
		if old, err := os.ReadFile(filepath.Join(dir, p)); err == nil && bytes.Equal(old, b) {
			return nil
		}
		return os.WriteFile(filepath.Join(dir, p), b, 0o644)
	})
	if err != nil {
		return "", fmt.Errorf("build module %s: %w", name, err)
	}
	kos, err := BuildDir(ctx, headers, dir)
	if err != nil {
		return "", err
	}
	return kos[0], nil
}

// BuildDir builds the modules of a folder with a Kbuild or Makefile of Kbuild's form and gives their files.
func BuildDir(ctx context.Context, headers, dir string) ([]string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	args := []string{"-s", "-C", headers, "M=" + dir}
	if _, err := exec.LookPath("pahole"); err != nil {
		args = append(args, "CONFIG_DEBUG_INFO_BTF_MODULES=") // it makes BTF of debug information; modules load without
	}
	cmd := exec.CommandContext(ctx, "make", append(args, "modules")...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "MAKEFLAGS=")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, &BuildError{Dir: dir, Output: string(out[max(0, len(out)-64<<10):]), Err: err}
	}
	kos, _ := filepath.Glob(filepath.Join(dir, "*.ko"))
	if len(kos) == 0 {
		return nil, &BuildError{Dir: dir, Output: string(out), Err: errors.New("make built no module")}
	}
	return kos, nil
}
