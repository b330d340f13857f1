// Command insns compares compiled programs: it compiles each tool of a folder with fathom and with bpftrace and prints,
// tool by tool, how many instructions the kernel is given, how many the verifier looks at, and how long that takes it.
// Programs are loaded, not attached; it needs root, and mounts tracefs in a mount namespace of its own.
//
//	insns BPFTRACE FOLDER
package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: insns BPFTRACE FOLDER")
		os.Exit(2)
	}
	if os.Getenv("FATHOM_INSNS") == "" {
		os.Exit(private())
	}
	unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	unix.Mount("debugfs", "/sys/kernel/debug", "debugfs", 0, "")
	unix.Mount("tracefs", "/sys/kernel/tracing", "tracefs", 0, "")
	_ = rlimit.RemoveMemlock()
	if err := table(os.Stdout, os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "insns:", err)
		os.Exit(1)
	}
}

// private runs this program again in a mount namespace of its own: the peer wants tracefs and debugfs mounted.
func private() int {
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, "insns:", err)
		return 1
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "FATHOM_INSNS=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "insns:", err)
		return 1
	}
	return 0
}

// cost is what the kernel has with a tool's programs.
type cost struct {
	insns    int // of 8 bytes, all programs and the functions they call
	verified int // looked at by the verifier, on all ways
	micros   int // it took, the least of several times; 0 where it does not tell
}

// table prints a row for each tool in dir. Tools that one of the two cannot compile here are listed below it, with the
// reason, and are not part of the sums.
func table(w io.Writer, peer, dir string) error {
	tmp, err := os.MkdirTemp("", "insns")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	files, err := filepath.Glob(filepath.Join(dir, "*.bt"))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("read %s: no tools there", dir)
	}
	funcs := filepath.Join(tmp, "functions")
	if err := traceable(funcs, files); err != nil {
		return err
	}
	fmt.Fprintf(w, "# Instructions\n\nMade by `make insns` on Linux %s, for each of %s's tools: instructions of 8 bytes as the kernel is given\n"+
		"them, all programs of a tool and the functions they call together; those the verifier looks at; the microseconds it takes,\n"+
		"least of %d.\n\n", release(), version(peer), rounds)
	fmt.Fprint(w, "| tool | fathom | bpftrace | ratio | verified: fathom | bpftrace | µs: fathom | bpftrace |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n")
	var ours, theirs cost
	var left []string
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".bt")
		a, err := ofFathom(f, funcs)
		if err != nil {
			left = append(left, fmt.Sprintf("- %s: fathom: %v", name, err))
			continue
		}
		b, err := ofPeer(peer, f, funcs, filepath.Join(tmp, "elf"))
		if err != nil {
			left = append(left, fmt.Sprintf("- %s: bpftrace: %v", name, err))
			continue
		}
		ours.add(a)
		theirs.add(b)
		row(w, name, a, b)
	}
	row(w, "**all**", ours, theirs)
	if len(left) > 0 {
		fmt.Fprintf(w, "\nNot in the table, because they cannot be compiled on this machine:\n\n%s\n", strings.Join(left, "\n"))
	}
	return nil
}

func (c *cost) add(d cost) {
	c.insns += d.insns
	c.verified += d.verified
	c.micros += d.micros
}

func row(w io.Writer, name string, a, b cost) {
	fmt.Fprintf(w, "| %s | %d | %d | %.2f | %d | %d | %d | %d |\n", name, a.insns, b.insns, float64(a.insns)/float64(b.insns),
		a.verified, b.verified, a.micros, b.micros)
}

func version(path string) string {
	out, err := command(path, "--version")
	if err != nil {
		return path
	}
	return strings.TrimSpace(string(out))
}

func release() string {
	var u unix.Utsname
	unix.Uname(&u)
	return unix.ByteSliceToString(u.Release[:])
}
