package dump_test

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/answers/core"
	"github.com/fathom-trace/fathom/kernel/dump"
	"github.com/fathom-trace/fathom/kernel/walk"
)

// checkStacksSaid compares stacks of sleeping tasks with what /proc/PID/stack showed of them, which leaves out the
// scheduler's own functions. Some tasks have run between; most have not.
func checkStacksSaid(t *testing.T, c corpse, d *dump.Dump) {
	n, alike := 0, 0
	for task, err := range walk.Tasks(d) {
		if err != nil || task.PID != task.TGID {
			continue
		}
		var want []string
		for line := range strings.Lines(c.said[fmt.Sprintf("/proc/%d/stack", task.PID)]) {
			if _, f, ok := strings.Cut(strings.TrimSpace(line), "] "); ok {
				name, _, _ := strings.Cut(f, "/")
				want = append(want, name)
			}
		}
		if len(want) == 0 {
			continue
		}
		n++
		var got []string
		for _, f := range walk.Stack(d, task).Frames {
			if y, ok := d.Kallsyms().At(f.PC - 1); ok {
				got = append(got, fmt.Sprintf("%s+%#x", y.Name, f.PC-y.Addr))
			}
		}
		if len(got) >= len(want) && slices.Equal(want, got[len(got)-len(want):]) {
			alike++
		} else if testing.Verbose() {
			t.Logf("pid %d %s: %v, was %v", task.PID, task.Comm, got, want)
		}
	}
	if n < 40 || alike*10 < n*8 {
		t.Errorf("%d of %d stacks are as /proc said", alike, n)
	}
}

// checkMemory compares figures with those of /proc/meminfo, which the death of the guest changes a little.
func checkMemory(t *testing.T, c corpse, m walk.Memory) {
	said := map[string]uint64{}
	for line := range strings.Lines(c.said["/proc/meminfo"]) {
		if f := strings.Fields(line); len(f) > 1 {
			said[strings.TrimSuffix(f[0], ":")], _ = strconv.ParseUint(f[1], 10, 64)
		}
	}
	if m.Total*4 != said["MemTotal"] || m.SwapTotal*4 != said["SwapTotal"] || m.SwapTotal == 0 {
		t.Errorf("total %d KiB, swap %d KiB; /proc/meminfo had %d and %d", m.Total*4, m.SwapTotal*4, said["MemTotal"], said["SwapTotal"])
	}
	for _, f := range []struct {
		name string
		kib  uint64
	}{
		{"MemFree", m.Free * 4}, {"Active(anon)", m.ActiveAnon * 4}, {"Inactive(anon)", m.InactiveAnon * 4}, {"Active(file)", m.ActiveFile * 4},
		{"Inactive(file)", m.InactiveFile * 4}, {"Shmem", m.Shmem * 4}, {"SReclaimable", m.SlabReclaimable * 4}, {"SUnreclaim", m.SlabUnreclaimable * 4},
		{"KernelStack", m.KernelStackKiB}, {"Mapped", m.Mapped * 4}, {"SwapFree", m.SwapFree * 4},
	} {
		want, slack := said[f.name], uint64(4096)
		if strings.HasSuffix(f.name, "(anon)") || f.name == "MemFree" {
			slack = 64 << 10 // what was said was kept, and written as JSON
		}
		if diff := max(f.kib, want) - min(f.kib, want); diff > max(want/5, slack) {
			t.Errorf("%s is %d KiB; /proc/meminfo had %d", f.name, f.kib, want)
		}
	}
}

// checkSlabs wants the caches of /proc/slabinfo with the size of their objects, and about as many objects.
func checkSlabs(t *testing.T, c corpse, d *dump.Dump) {
	slabs, err := walk.Slabs(d)
	if err != nil {
		t.Error(err)
	}
	want, got, off := map[string]string{}, map[string]string{}, 0
	room := map[string]int{}
	for line := range strings.Lines(c.said["/proc/slabinfo"]) {
		if f := strings.Fields(line); len(f) > 4 && f[0] != "#" && f[0] != "slabinfo" { // name active_objs num_objs objsize objperslab …
			want[f[0]] = f[3]
			room[f[0]], _ = strconv.Atoi(f[2])
		}
	}
	for _, s := range slabs {
		got[s.Name] = strconv.Itoa(s.Size)
		if diff := max(s.Objects, room[s.Name]) - min(s.Objects, room[s.Name]); diff > 100+room[s.Name]/5 {
			off++
			t.Logf("cache %s has room for %d objects; /proc/slabinfo had %d", s.Name, s.Objects, room[s.Name])
		}
	}
	if diff := cmp.Diff(want, got); diff != "" || len(want) < 50 || off > 3 {
		t.Errorf("%d caches, %d of them otherwise\n%s", len(want), off, diff)
	}
}

// checkSwap compares with /proc/swaps.
func checkSwap(t *testing.T, c corpse, out string) {
	var want, got []string
	for i, line := range strings.Split(strings.TrimSpace(c.said["/proc/swaps"]), "\n") {
		if f := strings.Fields(line); i > 0 { // filename type size used priority
			want = append(want, strings.Join(f, " "))
		}
	}
	for i, line := range strings.Split(strings.TrimSpace(out), "\n") {
		if f := strings.Fields(line); i > 0 {
			got = append(got, strings.Join([]string{f[5], f[1], f[2], f[3], f[4]}, " "))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" || len(want) != 1 {
		t.Error(diff)
	}
}

// checkMachine compares with /proc/cpuinfo.
func checkMachine(t *testing.T, c corpse, out string) {
	model, mhz := "", ""
	for line := range strings.Lines(c.said["/proc/cpuinfo"]) {
		switch k, v, _ := strings.Cut(line, ":"); strings.TrimSpace(k) {
		case "model name":
			model = strings.TrimSpace(v)
		case "cpu MHz":
			mhz = strings.TrimSpace(v)
		}
	}
	if !strings.Contains(out, "PROCESSOR: "+model+"\n") || !strings.Contains(out, "SPEED: "+mhz+" MHz\n") {
		t.Errorf("%s %s MHz:\n%s", model, mhz, out)
	}
}

// checkSoftIRQs wants the counts of /proc/softirqs, or a few more.
func checkSoftIRQs(t *testing.T, c corpse, d *dump.Dump) {
	all, err := walk.SoftIRQs(d)
	if err != nil {
		t.Error(err)
	}
	for _, q := range all {
		found := false
		for line := range strings.Lines(c.said["/proc/softirqs"]) {
			f := strings.Fields(line)
			if f[0] != q.Name+":" {
				continue
			}
			found = true
			for i, n := range q.Counts {
				if was, _ := strconv.ParseUint(f[1+i], 10, 64); n < was || n > was+3000 {
					t.Errorf("%s ran %v times; /proc/softirqs had %v", q.Name, q.Counts, f[1:])
				}
			}
		}
		if !found {
			t.Errorf("/proc/softirqs does not have %s", q.Name)
		}
	}
}

// checkSockets wants the TCP sockets of /proc/net/tcp with what is in their queues.
// checkNeighbours compares with /proc/net/arp, which leaves out those that need no address.
func checkNeighbours(t *testing.T, c corpse, out string) {
	var want, got []string
	for i, line := range strings.Split(strings.TrimSpace(c.said["/proc/net/arp"]), "\n") {
		if f := strings.Fields(line); i > 0 && len(f) == 6 { // address, type, flags, hardware address, mask, device
			state := "PERMANENT"
			if f[2] != "0x6" {
				state = "STALE"
			}
			want = append(want, strings.Join([]string{f[0], "ETHER", f[3], f[5], state}, " "))
		}
	}
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) == 6 && f[5] != "NOARP" && strings.Count(f[1], ".") == 3 {
			got = append(got, strings.Join(f[1:], " "))
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" || len(want) != 2 {
		t.Errorf("%s\n%s", diff, out)
	}
}

func checkSockets(t *testing.T, c corpse, out string) {
	want, got := map[string]int{}, map[string]int{}
	for i, line := range strings.Split(strings.TrimSpace(c.said["/proc/net/tcp"]), "\n") {
		if f := strings.Fields(line); i > 0 { // sl local rem st tx:rx …
			_, lport, _ := strings.Cut(f[1], ":")
			_, pport, _ := strings.Cut(f[2], ":")
			l, _ := strconv.ParseUint(lport, 16, 16)
			p, _ := strconv.ParseUint(pport, 16, 16)
			st, _ := strconv.ParseUint(f[3], 16, 8)
			want[fmt.Sprint(l, " ", p, " ", []string{"", "ESTAB", "", "", "", "", "TIME-WAIT", "", "", "", "LISTEN"}[st])]++
		}
	}
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); f[0] == "tcp" {
			_, l, _ := strings.Cut(f[7], ":")
			_, p, _ := strings.Cut(f[8], ":")
			got[l+" "+p+" "+f[2]]++
		}
	}
	if diff := cmp.Diff(want, got); diff != "" || len(want) < 3 {
		t.Error(diff)
	}
}

// checkWork wants each worker to belong to a pool: their tasks are counted.
func checkWork(t *testing.T, d *dump.Dump) {
	pools, err := walk.Pools(d)
	if err != nil {
		t.Error(err)
	}
	want, got := 0, 0
	for task := range walk.Tasks(d) {
		if strings.HasPrefix(task.Comm, "kworker/") && !strings.HasPrefix(task.Comm, "kworker/R") {
			want++
		}
	}
	for _, p := range pools {
		if !p.BH {
			got += p.Workers
		}
	}
	if got != want || want < 4 {
		t.Errorf("%d workers in pools, %d tasks", got, want)
	}
}

// checkWheel wants as many timers on the wheels as their own maps of full buckets say at least, all of them soon to come.
func checkWheel(t *testing.T, d *dump.Dump) {
	timers, err := walk.WheelTimers(d)
	if err != nil || len(timers) < 10 {
		t.Errorf("%d timers, %v", len(timers), err)
	}
	for _, x := range timers {
		y, ok := d.Kallsyms().At(x.Function)
		if !ok || y.Addr != x.Function || !y.IsText() || int64(x.Expires-x.Clock) < -1000 {
			t.Errorf("timer %+v, function %s", x, y.Name)
		}
	}
}

// checkSearch wants what was written where it was written.
func checkSearch(t *testing.T, d *dump.Dump) {
	s := core.New(d, "test")
	run := func(command string) string {
		var out bytes.Buffer
		if err := s.Run(&out, strings.Fields(command)); err != nil {
			t.Errorf("%s: %v", command, err)
		}
		return out.String()
	}
	if out := run("search -c fathom:"); !strings.Contains(out, "__log_buf+") || !strings.Contains(out, "last words") {
		t.Errorf("search -c:\n%s", out)
	}
	init := d.Kallsyms().ByName("init_task")[0]
	exact, masked := run(fmt.Sprintf("search %#x", init)), run(fmt.Sprintf("search -m 0xfff %#x", init))
	if strings.Count(exact, "\n") < 5 || len(masked) < len(exact) {
		t.Errorf("search init_task:\n%s\nwith a mask:\n%s", exact, masked)
	}
}

// checkAddresses compares the tree of physical addresses with /proc/iomem, and asks what some addresses are.
func checkAddresses(t *testing.T, c corpse, d *dump.Dump, run func(string) string) {
	if diff := cmp.Diff(c.said["/proc/iomem"], run("iomem")); diff != "" || !strings.Contains(c.said["/proc/iomem"], "System RAM") {
		t.Error(diff)
	}
	init := d.Kallsyms().ByName("init_task")[0]
	text := d.Kallsyms().ByName("vfs_read")[0]
	phys, err := d.Translate(text)
	if err != nil {
		t.Fatal(err)
	}
	m, err := walk.ReadMachine(d)
	if err != nil {
		t.Fatal(err)
	}
	var one walk.Task
	for task := range walk.Tasks(d) {
		if task.PID == 1 {
			one = task
		}
	}
	for command, want := range map[string][]string{
		"vtop vfs_read+3":                                                        {"the kernel's image", "symbol    vfs_read+0x3", "System RAM", "Kernel code"},
		fmt.Sprintf("vtop -p %#x", phys):                                         {"symbol    vfs_read+0x0", "Kernel code", "the map of all memory"},
		fmt.Sprintf("vtop %#x", init):                                            {"symbol    init_task+0x0", "struct task_struct thread_info", "of pid 0"},
		fmt.Sprintf("vtop %#x", one.Addr+8):                                      {"the map of all memory", "of pid 1 init"},
		fmt.Sprintf("vtop %#x", one.Value.Get("thread.sp").Uint()):               {"vmalloc", "stack     of pid 1 init"},
		fmt.Sprintf("vtop %#x", m.DirectMap+phys):                                {fmt.Sprintf("physical %#x", phys)},
		fmt.Sprintf("vtop %#x", m.Vmemmap+phys>>12*64):                           {fmt.Sprintf("struct page of the page at physical %#x", phys&^4095)},
		fmt.Sprintf("vtop %#x", d.PerCPU(1)+d.Kallsyms().ByName("runqueues")[0]): {"runqueues+0x0 of CPU 1"},
		fmt.Sprintf("vtop %#x", d.Kallsyms().ByName("veth_newlink")[0]):          {"modules", "veth_newlink+0x0 [veth]", "module    veth"},
		"vtop 0x18":               {"null pointer"},
		"vtop 0x7f0000001000":     {"user programs"},
		"vtop 0x8000000000000000": {"not canonical"},
	} {
		out := run(command)
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("%s: without %q:\n%s", command, w, out)
			}
		}
	}
}
