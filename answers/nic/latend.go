package nic

import (
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/ir/emit"
)

// Who reads a datagram is seen when its packet is freed (consumed). Kernels that leave that to another CPU (since 6.18) tell
// only that somebody received from a socket: there the packets that a socket got are numbered, and those that were received.

// queued is when a socket has a packet: the one that this CPU received last, if that is one that was asked for.
func (c *latCode) queued(u *unit) {
	sk, t := u.Var(u.arg("sk")), now(u)
	skb := u.Var(c.last(u))
	dgram := u.Var(ir.Imm(0))
	u.If(ir.Eq, u.Int(sk, c.l.skType, 2, false), ir.Imm(sockDgram), func() { u.Set(dgram, ir.Imm(1)) }, nil)
	p := key(u, "skb", 8, skb)
	u.If(ir.Ne, skb, ir.Imm(0), func() {
		u.Lookup(c.packets, p, func(pk emit.Mem) {
			c.wake(u, pk, t)
			flags := u.Load(pk.At(pkDev), 4, false)
			u.If(ir.Ne, dgram, ir.Imm(0), func() { u.Store(pk.At(pkDev), 4, u.Bin(ir.Or, flags, ir.Imm(flQueued))) }, nil)
		}, func() { u.Set(skb, ir.Imm(0)) })
	}, nil)
	u.If(ir.Eq, dgram, ir.Imm(0), func() { u.Return(ir.Imm(0)) }, nil)
	c.freed(u)
	k := c.socket(u, sk)
	n := u.Var(ir.Imm(0))
	u.Lookup(c.fifo, k, func(m emit.Mem) {
		u.Set(n, u.Load(m, 8, false))
		inc(u, m)
	}, func() {
		// Those that wait already, without this one.
		u.Set(n, c.waiting(u, sk))
		u.If(ir.Ne, n, ir.Imm(0), func() { u.Set(n, u.Add(n, -1)) }, nil)
		v := u.Slot("numbers", 16)
		u.Store(v, 8, u.Add(n, 1))
		u.Store(v.At(8), 8, ir.Imm(0))
		u.Update(c.fifo, k, v)
	})
	u.Store(k.At(16), 8, n)
	early := u.Var(ir.Imm(0))
	u.Lookup(c.queue, k, func(m emit.Mem) { u.Set(early, u.Load(m, 8, false)) }, nil)
	u.If(ir.Set, early, ir.Imm(1), func() { // it was taken out before the socket told that it was there
		u.Delete(c.queue, k)
		u.Lookup(c.packets, p, func(pk emit.Mem) { c.read(u, pk, t) }, nil)
		u.Delete(c.packets, p)
	}, func() { u.Update(c.queue, k, p) })
}

// sockDgram is SOCK_DGRAM, msgPeek MSG_PEEK (include/linux/{net,socket}.h).
const (
	sockDgram = 2
	msgPeek   = 2
)

// socket is the key of a socket: its address, and its port, since another may get the address. There is room for a number.
func (c *latCode) socket(u *unit, sk ir.Val) emit.Mem {
	k := u.Slot("socket", 24)
	u.Store(k, 8, sk)
	u.Store(k.At(8), 8, u.Int(sk, c.l.skNum, 2, false))
	return k
}

// waiting is how many packets wait in a socket. Those of UDP are in two queues.
func (c *latCode) waiting(u *unit, sk ir.Val) ir.Val {
	n := u.Var(u.Int(sk, c.l.skQueue, 4, false))
	u.If(ir.Eq, u.Int(sk, c.l.skProtocol, 2, false), ir.Imm(ipUDP), func() {
		u.Set(n, u.Bin(ir.Add, n, u.Int(sk, c.l.udpQueue, 4, false)))
	}, nil)
	return n
}

// ipUDP is IPPROTO_UDP.
const ipUDP = 17

// freed ends the program on kernels where the end of a datagram is seen.
func (c *latCode) freed(u *unit) {
	element(u, c.seen, ir.Imm(0), func(m emit.Mem) {
		u.If(ir.Ne, u.Load(m, 8, false), ir.Imm(0), func() { u.Return(ir.Imm(0)) }, nil)
	})
}

// received is when somebody has received from a socket: the oldest packet of one for datagrams.
func (c *latCode) received(u *unit) {
	t := now(u)
	sk := u.Var(u.arg("sk"))
	u.If(ir.SLt, u.Bin(ir.Shl, u.arg("ret"), ir.Imm(32)), ir.Imm(0), func() { u.Return(ir.Imm(0)) }, nil)
	u.If(ir.Set, u.arg("flags"), ir.Imm(msgPeek), func() { u.Return(ir.Imm(0)) }, nil)
	c.freed(u)
	k := c.socket(u, sk)
	n := u.Var(ir.Imm(-1))
	early := u.Var(ir.Imm(0))
	u.Lookup(c.fifo, k, func(m emit.Mem) {
		u.Set(n, u.Load(m.At(8), 8, false))
		all := u.Var(u.Load(m, 8, false))
		u.If(ir.Ge, n, all, func() { u.Set(early, ir.Imm(1)) }, nil)
		inc(u, m.At(8))
		// If none is left, none of those before it is: what was lost count of is made good.
		u.If(ir.Eq, c.waiting(u, sk), ir.Imm(0), func() {
			u.If(ir.Lt, u.Add(n, 1), all, func() {
				u.Set(n, u.Add(all, -1))
				u.Store(m.At(8), 8, all)
			}, nil)
		}, nil)
	}, nil)
	u.If(ir.SLt, n, ir.Imm(0), func() { u.Return(ir.Imm(0)) }, nil)
	u.Store(k.At(16), 8, n)
	u.If(ir.Ne, early, ir.Imm(0), func() {
		u.Update(c.queue, k, key(u, "early", 8, ir.Imm(1)))
		u.Return(ir.Imm(0))
	}, nil)
	skb := u.Var(ir.Imm(0))
	u.Lookup(c.queue, k, func(m emit.Mem) { u.Set(skb, u.Load(m, 8, false)) }, nil)
	u.Delete(c.queue, k)
	p := key(u, "skb", 8, skb)
	u.Lookup(c.packets, p, func(pk emit.Mem) { c.read(u, pk, t) }, nil)
	u.Delete(c.packets, p)
}

// copied is when data of a packet are copied, which need not be those of a datagram.
func (c *latCode) copied(u *unit) {
	skb := u.Var(u.arg("skb"))
	k := key(u, "skb", 8, skb)
	u.Lookup(c.packets, k, func(pk emit.Mem) {
		t := now(u)
		u.If(ir.Set, u.Load(pk.At(pkDev), 4, false), ir.Imm(flQueued), func() { u.Return(ir.Imm(0)) }, nil)
		c.same(u, skb, pk)
		c.read(u, pk, t)
		u.Delete(c.packets, k)
	}, nil)
}

// same ends the program if the address of a packet has become that of another, which did not come from a device: not every
// way to free one is seen.
func (c *latCode) same(u *unit, skb ir.Val, pk emit.Mem) {
	iif := u.Int(skb, c.l.skbIif, 4, false)
	u.If(ir.Ne, iif, u.Load(pk.At(pkDev+4), 4, false), func() { u.Return(ir.Imm(0)) }, nil)
}

// consumed is when a packet is freed as it should be: by the task that read it.
func (c *latCode) consumed(u *unit) {
	skb := u.Var(u.arg("skb"))
	k := key(u, "skb", 8, skb)
	u.Lookup(c.packets, k, func(pk emit.Mem) {
		t := now(u)
		c.same(u, skb, pk)
		c.state(u, func(st emit.Mem) {
			busy := u.Bin(ir.Or, u.Load(st.At(cpRunAt), 8, false), u.Load(st.At(cpIRQStart), 8, false))
			// Threads of the kernel work off what no socket gets: ARP, IPv6's autoconfiguration.
			busy = u.Bin(ir.Or, busy, u.Bin(ir.And, u.Int(u.Call(ir.FnCurrentTask), c.l.taskFlags, 4, false), ir.Imm(pfKthread)))
			u.If(ir.Eq, busy, ir.Imm(0), func() {
				element(u, c.seen, ir.Imm(0), func(m emit.Mem) { u.Store(m, 8, ir.Imm(1)) })
				if c.ready { // it was taken out before the socket told that it was there
					c.wake(u, pk, t)
				}
				c.read(u, pk, t)
			}, nil)
		})
		u.Delete(c.packets, k)
	}, nil)
}

// pfKthread is PF_KTHREAD (include/linux/sched.h).
const pfKthread = 0x00200000

// read is the end of a packet's way.
func (c *latCode) read(u *unit, pk emit.Mem, t ir.Val) {
	begin, wake := u.Var(u.Load(pk.At(pkIRQ), 8, false)), u.Var(u.Load(pk.At(pkWake), 8, false))
	raise, recv := u.Load(pk.At(pkRaise), 8, false), u.Load(pk.At(pkRecv), 8, false)
	run, poll := u.Load(pk.At(pkRun), 8, false), u.Load(pk.At(pkPoll), 8, false)
	u.If(ir.Eq, wake, ir.Imm(0), func() { u.Set(wake, recv) }, nil)
	u.If(ir.Eq, begin, ir.Imm(0), func() { u.Set(begin, raise) }, nil)
	whole := u.Var(sub(u, t, begin))
	for _, s := range []struct {
		stage    int
		from, to ir.Val
	}{{stIRQ, begin, raise}, {stRaise, raise, run}, {stRun, run, poll}, {stPoll, poll, recv}, {stStack, recv, wake}, {stRead, wake, t}} {
		c.add(u, ir.Imm(int64(sumRead+s.stage)), sub(u, s.to, s.from))
	}
	c.tally(u, stRead, sub(u, t, wake))
	c.tally(u, stWhole, whole)
	la := u.Slot("late", laSize)
	u.Zero(la, laSize)
	c.reader(u, la, wake)
	c.late(u, la, pk, t, whole)
}

// reader says when the thread that reads began to run, if the packet woke it.
func (c *latCode) reader(u *unit, la emit.Mem, wake ir.Val) {
	pid := u.Var(u.Bin(ir.And, u.Call(ir.FnCurrentPidTgid), ir.Imm(1<<31-1)))
	u.Store(la.At(laPID), 8, pid)
	k := key(u, "pid", 8, pid)
	u.Lookup(c.woken, k, func(w emit.Mem) {
		ran := u.Var(u.Load(w.At(wokenRan), 8, false))
		u.If(ir.Gt, ran, wake, func() {
			u.Store(la.At(laRan), 8, ran)
			u.Copy(la.At(laPrev), w.At(wokenComm), 16)
			u.Copy(la.At(laIdle), w.At(wokenIdle), 16)
			c.tally(u, stSched, sub(u, ran, wake))
		}, nil)
		u.Delete(c.woken, k)
	}, nil)
}

// late tells of a packet that took too long, not more often than lateEvery.
func (c *latCode) late(u *unit, la, pk emit.Mem, t, whole ir.Val) {
	u.If(ir.Ge, whole, big(u, uint64(c.o.Slow)), func() {
		c.state(u, func(st emit.Mem) {
			last := u.Load(st.At(cpLate), 8, false)
			u.If(ir.Gt, sub(u, t, last), ir.Imm(lateEvery), func() {
				u.Store(st.At(cpLate), 8, t)
				u.Copy(la, pk, pkSize)
				u.Store(la.At(laRead), 8, t)
				u.Call(ir.FnCurrentComm, u.Addr(la.At(laComm)), ir.Imm(16))
				u.Output(la, laSize, emit.WakeNever)
			}, nil)
		})
	}, nil)
}
