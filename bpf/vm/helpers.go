package vm

import (
	"encoding/binary"

	"github.com/cilium/ebpf/asm"
)

// helperFunc executes a helper: arguments in r[1..5], result in r0. A helper
// that cannot be executed calls m.fail.
type helperFunc func(m *Machine, r *[16]uint64) uint64

type helper struct {
	id   asm.BuiltinFunc
	name string
	fn   helperFunc
}

// helpers is every helper the machine has. A new one is a new row.
var helpers = []helper{
	{asm.FnMapLookupElem, "map_lookup_elem", mapLookup},
	{asm.FnMapUpdateElem, "map_update_elem", mapUpdate},
	{asm.FnMapDeleteElem, "map_delete_elem", mapDelete},
	{asm.FnMapLookupPercpuElem, "map_lookup_percpu_elem", mapLookupPerCPU},
	{asm.FnForEachMapElem, "for_each_map_elem", forEachMapElem},
	{asm.FnLoop, "loop", loop},

	{asm.FnProbeRead, "probe_read", probeRead(guess)},
	{asm.FnProbeReadStr, "probe_read_str", probeReadStr(guess)},
	{asm.FnProbeReadKernel, "probe_read_kernel", probeRead(kernelSpace)},
	{asm.FnProbeReadKernelStr, "probe_read_kernel_str", probeReadStr(kernelSpace)},
	{asm.FnProbeReadUser, "probe_read_user", probeRead(userSpace)},
	{asm.FnProbeReadUserStr, "probe_read_user_str", probeReadStr(userSpace)},
	{asm.FnCopyFromUser, "copy_from_user", probeRead(userSpace)},

	{asm.FnKtimeGetNs, "ktime_get_ns", env(func(e *Env) uint64 { return e.Mono })},
	{asm.FnKtimeGetBootNs, "ktime_get_boot_ns", env(func(e *Env) uint64 { return e.Boot })},
	{asm.FnKtimeGetCoarseNs, "ktime_get_coarse_ns", env(func(e *Env) uint64 { return e.Coarse })},
	{asm.FnKtimeGetTaiNs, "ktime_get_tai_ns", env(func(e *Env) uint64 { return e.TAI })},
	{asm.FnJiffies64, "jiffies64", env(func(e *Env) uint64 { return e.Jiffies })},
	{asm.FnGetPrandomU32, "get_prandom_u32", prandom},
	{asm.FnGetSmpProcessorId, "get_smp_processor_id", env(func(e *Env) uint64 { return uint64(e.CPU) })},
	{asm.FnGetNumaNodeId, "get_numa_node_id", env(func(e *Env) uint64 { return uint64(e.NUMANode) })},
	{asm.FnGetCurrentPidTgid, "get_current_pid_tgid", env(func(e *Env) uint64 { return uint64(e.Tgid)<<32 | uint64(e.Pid) })},
	{asm.FnGetCurrentUidGid, "get_current_uid_gid", env(func(e *Env) uint64 { return uint64(e.GID)<<32 | uint64(e.UID) })},
	{asm.FnGetCurrentComm, "get_current_comm", currentComm},
	{asm.FnGetCurrentTask, "get_current_task", env(func(e *Env) uint64 { return e.Task })},
	{asm.FnGetCurrentTaskBtf, "get_current_task_btf", env(func(e *Env) uint64 { return e.Task })},
	{asm.FnGetCurrentCgroupId, "get_current_cgroup_id", env(func(e *Env) uint64 { return e.CgroupID })},
	{asm.FnGetNsCurrentPidTgid, "get_ns_current_pid_tgid", nsPidTgid},
	{asm.FnPerCpuPtr, "per_cpu_ptr", func(m *Machine, r *[16]uint64) uint64 { return m.perCPUPtr(r[1], uint32(r[2])) }},
	{asm.FnThisCpuPtr, "this_cpu_ptr", func(m *Machine, r *[16]uint64) uint64 { return m.perCPUPtr(r[1], m.env.CPU) }},

	{asm.FnGetFuncIp, "get_func_ip", env(func(e *Env) uint64 { return e.FuncIP })},
	{asm.FnGetAttachCookie, "get_attach_cookie", env(func(e *Env) uint64 { return e.AttachCookie })},
	{asm.FnGetFuncArg, "get_func_arg", funcArg},
	{asm.FnGetFuncRet, "get_func_ret", funcRet},
	{asm.FnGetFuncArgCnt, "get_func_arg_cnt", env(func(e *Env) uint64 { return uint64(e.FuncArgCnt) })},
	{asm.FnSendSignal, "send_signal", effect("signal", 1)},
	{asm.FnSendSignalThread, "send_signal_thread", effect("signal_thread", 1)},
	{asm.FnOverrideReturn, "override_return", effect("override_return", 2)},
	{asm.FnSpinLock, "spin_lock", nothing},
	{asm.FnSpinUnlock, "spin_unlock", nothing},

	{asm.FnRingbufOutput, "ringbuf_output", ringOutput},
	{asm.FnRingbufReserve, "ringbuf_reserve", ringReserve},
	{asm.FnRingbufSubmit, "ringbuf_submit", ringCommit(false)},
	{asm.FnRingbufDiscard, "ringbuf_discard", ringCommit(true)},
	{asm.FnRingbufQuery, "ringbuf_query", ringQuery},
	{asm.FnPerfEventOutput, "perf_event_output", perfOutput},
	{asm.FnSkbOutput, "skb_output", skbOutput},
	{asm.FnXdpOutput, "xdp_output", skbOutput},
	{asm.FnGetStackid, "get_stackid", getStackID},
	{asm.FnGetStack, "get_stack", getStack},
	{asm.FnGetTaskStack, "get_task_stack", getTaskStack},

	{asm.FnDPath, "d_path", dPath},

	{asm.FnStrncmp, "strncmp", strncmp},
	{asm.FnSnprintf, "snprintf", snprintf},
	{asm.FnTracePrintk, "trace_printk", tracePrintk},
	{asm.FnTraceVprintk, "trace_vprintk", traceVprintk},
}

// HelperName is the kernel's name of a helper the machine has, or "".
func HelperName(id asm.BuiltinFunc) string {
	for _, h := range helpers {
		if h.id == id {
			return h.name
		}
	}
	return ""
}

func nothing(*Machine, *[16]uint64) uint64 { return 0 }

func env(get func(*Env) uint64) helperFunc {
	return func(m *Machine, _ *[16]uint64) uint64 { return get(m.env) }
}

func effect(what string, arg int) helperFunc {
	return func(m *Machine, r *[16]uint64) uint64 {
		m.effects = append(m.effects, Effect{what, r[arg]})
		return 0
	}
}

// size is a helper's size argument as a length: a u32 in the kernel.
func size(v uint64) int { return int(uint32(v)) }

// prandom is splitmix64: deterministic for a seed.
func prandom(m *Machine, _ *[16]uint64) uint64 {
	m.rng += 0x9e3779b97f4a7c15
	z := m.rng
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return (z ^ z>>31) >> 32
}

func currentComm(m *Machine, r *[16]uint64) uint64 {
	b, ok := m.mem(r[1], size(r[2]), true)
	if !ok || len(b) == 0 {
		return EINVAL.ret()
	}
	clear(b)
	copy(b[:min(len(b)-1, 15)], m.env.Comm)
	return 0
}

func nsPidTgid(m *Machine, r *[16]uint64) uint64 {
	b, ok := m.mem(r[3], size(r[4]), true)
	if !ok {
		return 0
	}
	clear(b)
	if e := m.env; len(b) != 8 || e.NSDev != r[1] || e.NSIno != r[2] {
		return EINVAL.ret()
	}
	binary.LittleEndian.PutUint32(b, m.env.NSPid)
	binary.LittleEndian.PutUint32(b[4:], m.env.NSTgid)
	return 0
}

// perCPUPtr is the address of a per-CPU variable's copy, 0 if there is no such CPU.
func (m *Machine) perCPUPtr(p uint64, cpu uint32) uint64 {
	if m.env.PerCPUOffset != nil {
		if off, ok := m.env.PerCPUOffset(cpu); ok {
			return p + off
		}
		return 0
	}
	if int64(cpu) >= int64(m.cpus) {
		return 0
	}
	return p
}

// funcArg stores argument r2 of the traced function: a word of the context.
func funcArg(m *Machine, r *[16]uint64) uint64 {
	if r[2] >= uint64(m.env.FuncArgCnt) {
		return EINVAL.ret()
	}
	return m.ctxWord(r[1]+8*r[2], r[3])
}

// funcRet stores the return value: the word behind the arguments.
func funcRet(m *Machine, r *[16]uint64) uint64 {
	return m.ctxWord(r[1]+8*uint64(m.env.FuncArgCnt), r[2])
}

func (m *Machine) ctxWord(from, to uint64) uint64 {
	src, ok := m.mem(from, 8, false)
	if !ok {
		return 0
	}
	if dst, ok := m.mem(to, 8, true); ok {
		copy(dst, src)
	}
	return 0
}

// A space says which reader an address of a helper belongs to.
type space func(addr uint64) (user bool)

func kernelSpace(uint64) bool { return false }
func userSpace(uint64) bool   { return true }

// guess is the old probe_read's choice on machines with separate halves.
func guess(addr uint64) bool { return !owned(addr) && addr>>63 == 0 }

func probeRead(in space) helperFunc {
	return func(m *Machine, r *[16]uint64) uint64 {
		b, ok := m.mem(r[1], size(r[2]), true)
		if !ok || m.read(b, r[3], in(r[3])) {
			return 0
		}
		return EFAULT.ret()
	}
}

func probeReadStr(in space) helperFunc {
	return func(m *Machine, r *[16]uint64) uint64 {
		b, ok := m.mem(r[1], size(r[2]), true)
		if !ok {
			return 0
		}
		n, ok := m.readString(b, r[3], in(r[3]))
		if !ok {
			return EFAULT.ret()
		}
		return uint64(n)
	}
}

// dPath writes the name of the struct path r1 to r3 bytes at r2 and gives its length with the NUL (bpf_d_path in
// kernel/trace/bpf_trace.c); a name that does not fit is -ENAMETOOLONG.
func dPath(m *Machine, r *[16]uint64) uint64 {
	b, ok := m.mem(r[2], size(r[3]), true)
	if !ok || len(b) == 0 {
		return 0
	}
	var name string
	if ok = m.env.Path != nil; ok {
		name, ok = m.env.Path(r[1])
	}
	switch {
	case !ok:
		clear(b)
		m.countFault(false)
		return EFAULT.ret()
	case len(name) >= len(b):
		return ENAMETOOLONG.ret()
	}
	b[copy(b, name)] = 0
	return uint64(len(name) + 1)
}

// strncmp compares r1's r2 bytes with the string r3.
func strncmp(m *Machine, r *[16]uint64) uint64 {
	a, ok := m.mem(r[1], size(r[2]), false)
	if !ok {
		return 0
	}
	for i, c := range a {
		d, ok := m.mem(r[3]+uint64(i), 1, false)
		if !ok {
			return 0
		}
		if c != d[0] {
			if c < d[0] {
				return ^uint64(0)
			}
			return 1
		}
		if c == 0 {
			break
		}
	}
	return 0
}
