package header_test

import (
	"fmt"

	"github.com/fathom-trace/fathom/wire/header"
)

func Example() {
	pkt := []byte("\x45\x00\x00\x1c\x00\x00\x00\x00\x40\x11\x00\x00\x0a\x00\x00\x01\x0a\x00\x00\x02\x13\x88\x00\x35\x00\x08\x00\x00")
	var s header.Stack
	s.Walk(pkt, header.KindIP)
	if l, ok := s.Last(header.KindUDP); ok {
		fmt.Println(header.UDP(l.Bytes(pkt)).DstPort(), "at", l.Off)
	}
	fmt.Printf("%s\n", header.Append(nil, pkt, header.KindIP))
	// Output:
	// 53 at 20
	// IP 10.0.0.1.5000 > 10.0.0.2.53: UDP, length 0
}
