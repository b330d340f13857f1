package probe

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/ctype/abi"
	"github.com/fathom-trace/fathom/ctype/dwarftypes"
	"github.com/fathom-trace/fathom/internal/feature"
	"github.com/fathom-trace/fathom/lang/check"
	"github.com/fathom-trace/fathom/lang/types"
	"github.com/fathom-trace/fathom/usersym"
)

// UserTypes implements check.World: debug information is read when the first name is looked up.
func (w *World) UserTypes(path string) ctype.Lookup { return &userTypes{w: w, path: path} }

type userTypes struct {
	w    *World
	path string
}

func (u *userTypes) get() (*dwarftypes.Lookup, error) { return u.w.users.Types(u.path) }

// ByName implements ctype.Lookup.
func (u *userTypes) ByName(kind ctype.Kind, name string) (ctype.Type, error) {
	l, err := u.get()
	if err != nil {
		return nil, fmt.Errorf("%s: %w (%v)", name, ctype.ErrNotFound, err)
	}
	return l.ByName(kind, name)
}

// EnumValue implements ctype.Lookup.
func (u *userTypes) EnumValue(name string) (*ctype.Enum, int64, bool) {
	l, err := u.get()
	if err != nil {
		return nil, 0, false
	}
	return l.EnumValue(name)
}

// Func implements ctype.Lookup.
func (u *userTypes) Func(module, name string) (*ctype.Func, error) {
	l, err := u.get()
	if err != nil {
		return nil, fmt.Errorf("%s: %w (%v)", name, ctype.ErrNotFound, err)
	}
	return l.Func(module, name)
}

// userFunc gives the prototype of a probed function.
func (w *World) userFunc(t check.Target) (*ctype.Func, error) {
	l, err := w.users.Types(t.Module)
	if err != nil {
		return nil, err
	}
	addr, ok := w.users.Addr(t.Module, t.Offset)
	if !ok {
		return nil, fmt.Errorf("%s is in no segment of %s", t.Name, t.Module)
	}
	return l.FuncAt(addr, t.Func)
}

// uprobeArgs gives the parameters of a function at its entry, where the calling convention has them. Those in vector
// registers, which programs cannot read, are left out, and floating-point numbers, with which they cannot reckon.
func (w *World) uprobeArgs(t check.Target) (args, result *types.Type, err error) {
	f, err := w.userFunc(t)
	if err != nil {
		return nil, nil, err
	}
	args = &types.Type{Kind: types.Args}
	for i, at := range abi.For(runtime.GOARCH).Place(f) {
		p := f.Params[i]
		if _, number := ctype.Strip(p.Type).(*ctype.Float); number || at.Index < 0 || p.Name == "" {
			continue
		}
		ft := types.FromC(p.Type, types.User)
		if at.ByRef {
			ft = types.PtrTo(ft, types.User)
		}
		args.Fields = append(args.Fields, types.Field{Name: p.Name, Type: ft, Index: at.Index})
		args.Size = max(args.Size, 8*(at.Index+at.Words))
	}
	return args, types.FromC(f.Result, types.User), nil
}

// uprobes finds functions of user programs.
func (w *World) uprobes(p check.AttachPoint) ([]check.Target, error) {
	if strings.Contains(p.Module, "@") && p.HasAddr {
		return w.line(p)
	}
	if strings.Contains(p.Module, "!/") && !wild(p.Func) {
		return w.inArchive(p)
	}
	name := p.Provider.Name
	var out []check.Target
	for _, path := range w.binaries(p.Module) {
		shown := path // a path is named as it was given
		if strings.Contains(p.Module, "/") && !wild(p.Module) {
			shown = p.Module
		}
		if p.HasAddr {
			t, err := w.atAddress(p, path, shown)
			out = append(out, w.refuse(t, err))
			continue
		}
		if !wild(p.Func) && p.Lang == "" {
			if t, ok, err := w.inFunction(p, path, shown); ok {
				out = append(out, w.refuse(t, err))
			}
			continue
		}
		syms, err := w.users.Functions(path)
		if err != nil && wild(p.Module) { // not all files are programs
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		for _, s := range syms {
			n := s.Name
			if p.Lang == "cpp" {
				n = usersym.Demangle(n)
				if !wild(p.Func) && !strings.Contains(p.Func, "(") {
					n, _, _ = strings.Cut(n, "(")
				}
			}
			if check.Match(p.Func, n) {
				out = append(out, check.Target{Provider: name, Module: path, Func: s.Name, Offset: s.Offset, Name: name + ":" + shown + ":" + s.Name})
			}
		}
	}
	sortTargets(out)
	return out, nil
}

// binaries finds the files a uprobe means: paths, wildcards, programs in PATH, libraries.
func (w *World) binaries(target string) []string {
	if wild(target) && !strings.Contains(target, "/") { // programs that run
		files := w.users.Running
		if w.pid != 0 {
			files = func() []string {
				fs, _ := w.users.Files(w.pid)
				return fs
			}
		}
		return slices.DeleteFunc(files(), func(f string) bool { return !check.Match(target, filepath.Base(f)) && target != "*" })
	}
	if wild(target) {
		ms, _ := filepath.Glob(target)
		if strings.HasPrefix(target, "./") { // which Glob leaves out
			for i := range ms {
				ms[i] = "./" + ms[i]
			}
		}
		return ms
	}
	if p, ok := w.users.FindBinary(target, w.pid); ok {
		return []string{p}
	}
	return nil
}

// line finds a probe given by its place in the source: binary@file:line.
func (w *World) line(p check.AttachPoint) ([]check.Target, error) {
	binary, file, _ := strings.Cut(p.Module, "@")
	path, ok := w.users.FindBinary(binary, w.pid)
	if !ok {
		return nil, nil
	}
	l, err := w.users.Types(path)
	if err != nil {
		return nil, err
	}
	addrs, err := l.Lines(file, int(p.Address))
	if err != nil {
		return nil, err
	}
	if len(addrs) == 0 {
		return nil, peerError(fmt.Sprintf("No code for line %d of %s in %s", p.Address, file, binary))
	}
	var out []check.Target
	for _, a := range w.firstOfFunctions(path, addrs) {
		off, ok := w.users.FileOffset(path, a)
		if !ok {
			return nil, errors.New("the line's code is in no segment of " + binary)
		}
		out = append(out, check.Target{
			Provider: p.Provider.Name, Module: path, Offset: off, Again: len(out) > 0,
			Name: fmt.Sprintf("%s:%s:%d", p.Provider.Name, p.Module, p.Address),
		})
	}
	return out, nil
}

// firstOfFunctions keeps the lowest address in each function: a line that is inlined is in several.
func (w *World) firstOfFunctions(path string, addrs []uint64) []uint64 {
	slices.Sort(addrs)
	seen := map[string]bool{}
	var out []uint64
	for _, a := range addrs {
		f, _ := w.users.AtFile(path, a)
		if name := f.Symbol; !seen[name] {
			seen[name] = true
			out = append(out, a)
		}
	}
	return out
}

// uprobePMU is where the kernel tells how perf names probes of user programs (since 4.17): the type of the event, and the
// bit of its config that asks for the return.
const uprobePMU = "/sys/bus/event_source/devices/uprobe"

// refCtrShift is where config has the offset of a semaphore (PERF_UPROBE_REF_CTR_OFFSET_SHIFT, kernel/events/core.c).
const refCtrShift = 32

// attachUprobe puts p at a place of a file, in the process of -p or in all. What the file holds is not looked at.
func (s *Session) attachUprobe(ret bool, p *ebpf.Program, t check.Target, cookie uint64) error {
	typ, err := readNumber(uprobePMU + "/type")
	if err != nil {
		return feature.Unsupported("uprobe", "read "+uprobePMU+"/type", err)
	}
	path, err := unix.BytePtrFromString(t.Module)
	if err != nil {
		return fmt.Errorf("path %q: %w", t.Module, err)
	}
	attr := unix.PerfEventAttr{Type: uint32(typ), Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{})), Bits: unix.PerfBitDisabled}
	attr.Ext1, attr.Ext2 = uint64(uintptr(unsafe.Pointer(path))), t.Offset
	attr.Config = t.Sema << refCtrShift
	if ret {
		bit, err := retprobeBit()
		if err != nil {
			return err
		}
		attr.Config |= 1 << bit
	}
	pid, cpu := -1, 0 // a probe of the file: one CPU's event is enough
	if s.opts.PID != 0 {
		pid, cpu = s.opts.PID, -1
	}
	fd, err := unix.PerfEventOpen(&attr, pid, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
	runtime.KeepAlive(path) // attr has its address as a number
	if err != nil {
		return fmt.Errorf("perf_event_open of %s at %#x: %w", t.Module, t.Offset, err)
	}
	s.keep(perfFile(fd))
	if err := s.linkPerf(fd, p, cookie); err != nil {
		return err
	}
	return unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_ENABLE, 0)
}

// retprobeBit reads "config:0".
func retprobeBit() (int, error) {
	name := uprobePMU + "/format/retprobe"
	b, err := os.ReadFile(name)
	if err != nil {
		return 0, feature.Unsupported("uretprobe", "read "+name, err)
	}
	bit, ok := strings.CutPrefix(strings.TrimSpace(string(b)), "config:")
	n, err := strconv.Atoi(bit)
	if !ok || err != nil || n < 0 || n > 31 {
		return 0, fmt.Errorf("%s: %q", name, b)
	}
	return n, nil
}

func readNumber(name string) (int, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// inArchive finds a function of a program that is stored in a ZIP archive: archive.zip!/member.
func (w *World) inArchive(p check.AttachPoint) ([]check.Target, error) {
	archive, member, _ := strings.Cut(p.Module, "!/")
	path, ok := w.users.FindBinary(archive, w.pid)
	if !ok {
		return nil, nil
	}
	off, ok, err := w.users.InArchive(path, member, p.Func, p.Address)
	if err != nil || !ok {
		return nil, err
	}
	return []check.Target{{Provider: p.Provider.Name, Module: path, Func: p.Func, Offset: off + p.Offset, Name: p.Provider.Name + ":" + p.Module + ":" + p.Func}}, nil
}
