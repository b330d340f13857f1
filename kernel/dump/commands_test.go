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
)

// TestCommands compares what commands of core print with what the guests said before they died.
func TestCommands(t *testing.T) {
	for _, k := range kernels {
		t.Run(k, func(t *testing.T) {
			c := killGuest(t, k)
			d := open(t, c.path("kdump-zlib"))
			s := core.New(d, "test")
			run := func(command string) string {
				t.Helper()
				var out bytes.Buffer
				if err := s.Run(&out, strings.Fields(command)); err != nil {
					t.Errorf("%s: %v", command, err)
				}
				return out.String()
			}
			checkAreas(t, c, run("vm 1"))
			checkSignals(t, c, run)
			checkDevices(t, c, run("dev"))
			checkIPC(t, c, run("ipcs"))
			checkTimers(t, c, run("timer -r"))
			checkTrees(t, run)
			checkRunQueues(t, d, run("runq"))
			checkSwap(t, c, run("swap"))
			checkMachine(t, c, run("mach"))
			checkSockets(t, c, run("net -s"))
			checkNeighbours(t, c, run("net -a"))
			checkSoftIRQs(t, c, d)
			checkWork(t, d)
			checkWheel(t, d)
			checkAddresses(t, c, d, run)
			checkSearch(t, open(t, c.path("elf")))
			checkFlags(t, c, d, run)
			checkPrint(t, c, d, run)
			checkZones(t, c, d, run)
			checkVmalloc(t, c, run)
			checkPages(t, c, d, run)
			checkObjects(t, d, run)
			checkOwners(t, c, run)
			checkHardware(t, c, run)
			checkRequests(t, c, d)
			checkUses(t, c, d, run)
			checkTrace(t, c, d)
			checkStackScans(t, d, run)
			checkSearches(t, d, run)
			if out := run("task 1 -R pid,comm"); !strings.Contains(out, "pid = 1\n") || !strings.Contains(out, `comm = "init"`) {
				t.Error(out)
			}
			for _, each := range []string{"files", "vm", "sig", "task -R tgid"} {
				if out := run("foreach " + each); !strings.Contains(out, "PID: 1 ") || !strings.Contains(out, `COMMAND: "kthreadd"`) {
					t.Errorf("foreach %s: %.300s", each, out)
				}
			}
		})
	}
}

func checkAreas(t *testing.T, c corpse, out string) {
	n := 0
	for line := range strings.Lines(c.said["/proc/1/maps"]) {
		f := strings.Fields(line)
		if len(f) < 6 || !strings.HasPrefix(f[5], "/") {
			continue
		}
		n++
		start, end, _ := strings.Cut(f[0], "-")
		found := false
		for got := range strings.Lines(out) {
			g := strings.Fields(got)
			found = found || len(g) == 5 && g[1] == strings.TrimLeft(start, "0") && g[2] == strings.TrimLeft(end, "0") && g[4] == f[5]
		}
		if !found {
			t.Errorf("vm does not have %s in\n%s", line, out)
		}
	}
	if n < 3 {
		t.Errorf("%d mappings of files", n)
	}
}

// checkSignals compares the sets of all processes.
func checkSignals(t *testing.T, c corpse, run func(string) string) {
	n := 0
	for name, status := range c.said {
		pid, ok := strings.CutSuffix(strings.TrimPrefix(name, "/proc/"), "/status")
		if !ok || strings.Contains(status, "kworker/") {
			continue // workers of the kernel come and go
		}
		want := map[string]string{}
		for line := range strings.Lines(status) {
			if k, v, ok := strings.Cut(line, ":"); ok && (strings.HasPrefix(k, "Sig") || strings.HasPrefix(k, "Shd")) && k != "SigQ" {
				want[k] = strings.TrimSpace(v)
			}
		}
		got := map[string]string{}
		f := strings.Fields(run("sig " + pid))
		for i, label := range []string{"PENDING:", "SHARED:", "BLOCKED:", "IGNORED:", "CAUGHT:"} {
			if at := slices.Index(f, label); at >= 0 {
				got[[]string{"SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt"}[i]] = f[at+1]
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("pid %s\n%s", pid, diff)
		}
		n++
	}
	if n < 20 {
		t.Errorf("%d processes", n)
	}
}

func checkDevices(t *testing.T, c corpse, out string) {
	want, got := map[string]int{}, map[string]int{}
	kind := ""
	for line := range strings.Lines(c.said["/proc/devices"]) {
		switch f := strings.Fields(line); {
		case strings.HasPrefix(line, "Character"):
			kind = "char"
		case strings.HasPrefix(line, "Block"):
			kind = "block"
		case len(f) == 2:
			want[kind+" "+f[0]+" "+f[1]]++
		}
	}
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); f[0] != "KIND" {
			got[f[0]+" "+f[1]+" "+f[3]]++
		}
	}
	if diff := cmp.Diff(want, got); diff != "" || len(want) < 10 {
		t.Error(diff)
	}
}

func checkIPC(t *testing.T, c corpse, out string) {
	var want, got []string
	for i, line := range strings.Split(strings.TrimSpace(c.said["/proc/sysvipc/shm"]), "\n") {
		if f := strings.Fields(line); i > 0 { // key shmid perms size cpid lpid nattch uid …
			key, _ := strconv.Atoi(f[0])
			want = append(want, fmt.Sprintf("%#x %s %s %s bytes, attached %s times", key, f[1], f[2], f[3], f[6]))
		}
	}
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); f[0] == "shm" {
			got = append(got, strings.Join(append([]string{f[2], f[3], f[5]}, f[6:]...), " "))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" || len(want) != 2 {
		t.Error(diff)
	}
}

// checkTimers wants the tick of each CPU, which never stops for good, under the name that /proc/timer_list has.
func checkTimers(t *testing.T, c corpse, out string) {
	cpu, n := "", 0
	for line := range strings.Lines(c.said["/proc/timer_list"]) {
		switch f := strings.Fields(line); {
		case strings.HasPrefix(line, "cpu: "):
			cpu = f[1]
		case strings.HasPrefix(line, " #") && strings.HasPrefix(f[2], "tick_"):
			name := strings.TrimSuffix(f[2], ",")
			n++
			found := false
			for got := range strings.Lines(out) {
				g := strings.Fields(got)
				found = found || g[0] == cpu && g[1] == "1" && g[5] == name+"+0x0"
			}
			if !found {
				t.Errorf("cpu %s has no timer %s:\n%s", cpu, name, out)
			}
		}
	}
	if n == 0 {
		t.Errorf("no tick in\n%.2000s", c.said["/proc/timer_list"])
	}
}

// checkTrees wants what hangs in trees to be what the kernel also has on a list, or has counted.
func checkTrees(t *testing.T, run func(string) string) {
	lines := func(s string) []string {
		l := strings.Fields(s)
		slices.Sort(l)
		return l
	}
	tree, list := lines(run("tree vmap_area.rb_node free_vmap_area_root")), lines(run("list vmap_area.list free_vmap_area_list"))
	if diff := cmp.Diff(list, tree); diff != "" || len(tree) == 0 {
		t.Error(diff)
	}
	mm := strings.Fields(run("task 1 -R mm"))
	at := mm[slices.Index(mm, "=")+1]
	count := strings.Fields(run("struct mm_struct.map_count " + at))
	if off := strings.Fields(run("struct mm_struct.mm_mt")); len(off) > 3 {
		areas := lines(run("tree -t maple " + at + "+" + strings.Trim(off[3], "[]")))
		var want []string
		for line := range strings.Lines(run("vm 1")) {
			if f := strings.Fields(line); strings.HasPrefix(f[0], "ff") {
				want = append(want, f[0])
			}
		}
		slices.Sort(want)
		if diff := cmp.Diff(want, areas); diff != "" || count[len(count)-1] != fmt.Sprint(len(areas)) {
			t.Errorf("%v\n%s", count, diff)
		}
	}
	if maps := lines(run("tree -t xarray map_idr")); len(maps) != 1 {
		t.Errorf("BPF maps: %v", maps)
	}
}

// checkRunQueues wants as many runnable tasks as the scheduler counted.
func checkRunQueues(t *testing.T, d *dump.Dump, out string) {
	queues := strings.Split(out, "CPU ")[1:]
	if len(queues) != len(d.CPUs()) {
		t.Errorf("%d queues:\n%s", len(queues), out)
	}
	for _, q := range queues {
		f := strings.Fields(q)
		n, _ := strconv.Atoi(f[slices.Index(f, "RUNNABLE:")+1])
		got := strings.Count(q, "\n  [")
		if cur := f[slices.Index(f, "PID:")+1]; cur != "0" {
			got++
		}
		if got != n {
			t.Errorf("%d runnable tasks, %d counted:\n%s", got, n, q)
		}
	}
}
