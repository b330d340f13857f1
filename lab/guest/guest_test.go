package guest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/lab/guest"
	"github.com/fathom-trace/fathom/lab/guest/initramfs"
	"github.com/fathom-trace/fathom/lab/guest/pid1"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "actor" {
		os.Exit(act(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == "boot-and-wait" {
		bootAndWait()
	}
	ktest.Main(m, ktest.Config{})
}

// act is what the tests run in guests.
func act(args []string) int {
	switch args[0] {
	case "say":
		b, _ := os.ReadFile("/etc/motd")
		mods, _ := os.ReadFile("/proc/modules")
		fmt.Printf("%s|%s|%s|%v", b, os.Getenv("COLOR"), os.Args[0], bytes.Contains(mods, []byte("veth")))
		fmt.Fprint(os.Stderr, "to stderr")
		os.WriteFile("/tmp/out.bin", bytes.Repeat([]byte{1, 2, 3, 0xfa}, 1<<18), 0o600)
		return 3
	case "orphan": // leaves a child that holds the output
		cmd := exec.Command("/init", "actor", "sleep")
		cmd.Stdout = os.Stdout
		if err := cmd.Start(); err != nil {
			fmt.Println(err)
			return 1
		}
	case "killself":
		syscall.Kill(os.Getpid(), syscall.SIGTERM)
		time.Sleep(time.Minute)
	case "panic":
		fmt.Println("before")
		flushed()
		os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0)
	case "sleep":
		fmt.Println("asleep")
		time.Sleep(time.Hour)
	}
	return 0
}

// flushed waits until PID 1 has taken what we wrote from the pipe, and gives it a second to hand it to the host.
func flushed() {
	for {
		if n, err := unix.IoctlGetInt(1, unix.TIOCINQ); err != nil || n == 0 {
			time.Sleep(time.Second)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// opts boots the smallest kernel with this test binary, if guests are wanted.
func opts(t *testing.T, cmds ...string) guest.Options {
	t.Helper()
	if os.Getenv(ktest.EnvGuests) == "" {
		t.Skip(ktest.EnvGuests + " is not set")
	}
	o, err := options(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cmds {
		o.Commands = append(o.Commands, pid1.Command{Args: []string{"/init", "actor", c}, Env: []string{"COLOR=blue"}})
	}
	return o
}

func options(ctx context.Context) (o guest.Options, err error) {
	cache, err := guest.UserCache()
	if err != nil {
		return o, err
	}
	if o.Kernel, err = cache.Kernel(ctx, "debian-6.12-cloud"); err != nil {
		return o, err
	}
	if o.Init, err = os.Executable(); err != nil {
		return o, err
	}
	o.Accel, err = guest.ParseAccel(os.Getenv(ktest.EnvAccel))
	return o, err
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// TestRun sees everything a good run brings back.
func TestRun(t *testing.T) {
	o := opts(t, "say", "orphan", "killself")
	var stdout, console bytes.Buffer
	o.Stdout, o.Console = &stdout, &console
	o.Modules = []string{"veth"}
	sh, err := guest.Program("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	o.Files = append(sh, guest.File{Name: "/etc/motd", Data: []byte("welcome")})
	o.Commands = append(o.Commands, pid1.Command{Args: []string{"/bin/sh", "-c", "echo $((6*7)); exit 9"}})
	o.Collect = []string{"/tmp/*.bin", "/proc/version"}
	o.Pack = initramfs.Gzip
	res, err := guest.Run(within(t, 2*time.Minute), o)
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Commands) != 4 || len(res.Log) > 0 || res.Release != o.Kernel.Release {
		t.Fatalf("%d commands, log %q, release %s", len(res.Commands), res.Log, res.Release)
	}
	say, orphan, killed := res.Commands[0], res.Commands[1], res.Commands[2]
	if say.Code != 3 || say.Stdout != "welcome|blue|/init|true" || say.Stderr != "to stderr" {
		t.Errorf("say: %+v", say)
	}
	if orphan.Code != 0 || orphan.Stdout != "asleep\n" || orphan.Took < time.Second {
		t.Errorf("orphan: %+v", orphan)
	}
	if killed.Code != 143 || killed.Signal != int(syscall.SIGTERM) {
		t.Errorf("killed: %+v", killed)
	}
	if sh := res.Commands[3]; sh.Code != 9 || sh.Stdout != "42\n" {
		t.Errorf("sh: %+v", sh)
	}
	if got := res.Files["/tmp/out.bin"]; !bytes.Equal(got, bytes.Repeat([]byte{1, 2, 3, 0xfa}, 1<<18)) {
		t.Errorf("out.bin: %d bytes", len(got))
	}
	if !strings.HasPrefix(string(res.Files["/proc/version"]), "Linux version ") {
		t.Errorf("version: %q", res.Files["/proc/version"])
	}
	if !strings.HasPrefix(stdout.String(), "welcome") || !strings.Contains(console.String(), "Power down") {
		t.Errorf("stdout %q, console %q", stdout.String(), console.String())
	}
	t.Logf("boot %s, total %s", res.Boot, res.Total)
}

func TestPanic(t *testing.T) {
	res, err := guest.Run(within(t, 2*time.Minute), opts(t, "panic", "say"))
	var pe *guest.PanicError
	if !errors.As(err, &pe) || pe.Line != "Kernel panic - not syncing: sysrq triggered crash" || !strings.Contains(pe.Console, "sysrq_handle_crash") {
		t.Fatal(err)
	}
	if len(res.Commands) != 1 || res.Commands[0].Code != -1 || res.Commands[0].Stdout != "before\n" {
		t.Errorf("%+v", res.Commands)
	}
}

// overdue is a context whose time is over when somebody says so.
type overdue struct {
	context.Context
	over chan struct{}
}

func (o overdue) Done() <-chan struct{} { return o.over }

func (o overdue) Err() error {
	select {
	case <-o.over:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// TestHang covers a guest that is late, and one that stands still.
func TestHang(t *testing.T) {
	t.Run("late", func(t *testing.T) {
		o := opts(t, "sleep")
		ctx := overdue{within(t, 2*time.Minute), make(chan struct{})}
		end := sync.OnceFunc(func() { close(ctx.over) })
		context.AfterFunc(ctx.Context, end)
		o.Stdout = writerFunc(func(b []byte) (int, error) { end(); return len(b), nil })
		res, err := guest.Run(ctx, o)
		var he *guest.HangError
		if !errors.As(err, &he) || !errors.Is(err, context.DeadlineExceeded) || len(res.Commands) != 1 || res.Commands[0].Stdout != "asleep\n" {
			t.Fatalf("%v, %+v", err, res.Commands)
		}
	})
	t.Run("silent", func(t *testing.T) {
		o := opts(t, "sleep")
		o.HangAfter = 20 * time.Second // more than a guest is silent for while it boots
		g, err := guest.Start(within(t, 2*time.Minute), o)
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-g.Ready():
		case <-g.Done():
		}
		if _, err := g.QMP().Execute(t.Context(), "stop", nil); err != nil {
			t.Error(err)
		}
		var he *guest.HangError
		if _, err := g.Wait(); !errors.As(err, &he) || he.Err != nil || he.After < o.HangAfter {
			t.Error(err)
		}
	})
}

// TestQMP dumps a lingering guest's memory and ends it.
func TestQMP(t *testing.T) {
	o := opts(t, "say")
	o.Linger, o.Mem = true, 256
	g, err := guest.Start(within(t, 2*time.Minute), o)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-g.Ready():
	case <-g.Done():
	}
	core := filepath.Join(t.TempDir(), "core")
	_, err = g.QMP().Execute(t.Context(), "dump-guest-memory", map[string]any{"paging": false, "protocol": "file:" + core})
	if err != nil {
		t.Error(err)
	}
	if st, err := os.Stat(core); err != nil || st.Size() < 256<<20 {
		t.Error("dump:", st, err)
	}
	select {
	case <-g.Ended():
	case <-g.Done():
	}
	g.Quit()
	if res, err := g.Wait(); err != nil || res.Commands[0].Code != 3 {
		t.Errorf("%+v, %v", res.Commands, err)
	}
}

func TestBadOptions(t *testing.T) {
	o := opts(t)
	o.QEMUArgs = []string{"-device", "nosuch"}
	var ee *guest.EndError
	if _, err := guest.Run(within(t, time.Minute), o); !errors.As(err, &ee) || !strings.Contains(ee.QEMU, "nosuch") {
		t.Error(err)
	}
	o.QEMU = "qemu-nosuch"
	var se *guest.SetupError
	if _, err := guest.Run(t.Context(), o); !errors.As(err, &se) || len(se.Try) == 0 {
		t.Error(err)
	}
	o.Modules = []string{"nosuch"}
	if _, err := guest.Run(t.Context(), o); err == nil || err.Error() != "build initramfs: module nosuch: not found, and not built in" {
		t.Error(err)
	}
}

// bootAndWait boots a guest, prints QEMU's process id once it is up, and waits to be killed.
func bootAndWait() {
	o, err := options(context.Background())
	o.Commands = []pid1.Command{{Args: []string{"/init", "actor", "sleep"}}}
	if err == nil {
		var g *guest.Guest
		if g, err = guest.Start(context.Background(), o); err == nil {
			fmt.Println(g.PID())
			_, err = g.Wait()
		}
	}
	fmt.Println(err)
	os.Exit(1)
}

// TestKill9 sees that QEMU dies with the process that started it.
func TestKill9(t *testing.T) {
	o := opts(t)
	cmd := exec.Command(o.Init, "boot-and-wait")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscan(out, &pid); err != nil || syscall.Kill(pid, 0) != nil {
		t.Errorf("no qemu %d: %v", pid, err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	for deadline := time.Now().Add(time.Minute); alive(pid); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("qemu lives on")
		}
	}
}

// alive reports that a process exists and is no zombie.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !bytes.Contains(b, []byte(") Z "))
}
