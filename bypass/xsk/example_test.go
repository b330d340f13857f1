package xsk_test

import (
	"context"
	"log"

	"github.com/fathom-trace/fathom/bypass/xsk"
)

// Frames that arrive on one device leave through another, which may be in another network namespace, without a copy of our own:
// both queues share a UMEM. An XDP program (package steer) has to redirect packets to in.
func Example() {
	u, err := xsk.NewUMEM(xsk.Memory{Frames: 8192, Queues: 2})
	if err != nil {
		log.Fatal(err)
	}
	defer u.Close()
	in, err := u.Open(xsk.Device{Name: "eth0"}, 0, xsk.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer in.Close()
	out, err := u.Open(xsk.Device{Name: "veth1", NetNS: "inside"}, 0, xsk.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer out.Close()
	var frames [64]xsk.Frame
	for in.Wait(context.Background()) == nil {
		n, err := in.Recv(frames[:])
		if err != nil {
			log.Fatal(err)
		}
		sent, err := out.Send(frames[:n])
		if err != nil {
			log.Fatal(err)
		}
		in.Free(frames[sent:n]) // what out had no room for
	}
}
