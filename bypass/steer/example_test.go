package steer_test

import (
	"context"
	"fmt"
	"log"
	"net/netip"

	"github.com/fathom-trace/fathom/bypass/steer"
	"github.com/fathom-trace/fathom/bypass/xsk"
)

// Market data of a multicast group goes past the kernel; everything else, ssh among it, stays the kernel's.
func Example() {
	rule, err := steer.Flow{Proto: "udp", Group: netip.MustParseAddr("239.255.0.1"), DstPort: steer.Ports{First: 12345}}.Rule(steer.ToSocket)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(rule.Filter)
	// Output: udp and dst host 239.255.0.1 and dst port 12345 and not ip[6:2] & 0x3fff != 0
}

func ExampleAttach() {
	dev := xsk.Device{Name: "eth0", NetNS: "strategy"}
	u, err := xsk.NewUMEM(xsk.Memory{})
	if err != nil {
		log.Fatal(err)
	}
	defer u.Close()
	q, err := u.Open(dev, 0, xsk.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer q.Close()
	p, err := steer.Attach(dev, []steer.Rule{{Filter: "udp dst port 12345"}, {Filter: "icmp", Action: steer.Drop}}, steer.Options{})
	if err != nil {
		log.Fatal(err) // also if there is a program already: it is named, and stays
	}
	defer p.Close()
	if err := p.Add(q); err != nil {
		log.Fatal(err)
	}
	var frames [64]xsk.Frame
	for q.Wait(context.Background()) == nil {
		n, _ := q.Recv(frames[:])
		for i := range frames[:n] {
			fmt.Printf("% x\n", frames[i].Bytes())
		}
		q.Free(frames[:n])
	}
}
