package doctor

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/fathom-trace/fathom/netstate/rdma"
	"github.com/fathom-trace/fathom/probe/try"
)

// row is something the kernel may have, found by trying.
type row struct {
	feature try.Feature
	name    string   // "" is the feature's
	options []string // kernel build options it needs, without CONFIG_
	caps    string   // capabilities that suffice to use it
	detail  string   // what it is good for
	instead string   // what fathom does without it
	needed  bool
}

const (
	bpfCaps  = "cap_bpf,cap_perfmon"
	fileCaps = "cap_bpf,cap_perfmon,cap_dac_read_search"
)

var bpfRows = []row{
	{feature: bpfSyscall, options: []string{"BPF", "BPF_SYSCALL"}, caps: "cap_bpf", detail: "programs and maps", needed: true},
	{feature: try.Ringbuf, options: []string{"BPF_SYSCALL"}, caps: "cap_bpf", detail: "events to user space", needed: true},
	{feature: bpfLoop, options: []string{"BPF_SYSCALL"}, caps: "cap_bpf", detail: "loops of more than a few rounds", instead: "loops are unrolled"},
	{feature: try.BTF, options: []string{"DEBUG_INFO_BTF"}, detail: "types of the kernel", instead: "scripts declare the structs they use"},
	{feature: try.ModuleBTF, options: []string{"DEBUG_INFO_BTF_MODULES", "MODULES"}, detail: "types of its modules"},
	{feature: try.Kallsyms, options: []string{"KALLSYMS"}, caps: "cap_syslog", detail: "names for addresses", instead: "kernel stacks show addresses"},
}

var probeRows = []row{
	{feature: try.Kprobe, options: []string{"KPROBES", "KPROBE_EVENTS"}, caps: bpfCaps, detail: "any kernel function", instead: "tracepoints answer what they can"},
	{feature: try.KprobeMulti, options: []string{"FPROBE", "KPROBES"}, caps: bpfCaps, detail: "thousands of functions at once", instead: "kprobes one by one"},
	{feature: try.Fentry, options: []string{"DEBUG_INFO_BTF", "DYNAMIC_FTRACE_WITH_DIRECT_CALLS", "BPF_JIT"}, caps: bpfCaps, detail: "functions with typed arguments, the cheapest way", instead: "kprobes"},
	{feature: try.Tracepoint, options: []string{"TRACEPOINTS", "PERF_EVENTS"}, caps: fileCaps, detail: "the kernel's own events", instead: "raw tracepoints"},
	{feature: try.RawTracepoint, options: []string{"TRACEPOINTS", "BPF_EVENTS"}, caps: bpfCaps, detail: "the same, without a format", instead: "tracepoints"},
	{feature: try.Uprobe, options: []string{"UPROBES", "UPROBE_EVENTS"}, caps: bpfCaps, detail: "functions of programs"},
	{feature: try.UprobeMulti, options: []string{"UPROBES"}, caps: bpfCaps, detail: "many of them at once (Linux 6.6)", instead: "uprobes one by one"},
	{feature: try.Profile, options: []string{"PERF_EVENTS", "BPF_EVENTS"}, caps: bpfCaps, detail: "profile, interval, software events"},
	{feature: try.HardwarePerf, name: "hardware counters", options: []string{"PERF_EVENTS"}, caps: "cap_perfmon", detail: "cycles, cache misses", instead: "profile samples by the clock"},
	{feature: iter, options: []string{"BPF_SYSCALL", "DEBUG_INFO_BTF"}, caps: bpfCaps, detail: "walks of kernel objects"},
}

var ftraceRows = []row{
	{feature: try.Tracefs, options: []string{"TRACING", "FTRACE"}, caps: "cap_sys_admin", detail: "event formats, instances of our own", needed: true},
	{feature: try.HistTriggers, options: []string{"HIST_TRIGGERS"}, caps: "cap_sys_admin", detail: "counting inside ftrace", instead: "BPF maps count"},
	{feature: try.FunctionGraph, options: []string{"FUNCTION_GRAPH_TRACER"}, caps: "cap_sys_admin", detail: "call trees", instead: "probes on entries and returns"},
	{feature: try.GraphInstance, options: []string{"FUNCTION_GRAPH_TRACER"}, caps: "cap_sys_admin", detail: "call trees beside other people's tracing (Linux 6.11)", instead: "probes on entries and returns"},
}

var networkRows = []row{
	{feature: try.XDP, options: []string{"BPF_SYSCALL"}, caps: "cap_bpf,cap_net_admin", detail: "packets at the driver"},
	{feature: try.AFXDP, options: []string{"XDP_SOCKETS"}, caps: "cap_bpf,cap_net_raw", detail: "packets past the kernel"},
	{feature: try.NetNS, options: []string{"NET_NS"}, caps: "cap_sys_admin", detail: "networks to practise on"},
	{feature: try.DropReasons, options: []string{"TRACEPOINTS"}, caps: "cap_dac_read_search", detail: "why a packet was dropped (Linux 5.17)", instead: "the place where it was dropped"},
}

// kernelSteps are the checks of plain `fathom doctor`.
func kernelSteps() []step {
	return []step{
		checkLockdown, checkCapabilities, checkSettings,
		configFile("settings"),
		rows("bpf", bpfRows), rows("probes", probeRows), checkAnyProbe, rows("ftrace", ftraceRows), rows("network", networkRows), checkRDMA,
	}
}

// checkRDMA names the RDMA devices. Most machines have none, and nothing is said there.
func checkRDMA(e *exam) (out []Check) {
	devs := rdma.List(filepath.Join(e.Root, "sys"))
	for i := range devs {
		d := &devs[i]
		c := Check{Group: "network", Name: "rdma " + d.Name, Status: Info, Detail: "messages past TCP/IP: fathom bypass rdma"}
		if w := d.Where(); w != "" {
			c.Detail = w + ", " + c.Detail
		}
		for _, p := range d.Ports {
			c.Evidence = append(c.Evidence, fmt.Sprintf("port %d is %s (%s)", p.Number, p.State, p.Link))
			if p.Active() {
				c.Status = Yes
			}
		}
		out = append(out, c)
	}
	return out
}

func rows(group string, rs []row) step {
	return func(e *exam) []Check {
		var out []Check
		for _, r := range rs {
			out = append(out, e.try(group, r))
		}
		return out
	}
}

// try tries one row and explains a failure.
func (e *exam) try(group string, r row) Check {
	c := Check{Group: group, Name: r.name, Status: Yes, Detail: r.detail, Needed: r.needed}
	if c.Name == "" {
		c.Name = string(r.feature)
	}
	err := e.Try(r.feature)
	if err == nil {
		return c
	}
	c.Status, c.Instead, c.Evidence = No, r.instead, []string{e.triedHere(r.feature, err)}
	off := e.config.off(r.options)
	for _, o := range off {
		c.Evidence = append(c.Evidence, e.config.evidence(o))
	}
	switch {
	case len(off) > 0: // no privilege helps
		c.Fix = []string{"a kernel with CONFIG_" + strings.Join(off, "=y, CONFIG_") + "=y"}
	case !e.privileged() && (denied(err) || r.feature == try.Kallsyms):
		c.Status = Denied
		c.Fix = raise(r)
	case denied(err) && e.lockdown.on():
		c.Evidence = append(c.Evidence, e.lockdown.evidence)
		c.Fix = e.lockdown.fix()
	case denied(err):
		if by := e.confined(); by != "" {
			c.Evidence = append(c.Evidence, "this is in "+by)
		}
		c.Fix = []string{"a container or security module forbids it even to root: run outside of it"}
	default:
		c.Fix = fixOf(r.feature, e)
	}
	return c
}

// kprobePMU is there if perf has kprobes.
const kprobePMU = "/sys/bus/event_source/devices/kprobe"

// triedHere gives what was tried and what came back, or the cause where the library's words are about something else:
// without the kprobe PMU it falls back to tracefs and complains of mounts (REQUIREMENTS V12).
func (e *exam) triedHere(f try.Feature, err error) string {
	if f == try.Kprobe && !denied(err) && !e.exists(kprobePMU) {
		return "perf has no kprobes: " + kprobePMU + " does not exist"
	}
	return tried(err)
}

// raise says what privilege is enough. That root is, the summary says once.
func raise(r row) []string {
	if r.caps == "" {
		return []string{"sudo fathom doctor"}
	}
	return []string{"sudo setcap " + r.caps + "+ep $(command -v fathom)"}
}

// fixOf is the way out where neither options nor privilege are the cause.
func fixOf(f try.Feature, e *exam) []string {
	switch f {
	case try.HardwarePerf:
		if v, err := e.read("/proc/cpuinfo"); err == nil && strings.Contains(v, "hypervisor") {
			return []string{"this is a virtual machine: start it with its CPU's counters passed through (QEMU: -cpu host,pmu=on)"}
		}
		return []string{"no other way on this CPU"}
	case try.ModuleBTF:
		return []string{"no module with types is loaded; nothing is missing if none is to be traced"}
	case try.Kallsyms:
		return []string{"sysctl -w kernel.kptr_restrict=1, as root"}
	case try.Tracefs:
		return []string{"mount -t tracefs tracefs /sys/kernel/tracing"}
	case try.KprobeMulti:
		return []string{"a kernel of 5.18 or later with CONFIG_FPROBE=y; this is " + e.Release}
	case try.UprobeMulti, try.DropReasons, bpfLoop:
		return []string{"a newer kernel; this is " + e.Release}
	}
	return []string{"another kernel; this is " + e.Release + " (fathom lab boots one)"}
}

// checkAnyProbe says whether there is any way at all to trace the kernel.
func checkAnyProbe(e *exam) []Check {
	c := Check{Group: "probes", Name: "any of the kernel's", Needed: true, Status: No, Detail: "at least one way in"}
	var have []string
	for _, f := range []try.Feature{try.Fentry, try.KprobeMulti, try.Kprobe, try.RawTracepoint, try.Tracepoint} {
		switch err := e.Try(f); {
		case err == nil:
			have = append(have, string(f))
		case denied(err) && !e.privileged():
			c.Status = Denied
		}
	}
	if len(have) > 0 {
		c.Status, c.Detail = Yes, "fathom attaches by "+strings.Join(have, ", then ")
		return []Check{c}
	}
	c.Evidence = []string{"none of fentry, kprobe.multi, kprobe, raw tracepoint and tracepoint could be attached"}
	c.Fix = []string{"see the checks above"}
	return []Check{c}
}

// checkSettings reads sysctls that change what an unprivileged or privileged tracer sees.
func checkSettings(e *exam) []Check {
	var out []Check
	for _, s := range []struct {
		file  string
		means map[string]string
		bad   string // the value that costs something even with privilege
		fix   string
	}{
		{"kernel/kptr_restrict", map[string]string{"0": "kernel addresses are for CAP_SYSLOG, and for everyone if perf_event_paranoid is below 2", "1": "kernel addresses are for CAP_SYSLOG", "2": "kernel addresses are hidden from everyone: stacks have no names"}, "2", "sysctl -w kernel.kptr_restrict=1"},
		{"kernel/perf_event_paranoid", map[string]string{"-1": "everyone may use all perf events", "0": "everyone may measure CPUs, not raw tracepoints", "1": "everyone may measure their own processes, inside the kernel too", "2": "everyone may measure their own processes, in user space", "3": "perf events are for CAP_PERFMON", "4": "perf events are for CAP_PERFMON"}, "", ""},
		{"kernel/unprivileged_bpf_disabled", map[string]string{"0": "everyone may load some BPF programs", "1": "BPF is for CAP_BPF, until the next boot", "2": "BPF is for CAP_BPF"}, "", ""},
		{"net/core/bpf_jit_enable", map[string]string{"0": "BPF programs are interpreted: slow, and no fentry", "1": "BPF programs become machine code", "2": "BPF programs become machine code, with a debug dump"}, "0", "sysctl -w net.core.bpf_jit_enable=1"},
		{"debug/kprobes-optimization", map[string]string{"0": "kprobes use breakpoints", "1": "kprobes become jumps"}, "", ""},
	} {
		name := "/proc/sys/" + s.file
		v, evidence, ok := e.value(name)
		if !ok {
			continue // this kernel has no such setting
		}
		c := Check{Group: "settings", Name: strings.ReplaceAll(s.file, "/", "."), Status: Info, Detail: s.means[v], Evidence: []string{evidence}}
		if s.bad != "" && v == s.bad {
			c.Status, c.Fix = No, []string{s.fix}
		}
		out = append(out, c)
	}
	return out
}

// configFile says where the build options come from, since other checks cite them.
func configFile(group string) step {
	return func(e *exam) []Check {
		c := Check{Group: group, Name: "build options", Status: Yes, Detail: fmt.Sprintf("%d in %s", len(e.config.Values), e.config.Source)}
		if e.config.Values == nil {
			c.Status, c.Detail = No, ""
			c.Evidence = e.config.tried
			c.Fix = []string{"modprobe configs", "install the kernel's own package: it brings /boot/config-" + e.Release}
			c.Instead = "only what was tried is known"
		}
		return []Check{c}
	}
}
