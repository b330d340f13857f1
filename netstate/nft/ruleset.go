package nft

// Ruleset is everything nftables hold in a namespace.
type Ruleset struct {
	Chains []Chain `json:"chains,omitempty"`
	Sets   []Set   `json:"sets,omitempty"`
}

// Chain is a chain of nftables. Hook is "" for a chain that others jump to.
type Chain struct {
	Family   string   `json:"family"` // "ip", "ip6", "inet", "arp", "bridge", "netdev"
	Table    string   `json:"table"`
	Name     string   `json:"name"`
	Handle   uint64   `json:"handle,omitempty"`
	Hook     string   `json:"hook,omitempty"` // "prerouting", "input", "forward", "output", "postrouting", "ingress", "egress"
	Type     string   `json:"type,omitempty"` // "filter", "nat", "route"
	Priority int      `json:"priority,omitempty"`
	Policy   string   `json:"policy,omitempty"`  // "accept" or "drop" of a base chain
	Devs     []string `json:"devs,omitempty"`    // of netdev chains
	Dormant  bool     `json:"dormant,omitempty"` // its table is switched off
	Rules    []Rule   `json:"rules,omitempty"`
}

// Rule is a rule of nftables. Text is as nft lists it, without counters' values: "udp dport 9 counter drop".
type Rule struct {
	Handle  uint64 `json:"handle"`
	Text    string `json:"text"`
	Comment string `json:"comment,omitempty"`
	Verdict string `json:"verdict,omitempty"` // "accept", "drop", "jump", "goto", "return", "queue", "reject", "masquerade", "snat", "dnat", "redirect", "set" (writes the packet); "" goes on
	Target  string `json:"target,omitempty"`  // of jump and goto
	Packets uint64 `json:"packets,omitempty"` // if it counts
	Bytes   uint64 `json:"bytes,omitempty"`
	Counts  bool   `json:"counts,omitempty"`
	Raw     []byte `json:"raw,omitempty"` // NFTA_RULE_EXPRESSIONS as the kernel sent them: what [Ruleset.Eval] runs
}

// Set is a set or map that rules look up. Anonymous ones belong to one rule.
type Set struct {
	Family   string `json:"family"`
	Table    string `json:"table"`
	Name     string `json:"name"`
	ID       uint32 `json:"id,omitempty"`
	Flags    uint32 `json:"flags,omitempty"` // NFT_SET_…
	KeyType  uint32 `json:"key_type"`        // as nft numbers its types; 6 bits for each part of a concatenation
	KeyLen   int    `json:"key_len"`         // bytes
	DataType uint32 `json:"data_type,omitempty"`
	DataLen  int    `json:"data_len,omitempty"`
	Fields   []int  `json:"fields,omitempty"` // bytes of each part of a concatenation of intervals
	Elems    []Elem `json:"elems,omitempty"`
}

// Elem is an element of a set.
type Elem struct {
	Key     []byte `json:"key,omitempty"`
	End     []byte `json:"end,omitempty"`  // last key of an interval in a concatenation
	Data    []byte `json:"data,omitempty"` // of a map
	Verdict string `json:"verdict,omitempty"`
	Target  string `json:"target,omitempty"` // of the verdicts jump and goto
	Object  string `json:"object,omitempty"` // of a map of objects
	Flags   uint32 `json:"flags,omitempty"`  // 1: the first key after an interval; 2: matches what no other does
	Comment string `json:"comment,omitempty"`
}
