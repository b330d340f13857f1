package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/fathom-trace/fathom/lab/guest"
	"github.com/fathom-trace/fathom/lab/guest/pid1"
	"golang.org/x/sys/unix"
)

// inGuest is the command of this program that provokes, in the guest.
const inGuest = "provoke"

// mark is what the guest writes into the kernel's log before and after a way.
const mark = "fathom_deaths: "

// console keeps all that a guest writes.
type console struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.Write(p)
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.String()
}

// boot has a guest provoke the ways and gives the console's text of each, and all of it with what the guest complained of.
func boot(ctx context.Context, k guest.Kernel, ko string, ws []way, verbose bool) (texts []string, all string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Minute)
	defer cancel()
	self, err := os.Executable()
	if err != nil {
		return nil, "", err
	}
	accel, err := guest.ParseAccel(os.Getenv("FATHOM_ACCEL"))
	if err != nil {
		return nil, "", err
	}
	con := &console{}
	out := io.Writer(con)
	if verbose {
		out = io.MultiWriter(con, os.Stderr)
	}
	o := guest.Options{Kernel: k, Init: self, Accel: accel, ModuleFiles: []string{ko}, Console: out, Mem: 512, HangAfter: 5 * time.Minute,
		// kfence: looks at one allocation a millisecond; Debian's looks at none
		Append: []string{"ignore_loglevel", "printk.devkmsg=on", "panic=0", "kfence.sample_interval=1"}, QEMUArgs: []string{"-device", "pvpanic"}}
	args := []string{"/init", inGuest}
	for _, w := range ws {
		args = append(args, strings.Join([]string{w.name, w.context, w.shows}, "="))
	}
	o.Commands = []pid1.Command{{Args: args}}
	g, err := guest.Start(ctx, o)
	if err != nil {
		return nil, "", err
	}
	fatal := len(ws) == 1 && ws[0].fatal
	for injected := false; ; {
		select {
		case <-g.Done():
			res, err := g.Wait()
			for _, c := range res.Commands {
				all += c.Stderr
			}
			return cut(con.String(), ws), con.String() + all, err
		case <-time.After(200 * time.Millisecond):
		}
		text := con.String()
		if fatal && ws[0].context == nmi && !injected && strings.Contains(text, mark+"waits for an NMI") {
			_, err = g.QMP().Execute(ctx, "inject-nmi", nil)
			injected = true
		}
		if strings.Contains(text, "end Kernel panic") {
			time.Sleep(500 * time.Millisecond)
			g.Quit()
		}
	}
}

var (
	begin = regexp.MustCompile(`(?m)^.*` + mark + `begin (\S+ \S+)\r?\n`)
	end   = regexp.MustCompile(`(?m)^.*` + mark + `end`)
)

// maxText is how much is kept of what a way wrote.
const maxText = 32 << 10

// cut gives the part of the console that each way wrote: from its mark to the next.
func cut(text string, ws []way) []string {
	text = strings.ReplaceAll(text, "\r", "")
	out := make([]string, len(ws))
	for i, w := range ws {
		for _, at := range begin.FindAllStringSubmatchIndex(text, -1) {
			if text[at[2]:at[3]] != w.name+" "+w.context {
				continue
			}
			out[i] = text[at[1]:]
			if e := end.FindStringIndex(out[i]); e != nil {
				out[i] = out[i][:e[0]]
			}
			if len(out[i]) > maxText { // what repeats itself
				out[i] = out[i][:maxText]
				out[i] = out[i][:strings.LastIndexByte(out[i], '\n')+1]
			}
		}
	}
	return out
}

// provokeAll runs in the guest: "-write WAY CONTEXT" and "-eat" are its children.
func provokeAll(ws []string) error {
	switch {
	case ws[0] == "-write" && len(ws) == 2:
		return os.WriteFile("/proc/fathom_deaths", []byte(ws[1]), 0)
	case ws[0] == "-eat":
		return eat()
	}
	for path, value := range map[string]string{
		"/proc/sys/kernel/watchdog_thresh": "3", "/proc/sys/kernel/hung_task_timeout_secs": "3", "/proc/sys/kernel/hung_task_warnings": "-1",
		"/proc/sys/kernel/hung_task_check_interval_secs": "1",
		"/proc/sys/kernel/printk_ratelimit":              "0", "/proc/sys/kernel/panic_on_oops": "0",
	} {
		if err := os.WriteFile(path, []byte(value), 0); err != nil {
			return err
		}
	}
	log, err := os.Open("/dev/kmsg")
	if err != nil {
		return err
	}
	defer log.Close()
	lines := make(chan string, 1<<16)
	go func() {
		b := make([]byte, 8192)
		for {
			n, err := log.Read(b)
			if err != nil && !errors.Is(err, unix.EPIPE) {
				close(lines)
				return
			}
			lines <- string(b[:n])
		}
	}()
	for _, w := range ws {
		f := strings.SplitN(w, "=", 3)
		if err := provoke(f[0], f[1], f[2], lines); err != nil {
			return fmt.Errorf("%s in %s: %w", f[0], f[1], err)
		}
	}
	return nil
}

func say(s string) error { return os.WriteFile("/dev/kmsg", []byte(mark+s+"\n"), 0) }

// provoke has one way happen, and waits until the kernel has said so and is quiet again.
func provoke(name, context, shows string, lines chan string) error {
	stall := "60" // a report of a stall puts off that of a soft lockup
	if strings.Contains(shows, "stall") {
		stall = "3"
	}
	if err := os.WriteFile("/sys/module/rcupdate/parameters/rcu_cpu_stall_timeout", []byte(stall), 0); err != nil {
		return err
	}
	if err := say("begin " + name + " " + context); err != nil {
		return err
	}
	cmd := exec.Command("/init", inGuest, "-write", name+" "+context)
	switch name {
	case "sysrq":
		return os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0)
	case "init":
		return unix.Kill(1, unix.SIGSEGV)
	case "memory":
		cmd = exec.Command("/init", inGuest, "-eat")
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	if shows == "" {
		shows = "end trace"
	}
	begun, seen := false, false // an earlier way may still be complained of
	for waited := time.Duration(0); ; {
		select {
		case l := <-lines:
			begun = begun || strings.Contains(l, mark+"begin "+name+" "+context)
			seen = seen || begun && strings.Contains(l, shows)
			waited = 0
			continue
		case <-time.After(100 * time.Millisecond):
			waited += 100 * time.Millisecond
		}
		if seen && waited >= 400*time.Millisecond {
			break
		}
		if waited > 2*time.Minute {
			return fmt.Errorf("the kernel does not say %q", shows)
		}
	}
	if err := say("end"); err != nil {
		return err
	}
	os.WriteFile("/proc/fathom_deaths", []byte("stop"), 0)
	cmd.Process.Kill()
	time.Sleep(500 * time.Millisecond)
	return nil
}

// eat takes memory until a group of processes has no more.
func eat() error {
	const dir = "/sys/fs/cgroup/small"
	if err := errors.Join(os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+memory"), 0), os.MkdirAll(dir, 0o755),
		os.WriteFile(dir+"/memory.max", []byte("16M"), 0), os.WriteFile(dir+"/cgroup.procs", []byte("0"), 0)); err != nil {
		return err
	}
	var eaten [][]byte
	for {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		eaten = append(eaten, b)
	}
}
