package nic

import (
	"fmt"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/ir/emit"
	"github.com/fathom-trace/fathom/probe"
)

// A socket of a process has a file. One that has none, though it has a struct socket, is the kernel's: some code of the kernel
// or a module holds it. Whether it was made as such (sock_create_kern) or as a process makes one (sock_create) says the bit
// sk_kern_sock; one of the latter kind holds a reference to its network namespace (skc_net_refcnt), which cannot go away then.

// Layout of a record: of a socket that an iterator of the kernel came by, or of what was done with one.
const (
	srWhat     = 0  // uint64: sockWhat
	srTime     = 8  // uint64: CLOCK_MONOTONIC
	srFlags    = 16 // uint64: bits below
	srFamily   = 24 // uint64
	srType     = 32 // uint64
	srProtocol = 40 // uint64
	srState    = 48 // uint64: TCP_…
	srNetNS    = 56 // uint64: inode
	srInode    = 64 // uint64
	srReceives = 72 // uint64: the function that is called for what comes in
	srNum      = 80 // uint64: local port; of netlink who it is addressed to
	srPort     = 88 // uint64: of the other end, in network byte order
	srAddr4    = 96 // 4 bytes each: other end, own
	srAddr6    = 104
	srPeer6    = 120
	srPIDTGID  = 136 // uint64
	srComm     = 144 // 16 bytes
	srName     = 160 // of Unix sockets
	srNameSize = 104
	srStackLen = srName + srNameSize // int64, bytes
	srStack    = srStackLen + 8
	srFrames   = 32
	srSize     = srStack + 8*srFrames
)

// sockWhat is what a record is about.
type sockWhat uint64

const (
	sockThere    sockWhat = iota // it is there
	sockMade                     // it is made
	sockListens                  // it begins to listen
	sockConnects                 // it begins to connect
	sockModule                   // a module is loaded, whose init may make some: its name, and begin and size of that
)

// Bits of srFlags.
const (
	sockKern  = 1 << iota // sk_kern_sock
	sockHolds             // skc_net_refcnt
)

// bit is a bitfield of one bit: the byte it is in, and its place there.
type bit struct{ off, shift int }

// sockLayout is where the members of sockets are, in bytes.
type sockLayout struct {
	*layout
	family, state, rcv4, rcv6, peer4, peer6, port, net int
	socket, file, sk, ready, encap                     int
	vfsInode, inodeNum                                 int
	netlinkRcv, netlinkPort                            int
	unixAddr, unixName, unixLen                        int
	kern, holds                                        bit
	modName, modInit, modSize                          int // begin and size of the code that a module runs once; modSize is 0 if they are not known
}

// bit finds a bitfield.
func (f *finder) bit(name string, path ...string) bit {
	t, err := f.types.ByName(ctype.KindStruct, name)
	b := bit{}
	for _, p := range path {
		s, ok := ctype.Strip(t).(*ctype.Struct)
		m, found := ctype.Member{}, false
		if ok {
			m, found = s.Member(p)
		}
		if !found && err == nil {
			err = fmt.Errorf("struct %s has no member %v", name, path)
		}
		b.off, b.shift = b.off+m.BitOff/8, m.BitOff%8
		t = m.Type
	}
	if err != nil && f.err == nil {
		f.err = err
	}
	return b
}

func newSockLayout(base *layout, types ctype.Lookup) (*sockLayout, error) {
	f := &finder{types: types}
	common := func(name string) int { return f.at("sock", "__sk_common", name) }
	l := &sockLayout{
		layout: base, family: common("skc_family"), state: common("skc_state"), rcv4: common("skc_rcv_saddr"), rcv6: common("skc_v6_rcv_saddr"),
		peer4: common("skc_daddr"), peer6: common("skc_v6_daddr"), port: common("skc_dport"), net: f.at("sock", "__sk_common", "skc_net", "net"),
		socket: f.at("sock", "sk_socket"), file: f.at("socket", "file"), sk: f.at("socket", "sk"), ready: f.at("sock", "sk_data_ready"), encap: f.at("udp_sock", "encap_rcv"),
		vfsInode: f.at("socket_alloc", "vfs_inode"), inodeNum: f.at("inode", "i_ino"),
		netlinkRcv: f.at("netlink_sock", "netlink_rcv"), netlinkPort: f.at("netlink_sock", "portid"),
		unixAddr: f.at("unix_sock", "addr"), unixName: f.at("unix_address", "name"), unixLen: f.at("unix_address", "len"),
		kern: f.bit("sock", "sk_kern_sock"), holds: f.bit("sock", "__sk_common", "skc_net_refcnt"),
	}
	l.modName = f.at("module", "name")
	if f.err == nil {
		l.moduleInit(types)
	}
	return l, f.err
}

// moduleInit finds where a struct module has its init code: in one of its memories since Linux 6.4, in a layout before.
func (l *sockLayout) moduleInit(types ctype.Lookup) {
	f := &finder{types: types}
	if mem, err := member(types, "module", "mem"); err == nil {
		_, kind, ok := types.EnumValue("MOD_INIT_TEXT")
		one, err := types.ByName(ctype.KindStruct, "module_memory")
		if err != nil || !ok {
			return
		}
		at := mem + int(kind)*ctype.Size(one)
		l.modInit, l.modSize = at+f.at("module_memory", "base"), at+f.at("module_memory", "size")
	} else {
		l.modInit, l.modSize = f.at("module", "init_layout", "base"), f.at("module", "init_layout", "text_size")
	}
	if f.err != nil {
		l.modSize = 0
	}
}

// sockCode writes programs about sockets of the kernel.
type sockCode struct {
	*code
	l     *sockLayout
	netns uint32 // of sockets whose making is told; 0 is any
	// unnamed is what is missing to name the code that modules run once.
	unnamed []string
}

// flag reads a bitfield: 0 or 1.
func (c *sockCode) flag(u *unit, sk ir.Val, b bit) ir.Val {
	return u.Bin(ir.And, u.Bin(ir.Shr, u.Int(sk, b.off, 1, false), ir.Imm(int64(b.shift))), ir.Imm(1))
}

// begin ends the program unless a socket is the kernel's, and begins its record.
func (c *sockCode) begin(u *unit, sk ir.Val, what ir.Val) emit.Mem {
	kern, holds := u.Var(c.flag(u, sk, c.l.kern)), c.flag(u, sk, c.l.holds)
	sock := u.Var(u.Int(sk, c.l.socket, 8, false))
	file := u.Var(u.Int(sock, c.l.file, 8, false)) // 0 of none
	u.If(ir.Eq, kern, ir.Imm(0), func() {
		u.If(ir.Eq, sock, ir.Imm(0), func() { u.Return(ir.Imm(0)) }, nil) // of a process that has closed it, or not yet accepted it
		u.If(ir.Ne, file, ir.Imm(0), func() { u.Return(ir.Imm(0)) }, nil)
	}, nil)
	rec := c.record(u, what)
	u.Store(rec.At(srFlags), 8, u.Bin(ir.Or, kern, u.Bin(ir.Shl, holds, ir.Imm(1))))
	u.If(ir.Ne, sock, ir.Imm(0), func() {
		u.Store(rec.At(srInode), 8, u.Int(sock, c.l.vfsInode+c.l.inodeNum, 8, false)) // struct socket_alloc begins with it
	}, nil)
	for _, m := range []struct{ at, off, size int }{{srFamily, c.l.family, 2}, {srType, c.l.skType, 2}, {srProtocol, c.l.skProtocol, 2}, {srState, c.l.state, 1},
		{srNum, c.l.skNum, 2}, {srPort, c.l.port, 2}, {srReceives, c.l.ready, 8}} {
		u.Store(rec.At(m.at), 8, u.Int(sk, m.off, m.size, false))
	}
	u.Store(rec.At(srNetNS), 8, u.Int(u.Int(sk, c.l.net, 8, false), c.l.netInum, 4, false))
	u.Read(rec.At(srAddr4), 4, u.Add(sk, c.l.peer4))
	u.Read(rec.At(srAddr4+4), 4, u.Add(sk, c.l.rcv4))
	u.Read(rec.At(srAddr6), 16, u.Add(sk, c.l.rcv6))
	u.Read(rec.At(srPeer6), 16, u.Add(sk, c.l.peer6))
	return rec
}

// record begins one with who is running.
func (c *sockCode) record(u *unit, what ir.Val) emit.Mem {
	rec := u.Slot("record", srSize)
	u.Zero(rec, srSize)
	u.Store(rec.At(srWhat), 8, what)
	u.Store(rec.At(srTime), 8, u.Call(ir.FnKtimeGetNs))
	u.Store(rec.At(srPIDTGID), 8, u.Call(ir.FnCurrentPidTgid))
	u.Read(rec.At(srComm), 16, u.Add(u.Call(ir.FnCurrentTask), c.l.taskComm))
	return rec
}

// sockMore reads what sockets of a kind have only.
type sockMore func(c *sockCode, u *unit, sk ir.Val, rec emit.Mem)

// sockIters are the kernel's iterators over sockets, with what is read of those of a kind only.
var sockIters = []struct {
	name string
	more sockMore
}{
	{"tcp", nil},
	{"udp", func(c *sockCode, u *unit, sk ir.Val, rec emit.Mem) {
		fn := u.Int(sk, c.l.encap, 8, false)
		u.If(ir.Ne, fn, ir.Imm(0), func() { u.Store(rec.At(srReceives), 8, fn) }, nil)
	}},
	{"unix", func(c *sockCode, u *unit, sk ir.Val, rec emit.Mem) {
		a := u.Var(u.Int(sk, c.l.unixAddr, 8, false))
		u.If(ir.Ne, a, ir.Imm(0), func() {
			u.Store(rec.At(srNum), 8, u.Int(a, c.l.unixLen, 4, false))
			u.Read(rec.At(srName), srNameSize, u.Add(a, c.l.unixName+2)) // behind the family
		}, nil)
	}},
	{"netlink", func(c *sockCode, u *unit, sk ir.Val, rec emit.Mem) {
		u.Store(rec.At(srReceives), 8, u.Int(sk, c.l.netlinkRcv, 8, false))
		u.Store(rec.At(srNum), 8, u.Int(sk, c.l.netlinkPort, 4, false))
	}},
}

// walk writes the program of an iterator.
func (c *sockCode) walk(name string, more sockMore) {
	u := &unit{Unit: c.p.Unit("iter", 0, name)}
	c.targets = [][]probe.Target{{{Provider: "iter", Func: name, Name: "iter:" + name}}}
	sk := u.Var(u.Arg(1)) // behind struct bpf_iter_meta, in all of them
	u.If(ir.Eq, sk, ir.Imm(0), func() { u.Return(ir.Imm(0)) }, nil)
	if name == "tcp" { // not the short forms of a socket that ends or begins
		for _, state := range []int64{tcpTimeWait, tcpNewSynRecv} {
			u.If(ir.Eq, u.Int(sk, c.l.state, 1, false), ir.Imm(state), func() { u.Return(ir.Imm(0)) }, nil)
		}
	}
	rec := c.begin(u, sk, ir.Imm(int64(sockThere)))
	if more != nil {
		more(c, u, sk, rec)
	}
	u.Output(rec, srSize, emit.WakeIfIdle)
	u.Return(ir.Imm(0))
}

// made writes the program that sees sockets made: all of them come by here, with their struct socket, which has its struct sock
// already unless that is to be filled in later (sock_create_lite), their family, type, protocol, and whether the kernel asked.
// What processes ask for by a system call is told, too: the stack tells them apart.
func (c *sockCode) made() bool {
	return c.function("security_socket_post_create", false, func(u *unit) {
		arg := func(i int) ir.Val { return u.Bin(ir.And, u.Arg(i), ir.Imm(0x7fffffff)) }
		rec := c.record(u, ir.Imm(int64(sockMade)))
		for i, at := range []int{srFamily, srType, srProtocol} {
			u.Store(rec.At(at), 8, arg(1+i))
		}
		u.If(ir.Ne, arg(4), ir.Imm(0), func() { u.Store(rec.At(srFlags), 8, ir.Imm(sockKern)) }, nil)
		sock := u.Var(u.Arg(0))
		u.Store(rec.At(srInode), 8, u.Int(sock, c.l.vfsInode+c.l.inodeNum, 8, false))
		sk := u.Int(sock, c.l.sk, 8, false)
		u.Store(rec.At(srNetNS), 8, u.Int(u.Int(sk, c.l.net, 8, false), c.l.netInum, 4, false))
		c.send(u, rec)
	})
}

// turned writes the program that sees TCP sockets of the kernel begin to listen or to connect: a tracepoint, which needs no probes.
func (c *sockCode) turned() {
	c.at("inet_sock_set_state", []string{"sk", "newstate"}, func(u *unit) {
		what := u.Var(ir.Imm(int64(sockThere)))
		state := u.Bin(ir.And, u.arg("newstate"), ir.Imm(0xff))
		u.If(ir.Eq, state, ir.Imm(tcpListen), func() { u.Set(what, ir.Imm(int64(sockListens))) }, nil)
		u.If(ir.Eq, state, ir.Imm(tcpSynSent), func() { u.Set(what, ir.Imm(int64(sockConnects))) }, nil)
		u.If(ir.Eq, what, ir.Imm(int64(sockThere)), func() { u.Return(ir.Imm(0)) }, nil)
		c.send(u, c.begin(u, u.Var(u.arg("sk")), what))
	})
}

// modules writes the program that tells which module the code is of that runs once, when it is loaded, and is gone when a stack
// with it is read.
func (c *sockCode) modules() {
	if c.l.modSize == 0 {
		c.unnamed = []string{"where struct module has it"}
		return
	}
	n := len(c.missing)
	defer func() { c.missing, c.unnamed = c.missing[:n:n], append(c.unnamed, c.missing[n:]...) }()
	c.at("module_load", []string{"mod"}, func(u *unit) {
		mod := u.Var(u.arg("mod"))
		rec := c.record(u, ir.Imm(int64(sockModule)))
		u.Read(rec.At(srName), 56, u.Add(mod, c.l.modName))
		u.Store(rec.At(srNum), 8, u.Int(mod, c.l.modInit, 8, false))
		u.Store(rec.At(srPort), 8, u.Int(mod, c.l.modSize, 4, false))
		u.Output(rec, srSize, emit.WakeIfIdle)
	})
}

// send ends a program with its record and the stack, if it is of the namespace that is wanted.
func (c *sockCode) send(u *unit, rec emit.Mem) {
	if c.netns != 0 {
		ns := u.Load(rec.At(srNetNS), 8, false)
		u.If(ir.Ne, ns, ir.Imm(0), func() { // where it is known
			u.If(ir.Ne, ns, big(u, uint64(c.netns)), func() { u.Return(ir.Imm(0)) }, nil)
		}, nil)
	}
	u.Store(rec.At(srStackLen), 8, u.Stack(rec.At(srStack), 8*srFrames))
	u.Output(rec, srSize, emit.WakeIfIdle)
}

// States of TCP sockets (include/net/tcp_states.h).
const (
	tcpSynSent    = 2
	tcpTimeWait   = 6
	tcpListen     = 10
	tcpNewSynRecv = 12
)
