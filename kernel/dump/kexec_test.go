package dump_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/answers/core"
	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/kernel/dump"
	"github.com/fathom-trace/fathom/lab/guest"
	"github.com/fathom-trace/fathom/lab/guest/initramfs"
	"github.com/fathom-trace/fathom/lab/guest/pid1"
	"github.com/fathom-trace/fathom/vmcore"
)

// envCapture is in the environment of PID 1 of a capture kernel, which has it from its command line: the disk to copy to.
const envCapture = "FATHOM_CAPTURE"

// Where the guest finds what it loads for the time after its death.
const (
	captureImage  = "/capture/vmlinuz"
	captureInitrd = "/capture/initrd"
	captureModule = "/virtio_blk.ko" // its dependencies are built in
)

// loadCapture loads the capture kernel, as kexec -p does.
func loadCapture() error {
	img, err := os.Open(captureImage)
	if err != nil {
		return err
	}
	defer img.Close()
	initrd, err := os.Open(captureInitrd)
	if err != nil {
		return err
	}
	defer initrd.Close()
	const cmdline = "console=ttyS0 quiet rdinit=/init maxcpus=1 reset_devices no_timer_check tsc=reliable panic=-1 " + envCapture + "=/dev/vda"
	return unix.KexecFileLoad(int(img.Fd()), int(initrd.Fd()), cmdline, unix.KEXEC_FILE_ON_CRASH)
}

// capture is PID 1 of the capture kernel: it copies /proc/vmcore to a disk, behind its length, and ends the machine.
func capture(disk string) {
	fail := func(err error) {
		if err != nil {
			fmt.Println("capture:", err)
			unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
		}
	}
	os.Mkdir("/proc", 0o755)
	os.Mkdir("/dev", 0o755)
	fail(unix.Mount("proc", "/proc", "proc", 0, ""))
	fail(unix.Mount("dev", "/dev", "devtmpfs", 0, ""))
	if m, err := os.Open(captureModule); err == nil {
		fail(unix.FinitModule(int(m.Fd()), "", 0))
	}
	in, err := os.Open("/proc/vmcore")
	fail(err)
	out, err := os.OpenFile(disk, os.O_WRONLY, 0)
	fail(err)
	buf, zero, at := make([]byte, 1<<20), make([]byte, 1<<20), int64(0)
	for {
		n, err := io.ReadFull(in, buf)
		if n > 0 && !bytes.Equal(buf[:n], zero[:n]) { // the disk is zero already
			_, werr := out.WriteAt(buf[:n], at)
			fail(werr)
		}
		at += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		fail(err)
	}
	fail(out.Sync())
	fmt.Println("captured", at)
	unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}

// kexecGuest kills a kernel that has a capture kernel, and gives the path of its /proc/vmcore.
func kexecGuest(t *testing.T, kernel string) string {
	t.Helper()
	need(t, kernel)
	dir := t.TempDir()
	if d := os.Getenv(envDumps); d != "" {
		dir = filepath.Join(d, kernel+"-kexec")
		if name := filepath.Join(dir, "vmcore"); exists(name) {
			return name
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	disk := filepath.Join(dir, "vmcore")
	if err := errors.Join(os.WriteFile(disk, nil, 0o600), os.Truncate(disk, 1<<30)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	o, err := options(ctx, kernel)
	if err != nil {
		t.Fatal(err)
	}
	initrd := filepath.Join(t.TempDir(), "initrd")
	if err := captureFiles(o.Kernel, o.Init, initrd); err != nil {
		t.Fatal(err)
	}
	o.Commands = []pid1.Command{{Args: []string{"/init", "die", "kexec"}}}
	o.Files = append(o.Files, guest.File{Name: captureImage, Path: o.Kernel.Image()}, guest.File{Name: captureInitrd, Path: initrd})
	o.Append = []string{"crashkernel=192M"}
	o.Mem = 640
	o.QEMUArgs = []string{"-drive", "file=" + disk + ",format=raw,if=virtio,cache=unsafe"}
	g, err := guest.Start(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	res, _ := g.Wait() // it died: an error is what is wanted
	_, after, ok := strings.Cut(res.Console, "captured ")
	size := int64(0)
	if _, err := fmt.Sscan(after, &size); !ok || err != nil {
		os.Remove(disk)
		t.Fatalf("no capture: %v\n%s", res.Commands, res.Console)
	}
	if err := os.Truncate(disk, size); err != nil {
		t.Fatal(err)
	}
	return disk
}

func exists(name string) bool { _, err := os.Stat(name); return err == nil }

// captureFiles makes the initramfs of the capture kernel: this binary, and the disk's driver.
func captureFiles(k guest.Kernel, init, name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	mods, err := k.Modules()
	if err != nil {
		return err
	}
	disk, err := mods.Resolve("virtio_blk")
	if err != nil {
		return err
	}
	self, err := os.Open(init)
	if err != nil {
		return err
	}
	defer self.Close()
	st, err := self.Stat()
	if err != nil {
		return err
	}
	w := initramfs.NewWriter(f)
	err = w.File("/init", 0o755, st.Size(), self)
	for _, m := range disk {
		err = errors.Join(err, w.Bytes(captureModule, 0o644, m.ELF))
	}
	return errors.Join(err, w.Char("/dev/console", 0o600, 5, 1), w.Close())
}

// pageOf is the first page of a dump, without the line that says which file it is.
func pageOf(t *testing.T, names ...string) (page string, c *vmcore.Core) {
	t.Helper()
	d := open(t, names...)
	var b strings.Builder
	if err := core.New(d, "").Page(&b); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"ps", "foreach bt", "mod", "log", "kmem -s", "files 1", "mount", "net", "irq", "dev"} {
		fmt.Fprintf(&b, "== %s\n", command)
		if err := core.New(d, "").Run(&b, strings.Fields(command)); err != nil {
			t.Errorf("%v: %s: %v", names, command, err)
		}
	}
	return b.String(), d.Core
}

// TestEncodings wants every encoding of one dump to answer alike: /proc/vmcore of a capture kernel, what makedumpfile makes
// of it, and what the compressors make that Debian's makedumpfile does not have.
func TestEncodings(t *testing.T) {
	raw := kexecGuest(t, kernels[0])
	mdf := ktest.Oracle(t, "makedumpfile")
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	run := func(program string, args ...string) {
		t.Helper()
		if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v\n%s", program, args, err, out)
		}
	}
	want, c := pageOf(t, raw)
	if c.Format != vmcore.FormatELF || !strings.Contains(want, "sysrq_handle_crash") || !strings.Contains(want, "[kthreadd]") {
		t.Fatalf("%s:\n%.3000s", c.Format, want)
	}
	check := func(how string, names ...string) {
		t.Helper()
		got, c := pageOf(t, names...)
		if got != want {
			t.Errorf("%s (%s %s) answers otherwise:\n%s", how, c.Format, c.Detail, firstDifference(want, got))
		}
	}
	run(mdf, "-c", "-d", "1", raw, in("zlib"))
	check("makedumpfile -c", in("zlib"))
	run(mdf, "-l", "-d", "1", raw, in("lzo"))
	check("makedumpfile -l", in("lzo"))
	run(mdf, "-E", "-d", "1", raw, in("elf"))
	check("makedumpfile -E", in("elf"))
	run(mdf, "--split", "-l", "-d", "1", raw, in("s1"), in("s2"), in("s3"))
	check("makedumpfile --split", in("s2"), in("s1"), in("s3"))
	flat, err := os.Create(in("flat"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(mdf, "-F", "-l", "-d", "1", raw)
	cmd.Stdout = flat
	if err := errors.Join(cmd.Run(), flat.Close()); err != nil {
		t.Fatal(err)
	}
	check("makedumpfile -F", in("flat"))
	again := []string{"raw", "zlib", "lzo", "snappy", "zstd"}
	args := []string{"testdata/recompress.py", in("zlib")}
	for _, how := range again {
		args = append(args, how, in("re-"+how))
	}
	if out, err := exec.Command("/usr/bin/python3", args...).CombinedOutput(); err != nil {
		ktest.Missing(t, fmt.Sprintf("recompress: %v\n%s", err, out))
	}
	for _, how := range again {
		check("recompressed with "+how, in("re-"+how))
	}
	checkLossy(t, mdf, raw, in("d31"))
	checkCut(t, in("lzo"), in("cut"))
}

// checkLossy opens what an old makedumpfile makes of a kernel newer than it knows: live pages are gone. What is left is
// shown, and what is missing is said.
func checkLossy(t *testing.T, mdf, raw, name string) {
	if out, err := exec.Command(mdf, "-l", "-d", "31", raw, name).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	d := open(t, name)
	var page, ps strings.Builder
	// Which pages are gone differs: the stack of the task that panicked may be among them.
	err := core.New(d, "").Page(&page)
	if s := page.String(); err != nil || !strings.Contains(s, "sysrq triggered crash") || !strings.Contains(s, "sysrq_handle_crash") && !strings.Contains(s, "excluded from the dump") {
		t.Errorf("%v\n%s", err, s)
	}
	err = core.New(d, "").Run(&ps, []string{"ps"})
	t.Logf("%d tasks, %v, missing: %v", strings.Count(ps.String(), "\n")-1, err, d.Caps().Missing)
	if err != nil && !strings.Contains(err.Error(), "excluded from the dump") {
		t.Errorf("ps: %v", err)
	}
}

// checkCut opens two thirds of a dump.
func checkCut(t *testing.T, whole, name string) {
	b, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, b[:len(b)/3*2], 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c, err := vmcore.Open(vmcore.File{R: f, Size: int64(len(b) / 3 * 2)})
	if err != nil {
		t.Fatal(err)
	}
	if d, err := dump.Open(c); err == nil {
		var page strings.Builder
		if err := core.New(d, "").Page(&page); err != nil {
			t.Error(err)
		}
	} else if !strings.Contains(err.Error(), string(vmcore.FileEnds)) {
		t.Errorf("cut short: %v", err)
	}
}

func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(w), len(g)) {
		if w[i] != g[i] {
			return fmt.Sprintf("line %d\nwant %s\n got %s", i+1, w[i], g[i])
		}
	}
	return fmt.Sprintf("%d lines, not %d", len(g), len(w))
}
