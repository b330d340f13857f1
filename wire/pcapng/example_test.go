package pcapng_test

import (
	"bytes"
	"fmt"

	"github.com/fathom-trace/fathom/wire/pcapng"
)

func Example() {
	var file bytes.Buffer
	w, err := pcapng.NewWriter(&file, pcapng.Section{Application: "example"})
	if err != nil {
		fmt.Println(err)
		return
	}
	eth0, _ := w.Add(pcapng.Interface{Link: pcapng.LinkEthernet, Name: "eth0"})
	_ = w.Write(pcapng.Packet{Interface: eth0, Data: []byte("bytes of a frame"), Comments: []string{"dropped here"}})

	r, err := pcapng.NewReader(&file)
	if err != nil {
		fmt.Println(err)
		return
	}
	p, err := r.Next()
	fmt.Println(r.Interfaces()[p.Interface].Name, len(p.Data), p.Comments, err)
	// Output:
	// eth0 16 [dropped here] <nil>
}
