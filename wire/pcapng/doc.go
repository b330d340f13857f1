// Package pcapng reads files of packets, pcapng and the older pcap, and writes pcapng.
//
// The reader takes a stream and keeps one block at a time; blocks are bounded (MaxBlock), so no file makes it
// use more memory than that. Of the blocks, it knows sections, interfaces, packets (enhanced, simple, and the obsolete packet block) and
// interface statistics; the others it steps over. The writer gives every packet comments and flags, which Wireshark shows.
//
// Authority: draft-ietf-opsawg-pcapng, draft-ietf-opsawg-pcap. It is our own, though gopacket has one: that brings
// 2 MB of dissectors into the binary, takes lengths from the file for allocations, and drops options it reads.
package pcapng

// MaxBlock bounds a block, in bytes: the largest packet with room for its options.
const MaxBlock = 16 << 20

// Block types.
const (
	blockSection    = 0x0a0d0d0a
	blockInterface  = 1
	blockPacket     = 2 // obsolete
	blockSimple     = 3
	blockStatistics = 5
	blockEnhanced   = 6

	byteOrderMagic = 0x1a2b3c4d
)

// Option codes; those from 2 on belong to their block.
const (
	optEnd     = 0
	optComment = 1

	optHardware    = 2 // of sections
	optOS          = 3
	optApplication = 4

	optName        = 2 // of interfaces
	optDescription = 3
	optResolution  = 9
	optOffset      = 14

	optFlags   = 2 // of packets
	optDropped = 4
	optID      = 5
	optQueue   = 6

	optReceived = 4 // of statistics
	optIfDrop   = 5
)

// Link types (LINKTYPE_…) in files.
const (
	LinkNull     = 0
	LinkEthernet = 1
	LinkRaw      = 101
	LinkLoop     = 108
	LinkSLL      = 113
	LinkSLL2     = 276
)

// Section describes who wrote a section; every field may be empty.
type Section struct {
	Hardware, OS, Application string
	Comments                  []string
}

// Interface describes where packets were captured.
type Interface struct {
	Link        uint16
	Snaplen     uint32 // 0 is no limit
	Name        string
	Description string
	Comments    []string

	resolution uint8 // of time stamps, as if_tsresol has it
	offset     int64 // seconds to add to them
}

// Direction is in the lowest bits of Packet.Flags.
const (
	DirectionUnknown = 0
	Inbound          = 1
	Outbound         = 2
)

// Packet is a packet of a file.
type Packet struct {
	Interface int   // index into Reader.Interfaces of the section, or what Writer.Add gave
	Time      int64 // ns since 1970; 0 in simple packet blocks, which have none
	Data      []byte
	WireLen   int // length of the whole packet; the writer takes 0 for len(Data)
	Comments  []string
	Flags     uint32 // epb_flags; 0 if there are none
	Dropped   uint64 // packets lost between this and the one before on the interface, as far as known
	ID        uint64 // the same for the same packet seen in two places; 0 is none
	Queue     uint32 // of the device; 0 is none, or the first
}

// Statistics of an interface.
type Statistics struct {
	Interface         int
	Time              int64 // ns since 1970
	Received, Dropped uint64
}
