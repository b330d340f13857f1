// Command bench measures fathom beside bpftrace in the same run and prints docs/benchmarks.md; as "bench packet-page" beside
// pwru, and docs/benchmarks-packet.md; as "bypass-page" docs/benchmarks-bypass.md; as "core-page" beside crash and drgn, and
// docs/benchmarks-core.md. It needs root. These machines are shared: only ratios count, and minima more than medians.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/examples"
	"github.com/fathom-trace/fathom/lab/topology"
)

// rounds is how often each short run is repeated.
const rounds = 11

// tool is a program that takes bpftrace's command line.
type tool struct {
	name string
	argv []string
}

// usage is what one run took.
type usage struct {
	wall, cpu time.Duration
	rss       int64 // bytes
}

func main() {
	if len(os.Args) > 2 && os.Args[1] == "loop" {
		loop(os.Args[2])
		return
	}
	if len(os.Args) > 1 && (os.Args[1] == "packet-page" || os.Args[1] == "packets") {
		var err error
		if os.Args[1] == "packet-page" {
			err = packetPage(os.Args[2:])
		} else if len(os.Args) > 2 {
			err = packets(os.Args[2], os.Args[3:])
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) > 2 && os.Args[1] == "tcp-side" {
		var s tcpSide
		err := json.Unmarshal([]byte(os.Args[2]), &s)
		if err == nil {
			err = s.run()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "tcp" { // the part about connections alone
		pair, err := topology.NewPair("va", "vb")
		if err == nil {
			err = errors.Join(writeTCP(pair), pair.Close())
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "bypass-page" {
		if err := bypassPage(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "core-page" {
		if err := corePage(strings.Join(os.Args[2:], "")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "recordings" {
		if err := recordings(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if os.Getenv("FATHOM_BENCH") == "" {
		os.Exit(private())
	}
	mount()
	tools := []tool{{"fathom", []string{"./fathom", "trace"}}}
	for _, p := range append([]string{"bpftrace"}, os.Args[1:]...) {
		if path, err := exec.LookPath(p); err == nil {
			tools = append(tools, tool{version(path), []string{path}})
		}
	}
	fmt.Printf("# Benchmarks\n\nMade by `make bench` on %s, %d CPUs. Only ratios count: these machines are shared.\n\n", kernel(), cpus())
	starts(tools)
	attaches(tools)
	bursts(tools)
	counting(tools)
	perRun(tools)
	boots()
	if err := recordings(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	size(tools)
}

// private runs this program again in a mount namespace of its own: the peer wants tracefs and debugfs mounted.
func private() int {
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "FATHOM_BENCH=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func mount() {
	unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	unix.Mount("debugfs", "/sys/kernel/debug", "debugfs", 0, "")
	unix.Mount("tracefs", "/sys/kernel/tracing", "tracefs", 0, "")
}

func version(path string) string {
	out, err := exec.Command(path, "--version").Output()
	if err != nil {
		return path
	}
	return strings.TrimSpace(string(out))
}

func kernel() string {
	var u unix.Utsname
	unix.Uname(&u)
	return unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
}

func cpus() int {
	var set unix.CPUSet
	unix.SchedGetaffinity(0, &set)
	return set.Count()
}

// run runs a program of the language to its end.
func run(t tool, program string) (usage, []byte, error) {
	cmd := exec.Command(t.argv[0], append(slices.Clone(t.argv[1:]), "-e", program)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	start := time.Now()
	err := cmd.Run()
	u := usage{wall: time.Since(start)}
	if ru, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		u.cpu = time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
		u.rss = ru.Maxrss << 10
	}
	return u, out.Bytes(), err
}

// starts measures programs that end at once.
func starts(tools []tool) {
	fmt.Printf("## Start to exit\n\nMedian (least) of %d runs.\n\n| program | tool | wall ms | CPU ms | peak RSS MB |\n| --- | --- | --- | --- | --- |\n", rounds)
	for _, p := range []string{
		`BEGIN { exit(); }`,
		`BEGIN { printf("%d\n", ((struct task_struct *)curtask)->pid); exit(); }`,
		`tracepoint:syscalls:sys_enter_openat { @[comm] = count(); } interval:ms:1 { exit(); }`,
	} {
		for _, t := range tools {
			var wall, cpu []float64
			var rss int64
			failed := false
			for range rounds {
				u, _, err := run(t, p)
				failed = failed || err != nil
				wall, cpu = append(wall, ms(u.wall)), append(cpu, ms(u.cpu))
				rss = max(rss, u.rss)
			}
			if failed {
				fmt.Printf("| `%s` | %s | fails | | |\n", p, t.name)
				continue
			}
			fmt.Printf("| `%s` | %s | %s | %s | %.1f |\n", p, t.name, spread(wall), spread(cpu), float64(rss)/1e6)
		}
	}
	fmt.Println()
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// spread is the median and the least, "" of nothing.
func spread(v []float64) string {
	if len(v) == 0 {
		return ""
	}
	slices.Sort(v)
	return fmt.Sprintf("%.1f (%.1f)", v[len(v)/2], v[0])
}

// attaches measures how long well-known tools take until their probes are attached, the same texts with every peer.
func attaches(tools []tool) {
	fmt.Printf("## Start of a tool to its probes being attached\n\nThe texts are those of `examples/tools`. Median (least) of 5 runs.\n\n| tool | run by | wall ms | CPU ms | peak RSS MB |\n| --- | --- | --- | --- | --- |\n")
	for _, name := range []string{"opensnoop", "execsnoop", "biolatency", "runqlat", "tcpdrop", "syscount"} {
		text, ok := examples.Find(name)
		if !ok {
			continue
		}
		for _, t := range tools {
			var wall, cpu []float64
			var rss int64
			for range 5 {
				if u, ok := untilAttached(t, text.Text); ok {
					wall, cpu, rss = append(wall, ms(u.wall)), append(cpu, ms(u.cpu)), max(rss, u.rss)
				}
			}
			if len(wall) < 5 {
				fmt.Printf("| %s | %s | fails | | |\n", name, t.name)
				continue
			}
			fmt.Printf("| %s | %s | %s | %s | %.1f |\n", name, t.name, spread(wall), spread(cpu), float64(rss)/1e6)
		}
	}
	fmt.Println()
}

// untilAttached runs a program until it says that its probes are attached.
func untilAttached(t tool, program string) (u usage, ok bool) {
	cmd := exec.Command(t.argv[0], append(slices.Clone(t.argv[1:]), "-e", program)...)
	cmd.Env = append(os.Environ(), "__BPFTRACE_NOTIFY_PROBES_ATTACHED=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return u, false
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return u, false
	}
	sc := bufio.NewScanner(out)
	for !ok && sc.Scan() {
		ok = strings.Contains(sc.Text(), "PROBES_ATTACHED")
	}
	u.wall = time.Since(start)
	cmd.Process.Signal(os.Interrupt)
	for sc.Scan() {
	}
	cmd.Wait()
	if ru, has := cmd.ProcessState.SysUsage().(*syscall.Rusage); has {
		u.cpu = time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
		u.rss = ru.Maxrss << 10
	}
	return u, ok
}

// loop makes n getppid calls, as fast as it can, and prints the nanoseconds of each.
func loop(n string) {
	k, _ := strconv.Atoi(n)
	start := time.Now()
	for range k {
		unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
	}
	fmt.Printf("%.1f\n", float64(time.Since(start).Nanoseconds())/float64(k))
}

// counting measures what @[comm] = count() adds to a system call.
func counting(tools []tool) {
	self, err := os.Executable()
	if err != nil {
		return
	}
	cost := func() float64 {
		best := 1e9
		for range 5 {
			out, _ := exec.Command(self, "loop", "300000").Output()
			if f, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64); err == nil {
				best = min(best, f)
			}
		}
		return best
	}
	base := cost()
	fmt.Printf("## `tracepoint:raw_syscalls:sys_enter { @[comm] = count(); }`\n\nLeast nanoseconds of a getppid call: %.0f without tracing.\n\n| tool | with | added |\n| --- | --- | --- |\n", base)
	for _, t := range tools {
		cmd := exec.Command(t.argv[0], append(slices.Clone(t.argv[1:]), "-e", `tracepoint:raw_syscalls:sys_enter { @[comm] = count(); }`)...)
		if err := cmd.Start(); err != nil {
			continue
		}
		time.Sleep(3 * time.Second)
		with := cost()
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
		fmt.Printf("| %s | %.0f | %.0f |\n", t.name, with, with-base)
	}
	fmt.Println()
}

// perRun measures programs by the kernel's own clock: run_time_ns and run_cnt of bpf_prog_info with statistics on.
func perRun(tools []tool) {
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		fmt.Printf("## Nanoseconds of one run\n\nThe kernel keeps no statistics here: %v.\n\n", err)
		return
	}
	defer stats.Close()
	fmt.Printf("## One run, as the kernel counts it\n\nNanoseconds of a run (bpf_stats, which adds two clock readings to each), least of 5 rounds, taken in turns; instructions as translated.\n\n| program | tool | ns | instructions |\n| --- | --- | --- | --- |\n")
	for _, p := range []string{
		`tracepoint:raw_syscalls:sys_enter { @[comm] = count(); }`,
		`tracepoint:raw_syscalls:sys_enter { @[tid] = count(); }`,
		`tracepoint:raw_syscalls:sys_enter /pid == 1/ { @ = count(); }`,
		`tracepoint:raw_syscalls:sys_enter { @ = hist(args->id); }`,
		`tracepoint:raw_syscalls:sys_enter { @[args->id] = sum(args->id); }`,
	} {
		best, insns := make([]float64, len(tools)), make([]int, len(tools))
		for range 5 {
			for i, t := range tools {
				if ns, n := oneRun(t, p); ns > 0 && (best[i] == 0 || ns < best[i]) {
					best[i], insns[i] = ns, n
				}
			}
		}
		for i, t := range tools {
			if best[i] == 0 {
				fmt.Printf("| `%s` | %s | fails | |\n", p, t.name)
				continue
			}
			fmt.Printf("| `%s` | %s | %.0f | %d |\n", p, t.name, best[i], insns[i])
		}
	}
	fmt.Println()
}

// oneRun gives the average of a program under 300,000 system calls, and its size.
func oneRun(t tool, program string) (ns float64, insns int) {
	self, err := os.Executable()
	if err != nil {
		return 0, 0
	}
	before := programs()
	cmd := exec.Command(t.argv[0], append(slices.Clone(t.argv[1:]), "-e", program)...)
	if err := cmd.Start(); err != nil {
		return 0, 0
	}
	defer cmd.Wait()
	defer cmd.Process.Signal(os.Interrupt)
	time.Sleep(1500 * time.Millisecond)
	exec.Command(self, "loop", "300000").Run()
	for id, p := range programs() {
		if _, old := before[id]; old || p.runs < 300000 {
			continue
		}
		return float64(p.time.Nanoseconds()) / float64(p.runs), p.insns
	}
	return 0, 0
}

type program struct {
	runs  uint64
	time  time.Duration
	insns int
}

// programs gives what the kernel counted of every BPF program.
func programs() map[ebpf.ProgramID]program {
	out := map[ebpf.ProgramID]program{}
	for id, err := ebpf.ProgramGetNextID(0); err == nil; id, err = ebpf.ProgramGetNextID(id) {
		p, err := ebpf.NewProgramFromID(id)
		if err != nil {
			continue
		}
		st, serr := p.Stats()
		info, ierr := p.Info()
		p.Close()
		if serr != nil || ierr != nil {
			continue
		}
		insns, err := info.Instructions()
		if err != nil {
			continue
		}
		out[id] = program{st.RunCount, st.Runtime, int(insns.Size() / 8)}
	}
	return out
}

func size(tools []tool) {
	fmt.Printf("## Size\n\n| tool | binary MB |\n| --- | --- |\n")
	for _, t := range tools {
		if path, err := exec.LookPath(t.argv[0]); err == nil {
			if st, err := os.Stat(path); err == nil {
				fmt.Printf("| %s | %.1f |\n", t.name, float64(st.Size())/1e6)
			}
		}
	}
}
