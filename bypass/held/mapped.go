package held

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Mapped lists processes that have AF_XDP sockets, by the rings in their memory: where a kernel has no XDP_SOCKETS_DIAG, that is all
// there is to see, and it does not say of which device. The same process is listed once for each socket.
func Mapped(proc string) []string {
	var out []string
	files, _ := filepath.Glob(filepath.Join(proc, "[0-9]*", "maps")) // the pattern is well-formed
	slices.Sort(files)
	for _, f := range files {
		pid := filepath.Base(filepath.Dir(f))
		comm, _ := os.ReadFile(filepath.Join(proc, pid, "comm"))
		for range socketsMapped(f, []string{fillOffset}) {
			out = append(out, fmt.Sprintf("%s[%s]", strings.TrimSpace(string(comm)), pid))
		}
	}
	return out
}
