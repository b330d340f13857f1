package nft

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/fathom-trace/fathom/netstate/nlattr"
)

// devices says which devices a hook has: in one without, names are empty and indexes 0.
func (e *eval) devices() (in, out bool) {
	switch e.hook {
	case "prerouting", "input", "ingress":
		return true, false
	case "output", "postrouting", "egress":
		return false, true
	}
	return true, true
}

func u32(n uint32) []byte { return binary.LittleEndian.AppendUint32(nil, n) }

func name16(s string) []byte {
	b := make([]byte, 16)
	copy(b[:15], s)
	return b
}

// meta loads or sets what belongs to the packet and is not in it.
func (m *machine) meta(a nlattr.Attrs) (truth, string) {
	key := a.BE32(2)
	if a.Has(3) {
		m.setMeta(key, a.BE32(3))
		return yes, ""
	}
	d, known, ok := m.metaValue(key)
	switch {
	case !ok:
		return no, ""
	case !known:
		k := metaKeys[key]
		m.forget(a.BE32(1), max(k.len, 4), cmp.Or(k.name, "meta"))
	default:
		m.set(a.BE32(1), d)
	}
	return yes, ""
}

func (m *machine) setMeta(key, reg uint32) {
	d, why := m.get(reg, 4)
	to := ""
	if why == "" && key == 3 {
		to = value(tMark, false, d)
		if m.certain() {
			m.pkt.Mark = binary.LittleEndian.Uint32(d)
		}
	}
	if key == 3 {
		m.change("mark", to)
	}
}

// metaValue is the value of a key. ok is false where the kernel ends the rule, known where it is not known here.
func (m *machine) metaValue(key uint32) (d []byte, known, ok bool) {
	p := m.pkt
	in, out := m.devices()
	opt32 := func(v *uint32) ([]byte, bool, bool) {
		if v == nil {
			return nil, false, true
		}
		return u32(*v), true, true
	}
	index := func(has bool, n int) ([]byte, bool, bool) { return u32(uint32(n)), n != 0 || !has, true }
	name := func(has bool, s string) ([]byte, bool, bool) { return name16(s), s != "" || !has, true }
	switch key {
	case 0:
		return u32(uint32(p.total())), true, true
	case 1:
		return binary.BigEndian.AppendUint16(nil, p.proto()), p.proto() != 0, true
	case 3:
		return u32(p.Mark), true, true
	case 4:
		return index(in, p.IIF)
	case 5:
		return index(out, p.OIF)
	case 6:
		return name(in, p.IIFName)
	case 7:
		return name(out, p.OIFName)
	case 8:
		if p.IIFType == nil {
			if p.Link != nil {
				return []byte{1, 0}, true, in
			}
			return nil, false, in
		}
		return binary.LittleEndian.AppendUint16(nil, *p.IIFType), true, in
	case 9:
		if p.OIFType == nil {
			return nil, false, out
		}
		return binary.LittleEndian.AppendUint16(nil, *p.OIFType), true, out
	case 10:
		return opt32(p.UID)
	case 11:
		return opt32(p.GID)
	case 15:
		return []byte{map[uint16]byte{etherIP: 2, etherIP6: 10, etherARP: 3}[p.proto()]}, true, true
	case 16:
		proto, _, ok := p.transport()
		if p.proto() == etherIP && len(p.Data) >= 20 { // known of later fragments, too
			return []byte{p.Data[9]}, true, true
		}
		return []byte{proto}, true, ok
	case 19:
		if p.PktType == nil {
			return nil, false, true
		}
		return []byte{*p.PktType}, true, true
	case 21:
		d, known, _ := opt32(p.IIFGroup)
		return d, known, in
	case 22:
		d, known, _ := opt32(p.OIFGroup)
		return d, known, out
	case 26:
		return name16(p.IIFKind), p.IIFKind != "", in
	case 27:
		return name16(p.OIFKind), p.OIFKind != "", out
	}
	return nil, false, true
}

// ctStates are NF_CT_STATE_BIT of each state.
var ctStates = map[string]uint32{"invalid": 1, "established": 2, "related": 4, "new": 8, "untracked": 64}

func (m *machine) ct(a nlattr.Attrs) (truth, string) {
	key := a.BE32(2)
	if a.Has(4) {
		if key == 3 {
			m.change("ct mark", "")
		}
		return yes, ""
	}
	p, reg := m.pkt, a.BE32(1)
	var d []byte
	switch {
	case key == 0 && p.CtState != "":
		d = u32(ctStates[p.CtState])
	case p.CtState == "invalid" || p.CtState == "untracked": // there is no entry to read from
		return no, ""
	case key == 1 && p.CtDir != nil:
		d = []byte{*p.CtDir}
	case key == 2 && p.CtStatus != nil:
		d = u32(*p.CtStatus)
	case key == 3 && p.CtMark != nil:
		d = u32(*p.CtMark)
	default:
		k := ctKeys[key]
		m.forget(reg, max(k.len, 4), "ct "+k.name)
		return yes, ""
	}
	m.set(reg, d)
	return yes, ""
}

// exthdr looks for an extension header of IPv6 or an option of TCP.
func (m *machine) exthdr(a nlattr.Attrs) (truth, string) {
	if a.Has(7) || !a.Has(1) {
		m.change("set", "")
		return yes, ""
	}
	typ, off, n, reg := a.U8(2), int(a.BE32(3)), int(a.BE32(4)), a.BE32(1)
	var d []byte
	known := true
	switch a.BE32(6) {
	case 0:
		if m.pkt.proto() != etherIP6 || len(m.pkt.Data) < 40 {
			return no, ""
		}
		if _, at, ok := m.pkt.extension(int(typ)); ok && at <= len(m.pkt.Data) {
			d = m.pkt.Data[at:]
		}
	case 1:
		d, known = m.pkt.tcpOption(typ)
	default:
		known = false
	}
	present := a.BE32(5)&1 != 0
	switch {
	case !known:
		m.forget(reg, n, "header options")
	case present:
		m.set(reg, []byte{map[bool]byte{true: 1}[d != nil]})
	case n < 0 || off < 0 || len(d) < off+n:
		return no, ""
	default:
		m.set(reg, d[off:off+n])
	}
	return yes, ""
}

func (m *machine) fib(a nlattr.Attrs) (truth, string) {
	reg, result, flags := a.BE32(1), a.BE32(2), a.BE32(3)
	if m.pkt.FIB == nil {
		m.forget(reg, 16, "fib")
		return yes, ""
	}
	dev, name, typ, ok := m.pkt.FIB(m.pkt, m.hook, flags)
	present := flags&(1<<5) != 0
	switch {
	case result == 3 && !present:
		if typ == 0 {
			m.forget(reg, 16, "fib")
		} else {
			m.set(reg, u32(typ))
		}
	case !ok:
		m.forget(reg, 16, "fib")
	case present:
		m.set(reg, []byte{map[bool]byte{true: 1}[dev != 0]})
	case result == 1:
		m.set(reg, u32(uint32(dev)))
	default:
		m.set(reg, name16(name))
	}
	return yes, ""
}

// nat notes where a packet is sent to, or said to come from, and rewrites the copy of it if that is certain.
func (m *machine) nat(x Expr) {
	a := x.Attrs
	m.verdict = "accept"
	what, regs, dst := "masquerade", [2]uint32{0, a.BE32(2)}, false
	fam := 4
	switch x.Name {
	case "nat":
		what, regs, dst = []string{"snat", "dnat"}[min(a.BE32(1), 1)], [2]uint32{a.BE32(3), a.BE32(5)}, a.BE32(1) == 1
		if a.BE32(2) == 10 {
			fam = 16
		}
		if (fam == 4) != (m.pkt.proto() == etherIP) && m.chain.Family == "inet" && regs[0] != 0 {
			m.verdict = "" // the other family passes
			return
		}
	case "redir":
		what, regs, dst = "redirect", [2]uint32{0, a.BE32(1)}, true
	}
	var addr netip.Addr
	port := uint16(0)
	if d, why := m.get(regs[0], fam); regs[0] != 0 && why == "" {
		addr, _ = netip.AddrFromSlice(d)
	}
	if d, why := m.get(regs[1], 2); regs[1] != 0 && why == "" {
		port = binary.BigEndian.Uint16(d)
	}
	certain := m.certain()
	m.change(what, endpoint(addr, port))
	if certain {
		m.pkt.rewrite(dst, addr, port)
	}
}

// rewrite puts an address and a port in the place of the source or destination.
func (p *Packet) rewrite(dst bool, addr netip.Addr, port uint16) {
	off, n := 12, 4
	if p.proto() == etherIP6 {
		off, n = 8, 16
	}
	portAt := 0
	if dst {
		off, portAt = off+n, 2
	}
	if d := addr.AsSlice(); len(d) == n && len(p.Data) >= off+n {
		copy(p.Data[off:], d)
	}
	proto, at, ok := p.transport()
	if ok && port != 0 && slices.Contains(withPorts, proto) && at+4 <= len(p.Data) {
		binary.BigEndian.PutUint16(p.Data[at+portAt:], port)
	}
}
