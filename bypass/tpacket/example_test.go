package tpacket_test

import (
	"context"
	"fmt"
	"log"

	"golang.org/x/net/bpf"

	"github.com/fathom-trace/fathom/bypass/tpacket"
	"github.com/fathom-trace/fathom/bypass/xsk"
	"github.com/fathom-trace/fathom/wire/filter"
)

// Packets of a device are looked at as they come; the kernel has them as well.
func Example() {
	all, err := tpacket.Open(xsk.Device{Name: "eth0"}, 1, tpacket.Options{})
	if err != nil {
		log.Fatal(err)
	}
	q := all[0]
	defer q.Close()
	f, err := filter.Compile("udp dst port 4096", filter.Options{})
	if err != nil {
		log.Fatal(err)
	}
	var program []bpf.RawInstruction
	if program, err = f.Classic(); err == nil {
		err = q.Filter(program)
	}
	var packets [64]tpacket.Packet
	for err == nil {
		var n int
		if n, err = q.Recv(packets[:]); n > 0 {
			for _, p := range packets[:n] {
				fmt.Println(len(p.Bytes), "bytes")
			}
			q.Free(packets[:n])
			continue
		}
		if ready, perr := q.Prepare(); perr == nil && !ready {
			err = q.Park(context.Background())
		}
	}
	log.Fatal(err)
}
