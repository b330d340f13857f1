package capture

import (
	"fmt"

	"github.com/fathom-trace/fathom/ctype"
)

// member is where a member of a struct of the kernel is. A member that this kernel has not got has size 0.
type member struct {
	off, size int
	bit, bits int // of a bitfield, in the byte at off
}

func (m member) there() bool { return m.size > 0 }

// layout has the places of what the programs read.
type layout struct {
	skbSize                                               int
	dev, sk, length, mark, protocol, vlanTCI, vlanProto   member
	vlanPresent, pktType, cloned                          member
	macHeader, networkHeader, transportHeader, iif        member
	head, data, tail, end                                 member
	devIfindex, devName, devNet                           member
	netInum, sockNet                                      member
	dataref, gsoSize, gsoSegs                             member
	sockFamily, sockDport, sockNum, sockDaddr, sockDaddr6 member
	sockProtocol, sockState                               member
	taskFiles, filesFdt, fdtFd, fdtMax, filePrivate       member
	socketSk, sockSocket, msgName                         member
	progAux, auxID                                        member
	callArgs                                              [5]member // of a system call, in struct pt_regs at its end
	callNr                                                member    // its number, there
	bytes                                                 member    // of struct __kernel_sockaddr_storage, most of which they are
}

// finder looks members up and remembers the first that is missing.
type finder struct {
	types ctype.Lookup
	err   error
}

func (f *finder) structure(name string) *ctype.Struct {
	t, err := f.types.ByName(ctype.KindStruct, name)
	if err != nil {
		if f.err == nil {
			f.err = fmt.Errorf("struct %s: %w", name, err)
		}
		return nil
	}
	s, _ := ctype.Strip(t).(*ctype.Struct)
	return s
}

// maybe finds a member by a path of names, through structs that are embedded; it need not be there.
func (f *finder) maybe(name string, path ...string) member {
	s := f.structure(name)
	var m member
	for _, p := range path {
		if s == nil {
			return member{}
		}
		mem, ok := s.Member(p)
		if !ok {
			return member{}
		}
		m.off += mem.BitOff / 8
		m.size = ctype.Size(mem.Type)
		if mem.BitSize != 0 {
			m.bit, m.bits, m.size = mem.BitOff%8, mem.BitSize, 1
		}
		s, _ = ctype.Strip(mem.Type).(*ctype.Struct)
	}
	return m
}

// get finds a member that must be there.
func (f *finder) get(name string, path ...string) member {
	m := f.maybe(name, path...)
	if !m.there() && f.err == nil {
		f.err = fmt.Errorf("struct %s has no member %v", name, path)
	}
	return m
}

// newLayout reads the places from a kernel's types.
func newLayout(types ctype.Lookup) (*layout, error) {
	f := &finder{types: types}
	skb := func(name string) member { return f.get("sk_buff", name) }
	l := &layout{
		dev: skb("dev"), sk: skb("sk"), length: skb("len"), mark: skb("mark"), protocol: skb("protocol"),
		vlanTCI: skb("vlan_tci"), vlanProto: skb("vlan_proto"), vlanPresent: f.maybe("sk_buff", "vlan_present"),
		pktType: skb("pkt_type"), cloned: skb("cloned"), macHeader: skb("mac_header"), networkHeader: skb("network_header"),
		transportHeader: skb("transport_header"), iif: skb("skb_iif"), head: skb("head"), data: skb("data"),
		tail: skb("tail"), end: skb("end"),
		devIfindex: f.get("net_device", "ifindex"), devName: f.get("net_device", "name"),
		devNet:  f.get("net_device", "nd_net", "net"),
		netInum: f.get("net", "ns", "inum"), sockNet: f.get("sock", "__sk_common", "skc_net", "net"),
		dataref: f.get("skb_shared_info", "dataref"), gsoSize: f.get("skb_shared_info", "gso_size"),
		gsoSegs:    f.get("skb_shared_info", "gso_segs"),
		sockFamily: f.get("sock", "__sk_common", "skc_family"), sockDport: f.get("sock", "__sk_common", "skc_dport"),
		sockNum: f.get("sock", "__sk_common", "skc_num"), sockDaddr: f.get("sock", "__sk_common", "skc_daddr"),
		sockDaddr6:   f.maybe("sock", "__sk_common", "skc_v6_daddr"),
		sockProtocol: f.get("sock", "sk_protocol"), sockState: f.get("sock", "__sk_common", "skc_state"),
		taskFiles: f.get("task_struct", "files"), filesFdt: f.get("files_struct", "fdt"),
		fdtFd: f.get("fdtable", "fd"), fdtMax: f.get("fdtable", "max_fds"), filePrivate: f.get("file", "private_data"),
		socketSk: f.get("socket", "sk"), sockSocket: f.get("sock", "sk_socket"), msgName: f.get("msghdr", "msg_name"),
		progAux: f.get("bpf_prog", "aux"), auxID: f.get("bpf_prog_aux", "id"),
	}
	if s := f.structure("sk_buff"); s != nil {
		l.skbSize = (s.Size + 7) &^ 7
	}
	l.bytes = f.maybe(byteStruct, "__data")
	if l.callNr = f.maybe("pt_regs", "orig_ax"); !l.callNr.there() {
		l.callNr = f.get("pt_regs", "syscallno") // arch/arm64/include/asm/ptrace.h
	}
	for i, name := range [...]string{"di", "si", "dx", "r10", "r8"} { // arch/x86/include/asm/ptrace.h
		if l.callArgs[i] = f.maybe("pt_regs", name); l.callArgs[i].there() {
			continue
		}
		if i == 0 { // arch/arm64/include/asm/ptrace.h: the result is in regs[0]
			l.callArgs[i] = f.get("pt_regs", "orig_x0")
			continue
		}
		l.callArgs[i] = f.get("pt_regs", "regs")
		l.callArgs[i].off += 8 * i
	}
	return l, f.err
}

// front is the part of struct sk_buff that filters ask for, from lo on up to hi: a third of it.
func (l *layout) front() (lo, hi int) {
	lo = l.skbSize
	for _, m := range []member{l.pktType, l.vlanPresent, l.vlanProto, l.vlanTCI, l.protocol, l.mark, l.networkHeader, l.macHeader, l.tail, l.head} {
		if m.there() {
			lo, hi = min(lo, m.off&^7), max(hi, (m.off+m.size+7)&^7)
		}
	}
	return lo, hi
}

// shared is the part of struct skb_shared_info that events tell of, from lo on up to hi.
func (l *layout) shared() (lo, hi int) {
	lo = min(l.gsoSize.off, l.gsoSegs.off, l.dataref.off) &^ 7
	return lo, (max(l.gsoSize.off+2, l.gsoSegs.off+2, l.dataref.off+4) + 7) &^ 7
}
