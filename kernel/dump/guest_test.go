package dump_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/kernel/dump"
	"github.com/fathom-trace/fathom/lab/guest"
	"github.com/fathom-trace/fathom/lab/guest/pid1"
	"github.com/fathom-trace/fathom/vmcore"
)

// envDumps names a folder in which dumps are kept from run to run; without it they live as long as the tests.
const envDumps = "FATHOM_DUMPS"

func TestMain(m *testing.M) {
	if disk := os.Getenv(envCapture); disk != "" && os.Getpid() == 1 {
		capture(disk)
	}
	if len(os.Args) > 1 && os.Args[1] == "die" {
		os.Exit(die())
	}
	if len(os.Args) > 1 && os.Args[1] == "suffer" {
		os.Exit(suffer(os.Args[2:]))
	}
	os.Exit(run(m))
}

// run runs the tests with a folder for dumps, so that a guest dies once for all of them.
func run(m *testing.M) int {
	if os.Getenv(ktest.EnvGuests) != "" && os.Getenv(envDumps) == "" && !pid1.IsInit() {
		dir, err := os.MkdirTemp("", "dumps-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		os.Setenv(envDumps, dir)
	}
	return ktest.Run(m, ktest.Config{})
}

// corpse is a guest that died: its dumps and what it said before.
type corpse struct {
	dir     string
	said    map[string]string
	console string
}

func (c corpse) path(format string) string { return filepath.Join(c.dir, format) }

// formats are the ways QEMU of Debian 12 writes a dump. With the page tables of a 6.1 it takes half a minute, so that is for
// long runs.
func formats(kernel string) map[string]guest.DumpOptions {
	f := map[string]guest.DumpOptions{"elf": {}, "kdump-zlib": {Format: "kdump-zlib"}}
	if kernel == kernels[0] || os.Getenv(envDebuginfo) != "" {
		f["elf-paging"] = guest.DumpOptions{Paging: true}
	}
	return f
}

// envMem is how many MiB the guests that die have; 512 if it is not set.
const envMem = "FATHOM_DUMP_MEM"

// need skips a test of a kernel that is not wanted.
func need(t *testing.T, kernel string) {
	t.Helper()
	if os.Getenv(ktest.EnvGuests) != "" || os.Getenv(envDumps) == "" { // dumps that are there already are read without guests
		ktest.Named(t, kernel)
	}
}

// killGuest boots a kernel, lets it die and dumps it in all formats.
func killGuest(t *testing.T, kernel string) corpse {
	t.Helper()
	need(t, kernel)
	c := corpse{dir: t.TempDir()}
	if d := os.Getenv(envDumps); d != "" {
		c.dir = filepath.Join(d, kernel)
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
	g, err := start(ctx, c.dir, kernel, said)
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
	for name, how := range formats(kernel) {
		if err := g.Dump(ctx, c.path(name), how); err != nil {
			t.Error(err)
		}
	}
	g.Quit()
	res, err := g.Wait()
	var pe *guest.PanicError
	if !errors.As(err, &pe) || len(res.Commands) > 0 {
		t.Logf("%d commands ended, %v", len(res.Commands), err)
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
func start(ctx context.Context, dir, kernel string, said io.Writer) (*guest.Guest, error) {
	o, err := options(ctx, kernel)
	if err != nil {
		return nil, err
	}
	o.Commands = []pid1.Command{{Args: []string{"/init", "die"}}}
	o.Append = []string{"panic=0", "slub_debug=U,signal_cache"} // whose owners are known
	swap := filepath.Join(dir, "swap")
	if err := errors.Join(os.WriteFile(swap, nil, 0o600), os.Truncate(swap, swapPages*4096)); err != nil {
		return nil, err
	}
	slow := filepath.Join(dir, "slow")
	if err := errors.Join(os.WriteFile(slow, nil, 0o600), os.Truncate(slow, 64<<20)); err != nil {
		return nil, err
	}
	// The slow disk's first reads are quick: those for a partition table, for which a boot waits.
	o.QEMUArgs = []string{"-device", "vmcoreinfo", "-drive", "file=" + swap + ",format=raw,if=virtio", "-drive", "file=" + slow + ",format=raw,if=virtio,throttling.bps-total=512,throttling.bps-total-max=32768"}
	o.Stdout = said
	o.Modules = append(o.Modules, "qemu_fw_cfg") // without it QEMU does not learn where the note is
	return guest.Start(ctx, o)
}

// options are what all guests here have.
func options(ctx context.Context, kernel string) (o guest.Options, err error) {
	cache, err := guest.UserCache()
	if err != nil {
		return o, err
	}
	o.Files = []guest.File{{Name: "/etc/hostname", Data: []byte("corpse")}}
	o.Modules = []string{"veth", "dummy", "virtio_blk"}
	o.Mem = 512
	if n, err := strconv.Atoi(os.Getenv(envMem)); err == nil {
		o.Mem = n
	}
	if o.Kernel, err = cache.Find(ctx, kernel, ""); err != nil {
		return o, err
	}
	if o.Init, err = os.Executable(); err != nil {
		return o, err
	}
	o.Accel, err = guest.ParseAccel(os.Getenv(ktest.EnvAccel))
	return o, err
}

// kernels are those that are killed: the newest and the oldest.
var kernels = []string{"debian-6.12-cloud", "debian-6.1"}

// TestDead compares what the dumps say with what the guests said before they died.
func TestDead(t *testing.T) {
	for _, k := range kernels {
		t.Run(k, func(t *testing.T) {
			c := killGuest(t, k)
			for f := range formats(k) {
				t.Run(f, func(t *testing.T) { autopsy(t, c, f) })
			}
		})
	}
}

// TestNoVMCoreInfo opens a dump whose note VMCOREINFO has another name, so that it is nobody's.
func TestNoVMCoreInfo(t *testing.T) {
	c := killGuest(t, kernels[0])
	f, err := os.Open(c.path("elf"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	head := make([]byte, 1<<20)
	if _, err := io.ReadFull(f, head); err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(head, []byte("VMCOREINFO\x00"))
	st, err := f.Stat()
	if err != nil || at < 0 {
		t.Fatal(at, err)
	}
	mem, err := vmcore.Open(vmcore.File{R: spoiled{f, st.Size(), []spot{{int64(at), 'X'}}}, Size: st.Size()})
	if err != nil {
		t.Fatal(err)
	}
	d, err := dump.Open(mem)
	if err != nil {
		t.Fatal(err)
	}
	if d.Info.Found == 0 {
		t.Error("the dump has a note")
	}
	checkTasks(t, c, d)
}

// open opens a dump: one file, or all of a split one.
func open(t *testing.T, names ...string) *dump.Dump {
	t.Helper()
	var files []vmcore.File
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		st, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, vmcore.File{R: f, Size: st.Size()})
	}
	mem, err := vmcore.Open(files...)
	if err != nil {
		t.Fatal(err)
	}
	d, err := dump.Open(mem)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
