package vm

// Target is the memory that the program's pointers point into: a recording's
// captured bytes, a dump, a guest. A read is whole or an error.
type Target interface {
	ReadKernel(p []byte, addr uint64) error
	ReadUser(p []byte, addr uint64) error // of the current task
}

// Env is "now" as a program sees it: the task, the CPU, the clocks, the stacks.
// The caller changes it between runs; nothing in it changes during one. The
// zero value is task 0 on CPU 0 at time 0.
type Env struct {
	Pid, Tgid uint32 // kernel's words: thread and process
	UID, GID  uint32
	Comm      string // at most 15 bytes are used
	Task      uint64 // address of the task_struct
	CgroupID  uint64

	// NSPid and NSTgid are what get_ns_current_pid_tgid gives for the pid
	// namespace (NSDev, NSIno); another namespace gives -EINVAL.
	NSPid, NSTgid uint32
	NSDev, NSIno  uint64

	CPU, NUMANode uint32

	Mono, Boot, Coarse, TAI uint64 // the clocks, in ns
	Jiffies                 uint64

	KernelStack, UserStack []uint64 // innermost first

	FuncIP, AttachCookie uint64
	FuncArgCnt           uint32 // fentry and fexit: how many words of the context are arguments
	IsReturn             bool   // bpf_session_is_return

	Seed uint64 // of get_prandom_u32; read by New

	// PerCPUOffset gives __per_cpu_offset[cpu]; nil means 0 for CPUs below Config.CPUs.
	PerCPUOffset func(cpu uint32) (uint64, bool)
	// Path names the struct path at an address, for d_path; nil, or false, is -EFAULT.
	Path func(addr uint64) (string, bool)
	// Symbol names an address for %ps, %pS and %pB; nil prints the number.
	Symbol func(addr uint64) string
}

// noTarget is the Target of a machine that was given none: nothing is readable.
type noTarget struct{}

func (noTarget) ReadKernel([]byte, uint64) error { return EFAULT }
func (noTarget) ReadUser([]byte, uint64) error   { return EFAULT }

// Fault says which kind of read of target memory failed.
type Fault uint8

// Reasons a read of target memory fails.
const (
	FaultLoad   Fault = iota // load instruction (PROBE_MEM); gave 0
	FaultNull                // load instruction from the first page; gave 0
	FaultKernel              // probe_read_kernel and the like; gave -EFAULT
	FaultUser                // probe_read_user and the like; gave -EFAULT
	numFaults
)

func (f Fault) String() string {
	return [...]string{"load", "null load", "kernel read", "user read"}[f]
}

// Stats counts what the machine did since New or ResetStats.
type Stats struct {
	Runs, Insns, HelperCalls uint64
	Faults                   [numFaults]uint64 // indexed by Fault
}

// Effect is something a program did to the system and a recording cannot: it is captured.
type Effect struct {
	Kind  string // "signal", "signal_thread" or "override_return"
	Value uint64
}
