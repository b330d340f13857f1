package build

import (
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/lang/types"
)

// word gives the lowering of a builtin that is one 64-bit number.
func wordOf(f func(x *fn) ir.Val) lowering {
	return func(x *fn, _ *syntax.Call, t *types.Type) value {
		if t.Kind == types.None || t.Kind == types.Void {
			t = types.Uint64
		}
		return scalarOf(t, f(x))
	}
}

func builtins() map[string]lowering {
	return map[string]lowering{
		"pid":      wordOf(func(x *fn) ir.Val { return x.bin(ir.Shr, x.pidTgid(), ir.Imm(32)) }),
		"tid":      wordOf(func(x *fn) ir.Val { return x.ext(x.pidTgid(), 4, false) }),
		"uid":      wordOf(func(x *fn) ir.Val { return x.ext(x.call(ir.FnCurrentUidGid), 4, false) }),
		"gid":      wordOf(func(x *fn) ir.Val { return x.bin(ir.Shr, x.call(ir.FnCurrentUidGid), ir.Imm(32)) }),
		"cpu":      wordOf(func(x *fn) ir.Val { return x.call(ir.FnSmpProcessorID) }),
		"numaid":   wordOf(func(x *fn) ir.Val { return x.call(ir.FnGetNumaNodeID) }),
		"rand":     wordOf(func(x *fn) ir.Val { return x.ext(x.call(ir.FnPrandomU32), 4, false) }),
		"curtask":  wordOf(func(x *fn) ir.Val { return x.call(ir.FnCurrentTask) }),
		"cgroup":   wordOf(func(x *fn) ir.Val { return x.call(ir.FnCurrentCgroupID) }),
		"jiffies":  wordOf(func(x *fn) ir.Val { return x.call(ir.FnJiffies64) }),
		"cpid":     wordOf(func(x *fn) ir.Val { return ir.Imm(int64(x.b.opts.ChildPID)) }),
		"ncpus":    wordOf(func(x *fn) ir.Val { return ir.Imm(int64(x.b.opts.NumCPU)) }),
		"elapsed":  wordOf(func(x *fn) ir.Val { return x.bin(ir.Sub, x.call(ir.FnKtimeGetBootNs), x.wide(int64(x.b.opts.StartNs))) }),
		"usermode": wordOf(usermode),
		"comm":     comm,
		"ctx": func(x *fn, _ *syntax.Call, t *types.Type) value {
			d := x.f.NewReg()
			x.add(ir.Ins{Op: ir.Ctx, Dst: d})
			return scalarOf(t, ir.R(d))
		},
		"retval": retval,
		"args":   argsStruct,
	}
}

// pidTgid gives tgid<<32 | tid, in the PID namespace fathom was started in.
func (x *fn) pidTgid() ir.Val {
	if x.b.opts.PIDNSIno == 0 {
		return x.call(ir.FnCurrentPidTgid)
	}
	s := slotMem(x.temp(8)) // struct bpf_pidns_info: u32 pid, u32 tgid
	x.zero(s, 8)
	x.call(ir.FnGetNsPidTgid, x.wide(int64(x.b.opts.PIDNSDev)), x.wide(int64(x.b.opts.PIDNSIno)), x.addr(s), ir.Imm(8))
	return x.load(s, 8, false)
}

// usermode asks the saved code segment (x86: the two low bits of cs).
func usermode(x *fn) ir.Val {
	d := x.f.NewReg()
	x.add(ir.Ins{Op: ir.CPUReg, Dst: d, Name: "cs"})
	return x.truth(x.bin(ir.And, ir.R(d), ir.Imm(3)))
}

// commLen is TASK_COMM_LEN.
const commLen = 16

func comm(x *fn, c *syntax.Call, _ *types.Type) value {
	m := slotMem(x.temp(commLen))
	if len(c.Args) > 0 {
		x.commOf(c, m)
		return inMem(types.StringT(commLen), m)
	}
	x.commInto(m, commLen)
	return inMem(types.StringT(commLen), m)
}

// commInto writes the command's name to size bytes. What is behind its NUL is cleared first: some kernels leave it as it
// was (6.1 does, 6.18 does not).
func (x *fn) commInto(dst mem, size int) {
	if !x.loose {
		x.zero(dst, size)
	}
	x.loose = false
	x.call(ir.FnCurrentComm, x.addr(dst), ir.Imm(commLen))
}

func retval(x *fn, _ *syntax.Call, t *types.Type) value {
	d := x.f.NewReg()
	n := 0
	if x.in.Args != nil {
		n = x.in.Args.Len
	}
	x.add(ir.Ins{Op: ir.Retval, Dst: d, Imm: int64(n)})
	if t.IsInt() {
		return scalarOf(t, x.ext(ir.R(d), t.Size, t.Signed))
	}
	return scalarOf(t, ir.R(d))
}

// argsStruct copies all arguments into a record, for print(args) and the like.
func argsStruct(x *fn, _ *syntax.Call, t *types.Type) value {
	var fs []types.Field
	for _, f := range t.Fields {
		ft := f.Type
		fs = append(fs, types.Field{Name: f.Name, Type: ft})
	}
	rec := types.RecordOf(fs)
	m := slotMem(x.temp(max(8, rec.Size)))
	x.zero(m, rec.Size)
	for i, f := range t.Fields {
		x.put(m.at(rec.Fields[i].Off), rec.Fields[i].Type, x.argValue(f))
	}
	return inMem(rec, m)
}

// nsecs reads a clock: boot time unless told otherwise.
func nsecs(x *fn, c *syntax.Call, t *types.Type) value {
	fn := int32(ir.FnKtimeGetBootNs)
	if len(c.Args) > 0 {
		switch clockName(c.Args[0]) {
		case "monotonic":
			fn = ir.FnKtimeGetNs
		case "tai":
			fn = ir.FnKtimeGetTaiNs
		case "sw_tai":
			return scalarOf(t, x.bin(ir.Add, x.call(ir.FnKtimeGetBootNs), x.wide(x.b.opts.TAIOffset)))
		}
	}
	return scalarOf(t, x.call(fn))
}

func clockName(e syntax.Expr) string {
	switch e := e.(type) {
	case *syntax.Ident:
		return e.Name
	case *syntax.StrLit:
		return e.Value
	}
	return ""
}

// strftime keeps format and time; the printing side knows calendars.
func strftime(x *fn, c *syntax.Call, t *types.Type) value {
	m := slotMem(x.temp(24))
	f, _ := x.literalOf(c.Args[0])
	x.store(m, 8, ir.Imm(int64(x.b.format(f))))
	x.store(m.at(8), 8, x.val(c.Args[1]))
	clock := int64(0)
	if n, ok := c.Args[1].(*syntax.Call); ok && n.Name == "nsecs" && len(n.Args) > 0 {
		clock = map[string]int64{"boot": 0, "monotonic": 1, "tai": 2, "sw_tai": 3}[clockName(n.Args[0])]
	}
	x.store(m.at(16), 8, ir.Imm(clock))
	return inMem(&types.Type{Kind: types.Strftime, Size: 24}, m)
}

func cgroupPath(x *fn, c *syntax.Call, t *types.Type) value {
	m := slotMem(x.temp(16))
	x.store(m, 8, ir.Imm(0))
	x.store(m.at(8), 8, x.val(c.Args[0]))
	return inMem(&types.Type{Kind: types.CgroupPath, Size: 16}, m)
}

func username(x *fn, c *syntax.Call, t *types.Type) value {
	if len(c.Args) > 0 {
		return scalarOf(types.UsernameT, x.val(c.Args[0]))
	}
	return scalarOf(types.UsernameT, x.ext(x.call(ir.FnCurrentUidGid), 4, false))
}

func signal(x *fn, c *syntax.Call, _ *types.Type) value {
	x.call(ir.FnSendSignal, x.signalNumber(c.Args[0]))
	return value{t: types.VoidT}
}

func signalThread(x *fn, c *syntax.Call, _ *types.Type) value {
	x.call(ir.FnSendSignalThread, x.signalNumber(c.Args[0]))
	return value{t: types.VoidT}
}

// signalNumber takes a number or a name with or without SIG.
func (x *fn) signalNumber(e syntax.Expr) ir.Val {
	s, ok := x.literalOf(e)
	if !ok {
		return x.val(e)
	}
	if len(s) > 3 && s[:3] == "SIG" {
		s = s[3:]
	}
	n, ok := signals[s]
	if !ok {
		x.b.errorf(e.Where(), "%s is not a valid signal", s)
	}
	return ir.Imm(n)
}

// signals numbers signals as Linux does on x86 and arm64 (include/uapi/asm-generic/signal.h).
var signals = map[string]int64{
	"HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "TRAP": 5, "ABRT": 6, "BUS": 7, "FPE": 8, "KILL": 9, "USR1": 10, "SEGV": 11,
	"USR2": 12, "PIPE": 13, "ALRM": 14, "TERM": 15, "STKFLT": 16, "CHLD": 17, "CONT": 18, "STOP": 19, "TSTP": 20, "TTIN": 21,
	"TTOU": 22, "URG": 23, "XCPU": 24, "XFSZ": 25, "VTALRM": 26, "PROF": 27, "WINCH": 28, "IO": 29, "PWR": 30, "SYS": 31,
}

func override(x *fn, c *syntax.Call, _ *types.Type) value {
	d := x.f.NewReg()
	x.add(ir.Ins{Op: ir.Ctx, Dst: d})
	x.call(ir.FnOverrideReturn, ir.R(d), x.val(c.Args[0]))
	return value{t: types.VoidT}
}
