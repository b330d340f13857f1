package held

import (
	"bufio"
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
		for range fillRings(f) {
			out = append(out, fmt.Sprintf("%s[%s]", strings.TrimSpace(string(comm)), pid))
		}
	}
	return out
}

// fillRings counts mappings of sockets at the offset where AF_XDP has its fill ring (XDP_UMEM_PGOFF_FILL_RING), as
// proc_pid_maps(5) shows them.
func fillRings(path string) (n int) {
	f, err := os.Open(path)
	if err != nil {
		return 0 // the process has ended, or is somebody else's
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		fields := strings.Fields(sc.Text())
		if len(fields) >= 6 && fields[2] == "100000000" && strings.HasPrefix(fields[5], "socket:[") {
			n++
		}
	}
	return n
}
