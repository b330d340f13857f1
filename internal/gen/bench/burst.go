package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// burst is the number of events of the printf test.
const burst = 1_000_000

// bursts prints a line for each of a million events at full speed.
func bursts(tools []tool) {
	fmt.Printf("## A burst of %d printf events at full speed, default settings\n\n| tool | printed | reported lost | neither | events/s |\n| --- | --- | --- | --- | --- |\n", burst)
	for _, t := range tools {
		printed, lost, took, err := oneBurst(t, burst)
		if err != nil {
			fmt.Printf("| %s | %v | | | |\n", t.name, err)
			continue
		}
		fmt.Printf("| %s | %d (%.1f %%) | %d | %d | %.0f |\n", t.name, printed, 100*float64(printed)/burst, lost, burst-printed-lost,
			float64(printed)/took.Seconds())
	}
	const long = 10 * burst // fathom alone: what is not printed must have been counted
	printed, lost, took, err := oneBurst(tools[0], long)
	if err == nil {
		fmt.Printf("\n%s, %d events: %d printed, %d reported lost, %d neither; %.0f printed per second.\n", tools[0].name, long, printed, lost, long-printed-lost,
			float64(printed)/took.Seconds())
	}
	fmt.Println()
}

func oneBurst(t tool, n int) (printed, lost int, took time.Duration, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, 0, 0, err
	}
	cmd := exec.Command(t.argv[0], append(slices.Clone(t.argv[1:]), "-e", `tracepoint:syscalls:sys_enter_getppid { printf("E %d %d\n", pid, nsecs); }`)...)
	cmd.Env = append(os.Environ(), "__BPFTRACE_NOTIFY_PROBES_ATTACHED=1")
	r, w, err := os.Pipe()
	if err != nil {
		return 0, 0, 0, err
	}
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		return 0, 0, 0, err
	}
	w.Close()
	attached, done := make(chan struct{}), make(chan struct{})
	var last time.Time
	go func() {
		defer close(done)
		sc := bufio.NewScanner(r)
		ready := false
		for sc.Scan() {
			line := sc.Text()
			switch {
			case strings.HasPrefix(line, "E "):
				printed++
				last = time.Now()
			case strings.HasPrefix(line, "Lost "):
				n, _ := strconv.Atoi(strings.Fields(line)[1])
				lost += n
			case !ready && (strings.Contains(line, "PROBES_ATTACHED") || strings.HasPrefix(line, "Attaching")):
				ready = true
				close(attached)
			}
		}
	}()
	select {
	case <-attached:
	case <-time.After(20 * time.Second):
	}
	time.Sleep(500 * time.Millisecond)
	start := time.Now()
	exec.Command(self, "loop", strconv.Itoa(n)).Run()
	time.Sleep(time.Second)
	cmd.Process.Signal(os.Interrupt)
	select {
	case <-done:
	case <-time.After(60 * time.Second):
		cmd.Process.Kill()
	}
	cmd.Wait()
	return printed, lost, last.Sub(start), nil
}
