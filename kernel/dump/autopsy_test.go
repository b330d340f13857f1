package dump_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/answers/core"
	"github.com/fathom-trace/fathom/debuginfo/kallsyms"
	"github.com/fathom-trace/fathom/kernel/dump"
	"github.com/fathom-trace/fathom/kernel/unwind"
	"github.com/fathom-trace/fathom/kernel/walk"
)

// autopsy compares all that a dump tells with what the guest said before it died.
func autopsy(t *testing.T, c corpse, format string) {
	d := open(t, c.path(format))
	if m := d.Caps().Missing; len(m) > 0 {
		t.Errorf("missing: %v", m)
	}
	checkSymbols(t, c, d)
	checkModules(t, c, d)
	checkTasks(t, c, d)
	checkStacks(t, d, "sysrq_handle_crash")
	checkStacksSaid(t, c, d)
	checkLog(t, c, d, "fathom: last words", "Kernel panic - not syncing: sysrq triggered crash")
	checkFiles(t, c, d)
	checkSystem(t, c, d)
	checkPage(t, d)
}

// checkSymbols wants every symbol of /proc/kallsyms at its address; BPF programs and trampolines are not in the tables.
func checkSymbols(t *testing.T, c corpse, d *dump.Dump) {
	want, err := kallsyms.Parse([]byte(c.said["/proc/kallsyms"]))
	if err != nil {
		t.Fatal(err)
	}
	n, wrong := 0, 0
	for s := range want.All() {
		if s.Module == "bpf" || strings.HasPrefix(s.Module, "__builtin__") {
			continue
		}
		n++
		if !slices.Contains(d.Kallsyms().ByName(s.Name), s.Addr) {
			if wrong++; wrong < 5 {
				t.Errorf("%s [%s] is not at %#x but at %#x", s.Name, s.Module, s.Addr, d.Kallsyms().ByName(s.Name))
			}
		}
	}
	if n < 50000 || wrong > 0 {
		t.Errorf("%d symbols, %d wrong", n, wrong)
	}
}

func checkModules(t *testing.T, c corpse, d *dump.Dump) {
	want, got := map[string]string{}, map[string]string{}
	for line := range strings.Lines(c.said["/proc/modules"]) {
		if f := strings.Fields(line); len(f) > 5 {
			want[f[0]] = f[1] + " " + f[4]
		}
	}
	for _, m := range d.Modules() {
		got[m.Name] = fmt.Sprint(m.Size, " ", m.State)
		if m.Unwind == nil {
			t.Errorf("module %s has no unwind table", m.Name)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// checkTasks compares the processes; threads of Go programs come and go, and so do workers of the kernel.
func checkTasks(t *testing.T, c corpse, d *dump.Dump) {
	got := map[string]walk.Task{}
	for task, err := range walk.Tasks(d) {
		if err != nil {
			t.Error(err)
			continue
		}
		if task.PID == task.TGID {
			got[strconv.Itoa(task.PID)] = task
		}
	}
	for name, comm := range c.said {
		pid, isComm := strings.CutSuffix(strings.TrimPrefix(name, "/proc/"), "/comm")
		if !isComm || strings.Contains(pid, "/") {
			continue
		}
		task, ok := got[pid]
		comm = strings.TrimSpace(comm)
		if !ok && !strings.HasPrefix(comm, "kworker/") {
			t.Errorf("pid %s %s is not in the dump", pid, comm)
		}
		if ok && !strings.HasPrefix(comm, task.Comm) { // /proc shows what a worker works on, behind its name
			t.Errorf("pid %s is %q, not %q", pid, task.Comm, comm)
		}
		stat := c.said["/proc/"+pid+"/stat"]
		if f := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:]); ok && f[1] != strconv.Itoa(task.PPID) {
			t.Errorf("pid %s has parent %d, not %s", pid, task.PPID, f[1])
		}
	}
}

// checkStacks wants every stack whole: to its outermost frame or to user mode, each frame certain; and one of them to have a
// function, if one is named.
func checkStacks(t *testing.T, d *dump.Dump, function string) {
	t.Helper()
	onCPU := map[uint64]int{}
	for _, cpu := range d.CPUs() {
		task, err := walk.Executing(d, cpu)
		if err != nil {
			t.Fatal(err)
		}
		onCPU[task.Addr] = cpu
	}
	found := function == ""
	for task, err := range walk.Tasks(d) {
		if err != nil {
			continue
		}
		s := unwind.Stack{}
		if cpu, ok := onCPU[task.Addr]; ok {
			s = unwind.From(d, d.Registers()[cpu])
		} else {
			s = unwind.Task(d, task.Value)
		}
		if y, ok := d.Kallsyms().At(first(s.Frames)); ok && y.Name == "__switch_to_asm" {
			continue // the CPU was between two tasks: whose stack that is depends on the instruction
		}
		if s.End == unwind.Broken {
			t.Errorf("stack of pid %d %s: %v", task.PID, task.Comm, s.Err)
		}
		for _, f := range s.Frames {
			y, ok := d.Kallsyms().At(f.PC - 1)
			if !ok || f.Scanned {
				t.Errorf("pid %d %s: frame %#x is %q, scanned %v", task.PID, task.Comm, f.PC, y.Name, f.Scanned)
			}
			found = found || y.Name == function
		}
	}
	if !found {
		t.Errorf("no stack has %s", function)
	}
}

// first is where the innermost frame is, 0 if there is none.
func first(frames []unwind.Frame) uint64 {
	if len(frames) == 0 {
		return 0
	}
	return frames[0].PC
}

// checkLog wants the lines that dmesg showed, in order, and the texts that came after.
func checkLog(t *testing.T, c corpse, d *dump.Dump, texts ...string) {
	var got []string
	for m, err := range walk.Log(d) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, m.Text)
	}
	i := 0
	for line := range strings.Lines(c.said["dmesg"]) {
		_, text, _ := strings.Cut(strings.TrimRight(line, "\n"), "] ")
		for i < len(got) && got[i] != text && !strings.Contains(got[i], "\n") {
			i++
		}
		if i == len(got) {
			t.Fatalf("the dump's log lacks %q", text)
		}
	}
	all := strings.Join(got, "\n")
	for _, want := range texts {
		if !strings.Contains(all, want) {
			t.Errorf("the log lacks %q", want)
		}
	}
}

// checkFiles compares descriptors of the process that died, and the mounts.
func checkFiles(t *testing.T, c corpse, d *dump.Dump) {
	for task, err := range walk.Tasks(d) {
		if err != nil || task.Comm != "dying" {
			continue
		}
		files, err := walk.Files(task)
		if err != nil {
			t.Error(err)
		}
		for _, f := range files {
			// What was opened to tell, or to die, has no entry.
			want, ok := c.said[fmt.Sprintf("/proc/%d/fd/%d", task.PID, f.FD)]
			if ok && want != f.Path && f.Path != "/proc/sysrq-trigger" {
				t.Errorf("fd %d is %q, not %q", f.FD, f.Path, want)
			}
		}
		if len(files) < 4 || files[3].Path != "/etc/hostname" {
			t.Errorf("files: %v", files)
		}
	}
	var want, got []string
	for line := range strings.Lines(c.said["/proc/mounts"]) {
		f := strings.Fields(line)
		want = append(want, f[1]+" "+f[2])
	}
	mounts, err := walk.Mounts(d)
	if err != nil {
		t.Error(err)
	}
	for _, m := range mounts {
		got = append(got, m.Dir+" "+m.Type)
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func checkSystem(t *testing.T, c corpse, d *dump.Dump) {
	sys, err := walk.ReadSystem(d)
	if err != nil {
		t.Error(err)
	}
	if !strings.HasPrefix(c.said["/proc/version"], "Linux version "+sys.Release+" ") || strings.TrimSpace(c.said["/proc/cmdline"]) != sys.Command || sys.CPUs != 2 {
		t.Errorf("%+v", sys)
	}
	mem, err := walk.ReadMemory(d)
	if err != nil {
		t.Error(err)
	}
	checkMemory(t, c, mem)
	checkSlabs(t, c, d)
	devs, err := walk.NetDevices(d)
	if err != nil {
		t.Error(err)
	}
	for _, n := range devs {
		if !strings.Contains(c.said["/proc/net/dev"], n.Name+":") {
			t.Errorf("device %s is not in /proc/net/dev", n.Name)
		}
	}
	if got, want := len(devs), strings.Count(c.said["/proc/net/dev"], ":"); got != want {
		t.Errorf("%d devices, not %d", got, want)
	}
	checkIRQs(t, c, d)
}

// checkIRQs wants each interrupt that /proc/interrupts shows with its handlers, for those that have a vector of a CPU.
func checkIRQs(t *testing.T, c corpse, d *dump.Dump) {
	irqs, err := walk.IRQs(d)
	if err != nil {
		t.Error(err)
	}
	if len(irqs) == 0 {
		t.Error("no interrupts")
	}
	for _, q := range irqs {
		if len(q.Actions) == 0 {
			continue
		}
		found := false
		for line := range strings.Lines(c.said["/proc/interrupts"]) {
			f := strings.Fields(line)
			found = found || len(f) > 3 && f[0] == fmt.Sprintf("%d:", q.Number) && strings.HasSuffix(strings.TrimSpace(line), strings.Join(q.Actions, ", "))
		}
		if !found {
			t.Errorf("irq %d %v is not in /proc/interrupts", q.Number, q.Actions)
		}
	}
}

// checkPage wants the first page to say why, and every command to answer.
func checkPage(t *testing.T, d *dump.Dump) {
	s := core.New(d, "test")
	var page bytes.Buffer
	if err := s.Page(&page); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"why      somebody asked for it: sysrq-c", "sysrq_handle_crash+", "end Kernel panic"} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("the page lacks %q:\n%s", want, page.String())
		}
	}
	checkHTML(t, s)
	for command, want := range map[string]string{
		"bt -a": `COMMAND: "swapper/`, "bt 1": `COMMAND: "init"`, "foreach bt": "kthreadd:2", "log": "fathom: last words", "ps": "[kthreadd]", "mod": "veth",
		"sys": "RELEASE: 6.", "kmem -i": "TOTAL MEM", "kmem -s task_struct": "task_struct", "files dying": "/etc/hostname", "mount": "devtmpfs",
		"net": "127.0.0.1/8", "irq": "timer", "waitq": "no task waits", "sym schedule": "(T) schedule", "rd linux_banner 2": "Linux version",
		"dis schedule 3": "<schedule+0x0>", "dis vfs_read": "# struct file.f_mode", "struct task_struct.comm init_task": `comm = "swapper/0"`, "struct list_head": "SIZE: 16", "struct veth_priv": "struct net_device *peer",
		"mach": "PROCESSOR: QEMU", "swap": "/dev/vda", "timer": "delayed_work_timer_fn", "wq -a": "any CPU", "irq -b": "SCHED", "net -s": "LISTEN",
		"whatis vfs_read": "vfs_read(struct file *", "list module.list modules": "ffffffffc",
	} {
		if command == "bt -a" && runningUser(d) {
			want = "COMMAND:"
		}
		var out bytes.Buffer
		if err := s.Run(&out, strings.Fields(command)); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("%s: %v, without %q:\n%.400s", command, err, want, out.String())
		}
	}
	var same bytes.Buffer
	if differ, err := core.Diff(&same, s, core.New(d, "test")); differ || err != nil {
		t.Errorf("a dump differs from itself: %v\n%s", err, same.String())
	}
	var u *core.Usage
	for _, bad := range []string{"nosuch", "kmem", "rd", "list", "struct"} {
		if err := s.Run(io.Discard, strings.Fields(bad)); !errors.As(err, &u) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// checkHTML wants one file that asks for no other, with an answer of each command.
func checkHTML(t *testing.T, s *core.Session) {
	var page bytes.Buffer
	if err := s.HTML(&page); err != nil {
		t.Error(err)
	}
	out := page.String()
	for _, bad := range []string{"<script", "src=", "href=", "url(", "usage: ", "reads failed"} {
		if strings.Contains(out, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	for _, want := range []string{"sysrq-c, a deliberate crash", "<summary>Tasks", "[kthreadd]", "fathom: last words", "&lt;TASK&gt;"} {
		if !strings.Contains(out, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

// runningUser says that no CPU was idle.
func runningUser(d *dump.Dump) bool {
	for _, cpu := range d.CPUs() {
		if task, err := walk.Executing(d, cpu); err == nil && task.PID == 0 {
			return false
		}
	}
	return true
}
