package verbs_test

import (
	"context"
	"fmt"
	"log"

	"github.com/fathom-trace/fathom/bypass/verbs"
)

// Two queue pairs of one device, as two processes would have them, each of which would tell the other its Endpoint by TCP. It takes a
// device in software: rdma link add rxe0 type rxe netdev eth0.
func Example() {
	x, err := verbs.Open("rxe0")
	if err != nil {
		log.Fatal(err)
	}
	defer x.Close() // and all that is made of it
	d, err := x.NewProtectionDomain()
	if err != nil {
		log.Fatal(err)
	}
	mem, err := d.RegisterMemory(4096, verbs.LocalWrite)
	if err != nil {
		log.Fatal(err)
	}
	cq, err := x.NewCompletionQueue(256)
	if err != nil {
		log.Fatal(err)
	}
	a, err := d.NewQueuePair(verbs.QueuePairOptions{Send: cq, Receive: cq})
	if err != nil {
		log.Fatal(err)
	}
	b, err := d.NewQueuePair(verbs.QueuePairOptions{Send: cq, Receive: cq})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := b.PostReceive(verbs.Receive{ID: 1, Segments: []verbs.Segment{mem.Segment(0, 2048)}}); err != nil {
		log.Fatal(err)
	}
	if err := a.Connect(b.Endpoint(), verbs.Path{}); err != nil {
		log.Fatal(err)
	}
	if err := b.Connect(a.Endpoint(), verbs.Path{}); err != nil {
		log.Fatal(err)
	}
	n := copy(mem.Bytes()[2048:], "past the kernel's TCP/IP")
	if _, err := a.PostSend(verbs.Send{ID: 2, Segments: []verbs.Segment{mem.Segment(2048, n)}}); err != nil {
		log.Fatal(err)
	}
	var done [4]verbs.Completion
	for left := 2; left > 0; {
		if err := cq.Wait(context.Background()); err != nil {
			log.Fatal(err)
		}
		for _, c := range done[:cq.Poll(done[:])] {
			if err := c.Err(); err != nil {
				log.Fatal(err)
			}
			if c.Op == verbs.OpReceive {
				fmt.Printf("%s\n", mem.Bytes()[:c.Bytes])
			}
			left--
		}
	}
}
