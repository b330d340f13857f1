// Package verbs sends and receives messages through RDMA devices: memory that is registered once, queues of work that the device and
// this process share, and completions that say what became of it (the InfiniBand architecture's verbs, as libibverbs names them).
//
// A [Context] is an open device. In it, a [ProtectionDomain] holds what belongs together: [Memory] that the device may read or write,
// and queue pairs. A [QueuePair] is one end of a reliable connection; work goes to it with [QueuePair.PostSend] and
// [QueuePair.PostReceive], and for each piece of work one [Completion] comes out of a [CompletionQueue], also if it failed.
//
//	x, err := verbs.Open("rxe0")
//	d, err := x.NewProtectionDomain()
//	mem, err := d.RegisterMemory(1<<20, verbs.LocalWrite)
//	cq, err := x.NewCompletionQueue(128)
//	qp, err := d.NewQueuePair(verbs.QueuePairOptions{Send: cq, Receive: cq})
//	// both ends tell each other qp.Endpoint(), by any means
//	qp.PostReceive(verbs.Receive{ID: 1, Segments: []verbs.Segment{mem.Segment(0, 4096)}})
//	err = qp.Connect(theirs, verbs.Path{})
//	qp.PostSend(verbs.Send{ID: 2, Segments: []verbs.Segment{mem.Segment(4096, 64)}})
//	for cq.Wait(ctx) == nil {
//		n := cq.Poll(completions)
//	}
//
// Only the driver rxe is carried, RDMA over Ethernet in software ("soft-RoCE"; rdma link add rxe0 type rxe netdev eth0): the
// queues of real devices have a form for each vendor, which libibverbs has a plug-in for each of. [Open] refuses others by name.
//
// The kernel is spoken to by writes to /dev/infiniband/uverbsN (include/uapi/rdma/ib_user_verbs.h), the queues are those of
// include/uapi/rdma/rdma_user_rxe.h; both have the same form from Linux 5.14, from which on the kernel keeps what it must rely on
// to itself. A program needs rights to the file, and may lock as much memory as it registers (ulimit -l).
//
// A QueuePair belongs to one goroutine at a time for sending and to one for receiving, a CompletionQueue to one at a time. Contexts,
// and everything else that is made once, may be used by several. What is open when a Context is closed is closed with it.
package verbs
