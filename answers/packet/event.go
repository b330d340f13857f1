// Package packet says what happened to packets. A Tracker makes packets of events and flows of packets; Explain says of what
// was lost where, why, which object of the machine did it and how to mend it. It reads a Recording, never the system: what
// was recorded on one machine can be explained on another.
package packet

import (
	"fmt"
	"net/netip"
	"slices"
)

// Kind is what happened to a packet.
type Kind uint8

// Kinds of events. The kernel's tracepoint of the same name is where they come from, unless said otherwise.
const (
	Drop       Kind = iota // kfree_skb: freed as lost
	Consume                // consume_skb: freed when its work was done
	Queue                  // net_dev_queue: given to the queue of a device
	Xmit                   // net_dev_start_xmit: given to the driver
	Rx                     // netif_receive_skb: up from a device into the stack
	RxQueue                // netif_rx: queued for the stack
	RxEntry                // netif_receive_skb_entry, napi_gro_receive_entry: handed over by a driver
	Copied                 // skb_copy_datagram_iovec: its data was given to a process
	Enqueued               // qdisc_enqueue
	Dequeued               // qdisc_dequeue
	Full                   // sock_rcvqueue_full, udp_fail_queue_rcv_skb: a socket did not take it
	XDPError               // xdp_exception, xdp_redirect_err: no packet; Arg is the program's number, Reason the action or -error
	Refused                // a system call on a socket failed with -Reason; no packet
	Step                   // a function had the packet in its hands: Arg is its address
	Retransmit             // tcp_retransmit_skb
	NumKinds
)

var kindNames = [NumKinds]string{"drop", "consume", "queue", "xmit", "rx", "rx_queue", "rx_entry", "copied", "enqueued",
	"dequeued", "socket_full", "xdp_error", "refused", "step", "retransmit"}

func (k Kind) String() string { return kindNames[k] }

// places are the functions that kinds of events are in, each in one alone: what needs no stack to be told. Consume tells its
// place itself.
var places = map[Kind]string{Consume: "", Queue: "__dev_queue_xmit", Xmit: "dev_hard_start_xmit", Rx: "__netif_receive_skb_core",
	RxQueue: "netif_rx_internal", RxEntry: "", Copied: "skb_copy_datagram_iter", Enqueued: "", Dequeued: ""}

// Names says if events of this kind can do without a stack, as their place says most of what it would.
func (k Kind) Names() bool { _, ok := places[k]; return ok }

// MarshalText writes a kind by its name.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (k *Kind) UnmarshalText(b []byte) error {
	i := slices.Index(kindNames[:], string(b))
	if i < 0 {
		return fmt.Errorf("no event %q", b)
	}
	*k = Kind(i)
	return nil
}

// Packet types (include/uapi/linux/if_packet.h).
const (
	Host = iota
	Broadcast
	Multicast
	OtherHost
	Outgoing
)

// Event is one thing that the kernel did.
type Event struct {
	Kind    Kind     `json:"kind"`
	Time    uint64   `json:"t"`              // ns since boot
	Skb     uint64   `json:"skb,omitempty"`  // address of the sk_buff
	Head    uint64   `json:"head,omitempty"` // of its data, which clones share
	Sock    uint64   `json:"sock,omitempty"`
	Arg     uint64   `json:"arg,omitempty"` // Drop, Consume: the address that freed it; others as their kind says
	Reason  int32    `json:"reason,omitempty"`
	CPU     uint32   `json:"cpu"`
	Netns   uint32   `json:"netns,omitempty"` // inode; 0 where the packet was in none, or it cannot be told
	Ifindex uint32   `json:"ifindex,omitempty"`
	IIF     uint32   `json:"iif,omitempty"` // the device it came in by
	Dev     string   `json:"dev,omitempty"`
	Len     uint32   `json:"len,omitempty"`
	Mark    uint32   `json:"mark,omitempty"`
	PID     uint32   `json:"pid,omitempty"` // of the process that was running: not always the one it belongs to
	TID     uint32   `json:"tid,omitempty"`
	Comm    string   `json:"comm,omitempty"`
	Proto   uint16   `json:"proto,omitempty"` // EtherType
	VLAN    uint16   `json:"vlan,omitempty"`  // tag beside the data
	Tagged  bool     `json:"tagged,omitempty"`
	Type    uint8    `json:"type,omitempty"`     // Host …
	Last    bool     `json:"last,omitempty"`     // Drop, Consume: nobody else has its data
	MapType uint32   `json:"map_type,omitempty"` // XDPError: of the map it was redirected through; Mark is the index in it
	GSO     uint16   `json:"gso,omitempty"`      // segments it will become, or was merged of
	GSOSize uint16   `json:"gso_size,omitempty"` // bytes that each of them carries, but the last
	L2      bool     `json:"l2,omitempty"`       // Bytes begin with a link header
	L3      uint16   `json:"l3,omitempty"`       // where in Bytes the network header is
	Bytes   []byte   `json:"bytes,omitempty"`
	Stack   []uint64 `json:"stack,omitempty"` // the innermost first

	// Of Refused: the system call, the socket's protocol, and where the message was to go, as far as the call or the
	// connection says.
	Call string         `json:"call,omitempty"`
	L4   uint8          `json:"l4,omitempty"`
	To   netip.AddrPort `json:"to,omitzero"`
	Port uint16         `json:"port,omitempty"` // the socket's own
}
