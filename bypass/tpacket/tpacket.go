// Package tpacket sends and receives packets of a device through AF_PACKET sockets with rings in shared memory (TPACKET_V2, packet(7)): what
// there is on kernels and for users without AF_XDP, with the same ways to wait as package xsk.
//
//	queues, err := tpacket.Open(xsk.Device{Name: "eth0"}, 1, tpacket.Options{})
//	err = queues[0].Filter(program) // none comes before
//	n, err := queues[0].Recv(packets)
//
// What comes is a copy: the kernel has the packet as well, and whoever does not want it to answer must see to that. Several sockets share what
// comes by the hash of its flow (PACKET_FANOUT). What is sent passes the device's queueing discipline.
//
// A packet that the kernel has not cut into segments yet, or has put together, may be longer than a slot of the ring: it comes whole all
// the same, by recvfrom(2) (PACKET_COPY_THRESH). Packets with a VLAN tag that the device took out do not come.
package tpacket

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/bypass/xsk"
)

// Options say how queues are to be; the zero value is 2048 slots each way for packets of 2048 bytes.
type Options struct {
	Slots int      // of each ring; 2048 if 0
	Size  int      // the longest packet that is sent, Ethernet's header included; 2048 if 0
	Wait  xsk.Wait // but for BusyPoll, which spins here
}

// Queue is a socket with its rings. Recv, Free, Prepare, Room, Put and Kick belong to one goroutine at a time; Park may be called meanwhile,
// by one, and Stats by all.
type Queue struct {
	dev    xsk.Device
	fd     int
	mem    []byte
	rx, tx ring
	sleep  *xsk.Sleeper
	mu     sync.RWMutex // held to read by Stats: the socket is open
	ended  atomic.Bool
	looks  uint64
	down   atomic.Bool // the device went down, and nothing came since
	out    uint32      // packets that came and were not freed
	long   [][]byte    // buffers for packets that are longer than a slot
	unsent bool        // something is in the ring that the kernel was not told of, or did not take
	count  counters
}

type counters struct{ rxPackets, rxBytes, txPackets, txBytes, kicks, refused, waits, cut, dropped atomic.Uint64 }

// Packet is one that came. Bytes is valid until it is freed.
type Packet struct {
	Bytes []byte
	// Sound says that the checksum of TCP or UDP need not be verified: the device did, or the packet has never left this machine, and
	// has none yet.
	Sound bool
	slot  uint32
}

// Of struct tpacket2_hdr (include/uapi/linux/if_packet.h): where its fields are.
const (
	offStatus  = 0
	offLen     = 4
	offSnaplen = 8
	offMac     = 12
	offLink    = 32 // struct sockaddr_ll behind it, when a packet came; the packet, when one goes
	offPktType = offLink + 10
	// behind what the kernel writes before a packet that came: header, address, room for a link's header, aligned
	rxHeader = 80
)

// longest is a packet of IP as long as it can be, with Ethernet's header and two tags.
const longest = 1<<16 + 22

// ring is slots in shared memory, which change hands by their status.
type ring struct {
	mem      []byte
	slots    uint32
	size     uint32 // of a slot
	block    uint32 // slots of a block
	blockLen uint32
	at       uint32 // next slot
}

// slot is the memory of one.
func (r *ring) slot(i uint32) []byte {
	off := i/r.block*r.blockLen + i%r.block*r.size
	return r.mem[off : off+r.size : off+r.size]
}

// status is whose slot it is. The kernel and this process write it in turns: a slot is read or written only by whose it is, which an atomic load
// has shown, and it is given away by an atomic store behind all that was written. It lies at the slot's start, 16 bytes aligned, in a mapping that
// stays until Close, which nobody calls meanwhile.
func status(slot []byte) *atomic.Uint32 { return (*atomic.Uint32)(unsafe.Pointer(&slot[offStatus])) }

// next is the slot behind.
func (r *ring) next(i uint32) uint32 {
	if i++; i == r.slots {
		return 0
	}
	return i
}

func newRing(slots, size int) ring {
	r := ring{size: uint32(size+15) &^ 15, blockLen: 1 << 16}
	for r.blockLen < r.size {
		r.blockLen *= 2
	}
	r.block = r.blockLen / r.size
	blocks := (uint32(slots) + r.block - 1) / r.block
	r.slots = blocks * r.block
	return r
}

func (r *ring) bytes() int { return int(r.slots/r.block) * int(r.blockLen) }

func (r *ring) request() *unix.TpacketReq {
	return &unix.TpacketReq{Block_size: r.blockLen, Block_nr: r.slots / r.block, Frame_size: r.size, Frame_nr: r.slots}
}

// Open opens n sockets on a device. It takes CAP_NET_RAW in its namespace.
func Open(dev xsk.Device, n int, o Options) (all []*Queue, err error) {
	if o.Slots == 0 {
		o.Slots = 2048
	}
	if o.Size == 0 {
		o.Size = 2048
	}
	if o.Size > longest {
		return nil, fmt.Errorf("packets of %d bytes: there are none longer than %d", o.Size, longest)
	}
	err = dev.In(func() error {
		ifi, err := net.InterfaceByName(dev.Name)
		if err != nil {
			return fmt.Errorf("find device %s: %w", dev, err)
		}
		for range n {
			q, err := open(dev, ifi.Index, o)
			if err != nil {
				return err
			}
			all = append(all, q)
		}
		return share(all)
	})
	if err != nil {
		for _, q := range all {
			err = errors.Join(err, q.Close())
		}
		return nil, fmt.Errorf("open AF_PACKET socket, %s: %w", dev, err)
	}
	return all, nil
}

// nothing is the filter that no packet passes.
var nothing = []bpf.RawInstruction{{Op: unix.BPF_RET | unix.BPF_K}}

func open(dev xsk.Device, index int, o Options) (q *Queue, err error) {
	q = &Queue{dev: dev, rx: newRing(o.Slots, o.Size+rxHeader), tx: newRing(o.Slots, o.Size+offLink)}
	if q.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil { // protocol 0: nothing comes before bind
		return nil, os.NewSyscallError("socket", err)
	}
	if err = q.setUp(index); err == nil {
		q.sleep, err = xsk.NewSleeper(q.fd, "AF_PACKET", o.Wait, q.look(o.Wait), nil, q.err)
	} else {
		unix.Close(q.fd)
	}
	if err != nil {
		if q.mem != nil {
			err = errors.Join(err, unix.Munmap(q.mem))
		}
		return nil, err
	}
	return q, nil
}

func (q *Queue) setUp(index int) error {
	if err := q.Filter(nothing); err != nil {
		return err
	}
	for _, s := range []struct {
		name string
		do   func() error
	}{
		{"PACKET_VERSION", func() error { return unix.SetsockoptInt(q.fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2) }},
		{"PACKET_LOSS", func() error { return unix.SetsockoptInt(q.fd, unix.SOL_PACKET, unix.PACKET_LOSS, 1) }}, // what cannot be sent does not hold up the rest
		{"PACKET_COPY_THRESH", func() error { return unix.SetsockoptInt(q.fd, unix.SOL_PACKET, unix.PACKET_COPY_THRESH, 1) }},
		{"PACKET_RX_RING", func() error {
			return unix.SetsockoptTpacketReq(q.fd, unix.SOL_PACKET, unix.PACKET_RX_RING, q.rx.request())
		}},
		{"PACKET_TX_RING", func() error {
			return unix.SetsockoptTpacketReq(q.fd, unix.SOL_PACKET, unix.PACKET_TX_RING, q.tx.request())
		}},
		{"mmap", func() (err error) {
			q.mem, err = unix.Mmap(q.fd, 0, q.rx.bytes()+q.tx.bytes(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			return err
		}},
		{"bind", func() error { return unix.Bind(q.fd, &unix.SockaddrLinklayer{Protocol: everything, Ifindex: index}) }},
	} {
		if err := s.do(); err != nil {
			return os.NewSyscallError(s.name, err)
		}
	}
	q.rx.mem, q.tx.mem = q.mem[:q.rx.bytes()], q.mem[q.rx.bytes():]
	_ = unix.SetsockoptInt(q.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1) // Linux 4.20; Recv looks, too
	for _, opt := range []int{unix.SO_RCVBUFFORCE, unix.SO_SNDBUFFORCE} {
		_ = unix.SetsockoptInt(q.fd, unix.SOL_SOCKET, opt, roomy) // takes CAP_NET_ADMIN; with the kernel's default less is on its way at once
	}
	return nil
}

// everything is ETH_P_ALL as it is on the wire.
const everything = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8

// roomy is how much may wait in packets that are longer than a slot, and be on its way out.
const roomy = 8 << 20

// share has sockets share what comes: a flow's packets are all one's.
func share(all []*Queue) error {
	id := 0
	for i, q := range all {
		if len(all) == 1 {
			return nil
		}
		how := unix.PACKET_FANOUT_HASH
		if i == 0 {
			how |= unix.PACKET_FANOUT_FLAG_UNIQUEID
		}
		if err := unix.SetsockoptInt(q.fd, unix.SOL_PACKET, unix.PACKET_FANOUT, id|how<<16); err != nil {
			return os.NewSyscallError("PACKET_FANOUT", err)
		}
		v, err := unix.GetsockoptInt(q.fd, unix.SOL_PACKET, unix.PACKET_FANOUT)
		if err != nil {
			return os.NewSyscallError("PACKET_FANOUT", err)
		}
		id = v & 0xffff
	}
	return nil
}

// Filter has packets come that a program of classic BPF takes, whole if what it returns is as much. What came before stays.
func (q *Queue) Filter(prog []bpf.RawInstruction) error {
	p := make([]unix.SockFilter, len(prog))
	for i, in := range prog {
		p[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	err := unix.SetsockoptSockFprog(q.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]})
	if errors.Is(err, unix.ENOMEM) {
		return fmt.Errorf("SO_ATTACH_FILTER of %d instructions: %w: a socket's filter is at most as long as net.core.optmem_max allows", len(p), err)
	}
	return os.NewSyscallError("SO_ATTACH_FILTER", err)
}

// FilterLen is how many instructions the filter of a socket has, of any family; 0 if it has none.
func FilterLen(fd int) (int, error) {
	var room uint32 // of instructions: none are wanted
	var none [8]byte
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_GET_FILTER, uintptr(unsafe.Pointer(&none)), uintptr(unsafe.Pointer(&room)), 0)
	if errno != 0 {
		return 0, os.NewSyscallError("SO_GET_FILTER", errno)
	}
	return int(room), nil
}

// ErrClosed says that the queue was closed.
var ErrClosed = errors.New("the AF_PACKET socket is closed")

func (q *Queue) err() error {
	if q.ended.Load() {
		return ErrClosed
	}
	return nil
}

// look says if a packet is there, or the socket has an error. An error costs a call to see, which who spins makes seldom, and none if not to ask.
func (q *Queue) look(how xsk.Wait) func(ask bool) bool {
	every := uint64(1)
	if how != xsk.Netpoll && how != xsk.Poll {
		every = 1 << 12
	}
	return func(ask bool) bool {
		if q.ready() {
			return true
		}
		q.looks++
		return ask && q.looks%every == 0 && q.upset()
	}
}

// upset says if the device went down since it was asked last, or before.
func (q *Queue) upset() bool {
	if no, err := unix.GetsockoptInt(q.fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || no != 0 {
		q.down.Store(true)
	}
	return q.down.Load()
}

func (q *Queue) ready() bool { return status(q.rx.slot(q.rx.at)).Load()&unix.TP_STATUS_USER != 0 }

// gone says if the device is. One that is down may come up again, and packets with it.
func (q *Queue) gone() error {
	name, err := unix.Getsockname(q.fd)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	if a, ok := name.(*unix.SockaddrLinklayer); ok && a.Ifindex <= 0 {
		return fmt.Errorf("%s is gone: %w", q.dev, unix.ENODEV)
	}
	return nil
}

// Close closes the socket. Nobody uses it any more, but for Stats.
func (q *Queue) Close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended.Swap(true) {
		return ErrClosed
	}
	return errors.Join(unix.Munmap(q.mem), q.sleep.Close())
}

// Calm is as of xsk.Queue: the next Park sleeps at once.
func (q *Queue) Calm() { q.sleep.Calm() }

// Park sleeps until a packet is there, the device went down or the context ends; only in the last case there is an error, or if the socket
// was closed. The goroutine calls [Queue.Prepare] before, which says if the device is gone.
func (q *Queue) Park(ctx context.Context) error {
	if !q.down.Load() {
		return q.sleep.Park(ctx)
	}
	select { // nobody says when the device is up again, or gone
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(lookAgain):
		return nil
	}
}

// lookAgain is how often a device is looked at that went down, until a packet comes.
const lookAgain = 10 * time.Millisecond
