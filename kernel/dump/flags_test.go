package dump_test

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/fathom-trace/fathom/answers/core"
	"github.com/fathom-trace/fathom/kernel/dump"
	"github.com/fathom-trace/fathom/kernel/walk"
)

// checkFlags tries the flags that crash's users know against what the guest said, or against each other.
func checkFlags(t *testing.T, c corpse, d *dump.Dump, run func(string) string) {
	lines := func(s string) []string { return strings.Split(strings.TrimRight(s, "\n"), "\n") }
	if got, want := run("rd -a linux_banner"), strings.TrimSpace(c.said["/proc/version"]); !strings.Contains(got, want) {
		t.Errorf("rd -a linux_banner: %s, not %s", got, want)
	}
	at := strings.Fields(run("sym linux_banner"))[0]
	text := strings.Fields(run("rd -8 -x 0x" + at + " 5"))[1:]
	if got := strings.Join(text, " "); got != "4c 69 6e 75 78" { // Linux
		t.Errorf("rd -8: %s", got)
	}
	if phys, err := d.Translate(d.Kallsyms().ByName("linux_banner")[0]); err != nil || !strings.Contains(run(fmt.Sprintf("rd -p -8 %#x 5", phys)), "Linux") {
		t.Errorf("rd -p %#x: %v", phys, err)
	}
	want := 0
	for line := range strings.Lines(c.said["/proc/kallsyms"]) {
		if strings.HasSuffix(line, "\t[veth]\n") {
			want++
		}
	}
	if got := len(lines(run("sym -m veth"))); got != want {
		t.Errorf("sym -m veth has %d symbols, /proc/kallsyms %d", got, want)
	}
	for name, line := range c.said {
		pid, ok := strings.CutSuffix(strings.TrimPrefix(name, "/proc/"), "/cmdline")
		if args := strings.TrimSpace(strings.ReplaceAll(line, "\x00", " ")); ok && args != "" && !strings.Contains(run("ps -a "+pid), "ARG: "+args+"\n") {
			t.Errorf("ps -a %s is not %q", pid, args)
		}
	}
	if got := lines(run("ps -p dying")); !strings.HasPrefix(got[0], "PID: 0 ") || !strings.Contains(got[len(got)-1], "dying") || !strings.Contains(run("ps -c 2"), `COMMAND: "kworker/`) {
		t.Errorf("ps -p dying: %v", got)
	}
	plain, bare := lines(run("log")), lines(run("log -t"))
	for i, l := range plain {
		if !strings.HasSuffix(l, bare[i]) || len(plain) != len(bare) {
			t.Fatalf("log -t has %q for %q", bare[i], l)
		}
	}
	all, kernel, user := len(lines(run("ps"))), len(lines(run("ps -k"))), len(lines(run("ps -u")))
	if all != kernel+user-1 {
		t.Errorf("%d tasks, %d of the kernel, %d of users", all-1, kernel-1, user-1)
	}
	mods := lines(run("list module.list modules"))
	if named := run("list -s module.name -H modules module.list"); strings.Count(named, "name = ") != len(mods) || !strings.Contains(named, `"veth"`) {
		t.Errorf("list -s: %s", named)
	}
	first, back := mods[0], lines(run("list -r -H modules module.list"))
	if back[len(back)-1] != first {
		t.Errorf("list -r: %v, forward %v", back, mods)
	}
	if got := run("struct -l module.list module.name " + "0x" + first + "+" + strings.Trim(strings.Fields(run("struct module.list"))[3], "[]")); !strings.Contains(got, "name = ") {
		t.Errorf("struct -l: %s", got)
	}
	whole := lines(run("dis schedule"))
	third := strings.Fields(whole[2])[0]
	upTo, from := lines(run("dis -r "+third)), lines(run("dis -f "+third))
	if len(upTo) != 3 || upTo[2] != whole[2] || len(from) != len(whole)-2 || !strings.HasPrefix(from[0], third) {
		t.Errorf("dis -r: %q\ndis -f: %q", upTo, from[0])
	}
	if n := strings.Count(run("bt -a"), "PID: "); n != 2 || strings.Count(run("bt -c 0"), "PID: ") != 1 {
		t.Errorf("bt -a has %d stacks", n)
	}
	checkChosen(t, c, d)
	s := core.New(d, "")
	for _, bad := range []string{"log -d", "mod -t", "sys -c nosuch", "sys -z", "vtop -k linux_banner", "vtop -p -u 0", "bt -n idle", "bt -a -n busy", "set nosuch", "set -p 1", "mount -f", "ps -x", "bt -z 1", "rd -u 0", "rd -u -p 0", "kmem -I dentry", "kmem -F", "net -a 1", "sym -z", "list -e 1 x.y", "struct -q list_head"} {
		if err := s.Run(io.Discard, strings.Fields(bad)); err == nil {
			t.Errorf("%s is not refused", bad)
		}
	}
}

// checkChosen tries what asks for some of all: system calls, addresses of a program, stacks with a function, a task.
func checkChosen(t *testing.T, c corpse, d *dump.Dump) {
	s := core.New(d, "")
	run := func(command string) string {
		var out strings.Builder
		if err := s.Run(&out, strings.Fields(command)); err != nil {
			t.Errorf("%s: %v", command, err)
		}
		return out.String()
	}
	calls := run("sys -c")
	if n := strings.Count(calls, "\n"); n < 400 || n > 600 || strings.Contains(calls, "not in the kernel") || !strings.HasSuffix(run("sys -c 0"), "__x64_sys_read\n") || run("sys -c read") != run("sys -c 0") {
		t.Errorf("sys -c: %d calls: %.2000s", n, calls)
	}
	var page, phys uint64
	if _, err := fmt.Sscanf(c.said["pages of 1"], "%x %x\n", &page, &phys); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{fmt.Sprintf("vtop -c 1 %#x", page+5), fmt.Sprintf("vtop -u -c 1 %#x", page+5)} {
		if got, want := run(command), fmt.Sprintf("%#x is at %#x\n", page+5, phys+5); !strings.Contains(got, want) {
			t.Errorf("%s: %s, not %s", command, got, want)
		}
	}
	busy := 0
	for _, cpu := range d.CPUs() {
		task, err := walk.Executing(d, cpu)
		if err != nil {
			t.Fatal(err)
		}
		if task.PID != 0 {
			busy++
		}
	}
	if n := strings.Count(run("bt -a -n idle"), "PID: "); n != busy {
		t.Errorf("bt -a -n idle has %d stacks, %d CPUs are busy", n, busy)
	}
	with, all := strings.Count(run("foreach kernel bt -R kthread"), "PID: "), strings.Count(run("ps -k"), "\n")
	if with < 20 || with > all || run("bt -R nosuch 1") != "" {
		t.Errorf("%d of %d tasks of the kernel are in kthread", with, all)
	}
	for task := range walk.Tasks(d) {
		if task.PID != 1 {
			continue
		}
		at, err := d.Translate(task.Addr)
		if got, want := run(fmt.Sprintf("ptov %#x", at)), fmt.Sprintf("%x: %016x\n", at, task.Addr); err != nil || got != want {
			t.Errorf("ptov: %v %s, not %s", err, got, want)
		}
		if got := run(fmt.Sprintf("kmem -P %#x", at)); !strings.Contains(got, "task_struct") {
			t.Errorf("kmem -P: %s", got)
		}
		leader := strings.Trim(strings.Fields(run("struct task_struct.group_leader"))[3], "[]")
		if got := run(fmt.Sprintf("rd -S %#x+%s", task.Addr, leader)); !strings.Contains(got, "[task_struct]") {
			t.Errorf("rd -S of what leads to a task: %s", got)
		}
	}
	caches, less := run("kmem -s"), run("kmem -s -I dentry,vm_area_struct")
	if strings.Count(caches, "\n") != strings.Count(less, "\n")+2 || strings.Contains(less, " dentry\n") {
		t.Errorf("kmem -s -I:\n%s", less)
	}
	died := run("set")
	if one := run("set 1"); !strings.HasPrefix(one, "PID: 1 ") || !strings.HasPrefix(run("bt"), "PID: 1 ") || run("vtop -u "+fmt.Sprintf("%#x", page)) == "" || run("set") != one {
		t.Errorf("set 1: %s", one)
	}
	words := func(out string) string { _, rest, _ := strings.Cut(out, ": "); return rest }
	if user, at := run(fmt.Sprintf("rd -u %#x 2", page)), run(fmt.Sprintf("rd -p %#x 2", phys)); words(user) != words(at) || words(at) == "" {
		t.Errorf("rd -u: %s, where rd -p has %s", user, at)
	}
	if got := run("set -p"); got != died || !strings.HasPrefix(run("set -c 1"), "PID: ") {
		t.Errorf("set -p: %s, not %s", got, died)
	}
}
