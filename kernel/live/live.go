// Package live is the running kernel as a source of symbols and types. Everything is read when it is first asked for,
// and kept: a program that needs no symbols pays nothing for them. Nothing here needs root, but an unprivileged reader
// may be shown addresses of zero (kptr_restrict).
package live

import (
	"fmt"
	"os"
	"sort"
	"strings"

	"github.com/cilium/ebpf/btf"

	"github.com/fathom-trace/fathom/ctype/btftypes"
	"github.com/fathom-trace/fathom/debuginfo/kallsyms"
	"github.com/fathom-trace/fathom/internal/feature"
)

// Options steer Open.
type Options struct {
	Proc string // default /proc
	Sys  string // default /sys
}

// Live is the running kernel. One goroutine may use it.
type Live struct {
	o        Options
	syms     *kallsyms.Table
	symsErr  error
	spec     *btf.Spec
	specErr  error
	types    *btftypes.Lookup
	tps      []string
	symsDone bool
	specDone bool
}

// Open returns the running kernel without reading anything yet.
func Open(o Options) (*Live, error) {
	if o.Proc == "" {
		o.Proc = "/proc"
	}
	if o.Sys == "" {
		o.Sys = "/sys"
	}
	return &Live{o: o}, nil
}

// Close releases what was read.
func (l *Live) Close() error { return nil }

// Kallsyms gives the kernel's symbols, from /proc/kallsyms.
func (l *Live) Kallsyms() (*kallsyms.Table, error) {
	if !l.symsDone {
		l.symsDone = true
		f, err := os.Open(l.o.Proc + "/kallsyms")
		if err != nil {
			l.symsErr = feature.Unsupported("kallsyms", "open "+l.o.Proc+"/kallsyms", err)
			return nil, l.symsErr
		}
		defer f.Close()
		l.syms, l.symsErr = kallsyms.Read(f)
	}
	return l.syms, l.symsErr
}

// BTF gives the kernel's own types.
func (l *Live) BTF() (*btf.Spec, error) {
	if !l.specDone {
		l.specDone = true
		if l.spec, l.specErr = btf.LoadKernelSpec(); l.specErr != nil {
			l.specErr = feature.Unsupported("BTF", "read "+l.o.Sys+"/kernel/btf/vmlinux", l.specErr)
		}
	}
	return l.spec, l.specErr
}

// Types gives the kernel's types in the C model; modules' are loaded when a function of theirs is asked for.
func (l *Live) Types() (*btftypes.Lookup, error) {
	if l.types == nil {
		s, err := l.BTF()
		if err != nil {
			return nil, err
		}
		l.types = btftypes.New(s, btf.LoadKernelModuleSpec)
	}
	return l.types, nil
}

// Modules names the modules that have BTF of their own.
func (l *Live) Modules() []string {
	ents, err := os.ReadDir(l.o.Sys + "/kernel/btf")
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range ents {
		if e.Name() != "vmlinux" {
			out = append(out, e.Name())
		}
	}
	return out
}

// Tracepoints names the kernel's tracepoints by the typedefs btf_trace_NAME that it keeps for them
// (include/trace/bpf_probe.h), sorted.
func (l *Live) Tracepoints() ([]string, error) {
	if l.tps != nil {
		return l.tps, nil
	}
	s, err := l.BTF()
	if err != nil {
		return nil, err
	}
	for t, err := range s.All() {
		if err != nil {
			return nil, fmt.Errorf("read BTF: %w", err)
		}
		td, ok := t.(*btf.Typedef)
		if !ok {
			continue
		}
		if n, ok := strings.CutPrefix(td.Name, "btf_trace_"); ok {
			l.tps = append(l.tps, n)
		}
	}
	sort.Strings(l.tps)
	return l.tps, nil
}

// Symbolise names an address: symbol and offset, or false where no symbol is near.
func (l *Live) Symbolise(addr uint64) (name string, off uint64, ok bool) {
	ks, err := l.Kallsyms()
	if err != nil {
		return "", 0, false
	}
	name, _, off, ok = ks.ByAddr(addr)
	return name, off, ok
}
