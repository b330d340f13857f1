// Package nft reads nftables' rules as the kernel keeps them, writes them as `nft -a list ruleset` does, and says what they
// would do with a packet. It is pure: bytes of netlink messages in, values out (include/uapi/linux/netfilter/nf_tables.h).
package nft
