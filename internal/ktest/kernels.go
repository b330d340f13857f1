package ktest

import "slices"

// Feature is something a test needs of a kernel. It is found by trying: see the detectors in features.go.
type Feature string

// The features a test can ask for.
const (
	BTF           Feature = "BTF"          // /sys/kernel/btf/vmlinux
	ModuleBTF     Feature = "module BTF"   // and that of a loaded module
	Kallsyms      Feature = "kallsyms"     // with addresses
	Tracefs       Feature = "tracefs"      // with instances
	Kprobe        Feature = "kprobe"       // BPF on a perf kprobe
	KprobeMulti   Feature = "kprobe.multi" // BPF links on fprobes
	KprobeSession Feature = "kprobe.session"
	Fentry        Feature = "fentry"
	Tracepoint    Feature = "tracepoint"
	RawTracepoint Feature = "rawtracepoint"
	Uprobe        Feature = "uprobe"
	UprobeMulti   Feature = "uprobe.multi"
	Profile       Feature = "profile"       // BPF on a software perf event
	HardwarePerf  Feature = "hardware"      // cycle counter; no emulated CPU has one
	KprobeEvents  Feature = "kprobe_events" // tracefs dynamic events
	HistTriggers  Feature = "hist triggers"
	FunctionGraph Feature = "function_graph" // a tracer the kernel lists
	Ringbuf       Feature = "ringbuf"
	Modules       Feature = "modules" // finit_module
	NetNS         Feature = "netns"
	XDP           Feature = "xdp" // generic, on lo
	AFXDP         Feature = "af_xdp"
	DropReasons   Feature = "drop reasons" // skb:kfree_skb has the field
)

// Host is the machine at hand.
const Host = "host"

// Kernel is one kernel under test.
type Kernel struct {
	Name string
	// Must are the features this kernel has: a test that needs one and does not find it fails. What is not listed here
	// is skipped. The machine at hand can be anything: its features are tried, and a missing one skips.
	Must []Feature
	Any  bool // Must is unknown
}

// everywhere is what every kernel of Debian 12 has.
var everywhere = []Feature{
	BTF, ModuleBTF, Kallsyms, Tracefs, Kprobe, Fentry, Tracepoint, RawTracepoint, Uprobe, Profile, KprobeEvents,
	HistTriggers, FunctionGraph, Ringbuf, Modules, NetNS, XDP, AFXDP, DropReasons,
}

// since612 is what came with 6.12, for the full and the cloud flavour.
var since612 = slices.Concat(everywhere, []Feature{KprobeMulti, KprobeSession, UprobeMulti})

// Kernels are the kernels under test, newest first. lab/guest knows where to get them.
var Kernels = []Kernel{
	{Name: Host, Any: true},
	{Name: "debian-6.12", Must: since612},
	{Name: "debian-6.12-cloud", Must: since612},
	{Name: "debian-6.1", Must: everywhere},
}
