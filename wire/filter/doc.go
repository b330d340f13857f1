// Package filter compiles packet filters written in the language of tcpdump, pcap-filter(7).
//
// An expression becomes a graph of tests over the bytes of a packet. From that graph come three forms with equal
// verdicts: classic BPF for a socket ([Filter.Classic]), blocks of package ir for a program in the kernel
// ([Filter.Emit]), and an evaluator ([Filter.Match]). Nothing is looked up in the system: names that are not in the
// package's own tables are asked of [Options.Names].
//
// # What a verdict is
//
// The rules are libpcap's (gencode.c of 1.10): tests run from left to right; a test that wants a byte behind the end of
// the packet, or divides by zero, ends the program with "no match", whatever stands around it, also under not. vlan, mpls, pppoes,
// geneve and vxlan move the place at which every later primitive of the expression looks.
//
// # What differs from libpcap, and why
//
//   - protochain follows at most 16 headers: the kernel runs no loops in classic BPF (libpcap's program is refused there).
//   - "byte 0 & 1" reads that byte; libpcap's program does not.
//   - inbound, outbound and ifindex want a link type that has them (Linux cooked) or [Options.Metadata]; everything of pf,
//     802.11, ATM and SS7 is refused by name.
//   - vxlan [vni] is understood, as by libpcap since 1.11.
//   - NULL takes the numbers of every system for IPv6, since a file does not say which one wrote it.
//   - A constant index on the right of / % << >> is not taken for the operand: "len / tcp[0]" compiles.
//
// docs/filter.md has the whole list.
package filter
