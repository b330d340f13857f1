package ktest

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// settle is how long what ends by itself is given to do so.
const settle = 3 * time.Second

// LeakCheck runs tests and then looks for what they left: file descriptors, child processes, goroutines, BPF programs and
// links, network namespaces, tracefs instances. In a guest everything new counts, on the machine at hand only what is ours:
// held by this process, or named after it. It returns the tests' code, or 1 if only the check failed.
func LeakCheck(run func() int) int {
	before := snapshot()
	code := run()
	if f := flag.Lookup("test.fuzz"); f != nil && f.Value.String() != "" {
		return code // the fuzzer keeps workers and their pipes
	}
	left := before.since(snapshot())
	for deadline := time.Now().Add(settle); len(left) > 0 && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond)
		left = before.since(snapshot())
	}
	if len(left) == 0 {
		return code
	}
	fmt.Fprintf(os.Stderr, "ktest: the tests left behind:\n\t%s\n", strings.Join(left, "\n\t"))
	if slices.ContainsFunc(left, func(s string) bool { return strings.HasSuffix(s, "goroutines") }) {
		os.Stderr.Write(stacks())
	}
	return max(code, 1)
}

// state is what exists, by a name for people, and how many goroutines.
type state struct {
	things     map[string]bool
	goroutines int
}

func snapshot() state {
	s := state{things: map[string]bool{}, goroutines: goroutines()}
	for _, list := range []func() []string{descriptors, children, bpfObjects, names} {
		for _, thing := range list() {
			s.things[thing] = true
		}
	}
	return s
}

func (s state) since(now state) []string {
	var left []string
	for _, thing := range slices.Sorted(maps.Keys(now.things)) {
		if !s.things[thing] {
			left = append(left, thing)
		}
	}
	if n := now.goroutines - s.goroutines; n > 0 {
		left = append(left, fmt.Sprintf("%d goroutines", n))
	}
	return left
}

// stacks is the stacks of all goroutines, up to 1 MiB.
func stacks() []byte {
	buf := make([]byte, 1<<20)
	return buf[:runtime.Stack(buf, true)]
}

// goroutines counts them, without the one that os/signal starts at its first use and never ends.
func goroutines() int {
	n := runtime.NumGoroutine()
	if bytes.Contains(stacks(), []byte("os/signal.loop()")) {
		n--
	}
	return n
}

// descriptors lists open files, without those Go's runtime keeps for itself once it has polled.
func descriptors() (out []string) {
	fds, _ := os.ReadDir("/proc/self/fd")
	for _, fd := range fds {
		to, err := os.Readlink("/proc/self/fd/" + fd.Name())
		if err != nil || to == "anon_inode:[eventpoll]" || to == "anon_inode:[eventfd]" || strings.HasPrefix(to, "/sys/fs/cgroup/") {
			continue
		}
		out = append(out, "fd "+fd.Name()+" → "+to)
	}
	return out
}

// children lists child processes, zombies too.
func children() (out []string) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		// pid (comm) state ppid …; comm may hold anything.
		head, rest, ok := strings.Cut(string(b), "(")
		if i := strings.LastIndexByte(rest, ')'); ok && i >= 0 {
			f := strings.Fields(rest[i+1:])
			if len(f) > 1 && f[1] == strconv.Itoa(os.Getpid()) {
				out = append(out, fmt.Sprintf("child %s(%s) %s", head, rest[:i], f[0]))
			}
		}
	}
	return out
}

// bpfObjects lists all programs and links of a guest. On the machine at hand others load programs too; ours are found by
// their descriptors.
func bpfObjects() (out []string) {
	if !InGuest() {
		return nil
	}
	for id, err := ebpf.ProgramGetNextID(0); err == nil; id, err = ebpf.ProgramGetNextID(id) {
		out = append(out, fmt.Sprintf("BPF program %d", id))
	}
	for it := new(link.Iterator); ; {
		if !it.Next() {
			return out
		}
		out = append(out, fmt.Sprintf("BPF link %d", it.ID))
		it.Link.Close()
	}
}

// names lists what outlives a process by its name.
func names() (out []string) {
	for what, pattern := range map[string]string{
		"network namespace": "/run/netns/*",
		"tracefs instance":  "/sys/kernel/tracing/instances/*",
		"BPF pin":           "/sys/fs/bpf/*",
	} {
		paths, err := filepath.Glob(pattern)
		if errors.Is(err, filepath.ErrBadPattern) {
			panic(err)
		}
		for _, p := range paths {
			if InGuest() || strings.Contains(filepath.Base(p), strconv.Itoa(os.Getpid())) {
				out = append(out, what+" "+p)
			}
		}
	}
	return out
}
