// Package nft reads nftables' rules as the kernel keeps them, writes them as `nft -a list ruleset` does (version 1.0.6), and
// says what they would do with a packet. It is pure: bytes of netlink messages in, values out
// (include/uapi/linux/netfilter/nf_tables.h).
//
//	Decoder.Add(type, message), .Sets(), .Ruleset()  a ruleset out of the answers to dumps (GetTable, GetChain, GetRule, GetSet, GetSetElem)
//	Ruleset.Describe(links)                          texts, verdicts and counters out of expressions that were kept
//	Ruleset.Eval(Packet, hook) Outcome               what the chains of a hook do with a packet
//	Outcome.Verdict, .By                             the verdict, and the rule or policy it is from
//	Outcome.Maybe, .Droppers(), .Dropper(moved)      rules with a test that cannot be decided (limits, what was not given of a
//	                                                 connection), in order; which of them it was, by the counters that moved
//	Outcome.Changes                                  rules that rewrote the packet: nat, payload set, mark
//	Set.Lookup(key) (Elem, bool)                     what a set has for a key
//
// Rules that iptables-nft made are written in nft's words where their matches are known, and as xt match "name" where not;
// of the latter nothing is decided. What an expression means that this package does not know is written as [name] and not
// decided either: nothing is left out. Not written are the declarations of sets, objects and flowtables.
package nft
