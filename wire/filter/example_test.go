package filter_test

import (
	"fmt"

	"golang.org/x/net/bpf"

	"github.com/fathom-trace/fathom/wire/filter"
)

func Example() {
	f, err := filter.Compile("udp port 53", filter.Options{Link: filter.Raw})
	if err != nil {
		fmt.Println(err)
		return
	}
	pkt := []byte("\x45\x00\x00\x1c\x00\x00\x00\x00\x40\x11\x00\x00\x0a\x00\x00\x01\x0a\x00\x00\x02\x13\x88\x00\x35\x00\x08\x00\x00")
	fmt.Println(f.Match(pkt, len(pkt)))

	prog, _ := f.Classic() // for SO_ATTACH_FILTER
	ins, _ := bpf.Disassemble(prog)
	fmt.Println(len(ins), "instructions, the first:", ins[0])

	_, err = filter.Compile("udp prot 53", filter.Options{})
	fmt.Println(err.(*filter.Error).Text())
	// Output:
	// true
	// 21 instructions, the first: ldb [0]
	// udp prot 53
	//     ^^^^ unexpected "prot"; expected and, or, or the end
	//     did you mean port?
}
