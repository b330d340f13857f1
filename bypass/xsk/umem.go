package xsk

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Memory says how a UMEM is to be; the zero value is 4096 frames of 4096 bytes.
type Memory struct {
	Frames    int // of all queues together; 4096 if 0
	FrameSize int // bytes, a power of two from 2048 to the size of a page; 4096 if 0
	Queues    int // how many will share the frames; 1 if 0
	// TxMetadata keeps room before packets for what [Frame.AskChecksum] and [Frame.AskTimestamp] ask (Linux 6.11).
	TxMetadata bool
	// SoftwareChecksum has the kernel compute the checksums that are asked for; a driver in copy mode does not.
	SoftwareChecksum bool
}

// UMEM is memory for frames that queues share with the kernel. It is safe for use by several goroutines.
type UMEM struct {
	mem      []byte
	size     uint64 // of a frame
	shift    uint   // of size
	share    int    // of how many queues
	txRoom   uint64 // kept free before packets that Alloc gives
	flags    uint32
	metadata uint32 // bytes of struct xsk_tx_metadata; 0: none

	// owners has who owns each frame. A byte is written by the frame's owner only, who gives the frame away by a ring or by mu.
	owners []uint8

	mu     sync.Mutex
	free   []uint64 // frames that no queue has, by address
	owner  int      // descriptor of the socket with which the memory was registered, -1 if none
	queues map[Key]*Queue
}

// Key names a queue of a device for the kernel: numbers of devices are the same in many namespaces.
type Key struct {
	NetNS   uint64 // SO_NETNS_COOKIE
	Ifindex int
	Queue   int
}

// Owners of a frame, as UMEM.owners has them.
const (
	ownPool   = iota // the UMEM's list, or a queue's
	ownKernel        // in the fill or the transmit ring, or behind it
	ownCaller
)

// NewUMEM allocates memory. It is registered with the kernel when the first queue is opened, and unmapped by Close.
func NewUMEM(m Memory) (*UMEM, error) {
	if m.Frames == 0 {
		m.Frames = 4096
	}
	if m.FrameSize == 0 {
		m.FrameSize = 4096
	}
	if page := os.Getpagesize(); m.FrameSize < 2048 || m.FrameSize > page || m.FrameSize&(m.FrameSize-1) != 0 {
		return nil, fmt.Errorf("frames of %d bytes: the kernel takes powers of two from 2048 to a page, %d", m.FrameSize, page)
	}
	if m.Frames < 2 || m.Frames > 1<<22 {
		return nil, fmt.Errorf("%d frames: there are 2 to %d", m.Frames, 1<<22)
	}
	mem, err := unix.Mmap(-1, 0, m.Frames*m.FrameSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		return nil, fmt.Errorf("map %d frames of %d bytes: %w", m.Frames, m.FrameSize, err)
	}
	return newUMEM(mem, m), nil
}

// newUMEM makes a UMEM of memory that is there.
func newUMEM(mem []byte, m Memory) *UMEM {
	u := &UMEM{mem: mem, size: uint64(m.FrameSize), shift: uint(bits.TrailingZeros(uint(m.FrameSize))), share: max(1, m.Queues), owner: -1, queues: map[Key]*Queue{}}
	if m.TxMetadata {
		u.metadata, u.txRoom, u.flags = txMetadataLen, txMetadataLen, unix.XDP_UMEM_TX_METADATA_LEN
	}
	if m.SoftwareChecksum {
		u.flags |= unix.XDP_UMEM_TX_SW_CSUM
	}
	u.free = make([]uint64, 0, len(mem)/m.FrameSize)
	u.owners = make([]uint8, len(mem)/m.FrameSize)
	for a := len(mem) - m.FrameSize; a >= 0; a -= m.FrameSize { // the lowest is taken first
		u.free = append(u.free, uint64(a))
	}
	return u
}

// FrameSize gives the size of frames in bytes.
func (u *UMEM) FrameSize() int { return int(u.size) }

// Close unmaps the memory. It fails while queues use it.
func (u *UMEM) Close() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if n := len(u.queues); n > 0 {
		return fmt.Errorf("close UMEM: %d queues are open", n)
	}
	if u.mem == nil {
		return errors.New("close UMEM: it was closed")
	}
	mem := u.mem
	u.mem, u.free = nil, nil
	return unix.Munmap(mem)
}

// take moves up to n free frames behind to.
func (u *UMEM) take(to []uint64, n int) []uint64 {
	u.mu.Lock()
	n = min(n, len(u.free))
	to = append(to, u.free[len(u.free)-n:]...)
	u.free = u.free[:len(u.free)-n]
	u.mu.Unlock()
	return to
}

// give puts frames back.
func (u *UMEM) give(frames []uint64) {
	u.mu.Lock()
	u.free = append(u.free, frames...)
	u.mu.Unlock()
}

// pass gives a frame to another owner, if it is from's.
func (u *UMEM) pass(addr uint64, from, to uint8) bool {
	i := addr >> (u.shift & 63)
	if i >= uint64(len(u.owners)) || u.owners[i] != from {
		return false
	}
	u.owners[i] = to
	return true
}

// base is the address of the frame that holds an address.
func (u *UMEM) base(addr uint64) uint64 { return addr &^ (u.size - 1) }

// Frame is a packet, or room for one, in a UMEM. It is a view: copying a Frame copies no packet.
type Frame struct {
	umem    *UMEM
	addr    uint64
	len     uint32
	options uint32
}

// Bytes gives the packet. It may be written to; it is valid as long as the caller owns the frame.
func (f *Frame) Bytes() []byte { return f.umem.mem[f.addr : f.addr+uint64(f.len)] }

// Cap is how long the packet can become.
func (f *Frame) Cap() int { return int(f.umem.base(f.addr) + f.umem.size - f.addr) }

// SetLen sets the packet's length; what is more than Cap is cut.
func (f *Frame) SetLen(n int) { f.len = uint32(max(0, min(n, f.Cap()))) }

// More says that the packet goes on in the next frame (Options.MultiBuffer).
func (f *Frame) More() bool { return f.options&pktContinued != 0 }

// SetMore says that the packet goes on in the next frame.
func (f *Frame) SetMore(more bool) {
	f.options &^= pktContinued
	if more {
		f.options |= pktContinued
	}
}
