package main

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// recorded is how many calls are recorded, with two events each.
const recorded = 1_000_000

// recorders are programs that record system calls of the whole machine until they are interrupted; %s is where to.
var recorders = []struct {
	name string
	argv []string
}{
	{"fathom record", []string{"./fathom", "record", "-q", "-j", "-e", "raw_syscalls", "-o", "%s"}},
	{"perf record", []string{"perf", "record", "-q", "-a", "-e", "raw_syscalls:*", "-o", "%s"}},
	{"perf record -m 64M", []string{"perf", "record", "-q", "-a", "-m", "64M", "-e", "raw_syscalls:*", "-o", "%s"}},
	{"trace-cmd record", []string{"trace-cmd", "record", "-q", "-e", "raw_syscalls", "-o", "%s"}},
	{"trace-cmd record -b 16384", []string{"trace-cmd", "record", "-q", "-b", "16384", "-e", "raw_syscalls", "-o", "%s"}},
}

// readers show recordings of fathom (%s) and of perf (%p); what they print is thrown away.
var readers = []struct {
	name string
	argv []string
}{
	{"fathom view, its own", []string{"./fathom", "view", "-q", "%s"}},
	{"fathom view -e sys_enter --filter 'id == 0' --stats, its own", []string{"./fathom", "view", "-q", "%s", "-e", "sys_enter", "--filter", "id == 0", "--stats"}},
	{"babeltrace2, fathom's", []string{"babeltrace2", "%s"}},
	{"babeltrace2 -o dummy, fathom's", []string{"babeltrace2", "-o", "dummy", "%s"}},
	{"fathom view, perf's", []string{"./fathom", "view", "-q", "%p"}},
	{"perf script -F +trace, perf's", []string{"perf", "script", "-F", "+trace", "-i", "%p"}},
}

// recordings measures recording and reading beside the peers.
func recordings() error {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fmt.Printf("## Recording %d system calls of a busy task, two events each, of the whole machine\n\n", recorded)
	fmt.Printf("| recorder | events | lost | CPU until then, µs an event | CPU with finishing | bytes an event |\n| --- | --- | --- | --- | --- | --- |\n")
	counts := map[string]int{}
	files := map[string]string{}
	for i, r := range recorders {
		name := filepath.Join(dir, strconv.Itoa(i))
		row, n, err := oneRecording(r.argv, name)
		if err != nil {
			fmt.Printf("| %s | cannot: %s | | | | |\n", r.name, strings.ReplaceAll(err.Error(), "\n", " "))
			continue
		}
		fmt.Printf("| %s | %s |\n", r.name, row)
		counts[r.argv[0]], files[r.argv[0]] = n, name
	}
	fmt.Printf("\n## Reading these recordings\n\n| reader | events | CPU s | million events a second |\n| --- | --- | --- | --- |\n")
	for _, r := range readers {
		of, mark := "./fathom", "%s"
		if strings.Contains(strings.Join(r.argv, " "), "%p") {
			of, mark = "perf", "%p"
		}
		if files[of] == "" {
			continue
		}
		argv := with(r.argv, mark, files[of])
		cmd := exec.Command(argv[0], argv[1:]...)
		if err := cmd.Run(); err != nil {
			fmt.Printf("| %s | cannot: %v | | |\n", r.name, err)
			continue
		}
		cpu := cpuOf(cmd)
		fmt.Printf("| %s | %d | %.2f | %.2f |\n", r.name, counts[of], cpu.Seconds(), float64(counts[of])/cpu.Seconds()/1e6)
	}
	fmt.Println()
	return nil
}

func with(argv []string, mark, name string) (out []string) {
	for _, a := range argv {
		out = append(out, strings.ReplaceAll(a, mark, name))
	}
	return out
}

func cpuOf(cmd *exec.Cmd) time.Duration {
	if ru, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
	}
	return 0
}

// oneRecording records the calls into name. It gives the row of the table and how many events there are.
func oneRecording(argv []string, name string) (row string, events int, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", 0, err
	}
	var out strings.Builder
	argv = with(argv, "%s", name)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return "", 0, err
	}
	time.Sleep(2 * time.Second) // nobody tells when it records
	if err := exec.Command(self, "loop", strconv.Itoa(recorded)).Run(); err != nil {
		return "", 0, err
	}
	time.Sleep(time.Second)
	during := cpuNow(cmd.Process.Pid)
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		return "", 0, fmt.Errorf("%s", strings.TrimSpace(out.String()))
	}
	if err := cmd.Wait(); err != nil && cmd.ProcessState.ExitCode() > 0 && argv[0] != "perf" {
		return "", 0, fmt.Errorf("%s", strings.TrimSpace(out.String()))
	}
	events, lost := counted(argv[0], name, out.String())
	if events == 0 {
		return "", 0, fmt.Errorf("no events: %s", strings.TrimSpace(out.String()))
	}
	us := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 / float64(events) }
	return fmt.Sprintf("%d | %s | %.3f | %.3f | %.1f", events, lost, us(during), us(cpuOf(cmd)), float64(bytesOf(name))/float64(events)), events, nil
}

// cpuNow reads what a process and those it has waited for have used (proc_pid_stat(5)).
func cpuNow(pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	ticks := 0
	for _, s := range f[11:15] {
		n, err := strconv.Atoi(s)
		if err != nil {
			return 0
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// counted finds how many events a recording has, and how many its recorder says are missing.
func counted(program, name, said string) (events int, lost string) {
	field := func(text, key string) int {
		_, rest, _ := strings.Cut(text, key)
		n := 0
		_, _ = fmt.Sscanf(strings.TrimLeft(rest, ` :"`), "%d", &n) // 0 where it does not say
		return n
	}
	if program == "./fathom" {
		return field(said, `"events"`), strconv.Itoa(field(said, `"missed"`))
	}
	out, err := exec.Command("./fathom", "view", "--stats", name).CombinedOutput()
	if err != nil {
		return 0, ""
	}
	_, table, _ := strings.Cut(string(out), "CPU\n")
	missing := 0
	for line := range strings.Lines(table) {
		if f := strings.Fields(line); len(f) == 5 {
			n, _ := strconv.Atoi(strings.TrimPrefix(f[1], "≥"))
			missing += n
		}
	}
	_, err = fmt.Sscan(string(out), &events)
	if err != nil {
		return 0, ""
	}
	return events, strconv.Itoa(missing)
}

func bytesOf(name string) (n int64) {
	_ = filepath.WalkDir(name, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			if st, err := d.Info(); err == nil {
				n += st.Size()
			}
		}
		return nil
	})
	return n
}
