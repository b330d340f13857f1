package nic

import (
	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/ir/emit"
)

// AF_XDP sockets are looked at where the kernel has them (struct xdp_sock): their rings are shared with one process, and nobody
// else can map them once the socket is bound. Whoever wants to look makes a system call on a descriptor of the socket, and the program at
// its entry follows the descriptor. Beside that is counted what happens to them: redirects by XDP, softirqs, wakes of the owners,
// their system calls.

// Layout of what is seen of a socket.
const (
	xsSock = 8 * iota
	xsNetNS
	xsIndex
	xsQueue
	xsZC
	xsDropped
	xsFull
	xsRings // four, of xrSize bytes each: receive, transmit, fill, completion
)

// A ring there.
const (
	xrEntries = 8 * iota
	xrProducer
	xrConsumer
	xrFlags
	xrInvalid
	xrEmpty
	xrSize
)

const (
	xsName = xsRings + 4*xrSize // 16 bytes: of the device
	xsSize = xsName + 16
)

// State of a CPU.
const (
	xcStart = 8 * iota // begin of the NET_RX that runs; 0 if none does
	xcSpent            // ns in NET_RX
	xcSize
)

// Counters of an owner.
const (
	xoOther  = 8 * iota // woken by anything but packets
	xoWorst             // ns: the longest that a thread waited for its CPU after a packet woke it,
	xoBehind            // 16 bytes: and what ran there
	xoSize   = xoBehind + 16
)

// redirected is a key: by which device, in which namespace, on which CPU, with which result.
const redirectedSize = 16

// afXDP is AF_XDP.
const afXDP = 44

// xskLayout is where the members of AF_XDP's structs are, in bytes.
type xskLayout struct {
	*layout
	files, fdt, fds, maxFDs, private, sk, family int
	dev, queue, zc, pool, rx, tx, dropped, full  int
	fill, completion                             int
	ring, entries, invalid, empty                int
	producer, consumer, flags                    int
	tgid, devName, firstArg                      int
}

func newXSKLayout(l *layout, types ctype.Lookup) (*xskLayout, error) {
	f := &finder{types: types}
	x := &xskLayout{
		layout: l,
		files:  f.at("task_struct", "files"), fdt: f.at("files_struct", "fdt"), fds: f.at("fdtable", "fd"), maxFDs: f.at("fdtable", "max_fds"),
		private: f.at("file", "private_data"), sk: f.at("socket", "sk"), family: f.at("sock", "__sk_common", "skc_family"),
		dev: f.at("xdp_sock", "dev"), queue: f.at("xdp_sock", "queue_id"), zc: f.at("xdp_sock", "zc"), pool: f.at("xdp_sock", "pool"),
		rx: f.at("xdp_sock", "rx"), tx: f.at("xdp_sock", "tx"), dropped: f.at("xdp_sock", "rx_dropped"), full: f.at("xdp_sock", "rx_queue_full"),
		fill: f.at("xsk_buff_pool", "fq"), completion: f.at("xsk_buff_pool", "cq"),
		ring: f.at("xsk_queue", "ring"), entries: f.at("xsk_queue", "nentries"), invalid: f.at("xsk_queue", "invalid_descs"), empty: f.at("xsk_queue", "queue_empty_descs"),
		producer: f.at("xdp_ring", "producer"), consumer: f.at("xdp_ring", "consumer"), flags: f.at("xdp_ring", "flags"),
		tgid: f.at("task_struct", "tgid"), devName: f.at("net_device", "name"),
	}
	if off, err := member(types, "pt_regs", "di"); err == nil { // amd64
		x.firstArg = off
	} else {
		x.firstArg = f.at("pt_regs", "regs") // arm64: an array
	}
	return x, f.err
}

// xskCode writes the programs of XSKWatch.
type xskCode struct {
	*code
	l         *xskLayout
	o         XSKOptions
	cpu       *ir.Map // xcSize bytes for each CPU
	looked    *ir.Map // by descriptor: xsSize bytes
	owners    *ir.Map // by place in XSKOptions.Owners: xoSize bytes
	woken     *ir.Map // by pid: when a packet woke it
	calls     *ir.Map // owner << 32 | number → count
	redirects *ir.Map
}

// newXSKCode writes all of them.
func newXSKCode(c *code, l *xskLayout, o XSKOptions) *xskCode {
	x := &xskCode{code: c, l: l, o: o}
	m := func(name string, kind ir.MapKind, key, value, most int) *ir.Map {
		return c.p.Map(ir.Map{Name: name, Kind: kind, KeySize: key, ValueSize: value, MaxEntries: most})
	}
	x.cpu = m(".cpu", ir.PerCPUArray, 4, xcSize, 1)
	x.looked = m(".looked", ir.Hash, 8, xsSize, 1<<10)
	x.owners = m(".owners", ir.PerCPUArray, 4, xoSize, max(1, len(o.Owners)))
	x.woken = m(".woken", ir.LRUHash, 8, 8, 1<<12)
	x.calls = m(".calls", ir.PerCPUHash, 8, 8, 1<<12)
	x.redirects = m(".redirects", ir.PerCPUHash, redirectedSize, 8, 1<<12)
	x.at("sys_enter", []string{"regs", "id"}, x.call)
	x.at("softirq_entry", []string{"vec_nr"}, x.softEntry)
	x.at("softirq_exit", []string{"vec_nr"}, x.softExit)
	x.at("sched_waking", []string{"p"}, x.waking)
	x.at("sched_switch", []string{"next", "prev"}, x.switched)
	x.at("xdp_redirect", []string{"dev", "err"}, x.redirected)
	x.at("xdp_redirect_err", []string{"dev", "err"}, x.redirected)
	return x
}

// owner gives the place of a process among the owners, and runs then if it is one.
func (c *xskCode) owner(u *unit, tgid ir.Val, then func(i ir.Val)) {
	i := u.Var(ir.Imm(-1))
	for k, pid := range c.o.Owners {
		u.If(ir.Eq, tgid, ir.Imm(int64(pid)), func() { u.Set(i, ir.Imm(int64(k))) }, nil)
	}
	u.If(ir.Ne, i, ir.Imm(-1), func() { then(i) }, nil)
}

func (c *xskCode) call(u *unit) {
	tgid := u.Var(u.Bin(ir.Shr, u.Call(ir.FnCurrentPidTgid), ir.Imm(32)))
	id := u.Var(u.arg("id"))
	u.If(ir.Eq, tgid, ir.Imm(int64(c.o.Self)), func() {
		u.If(ir.Eq, id, ir.Imm(int64(c.o.Ask)), func() { c.look(u) }, nil)
	}, nil)
	c.owner(u, tgid, func(i ir.Val) {
		c.one(u, c.calls, key(u, "called", 8, u.Bin(ir.Or, u.Bin(ir.Shl, i, ir.Imm(32)), id)))
	})
}

// one counts under a key.
func (c *xskCode) one(u *unit, m *ir.Map, k emit.Mem) {
	u.Lookup(m, k, func(v emit.Mem) { inc(u, v) }, func() { u.Update(m, k, key(u, "first", 8, ir.Imm(1))) })
}

// look writes down the socket behind the first argument of the system call, if it is of AF_XDP.
func (c *xskCode) look(u *unit) {
	l := c.l
	fd := u.Var(u.Int(u.arg("regs"), l.firstArg, 4, false))
	fdt := u.Int(u.Int(u.Call(ir.FnCurrentTask), l.files, 8, false), l.fdt, 8, false)
	u.If(ir.Ge, fd, u.Int(fdt, l.maxFDs, 4, false), func() { u.Return(ir.Imm(0)) }, nil)
	file := u.Int(u.Bin(ir.Add, u.Int(fdt, l.fds, 8, false), u.Bin(ir.Shl, fd, ir.Imm(3))), 0, 8, false)
	sk := u.Var(u.Int(u.Int(file, l.private, 8, false), l.sk, 8, false))
	u.If(ir.Ne, u.Int(sk, l.family, 2, false), ir.Imm(afXDP), func() { u.Return(ir.Imm(0)) }, nil)
	v := u.Slot("seen", xsSize)
	u.Zero(v, xsSize)
	put := func(at int, n ir.Val) { u.Store(v.At(at), 8, n) }
	put(xsSock, sk)
	dev := u.Var(u.Int(sk, l.dev, 8, false))
	u.If(ir.Ne, dev, ir.Imm(0), func() {
		put(xsIndex, u.Int(dev, l.devIndex, 4, false))
		put(xsNetNS, u.Int(u.Int(dev, l.devNet, 8, false), l.netInum, 4, false))
		u.Read(v.At(xsName), 16, u.Add(dev, l.devName))
	}, nil)
	put(xsQueue, u.Int(sk, l.queue, 2, false))
	put(xsZC, u.Int(sk, l.zc, 1, false))
	put(xsDropped, u.Int(sk, l.dropped, 8, false))
	put(xsFull, u.Int(sk, l.full, 8, false))
	pool := u.Var(u.Int(sk, l.pool, 8, false))
	for i, from := range []struct {
		base ir.Val
		off  int
	}{{sk, l.rx}, {sk, l.tx}, {pool, l.fill}, {pool, l.completion}} {
		u.If(ir.Ne, from.base, ir.Imm(0), func() {
			q := u.Var(u.Int(from.base, from.off, 8, false))
			u.If(ir.Ne, q, ir.Imm(0), func() {
				at := xsRings + i*xrSize
				put(at+xrEntries, u.Int(q, l.entries, 4, false))
				put(at+xrInvalid, u.Int(q, l.invalid, 8, false))
				put(at+xrEmpty, u.Int(q, l.empty, 8, false))
				ring := u.Var(u.Int(q, l.ring, 8, false))
				put(at+xrProducer, u.Int(ring, l.producer, 4, false))
				put(at+xrConsumer, u.Int(ring, l.consumer, 4, false))
				put(at+xrFlags, u.Int(ring, l.flags, 4, false))
			}, nil)
		}, nil)
	}
	u.Update(c.looked, key(u, "fd", 8, fd), v)
}

func (c *xskCode) softEntry(u *unit) {
	u.If(ir.Eq, u.Bin(ir.And, u.arg("vec_nr"), big(u, 0xffffffff)), ir.Imm(netRX), func() {
		t := now(u)
		element(u, c.cpu, ir.Imm(0), func(st emit.Mem) { u.Store(st.At(xcStart), 8, t) })
	}, nil)
}

func (c *xskCode) softExit(u *unit) {
	u.If(ir.Eq, u.Bin(ir.And, u.arg("vec_nr"), big(u, 0xffffffff)), ir.Imm(netRX), func() {
		t := now(u)
		element(u, c.cpu, ir.Imm(0), func(st emit.Mem) {
			start := u.Var(u.Load(st.At(xcStart), 8, false))
			u.If(ir.Ne, start, ir.Imm(0), func() { addTo(u, st.At(xcSpent), sub(u, t, start)) }, nil)
			u.Store(st.At(xcStart), 8, ir.Imm(0))
		})
	}, nil)
}

// waking is when a thread is woken: by a packet if NET_RX runs on this CPU.
func (c *xskCode) waking(u *unit) {
	p := u.Var(u.arg("p"))
	c.owner(u, u.Var(u.Int(p, c.l.tgid, 4, false)), func(i ir.Val) {
		t := now(u)
		element(u, c.cpu, ir.Imm(0), func(st emit.Mem) {
			u.If(ir.Ne, u.Load(st.At(xcStart), 8, false), ir.Imm(0), func() {
				u.Update(c.woken, key(u, "pid", 8, u.Int(p, c.l.taskPID, 4, false)), key(u, "when", 8, t))
			}, func() {
				element(u, c.owners, i, func(o emit.Mem) { inc(u, o.At(xoOther)) })
			})
		})
	})
}

// switched is when a thread that was woken runs.
func (c *xskCode) switched(u *unit) {
	next := u.Var(u.arg("next"))
	c.owner(u, u.Var(u.Int(next, c.l.tgid, 4, false)), func(i ir.Val) {
		t := now(u)
		pid := key(u, "pid", 8, u.Int(next, c.l.taskPID, 4, false))
		u.Lookup(c.woken, pid, func(w emit.Mem) {
			took := u.Var(sub(u, t, u.Load(w, 8, false)))
			u.Delete(c.woken, pid)
			c.tallyAt(u, i, took)
			element(u, c.owners, i, func(o emit.Mem) {
				u.If(ir.Gt, took, u.Load(o.At(xoWorst), 8, false), func() {
					u.Store(o.At(xoWorst), 8, took)
					name := u.Slot("prev", 16)
					u.Read(name, 16, u.Add(u.arg("prev"), c.l.taskComm))
					u.Copy(o.At(xoBehind), name, 16)
				}, nil)
			})
		}, nil)
	})
}

func (c *xskCode) redirected(u *unit) {
	k := u.Slot("redirect", redirectedSize)
	dev := u.Var(u.arg("dev"))
	u.Store(k, 4, u.Int(dev, c.l.devIndex, 4, false))
	u.Store(k.At(4), 4, u.Int(u.Int(dev, c.l.devNet, 8, false), c.l.netInum, 4, false))
	u.Store(k.At(8), 4, u.Call(ir.FnSmpProcessorID))
	u.Store(k.At(12), 4, u.arg("err"))
	c.one(u, c.redirects, k)
}
