package verbs

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Commands are enum ib_uverbs_write_cmds (include/uapi/rdma/ib_user_verbs.h).
const (
	cmdGetContext    = 0
	cmdQueryPort     = 2
	cmdAllocPD       = 3
	cmdDeallocPD     = 4
	cmdRegMR         = 9
	cmdDeregMR       = 13
	cmdCreateChannel = 17
	cmdCreateCQ      = 18
	cmdDestroyCQ     = 20
	cmdReqNotifyCQ   = 23
	cmdCreateQP      = 24
	cmdModifyQP      = 26
	cmdDestroyQP     = 27
	cmdPostSend      = 28
)

// header is struct ib_uverbs_cmd_hdr; sizes are in words of four bytes, that of the command with its header.
type header struct {
	Command           uint32
	InWords, OutWords uint16
}

// asking is how a command with an answer begins: the answer's address follows the header.
type asking struct {
	header
	Response uint64
}

// The structs of commands and answers are those of ib_user_verbs.h that are named after them, each command behind its header and each
// answer with what rxe adds. They are the same on all machines: the kernel's are padded by hand. abi_test.go holds their sizes.
type (
	getContext     struct{ asking }
	getContextResp struct {
		AsyncFD, Vectors uint32
	}

	queryPort struct {
		asking
		Port uint8
		_    [7]byte
	}
	queryPortResp struct {
		_               [26]byte // capabilities, sizes of tables, local identifiers
		State           uint8
		MaxMTU          uint8
		ActiveMTU       uint8
		_               [7]byte
		PhysState, Link uint8
		_               [2]byte
	}

	allocPD     struct{ asking }
	allocPDResp struct{ Handle uint32 }
	deallocPD   struct {
		header
		Handle uint32
	}

	regMR struct {
		asking
		Start, Length, Addr uint64
		Domain, Access      uint32
	}
	regMRResp struct{ Handle, LocalKey, RemoteKey uint32 }
	deregMR   struct {
		header
		Handle uint32
	}

	createChannel     struct{ asking }
	createChannelResp struct{ FD uint32 }

	createCQ struct {
		asking
		User            uint64
		Entries, Vector uint32
		Channel         int32
		_               uint32
	}
	createCQResp struct {
		Handle, Entries uint32
		Queue           mapInfo // struct rxe_create_cq_resp
	}
	destroyCQ struct {
		asking
		Handle uint32
		_      uint32
	}
	destroyCQResp struct{ CompletionEvents, AsyncEvents uint32 }
	reqNotifyCQ   struct {
		header
		Handle, SolicitedOnly uint32
	}

	createQP struct {
		asking
		User                                uint64
		Domain, SendCQ, ReceiveCQ, SRQ      uint32
		MaxSend, MaxReceive                 uint32
		MaxSendSegments, MaxReceiveSegments uint32
		MaxInline                           uint32
		SignalAll, Type, IsSRQ              uint8
		_                                   uint8
	}
	createQPResp struct {
		Handle, Number                      uint32
		MaxSend, MaxReceive                 uint32
		MaxSendSegments, MaxReceiveSegments uint32
		MaxInline                           uint32
		_                                   uint32
		ReceiveQueue, SendQueue             mapInfo // struct rxe_create_qp_resp
	}

	// destination is struct ib_uverbs_qp_dest.
	destination struct {
		GID        [16]byte
		FlowLabel  uint32
		LID        uint16
		_          uint16
		GIDIndex   uint8
		HopLimit   uint8
		Class      uint8
		Level      uint8
		SrcPath    uint8
		StaticRate uint8
		Global     uint8
		Port       uint8
	}
	modifyQP struct {
		header
		To, Alternate                      destination
		Handle, Mask                       uint32
		QKey, ReceivePSN, SendPSN, PeerQP  uint32
		Access                             uint32
		PKeyIndex, AltPKeyIndex            uint16
		State, FromState                   uint8
		MTU, Migration, Notify             uint8
		Reads, PeerReads                   uint8 // RDMA READs in flight, ours and the peer's
		MinRNRTimer                        uint8
		Port, Timeout, Retries, RNRRetries uint8
		AltPort, AltTimeout                uint8
		_                                  [2]byte
	}
	destroyQP struct {
		asking
		Handle uint32
		_      uint32
	}
	destroyQPResp struct{ Events uint32 }

	postSend struct {
		asking
		Handle, Works, Segments, Size uint32
	}
	postSendResp struct{ Bad uint32 }
)

// sendWorkLen is the size of struct ib_uverbs_send_wr, which a doorbell has none of but whose size it must give.
const sendWorkLen = 56

// mapInfo is struct mminfo: where a queue can be mapped.
type mapInfo struct {
	Offset uint64
	Size   uint32
	_      uint32
}

// The queues of rxe (include/uapi/rdma/rdma_user_rxe.h).
type (
	// sendWork is struct rxe_send_wqe; segments follow.
	sendWork struct {
		ID         uint64
		_          uint32
		Opcode     uint32
		Flags      uint32
		_          uint32
		RemoteAddr uint64
		RemoteKey  uint32
		_          uint32
		_          [104]byte // what other kinds of work need in the union that begins with RemoteAddr
		Status     uint32
		State      uint32
		Addr       uint64
		_          [24]byte // the kernel's
		DMA        progress
	}
	// receiveWork is struct rxe_recv_wqe; segments follow.
	receiveWork struct {
		ID  uint64
		_   uint64
		DMA progress
	}
	// progress is struct rxe_dma_info: how far work on its segments is.
	progress struct {
		Length, Left     uint32
		Segment          uint32 // that is worked on
		Segments, Offset uint32
		_                uint32
	}
	// work is struct ib_uverbs_wc, which rxe puts into completion queues of programs.
	work struct {
		ID             uint64
		Status, Opcode uint32
		Vendor         uint32
		Bytes          uint32
		Immediate      uint32
		QP, PeerQP     uint32
		Flags          uint32
		_              [8]byte
	}
)

// Segment is a part of memory that work reads or writes: struct rxe_sge, struct ibv_sge. [Memory.Segment] makes one.
type Segment struct {
	Addr   uint64 // of the first byte, as the memory was registered
	Length uint32 // bytes
	Key    uint32 // the memory's local key
}

// bytesOf views a value. It holds no pointers, and all its padding is in its fields.
func bytesOf[T any](v *T) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v)) }

// tell gives a command that has no answer. h is the header at its start, size its size with it. The kernel takes all of it, or none.
func (x *Context) tell(number uint32, h *header, size uintptr) error {
	h.Command, h.InWords = number, uint16(size/4)
	b := unsafe.Slice((*byte)(unsafe.Pointer(h)), size)
	return x.do(func(fd int) error {
		n, err := unix.Write(fd, b)
		if err == nil && n != len(b) {
			err = fmt.Errorf("the kernel took %d of %d bytes", n, len(b))
		}
		return os.NewSyscallError("write", err)
	})
}

// ask gives a command and has its answer put where answer points. An answer is as long as asked for: the kernel refuses to give less than
// its own part, and rxe less than its own. The answer's address goes as a number, so it is held in place and alive meanwhile.
func (x *Context) ask(number uint32, a *asking, size uintptr, answer unsafe.Pointer, room uintptr) error {
	var p runtime.Pinner
	defer p.Unpin()
	p.Pin(answer)
	a.Response, a.OutWords = uint64(uintptr(answer)), uint16(room/4)
	return x.tell(number, &a.header, size)
}

// gid is an address as commands have it.
func gid(a netip.Addr) [16]byte { return a.As16() }
