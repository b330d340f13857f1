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
}

// filter puts rules into table inet lab: a chain for each hook, and one beside it for NAT.
func filter(ns netns.NS, rules []spec.NFTRule) error {
	// A kernel without nf_tables acknowledges a batch once, and not each of its messages: the library waits for the rest.
	answer := func(c *netlink.Conn) error { return c.SetReadDeadline(time.Now().Add(nftTime)) }
	c, err := nftables.New(nftables.WithNetNSFd(ns.FD()), nftables.WithSockOptions(answer))
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	table := c.AddTable(&nftables.Table{Name: "lab", Family: nftables.TableFamilyINet})
	chains := map[string]*nftables.Chain{}
	for _, r := range rules {
		name, typ, prio := r.Hook, nftables.ChainTypeFilter, nftables.ChainPriorityFilter
		if r.Verdict == "masquerade" || r.Verdict == "snat" || r.Verdict == "dnat" {
			name, typ, prio = r.Hook+"_nat", nftables.ChainTypeNAT, nftables.ChainPriorityNATSource
			if r.Verdict == "dnat" {
				prio = nftables.ChainPriorityNATDest
			}
		}
		if chains[name] == nil {
			chains[name] = c.AddChain(&nftables.Chain{Name: name, Table: table, Type: typ, Hooknum: nftHooks[r.Hook], Priority: prio})
		}
		c.AddRule(&nftables.Rule{Table: table, Chain: chains[name], Exprs: ruleExprs(r)})
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("add nft rules: %w", err)
	}
	return nil
}

func ruleExprs(r spec.NFTRule) []expr.Any {
	var out []expr.Any
	for _, m := range r.Matches {
		out = append(out, matchExprs(m)...)
	}
	out = append(out, &expr.Counter{})
	switch r.Verdict {
	case "accept":
		return append(out, &expr.Verdict{Kind: expr.VerdictAccept})
	case "drop":
		return append(out, &expr.Verdict{Kind: expr.VerdictDrop})
	case "reject":
		return append(out, &expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH})
	case "masquerade":
		return append(out, &expr.Masq{})
	}
	return append(out, natExprs(r)...)
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

func matchExprs(m spec.Match) []expr.Any {
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
	case "sport", "dport":
		load := &expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseTransportHeader, Len: 2}
		if m.Key == "dport" {
			load.Offset = 2
		}
		return []expr.Any{load, cmp(binary.BigEndian.AppendUint16(nil, uint16(m.Num)))}
	}
	return addrExprs(m, cmp)
}

// addrExprs compares an address of the network header (struct iphdr, struct ipv6hdr) under its mask.
func addrExprs(m spec.Match, cmp func([]byte) expr.Any) []expr.Any {
	n := ipNet(m.Net)
	load := &expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseNetworkHeader, Len: uint32(len(n.IP)), Offset: 12}
	if m.Net.Addr().Is6() {
		load.Offset = 8
	}
	if m.Key == "daddr" {
		load.Offset += load.Len
	}
	out := append(family(m.Net.Addr()), load)
	if m.Net.Bits() < m.Net.Addr().BitLen() {
		out = append(out, &expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: load.Len, Mask: n.Mask, Xor: make([]byte, load.Len)})
	}
	return append(out, cmp(n.IP))
}
