package usersym

import (
	"bytes"
	"cmp"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
)

// perfMap is what a JIT compiler says about its code in /tmp/perf-PID.map: "start size name" a line, in hexadecimal
// (tools/perf/Documentation/jit-interface.txt). It grows while the process runs.
type perfMap struct {
	file *os.File
	size int64 // of the file when it was read
	code []jitted
}

type jitted struct {
	start, size uint64
	name        string
}

const maxPerfMap = 64 << 20

func (j *perfMap) close() {
	if j.file != nil {
		j.file.Close()
	}
	*j = perfMap{}
}

// hold opens the map if there is one, so that it can be read when the process has ended. The number in its name is that of
// the process in its own pid namespace.
func (j *perfMap) hold(proc string, pid int) {
	if j.file != nil {
		return
	}
	dir := proc + "/" + strconv.Itoa(pid)
	for _, n := range []int{innerPID(dir, pid), pid} {
		if f, _, err := openRegular(dir + "/root/tmp/perf-" + strconv.Itoa(n) + ".map"); err == nil {
			j.file = f
			return
		}
	}
}

// innerPID is the last number of NSpid in /proc/PID/status.
func innerPID(dir string, pid int) int {
	b, err := os.ReadFile(dir + "/status")
	if err != nil {
		return pid
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "NSpid:" {
			if n, err := strconv.Atoi(f[len(f)-1]); err == nil {
				return n
			}
		}
	}
	return pid
}

// reload reads the map again if it has grown.
func (j *perfMap) reload(proc string, pid int) {
	j.hold(proc, pid)
	if j.file == nil {
		return
	}
	st, err := j.file.Stat()
	if err != nil || st.Size() == j.size {
		return
	}
	j.size = st.Size()
	b, err := io.ReadAll(io.NewSectionReader(j.file, 0, min(j.size, maxPerfMap)))
	if err == nil {
		j.code = parsePerfMap(b)
	}
}

func parsePerfMap(b []byte) []jitted {
	var code []jitted
	for line := range bytes.Lines(b) {
		f := strings.SplitN(strings.TrimRight(string(line), "\r\n"), " ", 3)
		if len(f) != 3 {
			continue
		}
		start, err1 := strconv.ParseUint(strings.TrimPrefix(f[0], "0x"), 16, 64)
		size, err2 := strconv.ParseUint(strings.TrimPrefix(f[1], "0x"), 16, 64)
		if err1 == nil && err2 == nil {
			code = append(code, jitted{start, size, f[2]})
		}
	}
	slices.SortStableFunc(code, func(a, b jitted) int { return cmp.Compare(a.start, b.start) })
	return code
}

// find returns the code that addr is in; of several, the one written last at the nearest start.
func (j *perfMap) find(addr uint64) (name string, off uint64, ok bool) {
	i, _ := slices.BinarySearchFunc(j.code, addr, func(c jitted, a uint64) int {
		if c.start <= a {
			return -1
		}
		return 1
	})
	for back := 0; i > 0 && back < 16; back++ {
		i--
		if c := j.code[i]; addr-c.start < c.size {
			return c.name, addr - c.start, true
		}
	}
	return "", 0, false
}
