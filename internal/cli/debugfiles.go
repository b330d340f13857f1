package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/fathom-trace/fathom/debuginfo/dwarfline"
	"github.com/fathom-trace/fathom/lab/guest/kmod"
)

// debugFiles finds debug information of a kernel and its modules: in what --debuginfo names, and where distributions put it. Files
// are opened when first asked for. What was found and does not fit is in notes.
type debugFiles struct {
	given   []string // files and folders
	release string   // uname -r of the kernel that is looked at; "" if not known
	buildID string   // of that kernel, "" if not known
	notes   []string

	objects map[string]*dwarfline.Object // by module, "" for the kernel; nil if there is none
	mapped  [][]byte
}

// Close unmaps the files.
func (d *debugFiles) Close() {
	for _, b := range d.mapped {
		syscall.Munmap(b)
	}
	d.objects, d.mapped = nil, nil
}

// source is where in a kernel's code something is asked for.
type source struct {
	symbol, module string
	off            uint64 // from the symbol's start
	size           uint64 // of the symbol up to the next, 0 if not known
	call           bool   // a return address: the call is before it
	fromText       uint64 // of the kernel's own code: the distance from _text, 0 if not known
}

// lines are the places of an instruction, in the words in which they are shown; the innermost inlined function first.
func (d *debugFiles) lines(s source) []string {
	o := d.object(s.module)
	if o == nil {
		return nil
	}
	at, ok := o.Func(s.symbol, s.size)
	if text, known := o.Func("_text", 0); s.fromText != 0 && s.module == "" && known {
		at, ok, s.off = text+s.fromText, true, 0
	}
	if !ok {
		return nil
	}
	at += s.off
	if s.call {
		at--
	}
	places, err := o.At(at)
	if err != nil {
		return nil
	}
	var out []string
	for _, p := range places {
		if p.File == "" {
			continue
		}
		line := p.String()
		if p.Inline {
			line += " (inlined)"
		}
		if text := d.excerpt(p); len(out) == 0 && text != "" {
			line += "\t" + text
		}
		out = append(out, line)
	}
	return out
}

// excerpt is a line of a source file that stands in one of the folders given.
func (d *debugFiles) excerpt(p dwarfline.Place) string {
	for _, dir := range d.given {
		b, err := os.ReadFile(filepath.Join(dir, p.File))
		if err != nil {
			continue
		}
		if all := strings.Split(string(b), "\n"); p.Line >= 1 && p.Line <= len(all) {
			return strings.TrimSpace(all[p.Line-1])
		}
	}
	return ""
}

// object opens the debug information of a module, or of the kernel.
func (d *debugFiles) object(module string) *dwarfline.Object {
	if o, ok := d.objects[module]; ok {
		return o
	}
	if d.objects == nil {
		d.objects = map[string]*dwarfline.Object{}
	}
	d.objects[module] = nil
	for _, name := range d.candidates(module) {
		o, err := d.open(name)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, dwarfline.ErrNone):
		case err != nil:
			d.notes = append(d.notes, fmt.Sprintf("%s: %v", name, err))
		case module == "" && d.buildID != "" && o.BuildID != "" && o.BuildID != d.buildID:
			d.notes = append(d.notes, fmt.Sprintf("%s is of another build of the kernel (%s, not %s)", name, o.BuildID, d.buildID))
		default:
			d.objects[module] = o
			return o
		}
	}
	return nil
}

func (d *debugFiles) open(name string) (*dwarfline.Object, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(name, ".xz") || strings.HasSuffix(name, ".zst") || strings.HasSuffix(name, ".gz") {
		b, err := os.ReadFile(name)
		if err == nil {
			b, err = kmod.Decompress(b)
		}
		if err != nil {
			return nil, err
		}
		return dwarfline.Read(b)
	}
	if st.Size() == 0 || !st.Mode().IsRegular() {
		return nil, dwarfline.ErrNone
	}
	b, err := syscall.Mmap(int(f.Fd()), 0, int(st.Size()), syscall.PROT_READ, syscall.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("map: %w", err)
	}
	o, err := dwarfline.Read(b)
	if err != nil {
		syscall.Munmap(b)
		return nil, err
	}
	d.mapped = append(d.mapped, b)
	return o, nil
}

// candidates are the files that may have what is asked for, the best first.
func (d *debugFiles) candidates(module string) (out []string) {
	for _, g := range d.given {
		st, err := os.Stat(g)
		switch {
		case err != nil:
			d.notes = append(d.notes, err.Error())
		case st.IsDir() && module == "":
			out = append(out, filepath.Join(g, "vmlinux"), filepath.Join(g, "vmlinux-"+d.release))
		case st.IsDir():
			out = append(out, modulesIn(g, module)...)
		case module == "" && strings.HasPrefix(filepath.Base(g), "vmlinux"), module != "" && moduleName(g) == module:
			out = append(out, g)
		}
	}
	if d.release == "" || strings.ContainsAny(d.release, "/ ") {
		return out
	}
	if module == "" {
		return append(out, "/usr/lib/debug/boot/vmlinux-"+d.release, "/usr/lib/debug/lib/modules/"+d.release+"/vmlinux",
			"/lib/modules/"+d.release+"/build/vmlinux", "/boot/vmlinux-"+d.release)
	}
	for _, dir := range []string{"/usr/lib/debug/lib/modules/" + d.release, "/lib/modules/" + d.release} {
		out = append(out, modulesIn(dir, module)...)
	}
	return out
}

// moduleName is the name of the module in a file: igb.ko.xz is igb, and the kernel writes _ for every -.
func moduleName(file string) string {
	name, _, ok := strings.Cut(filepath.Base(file), ".ko")
	if !ok {
		return ""
	}
	return strings.ReplaceAll(name, "-", "_")
}

// modulesIn finds a module below a folder, sorted, debug files (.ko.debug) too.
func modulesIn(dir, module string) (out []string) {
	_ = filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && moduleName(name) == module {
			out = append(out, name)
		}
		return nil // what cannot be read has nothing for us
	})
	slices.Sort(out)
	return out
}
