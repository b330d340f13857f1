// Package xsk sends and receives frames through AF_XDP sockets: memory that the kernel and this process share, and rings in
// it, instead of a copy and a system call for each packet (Documentation/networking/af_xdp.rst).
//
// A [UMEM] is the memory, cut into frames of equal size. A [Queue] is an AF_XDP socket bound to one queue of one device, with
// four rings: frames go to the kernel through the fill ring and come back, with a packet each, through the receive ring;
// frames with packets go through the transmit ring and come back through the completion ring. Queues of several devices,
// also in several network namespaces, may share a UMEM: a frame received on one is then sent on another without a copy.
//
//	u, err := xsk.NewUMEM(xsk.Memory{})
//	q, err := u.Open(xsk.Device{Name: "eth0", NetNS: "a"}, 0, xsk.Options{})
//	for q.Wait(ctx) == nil {
//		n, _ := q.Recv(frames)
//		for i := range frames[:n] { use(frames[i].Bytes()) }
//		q.Free(frames[:n])
//	}
//
// A [Frame] is a view into the UMEM. It belongs to the caller from Recv or Alloc until Free or Send takes it; nothing is
// copied. A Queue belongs to one goroutine at a time; queues that share a UMEM may be used by one goroutine each.
//
// Which packets come is not decided here: an XDP program must redirect them (package steer). A socket that is bound but has no
// program can send.
//
// What the kernel can do is tried, never concluded from its version; [Queue.Caps] says what was found.
package xsk
