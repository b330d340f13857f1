// Command insns compares the size of compiled programs: it compiles each tool of a folder with fathom and with
// bpftrace and prints, tool by tool, how many instructions the kernel would be given. Nothing is loaded or attached;
// it needs root for tracefs, which it mounts in a mount namespace of its own.
//
//	insns FATHOM BPFTRACE FOLDER
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/bpf/asmtext"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: insns FATHOM BPFTRACE FOLDER")
		os.Exit(2)
	}
	if os.Getenv("FATHOM_INSNS") == "" {
		os.Exit(private())
	}
	unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	unix.Mount("debugfs", "/sys/kernel/debug", "debugfs", 0, "")
	unix.Mount("tracefs", "/sys/kernel/tracing", "tracefs", 0, "")
	if err := table(os.Stdout, os.Args[1], os.Args[2], os.Args[3]); err != nil {
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

// table prints a row for each tool in dir. Tools that one of the two cannot compile here are listed below it, with the
// reason, and are not part of the sums.
func table(w io.Writer, fathom, peer, dir string) error {
	tmp, err := os.MkdirTemp("", "insns")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	funcs := filepath.Join(tmp, "functions")
	if err := traceable(funcs); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.bt"))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("read %s: no tools there", dir)
	}
	fmt.Fprintf(w, "# Instructions\n\nMade by `make insns` on Linux %s. Instructions of 8 bytes as the kernel is given them, all programs of a\n"+
		"tool and the functions they call together, for each of %s's tools.\n\n", release(), version(peer))
	fmt.Fprint(w, "| tool | fathom | bpftrace | ratio |\n| --- | --- | --- | --- |\n")
	var ours, theirs int
	var left []string
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".bt")
		a, err := listed(fathom, f)
		if err != nil {
			left = append(left, fmt.Sprintf("- %s: fathom: %v", name, err))
			continue
		}
		b, err := emitted(peer, f, funcs, filepath.Join(tmp, "elf"))
		if err != nil {
			left = append(left, fmt.Sprintf("- %s: bpftrace: %v", name, err))
			continue
		}
		ours, theirs = ours+a, theirs+b
		fmt.Fprintf(w, "| %s | %d | %d | %.2f |\n", name, a, b, float64(a)/float64(b))
	}
	fmt.Fprintf(w, "| **all** | %d | %d | %.2f |\n", ours, theirs, float64(ours)/float64(theirs))
	if len(left) > 0 {
		fmt.Fprintf(w, "\nNot in the table, because they cannot be compiled on this machine:\n\n%s\n", strings.Join(left, "\n"))
	}
	return nil
}

// traceable writes the kernel's functions to a file: bpftrace wants to be told where there is no function tracer.
func traceable(path string) error {
	syms, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		return err
	}
	var out bytes.Buffer
	for line := range strings.Lines(string(syms)) {
		if f := strings.Fields(line); len(f) > 2 && strings.EqualFold(f[1], "t") {
			fmt.Fprintln(&out, f[2])
		}
	}
	return os.WriteFile(path, out.Bytes(), 0o600)
}

// listed counts the instructions in fathom's listing of a tool.
func listed(fathom, file string) (int, error) {
	out, err := command(fathom, "trace", "-d", "asm", file)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, p := range strings.Split("\n"+string(out), "\nprogram ")[1:] {
		_, text, _ := strings.Cut(p, "\n")
		insns, err := asmtext.Parse(text)
		if err != nil {
			return 0, fmt.Errorf("read listing: %w", err)
		}
		n += slots(insns)
	}
	return n, nil
}

// emitted counts the instructions in what bpftrace would load for a tool.
func emitted(peer, file, funcs, elf string) (int, error) {
	os.Remove(elf)
	if _, err := command(peer, "--traceable-functions", funcs, "--mode", "codegen", "--emit-elf", elf, file); err != nil {
		return 0, err
	}
	spec, err := ebpf.LoadCollectionSpec(elf)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, p := range spec.Programs {
		n += slots(p.Instructions)
	}
	return n, nil
}

// slots counts instructions as the kernel does: loading a 64-bit constant takes two.
func slots(insns asm.Instructions) int {
	n := 0
	for _, in := range insns {
		n++
		if in.OpCode.IsDWordLoad() {
			n++
		}
	}
	return n
}

// command runs a program; its error is the first line of what it complained of.
func command(name string, args ...string) ([]byte, error) {
	cmd := exec.Command(name, args...)
	var out, diag bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &diag
	err := cmd.Run()
	if err == nil {
		return out.Bytes(), nil
	}
	for line := range strings.Lines(diag.String()) {
		if _, msg, ok := strings.Cut(line, "ERROR: "); ok {
			return nil, errors.New(strings.TrimSpace(msg))
		}
	}
	return nil, err
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
