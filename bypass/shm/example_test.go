package shm_test

import (
	"context"
	"fmt"
	"io"
	"log"

	"github.com/fathom-trace/fathom/bypass/shm"
)

// The other process would open the memory by m.Path(), or by a descriptor it is given.
func Example() {
	ctx := context.Background()
	m, err := shm.Create(shm.Config{Slots: 256, Slot: 128})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	other, err := shm.Open(m.Path())
	if err != nil {
		log.Fatal(err)
	}
	defer other.Close()
	r, err := other.Reader(shm.Mixed)
	if err != nil {
		log.Fatal(err)
	}
	w, err := m.Writer(shm.Mixed)
	if err != nil {
		log.Fatal(err)
	}
	for _, text := range []string{"tick", "order"} {
		if err := w.Send(ctx, []byte(text)); err != nil {
			log.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		log.Fatal(err)
	}
	var b [128]byte
	for {
		n, err := r.Receive(ctx, b[:])
		if err == io.EOF {
			break
		}
		fmt.Printf("%s %v\n", b[:n], err)
	}
	// Output:
	// tick <nil>
	// order <nil>
}
