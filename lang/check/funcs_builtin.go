package check

import (
	"strings"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/lang/types"
)

// commSize is TASK_COMM_LEN (include/linux/sched.h).
const commSize = 16

// defaultFrames is how many frames a stack keeps when no number is given (PERF_MAX_STACK_DEPTH), maxFrames how many it may.
const (
	defaultFrames = 127
	maxFrames     = 1024
)

// builtinRows are the values that may be named without parentheses.
var builtinRows = []*Func{
	{Name: "pid", Sig: "pid([curr_ns|init])", Doc: "process ID", Builtin: true, Max: 1, spec: "w", Check: checkNS},
	{Name: "tid", Sig: "tid([curr_ns|init])", Doc: "thread ID", Builtin: true, Max: 1, spec: "w", Check: checkNS},
	{Name: "uid", Sig: "uid", Doc: "user ID", Builtin: true, ret: types.Uint64},
	{Name: "gid", Sig: "gid", Doc: "group ID", Builtin: true, ret: types.Uint64},
	{Name: "comm", Sig: "comm([uint32 pid])", Doc: "name of the thread", Builtin: true, Max: 1, spec: "i", Check: checkComm},
	{Name: "nsecs", Sig: "nsecs([monotonic|boot|tai|sw_tai])", Doc: "time in ns", Builtin: true, Max: 1, spec: "w", Check: checkNsecs},
	{Name: "elapsed", Sig: "elapsed", Doc: "ns since the start of tracing", Builtin: true, ret: types.Uint64},
	{Name: "cpu", Sig: "cpu", Doc: "number of the CPU", Builtin: true, ret: types.Uint64},
	{Name: "ncpus", Sig: "ncpus", Doc: "number of CPUs", Builtin: true, ret: types.Uint64},
	{Name: "numaid", Sig: "numaid", Doc: "NUMA node", Builtin: true, ret: types.Uint32},
	{Name: "rand", Sig: "rand", Doc: "random number", Builtin: true, ret: types.Uint32},
	{Name: "jiffies", Sig: "jiffies", Doc: "jiffies of the kernel", Builtin: true, ret: types.Uint64},
	{Name: "curtask", Sig: "curtask", Doc: "struct task_struct of the task", Builtin: true, Check: checkCurtask},
	{Name: "cgroup", Sig: "cgroup", Doc: "ID of the cgroup", Builtin: true, ret: types.Uint64},
	{Name: "username", Sig: "username", Doc: "user name", Builtin: true, ret: types.UsernameT},
	{Name: "usermode", Sig: "usermode", Doc: "1 in user mode", Builtin: true, ret: types.Uint8},
	{Name: "cpid", Sig: "cpid", Doc: "PID of the program run with -c", Builtin: true, Check: checkCpid},
	{Name: "has_cpid", Sig: "has_cpid", Doc: "whether -c was given", Builtin: true, Check: checkHasCpid},
	{Name: "ppid", Sig: "ppid([struct task_struct *])", Doc: "PID of the parent", Builtin: true, Max: 1, spec: "p", ret: types.Uint32},
	{Name: "pcomm", Sig: "pcomm([struct task_struct *])", Doc: "name of the parent", Builtin: true, Max: 1, spec: "p", ret: types.StringT(commSize)},
	{Name: "leader_tid", Sig: "leader_tid([struct task_struct *])", Doc: "thread ID of the group leader", Builtin: true, Max: 1, spec: "p", ret: types.Uint32},
	{Name: "leader_comm", Sig: "leader_comm([struct task_struct *])", Doc: "name of the group leader", Builtin: true, Max: 1, spec: "p", ret: types.StringT(commSize)},
	{Name: "probe", Sig: "probe", Doc: "name of the probe", Builtin: true, Check: checkProbe},
	{Name: "probetype", Sig: "probetype", Doc: "type of the probe", Builtin: true, Check: checkProbeType},
	{Name: "func", Sig: "func", Doc: "name of the traced function", Builtin: true, Check: checkFunc},
	{Name: "args", Sig: "args", Doc: "arguments of the probe", Builtin: true, Check: checkArgsBuiltin},
	{Name: "retval", Sig: "retval", Doc: "value the traced function returns", Builtin: true, Check: checkRetval},
	{Name: "ctx", Sig: "ctx", Doc: "context of the program", Builtin: true, Check: checkCtx},
	{Name: "config", Sig: "config.name", Doc: "configuration of this run", Builtin: true, Check: checkConfig},
	{Name: "kstack", Sig: "kstack([mode, ][limit])", Doc: "kernel stack", Builtin: true, Max: 2, spec: "w*", Check: checkStack},
	{Name: "dw_ustack", Sig: "dw_ustack([mode, ][limit])", Doc: "user stack, by the program's call frame information", Max: 2, spec: "w*", Check: checkDWStack},
	{Name: "ustack", Sig: "ustack([mode, ][limit])", Doc: "user stack", Builtin: true, Max: 2, spec: "w*", Check: checkStack},
}

// newArgN makes the row of arg0, arg1, ….
func newArgN() *Func {
	return &Func{Name: "argN", Sig: "arg0, arg1, …", Doc: "argument of the traced function", Builtin: true, Check: checkArgN}
}

func checkNS(c *Call) *types.Type {
	if len(c.Args) == 0 {
		return types.Uint32
	}
	id, ok := c.isWord(0)
	switch {
	case !ok:
		c.errorf("%s() only supports curr_ns and init as the argument", c.Func.Name)
	case id.Name != "curr_ns" && id.Name != "init":
		c.x.errorf(id.Span, "Invalid PID namespace mode: %s (expects: curr_ns or init)", id.Name)
	}
	return types.Uint32
}

func checkComm(c *Call) *types.Type {
	if len(c.Args) == 1 && !c.mayCall("bpf_task_from_pid") {
		c.errorf("Syntax comm(PID) is not supported in this probe type yet. Type: %s", c.x.Provider.Name)
	}
	return types.StringT(commSize)
}

func checkNsecs(c *Call) *types.Type {
	if len(c.Args) == 0 {
		return types.Uint64
	}
	id, ok := c.isWord(0)
	if !ok {
		c.errorf("nsecs() only supports timestamp_mode arguments (%s provided)", kindWord(c.T[0]))
		return types.Uint64
	}
	switch id.Name {
	case "monotonic", "boot", "tai", "sw_tai":
	default:
		c.x.errorf(id.Span, "Invalid timestamp mode: %s", id.Name)
	}
	return types.Uint64
}

func checkCurtask(c *Call) *types.Type {
	if t, err := c.x.c.ctypes.ByName(ctype.KindStruct, "task_struct"); err == nil {
		return types.PtrTo(types.FromC(t, types.Kernel), types.Kernel)
	}
	return &types.Type{Kind: types.Int, Size: 8, Space: types.Kernel}
}

func checkCpid(c *Call) *types.Type {
	if !c.x.c.opts.HasChild {
		c.warnf("No child command (`-c`); cpid is zero")
	}
	return types.Uint64
}

func checkHasCpid(c *Call) *types.Type {
	c.x.Consts[c.Expr] = boolConst(c.x.c.opts.HasChild)
	return types.BoolT
}

// checkConfig gives a record of literals, see recordConst.
func checkConfig(c *Call) *types.Type {
	var fields []types.Field
	for _, f := range c.x.c.cfg.fields() {
		fields = append(fields, types.Field{Name: f.name, Type: f.value.typ()})
	}
	return types.RecordOf(fields)
}

// checkProbe gives the name of the probe: where the clause looks into it, the only one there is, else an index.
func checkProbe(c *Call) *types.Type {
	if c.x.ownName {
		return c.x.known(c.Expr, Const{Str: c.x.Targets[0].Name, IsStr: true})
	}
	return &types.Type{Kind: types.ProbeName, Size: 8}
}

func checkProbeType(c *Call) *types.Type {
	return c.x.known(c.Expr, Const{Str: c.x.Provider.kind(), IsStr: true})
}

func checkFunc(c *Call) *types.Type {
	p := c.x.Provider
	switch {
	case !p.has(FuncName):
		c.errorf("The func builtin can not be used with '%s' probes", p.Name)
		return types.NoneT
	case p.isUser():
		return types.USymT
	}
	return types.KSymT
}

func checkArgsBuiltin(c *Call) *types.Type {
	x := c.x
	switch {
	case !x.Provider.has(ArgsStruct):
		c.errorf("The args builtin can only be used with tracepoint, rawtracepoint, fentry/fexit, and uprobe probes (%s used here)", x.Provider.Name)
		return types.NoneT
	case x.Args == nil || len(x.Args.Fields) == 0:
		c.errorf("Cannot read function parameters")
		return types.NoneT
	}
	return x.Args
}

func checkRetval(c *Call) *types.Type {
	x := c.x
	switch {
	case !x.Provider.has(Retval):
		hint := ""
		if x.Provider.Name == "tracepoint" {
			hint = " (try to use args.ret instead)"
		}
		c.errorf("The retval builtin can only be used with 'kretprobe' and 'uretprobe' and 'fentry' probes%s", hint)
		return types.NoneT
	case x.Provider.Name != "fexit":
		return types.Uint64
	case x.Result == nil || x.Result.Kind == types.Void:
		c.errorf("Can't find a field $retval")
		return types.NoneT
	}
	return x.Result
}

// checkArgN gives register arguments as uint64; those that are known to be user pointers say so.
func checkArgN(c *Call) *types.Type {
	x := c.x
	name := c.Expr.(*syntax.Ident).Name
	if !x.Provider.has(ArgN) {
		c.errorf("The %s builtin can only be used with 'kprobes', 'uprobes' and 'usdt' probes", name)
		return types.NoneT
	}
	if x.userParam(strings.TrimPrefix(name, "arg")) {
		return &types.Type{Kind: types.Int, Size: 8, Space: types.User}
	}
	return types.Uint64
}

// ctxStructs are what ctx points at, by provider.
var ctxStructs = map[string]string{
	"kprobe": "pt_regs", "kretprobe": "pt_regs", "uprobe": "pt_regs", "uretprobe": "pt_regs", "usdt": "pt_regs",
	"profile": "bpf_perf_event_data", "interval": "bpf_perf_event_data", "software": "bpf_perf_event_data",
	"hardware": "bpf_perf_event_data", "watchpoint": "bpf_perf_event_data",
}

func checkCtx(c *Call) *types.Type {
	p := c.x.Provider
	name := ctxStructs[p.Name]
	switch {
	case p.Name == "tracepoint":
		c.errorf("Use args instead of ctx in tracepoint")
		return types.NoneT
	case !p.has(Ctx):
		c.errorf("The ctx builtin can not be used with '%s' probes", p.Name)
		return types.NoneT
	case p.Name == "iter" && len(c.x.Targets) > 0:
		name = "bpf_iter__" + c.x.Targets[0].Func
	}
	if t, err := c.x.c.ctypes.ByName(ctype.KindStruct, name); err == nil && name != "" {
		return types.PtrTo(types.FromC(t, types.BPF), types.BPF)
	}
	return types.PtrTo(nil, types.BPF)
}

// stackModes are the words for how a stack prints.
var stackModes = map[string]types.StackMode{
	"bpftrace": types.StackBpftrace, "perf": types.StackPerf, "raw": types.StackRaw, "build_id": types.StackBuildID,
}

// checkDWStack is checkStack for stacks that are walked by tables, which are made for processes known beforehand.
func checkDWStack(c *Call) *types.Type {
	if arch := c.x.c.opts.Arch; arch != "amd64" && arch != "" {
		c.errorf("dw_ustack is only available on x86_64, not on %s", arch)
	}
	if !c.x.c.opts.HasFrames {
		c.errorf("dw_ustack requires a target process").Hint = "name one with -p PID, -c COMMAND or --dwarf-pid PID"
	}
	switch cfg := c.x.c.cfg.UnstableDWUstack; {
	case cfg == "error":
		c.errorf("dw_ustack is an unstable feature, and unstable_dw_ustack is error").Hint = "config = { unstable_dw_ustack=enable }"
	case cfg != "enable" && c.x.c.opts.HasFrames:
		c.warnf("dw_ustack is an unstable feature").Hint = "config = { unstable_dw_ustack=enable } says that you know"
	}
	return checkStack(c)
}

func checkStack(c *Call) *types.Type {
	kind, mode, depth := types.KStack, c.x.c.cfg.StackMode, defaultFrames
	if c.Func.Name != "kstack" {
		kind = types.UStack
	}
	limit := 0
	if id, ok := c.isWord(0); ok {
		m, ok := stackModes[id.Name]
		if !ok {
			c.x.errorf(id.Span, "Error parsing stack mode: %s: invalid stack mode: %s", c.Func.Name, id.Name).Hint = "use bpftrace, perf, raw or build_id"
		}
		mode, limit = m, 1
	} else if len(c.Args) == 2 {
		c.errorf("Expected stack mode as first argument")
		limit = 1
	}
	if limit < len(c.Args) {
		v, ok := c.constant(limit)
		switch {
		case !ok || v.IsStr || v.Int < 0:
			c.errorf("%s: invalid limit value", c.Func.Name)
		case v.Int > maxFrames:
			c.errorf("%s([int limit]): limit shouldn't exceed %d, %d given", c.Func.Name, maxFrames, v.Int)
		case v.Int > 0:
			depth = int(v.Int)
		}
	}
	if mode == types.StackBuildID && c.Func.Name != "ustack" {
		if len(c.Args) > 0 {
			c.errorf("'build_id' stack mode can only be used for ustack")
		} else {
			c.warnf("'build_id' stack mode can only be used for ustack. Falling back to 'raw' mode.")
		}
		mode = types.StackRaw
	}
	return types.StackT(kind, mode, depth)
}
