package usersym_test

import (
	"fmt"
	"os"

	"github.com/fathom-trace/fathom/usersym"
)

func Example() {
	r := usersym.New(usersym.Options{})
	defer r.Close()
	pid := os.Getpid()
	r.Note(pid) // from here on the process may end
	if f, ok := r.Resolve(pid, 0x401000); ok {
		fmt.Printf("%s+%#x (%s)\n", f.Name, f.Offset, f.File)
	}
	if off, _, size, ok := r.SymbolAddr("libc", "malloc"); ok {
		fmt.Printf("uprobe at %#x, %d bytes of code\n", off, size)
	}
}
