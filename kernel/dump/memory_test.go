package dump_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/kernel"
	"github.com/fathom-trace/fathom/kernel/dump"
	"github.com/fathom-trace/fathom/kernel/walk"
)

// checkZones compares with /proc/zoneinfo, and blocks of free pages with what the zones have free.
func checkZones(t *testing.T, c corpse, d *dump.Dump, run func(string) string) {
	want, got := map[string]string{}, map[string]string{}
	zone, now := "", map[string]string{}
	for line := range strings.Lines(c.said["/proc/zoneinfo"] + "Node 0, zone end\n") {
		f := strings.Fields(line)
		if f[0] == "Node" {
			if now["present"] != "0" && zone != "" {
				want[zone] = fmt.Sprintf("spanned %s present %s managed %s min %s low %s high %s", now["spanned"], now["present"], now["managed"], now["min"], now["low"], now["high"])
			}
			zone, now = strings.Join(f[3:], " "), map[string]string{}
		} else if _, seen := now[f[0]]; len(f) > 1 && !seen {
			now[f[0]] = f[1]
		}
	}
	zones, err := walk.Zones(d)
	if err != nil {
		t.Error(err)
	}
	for _, z := range zones {
		free := uint64(0)
		for order, n := range z.FreeBlocks {
			free += n << order
		}
		if diff := max(free, z.Free) - min(free, z.Free); diff > 300 { // what CPUs have not added yet
			t.Errorf("zone %s has %d free pages, and blocks of %d", z.Name, z.Free, free)
		}
		if z.Present != 0 {
			got[z.Name] = fmt.Sprintf("spanned %d present %d managed %d min %d low %d high %d", z.Spanned, z.Present, z.Managed, z.Min, z.Low, z.High)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" || len(want) < 2 {
		t.Error(diff)
	}
	if out := run("kmem -z"); !strings.Contains(out, " DMA32 ") {
		t.Error(out)
	}
	if n := strings.Count(c.said["/proc/buddyinfo"], "\n"); strings.Count(run("kmem -f"), "\n") != n || n < 2 {
		t.Errorf("kmem -f: %s", run("kmem -f"))
	}
}

// checkVmalloc wants the areas of /proc/vmallocinfo, with their sizes, callers and kinds; a few have come or gone since.
func checkVmalloc(t *testing.T, c corpse, run func(string) string) {
	want, got, other := map[string]string{}, map[string]string{}, 0
	for line := range strings.Lines(c.said["/proc/vmallocinfo"]) {
		f := strings.Fields(line) // 0xA-0xB size caller+0x1/0x2 pages=1 vmalloc …
		from, to, ok := strings.Cut(f[0], "-")
		if !ok || len(f) < 3 || !strings.Contains(f[2], "+") {
			continue
		}
		caller, _, _ := strings.Cut(f[2], "/")
		kind := ""
		for _, w := range f[3:] {
			if slices.Contains([]string{"ioremap", "vmalloc", "vmap", "user"}, w) {
				kind += " " + w
			}
		}
		want[strings.TrimPrefix(from, "0x")] = strings.TrimPrefix(to, "0x") + " " + f[1] + " " + caller + kind
	}
	for line := range strings.Lines(run("kmem -v")) {
		f := strings.Fields(line)
		if len(f) < 7 || f[3] != "-" {
			continue
		}
		kind := ""
		for _, w := range f[7:] {
			if slices.Contains([]string{"ioremap", "vmalloc", "vmap", "user"}, w) {
				kind += " " + w
			}
		}
		got[f[2]] = f[4] + " " + f[5] + " " + f[6] + kind
	}
	for at, w := range want {
		if got[at] != w {
			if other++; other < 4 {
				t.Logf("area %s is %q, was %q", at, got[at], w)
			}
		}
	}
	if len(want) < 50 || other*20 > len(want) {
		t.Errorf("%d areas, %d of them otherwise", len(want), other)
	}
}

// kpf are bits of /proc/kpageflags (include/uapi/linux/kernel-page-flags.h) that mean one flag or type.
var kpf = map[uint]string{3: "uptodate", 4: "dirty", 5: "lru", 6: "active", 7: "slab", 14: "swapbacked", 32: "reserved"}

// checkPages compares where pages of init are with its pagemap, and flags with /proc/kpageflags.
func checkPages(t *testing.T, c corpse, d *dump.Dump, run func(string) string) {
	got := map[string]string{}
	for line := range strings.Lines(run("vm -p 1")) {
		if f := strings.Fields(line); len(f) == 2 {
			got[f[0]] = f[1]
		}
	}
	n, moved := 0, 0
	for line := range strings.Lines(c.said["pages of 1"]) {
		at, phys, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n++; got[at] != phys {
			moved++
		}
	}
	if n < 100 || moved*10 > n {
		t.Errorf("%d pages of init, %d elsewhere than its pagemap said:\n%.300s", n, moved, run("vm -p 1"))
	}
	errs := &kernel.Errors{}
	p, err := walk.OpenPages(d, errs)
	if err != nil {
		t.Fatal(err)
	}
	n = 0
	kinds, other := map[string]int{}, map[string]int{}
	for line := range strings.Lines(c.said["flags of pages"]) {
		var at, flags uint64
		fmt.Sscanf(line, "%x %x", &at, &flags)
		page, err := p.Page(at >> 12)
		if err != nil || flags&(1<<20) != 0 { // no such page
			continue
		}
		n++
		head := page
		if page.Head != page.Addr {
			number, _ := p.Of(page.Head)
			head, _ = p.Page(number)
		}
		for bit, name := range kpf {
			said := flags>>bit&1 != 0
			has := slices.Contains(page.Names, name) || page.Type == name
			switch {
			case name == "slab" && page.Head != page.Addr: // all pages of a slab are
				has = head.Type == "slab"
			case said && !has: // a tail of a huge page, which machines of 512 MiB have none of, is said to be what its head is, since 6.10
				has = slices.Contains(head.Names, name)
			}
			if said && !has || has && !said && flags&(1<<10) == 0 { // a page that was free (buddy) has been taken since
				other[name]++
			}
			if has {
				kinds[name]++
			}
		}
	}
	for name, k := range other {
		if k > 20+kinds[name]/5 {
			t.Errorf("%d of %d pages are otherwise %s", k, kinds[name], name)
		}
	}
	if n < 5000 || kinds["slab"] < 50 || kinds["reserved"] < 50 || kinds["uptodate"] < 50 {
		t.Errorf("%d pages, %v, otherwise %v", n, kinds, other)
	}
	if out := run("kmem -p init_task"); !strings.Contains(out, "reserved") {
		t.Error(out)
	}
}

// checkObjects wants every task to be an object in use of its cache, as many objects in use as the cache counts, and addresses
// to be told what they are.
func checkObjects(t *testing.T, d *dump.Dump, run func(string) string) {
	errs := &kernel.Errors{}
	p, err := walk.OpenPages(d, errs)
	if err != nil {
		t.Fatal(err)
	}
	slabs, err := walk.Slabs(d)
	if err != nil {
		t.Error(err)
	}
	for _, name := range []string{"task_struct", "mm_struct", "kmem_cache", "signal_cache"} {
		of, err := p.CacheSlabs(name)
		if err != nil {
			t.Error(err)
		}
		room, used, at := 0, 0, map[uint64]bool{}
		for i := range of {
			room += of[i].Objects
			used += of[i].Used()
			for k := range of[i].Objects {
				if _, a, inUse, _ := of[i].Object(of[i].At(k)); inUse {
					at[a] = true
				}
			}
		}
		for _, c := range slabs {
			if c.Name == name && (c.Objects != room || c.Slabs != len(of) || used > c.InUse || used == 0) {
				t.Errorf("cache %s: %d of %d objects in %d slabs; it counts %d of %d in %d", name, used, room, len(of), c.InUse, c.Objects, c.Slabs)
			}
		}
		tasks := 0
		for task := range walk.Tasks(d) {
			if tasks++; name == "task_struct" && !at[task.Addr] && !(task.Idle && task.CPU == 0) {
				t.Errorf("task %d at %#x is no object in use", task.PID, task.Addr)
			}
		}
		if name == "task_struct" && used > tasks+20 { // some are being let go
			t.Errorf("%d tasks, and %d objects in use", tasks, used)
		}
	}
	if err := errs.Take(); err != nil {
		t.Error(err)
	}
	var one walk.Task
	for task := range walk.Tasks(d) {
		if task.PID == 1 {
			one = task
		}
	}
	comm := kernel.Object(d, errs, "struct task_struct", one.Addr).Get("comm").Addr
	for command, want := range map[string][]string{
		fmt.Sprintf("kmem %#x", comm):                             {" of task_struct at " + fmt.Sprintf("%#x", one.Addr) + ", in use, struct task_struct.comm", "of pid 1 init", "struct page at"},
		fmt.Sprintf("kmem %#x", one.Value.Get("stack").Uint()+16): {"vmalloc", "kernel_clone+", "stack     of pid 1"},
		"kmem vfs_read":  {"symbol    vfs_read+0x0"},
		"kmem 0x1000000": {"physical 0x1000000", "page      struct page at"},
	} {
		for _, w := range want {
			if out := run(command); !strings.Contains(out, w) {
				t.Errorf("%s: without %q:\n%s", command, w, out)
			}
		}
	}
	if out := run("kmem -S task_struct"); !strings.Contains(out, fmt.Sprintf("[%016x]", one.Addr)) {
		t.Errorf("kmem -S task_struct:\n%.300s", out)
	}
	if f := strings.Fields(run("kmem -o")); len(f) != 6 || f[5] != strconv.FormatUint(d.PerCPU(1), 16) {
		t.Errorf("kmem -o: %v", f)
	}
}

// checkOwners compares who allocated the objects of a cache with what debugfs said, stack by stack. A few processes have come or gone.
func checkOwners(t *testing.T, c corpse, run func(string) string) {
	read := func(text string) map[string]int {
		out, count, stack := map[string]int{}, 0, ""
		add := func() {
			if stack != "" {
				out[stack] += count
			}
		}
		for line := range strings.Lines(text) {
			f := strings.Fields(line)
			if len(f) == 0 {
				continue
			}
			name, _, _ := strings.Cut(f[0], "/")
			if n, err := strconv.Atoi(f[0]); err == nil {
				add()
				name, _, _ = strings.Cut(f[1], "/")
				count = n
				stack = ""
			}
			stack += name + " "
		}
		add()
		return out
	}
	want, got := read(c.said[ownersFile]), read(run("kmem -a signal_cache"))
	all, other := 0, 0
	for stack, n := range want {
		all += n
		other += max(n, got[stack]) - min(n, got[stack])
	}
	if all < 40 || other > 5 || len(got) > len(want)+3 {
		t.Errorf("%d objects, %d of them otherwise:\n%v\n%v", all, other, want, got)
	}
}
