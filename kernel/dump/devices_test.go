package dump_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/kernel"
	"github.com/fathom-trace/fathom/kernel/dump"
	"github.com/fathom-trace/fathom/kernel/walk"
)

// checkHardware compares I/O ports, PCI devices and what CPUs interrupts go to with /proc.
func checkHardware(t *testing.T, c corpse, run func(string) string) {
	if diff := cmp.Diff(c.said["/proc/ioports"], run("dev -i")); diff != "" || len(c.said["/proc/ioports"]) < 200 {
		t.Error(diff)
	}
	var want, got []string
	windows := 0
	for line := range strings.Lines(c.said["/proc/bus/pci/devices"]) {
		f := strings.Fields(line) // bus and function, vendor and device, irq …, driver
		where, _ := strconv.ParseUint(f[0], 16, 16)
		irq, _ := strconv.ParseUint(f[2], 16, 16)
		driver := ""
		if len(f) > 17 {
			driver = f[17]
		}
		name := fmt.Sprintf("0000:%02x:%02x.%x", where>>8, where>>3&31, where&7)
		for i, start := range f[3:10] {
			at, err := strconv.ParseUint(start, 16, 64)
			if size, serr := strconv.ParseUint(f[10+i], 16, 64); err != nil || serr != nil || at < 1<<16 || size == 0 || i == 6 || at&1 != 0 {
				continue // none, its ROM, or ports; those of an old IDE controller are not marked as such
			}
			windows++
			said := run(fmt.Sprintf("vtop -p %#x", at&^15+4))
			for _, w := range []string{"device    " + name, "window    BAR " + strconv.Itoa(i) + ", 0x4 bytes"} {
				if !strings.Contains(said, w) || driver != "" && !strings.Contains(said, "driver "+driver) {
					t.Errorf("BAR %d of %s, driver %q: without %q:\n%s", i, name, driver, w, said)
				}
			}
		}
		want = append(want, strings.TrimSpace(fmt.Sprintf("0000:%02x:%02x.%x %s:%s %d %s", where>>8, where>>3&31, where&7, f[1][:4], f[1][4:], irq, driver)))
	}
	for line := range strings.Lines(run("dev -p")) {
		if f := strings.Fields(line); strings.HasPrefix(f[1], "0000:") {
			got = append(got, strings.Join(append([]string{f[1], f[3], f[4]}, f[5:]...), " "))
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" || len(want) < 5 || windows == 0 {
		t.Error(windows, diff)
	}
	n := 0
	for line := range strings.Lines(run("irq -a")) {
		if f := strings.Fields(line); f[0] != "IRQ" {
			n++
			if said := strings.TrimSpace(c.said["/proc/irq/"+f[0]+"/smp_affinity_list"]); said != f[1] {
				t.Errorf("irq %s may go to CPUs %s, not %s", f[0], said, f[1])
			}
		}
	}
	if n < 5 {
		t.Errorf("%d interrupts", n)
	}
	all, used := strings.Count(run("irq"), "\n"), strings.Count(run("irq -u"), "\n")
	if used != n+1 || all <= used || strings.Count(run("irq -s 4"), "\n") != 2 {
		t.Errorf("%d interrupts, %d in use, %d with an affinity", all-1, used-1, n)
	}
}

// checkRequests wants the reads that wait for a slow disk, as many as /sys/block said but for those answered since.
func checkRequests(t *testing.T, c corpse, d *dump.Dump) {
	disks, err := walk.Disks(d)
	if err != nil {
		t.Error(err)
	}
	var names []string
	for _, disk := range disks {
		names = append(names, disk.Name)
		f := strings.Fields(c.said["/sys/block/"+disk.Name+"/inflight"])
		if len(f) != 2 {
			t.Errorf("disk %s is not in /sys/block", disk.Name)
			continue
		}
		if said, _ := strconv.Atoi(f[0]); len(disk.Requests) > said || len(disk.Requests)*2 < said || disk.Name == "vdb" && said < 10 {
			t.Errorf("disk %s has %d requests, had %d", disk.Name, len(disk.Requests), said)
		}
		for _, r := range disk.Requests {
			if r.Op != "read" || r.Bytes != 4096 || r.Sector%2048 != 0 || r.Sector/2048 >= slowReads || r.Age <= 0 || r.Age > time.Hour {
				t.Errorf("request %+v", r)
			}
		}
	}
	if diff := cmp.Diff([]string{"vda", "vdb"}, names); diff != "" {
		t.Error(diff)
	}
}

// checkUses compares who uses a file with what /proc/PID/fd said, and tries the flags of commands about tasks.
func checkUses(t *testing.T, c corpse, d *dump.Dump, run func(string) string) {
	var who string
	for name, to := range c.said {
		if pid, ok := strings.CutSuffix(strings.TrimPrefix(name, "/proc/"), "/fd/3"); ok && to == "/etc/hostname" {
			who = pid
		}
	}
	if out := strings.Fields(run("fuser /etc/hostname")); len(out) < 4 || out[0] != who || !strings.Contains(strings.Join(out, " "), "[fd 3]") {
		t.Errorf("fuser: %v, it was %s", out, who)
	}
	inode := strings.Fields(run("files -R hostname " + who))
	if n := len(inode); n < 3 || inode[n-1] != "/etc/hostname" || !strings.Contains(run("files -R "+inode[n-2]+" "+who), "/etc/hostname") || strings.Count(run("files -R hostname "+who), "\n") != 2 {
		t.Errorf("files -R: %v", inode)
	}
	if n := len(inode); n > 2 && !strings.Contains(run("fuser "+inode[n-2]), "[fd 3]") {
		t.Errorf("fuser %s", inode[n-2])
	}
	if out := run("files 1"); !strings.Contains(out, "ROOT: /  CWD: /") {
		t.Error(out)
	}
	if out := run("net -s " + who); !strings.Contains(out, ":4242 ") || !strings.Contains(out, "LISTEN") || !strings.Contains(out, "UNIX") || !strings.Contains(out, ":4343") {
		t.Errorf("net -s %s:\n%s", who, out)
	}
	if out := run("net -n 1"); !strings.Contains(out, run("net")) {
		t.Errorf("net -n 1:\n%s", out)
	}
	if out := run("bpf"); strings.Count(out, " corpse ") != 2 || !strings.Contains(out, "77 entries of 4 and 8 bytes") || !strings.Contains(out, "SOCKET_FILTER") {
		t.Error(out)
	}
	if out := run("ipcs -m"); strings.Count(out, "\nshm ") != 2 || strings.Contains(run("ipcs -s -q"), "shm") {
		t.Error(out)
	}
	if out := run("sig -l"); strings.Count(out, "\n") != 64 || !strings.Contains(out, "[ 9] SIGKILL\n") || !strings.Contains(out, "[64] SIGRTMAX\n") {
		t.Error(out)
	}
	if out := run("sig -s 0x104"); out != "SIGQUIT SIGKILL\n" {
		t.Error(out)
	}
	if all, one := strings.Count(run("sig -g 1"), "PENDING:"), strings.Count(run("sig 1"), "PENDING:"); one != 1 || all != strings.Count(run("bt -g 1"), "COMMAND:") || all < 2 {
		t.Errorf("init has %d threads", all)
	}
	if out := run("runq -t"); strings.Count(out, " CPU ") != 2 || strings.Count(run("runq -m -c 1"), " CPU ") != 1 {
		t.Error(out)
	}
	free, listed := strings.Fields(run("tree -t rbtree -o vmap_area.rb_node free_vmap_area_root")), strings.Fields(run("list vmap_area.list free_vmap_area_list"))
	slices.Sort(free)
	slices.Sort(listed)
	if diff := cmp.Diff(listed, free); diff != "" || len(free) == 0 {
		t.Error(diff)
	}
	errs := &kernel.Errors{}
	root := kernel.Global(d, errs, "struct rb_root", "free_vmap_area_root").Get("rb_node").Uint()
	if nodes := strings.Count(run(fmt.Sprintf("tree -N -o vmap_area.rb_node -s vmap_area.va_start %#x", root)), "va_start"); nodes != len(free) {
		t.Errorf("tree -N has %d nodes", nodes)
	}
	if mods := strings.Count(run("list modules"), "\n"); mods != len(d.Modules())+1 {
		t.Errorf("list modules has %d", mods)
	}
}

// checkStackScans wants every user task to have the registers it came into the kernel with, and the frames of a stack among what
// looks like code on it.
func checkStackScans(t *testing.T, d *dump.Dump, run func(string) string) {
	for task := range walk.Tasks(d) {
		if task.Kernel || task.OnCPU || task.PID == 0 {
			continue
		}
		pid := fmt.Sprint(task.PID)
		if out := run("bt -e " + pid); strings.Count(out, "USER-MODE EXCEPTION FRAME") != 1 {
			t.Errorf("bt -e %s:\n%s", pid, out)
		}
		some, all := run("bt -t "+pid), run("bt -T "+pid)
		if !strings.HasSuffix(all, some[strings.IndexByte(some, '\n')+1:]) {
			t.Errorf("bt -t %s:\n%s\nbt -T:\n%s", pid, some, all)
		}
		frames := walk.Stack(d, task).Frames
		for _, f := range frames[1:] {
			if !strings.Contains(some, fmt.Sprintf("at %016x\n", f.PC)) {
				t.Errorf("bt -t %s lacks %#x:\n%s", pid, f.PC, some)
			}
		}
	}
	if out := run("bt -v"); !strings.Contains(out, "no stack has grown") {
		t.Error(out)
	}
	if out := run("bt -r 1"); !strings.Contains(out, "0000000057ac6e9d") {
		t.Errorf("bt -r 1:\n%.200s", out)
	}
}

// checkSearches looks for the same in several ways.
func checkSearches(t *testing.T, d *dump.Dump, run func(string) string) {
	init := d.Kallsyms().ByName("init_task")[0]
	lines := func(s string) int { return strings.Count(s, "\n") }
	if n := lines(run(fmt.Sprintf("search -t %#x", init))); n < 1 || n > lines(run("search init_task")) {
		t.Errorf("search -t init_task: %d", n)
	}
	banner := d.Kallsyms().ByName("linux_banner")[0]
	for command, want := range map[string]string{
		"search -s linux_banner -l 64 -c Linux":                              "linux_banner+0x0",
		fmt.Sprintf("search -s %#x -e %#x -w 0x756e694c", banner, banner+64): "linux_banner+0x0",
		"search -s linux_banner -l 64 -h 0x694c":                             "linux_banner+0x0",
	} {
		if out := run(command); lines(out) != 1 || !strings.Contains(out, want) {
			t.Errorf("%s:\n%s", command, out)
		}
	}
	phys, err := d.Translate(banner)
	if err != nil {
		t.Fatal(err)
	}
	if out := run("search -p -c Linux"); !strings.Contains(out, fmt.Sprintf("%016x: Linux version", phys)) {
		t.Errorf("search -p:\n%s", out)
	}
}
