package build

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/lang/types"
)

// lowering gives the value of a call; t is the type the checker found.
type lowering func(x *fn, c *syntax.Call, t *types.Type) value

// functions has a row for each function of the language that is not an aggregation. A builtin without parentheses is
// called with a Call that has no arguments.
func functions() map[string]lowering {
	m := map[string]lowering{
		"str": str, "buf": buf, "kstack": stack, "ustack": stack, "dw_ustack": dwStack, "ksym": ksym, "usym": usym, "ntop": ntop, "pton": pton,
		"macaddr": macaddr, "reg": reg, "strncmp": strncmp, "strlen": strlen, "strcontains": strcontains, "len": length,
		"has_key": hasKey, "delete": deleteElem, "nsecs": nsecs, "strftime": strftime, "strerror": same(types.Strerror), "signal_name": same(types.SignalName), "syscall_name": same(types.SyscallName),
		"find": find, "strstr": strstr, "str_concat": strConcat, "memcmp": memcmp, "percpu_kaddr": perCPUKaddr,
		"kptr": pointerIn(types.Kernel), "uptr": pointerIn(types.User), "bswap": bswap, "signal": signal, "signal_thread": signalThread,
		"override": override, "cgroup_path": cgroupPath, "username": username, "socket_cookie": socketCookie, "skboutput": skbOutput, "path": path,
		"uaddr": uaddr, "cgroupid": cgroupID, "write_user": writeUser, "assert": assert,
		"static_assert": nothing, "fail": nothing, "is_err": isErr, "container_of": containerOf, "func": funcName, "probe": probeName, "args": nil,
	}
	for name, l := range builtins() {
		m[name] = l
	}
	for name, l := range tasks() {
		m[name] = l
	}
	for name, l := range actions() {
		m[name] = l
	}
	return m
}

// callExpr evaluates a call.
func (x *fn) callExpr(c *syntax.Call) value {
	l := x.b.funcs[c.Name]
	if l == nil {
		x.b.errorf(c.Span, "%s() cannot be used here", c.Name)
		return scalarOf(types.Int64, ir.Imm(0))
	}
	return l(x, c, x.typeOf(c))
}

// builtin evaluates a bare name.
func (x *fn) builtin(name string, e *syntax.Ident, t *types.Type) value {
	if n, ok := argNumber(name); ok {
		if x.in.Provider.Name == "usdt" {
			return x.usdtArg(n, e.Span, t)
		}
		d := x.f.NewReg()
		x.add(ir.Ins{Op: ir.Arg, Dst: d, Imm: int64(n)})
		return scalarOf(t, ir.R(d))
	}
	l := x.b.funcs[name]
	if l == nil {
		x.b.errorf(e.Span, "%s cannot be used here", name)
		return scalarOf(types.Int64, ir.Imm(0))
	}
	return l(x, &syntax.Call{Span: e.Span, Name: name}, t)
}

// argNumber reads arg0, arg1, ….
func argNumber(name string) (int, bool) {
	digits, ok := strings.CutPrefix(name, "arg")
	n, err := strconv.Atoi(digits)
	return n, ok && err == nil && n >= 0
}

// callInto evaluates calls that can write their result where it is wanted.
func (x *fn) callInto(dst mem, t *types.Type, c *syntax.Call) bool {
	if c.Name != "str" || t.Kind != types.String {
		return false
	}
	if _, ok := x.in.Consts[c]; ok {
		return false
	}
	x.strInto(dst, t, c)
	return true
}

func same(kind types.Kind) lowering {
	return func(x *fn, c *syntax.Call, t *types.Type) value {
		return scalarOf(&types.Type{Kind: kind, Size: 8}, x.val(c.Args[0]))
	}
}

func pointerIn(s types.Space) lowering {
	return func(x *fn, c *syntax.Call, t *types.Type) value {
		v := x.expr(c.Args[0])
		if v.form == ref && !v.t.IsScalar() {
			v.space = s
			return v
		}
		n := *t
		n.Space = s
		return scalarOf(&n, x.scalarVal(v))
	}
}

// str reads a string: str(ptr [, length]).
func str(x *fn, c *syntax.Call, t *types.Type) value {
	if s, ok := x.literalOf(c.Args[0]); ok && len(c.Args) == 1 {
		return x.literal(s)
	}
	m := slotMem(x.temp(max(8, t.Size)))
	x.strInto(m, t, c)
	return inMem(t, m)
}

func (x *fn) strInto(dst mem, t *types.Type, c *syntax.Call) {
	loose := x.loose
	x.loose = false
	v := x.expr(c.Args[0])
	n := ir.Imm(int64(t.Size))
	if len(c.Args) > 1 {
		n = x.clamp(x.val(c.Args[1]), int64(t.Size))
	}
	switch {
	case !loose || v.form == direct:
		x.zero(dst, t.Size)
	case !n.IsImm() || n.Imm == 0: // none may be read
		x.zero(dst, 1)
	}
	switch {
	case v.t.Kind == types.String && v.form == direct:
		x.copyMem(dst, v.m, min(t.Size, v.t.Size))
		if len(c.Args) > 1 { // cut: the byte after the last is NUL
			x.readStr(dst, n, x.addr(v.m), types.Kernel)
		}
	case v.form == ref && (v.t.Kind == types.String || v.t.Kind == types.Array || v.t.Kind == types.Struct):
		x.readStr(dst, n, v.v, v.space)
	default:
		x.readStr(dst, n, x.scalarVal(v), x.space(v.t.Space))
	}
}

// clamp bounds a number the verifier must know the range of to 0 … limit.
func (x *fn) clamp(v ir.Val, limit int64) ir.Val {
	if v.IsImm() {
		return ir.Imm(min(max(v.Imm, 0), limit))
	}
	d := x.f.NewReg()
	in, out, end := x.block(), x.block(), x.block()
	x.mov(d, v)
	x.branch(ir.Le, ir.R(d), ir.Imm(limit), in, out)
	x.at(out)
	x.mov(d, ir.Imm(limit))
	x.jump(end)
	x.at(in)
	x.jump(end)
	x.at(end)
	return ir.R(d)
}

// buf reads bytes: a length and the data.
func buf(x *fn, c *syntax.Call, t *types.Type) value {
	m := slotMem(x.temp(t.Size))
	room := int64(t.Size - 4)
	v := x.expr(c.Args[0])
	n := ir.Imm(room)
	if len(c.Args) > 1 {
		n = x.clamp(x.val(c.Args[1]), room)
	} else if v.t.Size > 0 && v.t.Kind != types.Ptr {
		n = ir.Imm(min(room, int64(v.t.Size)))
	}
	x.zero(m, t.Size)
	x.store(m, 4, n)
	var rc ir.Val
	switch {
	case v.form == direct && v.t.Kind == types.Buffer:
		x.copyMem(m, v.m, min(t.Size, v.t.Size))
		return inMem(t, m)
	case v.form == direct:
		// No further than the object: behind it is another.
		rc = x.call(ir.FnProbeReadKernel, x.addr(m.at(4)), x.clamp(n, int64(v.t.Size)), x.addr(v.m))
	case v.form == ref && !v.t.IsScalar():
		rc = x.call(readHelper(v.space), x.addr(m.at(4)), n, v.v)
	default:
		rc = x.call(readHelper(x.space(v.t.Space)), x.addr(m.at(4)), n, x.scalarVal(v))
	}
	x.failed(rc, "probe_read")
	return inMem(t, m)
}

// Flags of bpf_get_stack: BPF_F_USER_STACK and BPF_F_USER_BUILD_ID.
const (
	userStack   = 1 << 8
	userBuildID = 1 << 11
)

func stack(x *fn, c *syntax.Call, t *types.Type) value {
	m := slotMem(x.temp(t.Size))
	flags := int64(0)
	x.store(m.at(8), 8, ir.Imm(0))
	if t.Kind == types.UStack {
		flags = userStack
		if t.Stack == types.StackBuildID {
			flags |= userBuildID
		}
		x.store(m.at(8), 8, x.pidTgid())
	}
	n := x.f.NewReg()
	at := m.at(16)
	x.add(ir.Ins{Op: ir.Stack, Dst: n, Slot: at.slot, Base: at.base, Off: at.off, Imm: int64(t.FrameSize() * t.Depth), A: ir.Imm(flags)})
	if t.Kind == types.KStack && x.in.Provider.Name == "tracepoint" {
		x.taskStack(n, at, t.Depth)
	}
	x.store(m, 8, ir.R(n))
	return inMem(t, m)
}

// taskStack walks the current task's kernel stack where the event gives none: on kernels such as 6.1 the events of
// system calls hand programs the user's registers, from which no kernel stack can be walked. This walk starts in the
// tracing machinery, whose frames the printing side leaves out.
func (x *fn) taskStack(n ir.Reg, at mem, depth int) {
	if x.lacks(ir.FnCurrentTaskBTF) {
		return
	}
	none, end := x.block(), x.block()
	x.branch(ir.SGt, ir.R(n), ir.Imm(0), end, none)
	x.at(none)
	task := x.call(ir.FnCurrentTaskBTF)
	x.mov(n, x.call(ir.FnGetTaskStack, task, x.addr(at), ir.Imm(int64(8*depth)), ir.Imm(0)))
	x.jump(end)
	x.at(end)
}

func ksym(x *fn, c *syntax.Call, t *types.Type) value {
	return scalarOf(types.KSymT, x.address(c.Args[0]))
}

// address gives the number behind a pointer or integer, or where a referenced object is.
func (x *fn) address(e syntax.Expr) ir.Val {
	v := x.expr(e)
	if v.form == ref && !v.t.IsScalar() {
		return v.v
	}
	return x.scalarVal(v)
}

func usym(x *fn, c *syntax.Call, t *types.Type) value { return x.usymOf(x.address(c.Args[0]), t) }

func (x *fn) usymOf(a ir.Val, t *types.Type) value {
	m := slotMem(x.temp(16))
	x.store(m, 8, a)
	x.store(m.at(8), 8, x.bin(ir.Shr, x.pidTgid(), ir.Imm(32)))
	return inMem(types.USymT, m)
}

func funcName(x *fn, c *syntax.Call, t *types.Type) value {
	d := x.f.NewReg()
	x.add(ir.Ins{Op: ir.FuncIP, Dst: d})
	if t.Kind == types.USym {
		return x.usymOf(ir.R(d), t)
	}
	if t.Kind == types.String && len(x.in.Targets) > 0 {
		return x.literal(x.in.Targets[max(0, x.u.Target)].Func)
	}
	return scalarOf(types.KSymT, ir.R(d))
}

// probeName gives the index of the name of the target that fired.
func probeName(x *fn, c *syntax.Call, t *types.Type) value {
	pt := &types.Type{Kind: types.ProbeName, Size: 8}
	targets := x.in.Targets
	if x.u.Target >= 0 {
		targets = targets[x.u.Target : x.u.Target+1]
	}
	if len(targets) == 0 {
		return scalarOf(pt, ir.Imm(int64(x.b.name(x.in.Provider.Name))))
	}
	if len(targets) == 1 {
		return scalarOf(pt, ir.Imm(int64(x.b.name(targets[0].Name))))
	}
	first := len(x.b.prog.Names)
	for i, t := range targets {
		x.b.prog.Names = append(x.b.prog.Names, t.Name)
		_ = i
	}
	x.u.Cookie = true
	d := x.f.NewReg()
	x.add(ir.Ins{Op: ir.Cookie, Dst: d})
	return scalarOf(pt, x.bin(ir.Add, ir.R(d), ir.Imm(int64(first))))
}

// uaddr is a constant: the address of a symbol of the traced binary.
func uaddr(x *fn, c *syntax.Call, t *types.Type) value {
	name, _ := x.literalOf(c.Args[0])
	if x.b.opts.Uaddr != nil && len(x.in.Targets) > 0 {
		if a, ok := x.b.opts.Uaddr(x.in.Targets[0].Module, name); ok {
			return scalarOf(t, ir.Imm(int64(a)))
		}
	}
	x.b.errorf(c.Span, "uaddr() cannot find the address of %s in a running process", name)
	return scalarOf(t, ir.Imm(0))
}

func cgroupID(x *fn, c *syntax.Call, t *types.Type) value {
	path, _ := x.literalOf(c.Args[0])
	if x.b.opts.CgroupID != nil {
		if id, ok := x.b.opts.CgroupID(path); ok {
			return scalarOf(types.Uint64, ir.Imm(int64(id)))
		}
	}
	x.b.errorf(c.Span, "cgroupid() cannot find the cgroup %s", path)
	return scalarOf(types.Uint64, ir.Imm(0))
}

// writeUser changes memory of the traced program: write_user(ptr, string, length).
func writeUser(x *fn, c *syntax.Call, t *types.Type) value {
	dst := x.val(c.Args[0])
	src := x.expr(c.Args[1])
	m := x.toMem(src)
	n := ir.Imm(int64(max(1, src.t.Size)))
	if len(c.Args) > 2 {
		n = x.clamp(x.val(c.Args[2]), int64(max(1, src.t.Size)))
	}
	rc := x.call(ir.FnProbeWriteUser, dst, x.addr(m), n)
	return scalarOf(types.Int64, rc)
}

// Address families as inet values carry them.
const (
	afInet  = 2
	afInet6 = 10
)

func ntop(x *fn, c *syntax.Call, t *types.Type) value {
	m := slotMem(x.temp(24))
	x.zero(m, 24)
	arg := c.Args[len(c.Args)-1]
	v := x.expr(arg)
	family := ir.Imm(afInet)
	if !v.t.IsScalar() && v.t.Size == 16 {
		family = ir.Imm(afInet6)
	}
	if len(c.Args) > 1 {
		family = x.val(c.Args[0])
	}
	x.store(m, 4, family)
	switch {
	case v.t.IsScalar():
		x.store(m.at(4), 4, x.scalarVal(v))
	case v.form == ref:
		x.read(m.at(4), min(16, v.t.Size), v.v, v.space)
	default:
		x.copyMem(m.at(4), x.toMem(v), min(16, v.t.Size))
	}
	return inMem(types.InetT, m)
}

func pton(x *fn, c *syntax.Call, t *types.Type) value {
	s, _ := x.literalOf(c.Args[0])
	a, err := netip.ParseAddr(s)
	if err != nil {
		x.b.errorf(c.Span, "pton() expects an string argument of an IPv4/IPv6 address, got %s", s)
		return inMem(t, slotMem(x.temp(16)))
	}
	b := a.AsSlice()
	m := slotMem(x.temp(max(8, len(b))))
	x.storeLiteral(m, string(b), len(b))
	return inMem(t, m)
}

func macaddr(x *fn, c *syntax.Call, t *types.Type) value {
	m := slotMem(x.temp(8))
	x.zero(m, 8)
	v := x.expr(c.Args[0])
	switch {
	case v.form == ref:
		x.read(m, 6, v.v, v.space)
	case v.t.Kind == types.Ptr:
		x.read(m, 6, x.scalarVal(v), x.space(v.t.Space))
	default:
		x.copyMem(m, x.toMem(v), min(6, v.t.Size))
	}
	return inMem(types.MACT, m)
}

func reg(x *fn, c *syntax.Call, t *types.Type) value {
	name, _ := x.literalOf(c.Args[0])
	d := x.f.NewReg()
	x.add(ir.Ins{Op: ir.CPUReg, Dst: d, Name: name})
	return scalarOf(t, ir.R(d))
}

// length is len(): frames of a stack, elements of an array or map.
func length(x *fn, c *syntax.Call, t *types.Type) value {
	if r, ok := c.Args[0].(*syntax.MapRef); ok && r.Key == nil && x.b.maps[r.Name] != nil {
		n := x.u.NewSlot("elements", 8)
		n.Shared, n.Big = true, true
		x.store(slotMem(n), 8, ir.Imm(0))
		cb := x.callback(4)
		cb.store(slotMem(n), 8, cb.bin(ir.Add, cb.load(slotMem(n), 8, false), ir.Imm(1)))
		cb.endCallback()
		x.call(ir.FnForEachMapElem, x.mapPtr(x.b.maps[r.Name]), x.funcPtr(cb.f), x.frame(), ir.Imm(0))
		return scalarOf(t, x.load(slotMem(n), 8, false))
	}
	v := x.expr(c.Args[0])
	switch v.t.Kind {
	case types.KStack, types.UStack:
		return scalarOf(t, x.bin(ir.Div, x.load(x.toMem(v), 8, false), ir.Imm(int64(v.t.FrameSize()))))
	case types.String:
		return scalarOf(t, x.strlen(x.asString(v)))
	case types.Buffer:
		return scalarOf(t, x.load(x.toMem(v), 4, false))
	}
	return scalarOf(t, ir.Imm(int64(v.t.Len)))
}

func hasKey(x *fn, c *syntax.Call, t *types.Type) value {
	r, _ := c.Args[0].(*syntax.MapRef)
	m := x.b.maps[r.Name]
	if m.Bucketed {
		return scalarOf(types.BoolT, x.anyBucket(m, c.Args[1], false))
	}
	return scalarOf(types.BoolT, x.truth(x.lookup(m, x.key(m, c.Args[1]))))
}

// deleteElem is delete(@x, k), delete(@x[k]) and delete(@x).
func deleteElem(x *fn, c *syntax.Call, t *types.Type) value {
	r, _ := c.Args[0].(*syntax.MapRef)
	if r == nil || x.b.maps[r.Name] == nil {
		return scalarOf(types.BoolT, ir.Imm(0))
	}
	m := x.b.maps[r.Name]
	key := r.Key
	if len(c.Args) > 1 {
		key = c.Args[1]
	}
	if m.Kind == ir.Array {
		x.zero(x.elem(m), m.ValueSize)
		return scalarOf(types.BoolT, ir.Imm(1))
	}
	if m.Kind == ir.PerCPUArray { // only the printing side reaches all CPUs
		id := x.b.event(&ir.Event{Kind: ir.EvClear, Map: m, Span: x.span})
		x.send(id, nil)
		return scalarOf(types.BoolT, ir.Imm(1))
	}
	if m.Bucketed {
		return scalarOf(types.BoolT, x.anyBucket(m, key, true))
	}
	rc := x.call(ir.FnMapDelete, x.mapPtr(m), x.addr(x.key(m, key)))
	yes, no := x.block(), x.block()
	return x.boolValue(func() { x.branch(ir.Eq, rc, ir.Imm(0), yes, no) }, yes, no)
}

// find is has_key that also gives the value: a variable keeps its value where the key is missing.
func find(x *fn, c *syntax.Call, t *types.Type) value {
	r, _ := c.Args[0].(*syntax.MapRef)
	v, _ := c.Args[2].(*syntax.Var)
	m := x.b.maps[r.Name]
	p := x.lookup(m, x.key(m, c.Args[1]))
	yes, no := x.block(), x.block()
	return x.boolValue(func() {
		some := x.block()
		x.branch(ir.Ne, p, ir.Imm(0), some, no)
		x.at(some)
		if dst := x.in.Vars[v]; dst != nil {
			at := mem{base: p.R}
			if dst.Type.IsScalar() {
				x.setVar(dst, x.convert(x.load(at, size8(m.ValueSize), m.Value.Signed), m.Value, dst.Type))
			} else {
				x.put(slotMem(x.place(dst).slot), dst.Type, inMem(m.Value, at))
			}
		}
		x.jump(yes)
	}, yes, no)
}

// socketCookie wants the pointer as the context has it: the verifier must know its type.
func socketCookie(x *fn, c *syntax.Call, t *types.Type) value {
	x.u.Typed = true
	return scalarOf(t, x.call(ir.FnGetSocketCookie, x.address(c.Args[0])))
}

func bswap(x *fn, c *syntax.Call, t *types.Type) value {
	v := x.expr(c.Args[0])
	d := x.f.NewReg()
	x.add(ir.Ins{Op: ir.Bswap, Dst: d, A: ir.R(x.reg(x.scalarVal(v))), Size: uint8(size8(v.t.Size))})
	return scalarOf(t, ir.R(d))
}

// path is bpf_d_path, which the verifier allows in few places.
func path(x *fn, c *syntax.Call, t *types.Type) value {
	m := slotMem(x.temp(t.Size))
	x.zero(m, t.Size)
	p := x.address(c.Args[0])
	x.span = c.Span // the verifier's refusal is about the call
	x.call(ir.FnDPath, p, x.addr(m), ir.Imm(int64(t.Size)))
	return inMem(t, m)
}
