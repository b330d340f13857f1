package capture

import (
	"encoding/binary"

	"github.com/fathom-trace/fathom/answers/packet"
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/ir/emit"
	"github.com/fathom-trace/fathom/wire/filter"
)

// source is a place in the kernel where packets can be seen.
type source struct {
	kind packet.Kind
	tp   string // raw tracepoint
	skb  string // its argument with the packet
	arg  string // argument that becomes Event.Arg; a pointer is sent as it is
	num  string // argument that becomes Event.Reason
	dev  string // argument with the device, where it is not the packet's own
	ends bool   // the packet is gone afterwards
	late bool   // no packet is taken up here: what matters of one was seen before
	flow bool   // seen often: left out where only losses are asked for
}

// sources are the tracepoints that packets pass (include/trace/events/{skb,net,qdisc,sock,udp,tcp}.h).
var sources = []source{
	{kind: packet.Drop, tp: "kfree_skb", skb: "skb", arg: "location", num: "reason", ends: true},
	{kind: packet.Consume, tp: "consume_skb", skb: "skb", arg: "location", ends: true, flow: true, late: true},
	{kind: packet.Queue, tp: "net_dev_queue", skb: "skb", flow: true},
	{kind: packet.Xmit, tp: "net_dev_start_xmit", skb: "skb", dev: "dev", flow: true},
	{kind: packet.Rx, tp: "netif_receive_skb", skb: "skb", flow: true},
	{kind: packet.RxQueue, tp: "netif_rx", skb: "skb", flow: true},
	{kind: packet.RxEntry, tp: "netif_receive_skb_entry", skb: "skb", flow: true},
	{kind: packet.RxEntry, tp: "napi_gro_receive_entry", skb: "skb", flow: true},
	{kind: packet.Copied, tp: "skb_copy_datagram_iovec", skb: "skb", num: "len", flow: true, late: true},
	{kind: packet.Enqueued, tp: "qdisc_enqueue", skb: "skb", flow: true},
	{kind: packet.Dequeued, tp: "qdisc_dequeue", skb: "skb", flow: true, late: true},
	{kind: packet.Full, tp: "sock_rcvqueue_full", skb: "skb"},
	{kind: packet.Full, tp: "udp_fail_queue_rcv_skb", skb: "skb", num: "rc"},
	{kind: packet.Retransmit, tp: "tcp_retransmit_skb", skb: "skb"},
}

// code writes the programs of one capture.
type code struct {
	o       *Options
	l       *layout
	p       *emit.Program
	tracked *ir.Map // addresses of packets that are followed, and of their data
	maybe   *ir.Map // by a hash of addresses: if one was ever in tracked
	l2, l3  *filter.Filter
	ways    [][]reach // of Options.Terms
}

// follows says if only some packets are wanted.
func (c *code) follows() bool {
	return c.l2 != nil || c.l3 != nil || len(c.o.Netns) > 0 || len(c.o.Devs) > 0 || c.o.Mark != nil || len(c.o.PIDs) > 0 || c.o.Comm != "" ||
		c.o.Cgroup != 0 || len(c.o.Terms) > 0
}

// seen is what a program knows of the packet before it.
type seen struct {
	u       *emit.Unit
	rec     emit.Mem
	skb     ir.Val
	raw     emit.Mem // copy of struct sk_buff
	head    ir.Val
	nh, mac ir.Val // offsets of headers from head
	tail    ir.Val
	start   ir.Val // of the outermost header, from head
	flags   ir.Val
	dev     ir.Val // address of its struct net_device
}

func (p *seen) load(m member) ir.Val { return p.u.Load(p.raw.At(m.off), m.size, false) }

// bits reads a bitfield within one byte.
func (p *seen) bits(m member) ir.Val {
	u := p.u
	v := u.Load(p.raw.At(m.off), 1, false)
	if m.bits == 0 {
		return v
	}
	return u.Bin(ir.And, u.Bin(ir.Shr, v, ir.Imm(int64(m.bit))), ir.Imm(int64(1)<<m.bits-1))
}

// trace writes the program of a source. args are the indexes of the tracepoint's arguments by name.
func (c *code) trace(s source, targets int, args map[string]int) {
	c.packets(c.p.Unit("rawtracepoint", targets, s.tp), s, args)
}

// packets writes what happens to a packet at a source. Most that pass are not wanted: what is not needed to find that out is
// read afterwards.
func (c *code) packets(u *emit.Unit, s source, args map[string]int) {
	p := &seen{u: u, rec: u.Slot("record", recSize), raw: u.Slot("skb", c.l.skbSize), skb: u.Arg(args[s.skb])}
	dev := func() {
		u.Read(p.raw, c.l.skbSize, p.skb)
		if p.dev = p.load(c.l.dev); s.dev != "" {
			p.dev = u.Arg(args[s.dev])
		}
	}
	lo, hi := c.l.front()
	if !s.late || !c.follows() {
		u.Read(p.raw.At(lo), hi-lo, u.Add(p.skb, lo))
		p.head = p.load(c.l.head)
		// What has no device and no EtherType is no packet of a network: messages of netlink and of Unix sockets are sk_buffs too.
		u.If(ir.Eq, p.load(c.l.protocol), ir.Imm(0), func() { u.Unless(ir.Ne, u.Int(p.skb, c.l.dev.off, 8, false), ir.Imm(0)) }, nil)
		c.headers(p)
	} else {
		p.head = u.Int(p.skb, c.l.head.off, 8, false)
	}
	if c.follows() {
		c.choose(p, s, dev)
	}
	dev()
	if p.start.IsImm() { // not yet
		c.headers(p)
	}
	c.begin(p)
	if i, ok := args[s.arg]; ok {
		u.Store(p.rec.At(recArg), 8, u.Arg(i))
	}
	if i, ok := args[s.num]; ok {
		u.Store(p.rec.At(recReason), 4, u.Arg(i))
	}
	if s.ends {
		c.end(p)
	}
	c.describe(p)
	c.send(u, p.rec, s.kind)
}

// begin clears the record and fills in which packet it is, and where.
func (c *code) begin(p *seen) {
	u := p.u
	u.Zero(p.rec, recStack)
	u.Store(p.rec.At(recSkb), 8, p.skb)
	u.Store(p.rec.At(recHead), 8, p.head)
	c.where(p)
	c.bytes(p)
}

// where fills in the device and the namespace. A packet in a socket's queue has other things where its device was
// (dev_scratch): what cannot be read stays zero.
func (c *code) where(p *seen) {
	u, dev := p.u, p.dev
	u.Store(p.rec.At(recIfindex), 4, u.Int(dev, c.l.devIfindex.off, 4, false))
	u.Read(p.rec.At(recDev), 16, u.Add(dev, c.l.devName.off))
	net := u.Int(dev, c.l.devNet.off, 8, false)
	inum := u.Var(u.Int(net, c.l.netInum.off, 4, false))
	sk := p.load(c.l.sk)
	u.Store(p.rec.At(recSock), 8, sk)
	u.If(ir.Eq, inum, ir.Imm(0), func() {
		u.If(ir.Ne, sk, ir.Imm(0), func() {
			u.Set(inum, u.Int(u.Int(sk, c.l.sockNet.off, 8, false), c.l.netInum.off, 4, false))
		}, nil)
	}, nil)
	u.Store(p.rec.At(recNetns), 4, inum)
}

// unset is the mac_header of a packet that has none (~(typeof(skb->mac_header))0U in include/linux/skbuff.h).
const unset = 0xffff

// headers finds out where the packet's headers are.
func (c *code) headers(p *seen) {
	u := p.u
	p.nh, p.mac = p.load(c.l.networkHeader), p.load(c.l.macHeader)
	p.tail = p.load(c.l.tail)
	p.start, p.flags = u.Var(p.nh), u.Var(ir.Imm(0))
	u.If(ir.Ne, p.mac, ir.Imm(unset), func() {
		u.If(ir.Lt, p.mac, p.nh, func() {
			u.Set(p.start, p.mac)
			u.Set(p.flags, ir.Imm(flagL2))
		}, nil)
	}, nil)
	tagged := p.load(c.l.vlanProto)
	if c.l.vlanPresent.there() {
		tagged = p.bits(c.l.vlanPresent)
	}
	u.If(ir.Ne, tagged, ir.Imm(0), func() { u.Set(p.flags, u.Bin(ir.Or, p.flags, ir.Imm(flagTagged))) }, nil)
}

// bytes copies the packet's first bytes.
func (c *code) bytes(p *seen) {
	u := p.u
	u.Store(p.rec.At(recL3), 2, u.Bin(ir.Sub, p.nh, p.start))
	n := u.Var(u.Bin(ir.Sub, p.tail, p.start))
	u.If(ir.SLt, n, ir.Imm(0), func() { u.Set(n, ir.Imm(0)) }, nil)
	u.If(ir.Gt, n, ir.Imm(maxBytes), func() { u.Set(n, ir.Imm(maxBytes)) }, nil)
	u.Store(p.rec.At(recCaptured), 2, n)
	u.Call(ir.FnProbeReadKernel, u.Addr(p.rec.At(recBytes)), n, u.Bin(ir.Add, p.head, p.start))
	u.Store(p.rec.At(recVLAN), 2, p.load(c.l.vlanTCI))
	u.Store(p.rec.At(recFlags), 1, p.flags)
}

// choose ends the program unless the packet is followed already or begins to be. whole reads what else is known of it.
func (c *code) choose(p *seen, s source, whole func()) {
	u := p.u
	hit := u.Var(ir.Imm(0))
	skb, head := c.key(u, "key", p.skb, hit), c.key(u, "key2", p.head, hit)
	u.If(ir.Eq, hit, ir.Imm(0), func() {
		if s.late {
			u.Count(ir.Filtered)
			u.Return(ir.Imm(0))
			return
		}
		c.wanted(p, whole)
		c.track(u, skb, p.skb)
		c.track(u, head, p.head)
	}, nil)
}

// key puts an address where maps want it, and sets hit if it is followed. Nearly all are not: an array, which costs no call,
// says so of most.
func (c *code) key(u *emit.Unit, name string, addr, hit ir.Val) emit.Mem {
	at := u.Slot(name, 8)
	u.Store(at, 8, addr)
	u.Lookup(c.maybe, c.slot(u, addr), func(v emit.Mem) {
		u.If(ir.Ne, u.Load(v, 8, false), ir.Imm(0), func() {
			u.Lookup(c.tracked, at, func(emit.Mem) { u.Set(hit, ir.Imm(1)) }, nil)
		}, nil)
	}, nil)
	return at
}

// slot is where an address is in maybe: the top bits of a product (Knuth's multiplicative hashing).
func (c *code) slot(u *emit.Unit, addr ir.Val) emit.Mem {
	at := u.Slot("slot", 8)
	product := u.Bin(ir.Mul, addr, u.Var(ir.Imm(-7046029254386353131))) // 2^64 / the golden ratio
	u.Store(at, 4, u.Bin(ir.Shr, product, ir.Imm(64-maybeBits)))
	return at
}

// track begins to follow an address.
func (c *code) track(u *emit.Unit, key emit.Mem, addr ir.Val) {
	one := u.Slot("one", 8)
	u.Store(one, 8, ir.Imm(1))
	u.Call(ir.FnMapUpdate, u.Ptr(c.tracked), u.Addr(key), u.Addr(one), ir.Imm(0))
	u.Lookup(c.maybe, c.slot(u, addr), func(v emit.Mem) { u.Store(v, 8, ir.Imm(1)) }, nil)
}

// wanted ends the program unless a packet that is not followed is to be. What is cheap to look at comes first.
func (c *code) wanted(p *seen, whole func()) {
	u := p.u
	if c.o.Mark != nil {
		u.Unless(ir.Eq, p.load(c.l.mark), u.Var(ir.Imm(int64(*c.o.Mark))))
	}
	c.process(u)
	if c.l2 != nil || c.l3 != nil {
		c.match(p)
	}
	if len(c.o.Netns) > 0 || len(c.o.Devs) > 0 {
		whole()
		c.where(p)
		c.among(u, c.o.Netns, p.rec.At(recNetns))
		c.device(u, p.rec.At(recDev))
	}
	for i, t := range c.o.Terms {
		c.holds(p, t, c.ways[i])
	}
}

// among ends the program unless the number at a place is one of a list; an empty list has all.
func (c *code) among(u *emit.Unit, list []uint32, at emit.Mem) {
	if len(list) == 0 {
		return
	}
	v, ok := u.Load(at, 4, false), u.Var(ir.Imm(0))
	for _, n := range list {
		u.If(ir.Eq, v, u.Var(ir.Imm(int64(n))), func() { u.Set(ok, ir.Imm(1)) }, nil)
	}
	u.Unless(ir.Ne, ok, ir.Imm(0))
}

// device ends the program unless the name at a place is one of those asked for.
func (c *code) device(u *emit.Unit, at emit.Mem) {
	if len(c.o.Devs) == 0 {
		return
	}
	ok := u.Var(ir.Imm(0))
	for _, name := range c.o.Devs {
		var want [16]byte // IFNAMSIZ
		copy(want[:15], name)
		diff := u.Var(ir.Imm(0))
		for i := 0; i <= len(name) && i < 16; i += 4 {
			u.Set(diff, u.Bin(ir.Or, diff, u.Bin(ir.Xor, u.Load(at.At(i), 4, false), word(u, want[i:]))))
		}
		u.If(ir.Eq, diff, ir.Imm(0), func() { u.Set(ok, ir.Imm(1)) }, nil)
	}
	u.Unless(ir.Ne, ok, ir.Imm(0))
}

// word gives four bytes as the number that a program loads.
func word(u *emit.Unit, b []byte) ir.Val {
	return u.Var(ir.Imm(int64(binary.LittleEndian.Uint32(b))))
}

// process ends the program unless the current process is wanted.
func (c *code) process(u *emit.Unit) {
	if c.o.Cgroup != 0 {
		u.Unless(ir.Eq, u.Call(ir.FnCurrentCgroupID), u.Var(ir.Imm(int64(c.o.Cgroup))))
	}
	if len(c.o.PIDs) > 0 {
		t := u.Slot("pid", 8)
		u.Store(t, 8, u.Bin(ir.Shr, u.Call(ir.FnCurrentPidTgid), ir.Imm(32)))
		c.among(u, c.o.PIDs, t)
	}
	if c.o.Comm != "" {
		var want [16]byte
		copy(want[:15], c.o.Comm)
		t := u.Slot("comm", 16)
		u.Zero(t, 16)
		u.Call(ir.FnCurrentComm, u.Addr(t), ir.Imm(16))
		for i := 0; i < 16; i += 4 {
			u.Unless(ir.Eq, u.Load(t.At(i), 4, false), word(u, want[i:]))
		}
	}
}

// match ends the program unless the filter matches: from the link header on if there is one, else from the network header.
func (c *code) match(p *seen) {
	u := p.u
	yes := u.Var(ir.Imm(0))
	try := func(f *filter.Filter, start ir.Val) {
		if f == nil {
			return
		}
		n := u.Var(u.Bin(ir.Sub, p.tail, start))
		u.If(ir.SLt, n, ir.Imm(0), func() { u.Set(n, ir.Imm(0)) }, nil)
		src := filter.Source{Base: u.Reg(u.Bin(ir.Add, p.head, start)), Len: u.Reg(n), Type: u.Reg(p.bits(c.l.pktType)),
			Tagged: u.Reg(u.Bin(ir.And, p.flags, ir.Imm(flagTagged))), TCI: u.Reg(p.load(c.l.vlanTCI))}
		if f.AsksIfindex() {
			src.Ifindex = u.Reg(u.Int(u.Int(p.skb, c.l.dev.off, 8, false), c.l.devIfindex.off, 4, false))
		}
		u.Branch(func(iu *ir.Unit, f2 *ir.Func, at *ir.Block) (*ir.Block, *ir.Block) { return f.Emit(iu, f2, at, src) },
			func() { u.Set(yes, ir.Imm(1)) }, nil)
	}
	l2 := u.Bin(ir.And, p.flags, ir.Imm(flagL2))
	u.If(ir.Ne, l2, ir.Imm(0), func() { try(c.l2, p.mac) }, func() { try(c.l3, p.nh) })
	u.Unless(ir.Ne, yes, ir.Imm(0))
}

// end stops following the packet, and its data if nobody shares them: what comes next at these addresses is another.
func (c *code) end(p *seen) {
	u := p.u
	shared := u.Bin(ir.Add, p.head, p.load(c.l.end))                                // skb_end_pointer
	refs := u.Bin(ir.And, u.Int(shared, c.l.dataref.off, 4, false), ir.Imm(0xffff)) // SKB_DATAREF_MASK
	if c.follows() {
		u.Delete(c.tracked, p.rec.At(recSkb))
	}
	u.If(ir.Le, refs, ir.Imm(1), func() {
		f := p.rec.At(recFlags)
		u.Store(f, 1, u.Bin(ir.Or, u.Load(f, 1, false), ir.Imm(flagLast)))
		if c.follows() {
			u.Delete(c.tracked, p.rec.At(recHead))
		}
	}, nil)
}

// describe fills in the rest of what is said of a packet.
func (c *code) describe(p *seen) {
	u := p.u
	u.Store(p.rec.At(recLen), 4, p.load(c.l.length))
	u.Store(p.rec.At(recMark), 4, p.load(c.l.mark))
	u.Store(p.rec.At(recProto), 2, p.load(c.l.protocol))
	u.Store(p.rec.At(recType), 1, p.bits(c.l.pktType))
	u.Store(p.rec.At(recIIF), 4, p.load(c.l.iif))
	shared := u.Bin(ir.Add, p.head, p.load(c.l.end))
	u.Store(p.rec.At(recGSOSize), 2, u.Int(shared, c.l.gsoSize.off, 2, false))
	u.Store(p.rec.At(recGSOSegs), 2, u.Int(shared, c.l.gsoSegs.off, 2, false))
}

// tell completes a record but for its stack.
func (c *code) tell(u *emit.Unit, rec emit.Mem, k packet.Kind) {
	u.Store(rec.At(recKind), 8, ir.Imm(int64(k)))
	u.Store(rec.At(recTime), 8, u.Call(ir.FnKtimeGetBootNs))
	u.Store(rec.At(recCPU), 4, u.Call(ir.FnSmpProcessorID))
	u.Store(rec.At(recPidTgid), 8, u.Call(ir.FnCurrentPidTgid))
	u.Call(ir.FnCurrentComm, u.Addr(rec.At(recComm)), ir.Imm(16))
}

// send completes a record and puts it into the ring.
func (c *code) send(u *emit.Unit, rec emit.Mem, k packet.Kind) {
	c.tell(u, rec, k)
	n := u.Stack(rec.At(recStack), 8*maxFrames)
	u.Store(rec.At(recStackLen), 4, n)
	switch k {
	case packet.Drop, packet.Refused, packet.XDPError, packet.Full: // the state of the machine must be read at once
		u.Output(rec, recSize, emit.WakeNow)
	default:
		u.Output(rec, recSize, emit.WakeNever)
	}
	u.Return(ir.Imm(0))
}
