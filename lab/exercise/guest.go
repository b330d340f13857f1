package exercise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/fathom-trace/fathom/lab/draw"
)

// decodeOops: a module of a guest dies of one of its bugs; the console is all there is.
func decodeOops(ctx context.Context, b *Bench) (p Problem, err error) {
	g, err := b.Guest(ctx)
	if err != nil {
		return p, err
	}
	if _, err := b.Run(ctx, "lab", "module", "load", "bugs", g); err != nil {
		return p, err
	}
	// Not of a stack that overflows: in an emulated guest that ends the machine before a word of it is on the console.
	bug := draw.Pick(b.Deck, "null", "bug")
	said, died := b.Run(ctx, "lab", "exec", g, "--", "sh", "-c", "echo "+bug+" > /proc/fathom_bugs") // it dies of it
	text, err := deathOn(ctx, b, g)
	if err != nil {
		return p, fmt.Errorf("%w; the command that should die said %q, and ended with %v", err, said, died)
	}
	file := filepath.Join(b.Dir, "console.txt")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return p, err
	}
	answer := "bugs_" + bug
	return Problem{
		Text:   fmt.Sprintf("%s is the console of a machine whose kernel had an oops.\nIn which function was it when it happened?", file),
		Hints:  []string{"fathom explain " + file},
		Answer: answer,
		Why:    "the instruction pointer is in " + answer + ".",
	}, nil
}

// deathOn is the console of a guest in which something dies, once all of it has been said: a serial line is slow.
func deathOn(ctx context.Context, b *Bench, guest string) (string, error) {
	for range 30 {
		text, err := b.Run(ctx, "lab", "console", guest, "--for", "1s")
		if err != nil || strings.Contains(text, "---[ end trace") { // kernel/panic.c: print_oops_end_marker
			return text, err
		}
	}
	return "", errors.New("the console shows no oops")
}

// lateGuest boots a guest with the module of late work.
func lateGuest(ctx context.Context, b *Bench) (string, error) {
	g, err := b.Guest(ctx)
	if err == nil {
		_, err = b.Run(ctx, "lab", "module", "load", "late", g)
	}
	return g, err
}

// lateNames are the names of that module's functions.
var lateNames = []string{"flush", "refill", "reclaim", "drain"}

// slowInterrupt: four handlers run all the time; one takes long.
func slowInterrupt(ctx context.Context, b *Bench) (p Problem, err error) {
	g, err := lateGuest(ctx, b)
	if err != nil {
		return p, err
	}
	slow, ms := draw.Pick(b.Deck, lateNames...), 15+b.IntN(15)
	var loop strings.Builder
	for _, n := range lateNames {
		took := 0
		if n == slow {
			took = ms
		}
		fmt.Fprintf(&loop, "echo irq %s %d > /proc/fathom_late; sleep 0.1; ", n, took)
	}
	if _, err := b.Run(ctx, "lab", "exec", g, "--", "sh", "-c", "(while :; do "+loop.String()+"done) >/dev/null 2>&1 </dev/null &"); err != nil {
		return p, err
	}
	return Problem{
		Text: fmt.Sprintf(`In guest %s, something keeps a CPU in a hard interrupt for %d ms, several times a second: nothing else runs there meanwhile.
Functions late_irq_* of module fathom_late are what runs in interrupts. Which of them takes so long?`, g, ms),
		Hints: []string{
			fmt.Sprintf("fathom lab exec %s -- fathom trace -l 'kprobe:late_irq_*'", g),
			fmt.Sprintf(`fathom lab exec %s -- fathom trace -e 'kprobe:late_irq_* { @s[cpu] = nsecs; } kretprobe:late_irq_* { @us[func] = min((nsecs - @s[cpu]) / 1000); }' --for 5s`, g),
		},
		Answer: "late_irq_" + slow,
		Why:    "time from entry to return, by function: the shortest of each, since a machine that is itself interrupted makes any of them long once.",
	}, nil
}

// stuckWork: four work items run; one does not end.
func stuckWork(ctx context.Context, b *Bench) (p Problem, err error) {
	g, err := lateGuest(ctx, b)
	if err != nil {
		return p, err
	}
	stuck := draw.Pick(b.Deck, lateNames...)
	var loop strings.Builder
	for _, n := range lateNames {
		if n != stuck {
			fmt.Fprintf(&loop, "echo sleep %s 20 > /proc/fathom_late; ", n)
		}
	}
	script := fmt.Sprintf("(echo sleep %s 60000 > /proc/fathom_late; while sleep 0.3; do %s done) >/dev/null 2>&1 </dev/null &", stuck, loop.String())
	if _, err := b.Run(ctx, "lab", "exec", g, "--", "sh", "-c", script); err != nil {
		return p, err
	}
	return Problem{
		Text: fmt.Sprintf("In guest %s, module fathom_late uses work items. One of them was begun and does not end, for a minute at least.\nWhich function is it in?", g),
		Hints: []string{
			"The stack of a worker that is stuck has the function: dump the guest, and look at its tasks.",
			fmt.Sprintf("fathom lab dump %s core && fathom core core foreach bt", g),
			fmt.Sprintf("fathom lab sysrq t %s", g),
		},
		Answer: "late_sleep_" + stuck,
		Why:    "a kworker sleeps in it (msleep), below process_one_work.",
	}, nil
}

// blocked are tasks as SysRq w shows them (kernel/sched/core.c: sched_show_task).
var blocked = regexp.MustCompile(`task:(\S+)\s+state:D.*? pid:(\d+)`)

// deadlock: two tasks take two mutexes in two orders; a dump is made of it.
func deadlock(ctx context.Context, b *Bench) (p Problem, err error) {
	g, err := b.Guest(ctx, "--mem", "512")
	if err != nil {
		return p, err
	}
	if _, err := b.Run(ctx, "lab", "module", "load", "bugs", g); err != nil {
		return p, err
	}
	sleepers := 3 + b.IntN(6) // others who sleep, and shift the numbers
	script := fmt.Sprintf("for i in $(seq %d); do sleep 1000 & done >/dev/null 2>&1; (echo deadlock > /proc/fathom_bugs) >/dev/null 2>&1 </dev/null &", sleepers)
	if _, err := b.Run(ctx, "lab", "exec", g, "--", "sh", "-c", script); err != nil {
		return p, err
	}
	var pids map[string]string
	for range 20 { // until both are blocked
		select {
		case <-ctx.Done():
			return p, context.Cause(ctx)
		case <-time.After(500 * time.Millisecond):
		}
		said, err := b.Run(ctx, "lab", "sysrq", "w", g)
		if err != nil {
			return p, err
		}
		pids = map[string]string{}
		for _, m := range blocked.FindAllStringSubmatch(said, -1) {
			pids[m[1]] = m[2]
		}
		if len(pids) == 2 && pids["fathom_stock"] != "" {
			break
		}
	}
	if len(pids) != 2 || pids["fathom_stock"] == "" {
		return p, errors.New("the tasks did not block each other")
	}
	file := filepath.Join(b.Dir, "core")
	if _, err := b.Run(ctx, "lab", "dump", g, file, "--format", "kdump-zlib"); err != nil {
		return p, err
	}
	pid, err := strconv.Atoi(pids["fathom_stock"])
	if err != nil {
		return p, err
	}
	return Problem{
		Text: fmt.Sprintf(`%s is the memory of a machine on which a shell has not come back from a write: it waits for a mutex.
What is the process number of the task that has this mutex?`, file),
		Hints:  []string{"fathom core " + file + " waitq"},
		Answer: strconv.Itoa(pid),
		Why:    "the owner waits for a mutex that the shell has: a deadlock.",
	}, nil
}
