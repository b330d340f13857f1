package dump_test

import (
	"context"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/answers/core"
	"github.com/fathom-trace/fathom/internal/hostile"
	"github.com/fathom-trace/fathom/internal/script"
	"github.com/fathom-trace/fathom/kernel"
	"github.com/fathom-trace/fathom/kernel/dump"
	"github.com/fathom-trace/fathom/kernel/ftrace"
	"github.com/fathom-trace/fathom/kernel/walk"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/traceevent"
	"github.com/fathom-trace/fathom/vmcore"
)

// envWays names which of the ways to spoil a dump are run, as FROM-TO (TO not among them): those that failed, or a part of a long run.
const envWays = "FATHOM_WAYS"

// TestHostile cuts a dump short and spoils bytes of it, of its format and of what the kernel had in memory: the page may say less,
// and never panics, hangs or grows without bound.
func TestHostile(t *testing.T) {
	c := killGuest(t, kernels[0])
	ways, soak := 36, false
	if n, err := strconv.Atoi(os.Getenv(hostile.Env)); err == nil {
		ways, soak = n, true
	}
	from, to := 0, ways
	if some := os.Getenv(envWays); some != "" {
		if _, err := fmt.Sscanf(some, "%d-%d", &from, &to); err != nil || from < 0 || from >= to || to > ways {
			t.Fatalf("%s=%s: want FROM-TO within 0-%d (%v)", envWays, some, ways, err)
		}
	}
	kdump, plain := sized(t, c.path("kdump-zlib")), sized(t, c.path("elf"))
	constant := constants(t, c.path("elf"))
	var next, opened atomic.Int64
	next.Store(int64(from))
	var all sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			runtime.LockOSThread() // whose CPU time is looked at
			defer runtime.UnlockOSThread()
			for way := int(next.Add(1)) - 1; way < to && t.Context().Err() == nil; way = int(next.Add(1)) - 1 {
				again := func() *dump.Dump { return openSpoiled(mutation(way, ways, kdump, plain, constant)) }
				if !survives(t, way, again, soak) {
					continue
				}
				if n := opened.Add(1); n%100 == 0 {
					t.Logf("%d dumps opened, way %d", n, way)
				}
			}
		})
	}
	all.Wait()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	t.Logf("%d of %d dumps opened; %d MiB of memory", opened.Load(), to-from, m.Sys>>20)
	if int(opened.Load()) < (to-from)/4 || m.Sys > 1<<30 {
		t.Errorf("%d of %d dumps opened, %d MiB of memory", opened.Load(), to-from, m.Sys>>20)
	}
}

// openSpoiled opens a dump, or gives nil.
func openSpoiled(f vmcore.File) *dump.Dump {
	mem, err := vmcore.Open(f)
	if err != nil {
		return nil
	}
	d, _ := dump.Open(mem)
	return d
}

// survives runs every command over a dump, and says if it could be opened. The CPU time of a virtual machine has in it what its host
// took of the CPU: what took too long is run again, on the dump opened anew, and must take too long three times.
func survives(t *testing.T, way int, open func() *dump.Dump, soak bool) bool {
	d := open()
	if d == nil {
		return false
	}
	slow := everyCommand(t.Context(), d, soak)
	for range 2 {
		if len(slow) == 0 {
			return true
		}
		t.Logf("spoiled in way %d: %v", way, slow)
		once := slow
		slow = everyCommand(t.Context(), open(), soak)
		maps.DeleteFunc(slow, func(what string, _ time.Duration) bool { return once[what] == 0 })
	}
	for what, took := range slow {
		t.Errorf("spoiled in way %d: %s took %s, the third time", way, what, took)
	}
	return true
}

// TestAstray has arrays whose lengths were overwritten: what is behind them is all other memory, and leads nowhere.
func TestAstray(t *testing.T) {
	c := killGuest(t, kernels[0])
	plain, good := sized(t, c.path("elf")), open(t, c.path("elf"))
	errs := &kernel.Errors{}
	var at []spot
	overwrite := func(v kernel.Value) { // 0x40000000 of them
		off := fileOffset(t, c.path("elf"), good, v.Addr)
		at = append(at, spot{off, 0}, spot{off + 1, 0}, spot{off + 2, 0}, spot{off + 3, 0x40})
	}
	overwrite(kernel.Global(good, errs, "struct netlink_table *", "nl_table").Deref().Get("hash.tbl").Deref().Get("size"))
	var task walk.Task
	for each, err := range walk.Tasks(good) {
		if err == nil && each.PID == 1 {
			task = each
		}
	}
	overwrite(kernel.Object(good, errs, "struct task_struct", task.Addr).Get("files.fdt").Deref().Get("max_fds"))
	disks, err := walk.Disks(good)
	if err != nil || len(disks) == 0 {
		t.Fatalf("%d disks: %v", len(disks), err)
	}
	overwrite(kernel.Object(good, errs, "struct request_queue", disks[0].Queue).Get("tag_set").Deref().Get("nr_hw_queues"))
	if errs.First != nil {
		t.Fatal(errs.First)
	}
	slices.SortFunc(at, func(a, b spot) int { return int(a.off - b.off) })
	mem, err := vmcore.Open(vmcore.File{R: spoiled{plain.R, plain.Size, at}, Size: plain.Size})
	if err != nil {
		t.Fatal(err)
	}
	d, err := dump.Open(mem)
	if err != nil {
		t.Fatal(err)
	}
	for task := range walk.Tasks(d) {
		if task.PID != 1 {
			continue
		}
		files := 0
		errs := &kernel.Errors{}
		for _, f := range walk.Descriptors(task, errs) {
			_ = walk.Path(f.Get("f_path"))
			files++
		}
		if files < 3 || errs.N == 0 || errs.N > 100_000 {
			t.Errorf("%d files, %d reads failed: %v", files, errs.N, errs.First)
		}
	}
	most := 0 // also by who reads nothing of them
	for task := range walk.Tasks(d) {
		files := 0
		for range walk.Descriptors(task, &kernel.Errors{}) {
			files++
		}
		most = max(most, files)
	}
	if most < 3 || most > 50_000 {
		t.Errorf("a task has %d files", most)
	}
	failed := 0
	if _, err := walk.Disks(d); err == nil {
		t.Error("no disk's queues lead nowhere")
	} else if _, n, _ := strings.Cut(err.Error(), " ("); n != "" {
		fmt.Sscanf(n, "%d reads failed", &failed)
	}
	if failed == 0 || failed > 100_000 {
		t.Errorf("%d reads of disks failed", failed)
	}
	errs = &kernel.Errors{}
	sockets := 0
	for s := range walk.NetlinkSockets(d, errs) {
		_ = s.Get("portid").Uint()
		sockets++
	}
	if sockets < 2 || errs.N == 0 || errs.N > 1_000_000 {
		t.Errorf("%d sockets, %d reads failed: %v", sockets, errs.N, errs.First)
	}
}

// TestUnwindTablesDamaged has a page in the middle of the unwind tables that does not inflate, by which nearly every look-up comes:
// it is tried once, not thousands of times for each stack that has to be scanned.
func TestUnwindTablesDamaged(t *testing.T) {
	c := killGuest(t, kernels[0])
	kdump := sized(t, c.path("kdump-zlib"))
	file := &reads{ReaderAt: kdump.R}
	openAgain := func() *dump.Dump {
		mem, err := vmcore.Open(vmcore.File{R: file, Size: kdump.Size})
		if err != nil {
			t.Fatal(err)
		}
		d, err := dump.Open(mem)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	d := openAgain()
	from, to := d.Kallsyms().ByName("__start_orc_unwind_ip")[0], d.Kallsyms().ByName("__stop_orc_unwind_ip")[0]
	phys, err := d.Translate(from + (to-from)/8*4)
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	if err := d.ReadPhys(b[:], phys); err != nil {
		t.Fatal(err)
	}
	var at []spot
	for i := range min(file.n/2, 16) { // the last read was the page's
		at = append(at, spot{file.off + file.n/2 + i, 0xff})
	}
	page := file.off
	file.ReaderAt, file.at, file.count = spoiled{kdump.R, kdump.Size, at}, page, 0
	d = openAgain()
	if err := d.ReadPhys(b[:], phys); err == nil {
		t.Fatal("the page inflates")
	}
	var out strings.Builder
	if err := core.New(d, "spoiled").Run(&out, []string{"foreach", "bt"}); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "kworker/"); n < 20 || file.count != 1 {
		t.Errorf("%d workers; the page that is damaged was read %d times", n, file.count)
	}
}

// reads is a file that remembers where it was read last, and how often at one place.
type reads struct {
	io.ReaderAt
	off, n int64
	at     int64
	count  int
}

func (r *reads) ReadAt(p []byte, off int64) (int, error) {
	r.off, r.n = off, int64(len(p))
	if off == r.at {
		r.count++
	}
	return r.ReaderAt.ReadAt(p, off)
}

// mutation is one of so many ways to spoil a dump; constant is what most leave alone of the ELF one.
func mutation(way, ways int, kdump, plain vmcore.File, constant [2]int64) vmcore.File {
	rng := rand.New(rand.NewPCG(5, uint64(way)))
	switch way % 6 {
	case 0, 3:
		size := kdump.Size * int64(way+1) / int64(ways+1)
		return vmcore.File{R: spoiled{kdump.R, size, nil}, Size: size}
	case 1, 4:
		var at []spot
		for range 1 << rng.IntN(12) {
			at = append(at, spot{rng.Int64N(kdump.Size), byte(rng.Uint32())})
		}
		slices.SortFunc(at, func(a, b spot) int { return int(a.off - b.off) })
		return vmcore.File{R: spoiled{kdump.R, kdump.Size, at}, Size: kdump.Size}
	}
	w := worn{r: plain.R, seed: rng.Uint64(), n: 1 << rng.IntN(12), from: constant[0], to: constant[1]}
	if way%12 == 2 { // symbols and types too: most are not opened then
		w.from, w.to = 0, 0
	}
	return vmcore.File{R: w, Size: plain.Size}
}

func sized(t *testing.T, name string) vmcore.File {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return vmcore.File{R: f, Size: st.Size()}
}

// constants is where in an ELF dump the kernel's constants are: symbols, types, and tables to unwind with.
func constants(t *testing.T, name string) (at [2]int64) {
	t.Helper()
	d := open(t, name)
	for i, symbol := range []string{"__start_rodata", "__end_rodata"} {
		at[i] = fileOffset(t, name, d, d.Kallsyms().ByName(symbol)[0])
	}
	return at
}

// fileOffset is where in an ELF dump an address of the kernel is.
func fileOffset(t *testing.T, name string, d *dump.Dump, addr uint64) int64 {
	t.Helper()
	f, err := elf.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	phys, err := d.Translate(addr)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD && phys >= p.Paddr && phys-p.Paddr < p.Filesz {
			return int64(p.Off + phys - p.Paddr)
		}
	}
	t.Fatalf("%#x is nowhere in %s", addr, name)
	return 0
}

// everyCommand runs all that reads a dump, on this thread, and gives what took too long. Each may take two seconds of CPU in long
// runs; tests run on machines that are slower.
func everyCommand(ctx context.Context, d *dump.Dump, soak bool) map[string]time.Duration {
	s, slow := core.New(d, "spoiled"), map[string]time.Duration{}
	limit := 20 * time.Second
	if soak {
		limit = 2 * time.Second
	}
	timed := func(what string, run func()) {
		start := cpuTime()
		run()
		if took := cpuTime() - start; took > limit {
			slow[what] = took
		}
	}
	timed("page", func() { _ = s.Page(io.Discard) })
	for _, command := range []string{"foreach bt", "files 1", "mount", "net", "irq", "kmem -s", "kmem -z", "kmem -v", "kmem -S signal_cache", "kmem -a signal_cache", "kmem -V", "kmem init_task",
		"dev -d", "dev -i", "dev -p", "bpf", "waitq", "runq -t", "bt -v", "bt -e 1", "vm -p 1", "net -s 1", "fuser /etc/hostname", "p init_task", "p *modules.next", "list modules",
		"tree vmap_area.rb_node free_vmap_area_root", "search -t init_task", "ps", "mod", "log", "timer", "timer -r", "wq", "swap", "ipcs", "iomem", "task 1", "sig 1", "mach", "trace -n 100"} {
		timed(command, func() { _ = s.Run(io.Discard, strings.Fields(command)) })
	}
	timed("iterators", func() {
		_, _ = script.Run(ctx, script.Options{On: d, Source: &syntax.Source{Name: "stdin", Text: everyIterator}, Stdout: io.Discard, Stderr: io.Discard})
	})
	timed("ftrace", func() {
		if all, _ := ftrace.Instances(d); len(all) > 0 {
			formats, _ := ftrace.Formats(d)
			errs := &kernel.Errors{}
			for _, r := range all[0].Rings {
				for range traceevent.All(r.Stream(formats, errs)) {
				}
			}
		}
	})
	return slow
}

// cpuTime is what this thread has used.
func cpuTime() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_THREAD, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// worn is a dump of memory in which a word of one in n pages is not what it was: mostly one that was in the page elsewhere, so
// that pointers lead to where pointers lead.
type worn struct {
	r        io.ReaderAt
	seed, n  uint64
	from, to int64 // what is between is as it was
}

func (w worn) ReadAt(p []byte, off int64) (int, error) {
	const page = 4096
	k, err := w.r.ReadAt(p, off)
	for at := off &^ (page - 1); at < off+int64(k); at += page {
		rng := rand.New(rand.NewPCG(w.seed, uint64(at)))
		if at < 1<<16 || at >= w.from&^(page-1) && at < w.to || rng.Uint64N(w.n) != 0 { // the headers are spoiled elsewhere
			continue
		}
		var word [8]byte
		if rng.IntN(4) == 0 {
			binary.LittleEndian.PutUint64(word[:], rng.Uint64()>>rng.IntN(64))
		} else if _, err := w.r.ReadAt(word[:], at+8*rng.Int64N(page/8)); err != nil {
			continue
		}
		to := at + 8*rng.Int64N(page/8)
		for i, b := range word {
			if x := to + int64(i) - off; x >= 0 && x < int64(k) {
				p[x] = b
			}
		}
	}
	return k, err
}

// everyIterator runs over all there is.
const everyIterator = `iter:task { @[comm, kstack] = count(); @h[kstack] = hist(pid); } iter:task_file { @f[path(ctx.file.f_path)] = count(); } iter:task_vma { @v = count(); }
	iter:tcp, iter:udp, iter:unix, iter:netlink, iter:bpf_map, iter:bpf_prog { @s[probe] = count(); }`

// spoiled is a file with an end and some bytes of our own.
type spoiled struct {
	f    io.ReaderAt
	size int64
	at   []spot // ascending
}

// spot is a byte of a file that is another.
type spot struct {
	off int64
	b   byte
}

func (s spoiled) ReadAt(p []byte, off int64) (int, error) {
	if off >= s.size {
		return 0, io.EOF
	}
	n, err := s.f.ReadAt(p[:min(int64(len(p)), s.size-off)], off)
	if n < len(p) && err == nil {
		err = io.EOF
	}
	i, _ := slices.BinarySearchFunc(s.at, off, func(s spot, off int64) int { return int(s.off - off) })
	for ; i < len(s.at) && s.at[i].off < off+int64(n); i++ {
		p[s.at[i].off-off] = s.at[i].b
	}
	return n, err
}
