package nic

import (
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/ir/emit"
)

// How a packet's way is put together. What happens on a CPU until the packet is there is known of the CPU only: the handler of
// an interrupt that raised NET_RX, its raise, the softirq's begin, the begin of a poll. netif_receive_skb gives all that to the
// packet. From there on it is followed by the address of its sk_buff until somebody copies its data.
//
// A poll's begin has no tracepoint: it is the end of the poll before (napi_poll comes after the poll), or the softirq's begin.
// Which interrupt a packet came with is known by its NAPI instance: the first poll of a run is of the NAPI that the interrupt
// scheduled which raised the softirq; that is remembered for later polls.

// netRX is NET_RX_SOFTIRQ (include/linux/interrupt.h).
const netRX = 3

// Histograms.
const (
	stIRQ   = iota // handler's entry → raise
	stRaise        // raise → run
	stRun          // run → poll
	stPoll         // poll → receive
	stStack        // receive → wake
	stRead         // wake → read
	stWhole        // all of it
	stSched        // of stRead: wake → its reader runs
	numStages
	// Sums only, of packets that were read: those of the stages, so that they can be compared with the whole.
	sumRead  = numStages
	latHists = 2 * numStages
)

// State of a CPU.
const (
	cpIRQStart  = 8 * iota // begin of the handler that runs; 0 if none
	cpIRQ                  // its interrupt
	cpHard                 // ns that handlers took so far
	cpSoft                 // ns that softirqs other than NET_RX took so far
	cpSoftStart            // begin of such a one that runs; 0 if none
	cpSoftVec              // the last such one
	cpPendIRQ              // NET_RX was raised, not run: the handler's begin; 0 if it was not raised by an interrupt
	cpPendIRQNo            // its interrupt
	cpPendAt               // when it was raised; 0 if it was not
	cpPendHard             // cpHard then
	cpPendSoft             // cpSoft then
	cpPendAgain            // raised by NET_RX itself: it had not finished
	cpRunAt                // NET_RX runs since; 0 if it does not
	cpRunIRQ               // the rest is of the raise that it runs for
	cpRunIRQNo
	cpRunRaise
	cpRunHard // ns of handlers between raise and run
	cpRunSoft // ns of other softirqs
	cpRunFlags
	cpRunVec // the last other softirq
	cpPoll   // begin of the poll
	cpPolls  // polls before, in this run
	cpSkb    // the packet that was received last in this run
	cpLate   // when a late packet was told last
	cpNet    // of NET_RX on this CPU: runs,
	cpNetD   // of those by ksoftirqd,
	cpAgain  // of those because it had not finished
	cpElse   // packets that were received outside of NET_RX
	cpIdle   // the idle state that it went into last, + 1; 0 if it was in none yet
	cpLeft   // when it left that; 0 if it has not
	cpSize
)

// Flags of a run and of a packet.
const (
	flDaemon  = 1 << iota // ksoftirqd ran it
	flAgain               // raised by NET_RX itself
	flNoIRQ               // no interrupt is known
	flQueued              // it is in fifo: read when its socket says so
	flRunning             // scheduled while NET_RX was running: it did not wait for that
)

// A packet on its way.
const (
	pkIRQ = 8 * iota // times; 0 is not known
	pkRaise
	pkRun
	pkPoll
	pkRecv
	pkWake
	pkWhere // interrupt << 32 | CPU
	pkDev   // ifindex << 32 | flags
	pkHard
	pkSoft
	pkVec
	pkPolls
	pkComm     // 16 bytes: who was interrupted, or ksoftirqd
	pkSize     = pkComm + 16
	laRead     = pkSize // behind it in records of late packets
	laRan      = laRead + 8
	laPID      = laRan + 8
	laComm     = laPID + 8   // 16 bytes: the reader
	laPrev     = laComm + 16 // 16 bytes: what ran before it
	laIdle     = laPrev + 16 // as wokenIdle
	laLeft     = laIdle + 8
	laSize     = laLeft + 8
	lateEvery  = 1000000 // ns between records of a CPU
	wokenAt    = 0       // value of woken: when it was woken,
	wokenRan   = 8       // when it ran,
	wokenComm  = 16      // and what ran before it
	wokenIdle  = 32      // that CPU << 32 | its cpIdle, and its cpLeft
	wokenSize  = 48
	vecCount   = 0 // value of vectors: sums of the handler's time,
	vecPackets = sumSize
	vecSize    = sumSize + 8
)

// latCode writes the programs of Latency.
type latCode struct {
	*code
	o       LatencyOptions
	cpu     *ir.Map // cpSize bytes for each CPU
	packets *ir.Map // by address of struct sk_buff
	woken   *ir.Map // by pid: threads that a packet woke
	irqOf   *ir.Map // NAPI id → interrupt
	first   *ir.Map // interrupt → begin of its handler since its NAPI was polled last
	fifo    *ir.Map // of sockets for datagrams: how many packets they got, how many were read
	queue   *ir.Map // their packets by number; 1: it was received already
	seen    *ir.Map // one word: is the end of a datagram seen?
	vectors *ir.Map // interrupt → time of handlers, packets
	ready   bool    // there is sk_data_ready
}

func newLatCode(c *code, o LatencyOptions) *latCode {
	l := &latCode{code: c, o: o}
	m := func(name string, kind ir.MapKind, key, value, most int) *ir.Map {
		return c.p.Map(ir.Map{Name: name, Kind: kind, KeySize: key, ValueSize: value, MaxEntries: most})
	}
	l.cpu = m(".cpu", ir.PerCPUArray, 4, cpSize, 1)
	l.packets = m(".packets", ir.LRUHash, 8, pkSize, 1<<14)
	l.woken = m(".woken", ir.LRUHash, 8, wokenSize, 1<<12)
	l.irqOf = m(".irqof", ir.LRUHash, 8, 8, 1<<12)
	l.first = m(".first", ir.LRUHash, 8, 8, 1<<12)
	l.fifo = m(".fifo", ir.LRUHash, 16, 16, 1<<10)
	l.queue = m(".queue", ir.LRUHash, 24, 8, 1<<14)
	l.seen = m(".seen", ir.Array, 4, 8, 1)
	l.vectors = m(".vectors", ir.PerCPUHash, 8, vecSize, 1<<11)
	return l
}

// write writes all of them.
func (c *latCode) write() {
	c.at("irq_handler_entry", []string{"irq"}, c.handlerEntry)
	c.at("irq_handler_exit", []string{"irq"}, c.handlerExit)
	c.at("softirq_raise", []string{"vec_nr"}, c.raise)
	c.at("softirq_entry", []string{"vec_nr"}, c.softEntry)
	c.at("softirq_exit", []string{"vec_nr"}, c.softExit)
	c.at("netif_receive_skb", []string{"skb"}, c.receive)
	c.at("napi_poll", []string{"napi", "work", "budget"}, c.polled)
	c.ready = c.at("sk_data_ready", []string{"sk"}, c.queued)
	c.at("sched_waking", []string{"p"}, c.waking)
	c.at("sched_switch", []string{"next", "prev"}, c.switched)
	c.at("cpu_idle", []string{"state"}, c.idle)
	c.at("skb_copy_datagram_iovec", []string{"skb"}, c.copied)
	c.at("consume_skb", []string{"skb"}, c.consumed)
	if c.ready {
		c.at("sock_recv_length", []string{"sk", "ret", "flags"}, c.received)
	}
}

func (c *latCode) state(u *unit, then func(emit.Mem)) { element(u, c.cpu, ir.Imm(0), then) }

// soFar is a sum of times, and what went by since the begin of the one that runs, if one does.
func soFar(u *unit, st emit.Mem, total, start int, t ir.Val) ir.Val {
	v := u.Var(u.Load(st.At(total), 8, false))
	s := u.Load(st.At(start), 8, false)
	u.If(ir.Ne, s, ir.Imm(0), func() { u.Set(v, u.Bin(ir.Add, v, sub(u, t, s))) }, nil)
	return v
}

func (c *latCode) handlerEntry(u *unit) {
	t := now(u)
	irq := u.Bin(ir.And, u.arg("irq"), ir.Imm(0x7fffffff))
	c.state(u, func(st emit.Mem) {
		u.Store(st.At(cpIRQStart), 8, t)
		u.Store(st.At(cpIRQ), 8, irq)
	})
	k := key(u, "irq", 8, irq)
	v := key(u, "time", 8, t)
	u.Lookup(c.first, k, func(m emit.Mem) {
		u.If(ir.Eq, u.Load(m, 8, false), ir.Imm(0), func() { u.Store(m, 8, t) }, nil)
	}, func() { u.Update(c.first, k, v) })
}

func (c *latCode) handlerExit(u *unit) {
	t := now(u)
	irq := u.Bin(ir.And, u.arg("irq"), ir.Imm(0x7fffffff))
	c.state(u, func(st emit.Mem) {
		start := u.Load(st.At(cpIRQStart), 8, false)
		u.If(ir.Ne, start, ir.Imm(0), func() {
			took := u.Var(sub(u, t, start))
			addTo(u, st.At(cpHard), took)
			u.Store(st.At(cpIRQStart), 8, ir.Imm(0))
			k := key(u, "irq", 8, irq)
			u.Lookup(c.vectors, k, func(m emit.Mem) { plus(u, m, took) }, func() {
				v := u.Slot("vector", vecSize)
				u.Zero(v, vecSize)
				u.Store(v.At(sumCount), 8, ir.Imm(1))
				u.Store(v.At(sumNS), 8, took)
				u.Store(v.At(sumMax), 8, took)
				u.Update(c.vectors, k, v)
			})
		}, nil)
	})
}

func (c *latCode) raise(u *unit) {
	u.If(ir.Ne, u.Bin(ir.And, u.arg("vec_nr"), ir.Imm(0xff)), ir.Imm(netRX), func() { u.Return(ir.Imm(0)) }, nil)
	t := now(u)
	c.state(u, func(st emit.Mem) {
		u.If(ir.Ne, u.Load(st.At(cpPendAt), 8, false), ir.Imm(0), func() { u.Return(ir.Imm(0)) }, nil)
		u.Store(st.At(cpPendAt), 8, t)
		start := u.Load(st.At(cpIRQStart), 8, false)
		u.Store(st.At(cpPendIRQ), 8, start)
		u.Store(st.At(cpPendIRQNo), 8, u.Load(st.At(cpIRQ), 8, false))
		u.Store(st.At(cpPendHard), 8, soFar(u, st, cpHard, cpIRQStart, t))
		u.Store(st.At(cpPendSoft), 8, soFar(u, st, cpSoft, cpSoftStart, t))
		again := u.Var(ir.Imm(0))
		u.If(ir.Eq, start, ir.Imm(0), func() {
			u.If(ir.Ne, u.Load(st.At(cpRunAt), 8, false), ir.Imm(0), func() { u.Set(again, ir.Imm(1)) }, nil)
		}, nil)
		u.Store(st.At(cpPendAgain), 8, again)
	})
}

// ksoftirqd is how the names of its threads begin, as a number of eight bytes.
const ksoftirqd = 'k' | 's'<<8 | 'o'<<16 | 'f'<<24 | 't'<<32 | 'i'<<40 | 'r'<<48 | 'q'<<56

func (c *latCode) softEntry(u *unit) {
	t := now(u)
	vec := u.Bin(ir.And, u.arg("vec_nr"), ir.Imm(0xff))
	c.state(u, func(st emit.Mem) {
		u.If(ir.Ne, vec, ir.Imm(netRX), func() {
			u.Store(st.At(cpSoftStart), 8, t)
			u.Store(st.At(cpSoftVec), 8, vec)
			u.Return(ir.Imm(0))
		}, nil)
		u.Store(st.At(cpRunAt), 8, t)
		u.Store(st.At(cpPoll), 8, t)
		u.Store(st.At(cpPolls), 8, ir.Imm(0))
		u.Store(st.At(cpSkb), 8, ir.Imm(0))
		for _, p := range [][2]int{{cpRunIRQ, cpPendIRQ}, {cpRunIRQNo, cpPendIRQNo}, {cpRunRaise, cpPendAt}, {cpRunVec, cpSoftVec}} {
			u.Store(st.At(p[0]), 8, u.Load(st.At(p[1]), 8, false))
		}
		u.Store(st.At(cpRunHard), 8, sub(u, u.Load(st.At(cpHard), 8, false), u.Load(st.At(cpPendHard), 8, false)))
		u.Store(st.At(cpRunSoft), 8, sub(u, u.Load(st.At(cpSoft), 8, false), u.Load(st.At(cpPendSoft), 8, false)))
		flags := u.Var(ir.Imm(0))
		inc(u, st.At(cpNet))
		comm := u.Slot("comm", 16)
		u.Call(ir.FnCurrentComm, u.Addr(comm), ir.Imm(16))
		u.If(ir.Eq, u.Load(comm, 8, false), big(u, ksoftirqd), func() {
			u.Set(flags, ir.Imm(flDaemon))
			inc(u, st.At(cpNetD))
		}, nil)
		u.If(ir.Ne, u.Load(st.At(cpPendAgain), 8, false), ir.Imm(0), func() {
			u.Set(flags, u.Bin(ir.Or, flags, ir.Imm(flAgain)))
			inc(u, st.At(cpAgain))
		}, nil)
		u.Store(st.At(cpRunFlags), 8, flags)
		u.Store(st.At(cpPendAt), 8, ir.Imm(0))
	})
}

func (c *latCode) softExit(u *unit) {
	t := now(u)
	vec := u.Bin(ir.And, u.arg("vec_nr"), ir.Imm(0xff))
	c.state(u, func(st emit.Mem) {
		u.If(ir.Eq, vec, ir.Imm(netRX), func() {
			u.Store(st.At(cpRunAt), 8, ir.Imm(0))
			u.Store(st.At(cpSkb), 8, ir.Imm(0))
			u.Return(ir.Imm(0))
		}, nil)
		start := u.Load(st.At(cpSoftStart), 8, false)
		u.If(ir.Ne, start, ir.Imm(0), func() { addTo(u, st.At(cpSoft), sub(u, t, start)) }, nil)
		u.Store(st.At(cpSoftStart), 8, ir.Imm(0))
	})
}

// polled is at the end of a poll.
func (c *latCode) polled(u *unit) {
	t := now(u)
	id := u.Int(u.arg("napi"), c.l.napiID, 4, false)
	u.Lookup(c.irqOf, key(u, "napi", 8, id), func(irq emit.Mem) {
		u.Lookup(c.first, key(u, "irq", 8, u.Load(irq, 8, false)), func(m emit.Mem) { u.Store(m, 8, ir.Imm(0)) }, nil)
	}, nil)
	c.state(u, func(st emit.Mem) {
		u.Store(st.At(cpPoll), 8, t)
		u.Store(st.At(cpSkb), 8, ir.Imm(0))
		inc(u, st.At(cpPolls))
	})
}

// receive gives a packet what is known of its CPU.
func (c *latCode) receive(u *unit) {
	t := now(u)
	skb := u.Var(u.arg("skb"))
	dev := u.Int(skb, c.l.skbDev, 8, false)
	index := u.Var(u.Int(dev, c.l.devIndex, 4, false))
	c.of(u, dev, index, c.o.Index, c.o.NetNS)
	napi := u.Var(u.Int(skb, c.l.skbNAPI, 4, false))
	pk := u.Slot("packet", pkSize)
	u.Zero(pk, pkSize)
	c.state(u, func(st emit.Mem) {
		run := u.Var(u.Load(st.At(cpRunAt), 8, false))
		u.If(ir.Eq, run, ir.Imm(0), func() { // a thread polls, or a task: not NET_RX
			inc(u, st.At(cpElse))
			u.Return(ir.Imm(0))
		}, nil)
		flags := u.Var(u.Load(st.At(cpRunFlags), 8, false))
		irq, irqAt := u.Var(ir.Imm(0)), u.Var(ir.Imm(0))
		raise := u.Var(u.Load(st.At(cpRunRaise), 8, false))
		c.interrupt(u, st, napi, irq, irqAt)
		u.If(ir.Eq, irqAt, ir.Imm(0), func() { u.Set(flags, u.Bin(ir.Or, flags, ir.Imm(flNoIRQ))) }, func() {
			u.If(ir.Gt, irqAt, raise, func() {
				// It came after the raise that the softirq runs for.
				u.If(ir.Gt, irqAt, run, func() {
					u.Set(run, irqAt)
					u.Set(flags, u.Bin(ir.Or, flags, ir.Imm(flRunning)))
				}, nil)
				u.Set(raise, irqAt)
			}, nil)
		})
		u.If(ir.Eq, raise, ir.Imm(0), func() { u.Set(raise, run) }, nil)
		poll := u.Var(u.Load(st.At(cpPoll), 8, false))
		u.If(ir.Lt, poll, run, func() { u.Set(poll, run) }, nil)
		u.Store(pk.At(pkIRQ), 8, irqAt)
		u.Store(pk.At(pkRaise), 8, raise)
		u.Store(pk.At(pkRun), 8, run)
		u.Store(pk.At(pkPoll), 8, poll)
		u.Store(pk.At(pkRecv), 8, t)
		cpu := u.Call(ir.FnSmpProcessorID)
		u.Store(pk.At(pkWhere), 4, cpu)
		u.Store(pk.At(pkWhere+4), 4, irq)
		u.Store(pk.At(pkDev), 4, flags)
		u.Store(pk.At(pkDev+4), 4, index)
		for _, p := range [][2]int{{pkHard, cpRunHard}, {pkSoft, cpRunSoft}, {pkVec, cpRunVec}, {pkPolls, cpPolls}} {
			u.Store(pk.At(p[0]), 8, u.Load(st.At(p[1]), 8, false))
		}
		u.Call(ir.FnCurrentComm, u.Addr(pk.At(pkComm)), ir.Imm(16))
		u.Store(st.At(cpSkb), 8, skb)
		u.If(ir.Ne, irqAt, ir.Imm(0), func() {
			c.tally(u, stIRQ, sub(u, raise, irqAt))
			u.Lookup(c.vectors, key(u, "irq", 8, irq), func(m emit.Mem) { inc(u, m.At(vecPackets)) }, nil)
		}, nil)
		c.tally(u, stRaise, sub(u, run, raise))
		c.tally(u, stRun, sub(u, poll, run))
		c.tally(u, stPoll, sub(u, t, poll))
		u.Update(c.packets, key(u, "skb", 8, skb), pk)
	})
}

// interrupt finds the interrupt of a packet's NAPI instance, and when it came; both stay 0 if there is none.
func (c *latCode) interrupt(u *unit, st emit.Mem, napi, irq, at ir.Val) {
	u.If(ir.Ne, napi, ir.Imm(0), func() { // the backlog has no number, and no interrupt
		k := key(u, "napi", 8, napi)
		u.If(ir.Eq, u.Load(st.At(cpPolls), 8, false), ir.Imm(0), func() {
			first := u.Load(st.At(cpRunIRQ), 8, false)
			u.If(ir.Ne, first, ir.Imm(0), func() { // this NAPI was scheduled by that interrupt
				u.Set(irq, u.Load(st.At(cpRunIRQNo), 8, false))
				u.Set(at, first)
				u.Update(c.irqOf, k, key(u, "number", 8, irq))
			}, nil)
		}, nil)
		u.If(ir.Eq, at, ir.Imm(0), func() {
			u.Lookup(c.irqOf, k, func(m emit.Mem) {
				u.Set(irq, u.Load(m, 8, false))
				u.Lookup(c.first, key(u, "irq", 8, irq), func(f emit.Mem) { u.Set(at, u.Load(f, 8, false)) }, nil)
			}, nil)
		}, nil)
	}, nil)
}

// last is the packet that this CPU received last in a run of NET_RX that it is in; else 0.
func (c *latCode) last(u *unit) ir.Val {
	skb := u.Var(ir.Imm(0))
	c.state(u, func(st emit.Mem) {
		// Not in the handler of an interrupt that came meanwhile.
		u.If(ir.Eq, u.Load(st.At(cpIRQStart), 8, false), ir.Imm(0), func() { u.Set(skb, u.Load(st.At(cpSkb), 8, false)) }, nil)
	})
	return skb
}

// current goes on with that packet.
func (c *latCode) current(u *unit, then func(u *unit, pk emit.Mem, t ir.Val)) {
	t := now(u)
	skb := c.last(u)
	u.If(ir.Eq, skb, ir.Imm(0), func() { u.Return(ir.Imm(0)) }, nil)
	u.Lookup(c.packets, key(u, "skb", 8, skb), func(pk emit.Mem) { then(u, pk, t) }, nil)
}

// wake is when a socket has the packet.
func (c *latCode) wake(u *unit, pk emit.Mem, t ir.Val) {
	u.If(ir.Eq, u.Load(pk.At(pkWake), 8, false), ir.Imm(0), func() {
		u.Store(pk.At(pkWake), 8, t)
		c.tally(u, stStack, sub(u, t, u.Load(pk.At(pkRecv), 8, false)))
	}, nil)
}

// waking remembers whom a packet woke.
func (c *latCode) waking(u *unit) {
	c.current(u, func(u *unit, pk emit.Mem, t ir.Val) {
		if !c.ready {
			c.wake(u, pk, t)
		}
		w := u.Slot("woken", wokenSize)
		u.Zero(w, wokenSize)
		u.Store(w.At(wokenAt), 8, t)
		u.Update(c.woken, key(u, "pid", 8, u.Int(u.arg("p"), c.l.taskPID, 4, false)), w)
	})
}

// switched is when a thread that was woken runs.
func (c *latCode) switched(u *unit) {
	pid := u.Int(u.arg("next"), c.l.taskPID, 4, false)
	u.Lookup(c.woken, key(u, "pid", 8, pid), func(w emit.Mem) {
		u.If(ir.Eq, u.Load(w.At(wokenRan), 8, false), ir.Imm(0), func() {
			u.Store(w.At(wokenRan), 8, u.Call(ir.FnKtimeGetNs))
			name := u.Slot("prev", 16)
			u.Read(name, 16, u.Add(u.arg("prev"), c.l.taskComm))
			u.Copy(w.At(wokenComm), name, 16)
			cpu := u.Var(u.Call(ir.FnSmpProcessorID))
			c.state(u, func(st emit.Mem) { u.Copy(w.At(wokenIdle), st.At(cpIdle), 16) })
			u.Store(w.At(wokenIdle+4), 4, cpu)
		}, nil)
	}, nil)
}

// idle is when a CPU goes into an idle state, and when it has left it (PWR_EVENT_EXIT, include/trace/events/power.h).
func (c *latCode) idle(u *unit) {
	const left = 0xffffffff
	t := now(u)
	state := u.Var(u.Bin(ir.And, u.arg("state"), big(u, left)))
	c.state(u, func(st emit.Mem) {
		u.If(ir.Eq, state, big(u, left), func() { u.Store(st.At(cpLeft), 8, t) }, func() {
			u.Store(st.At(cpIdle), 8, u.Add(state, 1))
			u.Store(st.At(cpLeft), 8, ir.Imm(0))
		})
	})
}
