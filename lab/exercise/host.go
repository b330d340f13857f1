package exercise

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// whoReads: several processes read a file each; one reads the one in question.
func whoReads(ctx context.Context, b *Bench) (p Problem, err error) {
	names, files := b.Words(4), b.Words(4)
	for i, n := range names {
		file := filepath.Join(b.Dir, files[i]+".conf")
		if err := os.WriteFile(file, []byte("setting = 1\n"), 0o644); err != nil {
			return p, err
		}
		if _, err := b.Actor(n, "", "", "read-file", file); err != nil {
			return p, err
		}
	}
	i := b.IntN(len(names))
	file := filepath.Join(b.Dir, files[i]+".conf")
	return Problem{
		Text: fmt.Sprintf("Somebody reads %s again and again. Which process is it (its name)?", file),
		Hints: []string{
			"Opening a file is a system call: fathom trace -l 'tracepoint:syscalls:sys_enter_open*'",
			fmt.Sprintf(`fathom trace -e 'tracepoint:syscalls:sys_enter_openat /str(args.filename) == "%s"/ { @[comm] = count(); }' --for 3s`, file),
		},
		Answer: names[i],
		Why:    "sys_enter_openat has the file name; comm is who calls.",
	}, nil
}

// histogram: a process reads in many sizes, most of them within one power of two.
func histogram(ctx context.Context, b *Bench) (p Problem, err error) {
	names := b.Words(3)
	low := 1 << (7 + b.IntN(6)) // the bucket of the one in question
	for i, n := range names {
		often := low
		if i > 0 {
			often = 1 << (7 + b.IntN(6))
		}
		if _, err := b.Actor(n, "", "", "read-sizes", strconv.Itoa(often)); err != nil {
			return p, err
		}
	}
	return Problem{
		Text: fmt.Sprintf("Process %s reads in many sizes. In which power of two are most of its reads: what is the smallest size in that\nbucket of a histogram, in bytes (as a number, or as hist prints it)?", names[0]),
		Hints: []string{
			"What read returns is in tracepoint:syscalls:sys_exit_read as args.ret.",
			fmt.Sprintf(`fathom trace -e 'tracepoint:syscalls:sys_exit_read /comm == "%s"/ { @ = hist(args.ret); }' --for 3s`, names[0]),
		},
		Answer: strconv.Itoa(low),
		Equal:  func(s string) bool { return strings.EqualFold(s, strconv.Itoa(low>>10)+"K") && low >= 1<<10 },
		Why:    "hist counts by powers of two; the longest bar begins with the answer.",
	}, nil
}

// leakingSocket: all open and close sockets; one does not close all.
func leakingSocket(ctx context.Context, b *Bench) (p Problem, err error) {
	names := b.Words(4)
	leak := b.IntN(len(names))
	for i, n := range names {
		keep := 0
		if i == leak {
			keep = 3 + b.IntN(5)
		}
		if _, err := b.Actor(n, "", "", "sockets", strconv.Itoa(keep)); err != nil {
			return p, err
		}
	}
	return Problem{
		Text: fmt.Sprintf("Of the processes %s, one does not close all the sockets that it opens. Which?", strings.Join(names, ", ")),
		Hints: []string{
			"Count who opens sockets and who closes descriptors, and compare.",
			`fathom trace -e 'tracepoint:syscalls:sys_enter_socket { @open[comm] = count(); } tracepoint:syscalls:sys_enter_close { @close[comm] = count(); }' --for 3s`,
		},
		Answer: names[leak],
		Why:    "its count of socket is larger than its count of close.",
	}, nil
}

// whoKills: a process is sent a signal now and then.
func whoKills(ctx context.Context, b *Bench) (p Problem, err error) {
	names := b.Words(5)
	var pids [2]int
	for i := range pids {
		if pids[i], err = b.Actor(names[i], "", "", "deaf"); err != nil {
			return p, err
		}
	}
	for i, n := range names[2:] { // the first is the one, the others disturb the other
		target := pids[min(i, 1)]
		if _, err := b.Actor(n, "", "", "kill", strconv.Itoa(target)); err != nil {
			return p, err
		}
	}
	return Problem{
		Text: fmt.Sprintf("Process %d (%s) gets SIGUSR1 several times a second. From which process (its name)?", pids[0], names[0]),
		Hints: []string{
			"The kernel has an event for signals that are sent: fathom trace -l 'tracepoint:signal:*'",
			fmt.Sprintf(`fathom trace -e 'tracepoint:signal:signal_generate /args.pid == %d/ { @[comm, args.sig] = count(); }' --for 3s`, pids[0]),
		},
		Answer: names[2],
		Why:    "signal_generate fires in who sends; args.pid is who gets it.",
	}, nil
}

// vanishedPin: several processes pin a map; one of them in a mount namespace of its own.
func vanishedPin(ctx context.Context, b *Bench) (p Problem, err error) {
	names := b.Words(3)
	pin := b.Word()
	var pid int
	for i, n := range names {
		name := pin
		if i > 0 {
			name = b.Word()
		}
		id, err := b.Actor(n, "", "", "pin", name)
		if err != nil {
			return p, err
		}
		if i == 0 {
			pid = id
		}
	}
	return Problem{
		Text: fmt.Sprintf(`A process says that it pins its map at /sys/fs/bpf/%s, and it does: the system call succeeds, several times a second.
"ls /sys/fs/bpf" does not show it. In which mount namespace is it: give the number in "mnt:[number]" of the process.`, pin),
		Hints: []string{
			"Who pins? BPF_OBJ_PIN is command 6 of bpf(2): tracepoint:syscalls:sys_enter_bpf",
			`fathom trace -e 'tracepoint:syscalls:sys_enter_bpf /args.cmd == 6/ { $path = *(uint64 *)uptr(args.uattr); @[comm, pid, str(uptr($path))] = count(); }' --for 3s`,
			"readlink /proc/PID/ns/mnt",
		},
		Equal: func(s string) bool {
			to, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid))
			return err == nil && s != "" && strings.Trim(strings.TrimPrefix(s, "mnt:"), "[]") == strings.Trim(strings.TrimPrefix(to, "mnt:"), "[]")
		},
		Why: "it has a private /sys/fs/bpf, as each \"ip netns exec\" makes one. fathom lab exec keeps the machine's mounts.",
	}, nil
}
