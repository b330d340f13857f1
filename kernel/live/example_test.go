package live_test

import (
	"fmt"

	"github.com/fathom-trace/fathom/kernel/live"
)

func ExampleLive_Symbolise() {
	l, err := live.Open(live.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()
	if name, off, ok := l.Symbolise(0xffffffff81000041); ok {
		fmt.Printf("%s+%#x\n", name, off)
	}
}
