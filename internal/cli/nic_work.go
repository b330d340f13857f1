package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/fathom-trace/fathom/answers/nic"
	"github.com/fathom-trace/fathom/debuginfo/kallsyms"
	"github.com/fathom-trace/fathom/kernel/live"
)

// topFunctions are shown without -v.
const topFunctions = 20

// work counts what the kernel puts off.
func (f *nicFlags) work(ctx context.Context, stdout, stderr io.Writer) (err error) {
	w, l, cpus, end, err := nicWorld()
	if err != nil {
		return err
	}
	defer end()
	sites, siteErr := taskletSites(l)
	k, err := nic.OpenWork(w, cpus, sites)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	f.say(stderr, "counting")
	ctx, cancel := f.window(ctx)
	defer cancel()
	k.Run(ctx)
	syms, symErr := l.Kallsyms()
	res, err := k.Result(uint64(time.Now().UnixNano()-l.Clocks().MonoToReal), func(addr uint64) string {
		if symErr == nil {
			if name, module, off, ok := syms.ByAddr(addr); ok && off == 0 {
				if module != "" {
					return name + " [" + module + "]"
				}
				return name
			}
		}
		return fmt.Sprintf("0x%x", addr)
	})
	if err != nil {
		return err
	}
	if siteErr != nil {
		res.Missing = append(res.Missing, "tasklets that are scheduled again before they run: "+siteErr.Error())
	}
	out := bufio.NewWriter(stdout)
	switch {
	case f.json:
		err = res.WriteJSON(out)
	case f.verbose:
		err = res.WriteText(out, 0)
	default:
		err = res.WriteText(out, topFunctions)
	}
	return errors.Join(err, out.Flush())
}

// taskletSites finds the places in the kernel's code that ask for tasklets.
func taskletSites(l *live.Live) ([]nic.Site, error) {
	if runtime.GOARCH != "amd64" {
		return nil, errors.New("the instruction that asks for one is known on x86-64 only")
	}
	syms, err := l.Kallsyms()
	if err != nil {
		return nil, err
	}
	mem, err := l.Kcore()
	if err != nil {
		return nil, err
	}
	defer mem.Close()
	var targets []uint64
	for _, name := range nic.ListTasklet {
		targets = append(targets, syms.ByName(name)...)
	}
	return nic.FindSites(mem, code(syms), targets), nil
}

// code lists the functions of the kernel and its modules, by address, without what was only there to boot.
func code(syms *kallsyms.Table) (out []nic.Func) {
	const most = 64 << 10 // bytes of a function; behind the last one of a module nothing says where it ends
	first, end := syms.ByName("_stext"), syms.ByName("_etext")
	for s := range syms.Text() {
		if n := len(out); n > 0 && out[n-1].Size == most {
			out[n-1].Size = int(min(s.Addr-out[n-1].Addr, most))
		}
		switch {
		case s.Module == "bpf" || strings.HasPrefix(s.Module, "__builtin"):
			continue
		case s.Module == "" && (len(first) == 0 || len(end) == 0 || s.Addr < first[0] || s.Addr >= end[0]):
			continue
		}
		if n := len(out); n > 0 && out[n-1].Addr == s.Addr {
			continue
		}
		out = append(out, nic.Func{Addr: s.Addr, Size: most, Name: s.Name})
	}
	return slices.DeleteFunc(out, func(f nic.Func) bool { return f.Size == 0 })
}
