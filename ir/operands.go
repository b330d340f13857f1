package ir

// Uses calls fn for every register an instruction reads, operands before the base of its memory.
func (n *Ins) Uses(fn func(Reg)) {
	if n.A.R != 0 {
		fn(n.A.R)
	}
	if n.B.R != 0 {
		fn(n.B.R)
	}
	if n.Base != 0 {
		fn(n.Base)
	}
	for _, a := range n.Args {
		if a.R != 0 {
			fn(a.R)
		}
	}
}

// Replace gives every register operand of n, but not the base of its memory, the value of fn.
func (n *Ins) Replace(fn func(Reg) Val) {
	if n.A.R != 0 {
		n.A = fn(n.A.R)
	}
	if n.B.R != 0 {
		n.B = fn(n.B.R)
	}
	for i, a := range n.Args {
		if a.R != 0 {
			n.Args[i] = fn(a.R)
		}
	}
}

// Accesses says if n reads or writes memory at its Slot or Base.
func (n *Ins) Accesses() bool {
	switch n.Op {
	case Load, Store, AtomicAdd, Zero, Copy, Stack, Output:
		return true
	}
	return false
}

// Width gives the bytes of memory that n reads or writes at its Slot or Base, 0 where a register says.
func (n *Ins) Width() int {
	switch n.Op {
	case Load, Store, AtomicAdd:
		return int(n.Size)
	case Zero, Copy, Stack:
		return int(n.Imm)
	case Output:
		if n.B.R == 0 {
			return int(n.Imm)
		}
	}
	return 0
}

// Removable says if n may be left out when nobody wants its result.
func (n *Ins) Removable() bool {
	switch n.Op {
	case Nop, Const, Mov, Bin, Ext, Bswap, Addr, Load, MapPtr, MapValue, FuncPtr, Ctx, Frame, Arg, Retval, Field, FuncIP, CPUReg, Cookie, Given:
		return true
	case Call:
		return Steady(n.Fn) || n.Fn == FnKtimeGetNs || n.Fn == FnKtimeGetBootNs || n.Fn == FnKtimeGetTaiNs || n.Fn == FnKtimeGetCoarseNs ||
			n.Fn == FnJiffies64
	}
	return false
}

// Steady says if a helper without arguments gives the same value each time during one run of a program: what is asked of
// the task and the CPU, which do not change under it.
func Steady(fn int32) bool {
	switch fn {
	case FnSmpProcessorID, FnCurrentPidTgid, FnCurrentUidGid, FnCurrentTask, FnCurrentTaskBTF, FnGetNumaNodeID, FnCurrentCgroupID:
		return true
	}
	return false
}
