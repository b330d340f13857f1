package netstate

import "github.com/fathom-trace/fathom/netstate/nft"

// Firewall is the ruleset of nftables, which can be asked what it does with a packet.
func (s *State) Firewall() *nft.Ruleset { return &nft.Ruleset{Chains: s.Chains, Sets: s.Sets} }
