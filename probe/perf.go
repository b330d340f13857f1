package probe

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/lang/check"
)

// softwareConfig numbers perf's software events (enum perf_sw_ids).
var softwareConfig = map[string]uint64{
	"cpu-clock": 0, "task-clock": 1, "page-faults": 2, "context-switches": 3, "cpu-migrations": 4, "minor-faults": 5,
	"major-faults": 6, "alignment-faults": 7, "emulation-faults": 8, "dummy": 9, "bpf-output": 10,
}

// hardwareConfig numbers perf's hardware events (enum perf_hw_id).
var hardwareConfig = map[string]uint64{
	"cpu-cycles": 0, "instructions": 1, "cache-references": 2, "cache-misses": 3, "branch-instructions": 4, "branch-misses": 5,
	"bus-cycles": 6, "frontend-stalls": 7, "backend-stalls": 8, "ref-cycles": 9,
}

// defaultPeriod is how many software events pass between two samples when a program does not say.
var defaultPeriod = map[string]uint64{
	"cpu-clock": 1e6, "task-clock": 1e6, "page-faults": 100, "context-switches": 1000, "cpu-migrations": 1, "minor-faults": 100,
	"major-faults": 1, "alignment-faults": 1, "emulation-faults": 1, "dummy": 1, "bpf-output": 1,
}

const defaultHardwarePeriod = 1e6

// perfFile is a perf event; closing it detaches.
type perfFile int

func (f perfFile) Close() error { return unix.Close(int(f)) }

// attachPerf opens perf events for a sampling or counting probe: on every online CPU, or for interval on one.
func (s *Session) attachPerf(provider string, p *ebpf.Program, t check.Target) error {
	attr, err := perfAttr(provider, t)
	if err != nil {
		return err
	}
	places, err := s.perfPlaces(provider)
	if err != nil {
		return err
	}
	if len(places) > 0 && places[0].task != -1 {
		attr.Bits |= unix.PerfBitInherit // threads that start later
	}
	for _, pl := range places {
		fd, err := unix.PerfEventOpen(&attr, pl.task, pl.cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
		if errors.Is(err, unix.ESRCH) && len(places) > 1 { // the thread has ended
			continue
		}
		if err != nil {
			return fmt.Errorf("perf_event_open %s (task %d, CPU %d): %w", t.Func, pl.task, pl.cpu, err)
		}
		s.keep(perfFile(fd))
		if provider == "watchpoint" {
			s.watch(t.Offset, fd)
		}
		if err := s.linkPerf(fd, p, 0); err != nil {
			return fmt.Errorf("attach program to %s: %w", t.Func, err)
		}
		if err := unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_ENABLE, 0); err != nil {
			return fmt.Errorf("enable %s: %w", t.Func, err)
		}
	}
	return nil
}

// linkCreate is union bpf_attr of BPF_LINK_CREATE for perf events (include/uapi/linux/bpf.h).
type linkCreate struct {
	prog, target, attach, flags uint32
	cookie                      uint64
}

const (
	bpfLinkCreate = 28
	bpfPerfEvent  = 41
)

// linkPerf attaches p to a perf event: by a link, which can carry a cookie, or before Linux 5.15 by ioctl.
func (s *Session) linkPerf(fd int, p *ebpf.Program, cookie uint64) error {
	attr := linkCreate{prog: uint32(p.FD()), target: uint32(fd), attach: bpfPerfEvent, cookie: cookie}
	lk, _, errno := unix.Syscall(unix.SYS_BPF, bpfLinkCreate, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno == 0 {
		s.keep(perfFile(lk))
		return nil
	}
	if cookie != 0 || errno != unix.EINVAL {
		return errno
	}
	return unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_SET_BPF, p.FD())
}

// attachTracepoint attaches p to a trace event through perf, as tracefs need not be mounted for that.
func (s *Session) attachTracepoint(p *ebpf.Program, t check.Target, cookie uint64) error {
	id, err := s.opts.World.EventID(t.Module, t.Func)
	if err != nil {
		return err
	}
	// It only counts: as the programs let events pass, a sample would be made of each on this CPU, for nobody.
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_TRACEPOINT, Config: uint64(id), Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{}))}
	fd, err := unix.PerfEventOpen(&attr, -1, 0, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("perf_event_open of event %d: %w", id, err)
	}
	s.keep(perfFile(fd))
	if err := s.linkPerf(fd, p, cookie); err != nil {
		return err
	}
	return unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_ENABLE, 0)
}

// perfPlace is what an event is bound to: -1 is any.
type perfPlace struct{ task, cpu int }

// perfPlaces gives every CPU, or the threads of the process of -p; an interval ticks in one place.
func (s *Session) perfPlaces(provider string) ([]perfPlace, error) {
	var out []perfPlace
	if s.opts.PID != 0 && provider != "interval" {
		ents, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", s.opts.PID))
		if err != nil {
			return nil, fmt.Errorf("list threads: %w", err)
		}
		for _, e := range ents {
			if tid, err := strconv.Atoi(e.Name()); err == nil {
				out = append(out, perfPlace{tid, -1})
			}
		}
		return out, nil
	}
	cpus, err := onlineCPUs()
	if err != nil {
		return nil, err
	}
	if provider == "interval" {
		cpus = cpus[:1]
	}
	for _, c := range cpus {
		out = append(out, perfPlace{-1, c})
	}
	return out, nil
}

// perfAttr describes the event of a target.
func perfAttr(provider string, t check.Target) (unix.PerfEventAttr, error) {
	a := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{})), Bits: unix.PerfBitDisabled}
	switch provider {
	case "profile", "interval":
		a.Config = unix.PERF_COUNT_SW_CPU_CLOCK
		switch t.Func {
		case "hz":
			a.Bits |= unix.PerfBitFreq
			a.Sample = t.Count
		case "s":
			a.Sample = t.Count * 1e9
		case "ms":
			a.Sample = t.Count * 1e6
		case "us":
			a.Sample = t.Count * 1e3
		default:
			a.Sample = t.Count
		}
	case "software":
		c, ok := softwareConfig[t.Func]
		if !ok {
			return a, fmt.Errorf("no software event %q", t.Func)
		}
		a.Config, a.Sample = c, t.Count
		if a.Sample == 0 {
			a.Sample = defaultPeriod[t.Func]
		}
	case "hardware":
		c, ok := hardwareConfig[t.Func]
		if !ok {
			return a, fmt.Errorf("no hardware event %q", t.Func)
		}
		a.Type, a.Config, a.Sample = unix.PERF_TYPE_HARDWARE, c, t.Count
		if a.Sample == 0 {
			a.Sample = defaultHardwarePeriod
		}
	case "watchpoint":
		return watchAttr(t)
	default:
		return a, fmt.Errorf("no way to attach %s probes", provider)
	}
	return a, nil
}

// watchAttr describes a hardware breakpoint (include/uapi/linux/hw_breakpoint.h): r 1, w 2, x 4.
func watchAttr(t check.Target) (unix.PerfEventAttr, error) {
	a := unix.PerfEventAttr{Type: unix.PERF_TYPE_BREAKPOINT, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{})), Bits: unix.PerfBitDisabled, Sample: 1}
	for _, c := range t.Func {
		switch c {
		case 'r':
			a.Bp_type |= 1
		case 'w':
			a.Bp_type |= 2
		case 'x':
			a.Bp_type |= 4
		}
	}
	a.Ext1, a.Ext2 = t.Offset, t.Count
	if a.Bp_type == 4 {
		a.Ext2 = 8
	}
	return a, nil
}

// watch remembers which events watch an address.
func (s *Session) watch(addr uint64, fd int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watched == nil {
		s.watched = map[uint64][]int{}
	}
	s.watched[addr] = append(s.watched[addr], fd)
}

// Unwatch ends the watchpoints at an address, in threads that began since, too; false if there are none.
func (s *Session) Unwatch(addr uint64) (bool, error) {
	s.mu.Lock()
	fds := s.watched[addr]
	delete(s.watched, addr)
	s.mu.Unlock()
	for _, fd := range fds {
		if err := unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_DISABLE, 0); err != nil {
			return true, fmt.Errorf("disable watchpoint at %#x: %w", addr, err)
		}
	}
	return len(fds) > 0, nil
}

// onlineCPUs reads /sys/devices/system/cpu/online.
func onlineCPUs() ([]int, error) {
	b, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		return nil, fmt.Errorf("online CPUs: %w", err)
	}
	return parseCPUs(string(b))
}

// parseCPUs reads a CPU list: "0-3,8".
func parseCPUs(s string) ([]int, error) {
	var out []int
	for i := 0; i < len(s) && s[i] >= '0' && s[i] <= '9'; {
		var lo, hi int
		lo, i = number(s, i)
		hi = lo
		if i < len(s) && s[i] == '-' {
			hi, i = number(s, i+1)
		}
		if hi-lo > 1<<16 {
			return nil, fmt.Errorf("CPU list %q", s)
		}
		for c := lo; c <= hi; c++ {
			out = append(out, c)
		}
		if i < len(s) && s[i] == ',' {
			i++
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("CPU list %q is empty", s)
	}
	return out, nil
}

func number(s string, i int) (int, int) {
	n := 0
	for ; i < len(s) && s[i] >= '0' && s[i] <= '9'; i++ {
		n = n*10 + int(s[i]-'0')
	}
	return n, i
}
