// Package header gives names to the bytes of packets: a header is a slice of the packet with accessors, nothing is copied
// and nothing allocated. [Stack.Walk] finds the headers of a packet and where they are; [Append] renders a packet on one line in
// tcpdump's manner; checksums are verified and computed.
//
// An accessor wants the header whole: its slice must have the type's fixed length (EthernetLen, …), as every layer that Walk
// finds has. Slices of less make accessors panic, as indexing does. Walk itself takes any bytes.
//
// The layouts are those of IEEE 802.3 and 802.1Q, and of the RFCs named at the types.
package header
