package ktest

import (
	"slices"

	"github.com/fathom-trace/fathom/probe/try"
)

// Feature is something a test needs of a kernel, found by trying (package try).
type Feature = try.Feature

// The features a test can ask for.
const (
	BTF           = try.BTF
	ModuleBTF     = try.ModuleBTF
	Kallsyms      = try.Kallsyms
	Tracefs       = try.Tracefs
	Kprobe        = try.Kprobe
	KprobeMulti   = try.KprobeMulti
	KprobeSession = try.KprobeSession
	Fentry        = try.Fentry
	Iter          = try.Iter
	Tracepoint    = try.Tracepoint
	RawTracepoint = try.RawTracepoint
	Uprobe        = try.Uprobe
	UprobeMulti   = try.UprobeMulti
	Profile       = try.Profile
	HardwarePerf  = try.HardwarePerf
	KprobeEvents  = try.KprobeEvents
	HistTriggers  = try.HistTriggers
	FunctionGraph = try.FunctionGraph
	GraphInstance = try.GraphInstance
	Ringbuf       = try.Ringbuf
	Modules       = try.Modules
	NetNS         = try.NetNS
	XDP           = try.XDP
	AFXDP         = try.AFXDP
	DropReasons   = try.DropReasons
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
	// Like is the kernel of which this is a flavour: what most packages try is the same in both. Those that do not name it are
	// run in it by make soak, or where FATHOM_GUESTS names it.
	Like string
}

// everywhere is what every kernel of Debian 12 has.
var everywhere = []Feature{
	BTF, ModuleBTF, Kallsyms, Tracefs, Kprobe, Fentry, Tracepoint, RawTracepoint, Uprobe, Profile, Iter, KprobeEvents,
	HistTriggers, FunctionGraph, Ringbuf, Modules, NetNS, XDP, AFXDP, DropReasons,
}

// since612 is what came with 6.12, for the full and the cloud flavour.
var since612 = slices.Concat(everywhere, []Feature{KprobeMulti, KprobeSession, UprobeMulti, GraphInstance})

// Kernels are the kernels under test, newest first. lab/guest knows where to get them.
var Kernels = []Kernel{
	{Name: Host, Any: true},
	{Name: "debian-6.12", Must: since612},
	{Name: "debian-6.12-cloud", Must: since612, Like: "debian-6.12"},
	{Name: "debian-6.1", Must: everywhere},
}

// Detect tries a feature on the kernel this process runs on: nil, or an error that says what was tried.
func Detect(f Feature) error { return try.Detect(f) }

// Features lists all features that can be asked for.
func Features() []Feature { return try.Features() }
