package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Kernels whose dumps are read: the debug information of the first is the smallest that Debian has; the second is the newest
// that Debian's crash opens.
const (
	dumpKernel  = "debian-6.12-cloud"
	crashKernel = "debian-6.1"
)

// What a first page may take.
const (
	elfCPU, kdumpCPU = 200.0, 300.0 // ms
	pageRSS          = 100.0        // MB
	growth           = 1.1          // memory for a dump ten times as large, beside that for one
	livePage         = 1000.0       // ms of the wall
)

// peerRounds is how often crash and drgn are run: they take seconds.
const peerRounds = 3

// dumpFile is a dump that is measured.
type dumpFile struct {
	what, path string
	kdump      bool
	tenth      string // path of the dump of a tenth of the size that its memory is compared with, or ""
	kernel     string
}

// corePage prints docs/benchmarks-core.md: the first page of crash dumps beside crash and drgn. newer is a folder with a drgn of
// newer sources, built in place, or "".
func corePage(newer string) error {
	dir, err := os.MkdirTemp("", "fathom-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	files, err := makeDumps(dir)
	if err != nil {
		return err
	}
	peers := peersOf(newer)
	var table, wanted strings.Builder
	took := map[string]*taken{}
	for _, f := range files {
		st, err := os.Stat(f.path)
		if err != nil {
			return err
		}
		head := fmt.Sprintf("%s, %s | %d", f.what, f.kernel, st.Size()>>20)
		ours := measure([]string{"./fathom", "core", f.path}, nil, rounds)
		took[f.path] = ours
		fmt.Fprintf(&table, "| %s | fathom | %s |\n", head, ours)
		wants(&wanted, f, ours, took[f.tenth])
		vmlinux := vmlinuxOf(f.kernel)
		for _, p := range peers {
			if vmlinux != "" && f.tenth == "" {
				fmt.Fprintf(&table, "| %s | %s | %s |\n", head, p.name, measure(p.argv(vmlinux, f.path), p.env, peerRounds))
			}
		}
	}
	live := liveGuest()
	fmt.Fprintf(&table, "| a guest that runs (QMP), %s | 1024 | fathom | %s |\n", dumpKernel, live)
	fmt.Fprintf(&wanted, "| a guest that runs: wall ms | ≤ %.0f | %s | %s |\n", livePage, spread(live.wall), yes(live.ok() && median(live.wall) <= livePage))
	load, _ := os.ReadFile("/proc/loadavg") // says how far to trust this
	fmt.Printf("# The first page of a crash dump\n\nMade by `make bench-core` on %s, %d CPUs; the load was %s at the end (one process of ours is 1). Times of the wall depend on what else ran. "+
		"The guests had 1 GiB of memory, or 10, and panicked (sysrq-c). fathom reads the dump alone and says why the kernel died; crash and drgn have 340 MB (6.12) and 630 MB (6.1) of "+
		"debug information and are asked for less: crash for the stack of the task that died, drgn for tasks and their stacks. Median (least) of %d runs of fathom and %d of the others.\n\n"+
		"## What was wanted\n\n| dump | wanted | median (least) | holds |\n| --- | --- | --- | --- |\n%s\n"+
		"## All that was measured\n\n| dump | MB | tool | wall ms | CPU ms | peak RSS MB |\n| --- | --- | --- | --- | --- | --- |\n%s",
		kernel(), cpus(), strings.Join(strings.Fields(string(load))[:1], ""), rounds, peerRounds, wanted.String(), table.String())
	return nil
}

// wants writes what a dump's first page may take, and whether it holds.
func wants(b *strings.Builder, f dumpFile, t, tenth *taken) {
	limit := elfCPU
	if f.kdump {
		limit = kdumpCPU
	}
	name := f.what + ", " + f.kernel
	fmt.Fprintf(b, "| %s: CPU ms | ≤ %.0f | %s | %s |\n", name, limit, spread(t.cpu), yes(t.ok() && median(t.cpu) <= limit))
	if tenth != nil {
		most := tenth.rss * growth
		fmt.Fprintf(b, "| %s: MB, as for a tenth of it | ≤ %.0f | %.1f | %s |\n", name, most, t.rss, yes(t.ok() && t.rss <= most))
		return
	}
	fmt.Fprintf(b, "| %s: MB | ≤ %.0f | %.1f | %s |\n", name, pageRSS, t.rss, yes(t.ok() && t.rss <= pageRSS))
}

// makeDumps has guests die and their dumps in every encoding. /proc/vmcore is from kernel/dump's tests, which have a capture kernel.
func makeDumps(dir string) (files []dumpFile, err error) {
	qemu := func(kernel string, mem int, formats ...string) (map[string]string, error) {
		made, err := deadGuest(dir, kernel, mem, formats)
		if err != nil {
			return nil, fmt.Errorf("make dumps of %s: %w", kernel, err)
		}
		return made, nil
	}
	one, err := qemu(dumpKernel, 1024, "elf", "paging", "kdump-zlib")
	if err != nil {
		return nil, err
	}
	old, err := qemu(crashKernel, 1024, "elf", "kdump-zlib")
	if err != nil {
		return nil, err
	}
	ten, err := qemu(dumpKernel, 10240, "elf", "kdump-zlib")
	if err != nil {
		return nil, err
	}
	capture := exec.Command("go", "test", "./kernel/dump", "-run", "TestEncodings", "-count=1")
	capture.Env = append(os.Environ(), "CGO_ENABLED=0", "FATHOM_ACCEL=tcg", "FATHOM_GUESTS="+dumpKernel, "FATHOM_DUMPS="+dir)
	if out, err := capture.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("capture /proc/vmcore: %w\n%s", err, out)
	}
	kexec := filepath.Join(dir, dumpKernel+"-kexec", "vmcore")
	files = []dumpFile{
		{what: "ELF (QEMU)", path: one["elf"], kernel: dumpKernel},
		{what: "ELF with page tables (QEMU)", path: one["paging"], kernel: dumpKernel},
		{what: "ELF (QEMU)", path: old["elf"], kernel: crashKernel},
		{what: "/proc/vmcore", path: kexec, kernel: dumpKernel},
		{what: "kdump-zlib, flattened (QEMU)", path: one["kdump-zlib"], kernel: dumpKernel, kdump: true},
		{what: "kdump-zlib, flattened (QEMU)", path: old["kdump-zlib"], kernel: crashKernel, kdump: true},
	}
	small, err := recompressed(dir, one["kdump-zlib"], "1")
	if err != nil {
		return nil, err
	}
	large, err := recompressed(dir, ten["kdump-zlib"], "10")
	if err != nil {
		return nil, err
	}
	for _, how := range encodings {
		files = append(files, dumpFile{what: "kdump, " + how, path: small[how], kernel: dumpKernel, kdump: true})
	}
	files = append(files, dumpFile{what: "ELF of 10 GiB", path: ten["elf"], kernel: dumpKernel, tenth: one["elf"]},
		dumpFile{what: "kdump-zlib, flattened, of 10 GiB", path: ten["kdump-zlib"], kernel: dumpKernel, kdump: true, tenth: one["kdump-zlib"]})
	for _, how := range encodings {
		files = append(files, dumpFile{what: "kdump of 10 GiB, " + how, path: large[how], kernel: dumpKernel, kdump: true, tenth: small[how]})
	}
	return files, nil
}

// encodings are how the pages of a kdump-compressed file may be compressed.
var encodings = []string{"zlib", "lzo", "snappy", "zstd"}

// recompressed makes of a flattened kdump file one of each encoding that is not flattened.
func recompressed(dir, flat, suffix string) (map[string]string, error) {
	in, err := os.Open(flat)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	made := map[string]string{}
	for _, how := range encodings {
		made[how] = filepath.Join(dir, how+suffix)
		cmd := exec.Command("/usr/bin/python3", "kernel/dump/testdata/recompress.py", made["zlib"], how, made[how])
		if how == "zlib" {
			cmd = exec.Command("makedumpfile", "-R", made[how])
			cmd.Stdin = in
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("compress pages with %s: %w\n%s", how, err, out)
		}
	}
	return made, nil
}

// deadGuest boots a kernel, has it panic and dumps it in formats: path by format.
func deadGuest(dir, kernel string, mem int, formats []string) (made map[string]string, err error) {
	name := fmt.Sprintf("bench-%d", os.Getpid())
	if err := fathom("lab", "boot", "--kernel", kernel, "--root", "none", "--mem", fmt.Sprint(mem), "--preset", "panic-wait", "--keep", name, "--while", fmt.Sprint(os.Getpid())); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, fathom("lab", "down", name)) }()
	if err := fathom("lab", "sysrq", "c", name); err != nil {
		return nil, err
	}
	for start := time.Now(); ; time.Sleep(200 * time.Millisecond) {
		out, err := exec.Command("./fathom", "lab", "list").Output()
		if slices.ContainsFunc(strings.Split(string(out), "\n"), func(line string) bool {
			f := strings.Fields(line)
			return len(f) > 1 && f[0] == name && f[1] == "panicked"
		}) {
			break
		}
		if err != nil || time.Since(start) > 5*time.Minute {
			return nil, fmt.Errorf("the guest does not panic: %v\n%s", err, out)
		}
	}
	made = map[string]string{}
	for _, format := range formats {
		made[format] = filepath.Join(dir, fmt.Sprintf("%s-%d-%s", kernel, mem, format))
		args := []string{"lab", "dump", name, made[format]}
		if format == "paging" {
			args = append(args, "--paging")
		} else {
			args = append(args, "--format", format)
		}
		if err := fathom(args...); err != nil {
			return nil, err
		}
	}
	return made, nil
}

// fathom runs the binary that is measured, for what is not.
func fathom(args ...string) error {
	cmd := exec.Command("./fathom", args...)
	cmd.Env = append(os.Environ(), "FATHOM_ACCEL=tcg")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("fathom %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// liveGuest measures the first page of a guest that runs, read through QMP while it stands still.
func liveGuest() *taken {
	name := fmt.Sprintf("bench-%d", os.Getpid())
	if err := fathom("lab", "boot", "--kernel", dumpKernel, "--root", "none", "--keep", name, "--while", fmt.Sprint(os.Getpid())); err != nil {
		return &taken{err: err}
	}
	defer exec.Command("./fathom", "lab", "down", name).Run()
	return measure([]string{"./fathom", "core", "--guest", name}, nil, rounds)
}

// vmlinuxOf is a kernel with its debug information, of which the cache of the tests keeps a copy after make soak; "" if there is none.
func vmlinuxOf(kernel string) string {
	dir, _ := os.UserCacheDir()
	pattern := "6.1.*"
	if kernel == dumpKernel {
		pattern = "6.12*cloud*"
	}
	found, _ := filepath.Glob(filepath.Join(dir, "fathom", "debuginfo", pattern, "vmlinux"))
	if len(found) == 0 {
		return ""
	}
	return found[len(found)-1]
}

// dumpPeer is a program that reads dumps with a vmlinux.
type dumpPeer struct {
	name string
	argv func(vmlinux, core string) []string
	env  []string
}

// peersOf are crash and drgn, if they are here.
func peersOf(newer string) (out []dumpPeer) {
	if path, err := exec.LookPath("crash"); err == nil {
		out = append(out, dumpPeer{name: strings.TrimSpace(strings.Split(version(path), "\n")[0]),
			argv: func(vmlinux, core string) []string {
				return []string{"sh", "-c", fmt.Sprintf("(echo bt; echo sys) | %s -s %s %s", path, vmlinux, core)}
			}})
	}
	argv := func(vmlinux, core string) []string {
		return []string{"/usr/bin/python3", "kernel/dump/testdata/with_drgn.py", core, vmlinux, "list_head"}
	}
	for _, dir := range []string{"", newer} {
		env := append(os.Environ(), "PYTHONPATH="+dir)
		say := exec.Command("/usr/bin/python3", "-c", "import drgn; print(drgn.__version__)")
		say.Env = env
		if v, err := say.Output(); err == nil {
			out = append(out, dumpPeer{name: "drgn " + strings.TrimSpace(string(v)), argv: argv, env: env})
		}
		if newer == "" {
			break
		}
	}
	return out
}

// taken is what runs of a program took; err is of the first that failed.
type taken struct {
	wall, cpu []float64 // ms
	rss       float64   // MB, the most
	err       error
	failed    time.Duration // how long the run took that failed
}

func (t *taken) ok() bool { return t.err == nil && len(t.cpu) > 0 }

// String is the three last columns of a row.
func (t *taken) String() string {
	if !t.ok() {
		return fmt.Sprintf("fails after %.0f | | ", ms(t.failed))
	}
	return fmt.Sprintf("%s | %s | %.1f", spread(t.wall), spread(t.cpu), t.rss)
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// measure runs a command some times.
func measure(argv, env []string, times int) *taken {
	t := &taken{}
	for range times {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Stdin, cmd.Env = strings.NewReader(""), env
		start := time.Now()
		out, err := cmd.CombinedOutput()
		wall := time.Since(start)
		if err != nil {
			t.err, t.failed = err, wall
			fmt.Fprintf(os.Stderr, "%s: %v\n%.2000s\n", strings.Join(argv, " "), err, out)
			return t
		}
		ru, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
		if !ok {
			continue
		}
		t.wall = append(t.wall, ms(wall))
		t.cpu = append(t.cpu, ms(time.Duration(ru.Utime.Nano()+ru.Stime.Nano())))
		t.rss = max(t.rss, float64(ru.Maxrss<<10)/1e6)
	}
	return t
}
