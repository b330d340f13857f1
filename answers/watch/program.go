package watch

import (
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/ir/emit"
	"github.com/fathom-trace/fathom/netstate/changes"
	"github.com/fathom-trace/fathom/probe"
)

// How a change finds its author. The kernel puts the message that tells of a change into the queue of our own socket while it
// makes the change: a program that runs right then (in sock_def_readable, which wakes the socket's reader) sees the task that
// is at it, the kernel's stack above it, and the message itself, by which the two are joined. So one program answers for
// addresses, links, routes, neighbours, rules and modules alike, on every path that leads to a change, known to us or not.

// Layout of a record. All programs send the same; what is not known is zero.
const (
	recKind     = 0  // uint64: recordKind
	recTime     = 8  // uint64: CLOCK_BOOTTIME
	recPidTgid  = 16 // uint64
	recUIDGID   = 24 // uint64
	recCgroup   = 32 // uint64
	recComm     = 40 // 16 bytes
	recNetNS    = 56 // uint32: inode of the task's network namespace
	recFlags    = 60 // uint32: of the task
	recSocket   = 64 // uint64: its cookie
	recStackLen = 72 // int32, bytes
	recMsgLen   = 76 // uint32
	recParents  = 80 // parents of uint64 tgid, 16 bytes comm
	recMsg      = recParents + parents*parentSize
	recStack    = recMsg + changes.MsgBytes
	recSize     = recStack + 8*frames

	parents    = 4
	parentSize = 24
	frames     = 40
)

// In records of sysctls the message is a name and two values.
const (
	sysctlName = 0
	sysctlOld  = 96
	sysctlNew  = 176
	sysctlText = 80 // bytes of a value
)

// recordKind says which program sent a record.
type recordKind uint64

const (
	recMessage   recordKind = 1 + iota // a message was queued
	recLastRef                         // the last reference to a namespace was dropped: recNetNS is that namespace
	recNamespace                       // a task has come into a namespace of its own: recNetNS
	recSysctl                          // a sysctl is written
	recDAD                             // duplicate address detection of an IPv6 address was begun: it is the message
)

// code writes programs.
type code struct {
	l       *layout
	cookies []uint64
	cleanup uint64 // address of cleanup_net; 0 is of no interest, here and below
	dad     uint64 // address of addrconf_dad_work
	list    uint64 // address of the list of namespaces to be cleaned up
	args    map[string]int
}

// arg is an argument of what is traced: by its name where it has one, else by its place.
func (c *code) arg(u *emit.Unit, name string, place int) ir.Val {
	if i, ok := c.args[name]; ok {
		return u.Arg(i)
	}
	return u.Arg(place)
}

// big gives a constant of 64 bits, which not every instruction takes as an operand.
func big(u *emit.Unit, n uint64) ir.Val { return u.Var(ir.Imm(int64(n))) }

// message is the program at the queueing of a message.
func (c *code) message(u *emit.Unit) {
	sk := c.arg(u, "sk", 0)
	cookie := u.Int(sk, c.l.skCookie, 8, false)
	ours := u.Var(ir.Imm(0))
	for _, k := range c.cookies {
		u.If(ir.Eq, cookie, big(u, k), func() { u.Set(ours, ir.Imm(1)) }, nil)
	}
	u.If(ir.Eq, ours, ir.Imm(0), u.Leave, nil)
	rec := c.begin(u, recMessage)
	u.Store(rec.At(recSocket), 8, cookie)
	// The newest message of the queue. If the reader was faster it is the queue itself, which has no data.
	skb := u.Int(sk, c.l.skQueuePrev, 8, false)
	u.If(ir.Ne, skb, u.Add(sk, c.l.skQueuePrev-8), func() { // struct sk_buff_head: next, prev
		n := u.Var(u.Int(skb, c.l.skbLen, 4, false))
		u.If(ir.Gt, n, ir.Imm(changes.MsgBytes), func() { u.Set(n, ir.Imm(changes.MsgBytes)) }, nil)
		u.Store(rec.At(recMsgLen), 4, n)
		u.Call(ir.FnProbeReadKernel, u.Addr(rec.At(recMsg)), n, u.Int(skb, c.l.skbData, 8, false))
		u.If(ir.Ne, u.Int(sk, c.l.skQueuePrev, 8, false), skb, func() { // taken and freed meanwhile: what was read is anything
			u.Store(rec.At(recMsgLen), 4, ir.Imm(0))
		}, nil)
	}, nil)
	c.send(u, rec)
}

// work is the program at the queueing of work, which is then done by a thread of the kernel: who queued it is who is asked
// for. Whoever drops the last reference to a namespace queues cleanup_net, whoever adds an IPv6 address that is to be told
// after duplicate address detection queues addrconf_dad_work.
func (c *code) work(u *emit.Unit) {
	work := c.arg(u, "work", 2)
	fn := u.Int(work, c.l.workFunc, 8, false)
	if c.dad != 0 {
		u.If(ir.Eq, fn, big(u, c.dad), func() {
			rec := c.begin(u, recDAD)
			u.Store(rec.At(recMsgLen), 4, ir.Imm(16))
			u.Read(rec.At(recMsg), 16, u.Add(work, c.l.ifaAddr-c.l.ifaDADWork)) // struct delayed_work begins with its work
			c.send(u, rec)
		}, nil)
	}
	if c.cleanup != 0 {
		u.If(ir.Eq, fn, big(u, c.cleanup), func() {
			rec := c.begin(u, recLastRef)
			u.Store(rec.At(recNetNS), 4, ir.Imm(0))
			if c.list != 0 { // the namespace was put at the head of the list
				node := u.Int(big(u, c.list), 0, 8, false)
				u.Store(rec.At(recNetNS), 4, u.Int(node, c.l.netInum-c.l.netCleanup, 4, false))
			}
			c.send(u, rec)
		}, nil)
	}
	u.Leave()
}

// newTask is the program at the creation of a task (task_newtask), which may be in a namespace of its own.
func (c *code) newTask(u *emit.Unit) {
	const cloneNewNet = 0x40000000
	flags := c.arg(u, "clone_flags", 1)
	u.If(ir.Eq, u.Bin(ir.And, flags, ir.Imm(cloneNewNet)), ir.Imm(0), u.Leave, nil)
	rec := c.begin(u, recNamespace)
	u.Store(rec.At(recNetNS), 4, c.netns(u, c.arg(u, "task", 0)))
	c.send(u, rec)
}

// unshared is the program at the end of unshare(2). Whether the namespace is new is seen by its number.
func (c *code) unshared(u *emit.Unit) {
	ret := u.Field("ret", 16, 8, true) // behind the common fields and the number of the call, as in all sys_exit events
	u.If(ir.Ne, ret, ir.Imm(0), u.Leave, nil)
	c.send(u, c.begin(u, recNamespace))
}

// Helpers of programs on sysctls (include/uapi/linux/bpf.h).
const (
	fnSysctlGetName    = 101
	fnSysctlGetCurrent = 102
	fnSysctlGetNew     = 103
)

// sysctl is the program at accesses to sysctls (BPF_PROG_TYPE_CGROUP_SYSCTL). It allows all.
func (c *code) sysctl(u *emit.Unit) {
	ctx := u.Context()
	write := u.Load(u.Place(ctx), 4, false) // struct bpf_sysctl: write, file_pos
	u.If(ir.Eq, write, ir.Imm(0), func() { u.Return(ir.Imm(1)) }, nil)
	rec := c.begin(u, recSysctl)
	msg := rec.At(recMsg)
	u.Call(fnSysctlGetName, ctx, u.Addr(msg.At(sysctlName)), ir.Imm(sysctlOld), ir.Imm(0))
	u.Call(fnSysctlGetCurrent, ctx, u.Addr(msg.At(sysctlOld)), ir.Imm(sysctlText))
	u.Call(fnSysctlGetNew, ctx, u.Addr(msg.At(sysctlNew)), ir.Imm(sysctlText))
	u.Output(rec, recSize, emit.WakeIfIdle)
	u.Return(ir.Imm(1))
}

// begin starts a record with the task that is running.
func (c *code) begin(u *emit.Unit, kind recordKind) emit.Mem {
	rec := u.Slot("record", recSize)
	u.Zero(rec, recSize)
	u.Store(rec.At(recKind), 8, ir.Imm(int64(kind)))
	u.Store(rec.At(recTime), 8, u.Call(ir.FnKtimeGetBootNs))
	u.Store(rec.At(recPidTgid), 8, u.Call(ir.FnCurrentPidTgid))
	u.Store(rec.At(recUIDGID), 8, u.Call(ir.FnCurrentUidGid))
	task := u.Call(ir.FnCurrentTask)
	u.Read(rec.At(recComm), 16, u.Add(task, c.l.taskComm))
	u.Store(rec.At(recFlags), 4, u.Int(task, c.l.taskFlags, 4, false))
	u.Store(rec.At(recNetNS), 4, c.netns(u, task))
	cgroup := u.Int(u.Int(task, c.l.taskCgroups, 8, false), c.l.cssSetDfl, 8, false)
	u.Store(rec.At(recCgroup), 8, u.Int(u.Int(cgroup, c.l.cgrpKn, 8, false), c.l.knID, 8, false))
	p := u.Var(task)
	for i := range parents {
		u.Set(p, u.Int(p, c.l.taskParent, 8, false))
		at := rec.At(recParents + i*parentSize)
		u.Store(at, 8, u.Int(p, c.l.taskTgid, 4, false))
		u.Read(at.At(8), 16, u.Add(p, c.l.taskComm))
	}
	return rec
}

func (c *code) netns(u *emit.Unit, task ir.Val) ir.Val {
	net := u.Int(u.Int(task, c.l.taskNsproxy, 8, false), c.l.nsproxyNet, 8, false)
	return u.Int(net, c.l.netInum, 4, false)
}

// send ends a program with its record and the stack.
func (c *code) send(u *emit.Unit, rec emit.Mem) {
	u.Store(rec.At(recStackLen), 4, u.Stack(rec.At(recStack), 8*frames))
	u.Output(rec, recSize, emit.WakeIfIdle)
	u.Leave()
}

// source is one program with the places it may be attached to, the best first.
type source struct {
	name  string
	what  string // what is not known without it
	at    []probe.Target
	ring  int // bytes
	write func(*code, *emit.Unit)
}

func target(provider, module, fn string) probe.Target {
	return probe.Target{Provider: provider, Module: module, Func: fn, Name: provider + ":" + fn}
}

// messages says who changed something: since Linux 6.3 sock_def_readable has a tracepoint, before it must be probed itself.
func messages() source {
	return source{"message", "who changed something, and how", []probe.Target{
		target("rawtracepoint", "vmlinux", "sk_data_ready"), target("fentry", "vmlinux", "sock_def_readable"), target("kprobe", "", "sock_def_readable"),
	}, 4 << 20, (*code).message}
}

// works says who let go of a namespace, and who added an IPv6 address.
func works() source {
	return source{"work", "who queued what the kernel does later", []probe.Target{target("rawtracepoint", "vmlinux", "workqueue_queue_work")}, 1 << 18, (*code).work}
}

// namespaces says who made namespaces.
func namespaces() []source {
	return []source{
		{"newtask", "who made a namespace by clone", []probe.Target{target("rawtracepoint", "vmlinux", "task_newtask")}, 1 << 18, (*code).newTask},
		{"unshared", "who made a namespace by unshare", []probe.Target{target("tracepoint", "syscalls", "sys_exit_unshare")}, 1 << 18, (*code).unshared},
	}
}

// settings says who writes sysctls, in the cgroup at a path and those below.
func settings(cgroup string) source {
	return source{"sysctl", "who writes sysctls", []probe.Target{target("cgroup_sysctl", cgroup, "sysctl")}, 1 << 18, (*code).sysctl}
}
