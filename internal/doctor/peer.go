package doctor

import (
	"fmt"
	"io"
	"runtime"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/probe/try"
)

// WritePeerInfo writes what bpftrace --info tells, in its form, for scripts that look for a feature there. version is the
// line about who answers.
func WritePeerInfo(w io.Writer, version string) error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return fmt.Errorf("uname: %w", err)
	}
	helper := func(fn asm.BuiltinFunc) string { return yes(features.HaveProgramHelper(ebpf.Kprobe, fn)) }
	limit := 1000000
	if features.HaveLargeInstructions() != nil {
		limit = 4096
	}
	sections := []struct {
		title string
		rows  [][2]string
	}{
		{"System", [][2]string{{"OS", text(u.Sysname[:]) + " " + text(u.Release[:]) + " " + text(u.Version[:])}, {"Arch", text(u.Machine[:])}}},
		{"Build", [][2]string{{"version", version}, {"compiler", runtime.Version()}}},
		{"Kernel helpers", [][2]string{
			{"dpath", yes(haveFunc("bpf_d_path"))}, {"get_tai_ns", helper(asm.FnKtimeGetTaiNs)},
			{"get_func_ip", helper(asm.FnGetFuncIp)}, {"lookup_percpu_elem", helper(asm.FnMapLookupPercpuElem)}, {"loop", helper(asm.FnLoop)},
		}},
		{"Kernel features", [][2]string{
			{"Instruction limit", fmt.Sprint(limit)}, {"btf", yes(try.Detect(try.BTF))}, {"module btf", yes(try.Detect(try.ModuleBTF))},
		}},
		{"Probe types", [][2]string{
			{"kprobe_multi", yes(try.Detect(try.KprobeMulti))}, {"uprobe_multi", yes(try.Detect(try.UprobeMulti))},
			{"kprobe_session", yes(try.Detect(try.KprobeSession))}, {"iter", yes(try.Detect(try.Iter))},
		}},
	}
	for _, s := range sections {
		if _, err := fmt.Fprintln(w, s.title); err != nil {
			return err
		}
		for _, r := range s.rows {
			fmt.Fprintf(w, "  %s: %s\n", r[0], r[1])
		}
		fmt.Fprintln(w)
	}
	return nil
}

// haveFunc says if the kernel has a function, by its BTF.
func haveFunc(name string) error {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return err
	}
	var f *btf.Func
	return spec.TypeByName(name, &f)
}

func yes(err error) string {
	if err == nil {
		return "yes"
	}
	return "no"
}

func text(b []byte) string { return unix.ByteSliceToString(b) }
