package dump_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/fathom-trace/fathom/answers/core"
	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/kernel/dump"
)

// checkPrint compares values of expressions with what the guest said, or with each other.
func checkPrint(t *testing.T, c corpse, d *dump.Dump, run func(string) string) {
	quoted := func(s string) string { b, _ := json.Marshal(s); return string(b) }
	_, cmdline, _ := strings.Cut(strings.TrimSpace(run("p saved_command_line")), " ")
	if want := quoted(strings.TrimSpace(c.said["/proc/cmdline"])); cmdline != want {
		t.Errorf("saved_command_line is %s, not %s", cmdline, want)
	}
	uptime := run("p jiffies - 4294892296") // INITIAL_JIFFIES: 5 minutes before they wrap around, at 250 Hz
	for command, want := range map[string]string{
		"p linux_banner": quoted(c.said["/proc/version"]), "p init_task.comm": `"swapper/0"`, "p (&init_task)->pid": "0",
		"p -x init_task.pid | 16": "0x10", "p sizeof(struct list_head)": "16", "p runqueues.cpu:1": "1", "p ((struct rq *)&runqueues:1)->cpu": "",
		"px 255": "0xff", "p init_uts_ns.name.sysname": `"Linux"`, "p *(struct list_head **)&modules == modules.next": "1",
		"whatis init_task": "struct task_struct init_task;", "whatis runqueues": "struct rq runqueues;", "struct rq.cpu runqueues:1": "cpu = 1",
		"list_head modules": strings.TrimSpace(run("struct list_head modules")), "*list_head modules": strings.TrimSpace(run("struct list_head modules")),
		"p jiffies == jiffies_64": "1", "p nr_cpu_ids": "2", "p chrdevs[1]->name": `"mem"`,
	} {
		if want == "" {
			continue
		}
		if got := strings.TrimSpace(run(command)); got != want {
			t.Errorf("%s: %s, want %s", command, got, want)
		}
	}
	if len(strings.TrimSpace(uptime)) > 6 {
		t.Errorf("jiffies: %s", uptime)
	}
	if got := run("p runqueues.cpu:a"); got != "[0]: 0\n[1]: 1\n" {
		t.Errorf("p runqueues.cpu:a: %s", got)
	}
	if got := run("p runqueues"); !strings.Contains(got, "struct rq runqueues;") || strings.Count(got, "]: ff") != 2 {
		t.Errorf("p runqueues: %s", got)
	}
	s := core.New(d, "")
	for bad, want := range map[string]string{
		"p runqueues.cpu": "runqueues:0 is that of CPU 0", "p init_task.nosuch": "no member nosuch", "p delayed_fput_list": "the type of delayed_fput_list is not known",
		"p init_task.mm->pgd": "no page is mapped there", "gdb p 1": "gdb of crash is not here", "mod -s veth": "mod -s of crash is not here", "p nosuch": "no symbol or constant nosuch",
	} {
		var out bytes.Buffer
		if err := s.Run(&out, strings.Fields(bad)); err == nil || !strings.Contains(err.Error(), want) || out.Len() > 0 {
			t.Errorf("%s: %v %s", bad, err, out.String())
		}
	}
}

// TestGlobals compares the types of variables, which BTF has few of, with the debug information of a kernel.
func TestGlobals(t *testing.T) {
	v := vmlinux(t, kernels[0])
	c := killGuest(t, kernels[0])
	d := open(t, c.path("elf"))
	table, err := os.ReadFile("../../answers/core/globals.txt")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", "testdata/globals.py", v)
	var errs bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(table), &errs
	out, err := cmd.Output()
	if err != nil {
		ktest.Missing(t, errs.String())
	}
	s, n := core.New(d, ""), 0
	for line := range strings.Lines(string(out)) {
		name, want, _ := strings.Cut(strings.TrimSpace(line), " ")
		var got bytes.Buffer
		if err := s.Run(&got, []string{"p", "sizeof(" + name + ")"}); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		is, err1 := strconv.Atoi(strings.TrimSpace(got.String()))
		size, err2 := strconv.Atoi(want)
		room := 0
		if regexp.MustCompile(`(?m)^` + name + ` .*\[\]`).Match(table) {
			room = 63 // the next symbol may be aligned
		}
		if n++; err1 != nil || err2 != nil || is < size || is > size+room {
			t.Errorf("sizeof(%s) is %d, not %d", name, is, size)
		}
	}
	if n < 200 {
		t.Errorf("%d variables", n)
	}
}
