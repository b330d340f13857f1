// Package live is the running kernel as a source of symbols and types. Everything is read when it is first asked for,
// and kept: a program that needs no symbols pays nothing for them. Nothing here needs root, but an unprivileged reader
// may be shown addresses of zero (kptr_restrict).
package live

import (
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/ctype/btftypes"
	"github.com/fathom-trace/fathom/debuginfo/kallsyms"
	"github.com/fathom-trace/fathom/internal/feature"
)

// Options steer Open.
type Options struct {
	Proc string // default /proc
	Sys  string // default /sys
}

// Live is the running kernel. Many goroutines may use it, but only one what Types returns.
type Live struct {
	o       Options
	kallsym func() (*kallsyms.Table, error)
	btf     func() (*btftypes.BTF, error)
	types   func() (*btftypes.Lookup, error)
	tps     func() ([]string, error)
}

// Open returns the running kernel without reading anything yet.
func Open(o Options) (*Live, error) {
	if o.Proc == "" {
		o.Proc = "/proc"
	}
	if o.Sys == "" {
		o.Sys = "/sys"
	}
	l := &Live{o: o}
	l.kallsym = sync.OnceValues(l.readKallsyms)
	l.btf = sync.OnceValues(l.readBTF)
	l.types = sync.OnceValues(l.makeTypes)
	l.tps = sync.OnceValues(l.findTracepoints)
	return l, nil
}

// Close releases what was read.
func (l *Live) Close() error { return nil }

// Kallsyms gives the kernel's symbols, from /proc/kallsyms: about 40 ms when first called. An unprivileged reader may be
// given names only, see [kallsyms.Table.Hidden].
func (l *Live) Kallsyms() (*kallsyms.Table, error) { return l.kallsym() }

func (l *Live) readKallsyms() (*kallsyms.Table, error) {
	name := l.o.Proc + "/kallsyms"
	f, err := os.Open(name)
	if err != nil {
		return nil, feature.Unsupported("kallsyms", "open "+name, err)
	}
	defer f.Close()
	return kallsyms.Read(f)
}

// BTF gives the kernel's own types.
func (l *Live) BTF() (*btftypes.BTF, error) { return l.btf() }

func (l *Live) readBTF() (*btftypes.BTF, error) {
	name := l.o.Sys + "/kernel/btf/vmlinux"
	raw, err := contents(name)
	if err != nil {
		return nil, fmt.Errorf("%w; the kernel needs CONFIG_DEBUG_INFO_BTF", feature.Unsupported("BTF", "read "+name, err))
	}
	b, err := btftypes.Parse(raw, nil)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return b, nil
}

// contents gives what a file of sysfs holds, mapped where the kernel can (the file vmlinux since Linux 6.16): these pages
// are the kernel's own, and cost nothing. They stay mapped as long as the process lives, for types refer to them.
func contents(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	var fs unix.Statfs_t
	if unix.Fstatfs(int(f.Fd()), &fs) == nil && fs.Type == unix.SYSFS_MAGIC { // another file might change
		if b, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_PRIVATE); err == nil {
			return b, nil
		}
	}
	b := make([]byte, st.Size())
	_, err = io.ReadFull(f, b)
	return b, err
}

// ModuleBTF gives the types of a loaded module, which go on from the kernel's.
func (l *Live) ModuleBTF(module string) (*btftypes.BTF, error) {
	base, err := l.BTF()
	if err != nil {
		return nil, err
	}
	name := l.o.Sys + "/kernel/btf/" + module
	raw, err := contents(name)
	if err != nil {
		return nil, feature.Unsupported("BTF of module "+module, "read "+name, err)
	}
	b, err := btftypes.Parse(raw, base)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return b, nil
}

// Types gives the kernel's types in the C model; modules' are loaded when a function of theirs is asked for.
func (l *Live) Types() (*btftypes.Lookup, error) { return l.types() }

func (l *Live) makeTypes() (*btftypes.Lookup, error) {
	b, err := l.BTF()
	if err != nil {
		return nil, err
	}
	return btftypes.New(b, l.ModuleBTF), nil
}

// Modules names the loaded modules, sorted, from /proc/modules and, for those built with BTF, /sys/kernel/btf; none if
// neither can be read.
func (l *Live) Modules() []string {
	var out []string
	b, _ := os.ReadFile(l.o.Proc + "/modules")
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 0 {
			out = append(out, f[0])
		}
	}
	ents, _ := os.ReadDir(l.o.Sys + "/kernel/btf")
	for _, e := range ents {
		if e.Name() != "vmlinux" {
			out = append(out, e.Name())
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Release is the kernel's release, as uname -r gives it.
func (l *Live) Release() (string, error) {
	b, err := os.ReadFile(l.o.Proc + "/sys/kernel/osrelease")
	if err != nil {
		return "", fmt.Errorf("read kernel release: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// NumCPU is the number of possible CPUs: per-CPU maps have a value for each, present or not.
func (l *Live) NumCPU() (int, error) {
	name := l.o.Sys + "/devices/system/cpu/possible"
	b, err := os.ReadFile(name)
	if err != nil {
		return 0, fmt.Errorf("count CPUs: %w", err)
	}
	n, ok := lastCPU(strings.TrimSpace(string(b)))
	if !ok {
		return 0, fmt.Errorf("count CPUs: %s holds %q", name, b)
	}
	return n + 1, nil
}

// lastCPU reads the last number of a list like "0-3" or "0-3,8-11". Values of per-CPU maps stand at CPU numbers up to it.
func lastCPU(list string) (int, bool) {
	i := strings.LastIndexAny(list, "-,")
	n, err := strconv.Atoi(list[i+1:])
	return n, err == nil && n >= 0 && n < 1<<16
}

// Clocks is what to add, in nanoseconds, to the time of one clock to get that of another.
type Clocks struct {
	BootToReal int64 // CLOCK_BOOTTIME → CLOCK_REALTIME
	MonoToReal int64 // CLOCK_MONOTONIC → CLOCK_REALTIME
	BootToTAI  int64 // CLOCK_BOOTTIME → CLOCK_TAI
}

// Clocks measures them now. They are as good as the few hundred nanoseconds that three calls take, and change when the
// clock is set and, for MonoToReal, when the machine is suspended.
func (l *Live) Clocks() Clocks {
	best := int64(math.MaxInt64)
	var c Clocks
	for range 5 { // of some tries the one that was not interrupted
		before := clock(unix.CLOCK_BOOTTIME)
		realtime, mono, tai := clock(unix.CLOCK_REALTIME), clock(unix.CLOCK_MONOTONIC), clock(unix.CLOCK_TAI)
		after := clock(unix.CLOCK_BOOTTIME)
		if after-before < best {
			best = after - before
			boot := before + best/2
			c = Clocks{BootToReal: realtime - boot, MonoToReal: realtime - mono, BootToTAI: tai - boot}
		}
	}
	return c
}

func clock(id int32) int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(id, &ts); err != nil {
		return 0
	}
	return ts.Nano()
}

// HasModule says if a module is loaded or built in with a name of its own.
func (l *Live) HasModule(name string) bool {
	_, err := os.Stat(l.o.Sys + "/module/" + name)
	return err == nil
}

// Tracepoints names the kernel's tracepoints by the typedefs btf_trace_NAME that it keeps for them
// (include/trace/bpf_probe.h), sorted.
func (l *Live) Tracepoints() ([]string, error) { return l.tps() }

func (l *Live) findTracepoints() ([]string, error) {
	const prefix = "btf_trace_"
	b, err := l.BTF()
	if err != nil {
		return nil, err
	}
	names := b.Names(ctype.KindTypedef, prefix)
	for i := range names {
		names[i] = names[i][len(prefix):]
	}
	return names, nil
}

// Symbolise names an address: symbol and offset, or false where no symbol is near or addresses are hidden.
func (l *Live) Symbolise(addr uint64) (name string, off uint64, ok bool) {
	ks, err := l.Kallsyms()
	if err != nil {
		return "", 0, false
	}
	name, _, off, ok = ks.ByAddr(addr)
	return name, off, ok
}
