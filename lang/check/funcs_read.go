package check

import (
	"maps"
	"slices"
	"strings"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/lang/types"
)

// readRows read memory, registers and names, or act on the traced task.
var readRows = []*Func{
	{Name: "str", Sig: "str(ptr [, int length])", Doc: "read a string", Min: 1, Max: 2, spec: "*i", Check: checkStr},
	{Name: "buf", Sig: "buf(data [, int length])", Doc: "read bytes", Min: 1, Max: 2, spec: "*i", Check: checkBuf},
	{Name: "kaddr", Sig: "kaddr(const string name)", Doc: "address of a kernel symbol", Min: 1, Max: 1, spec: "s", Check: checkKaddr},
	{Name: "percpu_kaddr", Sig: "percpu_kaddr(const string name [, int cpu])", Doc: "address of a per-CPU symbol", Min: 1, Max: 2, spec: "si", Check: checkKaddr},
	{Name: "uaddr", Sig: "uaddr(const string name)", Doc: "address of a symbol of the traced program", Min: 1, Max: 1, spec: "s", Check: checkUaddr},
	{Name: "ksym", Sig: "ksym(addr)", Doc: "kernel symbol at an address", Min: 1, Max: 1, Check: checkSym},
	{Name: "usym", Sig: "usym(addr)", Doc: "user symbol at an address", Min: 1, Max: 1, Check: checkSym},
	{Name: "kptr", Sig: "kptr(ptr)", Doc: "mark a kernel pointer", Min: 1, Max: 1, Check: checkSpace},
	{Name: "uptr", Sig: "uptr(ptr)", Doc: "mark a user pointer", Min: 1, Max: 1, Check: checkSpace},
	{Name: "reg", Sig: "reg(const string name)", Doc: "read a register", Min: 1, Max: 1, spec: "s", needs: Regs, Check: checkReg},
	{Name: "macaddr", Sig: "macaddr(char addr[6])", Doc: "hardware address", Min: 1, Max: 1, Check: checkMac},
	{Name: "ntop", Sig: "ntop([int af, ] int|char[4]|char[16] addr)", Doc: "IP address", Min: 1, Max: 2, Check: checkNtop},
	{Name: "path", Sig: "path(struct path * [, const int size])", Doc: "full path", Min: 1, Max: 2, spec: "*I", Check: checkPath},
	{Name: "cgroup_path", Sig: "cgroup_path(int id [, const string filter])", Doc: "path of a cgroup", Min: 1, Max: 2, spec: "is", ret: &types.Type{Kind: types.CgroupPath, Size: 16}},
	{Name: "socket_cookie", Sig: "socket_cookie(struct sock *)", Doc: "cookie of a socket", Min: 1, Max: 1, spec: "p", Check: checkSock},
	{Name: "override", Sig: "override(int rc)", Doc: "make the probed function return rc", Min: 1, Max: 1, Unsafe: true, Void: true, spec: "i", Check: checkOverride},
	{Name: "signal", Sig: "signal(const string name | int number)", Doc: "send a signal to the process", Min: 1, Max: 1, Unsafe: true, Void: true, Check: checkSignal},
	{Name: "signal_thread", Sig: "signal_thread(const string name | int number)", Doc: "send a signal to the thread", Min: 1, Max: 1, Unsafe: true, Void: true, Check: checkSignal},
	{Name: "write_user", Sig: "write_user(dst, src, int len)", Doc: "write to user memory", Min: 3, Max: 3, Unsafe: true, spec: "**i", quiet: true, ret: types.BoolT},
}

// checkStr reads a string; of a positional parameter it makes a literal.
func checkStr(c *Call) *types.Type {
	if s, ok := c.paramText(); ok {
		if n, given := c.constant(1); given && n.Int >= 0 && int64(len(s)) > n.Int {
			s = s[:n.Int]
		}
		if len(c.Args) == 1 || c.T[1].Lit {
			return c.x.known(c.Expr, Const{Str: s, IsStr: true})
		}
	}
	t := c.T[0]
	if t.Kind != types.String && !isInt(t) && t.Kind != types.Ptr && !isCharArray(t) {
		c.errorf("str() expects a string, integer or a pointer type as first argument (%v provided)", t)
		return types.NoneT
	}
	size := c.x.c.cfg.StrSize()
	if n, ok := c.constant(1); ok {
		switch {
		case n.Int < 0:
			c.errorf("str cannot use negative length (%d)", n.Int)
		case n.Int+1 > int64(size):
			c.warnf("length param (%d) is too long and will be shortened to %d bytes (see BPFTRACE_MAX_STRLEN)", n.Int, size)
		default:
			size = int(n.Int) + 1
		}
	}
	return types.StringT(size)
}

func isCharArray(t *types.Type) bool {
	return t.Kind == types.Array && t.Elem.Kind == types.Int && t.Elem.Size == 1
}

// paramText gives the text of a literal given to str: $1, $1 + 2, 5, "x".
func (c *Call) paramText() (string, bool) {
	text := func(e syntax.Expr) (string, bool) {
		if p, ok := e.(*syntax.Param); ok && p.N > 0 {
			if p.N > len(c.x.c.opts.Params) {
				return "", true
			}
			return c.x.c.opts.Params[p.N-1], true
		}
		return "", false
	}
	if s, ok := text(c.Args[0]); ok {
		return s, true
	}
	if b, ok := c.Args[0].(*syntax.Binary); ok && b.Op == syntax.ADD {
		s, isParam := text(b.X)
		if n, ok := c.x.constant(b.Y); ok && isParam && !n.IsStr && n.Int >= 0 {
			return s[min(int64(len(s)), n.Int):], true
		}
	}
	v, ok := c.constant(0)
	if ok && v.IsStr {
		return v.Str, true
	}
	_, isLit := c.Args[0].(*syntax.IntLit)
	return v.render("d"), ok && isLit
}

func checkBuf(c *Call) *types.Type {
	t := c.T[0]
	limit := c.x.c.cfg.MaxStrlen - 4
	if !isInt(t) && t.Kind != types.String && t.Kind != types.Ptr && t.Kind != types.Array {
		c.errorf("buf() expects an integer, string, or array argument but saw %s", kindWord(t))
		return types.NoneT
	}
	if len(c.Args) == 1 {
		if _, literal := c.constant(0); literal || t.Kind != types.Array && t.Kind != types.String {
			c.errorf("buf() expects a length argument for non-array type %s", kindWord(t))
			return types.NoneT
		}
		return types.BufferT(min(t.Size, limit))
	}
	if n, ok := c.constant(1); ok {
		if n.Int < 0 {
			c.errorf("buf cannot use negative length (%d)", n.Int)
			return types.NoneT
		}
		limit = int(min(n.Int, int64(limit)))
	}
	return types.BufferT(limit)
}

func checkKaddr(c *Call) *types.Type {
	name := c.str(0)
	addr, ok := c.x.c.world.Kallsyms(name)
	if !ok {
		c.errorf("Failed to resolve kernel symbol: %s", name)
	}
	if c.Func.Name == "percpu_kaddr" {
		return types.PtrTo(types.Uint64, types.Kernel)
	}
	if ok {
		c.x.Consts[c.Expr] = Const{Int: int64(addr), big: int64(addr) < 0}
	}
	return &types.Type{Kind: types.Int, Size: 8, Space: types.Kernel}
}

// checkUaddr gives a pointer to an integer of the symbol's size.
func checkUaddr(c *Call) *types.Type {
	x := c.x
	if !x.Provider.isUser() {
		c.errorf("uaddr can not be used with \"%s\" probes", x.Provider.Name)
		return types.NoneT
	}
	size := 8
	if len(x.Targets) > 0 {
		_, n, ok := x.c.world.Usyms(x.Targets[0].Module, c.str(0))
		if !ok {
			c.errorf("Could not resolve symbol: %s:%s", x.Targets[0].Module, c.str(0))
		}
		if n == 1 || n == 2 || n == 4 {
			size = int(n)
		}
	}
	return types.PtrTo(types.IntT(size, false), types.User)
}

func checkSym(c *Call) *types.Type {
	if t := c.T[0]; !isInt(t) && t.Kind != types.Ptr {
		c.errorf("%s() expects an integer or pointer argument", c.Func.Name)
		return types.NoneT
	}
	if c.Func.Name == "usym" {
		return types.USymT
	}
	return types.KSymT
}

// checkSpace gives the argument its address space.
func checkSpace(c *Call) *types.Type {
	t := *c.T[0]
	if !isInt(&t) && t.Kind != types.Ptr {
		c.errorf("%s() only supports integer or pointer arguments (%s provided)", c.Func.Name, kindWord(&t))
		return types.NoneT
	}
	t.Space = types.Kernel
	if c.Func.Name == "uptr" {
		t.Space = types.User
	}
	if isInt(&t) && t.Size < 8 {
		t.Size, t.Signed, t.Lit = 8, false, false
	}
	return &t
}

// registers of the two architectures that programs are made for.
var registers = []string{
	"r15", "r14", "r13", "r12", "rbp", "bp", "rbx", "bx", "r11", "r10", "r9", "r8", "rax", "ax", "rcx", "cx", "rdx", "dx", "rsi", "si",
	"rdi", "di", "orig_rax", "rip", "ip", "pc", "cs", "eflags", "rsp", "sp", "ss", "pstate", "lr", "fp",
}

func checkReg(c *Call) *types.Type {
	if name := c.str(0); !isRegister(name) {
		c.errorf("'%s' is not a valid register on this architecture", name).Hint = didYouMean(name, slices.Values(registers))
		return types.NoneT
	}
	return types.Uint64
}

// isRegister also knows arm64's r0 … r30.
func isRegister(name string) bool {
	if slices.Contains(registers, name) {
		return true
	}
	v, _, err := syntax.ParseInt(strings.TrimLeft(name, "rx"))
	return err == nil && len(name) > 1 && (name[0] == 'r' || name[0] == 'x') && v <= 30
}

func checkMac(c *Call) *types.Type {
	t := c.T[0]
	bytes := t.Kind == types.Array || t.Kind == types.String || t.Kind == types.Buffer
	v, known := c.constant(0)
	switch {
	case !isInt(t) && !bytes && t.Kind != types.Ptr:
		c.errorf("macaddr() only supports array or pointer arguments (%s provided)", kindWord(t))
	case known && v.IsStr:
		c.errorf("macaddr() does not support literal string arguments")
	case bytes && t.Size < 6:
		c.errorf("macaddr() argument must be at least 6 bytes in size")
	}
	return types.MACT
}

func checkNtop(c *Call) *types.Type {
	if len(c.Args) == 2 && !isInt(c.T[0]) {
		c.errorf("ntop() only supports int arguments (%s provided)", kindWord(c.T[0]))
	}
	t := c.T[len(c.T)-1]
	bytes := t.Kind == types.Array || t.Kind == types.String
	switch {
	case !isInt(t) && !bytes && t.Kind != types.Ptr:
		c.errorf("ntop() expects an integer or array argument, got %s", kindWord(t))
	case bytes && t.Size != 4 && t.Size != 16:
		c.errorf("ntop() argument must be 4 or 16 bytes in size")
	}
	return types.InetT
}

func checkPath(c *Call) *types.Type {
	switch c.x.Provider.Name {
	case "fentry", "fexit", "iter":
	default:
		c.errorf("The path function can only be used with 'fentry', 'fexit', 'iter' probes")
		return types.NoneT
	}
	if t := c.T[0]; t.Kind != types.Ptr && t.Kind != types.Struct {
		c.errorf("path() only supports pointer or C type argument (%s provided)", kindWord(t))
	}
	size := c.x.c.cfg.MaxStrlen
	if n, ok := c.constant(1); ok {
		if n.Int <= 0 || n.Int > 1<<20 {
			c.errorf("path: invalid size value, need non-negative literal")
			return types.NoneT
		}
		size = int(n.Int)
	}
	return types.StringT(size)
}

func checkSock(c *Call) *types.Type {
	p := c.x.Provider.Name
	if p != "fentry" && p != "fexit" && p != "iter" && p != "rawtracepoint" {
		c.errorf("socket_cookie can not be used with \"%s\" probes", p)
		return types.NoneT
	}
	if s, ok := ctype.Strip(c.T[0].Elem.C).(*ctype.Struct); !ok || s.Name != "sock" {
		c.errorf("socket_cookie() only supports 'struct sock *' as the argument ('%v' provided)", c.T[0])
	}
	return types.Uint64
}

func checkOverride(c *Call) *types.Type {
	if c.x.Provider.Name != "kprobe" {
		c.errorf("override() can only be used inside kprobes")
	}
	return types.VoidT
}

// signals are the signals of Linux by name, as on x86 and arm64.
var signals = map[string]int{
	"SIGHUP": 1, "SIGINT": 2, "SIGQUIT": 3, "SIGILL": 4, "SIGTRAP": 5, "SIGABRT": 6, "SIGBUS": 7, "SIGFPE": 8, "SIGKILL": 9,
	"SIGUSR1": 10, "SIGSEGV": 11, "SIGUSR2": 12, "SIGPIPE": 13, "SIGALRM": 14, "SIGTERM": 15, "SIGSTKFLT": 16, "SIGCHLD": 17,
	"SIGCONT": 18, "SIGSTOP": 19, "SIGTSTP": 20, "SIGTTIN": 21, "SIGTTOU": 22, "SIGURG": 23, "SIGXCPU": 24, "SIGXFSZ": 25,
	"SIGVTALRM": 26, "SIGPROF": 27, "SIGWINCH": 28, "SIGIO": 29, "SIGPWR": 30, "SIGSYS": 31,
}

// checkSignal gives the argument its number.
func checkSignal(c *Call) *types.Type {
	switch c.x.Provider.Name {
	case "begin", "end", "self", "test", "bench", "iter":
		c.errorf("%s can not be used with \"%s\" probes", c.Func.Name, c.x.Provider.Name)
		return types.NoneT
	}
	v, ok := c.constant(0)
	switch {
	case ok && v.IsStr:
		n, ok := signals[v.Str]
		if !ok {
			c.errorf("Invalid string for signal: %s", v.Str).Hint = didYouMean(v.Str, slices.Values(slices.Sorted(maps.Keys(signals))))
			return types.VoidT
		}
		c.x.Consts[c.Args[0]] = Const{Int: int64(n)}
		c.x.setType(c.Args[0], litType(uint64(n)))
	case ok && (v.Int < 1 || v.Int > 64):
		c.errorf("%d is not a valid signal, allowed range: [1,64]", v.Int)
	case !isInt(c.T[0]):
		c.errorf("%s() only supports string literals or integer arguments (%s provided)", c.Func.Name, kindWord(c.T[0]))
	}
	return types.VoidT
}
