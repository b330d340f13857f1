package ktest

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fathom-trace/fathom/lab/guest"
	"github.com/fathom-trace/fathom/lab/guest/pid1"
)

// workDir is where tests run in a guest; testdata is below it.
const workDir = "/work"

// Guests boots every kernel that FATHOM_GUESTS names, runs the package's kernel tests there, and reports them as subtests.
// A guest that panics or hangs fails the test with the end of its console.
func Guests(t *testing.T, c Config) {
	if InGuest() {
		t.Skip("runs on the host")
	}
	if os.Getenv(EnvGuests) == "" {
		t.Skip(skipped)
	}
	names, err := wanted(os.Getenv(EnvGuests))
	if err != nil {
		t.Fatal(err)
	}
	pattern := c.Run
	if pattern == "" {
		if pattern, err = kernelTests("."); err != nil {
			t.Fatalf("find the tests that call ktest.Need: %v", err)
		}
	}
	for _, name := range names {
		if !c.takes(name) {
			continue
		}
		t.Run(strings.TrimSuffix(filepath.Base(name), ".deb"), func(t *testing.T) { boot(t, c, name, pattern) })
	}
}

// takes says if the package runs in a kernel of those that are wanted.
func (c *Config) takes(name string) bool {
	if len(c.Kernels) > 0 && !isFile(name) {
		return slices.Contains(c.Kernels, name)
	}
	return lookup(name).Like == "" || os.Getenv(EnvGuests) != everyKernel || Soak()
}

// boot runs one guest and reports what its tests said.
func boot(t *testing.T, c Config, kernel, pattern string) {
	if c.Each != nil && !isFile(kernel) { // modules are built for it, against headers that apt has
		c.Each(t, kernel, &c)
	}
	o, err := options(t.Context(), c, kernel, pattern)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), c.timeout())
	defer cancel()
	res, err := guest.Run(ctx, o)
	t.Logf("%s: booted in %.1fs, done in %.1fs (%s)", res.Release, res.Boot.Seconds(), res.Total.Seconds(), o.Accel)
	for _, l := range res.Log {
		t.Errorf("init: %s", l)
	}
	var got guest.CommandResult
	if len(res.Commands) > 0 {
		got = res.Commands[0]
	}
	tree := parse(strings.NewReader(got.Stdout))
	tree.report(t)
	if s := strings.TrimSpace(got.Stderr); s != "" {
		t.Logf("stderr:\n%s", s)
	}
	switch {
	case err != nil:
		t.Error(err)
	case got.Code != 0 && !t.Failed():
		t.Errorf("the tests exited with %d:\n%s\n%s", got.Code, strings.Join(tree.log, "\n"), got.Stderr)
	case len(tree.tests) == 0 && !t.Failed():
		t.Errorf("no test matches %s", pattern)
	}
	if bad := complaint(res.Console); bad != "" && err == nil {
		t.Errorf("the kernel complains: %s\n%s", bad, res.Console)
	}
}

// timeout is how long a guest may take, its boot included.
func (c *Config) timeout() time.Duration {
	if c.Timeout == 0 {
		return 10 * time.Minute
	}
	return c.Timeout
}

// bootTime is what is kept of a guest's time for its boot and its end, so that a test that hangs is ended by its own alarm, which
// shows where it stands.
const bootTime = time.Minute

// complaint finds a kernel's warning or oops in a console; "" if there is none.
func complaint(console string) string {
	for line := range strings.Lines(console) {
		for _, mark := range []string{"BUG: ", "Oops: ", "general protection fault", "WARNING: CPU", "soft lockup", "blocked for more than"} {
			if strings.Contains(line, mark) {
				return strings.TrimSpace(line)
			}
		}
	}
	return ""
}

// options makes the guest for one kernel: the test binary as init and as the one command.
func options(ctx context.Context, c Config, kernel, pattern string) (guest.Options, error) {
	accel, err := guest.ParseAccel(os.Getenv(EnvAccel))
	if err != nil {
		return guest.Options{}, err
	}
	cache, err := guest.UserCache()
	if err != nil {
		return guest.Options{}, err
	}
	k, err := cache.Find(ctx, kernel, "")
	if err != nil {
		return guest.Options{}, err
	}
	self, err := os.Executable()
	if err != nil {
		return guest.Options{}, err
	}
	mods, err := present(k, c.Modules)
	if err != nil {
		return guest.Options{}, err
	}
	data, err := testdata()
	if err != nil {
		return guest.Options{}, err
	}
	args := append([]string{"/init", "-test.v=test2json", "-test.run=" + pattern, "-test.timeout=" + (c.timeout() - bootTime).String()}, passedFlags()...)
	return guest.Options{
		Kernel: k, Init: self, Accel: accel, Modules: mods, Mem: c.Mem, CPUs: c.CPUs, QEMUArgs: c.QEMUArgs, Pack: c.Pack,
		Files:  append(data, c.Files...),
		Append: append([]string{"oops=panic"}, c.Append...),
		Commands: []pid1.Command{{
			Args: args, Dir: workDir,
			Env: append([]string{envGuest + "=" + kernel, EnvSoak + "=" + os.Getenv(EnvSoak)}, c.Env...),
		}},
	}, nil
}

// passedFlags are the flags of this run that mean something in a guest: -short, and the part of -run below the kernel's
// name (-run TestGuest/debian-6.1/TestX).
func passedFlags() []string {
	var args []string
	if testing.Short() {
		args = append(args, "-test.short")
	}
	if f := flag.Lookup("test.run"); f != nil {
		if parts := strings.SplitN(f.Value.String(), "/", 3); len(parts) == 3 {
			args = append(args, "-test.run="+parts[2])
		}
	}
	return args
}

// present leaves out the modules that are wanted only if a kernel has them.
func present(k guest.Kernel, mods []string) ([]string, error) {
	var out []string
	dir, err := k.Modules()
	if err != nil {
		return nil, err
	}
	for _, m := range mods {
		name, params, _ := strings.Cut(m, " ")
		name, optional := strings.CutSuffix(name, "?")
		if !optional || dir.Has(name) {
			out = append(out, strings.TrimSpace(name+" "+params))
		}
	}
	return out, nil
}

// testdata lists the package's test files for the guest.
func testdata() ([]guest.File, error) {
	files := []guest.File{{Name: path.Join(workDir, ".keep")}}
	err := filepath.WalkDir("testdata", func(name string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && d.Type().IsRegular() {
			files = append(files, guest.File{Name: path.Join(workDir, filepath.ToSlash(name)), Path: name})
		}
		return err
	})
	return files, err
}

// Named skips a test of a kernel that FATHOM_GUESTS does not name.
func Named(t testing.TB, name string) {
	t.Helper()
	names, err := wanted(os.Getenv(EnvGuests))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(names, name) {
		t.Skip(EnvGuests + " does not name " + name)
	}
}

// Bootable gives a kernel for a test that boots its own guest; the test is skipped if FATHOM_GUESTS does not name it.
func Bootable(t testing.TB, name string) guest.Kernel {
	t.Helper()
	Named(t, name)
	cache, err := guest.UserCache()
	if err != nil {
		t.Fatal(err)
	}
	k, err := cache.Kernel(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Fathom builds the fathom binary for guests, once per test process, and returns it as a file at /usr/bin/fathom.
func Fathom(t testing.TB) guest.File {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "fathom")
	cmd := goCommand("build", "-trimpath", "-o", bin, "github.com/fathom-trace/fathom/cmd/fathom")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build fathom: %v\n%s", err, bytes.TrimSpace(out))
	}
	return guest.File{Name: "/usr/bin/fathom", Path: bin}
}

// String names a kernel and its features, for tests that print the table.
func (k Kernel) String() string { return fmt.Sprintf("%s %v", k.Name, k.Must) }
