package capture

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/answers/packet"
	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/ir/emit"
	"github.com/fathom-trace/fathom/probe"
	"github.com/fathom-trace/fathom/wire/filter"
)

// source is a place in the kernel where packets can be seen.
type source struct {
	kind packet.Kind
	tps  []string // raw tracepoints
	skb  string   // its argument with the packet
	arg  string   // argument that becomes Event.Arg; a pointer is sent as it is
	num  string   // argument that becomes Event.Reason
	dev  string   // argument with the device, where it is not the packet's own
	ends bool     // the packet is gone afterwards
	late bool     // no packet is taken up here: what matters of one was seen before
	rare bool     // the same, unless only losses are asked for: then what comes before is left out
	flow bool     // seen often: left out where only losses are asked for
}

// sources are the tracepoints that packets pass (include/trace/events/{skb,net,qdisc,sock,udp,tcp}.h).
var sources = []source{
	{kind: packet.Drop, tps: []string{"kfree_skb"}, skb: "skb", arg: "location", num: "reason", ends: true},
	{kind: packet.Consume, tps: []string{"consume_skb"}, skb: "skb", arg: "location", ends: true, flow: true, late: true},
	{kind: packet.Queue, tps: []string{"net_dev_queue"}, skb: "skb", flow: true},
	{kind: packet.Xmit, tps: []string{"net_dev_start_xmit"}, skb: "skb", dev: "dev", flow: true},
	{kind: packet.Rx, tps: []string{"netif_receive_skb"}, skb: "skb", flow: true},
	{kind: packet.RxQueue, tps: []string{"netif_rx"}, skb: "skb", flow: true},
	{kind: packet.RxEntry, tps: []string{"netif_receive_skb_entry", "napi_gro_receive_entry"}, skb: "skb", flow: true},
	{kind: packet.Copied, tps: []string{"skb_copy_datagram_iovec"}, skb: "skb", num: "len", flow: true, late: true},
	{kind: packet.Enqueued, tps: []string{"qdisc_enqueue"}, skb: "skb", flow: true, late: true},
	{kind: packet.Dequeued, tps: []string{"qdisc_dequeue"}, skb: "skb", flow: true, late: true},
	{kind: packet.Full, tps: []string{"sock_rcvqueue_full"}, skb: "skb", rare: true},
	{kind: packet.Full, tps: []string{"udp_fail_queue_rcv_skb"}, skb: "skb", num: "rc", rare: true},
	{kind: packet.Retransmit, tps: []string{"tcp_retransmit_skb"}, skb: "skb", rare: true},
}

// code writes the programs of one capture.
type code struct {
	o      *Options
	l      *layout
	p      *emit.Program
	types  *types  // if fields can be read by an instruction, not a call
	track  *table  // addresses of packets that are followed, and of their data; nil if all packets are wanted
	stacks *ir.Map // how many stacks were taken, and since when, on each CPU
	l2, l3 *filter.Filter
	ways   [][]reach // of Options.Terms
}

// chooses says if only some packets are wanted.
func (c *code) chooses() bool {
	return c.l2 != nil || c.l3 != nil || len(c.o.Netns) > 0 || len(c.o.Devs) > 0 || c.o.Mark != nil || len(c.o.PIDs) > 0 || c.o.Comm != "" ||
		c.o.Cgroup != 0 || len(c.o.Terms) > 0
}

// types are the numbers, in the kernel's BTF, of the structs that an address can be said to be of. A program may then read
// where it points to, which gives 0 where nothing is (bpf_rdonly_cast, Linux 6.2).
type types struct{ skb, dev, info, bytes uint32 }

// byteStruct is a struct of bytes, for what has no type: the address of any protocol (include/uapi/linux/socket.h).
const byteStruct = "__kernel_sockaddr_storage"

// rdonlyCast is the kernel function that tells the verifier; no code is left of it.
const rdonlyCast = "bpf_rdonly_cast"

// newTypes gives nil if the kernel has no such thing.
func newTypes(w *probe.World) *types {
	if _, err := w.KfuncID(rdonlyCast); err != nil {
		return nil
	}
	skb, ok := w.TypeID(ctype.KindStruct, "sk_buff")
	dev, ok2 := w.TypeID(ctype.KindStruct, "net_device")
	info, ok3 := w.TypeID(ctype.KindStruct, "skb_shared_info")
	bytes, ok4 := w.TypeID(ctype.KindStruct, byteStruct)
	if !ok || !ok2 || !ok3 || !ok4 {
		return nil
	}
	return &types{skb, dev, info, bytes}
}

// seen is what a program knows of the packet before it.
type seen struct {
	u       *emit.Unit
	typed   bool
	rec     emit.Mem
	skb     ir.Val   // its address
	ptr     ir.Val   // if typed: the same as a pointer
	raw     emit.Mem // else: copy of struct sk_buff
	head    ir.Val
	nh, mac ir.Val // offsets of headers from head
	tail    ir.Val
	start   ir.Val // of the outermost header, from head
	flags   ir.Val
	dev     ir.Val   // address of its struct net_device
	info    ir.Val   // if typed: its struct skb_shared_info
	part    emit.Mem // else: of that, what layout.shared says
}

func (p *seen) load(m member) ir.Val {
	if p.typed {
		return p.u.Load(p.u.Place(p.ptr).At(m.off), m.size, false)
	}
	return p.u.Load(p.raw.At(m.off), m.size, false)
}

// via reads a member of what a pointer points to that came out of the packet, 0 if that cannot be read.
func (p *seen) via(ptr ir.Val, m member) ir.Val {
	if p.typed {
		return p.u.Load(p.u.Place(ptr).At(m.off), m.size, false)
	}
	return p.u.Int(ptr, m.off, m.size, false)
}

// device gives the address of the packet's own device, before the whole packet was read.
func (p *seen) device(c *code) ir.Val {
	if p.typed {
		return p.load(c.l.dev)
	}
	return p.u.Int(p.skb, c.l.dev.off, 8, false)
}

// bits reads a bitfield within one byte.
func (p *seen) bits(m member) ir.Val {
	u := p.u
	v := p.load(member{off: m.off, size: 1})
	if m.bits == 0 {
		return v
	}
	return u.Bin(ir.And, u.Bin(ir.Shr, v, ir.Imm(int64(m.bit))), ir.Imm(int64(1)<<m.bits-1))
}

// Numbers of a source, which its program is loaded with: one is written for all of them, and the verifier leaves out what is
// not for it. Those of arguments are one more than their index, 0 where the source has none.
const (
	givenKind = iota
	givenSkb
	givenDev
	givenArg
	givenNum
	givenLate  // no packet is taken up
	givenEnds  // the packet is gone afterwards
	givenBrief // its stack may be left out
	givenQueue // the stack of what TCP sends may not
	givenWake  // as emit.Wake
	numGiven
)

// numbers gives those of a source for a kernel whose tracepoint has these arguments.
func (s *source) numbers(losses bool, args map[string]int) []int64 {
	n := make([]int64, numGiven)
	n[givenKind], n[givenWake] = int64(s.kind), int64(wake(s.kind))
	for g, name := range map[int]string{givenSkb: s.skb, givenDev: s.dev, givenArg: s.arg, givenNum: s.num} {
		if i, ok := args[name]; ok {
			n[g] = int64(i) + 1
		}
	}
	_, located := args["location"]
	for g, yes := range map[int]bool{
		givenLate:  s.late || s.rare && !losses,
		givenEnds:  s.ends,
		givenBrief: s.kind.Names() && (s.kind != packet.Consume || located),
		givenQueue: s.kind == packet.Queue,
	} {
		if yes {
			n[g] = 1
		}
	}
	return n
}

// wake says when an event is told of: the state of the machine must be read at once after a loss.
func wake(k packet.Kind) emit.Wake {
	switch k {
	case packet.Drop, packet.Refused, packet.XDPError, packet.Full:
		return emit.WakeNow
	}
	return emit.WakeNever
}

// when writes what only sources do whose number g is not 0.
func when(u *emit.Unit, g int, then func()) { u.If(ir.Ne, u.Given(g), ir.Imm(0), then, nil) }

// arg writes what is done with the argument that number g tells, among those that one of the sources has there.
func arg(u *emit.Unit, g int, sources map[string][]int64, then func(ir.Val)) {
	var have []int64
	for _, n := range sources {
		if n[g] > 0 && !slices.Contains(have, n[g]) {
			have = append(have, n[g])
		}
	}
	slices.Sort(have)
	for _, i := range have {
		u.If(ir.Eq, u.Given(g), ir.Imm(i), func() { then(u.Arg(int(i - 1))) }, nil)
	}
}

// packets writes what happens to a packet at a source, of which there are these, by their tracepoint. Most packets that pass are
// not wanted: what is not needed to find that out is read afterwards.
func (c *code) packets(targets int, sources map[string][]int64) {
	u := c.p.Unit("rawtracepoint", targets, "packets")
	p := &seen{u: u, typed: c.types != nil, rec: u.Slot("record", recSize), skb: u.Var(ir.Imm(0))}
	arg(u, givenSkb, sources, func(skb ir.Val) { u.Set(p.skb, skb) })
	u.Unless(ir.Ne, p.skb, ir.Imm(0)) // a queue that was asked was empty
	// Attached by its BTF, the program would have an argument that is trusted, and no load out of it checked. But then the kernel
	// goes through all of its types for each program it takes, which is 17 ms (bpf_check_attach_target, 6.18).
	cast := func(addr ir.Val, typ uint32) ir.Val { return u.Kfunc(rdonlyCast, addr, ir.Imm(int64(typ))) }
	if p.typed {
		p.ptr = cast(p.skb, c.types.skb)
		// Newer verifiers (Linux 6.17) know what the pointer points to, and would not let it be computed with.
		p.head = u.Swap(u.Swap(p.load(c.l.head), 8), 8)
	} else {
		lo, hi := c.l.front()
		p.raw = u.Slot("skb", c.l.skbSize)
		u.Read(p.raw.At(lo), hi-lo, u.Add(p.skb, lo))
		p.head = p.load(c.l.head)
	}
	whole := func() {
		if !p.typed {
			u.Read(p.raw, c.l.skbSize, p.skb)
		}
		p.dev = u.Var(p.load(c.l.dev))
		arg(u, givenDev, sources, func(dev ir.Val) {
			if p.typed {
				dev = cast(dev, c.types.dev)
			}
			u.Set(p.dev, dev)
		})
	}
	if c.track != nil {
		c.choose(p, whole)
	} else {
		c.plausible(p)
	}
	whole()
	c.headers(p)
	c.begin(p)
	arg(u, givenArg, sources, func(v ir.Val) { u.Store(p.rec.At(recArg), 8, v) })
	arg(u, givenNum, sources, func(v ir.Val) { u.Store(p.rec.At(recReason), 4, v) })
	c.describe(p)
	when(u, givenEnds, func() { c.end(p) })
	brief := u.Var(u.Given(givenBrief))
	when(u, givenQueue, func() { c.repeating(p, brief) })
	c.send(u, p.rec, u.Given(givenKind), brief, u.Given(givenWake))
}

// plausible ends the program for what has no device and no EtherType, which is no packet of a network: messages of netlink and
// of Unix sockets are sk_buffs too.
func (c *code) plausible(p *seen) {
	u := p.u
	u.If(ir.Eq, p.load(c.l.protocol), ir.Imm(0), func() { u.Unless(ir.Ne, p.device(c), ir.Imm(0)) }, nil)
}

// repeating clears brief for what TCP sends: only its stack says if it is sent for the first time.
func (c *code) repeating(p *seen, brief ir.Val) {
	u, sk := p.u, p.load(c.l.sk)
	u.If(ir.Ne, sk, ir.Imm(0), func() {
		clear := func() { u.Set(brief, ir.Imm(0)) }
		u.If(ir.Eq, p.via(sk, c.l.sockState), ir.Imm(newSynRecv), clear, func() {
			u.If(ir.Eq, p.via(sk, c.l.sockProtocol), ir.Imm(unix.IPPROTO_TCP), clear, nil)
		})
	}, nil)
}

// newSynRecv is the state of sockets that have received a SYN and are no more than a request: TCP_NEW_SYN_RECV in
// include/net/tcp_states.h.
const newSynRecv = 12

// begin clears the record and fills in which packet it is, and where.
func (c *code) begin(p *seen) {
	u := p.u
	u.Zero(p.rec, recBytes) // recCaptured says which bytes behind that mean something
	u.Store(p.rec.At(recSkb), 8, p.skb)
	u.Store(p.rec.At(recHead), 8, p.head)
	c.where(p)
	c.bytes(p)
}

// where fills in the device and the namespace. A packet in a socket's queue has other things where its device was
// (dev_scratch): what cannot be read stays zero.
func (c *code) where(p *seen) {
	u, dev := p.u, p.dev
	inum := u.Var(ir.Imm(0))
	read := func() {
		u.Store(p.rec.At(recIfindex), 4, p.via(dev, c.l.devIfindex))
		c.name(p, p.rec.At(recDev))
		u.Set(inum, p.via(p.via(dev, c.l.devNet), c.l.netInum))
	}
	if p.typed {
		// A read of what is no address at all is a fault, which the kernel mends at the price of a whole program. Those of the
		// kernel have a highest byte that nothing else there has.
		u.If(ir.Eq, u.Bin(ir.And, u.Swap(dev, 8), ir.Imm(0xff)), ir.Imm(0xff), read, nil)
	} else {
		read()
	}
	sk := p.load(c.l.sk)
	u.Store(p.rec.At(recSock), 8, sk)
	u.If(ir.Eq, inum, ir.Imm(0), func() {
		u.If(ir.Ne, sk, ir.Imm(0), func() {
			u.Set(inum, p.via(p.via(sk, c.l.sockNet), c.l.netInum))
		}, nil)
	}, nil)
	u.Store(p.rec.At(recNetns), 4, inum)
}

// name copies the device's name.
func (c *code) name(p *seen, to emit.Mem) {
	u := p.u
	if !p.typed {
		u.Read(to, ifNameSize, u.Add(p.dev, c.l.devName.off))
		return
	}
	for i := 0; i < ifNameSize; i += 8 {
		u.Store(to.At(i), 8, u.Load(u.Place(p.dev).At(c.l.devName.off+i), 8, false))
	}
}

const ifNameSize = 16 // IFNAMSIZ in include/uapi/linux/if.h

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
func (c *code) choose(p *seen, whole func()) {
	u := p.u
	hit := u.Var(ir.Imm(0))
	c.track.find(u, p.head, hit)
	u.If(ir.Eq, hit, ir.Imm(0), func() { c.track.find(u, p.skb, hit) }, nil)
	u.If(ir.Eq, hit, ir.Imm(0), func() {
		when(u, givenLate, u.Drop)
		c.plausible(p)
		c.headers(p)
		c.wanted(p, whole)
		c.track.add(u, p.head)
		c.track.add(u, p.skb)
	}, nil)
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
		if p.typed && c.l.bytes.there() {
			src.View = filter.View{Type: c.types.bytes, At: uint32(c.l.bytes.off), Size: uint32(c.l.bytes.size)}
		}
		if f.AsksIfindex() {
			src.Ifindex = u.Reg(p.via(p.device(c), c.l.devIfindex))
		}
		u.Branch(func(iu *ir.Unit, f2 *ir.Func, at *ir.Block) (*ir.Block, *ir.Block) { return f.Emit(iu, f2, at, src) },
			func() { u.Set(yes, ir.Imm(1)) }, nil)
	}
	l2 := u.Bin(ir.And, p.flags, ir.Imm(flagL2))
	u.If(ir.Ne, l2, ir.Imm(0), func() { try(c.l2, p.mac) }, func() { try(c.l3, p.nh) })
	u.Unless(ir.Ne, yes, ir.Imm(0))
}

// end stops following the packet that was described, and its data if nobody shares them: what comes next at these addresses is another.
func (c *code) end(p *seen) {
	u := p.u
	if c.track != nil {
		c.track.remove(u, p.skb)
	}
	refs := u.Bin(ir.And, p.shared(c, c.l.dataref), ir.Imm(0xffff)) // SKB_DATAREF_MASK
	u.If(ir.Le, refs, ir.Imm(1), func() {
		f := p.rec.At(recFlags)
		u.Store(f, 1, u.Bin(ir.Or, u.Load(f, 1, false), ir.Imm(flagLast)))
		if c.track != nil {
			c.track.remove(u, p.head)
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
	info := u.Bin(ir.Add, p.head, p.load(c.l.end)) // skb_end_pointer
	if p.typed {
		p.info = u.Kfunc(rdonlyCast, info, ir.Imm(int64(c.types.info)))
	} else {
		lo, hi := c.l.shared()
		p.part = u.Slot("shared", hi-lo)
		u.Read(p.part, hi-lo, u.Add(info, lo))
	}
	u.Store(p.rec.At(recGSOSize), 2, p.shared(c, c.l.gsoSize))
	u.Store(p.rec.At(recGSOSegs), 2, p.shared(c, c.l.gsoSegs))
}

// shared reads a member of the packet's struct skb_shared_info.
func (p *seen) shared(c *code, m member) ir.Val {
	if p.typed {
		return p.u.Load(p.u.Place(p.info).At(m.off), m.size, false)
	}
	lo, _ := c.l.shared()
	return p.u.Load(p.part.At(m.off-lo), m.size, false)
}

// tell completes a record but for its stack.
func (c *code) tell(u *emit.Unit, rec emit.Mem, kind ir.Val) {
	u.Store(rec.At(recKind), 8, kind)
	u.Store(rec.At(recTime), 8, u.Call(ir.FnKtimeGetBootNs))
	u.Store(rec.At(recCPU), 4, u.Call(ir.FnSmpProcessorID))
	u.Store(rec.At(recPidTgid), 8, u.Call(ir.FnCurrentPidTgid))
	u.Call(ir.FnCurrentComm, u.Addr(rec.At(recComm)), ir.Imm(16))
}

// send completes a record and puts it into the ring. One that is brief has a stack only if few were taken lately.
func (c *code) send(u *emit.Unit, rec emit.Mem, kind, brief, wake ir.Val) {
	c.tell(u, rec, kind)
	size, leave := u.Var(ir.Imm(recSize)), u.Var(ir.Imm(0))
	u.If(ir.Ne, brief, ir.Imm(0), func() { c.afford(u, rec, leave) }, nil)
	u.If(ir.Eq, leave, ir.Imm(0),
		func() { u.Store(rec.At(recStackLen), 4, u.Stack(rec.At(recStack), 8*maxFrames)) },
		func() { u.Set(size, ir.Imm(recStack)) })
	u.OutputUpTo(rec, recSize, size, wake)
	u.Return(ir.Imm(0))
}

// sendKind is send of what always has its stack.
func (c *code) sendKind(u *emit.Unit, rec emit.Mem, k packet.Kind) {
	c.send(u, rec, ir.Imm(int64(k)), ir.Imm(0), ir.Imm(int64(wake(k))))
}

// Stacks are the dearest part of an event: on each CPU so many are taken in so long a time.
const (
	stackTime = 26 // logarithm of nanoseconds: 67 ms
	stacksIn  = 64
)

// afford sets leave if the stack of an event cannot be had.
func (c *code) afford(u *emit.Unit, rec emit.Mem, leave ir.Val) {
	now := u.Bin(ir.Shr, u.Load(rec.At(recTime), 8, false), ir.Imm(stackTime))
	zero := u.Slot("zero", 8)
	u.Store(zero, 8, ir.Imm(0))
	u.Lookup(c.stacks, zero, func(v emit.Mem) {
		u.If(ir.Ne, u.Load(v, 8, false), now, func() {
			u.Store(v, 8, now)
			u.Store(v.At(8), 8, ir.Imm(0))
		}, nil)
		n := u.Load(v.At(8), 8, false)
		u.Store(v.At(8), 8, u.Add(n, 1))
		u.If(ir.Ge, n, ir.Imm(stacksIn), func() { u.Set(leave, ir.Imm(1)) }, nil)
	}, nil)
}
