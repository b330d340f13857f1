package live

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/netstate/nft"
)

// nftables reads the ruleset, or only its counters. A kernel without nftables has no rules.
func (s *reading) nftables() {
	var err error
	switch {
	case s.want(NFT):
		err = s.ruleset()
	case s.want(Counters):
		err = s.dump(unix.NETLINK_NETFILTER, nft.GetRule, nft.Request(), func(typ uint16, b []byte) error {
			return nft.CountPackets(s.out.Counters, b)
		})
	}
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EPROTONOSUPPORT) { // no module
		s.missing("nftables", err)
	}
}

func (s *reading) ruleset() error {
	d := nft.Decoder{Links: map[int]string{}}
	for _, l := range s.links {
		d.Links[l.index] = l.name
	}
	add := func(typ uint16, b []byte) error { return d.Add(typ&0xff, b) }
	for _, typ := range []uint16{nft.GetTable, nft.GetChain, nft.GetRule, nft.GetSet} {
		err := s.dump(unix.NETLINK_NETFILTER, typ, nft.Request(), func(got uint16, b []byte) error {
			if s.want(Counters) && typ == nft.GetRule {
				if err := nft.CountPackets(s.out.Counters, b); err != nil {
					return err
				}
			}
			return add(got, b)
		})
		if err != nil {
			return err
		}
	}
	for _, set := range d.Sets() {
		err := s.dump(unix.NETLINK_NETFILTER, nft.GetSetElem, nft.ElemRequest(set), add)
		if err != nil && !errors.Is(err, unix.ENOENT) { // the set has gone
			return err
		}
	}
	r := d.Ruleset()
	s.out.Chains, s.out.Sets = r.Chains, r.Sets
	return nil
}
