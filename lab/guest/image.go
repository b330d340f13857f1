package guest

import (
	"bufio"
	"bytes"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/lab/guest/initramfs"
	"github.com/fathom-trace/fathom/lab/guest/kmod"
	"github.com/fathom-trace/fathom/lab/guest/pid1"
)

// resultPort is the first virtio port: 20 times as fast as a serial one under emulation. A write to it returns when the
// host has the bytes, so that a panic takes nothing with it.
const resultPort = "/dev/vport0p1"

// portModules drive it. Newer kernels have them built in.
var portModules = []string{"virtio_pci", "virtio_console"}

// binDir holds the init binary, alone, so that it can be mounted where another root is seen.
const binDir = "/fathom/bin"

// SelfAlone is where commands find the init binary when they see the initramfs.
const SelfAlone = binDir + "/fathom"

// etc is the little that C libraries and Go's os/user look for.
var etc = []File{
	{Name: "/etc/passwd", Data: []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n")},
	{Name: "/etc/group", Data: []byte("root:x:0:\nnogroup:x:65534:\n")},
	{Name: "/etc/hosts", Data: []byte("127.0.0.1 localhost\n::1 localhost\n")},
}

// buildImage makes the initramfs in memory, in a file without a name.
func buildImage(o *Options) (*os.File, error) {
	if err := checkStatic(o.Init); err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("fathom-initramfs", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), "initramfs")
	buf := bufio.NewWriterSize(f, 1<<20)
	if err := errors.Join(writeImage(buf, o), buf.Flush()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func writeImage(w io.Writer, o *Options) error {
	pack, err := initramfs.Compress(w, o.Pack)
	if err != nil {
		return err
	}
	a := archive{w: initramfs.NewWriter(pack)}
	job := pid1.Job{Hostname: o.Hostname, Port: resultPort, Commands: o.Commands, Collect: o.Collect, Linger: o.Linger || o.Serve, Serve: o.Serve, Mounts: o.Mounts, Init: o.takeOver}
	if err := a.modules(o, &job); err != nil {
		return err
	}
	b, err := json.Marshal(job)
	if err != nil {
		return err
	}
	a.add(File{Name: SelfAlone, Path: o.Init})
	a.add(File{Name: "/init", Link: SelfAlone})
	a.add(File{Name: pid1.JobFile, Data: b})
	for _, f := range append(slices.Clip(etc), o.Files...) {
		a.add(f)
	}
	for _, d := range []string{"/root", "/var/tmp", "/usr/bin"} {
		a.err = errors.Join(a.err, a.w.Dir(d, 0o755))
	}
	a.err = errors.Join(a.err, a.w.Char("/dev/console", 0o600, 5, 1))
	return errors.Join(a.err, a.w.Close(), pack.Close())
}

// archive adds files until one fails.
type archive struct {
	w   *initramfs.Writer
	err error
}

func (a *archive) add(f File) {
	if a.err != nil {
		return
	}
	switch {
	case f.Path != "":
		a.err = a.host(f)
	case f.Link != "":
		a.err = a.w.Symlink(f.Name, f.Link)
	default:
		perm := f.Perm
		if perm == 0 {
			perm = 0o644
		}
		a.err = a.w.Bytes(f.Name, perm, f.Data)
	}
}

// host copies a file of this machine.
func (a *archive) host(f File) error {
	src, err := os.Open(f.Path)
	if err != nil {
		return err
	}
	defer src.Close()
	st, err := src.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("share %s: not a regular file", f.Path)
	}
	return a.w.File(f.Name, st.Mode().Perm(), st.Size(), src)
}

// modules adds the modules asked for, unpacked so that init needs no xz, and puts those to load into the job.
func (a *archive) modules(o *Options, job *pid1.Job) error {
	dir, err := o.Kernel.Modules()
	if err != nil {
		return err
	}
	params := map[string]string{}
	var names []string
	for _, m := range o.Modules {
		name, p, _ := strings.Cut(m, " ")
		params[kmod.Name(name)] = p
		names = append(names, name)
	}
	load := func(names []string) (out []pid1.Module) {
		mods, merr := dir.Resolve(names...)
		err = errors.Join(err, merr)
		for _, m := range mods {
			p := path.Join(pid1.ModuleDir, m.Name+".ko")
			a.add(File{Name: p, Data: m.ELF})
			out = append(out, pid1.Module{Name: m.Name, Path: p, Params: params[m.Name]})
		}
		return out
	}
	job.PortMods, job.Modules = load(portModules), load(names)
	if err == nil {
		err = a.extra(o, job)
	}
	carry, cerr := dir.Resolve(o.Carry...)
	for _, m := range carry {
		a.add(File{Name: path.Join("/lib/modules", o.Kernel.Release, m.Name+".ko"), Data: m.ELF})
	}
	return errors.Join(err, cerr)
}

// extra adds modules that are not the kernel's own, behind what they depend on.
func (a *archive) extra(o *Options, job *pid1.Job) error {
	for _, arg := range o.ModuleFiles {
		file, params, _ := strings.Cut(arg, " ")
		mods, unchecked, err := o.Kernel.OwnModule(file)
		if err != nil {
			return err
		}
		if unchecked != nil {
			o.notes = append(o.notes, fmt.Sprintf("module %s was not compared with the kernel's types: %v", file, unchecked))
		}
		for _, m := range mods {
			p := path.Join(pid1.ModuleDir, m.Name+".ko")
			if !slices.ContainsFunc(job.Modules, func(have pid1.Module) bool { return have.Path == p }) {
				a.add(File{Name: p, Data: m.ELF})
				job.Modules = append(job.Modules, pid1.Module{Name: m.Name, Path: p})
			}
		}
		job.Modules[len(job.Modules)-1].Params = params
	}
	return nil
}

// OwnModule reads a module file that is not of the kernel's package: what it depends on in load order, then itself. One that
// was built for another kernel is refused here, with what differs, and not by the guest's kernel with ENOEXEC, or by
// nobody: vermagic is compared, the versions of symbols, and the structs of its debug information with the kernel's types.
// unchecked says why only vermagic was: the kernel's image has no types that can be read.
func (k Kernel) OwnModule(file string) (mods []kmod.Module, unchecked, err error) {
	dir, err := k.Modules()
	if err != nil {
		return nil, nil, err
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, err
	}
	if b, err = kmod.Decompress(b); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", file, err)
	}
	info, err := kmod.Read(b)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", file, err)
	}
	if err = dir.Fits(info); err == nil {
		var types *kmod.Kernel
		if types, unchecked = k.types(); unchecked == nil {
			err = types.Fits(kmod.Name(file), b)
		}
	}
	if err != nil {
		return nil, nil, &SetupError{What: "load module " + file, Because: err.Error(), Try: []string{"build it against the headers of " + k.Release}, Err: err}
	}
	deps, err := dir.Resolve(info.Depends...)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", file, err)
	}
	return append(deps, kmod.Module{Name: kmod.Name(file), ELF: b, Info: info}), unchecked, nil
}

func (k Kernel) types() (*kmod.Kernel, error) {
	image, err := os.ReadFile(k.Image())
	if err != nil {
		return nil, err
	}
	return kmod.OpenKernel(image)
}

// checkStatic refuses an init that the guest's kernel could not start, before a boot is spent on it.
func checkStatic(name string) error {
	f, err := elf.Open(name)
	if err != nil {
		return fmt.Errorf("init %s: %w", name, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			b, _ := io.ReadAll(io.LimitReader(p.Open(), 256))
			return &SetupError{
				What:    "use " + name + " as init",
				Because: fmt.Sprintf("it is dynamic: it asks for %s", bytes.TrimRight(b, "\x00")),
				Try:     []string{"build it with CGO_ENABLED=0"},
			}
		}
	}
	return nil
}
