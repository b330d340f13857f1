package xsk

import (
	"encoding/binary"
	"errors"
	"time"
)

// ErrNoMetadata says that a frame has no room for metadata before its packet: Memory.TxMetadata was not set, or the packet was
// received, and begins where the driver put it.
var ErrNoMetadata = errors.New("the frame has no room for metadata")

// AskChecksum asks the device, or with Memory.SoftwareChecksum the kernel, to sum the packet from start on and to store the
// Internet checksum at start+offset, where the sum of the pseudo header must be (struct xsk_tx_metadata, Linux 6.8).
func (f *Frame) AskChecksum(start, offset uint16) error {
	m, err := f.ask(txmdChecksum)
	if err == nil {
		binary.NativeEndian.PutUint16(m[8:], start)
		binary.NativeEndian.PutUint16(m[10:], offset)
	}
	return err
}

// AskTimestamp asks when the device sends the packet. Options.Completed reads the answer with TxTime.
func (f *Frame) AskTimestamp() error {
	_, err := f.ask(txmdTimestamp)
	return err
}

// TxTime says when the packet was sent, by the device's clock; false if it was not asked or the device does not say. It is for
// Options.Completed.
func (f *Frame) TxTime() (time.Duration, bool) {
	m := f.metadata()
	if m == nil || binary.NativeEndian.Uint64(m)&txmdTimestamp == 0 {
		return 0, false
	}
	t := binary.NativeEndian.Uint64(m[8:])
	return time.Duration(t), t != 0
}

// ask sets a flag in the frame's metadata, which is cleared by the first to ask.
func (f *Frame) ask(flag uint64) ([]byte, error) {
	m := f.metadata()
	if m == nil {
		return nil, ErrNoMetadata
	}
	if f.options&pktMetadata == 0 {
		clear(m)
		f.options |= pktMetadata
	}
	binary.NativeEndian.PutUint64(m, binary.NativeEndian.Uint64(m)|flag)
	return m, nil
}

// metadata gives the bytes before the packet, nil if there is no room.
func (f *Frame) metadata() []byte {
	n := uint64(f.umem.metadata)
	if n == 0 || f.addr-f.umem.base(f.addr) < n {
		return nil
	}
	return f.umem.mem[f.addr-n : f.addr]
}
