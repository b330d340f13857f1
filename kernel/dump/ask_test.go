package dump_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/answers/core"
	"github.com/fathom-trace/fathom/debuginfo/orc"
	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/internal/script"
	"github.com/fathom-trace/fathom/kernel/dump"
	"github.com/fathom-trace/fathom/kernel/walk"
	"github.com/fathom-trace/fathom/lang/syntax"
)

// TestAsk runs programs over dumps and compares what they print with what the guests said before they died, and with what the
// commands of core say. That formats do not differ is for TestDead and TestEncodings: one is enough here but in long runs.
func TestAsk(t *testing.T) {
	for _, k := range kernels {
		t.Run(k, func(t *testing.T) {
			c := killGuest(t, k)
			for f := range formats(k) {
				if only := map[string]string{kernels[0]: "kdump-zlib", kernels[1]: "elf"}[k]; f != only && os.Getenv(envDebuginfo) == "" {
					continue
				}
				t.Run(f, func(t *testing.T) {
					d := open(t, c.path(f))
					askNames(t, c, d)
					askFiles(t, c, d)
					askAreas(t, c, d)
					askUserMemory(t, c, d)
					askSockets(t, c, d)
					askBPF(t, d)
					askStacks(t, d)
					askOnce(t, d)
					askValues(t, d)
				})
			}
		})
	}
}

// ask runs a program over a dump, twice: equal input gives equal bytes.
func ask(t *testing.T, d *dump.Dump, prog string) string {
	t.Helper()
	var outs [2]string
	for i := range outs {
		var out, errs bytes.Buffer
		o := script.Options{On: d, Source: &syntax.Source{Name: "stdin", Text: prog}, Stdout: &out, Stderr: &errs}
		o.Diags = func(ds []syntax.Diag) { diag.Render(&errs, ds, diag.Style{}) }
		if _, err := script.Run(t.Context(), o); err != nil || errs.Len() > 0 {
			t.Errorf("%s\n%v\n%s", prog, err, errs.String())
		}
		outs[i] = out.String()
	}
	if d := cmp.Diff(outs[0], outs[1]); d != "" {
		t.Errorf("%s\ntwo runs differ:\n%s", prog, d)
	}
	return outs[0]
}

// commSize is what the kernel keeps of a name; /proc shows more of those of workers.
const commSize = 15

// changing are names of threads that come and go: of Go programs, and workers of the kernel.
func changing(comm string) bool {
	return comm == "init" || comm == "dying" || strings.HasPrefix(comm, "kworker/") && !strings.HasPrefix(comm, "kworker/R")
}

func askNames(t *testing.T, c corpse, d *dump.Dump) {
	want, got := map[string]int{}, map[string]int{}
	for name, comm := range c.said {
		if comm = strings.TrimSpace(comm); strings.HasSuffix(name, "/comm") && strings.Contains(name, "/task/") && !changing(comm) {
			want[comm[:min(len(comm), commSize)]]++
		}
	}
	for line := range strings.Lines(ask(t, d, `iter:task { @[comm] = count(); }`)) {
		comm, n, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "@["), "]: ")
		if ok && !changing(comm) {
			got[comm], _ = strconv.Atoi(n)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" || len(want) < 20 {
		t.Error(diff)
	}
	// Kernel threads have no files, and the parent that /proc/PID/stat tells.
	for line := range strings.Lines(ask(t, d, `iter:task /pid == tid/ { printf("%d %d\n", pid, ppid); }`)) {
		pid, ppid, ok := strings.Cut(strings.TrimSpace(line), " ")
		stat := c.said["/proc/"+pid+"/stat"]
		if f := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:]); ok && len(f) > 1 && f[1] != ppid {
			t.Errorf("pid %s has parent %s, not %s", pid, ppid, f[1])
		}
	}
}

func askFiles(t *testing.T, c corpse, d *dump.Dump) {
	n := 0
	for line := range strings.Lines(ask(t, d, `iter:task_file { printf("%d/fd/%d %s\n", pid, ctx.fd, path(ctx.file.f_path)); }`)) {
		fd, path, ok := strings.Cut(strings.TrimSpace(line), " ")
		want, known := c.said["/proc/"+fd]
		if !ok || !known || path == "/proc/sysrq-trigger" {
			continue
		}
		if n++; want != path {
			t.Errorf("%s is %q, not %q", fd, path, want)
		}
	}
	if n < 10 {
		t.Errorf("%d files", n)
	}
}

// askAreas wants each mapping of PID 1 that a file is behind: others grow until the end.
func askAreas(t *testing.T, c corpse, d *dump.Dump) {
	out := ask(t, d, `iter:task_vma /pid == 1/ { printf("%lx-%lx %d\n", ctx.vma.vm_start, ctx.vma.vm_end, ctx.vma.vm_pgoff * 4096); }`)
	n := 0
	for line := range strings.Lines(c.said["/proc/1/maps"]) {
		f := strings.Fields(line)
		if len(f) < 6 || !strings.HasPrefix(f[5], "/") {
			continue
		}
		n++
		off, _ := strconv.ParseUint(f[2], 16, 64)
		start, end, _ := strings.Cut(f[0], "-")
		if want := fmt.Sprintf("%s-%s %d\n", strings.TrimLeft(start, "0"), strings.TrimLeft(end, "0"), off); !strings.Contains(out, want) {
			t.Errorf("no mapping %s in\n%s", want, out)
		}
	}
	if n < 3 || strings.Count(out, "\n") < n+5 {
		t.Errorf("%d mappings of files, of these:\n%s", n, out)
	}
}

func askUserMemory(t *testing.T, c corpse, d *dump.Dump) {
	n := 0
	for line := range strings.Lines(ask(t, d, `iter:task /pid == tid && ctx.task.mm/ { printf("%d %s\n", pid, str(uptr(ctx.task.mm.arg_start))); }`)) {
		pid, arg, ok := strings.Cut(strings.TrimSpace(line), " ")
		if want, _, _ := strings.Cut(c.said["/proc/"+pid+"/cmdline"], "\x00"); ok && want != "" {
			if n++; arg != want {
				t.Errorf("pid %s is %q, not %q", pid, arg, want)
			}
		}
	}
	if n < 2 {
		t.Errorf("%d command lines", n)
	}
}

// askSockets compares the sockets of the init namespace, in which all are, with the tables of /proc/net.
func askSockets(t *testing.T, c corpse, d *dump.Dump) {
	column := func(name string, format func(f []string) string) map[string]int {
		rows := map[string]int{}
		for i, line := range strings.Split(strings.TrimSpace(c.said["/proc/net/"+name]), "\n") {
			if i > 0 {
				rows[format(strings.Fields(line))]++
			}
		}
		return rows
	}
	// In /proc an address is the four bytes of the kernel's memory as a number.
	inet := func(f []string) string { return f[1] + " " + f[3] }
	for _, tt := range []struct {
		name, prog string
		format     func([]string) string
	}{
		{"tcp", `iter:tcp { $s = ctx.sk_common; printf("%08X:%04X %02X\n", $s.skc_rcv_saddr, $s.skc_num, $s.skc_state); }`, inet},
		{"udp", `iter:udp { $s = ctx.udp_sk.inet.sk.__sk_common; printf("%d: %08X:%04X %02X\n", ctx.bucket, $s.skc_rcv_saddr, $s.skc_num, $s.skc_state); }`,
			func(f []string) string { return f[0] + " " + inet(f) }},
		{"unix", `iter:unix { $u = ctx.unix_sk; printf("%d %s\n", $u.sk.sk_type, $u.addr ? str($u.addr.name[0].sun_path) : ""); }`,
			func(f []string) string { return strings.TrimLeft(f[4], "0") + " " + strings.Join(f[7:], " ") }},
		// The kernel's own are those that messages without an address go to.
		{"netlink", `iter:netlink { printf("%d %d %d\n", ctx.sk.sk.sk_protocol, ctx.sk.portid, ctx.sk.sk.sk_kern_sock); }`,
			func(f []string) string {
				return f[1] + " " + f[2] + " " + map[bool]string{true: "1", false: "0"}[f[2] == "0"]
			}},
	} {
		want, got := column(tt.name, tt.format), map[string]int{}
		for line := range strings.Lines(strings.TrimRight(ask(t, d, tt.prog), "\n")) {
			got[strings.TrimSuffix(line, "\n")]++
		}
		if diff := cmp.Diff(want, got); diff != "" || len(want) == 0 {
			t.Errorf("%s\n%s", tt.prog, diff)
		}
	}
}

// askBPF wants the map and the program that the guest made.
func askBPF(t *testing.T, d *dump.Dump) {
	out := ask(t, d, `iter:bpf_map { printf("map %s %d\n", ctx.map.name, ctx.map.max_entries); } iter:bpf_prog { printf("prog %s %d\n", ctx.prog.aux.name, ctx.prog.type); }`)
	if want := "map corpse 77\nprog corpse 1\n\n\n"; out != want {
		t.Errorf("%q, not %q", out, want)
	}
}

// askStacks compares kstack with bt, task by task.
func askStacks(t *testing.T, d *dump.Dump) {
	s := core.New(d, "test")
	n := 0
	for _, part := range strings.Split(ask(t, d, `iter:task { printf("@@%llx%s", curtask, kstack); }`), "@@")[1:] {
		lines := strings.Fields(part)
		var bt bytes.Buffer
		if err := s.Run(&bt, []string{"bt", "0x" + lines[0]}); err != nil {
			t.Error(err)
			continue
		}
		var want []string
		for line := range strings.Lines(bt.String()) {
			f := strings.Fields(line)
			if len(f) < 3 || !strings.HasPrefix(f[0], "#") {
				continue
			}
			name, off, _ := strings.Cut(f[2], "+0x")
			o, _ := strconv.ParseUint(off, 16, 64)
			want = append(want, fmt.Sprintf("%s+%d", name, o))
		}
		if diff := cmp.Diff(want, lines[1:]); diff != "" {
			t.Errorf("task %s:\n%s\n%s", lines[0], diff, bt.String())
		}
		n += len(want)
	}
	if n < 200 {
		t.Errorf("%d frames", n)
	}
	tasks := 0
	for _, part := range strings.Split(ask(t, d, `iter:task { @[kstack] = count(); }`), "]: ")[1:] {
		k, _ := strconv.Atoi(strings.Fields(part)[0])
		tasks += k
	}
	if want := strings.Count(ask(t, d, `iter:task { printf("x\n"); }`), "x"); tasks != want {
		t.Errorf("stacks of %d tasks, of %d", tasks, want)
	}
	_ = ask(t, d, everyIterator)
}

// lookedUp is a dump that counts how often its unwind tables are asked for.
type lookedUp struct {
	*dump.Dump
	n int
}

func (l *lookedUp) Unwind(addr uint64) *orc.Table {
	l.n++
	return l.Dump.Unwind(addr)
}

// askOnce wants a task's stack unwound once, not for each of its files or mappings.
func askOnce(t *testing.T, d *dump.Dump) {
	for _, kind := range []string{"task_file", "task_vma"} {
		l := &lookedUp{Dump: d}
		var out strings.Builder
		o := script.Options{On: l, Source: &syntax.Source{Name: "stdin", Text: "iter:" + kind + ` { @["owner", tid] = count(); @stacks[kstack] = count(); }`}, Stdout: &out, Stderr: io.Discard}
		if _, err := script.Run(t.Context(), o); err != nil {
			t.Error(kind, err)
		}
		once := &lookedUp{Dump: d}
		owners := 0
		for task, err := range walk.Tasks(once) {
			if err == nil && task.PID != 0 && strings.Contains(out.String(), fmt.Sprintf("[owner, %d]: ", task.PID)) {
				walk.Stack(once, task)
				owners++
			}
		}
		if l.n == 0 || l.n > once.n || owners < 2 {
			t.Errorf("unwinding was done in %d steps for iter:%s, in %d for each of %d tasks once", l.n, kind, once.n, owners)
		}
	}
}

// askValues compares values of expressions with what struct and sym say.
func askValues(t *testing.T, d *dump.Dump) {
	s := core.New(d, "test")
	run := func(command string) string {
		var out bytes.Buffer
		if err := s.Run(&out, strings.Fields(command)); err != nil {
			t.Error(err)
		}
		return strings.TrimSpace(out.String())
	}
	last := func(s string) string { f := strings.Fields(s); return f[len(f)-1] }
	first := func(s string) string { return "0x" + strings.Fields(s)[0] }
	for expr, want := range map[string]string{
		`((struct task_struct *)kaddr("init_task"))->comm`:             strings.Trim(last(run("struct task_struct.comm init_task")), `"`),
		`((struct task_struct *)kaddr("init_task"))->tasks.next`:       strings.Trim(strings.Fields(run("struct task_struct.tasks init_task"))[5], ","),
		`((struct task_struct *)kaddr("init_task"))->static_prio`:      last(run("struct task_struct.static_prio init_task")),
		`(struct net *)kaddr("init_net")`:                              first(run("sym init_net")),
		`ksym(kaddr("vfs_read") + 3)`:                                  "vfs_read",
		`((struct list_head *)kaddr("modules"))->prev`:                 strings.Trim(strings.Fields(run("struct list_head.prev modules"))[2], ","),
		`((struct uts_namespace *)kaddr("init_uts_ns"))->name.release`: d.Info.Release,
	} {
		var out, errs bytes.Buffer
		err := script.Eval(d, expr, &out, &errs, func(ds []syntax.Diag) { diag.Render(&errs, ds, diag.Style{}) })
		if got := strings.TrimSpace(out.String()); err != nil && !errors.Is(err, script.ErrDiagnosed) || got != want {
			t.Errorf("%s is %s, not %s\n%v\n%s", expr, got, want, err, errs.String())
		}
	}
}
