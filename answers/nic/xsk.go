package nic

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/fathom-trace/fathom/ir/emit"
	"github.com/fathom-trace/fathom/probe"
)

// XSKOptions say whose AF_XDP sockets are watched.
type XSKOptions struct {
	CPUs   int   // that are possible
	Self   int   // this process, and
	Ask    int   // the number of the system call, with a descriptor as its first argument, by which it asks to look at a socket
	Owners []int // the processes whose wakes and system calls are counted, at most MostXSKOwners
}

// MostXSKOwners bounds the owners that are watched at once: programs compare with each.
const MostXSKOwners = 32

// XSKRing is one of a socket's rings: indices count entries since the start, modulo 2³².
type XSKRing struct {
	Size, Producer, Consumer uint32
	NeedWakeup               bool // the kernel looks at it when it is asked to
	Invalid, Empty           uint64
}

// Used is how many entries are in it.
func (r *XSKRing) Used() uint32 { return min(r.Producer-r.Consumer, r.Size) }

// XSKState is an AF_XDP socket, as the kernel has it at a moment.
type XSKState struct {
	Sock                     uint64 // address of its struct xdp_sock
	NetNS                    uint32 // inode of the namespace that its device is in; 0 if it is not bound
	Index                    int    // of the device
	Device                   string
	Queue                    int
	ZeroCopy                 bool
	Dropped, Full            uint64 // packets: for no room in memory or in a frame, for no room in the receive ring
	RX, TX, Fill, Completion XSKRing
}

// XSKRedirect counts packets that XDP programs redirected on a device and a CPU, with their result.
type XSKRedirect struct {
	NetNS uint32
	Index int
	CPU   int
	Errno int // 0: it arrived
	N     uint64
}

// XSKOwner is what was seen of a process.
type XSKOwner struct {
	PID    int
	Wake   Hist   // from the packet's wake until the thread ran
	Other  uint64 // wakes that no packet made
	Worst  uint64 // ns, the longest wake
	Behind string // what ran there until then
	Calls  map[int]uint64
}

// XSKResult is what was counted.
type XSKResult struct {
	For       time.Duration
	NetRX     []time.Duration // by CPU
	Redirects []XSKRedirect
	Owners    []XSKOwner
	Missing   []string // what this kernel has not got
}

// XSKWatch watches AF_XDP sockets. It belongs to the caller, who must Close it; one goroutine may use it.
type XSKWatch struct {
	c     *xskCode
	sess  *probe.Session
	since time.Time
}

// OpenXSK loads and attaches the programs; counting begins.
func OpenXSK(w *probe.World, o XSKOptions) (*XSKWatch, error) {
	if len(o.Owners) > MostXSKOwners {
		return nil, fmt.Errorf("%d processes have AF_XDP sockets: at most %d are watched at once", len(o.Owners), MostXSKOwners)
	}
	c, err := newCode(w, emit.Options{CPUs: o.CPUs}, max(1, len(o.Owners)))
	if err != nil {
		return nil, err
	}
	l, err := newXSKLayout(c.l, w.Types())
	if err != nil {
		return nil, err
	}
	x := &XSKWatch{c: newXSKCode(c, l, o)}
	if x.sess, err = c.load(); err != nil {
		return nil, err
	}
	x.since = time.Now()
	return x, nil
}

// Close ends it.
func (x *XSKWatch) Close() error { return x.sess.Close() }

// Looked gives the sockets that were asked for so far, by descriptor, each as it was when it was asked for last.
func (x *XSKWatch) Looked() (map[int]XSKState, error) {
	es, err := x.sess.Entries(x.c.looked)
	if err != nil {
		return nil, err
	}
	out := map[int]XSKState{}
	for _, e := range es {
		out[int(binary.LittleEndian.Uint64(e.Key))] = decodeXSK(e.Values[0])
	}
	return out, nil
}

func decodeXSK(b []byte) XSKState {
	u64 := func(at int) uint64 { return binary.LittleEndian.Uint64(b[at:]) }
	s := XSKState{Sock: u64(xsSock), NetNS: uint32(u64(xsNetNS)), Index: int(u64(xsIndex)), Device: text(b[xsName:][:16]), Queue: int(u64(xsQueue)),
		ZeroCopy: u64(xsZC) != 0, Dropped: u64(xsDropped), Full: u64(xsFull)}
	for i, r := range []*XSKRing{&s.RX, &s.TX, &s.Fill, &s.Completion} {
		at := xsRings + i*xrSize
		*r = XSKRing{uint32(u64(at + xrEntries)), uint32(u64(at + xrProducer)), uint32(u64(at + xrConsumer)), u64(at+xrFlags)&1 != 0, u64(at + xrInvalid), u64(at + xrEmpty)}
	}
	return s
}

// Result reads what was counted so far.
func (x *XSKWatch) Result() (*XSKResult, error) {
	r := &XSKResult{For: time.Since(x.since), Missing: x.c.missing}
	hs, err := x.c.histograms(x.sess, max(1, len(x.c.o.Owners)))
	if err != nil {
		return nil, err
	}
	for i, pid := range x.c.o.Owners {
		r.Owners = append(r.Owners, XSKOwner{PID: pid, Wake: hs[i], Calls: map[int]uint64{}})
	}
	return r, errors.Join(x.cpus(r), x.owners(r), x.calls(r), x.redirects(r))
}

func (x *XSKWatch) cpus(r *XSKResult) error {
	es, err := x.sess.Entries(x.c.cpu)
	for _, e := range es {
		for _, b := range e.Values {
			r.NetRX = append(r.NetRX, time.Duration(binary.LittleEndian.Uint64(b[xcSpent:])))
		}
	}
	return err
}

func (x *XSKWatch) owners(r *XSKResult) error {
	es, err := x.sess.Entries(x.c.owners)
	for _, e := range es {
		i := int(binary.LittleEndian.Uint32(e.Key))
		if i >= len(r.Owners) {
			continue // the element of nobody
		}
		o := &r.Owners[i]
		for _, b := range e.Values {
			o.Other += binary.LittleEndian.Uint64(b[xoOther:])
			if worst := binary.LittleEndian.Uint64(b[xoWorst:]); worst > o.Worst {
				o.Worst, o.Behind = worst, text(b[xoBehind:][:16])
			}
		}
	}
	return err
}

// total adds up a counter of all CPUs.
func total(e probe.Entry) (n uint64) {
	for _, b := range e.Values {
		n += binary.LittleEndian.Uint64(b)
	}
	return n
}

func (x *XSKWatch) calls(r *XSKResult) error {
	es, err := x.sess.Entries(x.c.calls)
	for _, e := range es {
		if k := binary.LittleEndian.Uint64(e.Key); int(k>>32) < len(r.Owners) {
			r.Owners[k>>32].Calls[int(uint32(k))] = total(e)
		}
	}
	return err
}

func (x *XSKWatch) redirects(r *XSKResult) error {
	es, err := x.sess.Entries(x.c.redirects)
	for _, e := range es {
		u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(e.Key[at:]) }
		r.Redirects = append(r.Redirects, XSKRedirect{u32(4), int(u32(0)), int(u32(8)), -int(int32(u32(12))), total(e)})
	}
	return err
}
