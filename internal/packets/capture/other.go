package capture

import (
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/answers/packet"
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/ir/emit"
)

// calls are the system calls that send or connect, with the argument that has the address, and how it is found there.
var calls = []struct {
	name string
	nr   int64
	addr int
	msg  bool // the argument is a struct msghdr, which begins with the address's address
}{
	{"sendto", unix.SYS_SENDTO, 4, false},
	{"sendmsg", unix.SYS_SENDMSG, 1, true},
	{"sendmmsg", unix.SYS_SENDMMSG, 1, true}, // struct mmsghdr begins with a msghdr
	{"connect", unix.SYS_CONNECT, 1, false},
	{"write", unix.SYS_WRITE, -1, false},
	{"writev", unix.SYS_WRITEV, -1, false},
}

// Errors that say "later" or "not a socket", not that something is lost (include/uapi/asm-generic/errno{-base,}.h).
var notLost = []int64{4, 9, 11, 14, 32, 88, 104, 106, 107, 114, 115, 512}

// refusals writes the program of system calls that ended: an error becomes a record. What was asked stands in the registers
// with which the process came into the kernel. All calls of the machine come here, which is still less work than that which
// perf does for a tracepoint of each call: what went well ends the program first.
func (c *code) refusals(targets int, args map[string]int) {
	u := c.p.Unit("rawtracepoint", targets, "sys_exit")
	ret := u.Arg(args["ret"])
	u.If(ir.SGe, ret, ir.Imm(0), func() { u.Return(ir.Imm(0)) }, nil)
	for _, e := range notLost {
		u.If(ir.Eq, ret, ir.Imm(-e), func() { u.Return(ir.Imm(0)) }, nil)
	}
	regs := u.Arg(args["regs"])
	nr, call := u.Int(regs, c.l.callNr.off, c.l.callNr.size, false), u.Var(ir.Imm(-1))
	for i, d := range calls {
		u.If(ir.Eq, nr, ir.Imm(d.nr), func() { u.Set(call, ir.Imm(int64(i))) }, nil)
	}
	u.If(ir.SLt, call, ir.Imm(0), func() { u.Return(ir.Imm(0)) }, nil)
	c.process(u)
	rec := u.Slot("record", recSize)
	u.Zero(rec, recStack)
	task := u.Call(ir.FnCurrentTaskBTF)
	arg := func(i int) ir.Val { return u.Int(regs, c.l.callArgs[i].off, 8, false) }
	sk := c.socket(u, task, arg(0))
	u.If(ir.Eq, sk, ir.Imm(0), func() { u.Return(ir.Imm(0)) }, nil)
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
	for i, d := range calls {
		if d.addr >= 0 {
			u.If(ir.Eq, call, ir.Imm(int64(i)), func() { c.address(u, b.At(refTo), arg(d.addr), d.msg) }, nil)
		}
	}
	c.send(u, rec, packet.Refused, ir.Imm(0))
}

// address copies the address that a process gave; its memory may be paged out, and stays zero then.
func (c *code) address(u *emit.Unit, to emit.Mem, at ir.Val, msg bool) {
	if msg {
		t := u.Slot("name", 8)
		u.Call(ir.FnProbeReadUser, u.Addr(t), ir.Imm(8), at)
		at = u.Load(t, 8, false)
	}
	u.If(ir.Ne, at, ir.Imm(0), func() {
		u.Call(ir.FnProbeReadUser, u.Addr(to), ir.Imm(16), at)
		u.If(ir.Eq, u.Load(to, 2, false), ir.Imm(afINET6), func() { u.Call(ir.FnProbeReadUser, u.Addr(to), ir.Imm(28), at) }, nil)
	}, nil)
}

// socket finds the struct sock behind a descriptor of the current task, 0 if there is none: files->fdt->fd[n]->private_data
// is a struct socket, if the sock that it has knows it.
func (c *code) socket(u *emit.Unit, task, fd ir.Val) ir.Val {
	fdt := u.Int(u.Int(task, c.l.taskFiles.off, 8, false), c.l.filesFdt.off, 8, false)
	sk := u.Var(ir.Imm(0))
	fd = u.Bin(ir.And, fd, u.Var(ir.Imm(0xffffffff)))
	u.If(ir.Lt, fd, u.Int(fdt, c.l.fdtMax.off, 4, false), func() {
		table := u.Int(fdt, c.l.fdtFd.off, 8, false)
		file := u.Int(u.Bin(ir.Add, table, u.Bin(ir.Shl, fd, ir.Imm(3))), 0, 8, false)
		socket := u.Int(file, c.l.filePrivate.off, 8, false)
		u.Set(sk, u.Int(socket, c.l.socketSk.off, 8, false))
		u.If(ir.Ne, u.Int(sk, c.l.sockSocket.off, 8, false), socket, func() { u.Set(sk, ir.Imm(0)) }, nil)
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
	c.send(u, rec, packet.XDPError, ir.Imm(0))
}
