package usersym

import (
	"debug/dwarf"
	"fmt"
	"os"
	"path/filepath"

	"github.com/fathom-trace/fathom/ctype/dwarftypes"
	"github.com/fathom-trace/fathom/debuginfo/elf"
)

// Types gives the C types, prototypes and lines of a file, from its own debug information or from the file that goes with
// it: by build id, debug link, or below Options.DebugInfo. The error says where was looked. It is kept for the next call.
func (r *Resolver) Types(path string) (*dwarftypes.Lookup, error) {
	if p, ok := r.FindBinary(path, 0); ok {
		path = p
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if t, ok := r.types[path]; ok {
		return t.lookup, t.err
	}
	l, err := r.readTypes(path)
	if r.types == nil {
		r.types = map[string]fileTypes{}
	}
	r.types[path] = fileTypes{l, err}
	return l, err
}

type fileTypes struct {
	lookup *dwarftypes.Lookup
	err    error
}

func (r *Resolver) readTypes(path string) (*dwarftypes.Lookup, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read debug information: %w", err)
	}
	defer file.Close()
	f, err := elf.Read(file)
	if err != nil {
		return nil, fmt.Errorf("read debug information of %s: %w", path, err)
	}
	if f.HasDWARF() {
		return types(f, path)
	}
	id := f.BuildID()
	_, crc, _ := f.DebugLink()
	for _, p := range r.debugPaths(f, path, id) {
		if l := r.debugTypes(p, id, crc); l != nil {
			return l, nil
		}
	}
	return nil, fmt.Errorf("%s has no debug information, and there is no separate file with it", path)
}

func (r *Resolver) debugTypes(path, id string, crc uint32) *dwarftypes.Lookup {
	file, f := openDebug(path, id, crc)
	if file == nil {
		return nil
	}
	defer file.Close()
	l, err := types(f, path)
	if err != nil {
		return nil
	}
	return l
}

// types reads a file's debug information, and that of its units which are kept in .dwo files or a .dwp package.
func types(f *elf.File, path string) (*dwarftypes.Lookup, error) {
	d, err := f.DWARF()
	if err != nil {
		return nil, fmt.Errorf("read debug information of %s: %w", path, err)
	}
	all := []*dwarf.Data{d}
	names := dwoNames(d)
	if len(names) == 0 {
		return dwarftypes.New(all...), nil
	}
	// A package has all units; without one each has a file.
	if units := readSplit(path+".dwp", f); units != nil {
		return dwarftypes.New(append(all, units...)...), nil
	}
	for _, name := range names {
		for _, p := range []string{name, filepath.Join(filepath.Dir(path), filepath.Base(name))} {
			if units := readSplit(p, f); units != nil {
				all = append(all, units...)
				break
			}
		}
	}
	return dwarftypes.New(all...), nil
}

// readSplit reads the units in a .dwo or .dwp file that main refers to, nil if it cannot.
func readSplit(path string, main *elf.File) []*dwarf.Data {
	file, _, err := openRegular(path)
	if err != nil {
		return nil
	}
	defer file.Close()
	f, err := elf.Read(file)
	if err != nil {
		return nil
	}
	units, err := f.SplitDWARF(main)
	if err != nil {
		return nil
	}
	return units
}

// attrGNUDwoName is DW_AT_GNU_dwo_name, from before DWARF 5.
const attrGNUDwoName dwarf.Attr = 0x2130

// dwoNames lists the files that a program's units refer to.
func dwoNames(d *dwarf.Data) (names []string) {
	defer func() { _ = recover() }() // debug/dwarf does not promise to stand hostile input
	r := d.Reader()
	for {
		e, err := r.Next()
		if err != nil || e == nil {
			return names
		}
		name, ok := e.Val(dwarf.AttrDwoName).(string)
		if !ok {
			name, ok = e.Val(attrGNUDwoName).(string)
		}
		if ok && name != "" {
			if dir, _ := e.Val(dwarf.AttrCompDir).(string); !filepath.IsAbs(name) {
				name = filepath.Join(dir, name)
			}
			names = append(names, name)
		}
		r.SkipChildren()
	}
}

// Inlined gives the source of a frame: the functions inlined at its address, the innermost first, then its own. It is empty
// where the file has no debug information.
func (r *Resolver) Inlined(f Frame) []dwarftypes.Frame {
	if f.Addr == 0 || f.File == "" || f.File[0] != '/' {
		return nil
	}
	at := place{f.File, f.Addr}
	r.mu.Lock()
	known, ok := r.inlined[at]
	r.mu.Unlock()
	if ok {
		return known
	}
	var out []dwarftypes.Frame
	if l, err := r.Types(f.File); err == nil {
		out, _ = l.Frames(f.Addr)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.inlined) >= maxNames || r.inlined == nil {
		r.inlined = map[place][]dwarftypes.Frame{}
	}
	r.inlined[at] = out
	return out
}

// place is an address of a file, as linked.
type place struct {
	file string
	addr uint64
}
