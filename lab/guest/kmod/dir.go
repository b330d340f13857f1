package kmod

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// Dir is a kernel's module folder, lib/modules/RELEASE.
type Dir struct {
	fsys    fs.FS
	paths   map[string]string // module name → path in fsys
	builtin map[string]bool
}

// Module is one module, ready to be loaded.
type Module struct {
	Name string
	ELF  []byte // unpacked
	Info Info
}

// NotFoundError is a module that is neither in the folder nor built in.
type NotFoundError struct {
	Name   string
	Needed string // the module that depends on it; empty if it was asked for
}

// Error names the module, and who needs it.
func (e *NotFoundError) Error() string {
	if e.Needed != "" {
		return fmt.Sprintf("module %s: not found, needed by %s", e.Name, e.Needed)
	}
	return fmt.Sprintf("module %s: not found, and not built in", e.Name)
}

// Open lists a module folder. A folder without modules.builtin counts as having none built in.
func Open(fsys fs.FS) (*Dir, error) {
	d := &Dir{fsys: fsys, paths: map[string]string{}, builtin: map[string]bool{}}
	err := fs.WalkDir(fsys, ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if slices.ContainsFunc(suffixes, func(s string) bool { return strings.HasSuffix(path, s) }) {
			d.paths[Name(path)] = path
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list modules: %w", err)
	}
	b, err := fs.ReadFile(fsys, "modules.builtin")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list modules: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		d.builtin[Name(strings.TrimSpace(line))] = true
	}
	return d, nil
}

// Builtin reports that a module is part of the kernel image.
func (d *Dir) Builtin(name string) bool { return d.builtin[Name(name)] }

// Has reports that a module is built in or in the folder.
func (d *Dir) Has(name string) bool { return d.Builtin(name) || d.paths[Name(name)] != "" }

// Load reads and unpacks one module.
func (d *Dir) Load(name string) (Module, error) {
	name = Name(name)
	path, ok := d.paths[name]
	if !ok {
		return Module{}, &NotFoundError{Name: name}
	}
	b, err := fs.ReadFile(d.fsys, path)
	if err != nil {
		return Module{}, fmt.Errorf("module %s: %w", name, err)
	}
	if b, err = Decompress(b); err != nil {
		return Module{}, fmt.Errorf("module %s: %w", name, err)
	}
	info, err := Read(b)
	if err != nil {
		return Module{}, fmt.Errorf("module %s: %w", name, err)
	}
	return Module{Name: name, ELF: b, Info: info}, nil
}

// Resolve returns the named modules and all they depend on, each once, in an order in which they load: every module after
// those it depends on. Modules that are built in are left out.
func (d *Dir) Resolve(names ...string) ([]Module, error) {
	r := resolver{dir: d, state: map[string]int{}}
	for _, n := range names {
		if err := r.visit(Name(n), "", false); err != nil {
			return nil, err
		}
	}
	return r.order, nil
}

const (
	visiting = 1 + iota
	visited
)

type resolver struct {
	dir   *Dir
	state map[string]int
	order []Module
}

// visit appends a module after its dependencies. What is soft may be missing, or be part of a loop.
func (r *resolver) visit(name, by string, soft bool) error {
	switch {
	case r.dir.builtin[name] || r.state[name] == visited:
		return nil
	case r.state[name] == visiting && soft:
		return nil
	case r.state[name] == visiting:
		return fmt.Errorf("module %s: depends on itself through %s", name, by)
	case r.dir.paths[name] == "" && soft:
		return nil
	case r.dir.paths[name] == "":
		return &NotFoundError{Name: name, Needed: by}
	}
	r.state[name] = visiting
	m, err := r.dir.Load(name)
	if err != nil {
		return err
	}
	for _, s := range m.Info.SoftPre {
		// A name of the crypto API, such as crc32c or crypto-crc32c, is an alias: module crc32c_generic is what always
		// provides it.
		if generic := strings.TrimPrefix(s, "crypto_") + "_generic"; !r.dir.Has(s) && r.dir.paths[generic] != "" {
			s = generic
		}
		if err := r.visit(s, name, true); err != nil {
			return err
		}
	}
	for _, dep := range m.Info.Depends {
		if err := r.visit(dep, name, false); err != nil {
			return err
		}
	}
	r.state[name] = visited
	r.order = append(r.order, m)
	return nil
}
