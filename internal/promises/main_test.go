package promises

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/lab/guest"
	"github.com/fathom-trace/fathom/lab/guest/pid1"
)

// Roles make the test binary another program: inside is itself, with a /run of its own; work makes as many system calls as its
// argument says; refused and trapped run a program whose system calls are filtered, bare one without capabilities, masked one
// that sees empty folders.
const (
	envRole = "FATHOM_PROMISES_ROLE"
	inside  = "inside"
	work    = "work"
	refused = "refused"
	trapped = "trapped"
	bare    = "bare"
	masked  = "masked"
)

// patience bounds every wait for something that happens by itself.
const patience = 2 * time.Minute

var guests = ktest.Config{Modules: []string{"veth", "xfs?"}, Env: []string{"PATH=/usr/bin:/bin"}}

func TestMain(m *testing.M) {
	switch role, arg, _ := strings.Cut(os.Getenv(envRole), " "); role {
	case work:
		n, _ := strconv.Atoi(arg)
		for range n {
			_, _, _ = unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
		}
		return
	case refused, trapped:
		fmt.Fprintln(os.Stderr, filtered(role, os.Args[1:]))
		os.Exit(1)
	case bare, masked:
		fmt.Fprintln(os.Stderr, without(strings.Fields(arg), os.Args[1:]))
		os.Exit(1)
	case inside:
		if err := ownRun(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Unsetenv(envRole)
	default:
		if !ktest.InGuest() && !pid1.IsInit() && os.Geteuid() == 0 {
			os.Exit(again())
		}
	}
	os.Exit(tests(m))
}

// folder has the binary.
var folder string

func tests(m *testing.M) int {
	if !ktest.InGuest() && !pid1.IsInit() {
		var err error
		if folder, err = os.MkdirTemp("", "promises"); err == nil {
			err = os.Chmod(folder, 0o755)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(folder)
	}
	return ktest.Run(m, guests)
}

func TestGuest(t *testing.T) {
	if os.Getenv(ktest.EnvGuests) == "" || ktest.InGuest() {
		t.Skip(ktest.EnvGuests + " is not set")
	}
	c := guests
	c.Files = append(c.Files, guest.File{Name: "/usr/bin/fathom", Path: fathom(t)})
	c.Env = append(c.Env, EnvTimes+"="+os.Getenv(EnvTimes))
	if c.Kernels = []string{"debian-6.12"}; os.Getenv(EnvTimes) != "" {
		c.Kernels, c.Timeout = nil, time.Hour
	}
	ktest.Guests(t, c)
}

// again runs this program in a mount namespace of its own, so that what is left in /run is of these tests and of nobody else on the machine.
func again() int {
	self, err := os.Executable() // by its path, so that it is known by the same there
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), envRole+"="+inside)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return cmd.ProcessState.ExitCode()
}

// ownRun gives this process's mount namespace a /run that is empty.
func ownRun() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	return nil
}

// times is how often a test draws: n, or what make promises says.
func times(t *testing.T, n int) int {
	t.Helper()
	s := os.Getenv(EnvTimes)
	if s == "" {
		return n
	}
	k, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("%s: %v", EnvTimes, err)
	}
	if ktest.InGuest() { // everything is emulated there
		k /= 10
	}
	return max(k, n)
}

// dice are numbers at random, whose seed is logged.
func dice(t *testing.T) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("FATHOM_SEED"), 0, 64); err == nil {
		seed = s
	}
	t.Logf("FATHOM_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// fathom is the binary, where everybody may run it: in a guest it is there, else it is built once.
func fathom(t *testing.T) string {
	t.Helper()
	if ktest.InGuest() {
		return "/usr/bin/fathom"
	}
	bin := filepath.Join(folder, "fathom")
	if _, err := os.Stat(bin); err == nil {
		return bin
	}
	give(t, ktest.Fathom(t).Path, bin)
	return bin
}

// worker is this program, where everybody may run it, by a name of its own: others may run these tests at the same time, and rank counts
// by the name.
func worker(t *testing.T) string {
	t.Helper()
	const self = "/proc/self/exe"
	if ktest.InGuest() {
		return absolute(t, self)
	}
	bin := filepath.Join(folder, fmt.Sprintf("work%d", os.Getpid()))
	if _, err := os.Stat(bin); err != nil {
		give(t, self, bin)
	}
	return bin
}

// give copies a program to where everybody may run it.
func give(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// absolute is a file's own path.
func absolute(t *testing.T, name string) string {
	t.Helper()
	name, err := filepath.EvalSymlinks(name)
	if err == nil {
		name, err = filepath.Abs(name)
	}
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// everyones copies a file to where every user may read it: the tree need not be in such a place.
func everyones(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	to := filepath.Join(folder, filepath.Base(name))
	if err == nil {
		err = errors.Join(os.WriteFile(to, b, 0o644), os.Chmod(to, 0o644))
	}
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// needRoot skips a test without root.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// ran is what a command did.
type ran struct {
	code           int
	stdout, stderr string
}

// run runs a command to its end, and fails the test if it has none.
func run(t *testing.T, cmd *exec.Cmd) ran {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	err := cmd.Wait()
	if !late.Stop() {
		t.Fatalf("%v does not end: %s%s", cmd.Args, out.String(), errs.String())
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v", cmd.Args, err)
	}
	return ran{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// do runs a command that must succeed.
func do(t *testing.T, bin string, args ...string) string {
	t.Helper()
	r := run(t, exec.CommandContext(context.Background(), bin, args...))
	if r.code != 0 {
		t.Fatalf("%s %v: exit code %d\n%s%s", filepath.Base(bin), args, r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// eventually waits until nothing is wrong.
func eventually(t *testing.T, wrong func() string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		w := wrong()
		if w == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(w)
		}
	}
}

// measured tells the page of results (internal/gen/rows) what a test has seen.
func measured(t *testing.T, format string, args ...any) {
	t.Helper()
	t.Logf("measured: "+format, args...)
}
