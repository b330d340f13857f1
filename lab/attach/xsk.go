package attach

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"reflect"

	"golang.org/x/sys/unix"
)

// Sock is an AF_XDP socket that receives nothing: its frames are never given to the kernel.
type Sock struct {
	FD   int
	umem []byte
}

// OpenSock makes a socket with the least there must be (Documentation/networking/af_xdp.rst) and binds it to a queue of a
// device of the namespace this thread is in.
func OpenSock(dev string, queue int) (s *Sock, err error) {
	const frames, size = 64, 2048
	ifi, err := net.InterfaceByName(dev)
	if err != nil {
		return nil, err
	}
	umem, err := unix.Mmap(-1, 0, frames*size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("map frames: %w", err)
	}
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open AF_XDP socket: %w", err), unix.Munmap(umem))
	}
	s = &Sock{fd, umem}
	// struct xdp_umem_reg: addr, len, chunk_size, headroom, flags, and in newer kernels tx_metadata_len.
	le := binary.NativeEndian
	reg := le.AppendUint64(nil, uint64(reflect.ValueOf(umem).Pointer()))
	reg = le.AppendUint64(reg, uint64(len(umem)))
	reg = le.AppendUint32(reg, size)
	reg = append(reg, make([]byte, 12)...)
	err = unix.SetsockoptString(fd, unix.SOL_XDP, unix.XDP_UMEM_REG, string(reg))
	for _, ring := range []int{unix.XDP_UMEM_FILL_RING, unix.XDP_UMEM_COMPLETION_RING, unix.XDP_RX_RING} {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_XDP, ring, frames))
	}
	if err = errors.Join(err, unix.Bind(fd, &unix.SockaddrXDP{Ifindex: uint32(ifi.Index), QueueID: uint32(queue)})); err != nil {
		return nil, errors.Join(fmt.Errorf("bind AF_XDP socket to %s: %w", dev, err), s.Close())
	}
	return s, nil
}

// Close closes the socket.
func (s *Sock) Close() error { return errors.Join(unix.Close(s.FD), unix.Munmap(s.umem)) }
