package guest

import (
	"debug/elf"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// libDirs is where a Debian machine keeps shared libraries.
var libDirs = []string{"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib", "/usr/local/lib"}

// Program lists a program of this machine with its loader and all shared libraries it links to, as files for a guest under
// the same names: an oracle such as bpftrace runs there as it does here. What it opens by itself is not known.
func Program(name string) ([]File, error) {
	p := program{seen: map[string]bool{}}
	if err := p.add(name); err != nil {
		return nil, fmt.Errorf("share program %s: %w", name, err)
	}
	return p.files, nil
}

type program struct {
	files []File
	seen  map[string]bool
}

// add adds an ELF file and what it needs. Symbolic links are followed: the guest gets the contents under the first name.
func (p *program) add(name string) error {
	if p.seen[name] {
		return nil
	}
	p.seen[name] = true
	path, err := filepath.EvalSymlinks(name)
	if err != nil {
		return err
	}
	p.files = append(p.files, File{Name: name, Path: path})
	f, err := elf.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, seg := range f.Progs {
		if seg.Type == elf.PT_INTERP {
			b, err := io.ReadAll(io.LimitReader(seg.Open(), 4096))
			if err != nil {
				return err
			}
			if err := p.add(strings.TrimRight(string(b), "\x00")); err != nil {
				return err
			}
		}
	}
	libs, err := f.ImportedLibraries()
	if err != nil {
		return err
	}
	dirs := libDirs
	for _, tag := range []elf.DynTag{elf.DT_RUNPATH, elf.DT_RPATH} {
		paths, _ := f.DynString(tag)
		for _, list := range paths {
			for d := range strings.SplitSeq(list, ":") {
				dirs = append([]string{strings.ReplaceAll(d, "$ORIGIN", filepath.Dir(path))}, dirs...)
			}
		}
	}
	for _, lib := range libs {
		if err := p.library(lib, dirs); err != nil {
			return err
		}
	}
	return nil
}

func (p *program) library(lib string, dirs []string) error {
	for _, d := range dirs {
		if name := filepath.Join(d, lib); exists(name) {
			return p.add(name)
		}
	}
	return fmt.Errorf("library %s is in none of %s", lib, strings.Join(dirs, ", "))
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}
