package topology

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/netns"
	"github.com/fathom-trace/fathom/lab/topology/spec"
)

// Registers of nftables: one for what is compared, one for a port of NAT.
const (
	reg1 = unix.NFT_REG_1
	reg2 = unix.NFT_REG_2
)

// nftTime bounds the kernel's answer to a batch.
const nftTime = 5 * time.Second

var nftHooks = map[string]*nftables.ChainHook{
	"prerouting": nftables.ChainHookPrerouting, "input": nftables.ChainHookInput, "forward": nftables.ChainHookForward,
	"output": nftables.ChainHookOutput, "postrouting": nftables.ChainHookPostrouting,
	"ingress": nftables.ChainHookIngress, "egress": nftables.ChainHookEgress,
}

// filter makes a host's tables: one of family inet, and one of netdev for the hooks of devices.
func filter(ns netns.NS, n *spec.Node) error {
	// A kernel without nf_tables acknowledges a batch once, and not each of its messages: the library waits for the rest.
	answer := func(c *netlink.Conn) error { return c.SetReadDeadline(time.Now().Add(nftTime)) }
	c, err := nftables.New(nftables.WithNetNSFd(ns.FD()), nftables.WithSockOptions(answer))
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	f := ruleset{Conn: c, node: n, tables: map[nftables.TableFamily]*nftables.Table{}, chains: map[string]*nftables.Chain{}, sets: map[string]*nftables.Set{}}
	for _, s := range n.Sets {
		if err := f.set(s); err != nil {
			return fmt.Errorf("add nft set %s: %w", s.Name, err)
		}
	}
	for _, p := range n.Policy {
		f.chain(spec.NFTRule{Hook: p.Hook})
	}
	for _, r := range n.NFT { // chains first: a jump may be to one that comes later
		f.chain(r)
	}
	for _, r := range n.NFT {
		ch := f.chain(r)
		c.AddRule(&nftables.Rule{Table: ch.Table, Chain: ch, Exprs: f.ruleExprs(r)})
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("add nft rules: %w", err)
	}
	return nil
}

// ruleset is a host's rules while they are made.
type ruleset struct {
	*nftables.Conn
	node   *spec.Node
	tables map[nftables.TableFamily]*nftables.Table
	chains map[string]*nftables.Chain
	sets   map[string]*nftables.Set
}

// table is the host's table of a family, which has one name in all.
func (f *ruleset) table(family nftables.TableFamily) *nftables.Table {
	if f.tables[family] == nil {
		name := f.node.Table
		if name == "" {
			name = "lab"
		}
		f.tables[family] = f.AddTable(&nftables.Table{Name: name, Family: family})
	}
	return f.tables[family]
}

func (f *ruleset) set(s spec.NFTSet) error {
	set := &nftables.Set{Table: f.table(nftables.TableFamilyINet), Name: s.Name, KeyType: nftables.TypeIPAddr}
	if s.Addrs[0].Is6() {
		set.KeyType = nftables.TypeIP6Addr
	}
	var elems []nftables.SetElement
	for _, a := range s.Addrs {
		elems = append(elems, nftables.SetElement{Key: a.AsSlice()})
	}
	f.sets[s.Name] = set
	return f.AddSet(set, elems)
}

// chain is the chain of a rule, made with the first that is in it: each hook has one, and one beside it for NAT and one for
// packets that are written.
func (f *ruleset) chain(r spec.NFTRule) *nftables.Chain {
	c := &nftables.Chain{Name: r.Hook, Type: nftables.ChainTypeFilter, Hooknum: nftHooks[r.Hook], Priority: nftables.ChainPriorityFilter, Device: r.Dev}
	family := nftables.TableFamilyINet
	switch {
	case r.Chain != "":
		c = &nftables.Chain{Name: r.Chain}
	case r.Dev != "":
		c.Name, family = r.Hook+"_"+r.Dev, nftables.TableFamilyNetdev
	case r.Verdict == "dnat":
		c.Name, c.Type, c.Priority = r.Hook+"_nat", nftables.ChainTypeNAT, nftables.ChainPriorityNATDest
	case r.Verdict == "masquerade" || r.Verdict == "snat":
		c.Name, c.Type, c.Priority = r.Hook+"_nat", nftables.ChainTypeNAT, nftables.ChainPriorityNATSource
	case r.Verdict == "rewrite":
		c.Name, c.Priority = r.Hook+"_raw", nftables.ChainPriorityRaw
	}
	if f.chains[c.Name] == nil {
		c.Table = f.table(family)
		for _, p := range f.node.Policy {
			if p.Hook == c.Name && p.Does == "drop" {
				drop := nftables.ChainPolicyDrop
				c.Policy = &drop
			}
		}
		f.chains[c.Name] = f.AddChain(c)
	}
	return f.chains[c.Name]
}

func (f *ruleset) ruleExprs(r spec.NFTRule) []expr.Any {
	var out []expr.Any
	for _, m := range r.Matches {
		out = append(out, f.matchExprs(m, r.Dev != "")...)
	}
	out = append(out, &expr.Counter{})
	switch r.Verdict {
	case "accept":
		return append(out, &expr.Verdict{Kind: expr.VerdictAccept})
	case "drop":
		return append(out, &expr.Verdict{Kind: expr.VerdictDrop})
	case "reject":
		return append(out, &expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH})
	case "reset":
		return append(out, &expr.Reject{Type: unix.NFT_REJECT_TCP_RST})
	case "masquerade":
		return append(out, &expr.Masq{})
	case "jump":
		return append(out, &expr.Verdict{Kind: expr.VerdictJump, Chain: r.Target})
	case "goto":
		return append(out, &expr.Verdict{Kind: expr.VerdictGoto, Chain: r.Target})
	case "rewrite":
		return append(out, rewriteExprs(r.NAT.Addr())...)
	}
	return append(out, natExprs(r)...)
}

// rewriteExprs write the destination address of the network header, without a memory of it: answers are not written back.
func rewriteExprs(a netip.Addr) []expr.Any {
	w := &expr.Payload{OperationType: expr.PayloadWrite, SourceRegister: reg1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4,
		CsumType: expr.CsumTypeInet, CsumOffset: 10, CsumFlags: unix.NFT_PAYLOAD_L4CSUM_PSEUDOHDR}
	if a.Is6() {
		w.Offset, w.Len, w.CsumType, w.CsumOffset = 24, 16, expr.CsumTypeNone, 0
	}
	return append(family(a), &expr.Immediate{Register: reg1, Data: a.AsSlice()}, w)
}

func natExprs(r spec.NFTRule) []expr.Any {
	n := &expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg1}
	if r.Verdict == "dnat" {
		n.Type = expr.NATTypeDestNAT
	}
	if r.NAT.Addr().Is6() {
		n.Family = unix.NFPROTO_IPV6
	}
	out := append(family(r.NAT.Addr()), &expr.Immediate{Register: reg1, Data: r.NAT.Addr().AsSlice()})
	if p := r.NAT.Port(); p != 0 {
		n.RegProtoMin, n.Specified = reg2, true
		out = append(out, &expr.Immediate{Register: reg2, Data: binary.BigEndian.AppendUint16(nil, p)})
	}
	return append(out, n)
}

// family keeps what follows to packets of an address's family: table inet sees both.
func family(a netip.Addr) []expr.Any {
	proto := byte(unix.NFPROTO_IPV4)
	if a.Is6() {
		proto = unix.NFPROTO_IPV6
	}
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg1}, &expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{proto}}}
}

var l4Protos = map[string]byte{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "icmp": unix.IPPROTO_ICMP, "icmpv6": unix.IPPROTO_ICMPV6}

var ctStates = map[string]uint32{
	"invalid": expr.CtStateBitINVALID, "new": expr.CtStateBitNEW, "established": expr.CtStateBitESTABLISHED, "related": expr.CtStateBitRELATED,
}

var limitUnits = map[string]expr.LimitTime{"second": expr.LimitTimeSecond, "minute": expr.LimitTimeMinute, "hour": expr.LimitTimeHour}

// matchExprs compares; netdev says that the table is of that family, in which the EtherType tells addresses apart.
func (f *ruleset) matchExprs(m spec.Match, netdev bool) []expr.Any {
	op := expr.CmpOpEq
	if m.Not {
		op = expr.CmpOpNeq
	}
	cmp := func(data []byte) expr.Any { return &expr.Cmp{Op: op, Register: reg1, Data: data} }
	switch m.Key {
	case "iif", "oif":
		key := expr.MetaKeyIIFNAME
		if m.Key == "oif" {
			key = expr.MetaKeyOIFNAME
		}
		name := make([]byte, unix.IFNAMSIZ)
		copy(name, m.Text)
		return []expr.Any{&expr.Meta{Key: key, Register: reg1}, cmp(name)}
	case "proto":
		return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg1}, cmp([]byte{l4Protos[m.Text]})}
	case "mark":
		return []expr.Any{&expr.Meta{Key: expr.MetaKeyMARK, Register: reg1}, cmp(binary.NativeEndian.AppendUint32(nil, m.Num))}
	case "ct": // state & BIT != 0
		test, none := binary.NativeEndian.AppendUint32(nil, ctStates[m.Text]), make([]byte, 4)
		nonzero := &expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: none}
		if m.Not {
			nonzero.Op = expr.CmpOpEq
		}
		return []expr.Any{&expr.Ct{Register: reg1, Key: expr.CtKeySTATE}, &expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4, Mask: test, Xor: none}, nonzero}
	case "over":
		return []expr.Any{&expr.Limit{Type: expr.LimitTypePkts, Rate: uint64(m.Num), Unit: limitUnits[m.Text], Over: !m.Not, Burst: m.Burst}}
	case "sport", "dport":
		load := &expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseTransportHeader, Len: 2}
		if m.Key == "dport" {
			load.Offset = 2
		}
		return []expr.Any{load, cmp(binary.BigEndian.AppendUint16(nil, uint16(m.Num)))}
	}
	return f.addrExprs(m, cmp, netdev)
}

// addrExprs compares an address of the network header (struct iphdr, struct ipv6hdr) under its mask, or looks it up.
func (f *ruleset) addrExprs(m spec.Match, cmp func([]byte) expr.Any, netdev bool) []expr.Any {
	set := f.sets[m.Text]
	six := m.Net.Addr().Is6() || set != nil && set.KeyType == nftables.TypeIP6Addr
	load := &expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseNetworkHeader, Len: 4, Offset: 12}
	any, etherType := netip.IPv4Unspecified(), uint16(unix.ETH_P_IP)
	if six {
		load.Len, load.Offset = 16, 8
		any, etherType = netip.IPv6Unspecified(), unix.ETH_P_IPV6
	}
	if m.Key == "daddr" {
		load.Offset += load.Len
	}
	out := family(any)
	if netdev {
		out = []expr.Any{&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: reg1}, &expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: binary.BigEndian.AppendUint16(nil, etherType)}}
	}
	out = append(out, load)
	if set != nil {
		return append(out, &expr.Lookup{SourceRegister: reg1, SetName: set.Name, SetID: set.ID, Invert: m.Not})
	}
	n := ipNet(m.Net)
	if m.Net.Bits() < m.Net.Addr().BitLen() {
		out = append(out, &expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: load.Len, Mask: n.Mask, Xor: make([]byte, load.Len)})
	}
	return append(out, cmp(n.IP))
}
