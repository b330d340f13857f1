package dump_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/kernel/dump"
	"github.com/fathom-trace/fathom/kernel/unwind"
	"github.com/fathom-trace/fathom/kernel/walk"
	"github.com/fathom-trace/fathom/lab/guest"
	"github.com/fathom-trace/fathom/lab/guest/pid1"
	"github.com/fathom-trace/fathom/vmcore"
)

// envDumps names a folder in which dumps are kept from run to run; without it they live as long as the test.
const envDumps = "FATHOM_DUMPS"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "die" {
		os.Exit(die())
	}
	ktest.Main(m, ktest.Config{})
}

// die runs in the guest: it writes what /proc says of the kernel as JSON, path to contents, and crashes the kernel.
func die() int {
	keep, err := os.Open("/etc/hostname") // a file that a walk over our descriptors must find
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer keep.Close()
	os.WriteFile("/proc/self/comm", []byte("dying"), 0)
	os.WriteFile("/dev/kmsg", []byte("fathom: last words\n"), 0)
	if err := json.NewEncoder(os.Stdout).Encode(witness()); err != nil {
		return 1
	}
	for { // until PID 1 has it, and the host
		if n, err := unix.IoctlGetInt(1, unix.TIOCINQ); err != nil || n == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(time.Second)
	os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0)
	return 1
}

// witness reads what the kernel says of itself.
func witness() map[string]string {
	w := map[string]string{}
	for _, pattern := range []string{
		"/proc/[0-9]*/comm", "/proc/[0-9]*/stat", "/proc/[0-9]*/stack", "/proc/modules", "/proc/kallsyms", "/proc/mounts",
		"/proc/interrupts", "/proc/meminfo", "/proc/slabinfo", "/proc/net/dev", "/proc/version", "/proc/cmdline",
		"/proc/sys/kernel/tainted", "/sys/kernel/notes", "/proc/uptime",
	} {
		paths, _ := filepath.Glob(pattern)
		for _, p := range paths {
			if b, err := os.ReadFile(p); err == nil {
				w[p] = string(b)
			}
		}
	}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, p := range fds {
		if to, err := os.Readlink(p); err == nil {
			w[p] = to
		}
	}
	w["dmesg"] = dmesg()
	return w
}

func dmesg() string {
	b := make([]byte, 4<<20)
	n, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, b)
	if err != nil {
		return err.Error()
	}
	return string(b[:n])
}

// corpse is a guest that died: its dumps and what it said before.
type corpse struct {
	dir     string
	said    map[string]string
	console string
}

func (c corpse) path(format string) string { return filepath.Join(c.dir, format) }

// formats are the ways QEMU of Debian 12 writes a dump.
var formats = map[string]map[string]any{
	"elf":        {"paging": false},
	"elf-paging": {"paging": true},
	"kdump-zlib": {"paging": false, "format": "kdump-zlib"},
}

// killGuest boots a kernel, lets it die and dumps it in all formats.
func killGuest(t *testing.T, kernel string, vmcoreinfo bool) corpse {
	t.Helper()
	if os.Getenv(ktest.EnvGuests) == "" && os.Getenv(envDumps) == "" {
		t.Skip(ktest.EnvGuests + " is not set")
	}
	c := corpse{dir: t.TempDir()}
	if d := os.Getenv(envDumps); d != "" {
		c.dir = filepath.Join(d, fmt.Sprintf("%s-%v", kernel, vmcoreinfo))
		if c.load() == nil {
			return c
		}
		if err := os.MkdirAll(c.dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	said, err := os.Create(c.path("said"))
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	g, err := start(ctx, kernel, vmcoreinfo, said)
	if err != nil {
		t.Fatal(err)
	}
	for !strings.Contains(g.Console(), "end Kernel panic") {
		select {
		case <-g.Done():
			_, err := g.Wait()
			t.Fatal(err)
		case <-time.After(100 * time.Millisecond):
		}
	}
	for name, args := range formats {
		args["protocol"] = "file:" + c.path(name)
		if _, err := g.QMP().Execute(ctx, "dump-guest-memory", args); err != nil {
			t.Error(err)
		}
	}
	g.Quit()
	res, err := g.Wait()
	var pe *guest.PanicError
	if !errors.As(err, &pe) || len(res.Commands) > 0 {
		t.Logf("%v, %v", res.Commands, err)
	}
	if err := os.WriteFile(c.path("console"), []byte(res.Console), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.load(); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *corpse) load() error {
	b, err := os.ReadFile(c.path("said"))
	if err != nil {
		return err
	}
	con, err := os.ReadFile(c.path("console"))
	c.console = string(con)
	return errors.Join(err, json.Unmarshal(b, &c.said))
}

// start boots a kernel whose only command is [die]; with panic=0 it stays for its dumps.
func start(ctx context.Context, kernel string, vmcoreinfo bool, said io.Writer) (*guest.Guest, error) {
	cache, err := guest.UserCache()
	if err != nil {
		return nil, err
	}
	o := guest.Options{
		Commands: []pid1.Command{{Args: []string{"/init", "die"}}},
		Files:    []guest.File{{Name: "/etc/hostname", Data: []byte("corpse")}},
		Modules:  []string{"veth", "dummy"},
		Append:   []string{"panic=0"},
		QEMUArgs: []string{"-device", "vmcoreinfo"},
		Stdout:   said,
	}
	if vmcoreinfo {
		o.Modules = append(o.Modules, "qemu_fw_cfg") // without it QEMU does not learn where the note is
	}
	if o.Kernel, err = cache.Kernel(ctx, kernel); err != nil {
		return nil, err
	}
	if o.Init, err = os.Executable(); err != nil {
		return nil, err
	}
	if o.Accel, err = guest.ParseAccel(os.Getenv(ktest.EnvAccel)); err != nil {
		return nil, err
	}
	return guest.Start(ctx, o)
}

func TestDead(t *testing.T) {
	for _, k := range []string{"debian-6.12-cloud", "debian-6.1"} {
		c := killGuest(t, k, true)
		for f := range formats {
			t.Run(k+"/"+f, func(t *testing.T) { autopsy(t, c, f) })
		}
	}
}

func autopsy(t *testing.T, c corpse, format string) {
	f, err := os.Open(c.path(format))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, _ := f.Stat()
	start := time.Now()
	core, err := vmcore.Open(vmcore.File{R: f, Size: st.Size()})
	if err != nil {
		t.Fatal(err)
	}
	d, err := dump.Open(core)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(core.Format, core.Detail, core.Flattened, len(core.CPUs), d.Kallsyms().Len(), d.Caps(), time.Since(start))
	for task, err := range walk.Tasks(d) {
		if err != nil {
			t.Error(err)
			continue
		}
		var s unwind.Stack
		if task.OnCPU && task.CPU < len(d.Registers()) {
			s = unwind.From(d, d.Registers()[task.CPU])
		} else {
			s = unwind.Task(d, task.Value)
		}
		t.Log(task.PID, task.TGID, task.PPID, task.Comm, task.State, task.CPU, task.OnCPU, task.VM, task.RSS, len(s.Frames), s.End, s.Err)
		if task.OnCPU {
			for _, f := range s.Frames {
				at := f.PC
				if f.Call {
					at--
				}
				y, _ := d.Kallsyms().At(at)
				t.Logf("  %#x %s+%#x [%s] %v %v", f.PC, y.Name, f.PC-y.Addr, y.Module, f.Scanned, f.Regs != nil)
			}
		}
	}
	n := 0
	for m, err := range walk.Log(d) {
		if err != nil {
			t.Error(err)
		}
		n++
		_ = m
	}
	t.Log(n, "messages", len(d.Modules()), time.Since(start))
	for _, m := range d.Modules() {
		t.Log(m.Name, m.Size, m.Refs, m.Taints, m.State, m.Unwind != nil)
	}
}
