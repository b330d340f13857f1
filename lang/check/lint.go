package check

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/lang/syntax"
)

// syscallWrappers are the prefixes of the functions that take a system call's registers as their only argument
// (arch/*/include/asm/syscall_wrapper.h).
var syscallWrappers = []struct {
	prefix string
	regs   [6]string // where struct pt_regs keeps the arguments
}{
	{"__x64_sys_", [6]string{"di", "si", "dx", "r10", "r8", "r9"}},
	{"__ia32_sys_", [6]string{"bx", "cx", "dx", "si", "di", "bp"}},
	{"__ia32_compat_sys_", [6]string{"bx", "cx", "dx", "si", "di", "bp"}},
	{"__x64_compat_sys_", [6]string{"di", "si", "dx", "r10", "r8", "r9"}},
	{"__arm64_sys_", [6]string{"regs[0]", "regs[1]", "regs[2]", "regs[3]", "regs[4]", "regs[5]"}},
	{"__arm64_compat_sys_", [6]string{"regs[0]", "regs[1]", "regs[2]", "regs[3]", "regs[4]", "regs[5]"}},
}

// lint warns of programs that do something else than they look like.
func (c *checker) lint() {
	for _, x := range c.insts {
		x.lintWrapper()
		x.lintExitBuffer()
	}
}

// wrapper gives the system call whose wrapper all targets are, and where its registers are. Type information, where there
// is any, must agree: one parameter, a struct pt_regs *.
func (x *inst) wrapper() (call string, regs [6]string, ok bool) {
	if x.Provider.Name != "kprobe" && x.Provider.Name != "fentry" {
		return "", regs, false
	}
	for _, t := range x.Targets {
		found := false
		for _, w := range syscallWrappers {
			name, is := strings.CutPrefix(t.Func, w.prefix)
			if !is || t.Offset != 0 {
				continue
			}
			found, call, regs = true, name, w.regs
			break
		}
		if !found || !x.takesRegs(t) {
			return "", regs, false
		}
	}
	return call, regs, len(x.Targets) > 0
}

// takesRegs reports that nothing contradicts that a function takes a struct pt_regs * alone.
func (x *inst) takesRegs(t Target) bool {
	f, err := x.c.ctypes.Func("", t.Func)
	if err != nil {
		return true
	}
	if len(f.Params) != 1 {
		return false
	}
	p, ok := ctype.Strip(f.Params[0].Type).(*ctype.Ptr)
	if !ok {
		return false
	}
	s, ok := ctype.Strip(p.Elem).(*ctype.Struct)
	return ok && s.Name == "pt_regs"
}

// lintWrapper warns of kprobe:__x64_sys_read { arg1 }: the function has one argument, a pointer to the user program's registers.
func (x *inst) lintWrapper() {
	call, regs, ok := x.wrapper()
	if !ok || x.Provider.Name != "kprobe" {
		return
	}
	x.walk(func(n syntax.Node, parents []syntax.Node) {
		id, is := n.(*syntax.Ident)
		if !is || !isArgN(id.Name) {
			return
		}
		i, _ := strconv.Atoi(id.Name[3:])
		if i == 0 && castToRegs(parents) {
			return
		}
		if i >= len(regs) {
			return
		}
		fix := fmt.Sprintf("((struct pt_regs *)arg0)->%s", regs[i])
		d := x.c.warnf(id.Span, "%s is not argument %d of %s(): %s takes one argument, a pointer to struct pt_regs, in which the "+
			"arguments of the system call are", id.Name, i, call, x.Targets[0].Func)
		d.Hint = fmt.Sprintf("use %s, or tracepoint:syscalls:sys_enter_%s with %s, or fentry/kprobe on the function behind it (e.g. ksys_%s)",
			fix, call, x.tracepointArg(call, i), call)
		d.Fix = &syntax.Fix{Span: id.Span, Text: fix}
	})
}

// tracepointArg names argument i of a system call as its tracepoint does, if that is known.
func (x *inst) tracepointArg(call string, i int) string {
	t, _, err := x.c.world.Args(Target{Provider: "tracepoint", Module: "syscalls", Func: "sys_enter_" + call})
	if err == nil && t != nil {
		n := 0
		for _, f := range t.Fields {
			if strings.HasPrefix(f.Name, "common_") || strings.HasSuffix(f.Name, "syscall_nr") {
				continue
			}
			if n == i {
				return "args." + f.Name
			}
			n++
		}
	}
	return "args.…"
}

// castToRegs reports that the innermost parent casts to struct pt_regs *.
func castToRegs(parents []syntax.Node) bool {
	for i := len(parents) - 1; i >= 0; i-- {
		if c, ok := parents[i].(*syntax.Cast); ok {
			return c.Type.Name == "struct pt_regs" && c.Type.Ptr == 1
		}
	}
	return false
}

// isSyscallRegs reports a register of struct pt_regs at the wrapper of a system call: it holds what the user program passed.
func (x *inst) isSyscallRegs(s *ctype.Struct, member string) bool {
	if s.Name != "pt_regs" {
		return false
	}
	_, regs, ok := x.wrapper()
	return ok && slices.ContainsFunc(regs[:], func(r string) bool { return r == member || strings.HasPrefix(r, member+"[") })
}

// filledOnExit are the system calls that fill a buffer of the user program: the argument and its position.
var filledOnExit = map[string]struct {
	arg string
	pos int
}{
	"read": {"buf", 1}, "pread64": {"buf", 1}, "readlink": {"buf", 1}, "readlinkat": {"buf", 2}, "recvfrom": {"ubuf", 1},
	"getcwd": {"buf", 0}, "getdents": {"dirent", 1}, "getdents64": {"dirent", 1}, "getrandom": {"ubuf", 0}, "readv": {"vec", 1},
	"preadv": {"vec", 1}, "recvmsg": {"msg", 1}, "getxattr": {"value", 2}, "fgetxattr": {"value", 2},
}

// lintExitBuffer warns of reading a buffer at the entry of the system call that is to fill it.
func (x *inst) lintExitBuffer() {
	call := x.entered()
	buf, ok := filledOnExit[call]
	if !ok {
		return
	}
	x.walk(func(n syntax.Node, _ []syntax.Node) {
		c, is := n.(*syntax.Call)
		if !is || c.Name != "str" && c.Name != "buf" || len(c.Args) == 0 || !x.mentions(c.Args[0], buf.arg, buf.pos) {
			return
		}
		x.c.warnf(c.Span, "the buffer of %s() is filled on exit: here it holds what was in it before", call).Hint = fmt.Sprintf(
			"keep the pointer and read it on exit: tracepoint:syscalls:sys_enter_%s { @buf[tid] = args.%s; } "+
				"tracepoint:syscalls:sys_exit_%s /@buf[tid] && args.ret > 0/ { print(str(@buf[tid], args.ret)); delete(@buf, tid); }",
			call, buf.arg, call)
	})
}

// entered gives the system call at whose entry all targets are.
func (x *inst) entered() string {
	if call, _, ok := x.wrapper(); ok {
		return call
	}
	name := ""
	for _, t := range x.Targets {
		call, ok := strings.CutPrefix(t.Func, "sys_enter_")
		if !ok || t.Module != "syscalls" {
			call, ok = strings.CutPrefix(t.Func, "ksys_")
			ok = ok && x.Provider.Name != "kretprobe" && x.Provider.Name != "fexit"
		}
		if !ok || name != "" && name != call {
			return ""
		}
		name = call
	}
	return name
}

// mentions reports that e uses the argument of that name or position.
func (x *inst) mentions(e syntax.Expr, name string, pos int) bool {
	found := false
	syntax.Walk(e, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.Field:
			id, ok := n.X.(*syntax.Ident)
			found = found || ok && id.Name == "args" && n.Name == name
		case *syntax.Ident:
			found = found || n.Name == "arg"+strconv.Itoa(pos)
		}
		return true
	})
	return found
}

// walk visits the predicate and the body with the nodes above each.
func (x *inst) walk(f func(n syntax.Node, parents []syntax.Node)) {
	var parents []syntax.Node
	var visit func(n syntax.Node)
	visit = func(n syntax.Node) {
		f(n, parents)
		parents = append(parents, n)
		syntax.Children(n, visit)
		parents = parents[:len(parents)-1]
	}
	if x.Pred != nil {
		visit(x.Pred)
	}
	visit(x.Body)
}

// userParams are functions of the kernel whose parameters are user pointers where the kernel's type information has no
// __user marks, as kernels built with GCC have not: the positions.
var knownUserParams = map[string][]int{
	"vfs_read": {1}, "vfs_write": {1}, "ksys_read": {1}, "ksys_write": {1}, "do_sys_open": {1}, "do_sys_openat2": {1},
	"getname": {0}, "getname_flags": {0}, "getname_kernel": nil, "copy_from_user": {1}, "_copy_from_user": {1},
	"_copy_to_user": {0}, "do_faccessat": {1}, "vfs_statx": {1}, "strncpy_from_user": {1}, "user_path_at_empty": {1},
	"do_mount": {0}, "ksys_mount": {0, 1, 2}, "do_readlinkat": {1, 2}, "__sys_connect": {1}, "__sys_bind": {1},
	"__sys_sendto": {1, 4}, "__sys_recvfrom": {1, 4},
}

// userParams gives the positions of the parameters of a target that point to user memory, as text.
func (c *checker) userParams(t Target) string {
	var pos []string
	if f, err := c.ctypes.Func("", t.Func); err == nil {
		for i, p := range f.Params {
			if ptr, ok := ctype.Strip(p.Type).(*ctype.Ptr); ok && ptr.User() {
				pos = append(pos, strconv.Itoa(i))
			}
		}
	}
	for _, i := range knownUserParams[t.Func] {
		if s := strconv.Itoa(i); t.Offset == 0 && !slices.Contains(pos, s) {
			pos = append(pos, s)
		}
	}
	return strings.Join(pos, ",")
}

// userParam reports that argument number n points to user memory. Targets that differ in this are not in one instance.
func (x *inst) userParam(n string) bool {
	return x.Provider.Name == "kprobe" && len(x.Targets) > 0 && slices.Contains(strings.Split(x.c.userParams(x.Targets[0]), ","), n)
}
