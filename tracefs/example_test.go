package tracefs_test

import (
	"fmt"

	"github.com/fathom-trace/fathom/tracefs"
)

func ExampleFind() {
	fs, err := tracefs.Find()
	if err != nil {
		fmt.Println(err) // tracefs not supported: not mounted; fsopen tracefs: operation not permitted (errno 1); run as root, …
		return
	}
	defer fs.Close()
	evs, err := fs.Events()
	fmt.Println(len(evs), err)
}
