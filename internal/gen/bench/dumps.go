package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// dumpKernel is the kernel whose dumps are read: its debug information is the smallest that Debian has.
const dumpKernel = "debian-6.12-cloud"

// dumps measures the first page of a crash dump beside crash and drgn. The dumps are those of kernel/dump's tests; peers have the
// kernel's debug information, of which the test's cache keeps a copy after make soak.
func dumps() {
	dir, err := os.MkdirTemp("", "fathom-bench-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer os.RemoveAll(dir)
	fmt.Printf("## First page of a crash dump\n\nDumps of a guest of 1 GiB with %s that panicked. fathom reads the dump alone; crash and drgn have 340 MB of debug information and are asked for the stack of the task that died (drgn: of all tasks). Median (least) of %d.\n\n", dumpKernel, rounds)
	test := exec.Command("go", "test", "./kernel/dump", "-run", "TestDead/"+dumpKernel+"|TestEncodings", "-count=1")
	test.Env = append(os.Environ(), "CGO_ENABLED=0", "FATHOM_ACCEL=tcg", "FATHOM_GUESTS="+dumpKernel, "FATHOM_DUMPS="+dir, "FATHOM_DUMP_MEM=1024")
	if out, err := test.CombinedOutput(); err != nil {
		fmt.Printf("The dumps could not be made: %v\n\n", err)
		os.Stderr.Write(out)
		return
	}
	fmt.Printf("| dump | MB | tool | wall ms | CPU ms | peak RSS MB |\n| --- | --- | --- | --- | --- | --- |\n")
	guest, kexec := filepath.Join(dir, dumpKernel), filepath.Join(dir, dumpKernel+"-kexec", "vmcore")
	files := []struct{ what, path string }{
		{"ELF (QEMU)", filepath.Join(guest, "elf")}, {"ELF with page tables (QEMU)", filepath.Join(guest, "elf-paging")},
		{"kdump-zlib, flattened (QEMU)", filepath.Join(guest, "kdump-zlib")}, {"/proc/vmcore", kexec},
	}
	zlib := filepath.Join(dir, "zlib")
	if exec.Command("makedumpfile", "-c", "-d", "1", kexec, zlib).Run() == nil {
		files = append(files, struct{ what, path string }{"makedumpfile -c", zlib})
		for _, how := range []string{"lzo", "snappy", "zstd"} {
			to := filepath.Join(dir, how)
			if exec.Command("/usr/bin/python3", "kernel/dump/testdata/recompress.py", zlib, to, how).Run() == nil {
				files = append(files, struct{ what, path string }{"kdump, " + how, to})
			}
		}
	}
	vmlinux, _ := filepath.Glob(filepath.Join(userCache(), "fathom", "debuginfo", "*cloud*", "vmlinux"))
	for _, f := range files {
		st, err := os.Stat(f.path)
		if err != nil {
			continue
		}
		tools := []tool{{"fathom", []string{"./fathom", "core", f.path}}}
		if len(vmlinux) > 0 {
			tools = append(tools, peersOf(vmlinux[len(vmlinux)-1], f.path)...)
		}
		for _, t := range tools {
			row(fmt.Sprintf("%s | %d | %s", f.what, st.Size()>>20, t.name), t.argv)
		}
	}
	fmt.Println()
}

func userCache() string {
	dir, _ := os.UserCacheDir()
	return dir
}

// peersOf are crash and drgn, if they are here.
func peersOf(vmlinux, core string) (out []tool) {
	if path, err := exec.LookPath("crash"); err == nil {
		out = append(out, tool{"crash", []string{"sh", "-c", fmt.Sprintf("echo bt | %s -s %s %s", path, vmlinux, core)}})
	}
	if exec.Command("/usr/bin/python3", "-c", "import drgn").Run() == nil {
		out = append(out, tool{"drgn", []string{"/usr/bin/python3", "kernel/dump/testdata/with_drgn.py", core, vmlinux, "list_head"}})
	}
	return out
}

// row runs a command often and prints a row of the table; fewer times if it takes long.
func row(head string, argv []string) {
	var wall, cpu []float64
	var rss int64
	for range rounds {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Stdin = strings.NewReader("")
		start := time.Now()
		err := cmd.Run()
		took := time.Since(start)
		if err != nil {
			fmt.Printf("| %s | fails after %.0f | | |\n", head, ms(took))
			return
		}
		if ru, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
			cpu = append(cpu, ms(time.Duration(ru.Utime.Nano()+ru.Stime.Nano())))
			rss = max(rss, ru.Maxrss<<10)
		}
		wall = append(wall, ms(took))
		if took > 3*time.Second && len(wall) == 3 {
			break
		}
	}
	fmt.Printf("| %s | %s | %s | %.1f |\n", head, spread(wall), spread(cpu), float64(rss)/1e6)
}
