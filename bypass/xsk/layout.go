package xsk

import (
	"encoding/binary"
	"fmt"
)

// Desc is struct xdp_desc (include/uapi/linux/if_xdp.h): an entry of the receive and transmit rings.
type Desc struct {
	Addr    uint64 // of the packet's first byte, from the UMEM's start
	Len     uint32
	Options uint32
}

// Options of a Desc.
const (
	pktContinued = 1 << 0 // XDP_PKT_CONTD: the packet goes on in the next descriptor
	pktMetadata  = 1 << 1 // XDP_TX_METADATA: there is a struct xsk_tx_metadata before the packet
)

// ringOffsets is struct xdp_ring_offset: where the parts of a ring are in its mapping.
type ringOffsets struct{ Producer, Consumer, Desc, Flags uint64 }

// offsets is struct xdp_mmap_offsets.
type offsets struct{ RX, TX, Fill, Completion ringOffsets }

// offsetsLen is the size of struct xdp_mmap_offsets. That of Linux 5.3 and earlier, struct xdp_mmap_offsets_v1, has no flags.
const (
	offsetsLen   = 4 * 32
	offsetsV1Len = 4 * 24
)

// decodeOffsets reads what getsockopt(XDP_MMAP_OFFSETS) gave.
func decodeOffsets(b []byte) (offsets, error) {
	size := 32
	switch len(b) {
	case offsetsLen:
	case offsetsV1Len:
		size = 24
	default:
		return offsets{}, fmt.Errorf("struct xdp_mmap_offsets of %d bytes; %d are expected", len(b), offsetsLen)
	}
	var o offsets
	for i, r := range []*ringOffsets{&o.RX, &o.TX, &o.Fill, &o.Completion} {
		w := b[i*size:]
		r.Producer, r.Consumer, r.Desc = word(w, 0), word(w, 1), word(w, 2)
		if size == 32 {
			r.Flags = word(w, 3)
		}
	}
	return o, nil
}

func word(b []byte, i int) uint64 { return binary.NativeEndian.Uint64(b[8*i:]) }

// KernelStats is struct xdp_statistics: what the kernel counted of one socket.
type KernelStats struct {
	RxDropped       uint64 `json:"rx_dropped"`         // for other reasons than those below
	RxInvalidDescs  uint64 `json:"rx_invalid_descs"`   // entries of the fill ring that mean nothing
	TxInvalidDescs  uint64 `json:"tx_invalid_descs"`   // entries of the transmit ring that mean nothing
	RxRingFull      uint64 `json:"rx_ring_full"`       // packets dropped: this process took too few
	RxFillRingEmpty uint64 `json:"rx_fill_ring_empty"` // how often there was no frame for a packet
	TxRingEmpty     uint64 `json:"tx_ring_empty"`      // how often there was nothing to send
}

// statsLen is the size of struct xdp_statistics; Linux 5.8 and earlier know the first three words.
const statsLen = 6 * 8

// decodeStats reads what getsockopt(XDP_STATISTICS) gave; what an older kernel does not tell is 0.
func decodeStats(b []byte) KernelStats {
	var s KernelStats
	for i, p := range []*uint64{&s.RxDropped, &s.RxInvalidDescs, &s.TxInvalidDescs, &s.RxRingFull, &s.RxFillRingEmpty, &s.TxRingEmpty} {
		if len(b) >= 8*(i+1) {
			*p = word(b, i)
		}
	}
	return s
}

// txMetadataLen is the size of struct xsk_tx_metadata: flags, then a union of what is asked and what came back. The kernel
// wants a multiple of 8.
const txMetadataLen = 24

// Flags of struct xsk_tx_metadata.
const (
	txmdTimestamp = 1 << 0
	txmdChecksum  = 1 << 1
)
