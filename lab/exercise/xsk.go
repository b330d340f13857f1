package exercise

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"strconv"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// actXSK attaches an XDP program to a device that gives packets to the AF_XDP socket of their queue, waits until packets
// come, and binds a socket to a queue at which none do: DEV QUEUES FILE. It writes "QUEUE-OF-PACKETS QUEUE-BOUND" to FILE.
func actXSK(args []string) error {
	dev, err := net.InterfaceByName(args[0])
	if err != nil {
		return err
	}
	queues, err := strconv.Atoi(args[1])
	if err != nil || queues < 2 {
		return fmt.Errorf("queues %q", args[1])
	}
	socks, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.XSKMap, KeySize: 4, ValueSize: 4, MaxEntries: uint32(queues)})
	if err != nil {
		return err
	}
	defer socks.Close()
	seen, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: uint32(queues)})
	if err != nil {
		return err
	}
	defer seen.Close()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL", Instructions: redirect(socks, seen)})
	if err != nil {
		return err
	}
	defer prog.Close()
	l, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: dev.Index, Flags: link.XDPDriverMode})
	if err != nil {
		return err
	}
	defer l.Close()
	come, err := busiest(seen, queues)
	if err != nil {
		return err
	}
	bound := (come + 1) % queues
	fd, err := bindXSK(dev.Index, bound)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := socks.Put(uint32(bound), uint32(fd)); err != nil {
		return err
	}
	if err := os.WriteFile(args[2], fmt.Appendf(nil, "%d %d\n", come, bound), 0o600); err != nil {
		return err
	}
	select {}
}

// busiest waits until a queue has seen some packets more than the stray ones of a network that comes up.
func busiest(seen *ebpf.Map, queues int) (int, error) {
	const enough = 20
	for range 200 {
		for q := range queues {
			var n uint64
			if err := seen.Lookup(uint32(q), &n); err != nil {
				return 0, err
			}
			if n >= enough {
				return q, nil
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	return 0, errors.New("no packets come")
}

// redirect is: seen[ctx->rx_queue_index]++; return bpf_redirect_map(socks, ctx->rx_queue_index, XDP_PASS).
func redirect(socks, seen *ebpf.Map) asm.Instructions {
	const rxQueueIndex = 16 // offset in struct xdp_md
	return asm.Instructions{
		asm.LoadMem(asm.R6, asm.R1, rxQueueIndex, asm.Word),
		asm.StoreMem(asm.RFP, -4, asm.R6, asm.Word),
		asm.LoadMapPtr(asm.R1, seen.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.Mov.Imm(asm.R1, 1),
		asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
		asm.LoadMapPtr(asm.R1, socks.FD()).WithSymbol("pass"),
		asm.Mov.Reg(asm.R2, asm.R6),
		asm.Mov.Imm(asm.R3, 2), // XDP_PASS, if there is no socket
		asm.FnRedirectMap.Call(),
		asm.Return(),
	}
}

// bindXSK makes an AF_XDP socket with the least there must be (Documentation/networking/af_xdp.rst) and binds it to a queue.
// Its frames are never given to the kernel: nothing is to come.
func bindXSK(ifindex, queue int) (int, error) {
	const frames, size = 64, 2048
	umem, err := unix.Mmap(-1, 0, frames*size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return -1, err
	}
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
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
	if err = errors.Join(err, unix.Bind(fd, &unix.SockaddrXDP{Ifindex: uint32(ifindex), QueueID: uint32(queue)})); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
