// Package try finds out what a kernel can do by doing it: each feature is tried once, undone at once, and a failure is
// an error with what was tried and what came back. Nothing is concluded from version numbers.
package try

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/feature"
	"github.com/fathom-trace/fathom/tracefs"
)

// Feature is something a kernel may have.
type Feature string

// The features that can be tried.
const (
	BTF           Feature = "BTF"          // /sys/kernel/btf/vmlinux
	ModuleBTF     Feature = "module BTF"   // and that of a loaded module
	Kallsyms      Feature = "kallsyms"     // with addresses
	Tracefs       Feature = "tracefs"      // with instances
	Kprobe        Feature = "kprobe"       // BPF on a perf kprobe
	KprobeMulti   Feature = "kprobe.multi" // BPF links on fprobes
	KprobeSession Feature = "kprobe.session"
	Fentry        Feature = "fentry"
	Iter          Feature = "iter" // of tasks
	Tracepoint    Feature = "tracepoint"
	RawTracepoint Feature = "rawtracepoint"
	Uprobe        Feature = "uprobe"
	UprobeMulti   Feature = "uprobe.multi"
	Profile       Feature = "profile"       // BPF on a software perf event
	HardwarePerf  Feature = "hardware"      // cycle counter; no emulated CPU has one
	KprobeEvents  Feature = "kprobe_events" // tracefs dynamic events
	HistTriggers  Feature = "hist triggers"
	FunctionGraph Feature = "function_graph"              // a tracer the kernel lists
	GraphInstance Feature = "function_graph in instances" // set there
	Ringbuf       Feature = "ringbuf"
	Modules       Feature = "modules" // finit_module
	NetNS         Feature = "netns"
	XDP           Feature = "xdp" // generic, on lo
	AFXDP         Feature = "af_xdp"
	DropReasons   Feature = "drop reasons" // skb:kfree_skb has the field
)

// detectors try each feature once, and leave nothing behind.
var detectors = map[Feature]func() error{
	BTF:           sync.OnceValue(func() error { return haveMagic("/sys/kernel/btf/vmlinux", "\x9f\xeb") }),
	ModuleBTF:     sync.OnceValue(haveModuleBTF),
	Kallsyms:      sync.OnceValue(haveKallsyms),
	Tracefs:       sync.OnceValue(func() error { return inInstance(func(string) error { return nil }) }),
	Kprobe:        sync.OnceValue(haveKprobe),
	KprobeMulti:   sync.OnceValue(haveKprobeMulti),
	KprobeSession: sync.OnceValue(features.HaveBPFLinkKprobeSession),
	Fentry:        sync.OnceValue(haveFentry),
	Iter:          sync.OnceValue(haveIter),
	Tracepoint:    sync.OnceValue(haveTracepoint),
	RawTracepoint: sync.OnceValue(haveRawTracepoint),
	Uprobe:        sync.OnceValue(haveUprobe),
	UprobeMulti:   sync.OnceValue(features.HaveBPFLinkUprobeMulti),
	Profile:       sync.OnceValue(haveProfile),
	HardwarePerf:  sync.OnceValue(haveHardware),
	KprobeEvents:  sync.OnceValue(haveKprobeEvents),
	HistTriggers:  sync.OnceValue(haveHist),
	FunctionGraph: sync.OnceValue(haveFunctionGraph),
	GraphInstance: sync.OnceValue(haveGraphInstance),
	Ringbuf:       sync.OnceValue(haveRingbuf),
	Modules:       sync.OnceValue(haveModules),
	NetNS:         sync.OnceValue(haveNetNS),
	XDP:           sync.OnceValue(haveXDP),
	AFXDP:         sync.OnceValue(haveAFXDP),
	DropReasons:   sync.OnceValue(haveDropReasons),
}

// Detect tries a feature on the kernel this process runs on: nil, or an error that says what was tried.
func Detect(f Feature) error {
	try, ok := detectors[f]
	if !ok {
		return fmt.Errorf("no detector for %q", f)
	}
	err := try()
	if err == nil || errors.Is(err, feature.ErrUnsupported) {
		return err
	}
	return feature.Unsupported(string(f), "tried it", err)
}

// target is a function that is there, not inlined and traceable in every kernel under test.
const target = "vfs_read"

// with loads a program of a type that does nothing and hands it to attach.
func with(spec ebpf.ProgramSpec, attach func(*ebpf.Program) (io.Closer, error)) error {
	spec.Instructions = asm.Instructions{asm.Mov.Imm(asm.R0, int32(xdpPass)), asm.Return()}
	if spec.Type != ebpf.XDP {
		spec.Instructions[0] = asm.Mov.Imm(asm.R0, 0)
	}
	spec.License = "GPL"
	p, err := ebpf.NewProgram(&spec)
	if err != nil {
		return err
	}
	defer p.Close()
	l, err := attach(p)
	if err != nil {
		return err
	}
	return l.Close()
}

const xdpPass = 2 // XDP_PASS

func haveKprobe() error {
	return with(ebpf.ProgramSpec{Type: ebpf.Kprobe}, func(p *ebpf.Program) (io.Closer, error) { return link.Kprobe(target, p, nil) })
}

func haveKprobeMulti() error {
	return with(ebpf.ProgramSpec{Type: ebpf.Kprobe, AttachType: ebpf.AttachTraceKprobeMulti}, func(p *ebpf.Program) (io.Closer, error) {
		return link.KprobeMulti(p, link.KprobeMultiOptions{Symbols: []string{target}})
	})
}

func haveFentry() error {
	return with(ebpf.ProgramSpec{Type: ebpf.Tracing, AttachType: ebpf.AttachTraceFEntry, AttachTo: target}, func(p *ebpf.Program) (io.Closer, error) {
		return link.AttachTracing(link.TracingOptions{Program: p})
	})
}

// haveTracepoint attaches to the event by its id, which needs tracefs only for being read.
func haveIter() error {
	return with(ebpf.ProgramSpec{Type: ebpf.Tracing, AttachType: ebpf.AttachTraceIter, AttachTo: "task"}, func(p *ebpf.Program) (io.Closer, error) {
		return link.AttachIter(link.IterOptions{Program: p})
	})
}

func haveTracepoint() error {
	return inTracefs(func(root string) error {
		b, err := os.ReadFile(filepath.Join(root, "events/sched/sched_switch/id"))
		if err != nil {
			return err
		}
		id, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
		if err != nil {
			return err
		}
		attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_TRACEPOINT, Config: id, Sample: 1}
		return perf(Tracepoint, attr, ebpf.TracePoint)
	})
}

func haveRawTracepoint() error {
	return with(ebpf.ProgramSpec{Type: ebpf.RawTracepoint}, func(p *ebpf.Program) (io.Closer, error) {
		return link.AttachRawTracepoint(link.RawTracepointOptions{Name: "sched_switch", Program: p})
	})
}

// haveUprobe probes the first bytes of this program's own text, which no one runs again.
func haveUprobe() error {
	f, err := elf.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer f.Close()
	text := f.Section(".text")
	if text == nil {
		return errors.New("/proc/self/exe: no .text")
	}
	return with(ebpf.ProgramSpec{Type: ebpf.Kprobe}, func(p *ebpf.Program) (io.Closer, error) {
		exe, err := link.OpenExecutable("/proc/self/exe")
		if err != nil {
			return nil, err
		}
		return exe.Uprobe("text", p, &link.UprobeOptions{Address: text.Offset, PID: os.Getpid()})
	})
}

func haveProfile() error {
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK, Sample: 99, Bits: unix.PerfBitFreq}
	return perf(Profile, attr, ebpf.PerfEvent)
}

// perf attaches a program to a perf event on CPU 0.
func perf(f Feature, attr unix.PerfEventAttr, typ ebpf.ProgramType) error {
	fd, err := unix.PerfEventOpen(&attr, -1, 0, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return feature.Unsupported(string(f), fmt.Sprintf("perf_event_open type %d config %d", attr.Type, attr.Config), err)
	}
	defer unix.Close(fd)
	return with(ebpf.ProgramSpec{Type: typ}, func(p *ebpf.Program) (io.Closer, error) {
		l, err := link.AttachRawLink(link.RawLinkOptions{Target: fd, Program: p, Attach: ebpf.AttachPerfEvent})
		if errors.Is(err, unix.EINVAL) { // Linux before 5.15
			return held{}, unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_SET_BPF, p.FD())
		}
		return l, err
	})
}

// held is a program that goes with what it was attached to.
type held struct{}

func (held) Close() error { return nil }

func haveHardware() error {
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_HARDWARE, Config: unix.PERF_COUNT_HW_CPU_CYCLES}
	fd, err := unix.PerfEventOpen(&attr, 0, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return feature.Unsupported(string(HardwarePerf), "perf_event_open cpu-cycles", err)
	}
	return unix.Close(fd)
}

func haveRingbuf() error {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.RingBuf, MaxEntries: uint32(os.Getpagesize())})
	if err != nil {
		return err
	}
	return m.Close()
}

func haveXDP() error {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		return err
	}
	return with(ebpf.ProgramSpec{Type: ebpf.XDP}, func(p *ebpf.Program) (io.Closer, error) {
		return link.AttachXDP(link.XDPOptions{Program: p, Interface: lo.Index, Flags: link.XDPGenericMode})
	})
}

func haveAFXDP() error {
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return feature.Unsupported(string(AFXDP), "socket(AF_XDP)", err)
	}
	return unix.Close(fd)
}

// haveModules asks to load a bad descriptor: a kernel that could load a good one says EBADF.
func haveModules() error {
	if err := unix.FinitModule(-1, "", 0); err != unix.EBADF {
		return feature.Unsupported(string(Modules), "finit_module", err)
	}
	return nil
}

func haveNetNS() error {
	errc := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread and its namespace end with this goroutine
		if unix.Gettid() == unix.Getpid() {
			// The main thread does not end, and its namespace is what /proc/self/ns/net shows of the process.
			errc <- haveNetNS()
			runtime.UnlockOSThread()
			return
		}
		errc <- unix.Unshare(unix.CLONE_NEWNET)
	}()
	return <-errc
}

func haveMagic(name, magic string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, len(magic))
	if _, err := f.Read(b); err != nil || string(b) != magic {
		return fmt.Errorf("%s: begins with % x: %w", name, b, err)
	}
	return nil
}

func haveModuleBTF() error {
	names, _ := filepath.Glob("/sys/kernel/btf/*")
	i := slices.IndexFunc(names, func(n string) bool { return filepath.Base(n) != "vmlinux" })
	if i < 0 {
		return feature.Unsupported(string(ModuleBTF), "list /sys/kernel/btf: no module", nil)
	}
	return haveMagic(names[i], "\x9f\xeb")
}

func haveKallsyms() error {
	b, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		return err
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	for l := range bytes.Lines(b) {
		if !bytes.HasPrefix(l, []byte("0000000000000000")) {
			return nil
		}
	}
	return feature.Unsupported(string(Kallsyms), fmt.Sprintf("/proc/kallsyms hides addresses: %s", line), nil)
}

// inTracefs calls f with the root of tracefs.
func inTracefs(f func(root string) error) error {
	fs, err := tracefs.Find()
	if err != nil {
		return err
	}
	defer fs.Close()
	return f(fs.Root)
}

// inInstance makes a tracefs instance for the time of f.
func inInstance(f func(dir string) error) error {
	return inTracefs(func(root string) error {
		dir := filepath.Join(root, "instances", fmt.Sprintf("fathom-try-%d", os.Getpid()))
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		return errors.Join(f(dir), os.Remove(dir))
	})
}

// write writes s into a control file, which must be there.
func write(name, s string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(s)
	return errors.Join(err, f.Close())
}

func haveHist() error {
	return inInstance(func(dir string) error {
		trigger := filepath.Join(dir, "events/sched/sched_switch/trigger")
		if err := write(trigger, "hist:keys=common_pid"); err != nil {
			return err
		}
		return write(trigger, "!hist:keys=common_pid")
	})
}

func haveKprobeEvents() error {
	return inTracefs(func(root string) error {
		name := fmt.Sprintf("fathom_try_%d", os.Getpid())
		if err := write(filepath.Join(root, "kprobe_events"), "p:"+name+"/a "+target); err != nil {
			return err
		}
		return write(filepath.Join(root, "kprobe_events"), "-:"+name+"/a")
	})
}

func haveFunctionGraph() error {
	return inTracefs(func(root string) error {
		b, err := os.ReadFile(filepath.Join(root, "available_tracers"))
		if err == nil && !slices.Contains(strings.Fields(string(b)), "function_graph") {
			return feature.Unsupported(string(FunctionGraph), "available_tracers has "+strings.TrimSpace(string(b)), nil)
		}
		return err
	})
}

// haveGraphInstance sets the tracer for one function, in an instance that is switched off.
func haveGraphInstance() error {
	return inInstance(func(dir string) error {
		for _, s := range [][2]string{{"tracing_on", "0"}, {"set_ftrace_filter", target}, {"current_tracer", "function_graph"}} {
			if err := os.WriteFile(filepath.Join(dir, s[0]), []byte(s[1]), 0); err != nil {
				return feature.Unsupported(string(GraphInstance), s[0]+"="+s[1], err)
			}
		}
		return nil
	})
}

func haveDropReasons() error {
	return inTracefs(func(root string) error {
		b, err := os.ReadFile(filepath.Join(root, "events/skb/kfree_skb/format"))
		if err == nil && !bytes.Contains(b, []byte("reason;")) {
			return feature.Unsupported(string(DropReasons), "events/skb/kfree_skb/format has no field reason", nil)
		}
		return err
	})
}

// Features lists all features that can be asked for.
func Features() []Feature { return slices.Sorted(maps.Keys(detectors)) }
