package capture

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/answers/packet"
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/ir/emit"
	"github.com/fathom-trace/fathom/probe"
)

// call is a system call that sends or connects, with the argument that has the address, and how it is found there.
type call struct {
	name string
	nr   int64
	addr int
	msg  bool // the argument is a struct msghdr, which begins with the address's address
}

var calls = []call{
	{"sendto", unix.SYS_SENDTO, 4, false},
	{"sendmsg", unix.SYS_SENDMSG, 1, true},
	{"sendmmsg", unix.SYS_SENDMMSG, 1, true}, // struct mmsghdr begins with a msghdr
	{"connect", unix.SYS_CONNECT, 1, false},
	{"write", unix.SYS_WRITE, -1, false},
	{"writev", unix.SYS_WRITEV, -1, false},
	{"sendfile", unix.SYS_SENDFILE, -1, false},
	{"splice", unix.SYS_SPLICE, -1, false},
	{"io_uring_enter", unix.SYS_IO_URING_ENTER, -1, false},
}

// Errors that say "later" or "not a socket", not that something is lost (include/uapi/asm-generic/errno{-base,}.h).
var notLost = []int64{4, 9, 11, 14, 32, 88, 104, 106, 107, 114, 115, 512}

// Where it shows that what a process wants sent was refused (net/socket.c, security/security.c). All of them have a struct
// socket and a message, but for the tracepoint.
const (
	sendEnd   = "__sock_sendmsg"          // since Linux 6.6, and in earlier ones that are maintained; some compilers inline it
	sendTrace = "sock_send_length"        // tracepoint since Linux 6.3: of what the next lets pass
	sendAsk   = "security_socket_sendmsg" // whether security modules let it pass
	sendOld   = "sock_sendmsg"            // before
)

// connectEnd is the function through which all connections of processes go (net/socket.c, since Linux 5.5).
const connectEnd = "__sys_connect_file"

// lost ends the program unless a result says that something is lost.
func lost(u *emit.Unit, ret ir.Val) {
	u.If(ir.SGe, ret, ir.Imm(0), func() { u.Return(ir.Imm(0)) }, nil)
	for _, e := range notLost {
		u.If(ir.Eq, ret, ir.Imm(-e), func() { u.Return(ir.Imm(0)) }, nil)
	}
}

// number gives the index among calls of the system call that the current task is in, -1 if it is in another.
func (c *code) number(u *emit.Unit, regs ir.Val) ir.Val {
	nr, call := u.Int(regs, c.l.callNr.off, c.l.callNr.size, false), u.Var(ir.Imm(-1))
	for i, d := range calls {
		u.If(ir.Eq, nr, ir.Imm(d.nr), func() { u.Set(call, ir.Imm(int64(i))) }, nil)
	}
	return call
}

// sends writes the program of a place that tells how a send ended: an error becomes a record. No other system call notices.
func (c *code) sends(targets int, t probe.Target, args map[string]int) {
	u := c.p.Unit(t.Provider, targets, t.Func)
	var ret ir.Val
	if i, ok := args["ret"]; ok {
		ret = signed(u, u.Arg(i))
	} else {
		ret = signed(u, u.Result(len(args)))
	}
	lost(u, ret)
	c.process(u)
	regs := u.Call(ir.FnTaskPtRegs, u.Call(ir.FnCurrentTaskBTF))
	call := c.number(u, regs)
	u.If(ir.SLt, call, ir.Imm(0), func() { u.Return(ir.Imm(0)) }, nil) // the kernel's own
	if i, ok := args["sk"]; ok {
		c.refuse(u, u.Arg(i), ret, call, c.asked(u, regs, call))
		return
	}
	sk := u.Int(u.Arg(args["sock"]), c.l.socketSk.off, 8, false)
	c.refuse(u, sk, ret, call, func(to emit.Mem) {
		c.address(u, to, u.Int(u.Arg(args["msg"]), c.l.msgName.off, 8, false), ir.FnProbeReadKernel)
	})
}

// connects writes the same of the function that connects a socket.
func (c *code) connects(targets int, args map[string]int) {
	u := c.p.Unit("fexit", targets, connectEnd)
	ret := signed(u, u.Result(len(args)))
	lost(u, ret)
	c.process(u)
	call := slices.IndexFunc(calls, func(d call) bool { return d.nr == unix.SYS_CONNECT })
	c.refuse(u, c.owned(u, u.Arg(args["file"])), ret, ir.Imm(int64(call)), func(to emit.Mem) {
		c.address(u, to, u.Arg(args["address"]), ir.FnProbeReadKernel)
	})
}

// signed gives the number that an int in a register is.
func signed(u *emit.Unit, v ir.Val) ir.Val {
	return u.Bin(ir.Sar, u.Bin(ir.Shl, v, ir.Imm(32)), ir.Imm(32))
}

// refusals writes the program of system calls that ended, for kernels whose functions cannot be traced. What was asked stands
// in the registers with which the process came into the kernel. All calls of the machine come here, which is still less work
// than that which perf does for a tracepoint of each call: what went well ends the program first.
func (c *code) refusals(targets int, args map[string]int) {
	u := c.p.Unit("rawtracepoint", targets, "sys_exit")
	ret := u.Arg(args["ret"])
	lost(u, ret)
	regs := u.Arg(args["regs"])
	call := c.number(u, regs)
	u.If(ir.SLt, call, ir.Imm(0), func() { u.Return(ir.Imm(0)) }, nil)
	c.process(u)
	c.refuse(u, c.socket(u, u.Call(ir.FnCurrentTask), c.callArg(u, regs, 0)), ret, call, c.asked(u, regs, call))
}

// callArg gives argument i of the system call that a process came in with.
func (c *code) callArg(u *emit.Unit, regs ir.Val, i int) ir.Val {
	return u.Int(regs, c.l.callArgs[i].off, 8, false)
}

// asked copies the address that a process gave a system call.
func (c *code) asked(u *emit.Unit, regs, call ir.Val) func(to emit.Mem) {
	return func(to emit.Mem) {
		for i, d := range calls {
			if d.addr < 0 {
				continue
			}
			u.If(ir.Eq, call, ir.Imm(int64(i)), func() {
				at := c.callArg(u, regs, d.addr)
				if d.msg {
					t := u.Slot("name", 8)
					u.Call(ir.FnProbeReadUser, u.Addr(t), ir.Imm(8), at)
					at = u.Load(t, 8, false)
				}
				c.address(u, to, at, ir.FnProbeReadUser)
			}, nil)
		}
	}
}

// refuse writes the record of a system call that failed, unless sk is 0; address copies the address that the process gave.
func (c *code) refuse(u *emit.Unit, sk, ret, call ir.Val, address func(to emit.Mem)) {
	u.If(ir.Eq, sk, ir.Imm(0), func() { u.Return(ir.Imm(0)) }, nil)
	rec := u.Slot("record", recSize)
	u.Zero(rec, recStack)
	net := u.Int(sk, c.l.sockNet.off, 8, false)
	u.Store(rec.At(recNetns), 4, u.Int(net, c.l.netInum.off, 4, false))
	c.among(u, c.o.Netns, rec.At(recNetns))
	u.Store(rec.At(recSock), 8, sk)
	u.Store(rec.At(recReason), 4, u.Bin(ir.Sub, ir.Imm(0), ret))
	b := rec.At(recBytes)
	u.Store(b.At(refFamily), 2, u.Int(sk, c.l.sockFamily.off, 2, false))
	u.Store(b.At(refL4), 2, u.Int(sk, c.l.sockProtocol.off, c.l.sockProtocol.size, false))
	u.Store(b.At(refPort), 2, u.Int(sk, c.l.sockNum.off, 2, false))
	u.Store(b.At(refDport), 2, u.Int(sk, c.l.sockDport.off, 2, false))
	u.Read(b.At(refDaddr), 4, u.Add(sk, c.l.sockDaddr.off))
	if c.l.sockDaddr6.there() {
		u.Read(b.At(refDaddr6), 16, u.Add(sk, c.l.sockDaddr6.off))
	}
	u.Store(rec.At(recCall), 2, call)
	address(b.At(refTo))
	c.sendKind(u, rec, packet.Refused)
}

// address copies the address that a process gave, by a helper that reads its memory or the kernel's: a process's may be paged
// out, and stays zero then.
func (c *code) address(u *emit.Unit, to emit.Mem, at ir.Val, read int32) {
	u.If(ir.Ne, at, ir.Imm(0), func() {
		u.Call(read, u.Addr(to), ir.Imm(16), at)
		u.If(ir.Eq, u.Load(to, 2, false), ir.Imm(afINET6), func() { u.Call(read, u.Addr(to), ir.Imm(28), at) }, nil)
	}, nil)
}

// owned gives the struct sock of an open file, 0 if the file is no socket: its private_data is a struct socket, if the sock
// that it has knows it.
func (c *code) owned(u *emit.Unit, file ir.Val) ir.Val {
	socket := u.Int(file, c.l.filePrivate.off, 8, false)
	sk := u.Var(u.Int(socket, c.l.socketSk.off, 8, false))
	u.If(ir.Ne, u.Int(sk, c.l.sockSocket.off, 8, false), socket, func() { u.Set(sk, ir.Imm(0)) }, nil)
	return sk
}

// socket finds the struct sock behind a descriptor of the current task, files->fdt->fd[n], 0 if there is none.
func (c *code) socket(u *emit.Unit, task, fd ir.Val) ir.Val {
	fdt := u.Int(u.Int(task, c.l.taskFiles.off, 8, false), c.l.filesFdt.off, 8, false)
	sk := u.Var(ir.Imm(0))
	fd = u.Bin(ir.And, fd, u.Var(ir.Imm(0xffffffff)))
	u.If(ir.Lt, fd, u.Int(fdt, c.l.fdtMax.off, 4, false), func() {
		table := u.Int(fdt, c.l.fdtFd.off, 8, false)
		file := u.Int(u.Bin(ir.Add, table, u.Bin(ir.Shl, fd, ir.Imm(3))), 0, 8, false)
		u.Set(sk, c.owned(u, file))
	}, nil)
	return sk
}

// xdp writes the program of a tracepoint that tells of an XDP program's failure: there is no packet any more, but a device,
// a program and what became of it.
func (c *code) xdp(targets int, tp string, args map[string]int) {
	u := c.p.Unit("rawtracepoint", targets, tp)
	rec := u.Slot("record", recSize)
	u.Zero(rec, recStack)
	dev := u.Arg(args["dev"])
	u.Store(rec.At(recIfindex), 4, u.Int(dev, c.l.devIfindex.off, 4, false))
	u.Read(rec.At(recDev), 16, u.Add(dev, c.l.devName.off))
	net := u.Int(dev, c.l.devNet.off, 8, false)
	u.Store(rec.At(recNetns), 4, u.Int(net, c.l.netInum.off, 4, false))
	c.among(u, c.o.Netns, rec.At(recNetns))
	c.device(u, rec.At(recDev))
	aux := u.Int(u.Arg(args["xdp"]), c.l.progAux.off, 8, false)
	u.Store(rec.At(recArg), 8, u.Int(aux, c.l.auxID.off, 4, false))
	if i, ok := args["err"]; ok {
		u.Store(rec.At(recReason), 4, u.Arg(i))
	} else {
		u.Store(rec.At(recReason), 4, u.Arg(args["act"]))
	}
	if i, ok := args["map_type"]; ok {
		u.Store(rec.At(recLen), 4, u.Arg(i))
	}
	if i, ok := args["index"]; ok {
		u.Store(rec.At(recMark), 4, u.Arg(i))
	}
	c.sendKind(u, rec, packet.XDPError)
}
